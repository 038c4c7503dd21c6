"""``-netdev user``: what a user-mode network is told, as plain data, and QEMU's notation of forwarded ports."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv4Network
from typing import Final

#: of the host in forwarding rules when none is named: QEMU listens everywhere, timevm only here
LOOPBACK: Final = "127.0.0.1"
_RULE = re.compile(r"(?P<kind>[^:]*):(?P<host>[^:]*):(?P<port>[^-:]*)-(?P<guest>[^:]*):(?P<guest_port>.*)")


class BadSetting(ValueError):
    """``str()`` says what is wrong, in QEMU's words."""


@dataclass(frozen=True, slots=True)
class Forward:
    """What reaches ``host:port`` goes to the guest (None: to the first address); ``kind`` is ``tcp`` or ``udp``."""

    kind: str
    host: str
    port: int
    guest: IPv4Address | None
    guest_port: int
    #: as the user wrote it
    text: str

    @classmethod
    def parse(cls, text: str) -> Forward:
        """``[tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport``.  Raises BadSetting."""

        def bad(why: str) -> BadSetting:
            return BadSetting(f"Invalid host forwarding rule '{text}' ({why})")

        if ":" not in text:
            raise bad("No : separators")
        found = _RULE.fullmatch(text)
        if found is None:
            raise bad("Missing guest port" if "-" in text else "Bad host port")
        kind = found["kind"] or "tcp"
        if kind not in ("tcp", "udp"):
            raise bad("Bad protocol name")
        try:
            host = str(IPv4Address(found["host"])) if found["host"] else LOOPBACK
        except AddressValueError as error:
            raise bad("Bad host address") from error
        try:
            guest = IPv4Address(found["guest"]) if found["guest"] else None
        except AddressValueError as error:
            raise bad("Bad guest address") from error
        port = _port(found["port"], 0)
        if port is None:
            raise bad("Bad host port")
        guest_port = _port(found["guest_port"], 1)
        if guest_port is None:
            raise bad("Bad guest port")
        return cls(kind, host, port, guest, guest_port, text)


def parse_place(text: str) -> tuple[str, str, int]:
    """``[tcp|udp]:[hostaddr]:hostport`` as (kind, host, port): what a rule listens at.  Raises BadSetting."""
    found = re.fullmatch(r"(tcp|udp)?:([0-9.]*):([0-9]+)", text)
    port = None if found is None else _port(found[3], 0)
    if found is None or port is None:
        raise BadSetting("invalid format")
    try:
        return found[1] or "tcp", str(IPv4Address(found[2])) if found[2] else LOOPBACK, port
    except AddressValueError as error:
        raise BadSetting("invalid format") from error


def _port(text: str, least: int) -> int | None:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        return None
    return int(text) if least <= int(text) <= 65_535 else None


_NETWORK: Final = IPv4Network("10.0.2.0/24")
#: numbers in the network
_HOST, _NAMESERVER, _FIRST_GUEST = 2, 3, 15


@dataclass(frozen=True, slots=True)
class UserSettings:
    """Addresses as QEMU's defaults have them: the host is .2, the name server .3, the first guest .15."""

    network: IPv4Network = _NETWORK
    host: IPv4Address = _NETWORK[_HOST]
    nameserver: IPv4Address = _NETWORK[_NAMESERVER]
    first_guest: IPv4Address = _NETWORK[_FIRST_GUEST]
    #: the guest reaches nothing but what is forwarded to it
    restricted: bool = False
    forwards: tuple[Forward, ...] = ()
    host_name: str | None = None
    domain_name: str | None = None
    search: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        network: str | None = None,
        host: str | None = None,
        nameserver: str | None = None,
        first_guest: str | None = None,
    ) -> UserSettings:
        """From the option's words; what is not named follows from the network.  Raises BadSetting, in QEMU's words."""
        net = _network(network)
        if net.num_addresses < 32:
            raise BadSetting(f"the network {net} is too small: give at most /27")

        def address(text: str | None, number: int, what: str) -> IPv4Address:
            try:
                found = net[number] if text is None else IPv4Address(text)
            except AddressValueError as error:
                raise BadSetting(f"Failed to parse {what}") from error
            if found not in net or found in (net.network_address, net.broadcast_address):
                raise BadSetting(f"{what} doesn't belong to network")
            return found

        settings = cls(
            net,
            address(host, _HOST, "Host"),
            address(nameserver, _NAMESERVER, "DNS"),
            address(first_guest, _FIRST_GUEST, "DHCP"),
        )
        if settings.host == settings.nameserver:
            raise BadSetting("DNS must be different from host")
        return settings


def _network(text: str | None) -> IPv4Network:
    """``10.0.2.0/24``, ``10.0.2.0/255.255.255.0`` or an address alone, whose class says the rest."""
    if text is None:
        return _NETWORK
    base, slash, mask = text.partition("/")
    try:
        address = IPv4Address(base)
        if not slash:
            first = int(address) >> 24
            mask = "8" if first < 128 else "16" if first < 192 else "24"
        if mask.isdigit() and not 4 <= int(mask) <= 32:
            raise BadSetting("Invalid netmask provided (must be in range 4-32)")
        return IPv4Network(f"{address}/{mask}", strict=False)
    except BadSetting:
        raise
    except ValueError as error:
        raise BadSetting("Failed to parse netmask" if slash else "Failed to parse net") from error
