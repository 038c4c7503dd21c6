"""virtio network device (Virtual I/O Device 1.2, section 5.1): one pair of queues, and one for control.

Features as QEMU 7.2 gives them before a user-mode network, without announcements, VLAN filter and offloads: checksums
are the driver's business.  A frame that the driver has no room for waits outside (``accepts``); one that no buffer of
the driver could ever hold, or that comes while there is no driver, is dropped: in a replay at the same instruction.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from timevm.engine.devices.base import DmaError, GuestMemory
from timevm.engine.devices.network_port import BROADCAST, HEADER_BYTES, MOST_BYTES, NetworkPort
from timevm.engine.devices.virtio import DRIVER_OK, VERSION_1, VirtioDevice
from timevm.engine.devices.virtqueue import Chain, RingError, Segment, gather, scatter, total

DEVICE_ID: Final = 1
QUEUE_SIZE: Final = 256
CONTROL_SIZE: Final = 64
RECEIVE, TRANSMIT, CONTROL = 0, 1, 2

# feature bits, 5.1.3
MAC, MRG_RXBUF, STATUS, CTRL_VQ, CTRL_RX = 1 << 5, 1 << 15, 1 << 16, 1 << 17, 1 << 18
CTRL_RX_EXTRA, CTRL_MAC_ADDR = 1 << 20, 1 << 23
FEATURES: Final = MAC | MRG_RXBUF | STATUS | CTRL_VQ | CTRL_RX | CTRL_RX_EXTRA | CTRL_MAC_ADDR
LINK_UP: Final = 1
#: struct virtio_net_hdr: 12 bytes with ``num_buffers``, which a legacy driver without MRG_RXBUF does not know (5.1.6.1)
SHORT_HEADER, LONG_HEADER = 10, 12
COUNT_OFFSET: Final = 10

# control: class and command (5.1.6.5), and the answers
RX_CLASS, MAC_CLASS = 0, 1
RX_MODES: Final = ("promiscuous", "all_multicast", "all_unicast", "no_multicast", "no_unicast", "no_broadcast")
MAC_TABLE_SET, MAC_ADDRESS_SET = 0, 1
OK, ERROR = b"\0", b"\1"
#: bytes of a control request that are looked at, and addresses that the filter holds: beyond them everything gets in
MOST_CONTROL: Final = 1 << 16
TABLE_ROOM: Final = 64

_SWITCHES_AT_RESET: Final = dict.fromkeys(RX_MODES, False) | {"promiscuous": True}


class VirtioNet(VirtioDevice):
    """``address``: 6 bytes; ``features``: those of this device that are offered."""

    device_id = DEVICE_ID

    def __init__(
        self, name: str, memory: GuestMemory, port: NetworkPort, address: bytes, features: int = FEATURES
    ) -> None:
        self._port = port
        self._own_address = address
        port.accepts = self._accepts
        port.received = self._received
        super().__init__(name, memory, features, [QUEUE_SIZE, QUEUE_SIZE, CONTROL_SIZE])

    # ---- Stateful

    def device_reset(self) -> None:
        self._address = self._own_address
        self._modes = dict(_SWITCHES_AT_RESET)
        self._unicast: list[bytes] = []
        self._multicast: list[bytes] = []
        self._overflow = {"unicast": False, "multicast": False}

    def device_state(self) -> dict[str, Any]:
        return {
            "address": self._address,
            "modes": dict(self._modes),
            "unicast": list(self._unicast),
            "multicast": list(self._multicast),
            "overflow": dict(self._overflow),
        }

    def device_restore(self, state: dict[str, Any]) -> None:
        self._address = state["address"]
        self._modes = dict(state["modes"])
        self._unicast, self._multicast = list(state["unicast"]), list(state["multicast"])
        self._overflow = dict(state["overflow"])

    # ---- configuration

    def configuration(self) -> bytes:
        return self._address + LINK_UP.to_bytes(2, "little")

    def write_configuration(self, offset: int, data: bytes) -> None:
        """A legacy driver that knows no control queue sets the address here (5.1.4.2)."""
        if not self._modern and not self.has(CTRL_MAC_ADDR) and offset < len(self._address):
            address = bytearray(self._address)
            address[offset : offset + len(data)] = data
            self._address = bytes(address[: len(self._address)])

    @property
    def _header_bytes(self) -> int:
        return LONG_HEADER if self.has(MRG_RXBUF | VERSION_1) else SHORT_HEADER

    # ---- towards the network

    def handle(self, queue: int) -> None:
        if queue == TRANSMIT:
            self._transmit()
        elif queue == CONTROL and self.has(CTRL_VQ):
            self._control()

    def _transmit(self) -> None:
        while (chain := self.queues[TRANSMIT].pop(self.memory)) is not None:
            size = total(chain.readable) - self._header_bytes
            if size < 0:
                raise RingError("a frame without its header")
            if HEADER_BYTES <= size <= MOST_BYTES:
                self._port.send(gather(self.memory, chain.readable, self._header_bytes, size))
            self.use(TRANSMIT, chain.head, 0)
        self.wait_for_more(TRANSMIT)

    # ---- from the network

    @property
    def _listens(self) -> bool:
        return bool(self.status & DRIVER_OK) and self.queues[RECEIVE].ready and not self.is_broken

    def _accepts(self, frame: bytes) -> bool:
        """Whether its fate is known now: received, or dropped."""
        if not self._listens or not self._is_wanted(frame):
            return True
        try:
            chains = self._room_for(len(frame))
        except (RingError, DmaError):
            return True  # when it is received the device breaks
        self.queues[RECEIVE].push_back(len(chains))
        return bool(chains)

    def _received(self, frame: bytes) -> None:
        if not self._listens or not self._is_wanted(frame):
            return
        try:
            self._put(frame)
        except (RingError, DmaError):
            self.broken()

    def _room_for(self, size: int) -> list[Chain]:
        """Buffers taken from the ring for a frame of ``size`` bytes; none (and none taken) if they are too few now.

        Raises RingError, DmaError.
        """
        ring, mergeable = self.queues[RECEIVE], self.has(MRG_RXBUF)
        chains: list[Chain] = []
        missing = size + self._header_bytes
        try:
            while missing > 0 and (mergeable or not chains):
                chain = ring.pop(self.memory)
                if chain is None:
                    ring.push_back(len(chains))
                    return []
                chains.append(chain)
                missing -= total(chain.writable)
                if total(chains[0].writable) < self._header_bytes:
                    raise RingError("a receive buffer without room for the header")
        except (RingError, DmaError):
            ring.push_back(len(chains))
            raise
        return chains

    def _put(self, frame: bytes) -> None:
        """Raises RingError, DmaError."""
        ring = self.queues[RECEIVE]
        chains = self._room_for(len(frame))
        header = bytearray(self._header_bytes)
        if len(header) == LONG_HEADER:
            header[COUNT_OFFSET:] = len(chains).to_bytes(2, "little")
        data = bytes(header) + frame
        if sum(total(chain.writable) for chain in chains) < len(data):
            ring.push_back(len(chains))  # a driver that takes whole frames only has too small a buffer
            return
        pieces: list[tuple[int, int]] = []
        start = 0
        for chain in chains:
            part = data[start : start + total(chain.writable)]
            scatter(self.memory, chain.writable, 0, part)
            pieces.append((chain.head, len(part)))
            start += len(part)
        self.use_all(RECEIVE, pieces)

    def _is_wanted(self, frame: bytes) -> bool:
        """The driver's filter, 5.1.6.5.1."""
        if len(frame) < HEADER_BYTES or len(frame) > MOST_BYTES:
            return False
        modes, target = self._modes, frame[:6]
        if modes["promiscuous"]:
            return True
        if target == BROADCAST:
            return not modes["no_broadcast"]
        if target[0] & 1:
            everything = modes["all_multicast"] or self._overflow["multicast"]
            return not modes["no_multicast"] and (everything or target in self._multicast)
        if modes["no_unicast"]:
            return False
        everything = modes["all_unicast"] or self._overflow["unicast"]
        return everything or target == self._address or target in self._unicast

    # ---- control

    def _control(self) -> None:
        while (chain := self.queues[CONTROL].pop(self.memory)) is not None:
            if total(chain.readable) < 2 or not chain.writable:
                raise RingError("a control request without command or answer")
            answer = OK if self._obey(self._request(chain.readable)) else ERROR
            scatter(self.memory, chain.writable, 0, answer)
            self.use(CONTROL, chain.head, len(answer))
        self.wait_for_more(CONTROL)

    def _request(self, readable: tuple[Segment, ...]) -> bytes:
        return gather(self.memory, readable, 0, min(total(readable), MOST_CONTROL))

    def _obey(self, request: bytes) -> bool:
        group, command, data = request[0], request[1], request[2:]
        if group == RX_CLASS and command < len(RX_MODES) and len(data) == 1:
            self._modes[RX_MODES[command]] = bool(data[0])
            return True
        if group == MAC_CLASS and command == MAC_ADDRESS_SET and len(data) == len(self._address):
            self._address = data
            return True
        if group == MAC_CLASS and command == MAC_TABLE_SET:
            return self._set_table(data)
        return False

    def _set_table(self, data: bytes) -> bool:
        """Two lists, each a count of 32 bits and so many addresses: unicast, then multicast."""
        lists: list[list[bytes]] = []
        at = 0
        for _ in ("unicast", "multicast"):
            if at + 4 > len(data):
                return False
            (count,) = struct.unpack_from("<I", data, at)
            end = at + 4 + 6 * count
            if end > len(data):
                return False
            lists.append([data[place : place + 6] for place in range(at + 4, end, 6)])
            at = end
        if at != len(data):
            return False
        self._overflow = {"unicast": len(lists[0]) > TABLE_ROOM, "multicast": len(lists[1]) > TABLE_ROOM}
        self._unicast, self._multicast = (each if len(each) <= TABLE_ROOM else [] for each in lists)
        return True
