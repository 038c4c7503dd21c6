"""The user-mode network without sockets: who answers what, who leads where, what is refused; and nonsense."""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.network.guest_box import ADDRESS, GATEWAY, HARDWARE, NAMESERVER, GuestBox
from timevm.network.actions import Abort, Action, Connect, Datagram, Deliver, Forget, Write
from timevm.network.packets import (
    ARP_REPLY,
    ARP_REQUEST,
    BROADCAST,
    ECHO_REPLY,
    ECHO_REQUEST,
    EVERYBODY,
    ICMP,
    TCP,
    TYPE_ARP,
    TYPE_IPV4,
    UDP,
    UNREACHABLE,
    Arp,
    Ethernet,
    Icmp,
    Packet,
    Udp,
)
from timevm.network.settings import Forward, UserSettings
from timevm.network.tcp_segment import Flag, Segment
from timevm.network.user_stack import MOST_CONNECTIONS, MOST_DATAGRAM_FLOWS, SILENCE, UserStack

FAR_AWAY = bytes([93, 184, 216, 34])


class World:
    """A stack and the guest on it; ``asked`` is what the host is asked for."""

    def __init__(self, settings: UserSettings | None = None, nameserver: tuple[str, int] | None = ("9.9.9.9", 53)):
        numbers = count(1)
        self.stack = UserStack(settings or UserSettings(), nameserver, lambda: next(numbers) * 1000)
        self.guest = GuestBox()
        self.now = 100.0
        self.asked: list[Action] = []

    def carry(self, actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Deliver):
                self.guest.take(action.frame, self.now)
            else:
                self.asked.append(action)

    def go(self) -> None:
        """Until nobody has anything to say."""
        while frames := self.guest.flush(self.now):
            self.carry(self.stack.frames(frames, self.now))

    def meet(self) -> World:
        self.guest.ask_for_gateway()
        self.go()
        return self


def test_the_gateway_and_the_name_server_are_there_and_nobody_else() -> None:
    world = World().meet()
    [reply] = world.guest.arps
    assert reply == Arp(ARP_REPLY, b"\x52\x55\x0a\0\2\2", GATEWAY, HARDWARE, ADDRESS)
    for target, answers in ((NAMESERVER, 1), (bytes([10, 0, 2, 9]), 0), (ADDRESS, 0), (FAR_AWAY, 0)):
        question = Arp(ARP_REQUEST, HARDWARE, ADDRESS, bytes(6), target)
        frame = Ethernet(BROADCAST, HARDWARE, TYPE_ARP, question.write()).write()
        assert len(world.stack.frames([frame], 0.0)) == answers


def test_echo() -> None:
    world = World().meet()
    request = Icmp(ECHO_REQUEST, 0, b"\0\1\0\1payload")
    for target in (GATEWAY, NAMESERVER):
        world.guest.send(Packet(ADDRESS, target, ICMP, request.write()))
        world.go()
        packet = world.guest.packets.pop()
        assert (packet.source, packet.target) == (target, ADDRESS)
        assert Icmp.read(packet.payload) == replace(request, kind=ECHO_REPLY)
    world.guest.send(Packet(ADDRESS, FAR_AWAY, ICMP, request.write()))
    world.go()
    message = Icmp.read(world.guest.packets.pop().payload)
    assert message is not None and message.kind == UNREACHABLE and FAR_AWAY in message.rest


@pytest.mark.parametrize(
    ("target", "port", "host", "host_port"),
    [
        (GATEWAY, 53, "127.0.0.1", 53),
        (GATEWAY, 8080, "127.0.0.1", 8080),
        (NAMESERVER, 53, "9.9.9.9", 53),
        (FAR_AWAY, 443, "93.184.216.34", 443),
    ],
)
def test_where_addresses_lead(target: bytes, port: int, host: str, host_port: int) -> None:
    world = World().meet()
    world.guest.send_datagram(target, port, b"hello")
    world.go()
    [datagram] = world.asked
    assert isinstance(datagram, Datagram)
    assert (datagram.host, datagram.port, datagram.data) == (host, host_port, b"hello")
    world.carry(world.stack.datagram(datagram.flow, b"answer", world.now))
    assert world.guest.datagrams() == [(target, Udp(port, 5000, b"answer"))]
    world.asked.clear()
    connection = world.guest.connect(target, port, world.now)
    world.go()
    [connect] = world.asked
    assert isinstance(connect, Connect) and (connect.host, connect.port) == (host, host_port)
    world.carry(world.stack.connected(connect.flow, world.now))
    world.go()
    assert connection.is_open


