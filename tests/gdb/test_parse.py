"""Packets → requests: the table has no dead rows, and nothing but BadRequest comes out of garbage."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timevm.gdb.parse import ROWS, BadRequest, parse
from timevm.gdb.requests import (
    Ask,
    Continue,
    InsertStop,
    Monitor,
    ReadMemory,
    Step,
    StepRange,
    StopKind,
    Supported,
    ThreadAlive,
    Transfer,
    Unknown,
    WriteMemory,
)


@pytest.mark.parametrize(
    ("packet", "request_"),
    [
        (b"?", Ask.WHY_STOPPED),
        (b"??", Unknown()),
        (b"", Unknown()),
        (b"qC", Ask.CURRENT_THREAD),
        (b"qCRC:1,2", Unknown()),
        (b"qqemu.sstep", Ask.STEP_FLAGS),
        (b"qqemu.sstepbits", Ask.STEP_BITS),
        (b"bs", Ask.REVERSE_STEP),
        (b"b9600", Unknown()),
        (b"D", Ask.DETACH),
        (b"D;1", Ask.DETACH),
        (b"qAttached:1", Ask.ATTACHED),
        (b"c", Continue()),
        (b"c4000", Continue(0x4000)),
        (b"C05;4000", Continue(0x4000)),
        (b"S0b", Step()),
        (b"vCont;s:p1.1;c:p1.-1", Step()),
        (b"vCont;c:p1.-1", Continue()),
        (b"vCont;s:2;c", None),
        (b"vCont;r40,80:1;c", StepRange(0x40, 0x80)),
        (b"vCont;r40:1", None),
        (b"vCont;s:2", None),
        (b"m40,10", ReadMemory(0x40, 0x10)),
        (b"m40", None),
        (b"m0x40,1", None),
        (b"m-1,1", None),
        (b"m 4,1", None),
        (b"M40,2:beef", WriteMemory(0x40, b"\xbe\xef")),
        (b"M40,2:be ef", None),
        (b"X40,2:\x00\xff", WriteMemory(0x40, b"\x00\xff")),
        (b"Z2,40,8", InsertStop(StopKind.WRITE, 0x40, 8)),
        (b"Z0,40,4;X1,27", InsertStop(StopKind.SOFTWARE, 0x40, 4)),
        (b"Z7,40,8", Unknown()),
        (b"Tp1.1", ThreadAlive(1)),
        (b"T0", ThreadAlive(0)),
        (b"Tp-1.-1", ThreadAlive(-1)),
        (b"Tp1", ThreadAlive(-1)),
        (b"Tp1.", None),
        (b"T", None),
        (b"Tp2.1", None),
        (b"qSupported:a+;b-;c=1", Supported(frozenset({"a+", "b-", "c=1"}))),
        (b"qXfer:features:read:target.xml:0,ffb", Transfer("features", "target.xml", 0, 0xFFB)),
        (b"qXfer:features:write:target.xml:0:x", Unknown()),
        (b"qRcmd,696e666f", Monitor("info")),
        (b"qRcmd,ff", Monitor("\ufffd")),
        (b"qRcmd,6", None),
        (b"vMustReplyEmpty", Unknown()),
    ],
)
def test_packets(packet: bytes, request_: object) -> None:
    """None: it makes no sense."""
    if request_ is None:
        with pytest.raises(BadRequest):
            parse(packet)
    else:
        assert parse(packet) == request_


@given(st.sampled_from([row.word for row in ROWS]), st.binary(max_size=40))
def test_garbage_behind_a_known_word(word: bytes, rest: bytes) -> None:
    try:
        parse(word + rest)
    except BadRequest as wrong:
        assert str(wrong)


@given(st.sampled_from([row.word for row in ROWS]), st.text("0123456789abcdef,;:.-=p", max_size=30))
def test_almost_sense_behind_a_known_word(word: bytes, rest: str) -> None:
    try:
        parse(word + rest.encode())
    except BadRequest as wrong:
        assert str(wrong)


def test_every_row_can_be_reached() -> None:
    words = [row.word for row in ROWS]
    assert len(words) == len(set(words))
    for row in ROWS:
        assert next(other for other in ROWS if row.word.startswith(other.word)) is row
