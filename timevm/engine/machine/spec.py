"""What machine was asked for, as plain data: the command line's answer and the builder's question.

Nothing here opens a file or checks that one exists; ``builder.build_machine`` does, and names what is wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

#: what ``-cpu`` takes on the ``virt`` machine, the default first
CPU_MODELS = ("cortex-a57", "cortex-a53", "cortex-a72", "max")
#: the same on the riscv ``virt`` machine
RISCV_CPU_MODELS = ("rv64", "sifive-u54")
#: of ``-m`` (bytes), both included
RAM_LEAST, RAM_MOST = 16 * MIB, 4 * GIB

#: keys and values as the user wrote them, in order, for parts that know their own properties
Properties = tuple[tuple[str, str], ...]
#: among a machine's properties: ``-bios none``, where a machine has firmware of its own
NO_FIRMWARE = ("firmware", "none")


@dataclass(frozen=True, slots=True)
class Loader:
    """``-device loader``: a file into RAM.  ``address`` None: an ELF file that says where it goes."""

    path: Path
    address: int | None = None
    #: the CPU starts at ``address`` (or at the ELF entry): the option ``cpu-num=0``
    sets_pc: bool = False
    #: not looked into for an ELF header: ``force-raw=on``
    raw: bool = False


@dataclass(frozen=True, slots=True)
class LoaderData:
    """``-device loader,data=,data-len=,addr=``: up to 8 bytes into RAM."""

    data: bytes
    address: int
    #: the CPU starts at ``address``, and no data goes there: ``-device loader,addr=,cpu-num=0``
    sets_pc: bool = False


@dataclass(frozen=True, slots=True)
class Drive:
    """``-drive``.  ``driver`` is ``blkreplay`` for the filter over the drive or node named ``image``."""

    identifier: str | None = None
    file: Path | None = None
    #: ``qcow2`` or ``raw``; None: look at the file
    format: str | None = None
    interface: str = "none"
    snapshot: bool = False
    readonly: bool = False
    driver: str | None = None
    image: str | None = None
    #: the rest (``cache``, ``discard``, …)
    properties: Properties = ()


@dataclass(frozen=True, slots=True)
class Blockdev:
    """``-blockdev``: a node of the block graph."""

    driver: str
    node_name: str
    properties: Properties = ()


@dataclass(frozen=True, slots=True)
class DeviceOption:
    """``-device`` other than ``loader``, e.g. ``virtio-blk-device`` with ``drive``."""

    driver: str
    identifier: str | None = None
    properties: Properties = ()


@dataclass(frozen=True, slots=True)
class ObjectOption:
    """``-object``, e.g. ``rng-random``."""

    kind: str
    identifier: str
    properties: Properties = ()


@dataclass(frozen=True, slots=True)
class SnapshotInterval:
    """``rrinterval``: an automatic snapshot every so many instructions, or every so many seconds of host time."""

    instructions: int | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """Everything that makes the machine what it is, and whether it is recorded or replayed."""

    architecture: str = "aarch64"
    machine: str = "virt"
    cpu: str = CPU_MODELS[0]
    ram_bytes: int = 128 * MIB
    kernel: Path | None = None
    initrd: Path | None = None
    dtb: Path | None = None
    bios: Path | None = None
    append: str = ""
    loaders: tuple[Loader | LoaderData, ...] = ()
    #: virtual ns are ``icount << shift``, 0…10; None: ``auto``
    shift: int | None = None
    #: an idle machine waits in real time (``sleep=on``); False: its time jumps to the next deadline
    sleep: bool = True
    #: what the real-time clock shows at reset, seconds since 1970; None: UTC now, when live or recording
    rtc_base: int | None = None
    serial_ports: int = 1
    mode: Literal["none", "record", "play"] = "none"
    rrfile: Path | None = None
    #: name of the snapshot that recording makes first and replaying starts from
    rrsnapshot: str | None = None
    rrinterval: SnapshotInterval | None = None
    #: bytes of host memory for automatic checkpoints; None: the default budget
    rrmem: int | None = None
    #: of the machine's random numbers; None: drawn from the host and recorded
    seed: int | None = None
    #: the guest's reset ends the machine
    no_reboot: bool = False
    drives: tuple[Drive, ...] = ()
    blockdevs: tuple[Blockdev, ...] = ()
    devices: tuple[DeviceOption, ...] = ()
    objects: tuple[ObjectOption, ...] = ()
    #: the user's name of the machine (``-name``)
    name: str | None = None
    #: ``-M virt,dumpdtb=FILE``-like wishes and other machine properties that the board knows
    machine_properties: Properties = ()
