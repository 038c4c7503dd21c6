"""What Tab offers, and how a line is coloured while it is typed."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.formatted_text import StyleAndTextTuples
from prompt_toolkit.lexers import Lexer

from timevm.monitor.hmp.information import INFORMATION
from timevm.monitor.hmp.line import SNAPSHOT_COMMANDS, TOP
from timevm.monitor.hmp.table import HmpCommand, find

_REGISTER = re.compile(r"\$([A-Za-z0-9_]*)$")
_PIECES = re.compile(r"(?P<register>\$\w+)|(?P<number>\b(?:0x[0-9a-fA-F]+|\d+)\b)|(?P<string>\"[^\"]*\"?)|.", re.DOTALL)


class HmpCompleter(Completer):
    """``tags`` and ``registers`` are asked each time: they change."""

    def __init__(self, tags: Callable[[], Sequence[str]], registers: Callable[[], Sequence[str]]) -> None:
        self._tags = tags
        self._registers = registers

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        before = document.text_before_cursor.lstrip()
        register = _REGISTER.search(before)
        if register is not None:
            yield from _matching(register[1], ((name, "register") for name in self._registers()))
            return
        words = before.split()
        current = words.pop() if words and not before[-1].isspace() else ""
        if not words:
            yield from _matching(current, _names(TOP))
        elif words == ["info"] or words in (["help", "info"], ["?", "info"]):
            yield from _matching(current, _names(INFORMATION))
        elif words in (["help"], ["?"]):
            yield from _matching(current, _names(TOP))
        elif len(words) == 1 and words[0] in SNAPSHOT_COMMANDS:
            yield from _matching(current, ((tag, "snapshot") for tag in self._tags()))
        elif words == ["replay_seek"]:
            yield from _matching(current, (("end", "the end of the recording"),))


def _names(table: Iterable[HmpCommand]) -> Iterable[tuple[str, str]]:
    return ((command.names[0], command.help) for command in table)


def _matching(start: str, choices: Iterable[tuple[str, str]]) -> Iterable[Completion]:
    return (
        Completion(name, start_position=-len(start), display_meta=meta)
        for name, meta in choices
        if name.startswith(start)
    )


class HmpLexer(Lexer):
    """Known commands green, unknown ones red; numbers, registers and strings in colours of their own."""

    def lex_document(self, document: Document) -> Callable[[int], StyleAndTextTuples]:
        lines = document.lines

        def line(number: int) -> StyleAndTextTuples:
            text = lines[number]
            name = re.match(r"\s*[^\s/]*", text)
            head = name[0] if name is not None else ""
            known = find(TOP, head.strip()) is not None
            pieces: StyleAndTextTuples = [("ansigreen bold" if known else "ansired", head)]
            for piece in _PIECES.finditer(text, len(head)):
                pieces.append((_STYLES.get(piece.lastgroup or "", ""), piece[0]))
            return pieces

        return line


_STYLES = {"register": "ansiyellow", "number": "ansicyan", "string": "ansimagenta"}
