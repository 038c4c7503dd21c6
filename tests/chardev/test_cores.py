"""The sans-IO cores: telnet, the keys of a shared terminal, time stamps."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from timevm.chardev.mux_keys import Key, LineStamps, MuxKeys, help_text, key_name
from timevm.chardev.telnet import DO, DONT, IAC, SERVER_OPENING, WILL, WONT, TelnetCodec


def merged(items: list[bytes | Key]) -> list[bytes | Key]:
    """Neighbouring pieces of bytes as one."""
    found: list[bytes | Key] = []
    for item in items:
        if isinstance(item, bytes) and found and isinstance(found[-1], bytes):
            found[-1] += item
        else:
            found.append(item)
    return found


def test_the_keys_of_a_shared_terminal() -> None:
    keys = MuxKeys()
    assert keys.feed(b"ab\x01cde\x01\x01f\x01x\x01") == [b"ab", Key.SWITCH, b"de\x01f", Key.EXIT]
    assert keys.feed(b"h\x01q!") == [Key.HELP, b"!"]
    assert MuxKeys(20).feed(b"\x01c\x14c") == [b"\x01c", Key.SWITCH]


@given(st.binary(max_size=60), st.integers(0, 255))
def test_keys_come_out_the_same_byte_by_byte(data: bytes, escape: int) -> None:
    whole, single = MuxKeys(escape), MuxKeys(escape)
    found = [item for index in range(len(data)) for item in single.feed(data[index : index + 1])]
    assert merged(whole.feed(data)) == merged(found)


def test_the_help_names_the_key() -> None:
    assert "Ctrl-T x        leave timevm" in help_text(20)
    assert (key_name(1), key_name(0x5D), key_name(0)) == ("Ctrl-A", "]", "key 0")


def test_time_stamps_stand_before_lines() -> None:
    stamps = LineStamps()
    assert stamps.apply(b"a\n", 0) == b"a\n"
    stamps.switch(1_000_000_000)
    now = 1_000_000_000 + 3_723_004 * 1_000_000
    assert stamps.apply(b"rest\nb\n", now) == b"rest\n[01:02:03.004] b\n"
    assert stamps.apply(b"c", now) == b"[01:02:03.004] c"
    assert stamps.apply(b"d\n", now) == b"d\n"
    stamps.switch(now)
    assert stamps.apply(b"e\n", now) == b"e\n"


def test_telnet_negotiation_and_data() -> None:
    codec = TelnetCodec(server=True)
    assert codec.take_replies() == SERVER_OPENING
    wire = bytes([IAC, DO, 1, IAC, DO, 3, IAC, WILL, 31, 97, 13, 0, 98, IAC, IAC, IAC, 250, 24, 0, IAC, 240, 99])
    assert codec.feed(wire) == b"a\rb\xffc"
    assert codec.take_replies() == bytes([IAC, DONT, 31])
    assert codec.feed(bytes([IAC, DO, 40])) == b""
    assert codec.take_replies() == bytes([IAC, WONT, 40])
    assert codec.encode(b"a\xffb") == b"a\xff\xffb"


@given(st.binary(max_size=200))
def test_telnet_garbage_comes_out_the_same_byte_by_byte(wire: bytes) -> None:
    whole, single = TelnetCodec(server=True), TelnetCodec(server=True)
    assert whole.feed(wire) == b"".join(single.feed(bytes((byte,))) for byte in wire)
    assert whole.take_replies() == single.take_replies()


@given(st.binary(max_size=200))
def test_what_is_encoded_is_decoded(data: bytes) -> None:
    codec = TelnetCodec(server=True)
    codec.feed(bytes([IAC, WILL, 0]))  # the client is binary: CR NUL is two bytes
    assert codec.feed(codec.encode(data)) == data
