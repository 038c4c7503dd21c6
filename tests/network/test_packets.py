"""Packets survive being written and read; no bytes make reading do anything but answer or say None."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timevm.network.packets import Arp, Ethernet, Icmp, Packet, Udp, checksum
from timevm.network.tcp_segment import DEFAULT_MSS, Flag, Segment, reset_for

addresses = st.binary(min_size=4, max_size=4)
hardware = st.binary(min_size=6, max_size=6).filter(lambda address: not address[0] & 1)
ports = st.integers(1, 65_535)
words = st.integers(0, (1 << 32) - 1)


@given(st.binary(max_size=200))
def test_the_checksum_is_the_one_of_the_rfc(data: bytes) -> None:
    padded = data + b"\0" * (len(data) % 2)
    total = sum(int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    assert checksum(data) == total ^ 0xFFFF
    if len(data) % 2 == 0 and any(data):
        assert checksum(data + checksum(data).to_bytes(2, "big")) == 0


@given(hardware, hardware, st.integers(0, 65_535), st.binary(min_size=46, max_size=1500))
def test_ethernet(target: bytes, source: bytes, kind: int, payload: bytes) -> None:
    frame = Ethernet(target, source, kind, payload)
    assert Ethernet.read(frame.write()) == frame


@given(st.sampled_from([1, 2]), hardware, addresses, hardware, addresses)
def test_arp(operation: int, source_hardware: bytes, source: bytes, target_hardware: bytes, target: bytes) -> None:
    arp = Arp(operation, source_hardware, source, target_hardware, target)
    assert Arp.read(arp.write() + bytes(18)) == arp


@given(addresses, addresses, ports, ports, st.binary(max_size=1400), words, words)
def test_everything_in_an_ipv4_packet(
    source: bytes, target: bytes, one: int, other: int, payload: bytes, sequence: int, acknowledged: int
) -> None:
    datagram = Udp(one, other, payload)
    segment = Segment(one, other, sequence, acknowledged, Flag.ACK | Flag.PSH, 1000, payload, 1460)
    message = Icmp(8, 0, payload.ljust(4, b"\0"))
    for protocol, data in ((17, datagram.write(source, target)), (6, segment.write(source, target))):
        [whole] = Packet(source, target, protocol, data).write(7)
        packet = Packet.read(whole + bytes(10))
        assert packet is not None and (packet.source, packet.target, packet.payload) == (source, target, data)
        assert packet.head == whole[:28]
        assert Udp.read(packet) == datagram if protocol == 17 else Segment.read(packet) == segment
    assert Icmp.read(message.write()) == message


def test_a_large_packet_goes_in_fragments() -> None:
    payload = bytes(range(256)) * 20
    parts = list(Packet(b"abcd", b"efgh", 17, payload).write(9))
    assert [len(part) for part in parts] == [1500, 1500, 1500, 20 + len(payload) - 3 * 1480]
    assert b"".join(part[20:] for part in parts) == payload
    offsets = [int.from_bytes(part[6:8], "big") for part in parts]
    assert [offset & 0x1FFF for offset in offsets] == [0, 185, 370, 555]
    assert [bool(offset & 0x2000) for offset in offsets] == [True, True, True, False]
    assert all(checksum(part[:20]) == 0 for part in parts)
    assert [Packet.read(part) for part in parts] == [None] * 4


READERS: list[Callable[[bytes], object]] = [
    Ethernet.read,
    Arp.read,
    Packet.read,
    Icmp.read,
    lambda data: Udp.read(Packet(b"abcd", b"efgh", 17, data)),
    lambda data: Segment.read(Packet(b"abcd", b"efgh", 6, data)),
]


@pytest.mark.parametrize("reader", READERS)
@given(data=st.binary(max_size=100))
def test_garbage_is_read_or_not(reader: Callable[[bytes], object], data: bytes) -> None:
    reader(data)


@given(st.data())
def test_a_flipped_bit_is_found(data: st.DataObject) -> None:
    segment = Segment(1, 2, 3, 4, Flag.ACK, 5, b"payload")
    written = bytearray(segment.write(b"abcd", b"efgh"))
    at = data.draw(st.integers(0, 8 * len(written) - 1))
    written[at // 8] ^= 1 << at % 8
    assert Segment.read(Packet(b"abcd", b"efgh", 6, bytes(written))) is None


@given(st.binary(max_size=40))
def test_any_options(options: bytes) -> None:
    padded = options + bytes(-len(options) % 4)
    plain = Segment(1, 2, 3, 4, Flag.SYN, 5).write(b"abcd", b"efgh")
    whole = bytearray(plain[:12] + bytes([(20 + len(padded)) // 4 << 4]) + plain[13:] + padded)
    whole[16:18] = bytes(2)
    whole[16:18] = checksum(b"abcdefgh" + bytes([0, 6, 0, len(whole)]) + whole).to_bytes(2, "big")
    segment = Segment.read(Packet(b"abcd", b"efgh", 6, bytes(whole)))
    assert segment is not None and 0 <= segment.mss < 65_536 and segment.payload == b""


def test_the_size_of_segments_is_among_other_options() -> None:
    segment = Segment(1, 2, 3, 0, Flag.SYN, 5, mss=1460)
    assert segment.write(b"abcd", b"efgh")[20:24] == bytes([2, 4, 5, 180])
    assert DEFAULT_MSS == 536


def test_what_belongs_to_nothing_is_reset() -> None:
    syn = Segment(1, 2, 100, 0, Flag.SYN, 5)
    assert reset_for(syn) == Segment(2, 1, 0, 101, Flag.RST | Flag.ACK, 0)
    assert reset_for(Segment(1, 2, 100, 77, Flag.ACK, 5, b"xx")) == Segment(2, 1, 77, 0, Flag.RST, 0)
    assert reset_for(Segment(1, 2, 100, 0, Flag.RST, 5)) is None
