"""What a board's machine is made of, computed from the machine itself when it is put together (``replay/build.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import xxhash

from timevm.engine.cpu.unicorn_library import VERSION
from timevm.engine.devices.base import Stateful, WithTraits
from timevm.engine.machine.assembly import Assembly
from timevm.engine.machine.machine_digest import record_hash
from timevm.engine.replay.build import DEVICE, EVENT, Build, build_differences
from timevm.engine.replay.codec import event_layouts

__all__ = ["Build", "Fingerprint", "build_differences", "fingerprint", "layout_of"]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """``whole``: all that a replay must find again.

    ``layout``: what a saved state means, whenever and with whatever seed and date its machine began.
    """

    whole: Build
    layout: Build


def fingerprint(assembly: Assembly) -> Fingerprint:
    """Before the machine is booted.  0.5 ms."""
    cpu = assembly.cpu
    board = [
        ("memory map", [[each.name, each.base, each.size, each.kind] for each in assembly.memory_map]),
        ("processor", [cpu.features(), [[each.name, each.bits] for each in cpu.registers], layout_of(cpu.state())]),
        ("emulator", VERSION),
        ("timers", assembly.clock.timer_names),
    ]
    states = {name: device.state() for name, device in assembly.devices.items()}
    layouts = [(f"{DEVICE}{name}", layout_of(state)) for name, state in states.items()]
    devices = [
        (f"{DEVICE}{name}", [layout_of(state), state, _traits(assembly.devices[name])])
        for name, state in states.items()
    ]
    told = [(name, xxhash.xxh3_64_hexdigest(data)) for name, data in _told(assembly).items()]
    events = [(f"{EVENT}{name}", layout) for name, layout in event_layouts().items()]
    return Fingerprint(_digests([*board, *devices, *told, *events]), _digests([*board, *layouts]))


def layout_of(value: Any) -> Any:
    """Names and types of a plain record, as a plain record."""
    match value:
        case dict():
            return {name: layout_of(item) for name, item in value.items()}
        case list() | tuple():
            kinds: list[Any] = []
            for item in value:
                kind = layout_of(item)
                if kind not in kinds:
                    kinds.append(kind)
            return kinds
        case _:
            return type(value).__name__


def _traits(device: Stateful) -> dict[str, Any]:
    return device.traits() if isinstance(device, WithTraits) else {}


def _told(assembly: Assembly) -> dict[str, bytes]:
    """What describes the machine to the guest."""
    described = {"device tree": assembly.device_tree, "ACPI tables": assembly.acpi_tables}
    return {name: data for name, data in described.items() if data is not None}


def _digests(parts: list[tuple[str, Any]]) -> Build:
    return tuple((name, f"{record_hash(record):016x}") for name, record in parts)
