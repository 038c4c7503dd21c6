"""What differs between ``timevm-system-aarch64`` and its like: machines, processors, devices, defaults, as one table.

What is in here is understood; whether a board can do it, the board says when it is built.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from timevm.engine.machine.spec import CPU_MODELS, GIB, NO_FIRMWARE, RISCV_CPU_MODELS, Properties


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """``machines``: pattern of the names that mean it → (the board's name, description).  The first CPU is the default.

    ``properties``: of ``-machine``, with the values that are accepted.  ``devices``: drivers of ``-device``.
    ``interfaces``: of ``-drive if=``, the default first.  ``absent``: pattern of known drivers → why there is none.
    """

    architecture: str
    machines: tuple[tuple[str, str, str], ...]
    default_machine: str | None
    processors: tuple[str, ...]
    ram_most: int
    most_serial_ports: int
    properties: dict[str, tuple[str, ...]]
    devices: tuple[str, ...]
    interfaces: tuple[str, ...]
    absent: tuple[tuple[str, str], ...]
    #: how a disk is attached here, for hints
    disk_example: str
    #: a command line's part that boots Linux, for the help
    boot_example: str
    #: words that ``-bios`` takes in place of a file → what they say to the board
    firmware_words: dict[str, Properties] = field(default_factory=dict)

    def board(self, name: str) -> str | None:
        """The board that ``-M name`` means, None if there is none."""
        return next((board for pattern, board, _ in self.machines if re.fullmatch(pattern, name)), None)


_NETWORK = r"virtio-net.*|rtl8139|e1000.*|ne2k.*|vmxnet3|usb-net|i825.*|pcnet|tulip"
_OTHER_CARD = "this machine has another network card: use {card}"

_NO_PCI = "it needs a PCI or USB bus, which this machine has not"
#: of machines whose devices are all on virtio-mmio
_NO_BUS = (
    (_NETWORK, _OTHER_CARD.format(card="virtio-net-device")),
    *((rf"virtio-{kind}-pci", f"{_NO_PCI}: use virtio-{kind}-device") for kind in ("blk", "rng")),
    (
        r".*-pci|ide-.*|pci.*|nvme.*|usb.*|.*-usb|ahci|scsi.*",
        f"{_NO_PCI}: disks are virtio-blk-device here, random numbers virtio-rng-device",
    ),
)
_MMIO_DISK = "-drive file=F,if=none,id=d -device virtio-blk-device,drive=d"

_COMMON_PROPERTIES: dict[str, tuple[str, ...]] = {
    "accel": ("tcg",),
    "usb": ("off",),
    "graphics": ("off", "on"),
    "mem-merge": ("off", "on"),
    "dump-guest-core": ("off", "on"),
    "acpi": ("off", "on"),
}


def _pc(architecture: str, processors: tuple[str, ...]) -> Vocabulary:
    return Vocabulary(
        architecture=architecture,
        machines=(
            (
                r"pc(-i440fx-[0-9]{1,3}\.[0-9]{1,3})?",
                "pc",
                "Standard PC (i440FX + PIIX, 1996), as far as timevm has it",
            ),
        ),
        default_machine="pc",
        processors=processors,
        ram_most=3 * GIB + GIB // 2,
        most_serial_ports=4,
        properties=_COMMON_PROPERTIES
        | {
            "acpi": ("on",),
            "hpet": ("off",),
            "smm": ("off",),
            "vmport": ("off",),
            "pit": ("on",),
            "i8042": ("on",),
            "kernel-irqchip": ("off",),
        },
        devices=(
            "loader",
            "ide-hd",
            "ide-cd",
            "virtio-blk-pci",
            "virtio-net-pci",
            "rtl8139",
            "virtio-rng-pci",
            "isa-debug-exit",
        ),
        interfaces=("ide", "none", "virtio"),
        absent=(
            (_NETWORK, _OTHER_CARD.format(card="virtio-net-pci or rtl8139")),
            (r"virtio-(blk|rng)-device", "a PC has no virtio-mmio bus: use virtio-blk-pci or ide-hd"),
            (
                r"ahci|nvme.*|scsi.*|usb.*|.*-usb|pci.*|virtio-.*|VGA|.*-vga.*|isa-.*|sb16|AC97|intel-hda",
                "this PC has no such device",
            ),
        ),
        disk_example="-drive file=F,if=none,id=d -device ide-hd,drive=d",
        boot_example="-m 512 -nographic -kernel bzImage -initrd initrd.gz -append console=ttyS0",
    )


VOCABULARIES: dict[str, Vocabulary] = {
    "aarch64": Vocabulary(
        architecture="aarch64",
        machines=(
            (
                r"virt(-[0-9]{1,3}\.[0-9]{1,3})?",
                "virt",
                "QEMU's ARM Virtual Machine, as far as timevm has it (GICv2, PL011, PL031, virtio-mmio)",
            ),
        ),
        default_machine=None,
        processors=CPU_MODELS,
        ram_most=4 * GIB,
        most_serial_ports=1,
        properties=_COMMON_PROPERTIES
        | {
            "gic-version": ("2",),
            "secure": ("off",),
            "virtualization": ("off",),
            "mte": ("off",),
            "highmem": ("off", "on"),
            "its": ("off",),
            "iommu": ("none",),
            "ras": ("off",),
        },
        devices=("loader", "virtio-blk-device", "virtio-net-device", "virtio-rng-device"),
        interfaces=("virtio", "none"),
        absent=_NO_BUS,
        disk_example=_MMIO_DISK,
        boot_example="-M virt -m 512 -nographic -kernel Image -initrd initrd.gz -append console=ttyAMA0",
    ),
    "riscv64": Vocabulary(
        architecture="riscv64",
        machines=(
            (
                r"virt",
                "virt",
                "RISC-V VirtIO board, as far as timevm has it (PLIC, CLINT, 16550, Goldfish clock, virtio-mmio)",
            ),
        ),
        default_machine=None,
        processors=RISCV_CPU_MODELS,
        ram_most=4 * GIB,
        most_serial_ports=1,
        properties=_COMMON_PROPERTIES | {"aclint": ("off",), "aia": ("none",), "aia-guests": ("0",)},
        devices=("loader", "virtio-blk-device", "virtio-net-device", "virtio-rng-device"),
        interfaces=("virtio", "none"),
        absent=_NO_BUS,
        disk_example=_MMIO_DISK,
        boot_example="-M virt -m 512 -nographic -kernel Image -initrd initrd.gz -append console=ttyS0",
        firmware_words={"default": (), "none": (NO_FIRMWARE,)},
    ),
    "x86_64": _pc("x86_64", ("qemu64", "max")),
    "i386": _pc("i386", ("qemu32", "max")),
}


def vocabulary_of(architecture: str) -> Vocabulary:
    return VOCABULARIES[architecture]
