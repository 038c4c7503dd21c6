"""The DHCP server of a user-mode network: a pure function from request to answer (RFC 2131, 2132)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

SERVER_PORT, CLIENT_PORT = 67, 68
_FIXED = struct.Struct("!BBBBIHH4s4s4s4s16s64s128s")
_MAGIC = b"\x63\x82\x53\x63"
_REQUEST, _REPLY = 1, 2
_ETHERNET, _ADDRESS_BYTES = 1, 6
# kinds of message (option 53)
DISCOVER, OFFER, REQUEST, DECLINE, ACK, NAK, RELEASE, INFORM = range(1, 9)
_LEASE_SECONDS = 86_400
# options
_PAD, _MASK, _ROUTER, _DNS, _HOST_NAME, _DOMAIN_NAME, _WANTED, _LEASE, _KIND, _SERVER, _END = (
    0, 1, 3, 6, 12, 15, 50, 51, 53, 54, 255
)  # fmt: skip
_SEARCH = 119


@dataclass(frozen=True, slots=True)
class Offer:
    """What every client is told; ``search`` are domains."""

    server: bytes
    mask: bytes
    router: bytes | None
    nameserver: bytes | None
    host_name: str | None = None
    domain_name: str | None = None
    search: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """``hardware`` is the client's address, ``address`` the one that it is given (None: refused)."""

    hardware: bytes
    address: bytes | None
    payload: bytes


def answer(request: bytes, offer: Offer, lease: Callable[[bytes, bytes | None], bytes | None]) -> Answer | None:
    """None: nothing is to be said.  ``lease(hardware, wanted)`` gives a client's address, None if there is none."""
    if len(request) < _FIXED.size + len(_MAGIC) or request[_FIXED.size : _FIXED.size + 4] != _MAGIC:
        return None
    operation, kind, size, _, transaction, _, flags, client, _, _, gateway, hardware, _, _ = _FIXED.unpack_from(request)
    if (operation, kind, size) != (_REQUEST, _ETHERNET, _ADDRESS_BYTES) or hardware[0] & 1:
        return None
    options = _read_options(request[_FIXED.size + 4 :])
    message = options.get(_KIND, b"")
    if len(message) != 1 or message[0] not in (DISCOVER, REQUEST, INFORM):
        return None
    if options.get(_SERVER, offer.server) != offer.server:
        return None  # it took another server's offer
    hardware = hardware[:_ADDRESS_BYTES]
    named = options.get(_WANTED, b"")
    wanted = named if len(named) == 4 else (client if any(client) else None)
    address = client if message[0] == INFORM else lease(hardware, wanted)
    refused = address is None or (message[0] == REQUEST and wanted not in (None, address))
    said = NAK if refused else OFFER if message[0] == DISCOVER else ACK
    given = bytes(4) if refused or message[0] == INFORM else address
    fixed = _FIXED.pack(
        _REPLY, _ETHERNET, _ADDRESS_BYTES, 0, transaction, 0, flags, client, given, offer.server, gateway,
        hardware.ljust(16, b"\0"), b"", b"",
    )  # fmt: skip
    told = [(_KIND, bytes([said])), (_SERVER, offer.server)]
    if not refused:
        told += _details(offer, with_lease=message[0] != INFORM)
    payload = fixed + _MAGIC + b"".join(bytes((code, len(data))) + data for code, data in told) + bytes([_END])
    return Answer(hardware, None if refused else address, payload)


def _details(offer: Offer, *, with_lease: bool) -> list[tuple[int, bytes]]:
    told = [(_MASK, offer.mask)]
    if offer.router is not None:
        told.append((_ROUTER, offer.router))
    if offer.nameserver is not None:
        told.append((_DNS, offer.nameserver))
    if with_lease:
        told.append((_LEASE, struct.pack("!I", _LEASE_SECONDS)))
    for code, text in ((_HOST_NAME, offer.host_name), (_DOMAIN_NAME, offer.domain_name)):
        if text:
            told.append((code, text.encode()[:255]))
    names = b"".join(_encoded_name(name) for name in offer.search)
    if 0 < len(names) <= 255:
        told.append((_SEARCH, names))
    return told


def _encoded_name(name: str) -> bytes:
    """As in DNS, without compression (RFC 1035, 3.1)."""
    labels = [label.encode()[:63] for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _read_options(data: bytes) -> dict[int, bytes]:
    options: dict[int, bytes] = {}
    at = 0
    while at < len(data) and data[at] != _END:
        if data[at] == _PAD:
            at += 1
            continue
        if at + 1 >= len(data):
            break
        size = data[at + 1]
        options[data[at]] = data[at + 2 : at + 2 + size]
        at += 2 + size
    return options