NOWHERE = [
    (NAMESERVER, 80),
    (bytes([10, 0, 2, 77]), 80),
    (bytes([127, 0, 0, 1]), 80),
    (bytes([240, 0, 0, 1]), 80),
    (bytes(4), 80),
]


@pytest.mark.parametrize(("target", "port"), NOWHERE)
def test_where_they_do_not_lead(target: bytes, port: int) -> None:
    world = World().meet()
    connection = world.guest.connect(target, port, world.now)
    world.guest.send_datagram(target, port, b"hello")
    world.go()
    assert world.asked == [] and connection.was_reset
    [complaint] = world.guest.packets
    assert complaint.payload[0] == UNREACHABLE


@pytest.mark.parametrize("target", [EVERYBODY, bytes([224, 0, 0, 251])])
def test_what_is_for_everybody_is_for_nobody(target: bytes) -> None:
    world = World().meet()
    world.guest.send_datagram(target, 5353, b"who is there")
    world.go()
    assert world.asked == [] and world.guest.packets == []


def test_a_restricted_guest_reaches_nothing_but_is_reached() -> None:
    rule = Forward.parse("tcp::0-:22")
    world = World(UserSettings(restricted=True, forwards=(rule,))).meet()
    for target in (GATEWAY, NAMESERVER, FAR_AWAY):
        world.guest.send_datagram(target, 53, b"hello")
        assert world.guest.connect(target, 53, world.now, source_port=target[3] + 1000)
    world.go()
    assert world.asked == [] and all(each.was_reset for each in world.guest.tcp.values())
    arrived = world.guest.listen(22)
    begun = world.stack.forward_connection(rule, world.now)
    assert begun is not None
    world.carry(begun[1])
    world.go()
    assert len(arrived) == 1 and arrived[0].is_open


def test_a_guest_that_nobody_knows_is_asked_for() -> None:
    rule = Forward.parse("tcp::0-:22")
    world = World()
    arrived = world.guest.listen(22)
    begun = world.stack.forward_connection(rule, world.now)
    assert begun is not None
    flow, actions = begun
    world.carry(actions)
    assert world.guest.arps[0].operation == ARP_REQUEST and world.guest.arps[0].target == ADDRESS
    world.go()
    assert arrived[0].is_open
    world.carry(world.stack.bring(flow, b"SSH-2.0", world.now))
    arrived[0].say(b"hello", world.now)
    world.go()
    assert arrived[0].received == b"SSH-2.0"
    assert Write(flow, b"hello") in world.asked


def dhcp(kind: int, *options: tuple[int, bytes], hardware: bytes = HARDWARE, client: bytes = bytes(4)) -> bytes:
    fixed = struct.pack(
        "!BBBBIHH4s4s4s4s16s64s128s", 1, 1, 6, 0, 0x1234, 0, 0, client, b"", b"", b"", hardware, b"", b""
    )
    told = b"".join(bytes((code, len(data))) + data for code, data in ((53, bytes([kind])), *options))
    return fixed + b"\x63\x82\x53\x63" + told + b"\xff"


