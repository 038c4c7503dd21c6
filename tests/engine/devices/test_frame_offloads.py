"""Checksums, large segments and VLAN tags, against packets written by the user-mode network's own code."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from timevm.engine.devices.frame_offloads import (
    TCP,
    UDP,
    segments,
    with_ip_checksum,
    with_payload_checksum,
    with_vlan_tag,
)
from timevm.network.packets import TYPE_IPV4, Ethernet, Packet, Udp
from timevm.network.tcp_segment import Flag, Segment

SOURCE, TARGET = bytes([10, 0, 2, 15]), bytes([10, 0, 2, 2])


def whole(protocol: int, payload: bytes) -> bytes:
    """A frame as it should leave."""
    if protocol == UDP:
        data = Udp(5000, 53, payload).write(SOURCE, TARGET)
    else:
        data = Segment(40_000, 80, 0xFFFF_FF00, 7, Flag.ACK | Flag.PSH | Flag.FIN, 1000, payload).write(SOURCE, TARGET)
    [packet] = Packet(SOURCE, TARGET, protocol, data).write(0xFFFF)
    return Ethernet(b"\2" * 6, b"\4" * 6, TYPE_IPV4, packet).write()


@given(st.sampled_from([TCP, UDP]), st.binary(max_size=1400))
def test_checksums_are_filled_in(protocol: int, payload: bytes) -> None:
    right = whole(protocol, payload)
    at = 34 + (16 if protocol == TCP else 6)
    bare = right[:24] + b"\xab\xcd" + right[26:at] + b"\x12\x34" + right[at + 2 :]
    assert with_payload_checksum(with_ip_checksum(bare), protocol) == right
    assert with_payload_checksum(bare, UDP if protocol == TCP else TCP) == bare


@given(st.binary(min_size=1, max_size=9000), st.integers(200, 1460))
def test_a_large_segment_is_cut_up(payload: bytes, size: int) -> None:
    frame = Ethernet(
        b"\2" * 6,
        b"\4" * 6,
        TYPE_IPV4,
        whole(TCP, b"")[14:54] + payload,
    ).write()[: 54 + len(payload)]
    got = b""
    cut = list(segments(frame, size))
    for index, each in enumerate(cut):
        ethernet = Ethernet.read(each)
        assert ethernet is not None
        packet = Packet.read(ethernet.payload)
        assert packet is not None, "its IPv4 header is wrong"
        segment = Segment.read(packet)
        assert segment is not None, "its TCP checksum is wrong"
        assert segment.sequence == (0xFFFF_FF00 + len(got)) % (1 << 32)
        assert bool(segment.flags & Flag.FIN) is (index == len(cut) - 1)
        assert len(segment.payload) <= size
        assert int.from_bytes(each[18:20], "big") == (0xFFFF + index) & 0xFFFF
        got += segment.payload
    assert got == payload and len(cut) == -(-len(payload) // size)


@given(st.binary(max_size=200), st.integers(1, 2000), st.booleans())
def test_what_is_no_packet_goes_as_it_is(frame: bytes, size: int, typed: bool) -> None:
    if typed:
        frame = frame[:12].ljust(12, b"\0") + b"\x08\x00\x45" + frame[12:]
    with_ip_checksum(frame)
    for protocol in (TCP, UDP):
        with_payload_checksum(frame, protocol)
    assert list(segments(frame, size))


@pytest.mark.parametrize("tag", [0, 5, 0xE123])
def test_a_vlan_tag(tag: int) -> None:
    frame = whole(UDP, b"x")
    tagged = with_vlan_tag(frame, tag)
    assert tagged[:12] + tagged[16:] == frame and tagged[12:16] == b"\x81\x00" + tag.to_bytes(2, "big")
