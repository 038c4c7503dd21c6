"""Transcripts: what a client sends (``>``) and what comes back (``<``), one packet a line, as data files.

``# text`` is a comment.  ``!>``: the bytes on the wire as they are (with Python escapes), where ``#??`` stands for the
right checksum.  ``*`` at the end of a ``<`` line: anything may follow.  The first line names the toy machine's mode.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from timevm.engine.control.port import ReplayMode
from timevm.gdb.framing import pack

FOLDER = Path(__file__).with_name("transcripts")


@dataclass(frozen=True, slots=True)
class Line:
    number: int
    sent: bool
    raw: bool
    text: str

    @property
    def wire(self) -> bytes:
        data = self.text.encode("latin1").decode("unicode_escape").encode("latin1")
        if not self.raw:
            return pack(data)
        body = data[data.rfind(b"$") + 1 :].removesuffix(b"#??")
        return data.replace(b"#??", b"#%02x" % (sum(body) & 0xFF))

    def fits(self, answer: bytes) -> bool:
        text = answer.decode("latin1")
        if self.text.endswith("*"):
            return text.startswith(self.text[:-1])
        return text == self.text


@dataclass(frozen=True, slots=True)
class Transcript:
    mode: ReplayMode
    end: int | None
    lines: tuple[Line, ...]


def read_transcript(path: Path) -> Transcript:
    header, *rest = path.read_text().splitlines()
    mode, *end = header.removeprefix("mode: ").split()
    lines = []
    for number, line in enumerate(rest, 2):
        if not line or line.startswith("#"):
            continue
        mark, _, text = line.partition(" ")
        assert mark in (">", "<", "!>"), f"{path}:{number}: {line}"
        lines.append(Line(number, mark != "<", mark == "!>", text))
    return Transcript(ReplayMode(mode), int(end[0]) if end else None, tuple(lines))
