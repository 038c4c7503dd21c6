"""The network cards of the command line: which ones there are, their addresses, and the cable of each."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from timevm.engine.machine.spec import DeviceOption, MachineSpec
from timevm.errors import RecordingError, UserError

#: drivers of ``-device`` that are network cards
CARDS = ("virtio-net-device", "virtio-net-pci", "rtl8139")
#: of the first card that has no ``mac=``; the next ones count on (QEMU's)
FIRST_ADDRESS = 0x525400123456
_ADDRESS = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")


@dataclass(frozen=True, slots=True)
class CardPlan:
    """Card number ``number`` (from 0) of the machine; ``netdev`` is the network at the other end, if there is one."""

    number: int
    option: DeviceOption
    #: its id, or as QEMU calls it: ``virtio-net-pci.0`` is the first of its kind
    name: str
    address: bytes
    netdev: str | None


def plan_cards(spec: MachineSpec) -> tuple[CardPlan, ...]:
    """In the order of the command line.  Raises UserError, in QEMU's words where it has some."""
    options = [option for option in spec.devices if option.driver in CARDS]
    given = [dict(option.properties).get("mac") for option in options]
    taken = {_parse(option, text) for option, text in zip(options, given, strict=True) if text is not None}
    free = (number.to_bytes(6, "big") for number in range(FIRST_ADDRESS, FIRST_ADDRESS + len(options) + len(taken)))
    plans = []
    for number, (option, text) in enumerate(zip(options, given, strict=True)):
        before = sum(other.driver == option.driver for other in options[:number])
        name = option.identifier or f"{option.driver}.{before}"
        address = _parse(option, text) if text is not None else next(each for each in free if each not in taken)
        plans.append(CardPlan(number, option, name, address, dict(option.properties).get("netdev")))
    return tuple(plans)


def _parse(option: DeviceOption, text: str) -> bytes:
    if not _ADDRESS.fullmatch(text):
        raise UserError(
            f"-device {option.driver},mac={text}: Property '{option.driver}.mac' doesn't take value '{text}'"
        )
    address = bytes.fromhex(text.replace(":", "").replace("-", ""))
    if address[0] & 1:
        raise UserError(f"-device {option.driver},mac={text}: this is an address of groups, a card needs its own")
    return address


def _accept_all(frame: bytes) -> bool:
    """What ``accepts`` is until the card is there."""
    return True


def _drop(frame: bytes) -> None:
    """Nobody is there."""


class Cable:
    """``devices.network_port.NetworkPort``; ``transmit`` is the machine's, set when it is put together."""

    def __init__(self, plan: CardPlan) -> None:
        self.plan = plan
        self.accepts: Callable[[bytes], bool] = _accept_all
        self.received: Callable[[bytes], None] = _drop
        self.transmit: Callable[[bytes], None] = _drop

    def send(self, frame: bytes) -> None:
        self.transmit(frame)


@dataclass(slots=True)
class Cables:
    """Of all cards, in their order."""

    cables: tuple[Cable, ...] = ()

    @classmethod
    def of(cls, spec: MachineSpec) -> Cables:
        """Raises UserError."""
        return cls(tuple(Cable(plan) for plan in plan_cards(spec)))

    def of_device(self, option: DeviceOption) -> Cable:
        """The one that belongs to ``option``, the very object of the specification."""
        return next(cable for cable in self.cables if cable.plan.option is option)

    def number(self, card: int) -> Cable:
        """Raises RecordingError: a number that is in a recording only."""
        if card >= len(self.cables):
            raise RecordingError(
                f"the recording has a frame for network card number {card}, of {len(self.cables)} that are there"
            )
        return self.cables[card]