def ask_dhcp(world: World, request: bytes, hardware: bytes = HARDWARE) -> dict[int, bytes]:
    """The answer's options, and its ``yiaddr`` as option 0."""
    payload = Udp(68, 67, request).write(bytes(4), EVERYBODY)
    [part] = Packet(bytes(4), EVERYBODY, UDP, payload).write(0)
    actions = world.stack.frames([Ethernet(BROADCAST, hardware, TYPE_IPV4, part).write()], world.now)
    if not actions:
        return {}
    [delivered] = actions
    assert isinstance(delivered, Deliver) and delivered.frame[:6] == hardware
    packet = Packet.read(delivered.frame[14:])
    assert packet is not None and packet.source == GATEWAY and packet.target == EVERYBODY
    datagram = Udp.read(packet)
    assert datagram is not None and (datagram.source_port, datagram.target_port) == (67, 68)
    data = datagram.payload
    assert data[0] == 2 and data[4:8] == b"\0\0\x12\x34" and data[28:34] == hardware
    found = {0: data[16:20]}
    at = 240
    while data[at] != 255:
        found[data[at]] = data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]
    return found


def test_dhcp() -> None:
    world = World(UserSettings(host_name="box", domain_name="example", search=("a.b",)))
    offer = ask_dhcp(world, dhcp(1))
    assert offer[53] == b"\2" and offer[0] == ADDRESS
    assert offer[1] == bytes([255, 255, 255, 0]) and offer[3] == GATEWAY and offer[6] == NAMESERVER
    assert offer[12] == b"box" and offer[15] == b"example" and offer[119] == b"\1a\1b\0" and offer[54] == GATEWAY
    ack = ask_dhcp(world, dhcp(3, (50, ADDRESS), (54, GATEWAY)))
    assert ack[53] == b"\5" and ack[0] == ADDRESS and len(ack[51]) == 4
    assert ask_dhcp(world, dhcp(3, client=ADDRESS))[53] == b"\5"
    assert ask_dhcp(world, dhcp(3, (50, bytes([10, 0, 2, 99]))))[53] == b"\6"
    assert ask_dhcp(world, dhcp(3, (54, bytes([1, 2, 3, 4])))) == {}
    second = bytes.fromhex("525400123457")
    assert ask_dhcp(world, dhcp(1, hardware=second), second)[0] == bytes([10, 0, 2, 16])
    assert ask_dhcp(world, dhcp(8, client=ADDRESS))[53] == b"\5"
    assert ask_dhcp(world, dhcp(7)) == {}


def test_dhcp_of_a_restricted_network_names_no_way_out() -> None:
    offer = ask_dhcp(World(UserSettings(restricted=True)), dhcp(1))
    assert offer[0] == ADDRESS and 3 not in offer and 6 not in offer


def test_addresses_are_given_to_so_many_and_no_more() -> None:
    world = World()
    given = [
        ask_dhcp(world, dhcp(1, hardware=(hardware := bytes([2, 0, 0, 0, 0, number]))), hardware)[53]
        for number in range(20)
    ]
    assert given.count(b"\2") == 16 and given.count(b"\6") == 4


def test_a_guest_that_begins_anew_gets_a_new_connection() -> None:
    world = World().meet()
    world.guest.connect(GATEWAY, 80, world.now)
    world.go()
    [first] = world.asked
    assert isinstance(first, Connect)
    world.carry(world.stack.connected(first.flow, world.now))
    world.go()
    world.guest.tcp.clear()  # it was reset
    again = world.guest.connect(GATEWAY, 80, world.now)
    again.first = 777
    again.out.clear()
    again.connect(world.now)
    world.go()
    assert Abort(first.flow) in world.asked and world.asked[-1] == first
    world.carry(world.stack.connected(first.flow, world.now))
    world.go()
    assert again.is_open


def test_a_guest_cannot_have_everything() -> None:
    world = World().meet()
    for port in range(1000, 1000 + MOST_CONNECTIONS + 5):
        world.guest.connect(GATEWAY, 80, world.now, source_port=port)
        world.guest.send_datagram(FAR_AWAY, 80, b"x", source_port=port)
    world.go()
    assert sum(isinstance(each, Connect) for each in world.asked) == MOST_CONNECTIONS
    assert sum(isinstance(each, Datagram) for each in world.asked) == MOST_DATAGRAM_FLOWS
    assert sum(each.was_reset for each in world.guest.tcp.values()) == 5


