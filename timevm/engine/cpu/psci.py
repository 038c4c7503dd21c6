"""PSCI 1.1 and the SMC calling convention (Arm DEN0022, DEN0028) for a machine with one processor."""

from __future__ import annotations

from dataclasses import dataclass

from timevm.engine.cpu.base import StopKind

NOT_SUPPORTED = -1
INVALID_PARAMETERS = -2
ALREADY_ON = -4
SUCCESS = 0

PSCI_VERSION_1_1 = 0x0001_0001
SMCCC_VERSION_1_0 = 0x0001_0000
#: trusted OS migration: none is present, nothing to migrate
MIGRATION_NOT_REQUIRED = 2

VERSION = 0x8400_0000
CPU_SUSPEND = 0x8400_0001
CPU_OFF = 0x8400_0002
CPU_ON = 0x8400_0003
AFFINITY_INFO = 0x8400_0004
MIGRATE_INFO_TYPE = 0x8400_0006
SYSTEM_OFF = 0x8400_0008
SYSTEM_RESET = 0x8400_0009
FEATURES = 0x8400_000A
SMCCC_VERSION = 0x8000_0000
#: the same function with 64-bit arguments
WIDE = 0x4000_0000

_KNOWN = {
    VERSION,
    CPU_SUSPEND,
    CPU_SUSPEND | WIDE,
    CPU_OFF,
    CPU_ON,
    CPU_ON | WIDE,
    AFFINITY_INFO,
    AFFINITY_INFO | WIDE,
    MIGRATE_INFO_TYPE,
    SYSTEM_OFF,
    SYSTEM_RESET,
    FEATURES,
    SMCCC_VERSION,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """``result`` goes to x0 (signed); ``stop`` ends the run; ``wait`` suspends the CPU until an interrupt."""

    result: int = SUCCESS
    stop: StopKind | None = None
    wait: bool = False


def call(function: int, arguments: tuple[int, int, int], own_affinity: int) -> Answer:
    """Answer one HVC or SMC; every unknown function is NOT_SUPPORTED (DEN0028, 5.2)."""
    match function & 0xFFFF_FFFF:
        case 0x8400_0000:
            return Answer(PSCI_VERSION_1_1)
        case 0x8000_0000:
            return Answer(SMCCC_VERSION_1_0)
        case 0x8400_0008:
            return Answer(stop=StopKind.POWER_OFF)
        case 0x8400_0009:
            return Answer(stop=StopKind.RESET)
        case 0x8400_000A:
            return Answer(SUCCESS if arguments[0] & 0xFFFF_FFFF in _KNOWN else NOT_SUPPORTED)
        case 0x8400_0006:
            return Answer(MIGRATION_NOT_REQUIRED)
        case 0x8400_0003 | 0xC400_0003:
            return Answer(ALREADY_ON if arguments[0] == own_affinity else INVALID_PARAMETERS)
        case 0x8400_0004 | 0xC400_0004:
            # 0 is ON
            return Answer(SUCCESS if arguments[0] == own_affinity else INVALID_PARAMETERS)
        case 0x8400_0001 | 0xC400_0001:
            return Answer(SUCCESS, wait=True)
        case 0x8400_0002:
            # the last processor that switches itself off leaves a machine that never goes on
            return Answer(SUCCESS, stop=StopKind.POWER_OFF)
        case _:
            return Answer(NOT_SUPPORTED)
