"""Packets → requests: one table.  Whoever wants to know what the stub understands reads ``ROWS``."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from timevm.errors import PeerError
from timevm.gdb.requests import (
    Ask,
    Continue,
    InsertStop,
    MemoryRegionAt,
    Monitor,
    ReadMemory,
    ReadRegister,
    RemoveStop,
    Request,
    SelectThread,
    SetPhysicalMemory,
    SetStepFlags,
    Step,
    StepRange,
    StopKind,
    Supported,
    ThreadAlive,
    Transfer,
    Unknown,
    WriteMemory,
    WriteRegister,
    WriteRegisters,
)

#: the one processor is thread 1 of process 1
THREAD = 1
ANY, ALL = 0, -1

_NUMBER = re.compile(r"[0-9a-fA-F]{1,16}")
_THREAD = re.compile(r"(?:p(-1|[0-9a-fA-F]{1,8})(?:\.(?=.))?)?(-1|[0-9a-fA-F]{1,8})?")


class BadRequest(PeerError):
    """A packet that we know by its beginning, and that does not make sense."""


Parser = Callable[[bytes], Request]


@dataclass(frozen=True, slots=True)
class Row:
    """``word``: how the packet begins.  ``parse`` gets the rest; None: there must be none, the packet is ``ask``."""

    word: bytes
    parse: Parser | None = None
    ask: Ask | None = None


# -- pieces of packets


def _text(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        raise BadRequest("the packet holds bytes that are no text") from None


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise BadRequest(f"'{text[:20]}' is no hexadecimal number")
    return int(text, 16)


def _numbers(text: str, count: int) -> list[int]:
    parts = text.split(",")
    if len(parts) != count:
        raise BadRequest(f"{count} numbers were expected, not '{text[:40]}'")
    return [_number(part) for part in parts]


def _hex_bytes(data: bytes) -> bytes:
    try:
        # bytes.fromhex would also take white space
        if not data.isalnum() and data:
            raise ValueError
        return bytes.fromhex(data.decode("ascii"))
    except ValueError:
        raise BadRequest("the packet does not end in pairs of hexadecimal digits") from None


def _thread(text: str) -> int:
    """``1``, ``0`` (any), ``-1`` (all), ``p1.1``, ``p1`` (all of it) …; raises BadRequest for one that is not there."""
    match = _THREAD.fullmatch(text)
    if not text or match is None or not any(match.groups()):
        raise BadRequest(f"'{text[:20]}' names no thread")
    process, thread = (None if part is None else int(part, 16) for part in match.groups())
    if process not in (None, ALL, ANY, 1) or thread not in (None, ALL, ANY, THREAD):
        raise BadRequest(f"there is no thread {text}")
    return ALL if thread is None else thread


def _split(data: bytes, separator: bytes) -> tuple[str, bytes]:
    head, found, rest = data.partition(separator)
    if not found:
        raise BadRequest(f"'{separator.decode()}' is missing")
    return _text(head), rest


# -- the packets that have arguments


def _supported(rest: bytes) -> Request:
    return Supported(frozenset(part for part in _text(rest.removeprefix(b":")).split(";") if part))


def _write_register(rest: bytes) -> Request:
    number, data = _split(rest, b"=")
    return WriteRegister(_number(number), _hex_bytes(data))


def _sized(rest: bytes) -> tuple[int, int, bytes]:
    """``address,length:data``"""
    place, data = _split(rest, b":")
    address, length = _numbers(place, 2)
    return address, length, data


def _write_memory(rest: bytes) -> Request:
    address, length, data = _sized(rest)
    contents = _hex_bytes(data)
    if len(contents) != length:
        raise BadRequest(f"{length} bytes were announced, {len(contents)} came")
    return WriteMemory(address, contents)


def _write_memory_binary(rest: bytes) -> Request:
    address, length, data = _sized(rest)
    if len(data) != length:
        raise BadRequest(f"{length} bytes were announced, {len(data)} came")
    return WriteMemory(address, data)


def _read_memory(rest: bytes) -> Request:
    return ReadMemory(*_numbers(_text(rest), 2))


def _select_thread(rest: bytes) -> Request:
    text = _text(rest)
    if text[:1] not in ("g", "c", "m", "M", "G"):
        return Unknown()
    return SelectThread(text[0], _thread(text[1:]))


def _address(rest: bytes) -> int | None:
    return _number(_text(rest)) if rest else None


def _after_signal(rest: bytes) -> int | None:
    """``05`` or ``05;address``"""
    signal, _, address = rest.partition(b";")
    _number(_text(signal))
    return _address(address)


def _stop(rest: bytes) -> tuple[StopKind, int, int]:
    """``kind,address,size``; conditions and commands that may follow are for clients who were told that we take any."""
    kind, address, size = _numbers(_text(rest.partition(b";")[0]), 3)
    return StopKind(kind), address, size


def _stop_request(rest: bytes, make: type[InsertStop] | type[RemoveStop]) -> Request:
    try:
        return make(*_stop(rest))
    except ValueError:
        return Unknown()


def _resume(rest: bytes) -> Request:
    """``vCont;action:thread;…``: the first action that means our thread."""
    for part in _text(rest).split(";"):
        action, _, thread = part.partition(":")
        if thread and _thread(thread) not in (ALL, ANY, THREAD):
            continue
        match action[:1]:
            case "c" if action == "c":
                return Continue()
            case "s" if action == "s":
                return Step()
            case "C":
                _number(action[1:])
                return Continue()
            case "S":
                _number(action[1:])
                return Step()
            case "r":
                return StepRange(*_numbers(action[1:], 2))
            case "t" if action == "t":
                return Ask.STAY
            case _:
                raise BadRequest(f"'{action[:20]}' is no way to resume")
    raise BadRequest("no action for the thread")


def _transfer(rest: bytes) -> Request:
    parts = _text(rest).split(":")
    if len(parts) != 4 or parts[1] != "read":
        return Unknown()
    name, _, annex, place = parts
    return Transfer(name, annex, *_numbers(place, 2))


def _monitor(rest: bytes) -> Request:
    return Monitor(_hex_bytes(rest).decode("utf-8", errors="replace"))


def _flag(rest: bytes) -> Request:
    value = _number(_text(rest))
    if value > 1:
        raise BadRequest("0 or 1 was expected")
    return SetPhysicalMemory(bool(value))


def _only_thread(rest: bytes, ask: Ask) -> Request:
    _thread(_text(rest))
    return ask


def _only_process(rest: bytes, ask: Ask) -> Request:
    if rest and _number(_text(rest[1:])) != 1:
        raise BadRequest("there is no such process")
    return ask


#: by the beginning of the packet; the longest that fits counts
ROWS: tuple[Row, ...] = tuple(
    sorted(
        (
            *(
                Row(ask.value.encode(), None, ask)
                for ask in (
                    Ask.WHY_STOPPED,
                    Ask.EXTENDED_MODE,
                    Ask.READ_REGISTERS,
                    Ask.REVERSE_STEP,
                    Ask.REVERSE_CONTINUE,
                    Ask.KILL,
                    Ask.RESUME_KINDS,
                    Ask.INTERRUPT,
                    Ask.CURRENT_THREAD,
                    Ask.FIRST_THREADS,
                    Ask.MORE_THREADS,
                    Ask.ATTACHED,
                    Ask.NO_ACKNOWLEDGEMENTS,
                    Ask.THREAD_SUFFIX,
                    Ask.PHYSICAL_MEMORY,
                    Ask.STEP_BITS,
                    Ask.STEP_FLAGS,
                    Ask.QEMU_SUPPORTED,
                    Ask.ICOUNT,
                    Ask.REFRESHES,
                )
            ),
            Row(b"qSupported", _supported),
            Row(b"qAttached:", lambda rest: _only_process(b":" + rest, Ask.ATTACHED)),
            Row(b"qSymbol:", lambda rest: Ask.SYMBOLS),
            Row(b"qThreadExtraInfo,", lambda rest: _only_thread(rest, Ask.THREAD_DESCRIPTION)),
            Row(b"qXfer:", _transfer),
            Row(b"qRcmd,", _monitor),
            Row(b"qMemoryRegionInfo:", lambda rest: MemoryRegionAt(_number(_text(rest)))),
            Row(b"Qqemu.PhyMemMode:", _flag),
            Row(b"Qqemu.sstep=", lambda rest: SetStepFlags(_number(_text(rest)))),
            Row(b"G", lambda rest: WriteRegisters(_hex_bytes(rest))),
            Row(b"p", lambda rest: ReadRegister(_number(_text(rest)))),
            Row(b"P", _write_register),
            Row(b"m", _read_memory),
            Row(b"M", _write_memory),
            Row(b"X", _write_memory_binary),
            Row(b"H", _select_thread),
            Row(b"T", lambda rest: ThreadAlive(_thread(_text(rest)))),
            Row(b"c", lambda rest: Continue(_address(rest))),
            Row(b"C", lambda rest: Continue(_after_signal(rest))),
            Row(b"s", lambda rest: Step(_address(rest))),
            Row(b"S", lambda rest: Step(_after_signal(rest))),
            Row(b"D", lambda rest: _only_process(rest, Ask.DETACH)),
            Row(b"Z", lambda rest: _stop_request(rest, InsertStop)),
            Row(b"z", lambda rest: _stop_request(rest, RemoveStop)),
            Row(b"vCont;", _resume),
            Row(b"vAttach;", lambda rest: _only_process(b";" + rest, Ask.ATTACH)),
            Row(b"vKill;", lambda rest: _only_process(b";" + rest, Ask.KILL_AND_ANSWER)),
        ),
        key=lambda row: -len(row.word),
    )
)


def parse(data: bytes) -> Request:
    """Raises BadRequest.  About 5 us."""
    for row in ROWS:
        if data.startswith(row.word):
            rest = data[len(row.word) :]
            if row.parse is not None:
                return row.parse(rest)
            if not rest and row.ask is not None:
                return row.ask
    return Unknown()
