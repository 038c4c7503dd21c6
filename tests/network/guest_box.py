"""A guest on the cable of a user-mode network: it knows ARP, IPv4, UDP and (``guest_tcp``) TCP."""

from __future__ import annotations

from tests.network.guest_tcp import GuestTcp
from timevm.network.packets import (
    ARP_REPLY,
    ARP_REQUEST,
    BROADCAST,
    TCP,
    TYPE_ARP,
    TYPE_IPV4,
    UDP,
    Arp,
    Ethernet,
    Packet,
    Udp,
)
from timevm.network.tcp_segment import Segment

HARDWARE = bytes.fromhex("525400123456")
ADDRESS = bytes([10, 0, 2, 15])
GATEWAY = bytes([10, 0, 2, 2])
NAMESERVER = bytes([10, 0, 2, 3])


class GuestBox:
    """``out`` are frames to be sent; ``packets`` and ``arps`` what came."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.gateway_hardware: bytes | None = None
        self.packets: list[Packet] = []
        self.arps: list[Arp] = []
        self.tcp: dict[tuple[bytes, int, int], GuestTcp] = {}
        #: ports at which somebody listens
        self.listening: dict[int, list[GuestTcp]] = {}

    def ask_for_gateway(self) -> None:
        question = Arp(ARP_REQUEST, HARDWARE, ADDRESS, bytes(6), GATEWAY)
        self.out.append(Ethernet(BROADCAST, HARDWARE, TYPE_ARP, question.write()).write())

    def send(self, packet: Packet) -> None:
        target = self.gateway_hardware or BROADCAST
        for part in packet.write(1):
            self.out.append(Ethernet(target, HARDWARE, TYPE_IPV4, part).write())

    def send_datagram(self, target: bytes, port: int, data: bytes, *, source_port: int = 5000) -> None:
        payload = Udp(source_port, port, data).write(ADDRESS, target)
        self.send(Packet(ADDRESS, target, UDP, payload))

    def datagrams(self) -> list[tuple[bytes, Udp]]:
        """(from, datagram) of all that came, once."""
        found = [(each.source, Udp.read(each)) for each in self.packets if each.protocol == UDP]
        self.packets = [each for each in self.packets if each.protocol != UDP]
        assert all(datagram is not None for _, datagram in found), "a datagram that cannot be read"
        return [(source, datagram) for source, datagram in found if datagram is not None]

    def connect(self, target: bytes, port: int, now: float, *, source_port: int = 40_000) -> GuestTcp:
        made = self.tcp[target, port, source_port] = GuestTcp(source_port, port, mss=1460, window=60_000)
        made.connect(now)
        return made

    def listen(self, port: int) -> list[GuestTcp]:
        """Connections to ``port`` appear in it."""
        return self.listening.setdefault(port, [])

    def take(self, frame: bytes, now: float) -> None:
        ethernet = Ethernet.read(frame)
        assert ethernet is not None and 60 <= len(frame) <= 1514
        assert ethernet.target in (HARDWARE, BROADCAST)
        if ethernet.kind == TYPE_ARP:
            arp = Arp.read(ethernet.payload)
            assert arp is not None
            self._take_arp(arp)
            return
        assert ethernet.kind == TYPE_IPV4
        packet = Packet.read(ethernet.payload)
        if packet is None:  # a fragment
            return
        if packet.protocol == TCP:
            self._take_segment(packet, now)
        else:
            self.packets.append(packet)

    def _take_arp(self, arp: Arp) -> None:
        self.arps.append(arp)
        if arp.source == GATEWAY:
            self.gateway_hardware = arp.source_hardware
        if arp.operation == ARP_REQUEST and arp.target == ADDRESS:
            reply = Arp(ARP_REPLY, HARDWARE, ADDRESS, arp.source_hardware, arp.source)
            self.out.append(Ethernet(arp.source_hardware, HARDWARE, TYPE_ARP, reply.write()).write())

    def _take_segment(self, packet: Packet, now: float) -> None:
        segment = Segment.read(packet)
        assert segment is not None, "a segment that cannot be read"
        key = packet.source, segment.source_port, segment.target_port
        found = self.tcp.get(key)
        if found is None and segment.target_port in self.listening:
            found = self.tcp[key] = GuestTcp(segment.target_port, segment.source_port, mss=1460, window=60_000)
            found.listen()
            self.listening[segment.target_port].append(found)
        if found is not None:
            found.take(segment, now)

    def flush(self, now: float) -> list[bytes]:
        """What goes onto the cable now."""
        for (target, _, _), connection in self.tcp.items():
            connection.tick(now)
            for segment in connection.out:
                self.send(Packet(ADDRESS, target, TCP, segment.write(ADDRESS, target)))
            connection.out.clear()
        out, self.out = self.out, []
        return out
