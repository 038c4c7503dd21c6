"""Who is who on a user-mode network, and where on the host an address of it leads."""

from __future__ import annotations

from ipaddress import IPv4Address

from timevm.network import dhcp
from timevm.network.settings import LOOPBACK, UserSettings

DNS_PORT = 53
#: addresses given to guests at most
LEASES = 16
_EVERYBODY = IPv4Address("255.255.255.255")


class Addressing:
    """Addresses are bytes.  ``nameserver``: the host's own (address, port), None if it has none."""

    def __init__(self, settings: UserSettings, nameserver: tuple[str, int] | None) -> None:
        self._settings = settings
        self._nameserver = nameserver
        self.host = settings.host.packed
        self.first_guest = settings.first_guest.packed
        self._hardware = {each.packed: b"\x52\x55" + each.packed for each in (settings.host, settings.nameserver)}
        self.gateway_hardware = self._hardware[self.host]
        first, last = int(settings.first_guest), int(settings.network.broadcast_address)
        #: what DHCP gives away
        self.pool = [
            address.packed
            for address in map(IPv4Address, range(first, min(first + LEASES, last)))
            if address.packed not in self._hardware
        ]
        self.offer = dhcp.Offer(
            server=self.host,
            mask=settings.network.netmask.packed,
            router=None if settings.restricted else self.host,
            nameserver=None if settings.restricted else settings.nameserver.packed,
            host_name=settings.host_name,
            domain_name=settings.domain_name,
            search=settings.search,
        )

    def hardware(self, address: bytes) -> bytes | None:
        """Of the gateway and the name server; None: it is nobody of this network."""
        return self._hardware.get(address)

    def is_guest(self, address: bytes) -> bool:
        return self._is_inside(address) and address not in self._hardware

    def _is_inside(self, address: bytes) -> bool:
        found, network = IPv4Address(address), self._settings.network
        return found in network and found not in (network.network_address, network.broadcast_address)

    def is_group(self, address: bytes) -> bool:
        """Several at once: nobody complains of what is sent there."""
        found = IPv4Address(address)
        return found.is_multicast or found == _EVERYBODY or found == self._settings.network.broadcast_address

    def outside(self, address: bytes, port: int) -> tuple[str, int] | None:
        """The host's (address, port) that the guest means; None: it leads nowhere."""
        found = IPv4Address(address)
        if self._settings.restricted:
            return None
        if address == self.host:
            return LOOPBACK, port
        if found == self._settings.nameserver:
            return self._nameserver if port == DNS_PORT else None
        if found in self._settings.network or found.is_multicast or found.is_loopback or found.is_unspecified:
            return None
        return None if found.is_reserved else (str(found), port)