def test_silent_datagram_flows_are_forgotten() -> None:
    world = World().meet()
    world.guest.send_datagram(FAR_AWAY, 80, b"x")
    world.go()
    [asked] = world.asked
    assert isinstance(asked, Datagram) and world.stack.deadline == world.now + SILENCE
    assert world.stack.tick(world.now + SILENCE - 1) == []
    assert world.stack.tick(world.now + SILENCE) == [Forget(asked.flow)]
    assert world.stack.deadline is None and world.stack.datagram(asked.flow, b"late", 0.0) == []


def test_a_refused_datagram_is_told() -> None:
    world = World().meet()
    world.guest.send_datagram(GATEWAY, 81, b"x")
    world.go()
    [asked] = world.asked
    assert isinstance(asked, Datagram)
    world.carry(world.stack.refused(asked.flow))
    message = Icmp.read(world.guest.packets.pop().payload)
    assert message is not None and (message.kind, message.code) == (UNREACHABLE, 3)
    assert struct.unpack("!HH", message.rest[24:28]) == (5000, 81)


def test_a_stray_segment_is_reset() -> None:
    world = World().meet()
    segment = Segment(40_000, 80, 5, 6, Flag.ACK, 100, b"?")
    [part] = Packet(ADDRESS, GATEWAY, TCP, segment.write(ADDRESS, GATEWAY)).write(0)
    [answer] = world.stack.frames([Ethernet(BROADCAST, HARDWARE, TYPE_IPV4, part).write()], world.now)
    assert isinstance(answer, Deliver) and Packet.read(answer.frame[14:54]) is not None


guest_addresses = st.sampled_from([ADDRESS, bytes(4), GATEWAY, FAR_AWAY, bytes([10, 0, 2, 255])])
targets = st.sampled_from([GATEWAY, NAMESERVER, FAR_AWAY, EVERYBODY, bytes([224, 0, 0, 1]), ADDRESS])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """Garbage of every depth."""
    source, target = draw(guest_addresses), draw(targets)
    match draw(st.integers(0, 5)):
        case 0:
            return draw(st.binary(max_size=100))
        case 1:
            arp = Arp(draw(st.integers(1, 2)), HARDWARE, source, bytes(6), target).write()
            return Ethernet(BROADCAST, HARDWARE, TYPE_ARP, arp[: draw(st.integers(0, 28))]).write()
        case 2:
            payload = draw(st.binary(max_size=300))
            protocol = draw(st.sampled_from([ICMP, TCP, UDP, 99]))
        case 3:
            payload = Udp(draw(st.integers(1, 90)), draw(st.integers(1, 90)), draw(st.binary(max_size=400))).write(
                source, target
            )
            protocol = UDP
        case 4:
            kind = draw(st.integers(0, 255))
            payload = Udp(68, 67, dhcp(kind)[: draw(st.integers(0, 300))] + draw(st.binary(max_size=40))).write(
                source, target
            )
            protocol = UDP
        case _:
            flags = Flag(draw(st.integers(0, 31)))
            segment = Segment(draw(st.integers(1, 3)), 80, draw(st.integers(0, 5)), draw(st.integers(0, 5)), flags, 50)
            payload, protocol = segment.write(source, target), TCP
    [part] = Packet(source, target, protocol, payload).write(0)
    return Ethernet(BROADCAST, HARDWARE, TYPE_IPV4, part).write()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(frames(), max_size=10), max_size=10))
def test_no_frame_does_any_harm(batches: list[list[bytes]]) -> None:
    world = World()
    for batch in batches:
        world.now += 7.0
        actions = [*world.stack.frames(batch, world.now), *world.stack.tick(world.now)]
        for action in list(actions):
            if isinstance(action, Connect):
                actions += world.stack.connected(action.flow, world.now)
                actions += world.stack.bring(action.flow, b"hello", world.now)
        assert all(len(action.frame) <= 1514 for action in actions if isinstance(action, Deliver))
