"""One JSON text → Python values, with QEMU's liberties and sentences (QEMU: ``qobject/json-parser.c``)."""

from __future__ import annotations

import re
from typing import Any

from timevm.errors import PeerError
from timevm.monitor.qmp.json_stream import MAX_NESTING

_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
    (?P<structure>[{}\[\],:])
    | (?P<string>"(?:[^"\\]|\\.)*" | '(?:[^'\\]|\\.)*')
    | (?P<float>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][+-]?[0-9]+)?|[eE][+-]?[0-9]+))(?![a-zA-Z0-9.+\-])
    | (?P<integer>-?(?:0|[1-9][0-9]*))(?![a-zA-Z0-9.+\-])
    | (?P<keyword>[a-z]+)(?![a-zA-Z0-9.+\-])
    | (?P<end>\Z)
    | (?P<stray>[^ \t\r\n{}\[\],:"']+|.)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_SIMPLE_ESCAPES = {
    '"': '"',
    "'": "'",
    "\\": "\\",
    "/": "/",
    "b": "\b",
    "f": "\f",
    "n": "\n",
    "r": "\r",
    "t": "\t",
}
_KEYWORDS = {"true": True, "false": False, "null": None}


class JsonError(PeerError):
    """``str()`` is the answer's ``desc``."""

    def __init__(self, what: str) -> None:
        super().__init__(f"JSON parse error, {what}")


def parse_json(data: bytes) -> Any:
    """The value.  Raises JsonError."""
    try:
        text = data.decode()
    except UnicodeDecodeError as wrong:
        raise JsonError("invalid UTF-8 sequence in string") from wrong
    parser = _Parser(text)
    value = parser.value(0)
    if parser.kind != "end":
        raise JsonError("expecting value")
    return value


class _Parser:
    """Recursive descent; ``kind`` and ``text`` are of the token that comes next."""

    def __init__(self, text: str) -> None:
        self._source = text
        self._position = 0
        self.kind = self.text = ""
        self._advance()

    def _advance(self) -> None:
        match = _TOKEN.match(self._source, self._position)
        assert match is not None and match.lastgroup is not None, "the last alternative matches anything"
        self._position = match.end()
        self.kind, self.text = match.lastgroup, match[match.lastgroup]
        if self.kind == "stray":
            raise JsonError(f"stray '{self.text[:100]}'")

    def _accept(self, structure: str) -> bool:
        if self.kind == "structure" and self.text == structure:
            self._advance()
            return True
        return False

    def value(self, depth: int) -> Any:
        if depth > MAX_NESTING:
            raise JsonError("nesting depth limit exceeded")
        kind, text = self.kind, self.text
        match kind:
            case "string":
                self._advance()
                return _unquoted(text)
            case "integer":
                self._advance()
                return _integer(text)
            case "float":
                self._advance()
                return _float(text)
            case "keyword":
                if text not in _KEYWORDS:
                    raise JsonError(f"invalid keyword '{text[:100]}'")
                self._advance()
                return _KEYWORDS[text]
        if self._accept("{"):
            return self._object(depth)
        if self._accept("["):
            return self._array(depth)
        raise JsonError("expecting value")

    def _object(self, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        if self._accept("}"):
            return members
        while True:
            name = self.value(depth + 1)
            if not isinstance(name, str):
                raise JsonError("key is not a string in object")
            if not self._accept(":"):
                raise JsonError("missing : in object pair")
            value = self.value(depth + 1)
            if name in members:
                raise JsonError("duplicate key")
            members[name] = value
            if self._accept("}"):
                return members
            if not self._accept(","):
                raise JsonError("expected separator in dict")

    def _array(self, depth: int) -> list[Any]:
        elements: list[Any] = []
        if self._accept("]"):
            return elements
        while True:
            elements.append(self.value(depth + 1))
            if self._accept("]"):
                return elements
            if not self._accept(","):
                raise JsonError("expected separator in list")


def _integer(text: str) -> int | float:
    """Beyond 64 bits an integer is a float, as in QEMU."""
    # Python refuses to convert thousands of digits; such a number is a float long before
    if len(text) > 20:
        return _float(text)
    value = int(text)
    return value if -(1 << 63) <= value < 1 << 64 else float(value)


def _float(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise JsonError(f"number out of range '{text[:100]}'")
    return value


def _unquoted(text: str) -> str:
    if "\\" not in text:
        return text[1:-1]
    plain = _ESCAPE.sub(_unescape, text[1:-1])
    try:
        # pairs of surrogates become one character; a lonely one is refused
        return plain.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError as wrong:
        raise JsonError("invalid unicode escape sequence in string") from wrong


def _unescape(match: re.Match[str]) -> str:
    escape = match[1]
    if escape[0] == "u" and len(escape) == 5:
        return chr(int(escape[1:], 16))
    if escape not in _SIMPLE_ESCAPES:
        raise JsonError(f"invalid escape sequence '\\{escape}' in string")
    return _SIMPLE_ESCAPES[escape]
