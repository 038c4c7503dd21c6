"""The framing: anything that is packed is read again, in pieces of any size, and garbage is only ever garbage."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from timevm.gdb.framing import (
    Acknowledged,
    Damaged,
    Interrupted,
    Item,
    Malformed,
    Oversized,
    Packet,
    PacketReader,
    Refused,
    pack,
    unpack,
)
from timevm.gdb.link import PACKET_SIZE, Link

LIMIT = 64


def read(data: bytes, cuts: list[int] | None = None, limit: int = LIMIT) -> list[Item]:
    """Everything in ``data``, fed in pieces of these lengths (then whole)."""
    reader = PacketReader(limit)
    items: list[Item] = []
    for cut in cuts or []:
        items += reader.feed(data[:cut])
        data = data[cut:]
    return items + reader.feed(data)


cuts = st.lists(st.integers(1, 9), max_size=40)


@given(st.lists(st.binary(max_size=LIMIT // 2), max_size=5), cuts)
def test_what_is_packed_is_read_again(payloads: list[bytes], cuts: list[int]) -> None:
    wire = b"+".join(pack(payload) for payload in payloads)
    items = read(wire, cuts)
    assert [item.data for item in items if isinstance(item, Packet)] == payloads
    assert all(isinstance(item, Packet | Acknowledged) for item in items)


@given(st.binary(max_size=300), cuts)
@example(b"$" * 100, [1] * 40)
@example(b"$" + b"a" * 200 + b"#", [])
def test_garbage_in_any_pieces_is_read_in_the_same_way(data: bytes, cuts: list[int]) -> None:
    assert read(data, cuts) == read(data, [1] * len(data)) == read(data)


@given(st.binary(max_size=200))
def test_after_any_garbage_a_packet_is_read(data: bytes) -> None:
    items = read(data + b"#00" + pack(b"g"))
    assert items[-1] == Packet(b"g")


@given(st.binary(min_size=1, max_size=LIMIT // 2), st.integers(0, 1000), st.integers(1, 255))
def test_a_changed_byte_is_no_silent_change(payload: bytes, where: int, change: int) -> None:
    wire = bytearray(pack(payload))
    wire[where % len(wire)] ^= change
    packets = [item for item in read(bytes(wire)) if isinstance(item, Packet)]
    # the checksum's own digits may be written in the other case
    assert not packets or (packets == [Packet(payload)] and wire.lower() == pack(payload).lower())


@given(st.binary(max_size=100), st.integers(1, 200))
def test_unpacking_takes_any_bytes_and_keeps_to_the_limit(body: bytes, limit: int) -> None:
    unpacked = unpack(body, limit)
    assert unpacked is None or len(unpacked) <= max(limit, len(body))


def test_the_single_cases() -> None:
    assert read(b"\x03+-x") == [Interrupted(), Acknowledged(), Refused()]
    assert read(b"$g#00") == [Damaged()]
    assert read(b"$g#zz") == [Damaged()]
    assert read(b"$g#+7") == [Damaged()]
    assert read(b"$g$g#67") == [Damaged(), Packet(b"g")]
    assert read(b"$0* #7a") == [Packet(b"0000")]
    assert read(b"$*~#a8") == [Malformed()]
    assert read(pack(b"$#}*")) == [Packet(b"$#}*")]
    assert read(b"$\x03#03") == [Packet(b"\x03")], "a byte 3 inside of a packet is data"


def test_too_long_packets_are_counted_and_dropped() -> None:
    long = pack(b"a" * 1000)
    assert read(long) == [Oversized()]
    assert read(long, [7] * 100) == [Oversized()]
    assert read(long[:-1] + b"x") == [Damaged()]
    assert read(long + pack(b"g"), [13] * 60) == [Oversized(), Packet(b"g")]
    assert read(pack(b"a" * LIMIT)) == [Packet(b"a" * LIMIT)]
    reader = PacketReader(LIMIT)
    for _ in range(1000):
        reader.feed(b"$" if _ == 0 else b"a" * 100)
    assert len(reader._waiting) <= LIMIT + 100, "what is too much is not kept"


def test_a_link_acknowledges_and_repeats() -> None:
    link = Link()
    assert link.feed(b"$g#67$g#00").answer == b"+-"
    first, second = link.send(b"O61"), link.send(b"OK")
    assert link.feed(b"-").answer == first + second
    assert link.feed(b"+---").answer == second
    assert link.feed(b"+-").answer == b""
    link.stop_acknowledging()
    link.send(b"OK")
    arrived = link.feed(b"$g#67$g#00-")
    assert arrived.answer == b""
    assert arrived.packets == [Packet(b"g")]


def test_the_longest_packet_that_we_announce_fits() -> None:
    (packet,) = Link().feed(pack(b"a" * PACKET_SIZE)).packets
    assert packet == Packet(b"a" * PACKET_SIZE)
