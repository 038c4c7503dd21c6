"""A user-mode network without sockets: frames of the guest and the host's doings in, ``Action``s out.

The guest sees a network of its own with a gateway (which stands for the host's loopback), a name server and a DHCP
server; whatever else it talks to is reached from the host's own sockets.  Nothing a guest sends raises anything, and
what is kept for it is bounded.

Not part of it: IPv6, echo to others than the gateway and the name server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from timevm.network import dhcp
from timevm.network.actions import Abort, Action, Connect, Datagram, Deliver, Flow, Forget
from timevm.network.addressing import Addressing
from timevm.network.packets import (
    ARP_REPLY,
    ARP_REQUEST,
    BROADCAST,
    ECHO_REPLY,
    ECHO_REQUEST,
    EVERYBODY,
    HOST_UNREACHABLE,
    ICMP,
    PORT_UNREACHABLE,
    TCP,
    TYPE_ARP,
    TYPE_IPV4,
    UDP,
    UNREACHABLE,
    Arp,
    Ethernet,
    Fragment,
    Icmp,
    Packet,
    Udp,
)
from timevm.network.reassembly import Reassembly
from timevm.network.settings import Forward, UserSettings
from timevm.network.tcp_connection import Connection, Output, State
from timevm.network.tcp_segment import Flag, Segment, reset_for

MOST_CONNECTIONS: Final = 512
MOST_DATAGRAM_FLOWS: Final = 256
#: seconds after which a silent UDP flow is forgotten
SILENCE: Final = 60.0
FIRST_EPHEMERAL: Final = 49_152


@dataclass(slots=True)
class _DatagramFlow:
    """``head``: how the guest's last packet began, for complaints about it."""

    used: float
    head: bytes = b""


class UserStack:
    """``random``: a number of 32 bits that nobody can guess, for each connection.  Times are seconds of any one clock.

    All methods that give actions want them carried out in order.
    """

    def __init__(self, settings: UserSettings, nameserver: tuple[str, int] | None, random: Callable[[], int]) -> None:
        self._addresses = Addressing(settings, nameserver)
        self._settings = settings
        self._random = random
        self._reassembly = Reassembly()
        self._neighbours: dict[bytes, bytes] = {}
        self._leases: dict[bytes, bytes] = {}
        self._connections: dict[Flow, Connection] = {}
        self._datagrams: dict[Flow, _DatagramFlow] = {}
        self._packets = 0
        self._ephemeral = 0

    # ---- the guest

    def frames(self, frames: Iterable[bytes], now: float) -> list[Action]:
        """What the guest sent, in order; one answer for what belongs together."""
        actions: list[Action] = []
        touched: dict[Flow, Connection] = {}
        for frame in frames:
            ethernet = Ethernet.read(frame)
            if ethernet is None:
                continue
            if ethernet.kind == TYPE_ARP:
                actions += self._take_arp(ethernet, now)
            elif ethernet.kind == TYPE_IPV4 and (fragment := Fragment.read(ethernet.payload)) is not None:
                packet = self._reassembly.take(fragment, now)
                if packet is not None:
                    actions += self._take_packet(ethernet, packet, now, touched)
        for connection in touched.values():
            actions += self._carry(connection, connection.answer())
        return actions

    def _take_arp(self, ethernet: Ethernet, now: float) -> list[Action]:
        arp = Arp.read(ethernet.payload)
        if arp is None:
            return []
        actions = self._meet(arp.source, arp.source_hardware, now)
        ours = self._addresses.hardware(arp.target)
        if arp.operation == ARP_REQUEST and ours is not None:
            reply = Arp(ARP_REPLY, ours, arp.target, arp.source_hardware, arp.source)
            actions.append(Deliver(Ethernet(arp.source_hardware, ours, TYPE_ARP, reply.write()).write()))
        return actions

    def _meet(self, address: bytes, hardware: bytes, now: float) -> list[Action]:
        """A guest is known from now on: what waited for it is sent."""
        if not self._addresses.is_guest(address) or self._neighbours.get(address) == hardware:
            return []
        if len(self._neighbours) >= MOST_DATAGRAM_FLOWS:
            self._neighbours.clear()
        self._neighbours[address] = hardware
        waiting = [each for each in self._connections.values() if each.flow.guest == address]
        return [
            action
            for each in waiting
            if each.state is State.ASKING
            for action in self._carry(each, each.ask_guest(now))
        ]

    def _take_packet(
        self, ethernet: Ethernet, packet: Packet, now: float, touched: dict[Flow, Connection]
    ) -> list[Action]:
        datagram = Udp.read(packet) if packet.protocol == UDP else None
        everybody = packet.target in (EVERYBODY, self._addresses.host)
        if datagram is not None and datagram.target_port == dhcp.SERVER_PORT and everybody:
            return self._take_dhcp(datagram, now)
        actions = self._meet(packet.source, ethernet.source, now)
        if not self._addresses.is_guest(packet.source):
            return actions
        if datagram is not None:
            actions += self._take_datagram(packet, datagram, now)
        elif packet.protocol == TCP and (segment := Segment.read(packet)) is not None:
            actions += self._take_segment(packet, segment, now, touched)
        elif packet.protocol == ICMP and (message := Icmp.read(packet.payload)) is not None:
            actions += self._take_icmp(packet, message)
        return actions

    # ---- ICMP and DHCP

    def _take_icmp(self, packet: Packet, message: Icmp) -> list[Action]:
        if message.kind != ECHO_REQUEST:
            return []
        if self._addresses.hardware(packet.target) is not None:
            reply = Icmp(ECHO_REPLY, 0, message.rest)
            return self._send(Packet(packet.target, packet.source, ICMP, reply.write()))
        return self._complain(packet.source, packet.head, HOST_UNREACHABLE)

    def _complain(self, guest: bytes, head: bytes, code: int) -> list[Action]:
        message = Icmp(UNREACHABLE, code, bytes(4) + head)
        return self._send(Packet(self._addresses.host, guest, ICMP, message.write()))

    def _take_dhcp(self, datagram: Udp, now: float) -> list[Action]:
        answer = dhcp.answer(datagram.payload, self._addresses.offer, self._lease)
        if answer is None:
            return []
        reply = Udp(dhcp.SERVER_PORT, dhcp.CLIENT_PORT, answer.payload)
        packet = Packet(self._addresses.host, EVERYBODY, UDP, reply.write(self._addresses.host, EVERYBODY))
        met = [] if answer.address is None else self._meet(answer.address, answer.hardware, now)
        return self._send(packet, answer.hardware) + met

    def _lease(self, hardware: bytes, wanted: bytes | None) -> bytes | None:
        """The same client gets the same address, the first one the first."""
        if hardware in self._leases:
            return self._leases[hardware]
        taken = set(self._leases.values())
        free = [each for each in self._addresses.pool if each not in taken]
        if not free:
            return None
        address = wanted if wanted in free else free[0]
        assert address is not None
        self._leases[hardware] = address
        return address

    # ---- UDP

    def _take_datagram(self, packet: Packet, datagram: Udp, now: float) -> list[Action]:
        flow = Flow(packet.source, datagram.source_port, packet.target, datagram.target_port)
        known = self._datagrams.get(flow)
        place = self._addresses.outside(flow.other, flow.other_port)
        if known is None:
            if place is None or len(self._datagrams) >= MOST_DATAGRAM_FLOWS:
                loud = not self._addresses.is_group(packet.target)
                return self._complain(packet.source, packet.head, HOST_UNREACHABLE) if loud else []
            known = self._datagrams[flow] = _DatagramFlow(now)
        known.used, known.head = now, packet.head
        host, port = place or ("", 0)  # of a forwarded flow the shell knows the other side
        return [Datagram(flow, host, port, datagram.payload)]

    def datagram(self, flow: Flow, data: bytes, now: float) -> list[Action]:
        """From the other side of a flow, which may be a forwarded one."""
        if flow not in self._datagrams:
            return []
        self._datagrams[flow].used = now
        payload = Udp(flow.other_port, flow.guest_port, data).write(flow.other, flow.guest)
        return self._send(Packet(flow.other, flow.guest, UDP, payload))

    def refused(self, flow: Flow) -> list[Action]:
        """Nobody is at the other side of a UDP flow."""
        known = self._datagrams.get(flow)
        return [] if known is None or not known.head else self._complain(flow.guest, known.head, PORT_UNREACHABLE)

    def forward_datagrams(self, rule: Forward, now: float) -> Flow | None:
        """A new peer of a forwarded UDP port; None: there are too many."""
        if len(self._datagrams) >= MOST_DATAGRAM_FLOWS:
            return None
        flow = self._forwarded(rule)
        self._datagrams[flow] = _DatagramFlow(now)
        return flow

    # ---- TCP

    def _take_segment(
        self, packet: Packet, segment: Segment, now: float, touched: dict[Flow, Connection]
    ) -> list[Action]:
        flow = Flow(packet.source, segment.source_port, packet.target, segment.target_port)
        connection = self._connections.get(flow)
        begins = segment.flags & (Flag.SYN | Flag.ACK | Flag.RST) == Flag.SYN
        actions: list[Action] = []
        if connection is not None and begins and not connection.is_again(segment):
            # the guest was reset, say, and knows nothing of that one
            del self._connections[flow]
            touched.pop(flow, None)
            actions.append(Abort(flow))
            connection = None
        if connection is None:
            return actions + (self._begin(flow, segment) if begins else self._refuse(flow, segment))
        touched[flow] = connection
        return actions + self._carry(connection, connection.segment(segment, now))

    def _begin(self, flow: Flow, segment: Segment) -> list[Action]:
        place = self._addresses.outside(flow.other, flow.other_port)
        if place is None or len(self._connections) >= MOST_CONNECTIONS:
            return self._refuse(flow, segment)
        connection = self._connections[flow] = Connection(flow, self._random())
        return [*self._carry(connection, connection.guest_asks(segment)), Connect(flow, *place)]

    def _refuse(self, flow: Flow, segment: Segment) -> list[Action]:
        reply = reset_for(segment)
        return [] if reply is None else self._send_segment(flow, reply)

    def _send_segment(self, flow: Flow, segment: Segment) -> list[Action]:
        return self._send(Packet(flow.other, flow.guest, TCP, segment.write(flow.other, flow.guest)))

    def _carry(self, connection: Connection, output: list[Output]) -> list[Action]:
        """Segments become frames; a connection that is gone is forgotten."""
        actions: list[Action] = []
        for each in output:
            if isinstance(each, Segment):
                actions += self._send_segment(connection.flow, each)
            else:
                actions.append(each)
        if connection.state is State.GONE and self._connections.get(connection.flow) is connection:
            del self._connections[connection.flow]
        return actions

    def room(self, flow: Flow) -> int:
        """Bytes that the host may bring for a TCP flow now."""
        connection = self._connections.get(flow)
        return 0 if connection is None else connection.room

    def knows(self, flow: Flow) -> bool:
        """Whether a TCP flow goes on."""
        return flow in self._connections

    def connected(self, flow: Flow, now: float) -> list[Action]:
        return self._with(flow, lambda connection: connection.connected(now))

    def lost(self, flow: Flow) -> list[Action]:
        """The other side is gone, or cannot be reached."""
        return self._with(flow, lambda connection: connection.host_lost())

    def bring(self, flow: Flow, data: bytes, now: float) -> list[Action]:
        """From the other side; at most ``room`` bytes."""
        return self._with(flow, lambda connection: connection.bring(data, now))

    def ended(self, flow: Flow, now: float) -> list[Action]:
        """The other side says no more."""
        return self._with(flow, lambda connection: connection.host_ended(now))

    def written(self, flow: Flow, count: int) -> list[Action]:
        """The host took ``count`` bytes of what it was given to write."""
        return self._with(flow, lambda connection: [*connection.written(count), *connection.answer()])

    def forward_connection(self, rule: Forward, now: float) -> tuple[Flow, list[Action]] | None:
        """Somebody connected to a forwarded port; None: there are too many."""
        if len(self._connections) >= MOST_CONNECTIONS:
            return None
        flow = self._forwarded(rule)
        connection = self._connections[flow] = Connection(flow, self._random())
        return flow, self._carry(connection, connection.ask_guest(now))

    def _with(self, flow: Flow, do: Callable[[Connection], list[Output]]) -> list[Action]:
        connection = self._connections.get(flow)
        return [] if connection is None else self._carry(connection, do(connection))

    # ---- time

    @property
    def deadline(self) -> float | None:
        """When ``tick`` has something to do."""
        deadlines = [each.deadline for each in self._connections.values() if each.deadline is not None]
        deadlines += [each.used + SILENCE for each in self._datagrams.values()]
        return min(deadlines, default=None)

    def tick(self, now: float) -> list[Action]:
        actions: list[Action] = []
        for connection in list(self._connections.values()):
            actions += self._carry(connection, connection.tick(now))
        for flow in [flow for flow, each in self._datagrams.items() if now >= each.used + SILENCE]:
            del self._datagrams[flow]
            actions.append(Forget(flow))
        return actions

    # ---- sending

    def _forwarded(self, rule: Forward) -> Flow:
        """A flow from the gateway, from a port that no other one has."""
        guest = rule.guest.packed if rule.guest is not None else self._addresses.first_guest
        while True:
            port = FIRST_EPHEMERAL + self._ephemeral
            self._ephemeral = (self._ephemeral + 1) % (65_536 - FIRST_EPHEMERAL)
            flow = Flow(guest, rule.guest_port, self._addresses.host, port)
            if flow not in self._connections and flow not in self._datagrams:
                return flow

    def _send(self, packet: Packet, hardware: bytes | None = None) -> list[Action]:
        """To a guest; one that nobody knows is asked for instead, and the packet lost (who sent it sends it again)."""
        sender = self._addresses.hardware(packet.source) or self._addresses.gateway_hardware
        target = hardware or self._neighbours.get(packet.target)
        if target is None:
            question = Arp(ARP_REQUEST, self._addresses.gateway_hardware, self._addresses.host, bytes(6), packet.target)
            return [Deliver(Ethernet(BROADCAST, self._addresses.gateway_hardware, TYPE_ARP, question.write()).write())]
        self._packets = (self._packets + 1) & 0xFFFF
        return [Deliver(Ethernet(target, sender, TYPE_IPV4, part).write()) for part in packet.write(self._packets)]
