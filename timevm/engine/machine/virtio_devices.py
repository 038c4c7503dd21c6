"""The virtio devices of the command line, whatever bus they go to: their options checked, the devices made."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from timevm.engine.devices import virtio_net
from timevm.engine.devices.base import GuestMemory
from timevm.engine.devices.virtio import VirtioDevice
from timevm.engine.devices.virtio_blk import BlockOptions, VirtioBlk
from timevm.engine.devices.virtio_net import VirtioNet
from timevm.engine.devices.virtio_rng import VirtioRng
from timevm.engine.devices.virtqueue import LARGEST_QUEUE
from timevm.engine.machine.disks import Disk, Disks
from timevm.engine.machine.network_cards import Cable, Cables
from timevm.engine.machine.randomness import derive
from timevm.engine.machine.spec import DeviceOption, MachineSpec
from timevm.errors import UserError

#: properties of QEMU's that change nothing here
_IGNORED_BLOCK = (
    "drive", "bootindex", "rerror", "werror", "share-rw", "config-wce", "request-merging", "event_idx", "indirect_desc",
    "seg-max-adjust", "any_layout", "scsi", "iommu_platform", "account-invalid", "account-failed",
)  # fmt: skip
_BLOCK = (
    "serial", "logical_block_size", "physical_block_size", "min_io_size", "opt_io_size", "num-queues", "queue-size",
    "write-cache", "discard", "write-zeroes",
)  # fmt: skip
_RNG = ("rng", "max-bytes", "period", "event_idx", "indirect_desc", "iommu_platform")
#: of a network card; what offloads and queues there could be in QEMU is not offered here, whatever they say
_NET = (
    "netdev", "mac", "bootindex", "event_idx", "indirect_desc", "iommu_platform", "ctrl_vlan", "ctrl_guest_offloads",
    "any_layout", "csum", "guest_csum", "gso", "guest_tso4", "guest_tso6", "guest_ecn", "guest_ufo", "guest_announce",
    "host_tso4", "host_tso6", "host_ecn", "host_ufo", "mq", "rss", "hash", "tx", "x-txtimer", "x-txburst",
    "x-mtu-bypass-backend",
)  # fmt: skip
#: features of a network card that ``=off`` takes away
_NET_FEATURES = {
    "mrg_rxbuf": virtio_net.MRG_RXBUF,
    "status": virtio_net.STATUS,
    "ctrl_vq": virtio_net.CTRL_VQ | virtio_net.CTRL_RX | virtio_net.CTRL_RX_EXTRA | virtio_net.CTRL_MAC_ADDR,
    "ctrl_rx": virtio_net.CTRL_RX,
    "ctrl_rx_extra": virtio_net.CTRL_RX_EXTRA,
    "ctrl_mac_addr": virtio_net.CTRL_MAC_ADDR,
}
#: properties of the PCI function; the board looks at them
_PCI = (
    "addr", "bus", "disable-legacy", "disable-modern", "vectors", "class", "ioeventfd", "multifunction", "romfile",
    "rombar", "ats", "modern-pio-notify", "x-disable-pcie", "page-per-vq", "failover_pair_id",
)  # fmt: skip
_BLOCK_SIZES = (512, 2 << 20)


def options_of(spec: MachineSpec, disks: Disks, bus: str) -> list[DeviceOption]:
    """The options of the devices that ``make_devices`` gives, in the same order."""
    plain = (f"virtio-rng-{bus}", f"virtio-net-{bus}")
    attached = [disk.plan.device for disk in disks.disks if disk.plan.device.driver == f"virtio-blk-{bus}"]
    identities = {id(option) for option in attached}
    named = [option for option in spec.devices if id(option) in identities or option.driver in plain]
    chosen = {id(option) for option in named}
    return [*named, *(option for option in attached if id(option) not in chosen)]


def make_devices(
    spec: MachineSpec, disks: Disks, cables: Cables, memory_of: Callable[[str], GuestMemory], seed: bytes, bus: str
) -> Iterator[VirtioDevice]:
    """The devices of one bus (``device`` for virtio-mmio, ``pci``) in the order of the command line.

    Disks of ``if=virtio`` come last, as in QEMU.  Raises UserError.
    """
    by_device = {id(disk.plan.device): disk for disk in disks.disks}
    entropy_sources = 0
    for option in spec.devices:
        if option.driver == f"virtio-blk-{bus}" and id(option) in by_device:
            yield _disk(option, by_device.pop(id(option)), memory_of)
        elif option.driver == f"virtio-rng-{bus}":
            name = option.identifier or f"virtio-rng{entropy_sources}"
            _check_known(option, _RNG)
            yield VirtioRng(name, memory_of(name), derive(seed, f"virtio-rng {entropy_sources}", 32))
            entropy_sources += 1
        elif option.driver == f"virtio-net-{bus}":
            yield _card(option, cables.of_device(option), memory_of)
    for disk in by_device.values():
        if disk.plan.device.driver == f"virtio-blk-{bus}":
            yield _disk(disk.plan.device, disk, memory_of)


def _disk(option: DeviceOption, disk: Disk, memory_of: Callable[[str], GuestMemory]) -> VirtioBlk:
    name = option.identifier or f"virtio-blk {disk.name}"
    return VirtioBlk(name, memory_of(name), disk.drive, block_options(option, disk))


def _card(option: DeviceOption, cable: Cable, memory_of: Callable[[str], GuestMemory]) -> VirtioNet:
    _check_known(option, (*_NET, *_NET_FEATURES))
    given = dict(option.properties)
    features = virtio_net.FEATURES
    for name, bits in _NET_FEATURES.items():
        if not _switch(option, given, name, True):
            features &= ~bits
    return VirtioNet(cable.plan.name, memory_of(cable.plan.name), cable, cable.plan.address, features)


def block_options(option: DeviceOption, disk: Disk) -> BlockOptions:
    """Raises UserError, in QEMU's words where it has some."""
    _check_known(option, (*_BLOCK, *_IGNORED_BLOCK))
    given = dict(option.properties)
    logical = _number(option, given, "logical_block_size", 512)
    physical = _number(option, given, "physical_block_size", logical)
    for name, value in (("logical_block_size", logical), ("physical_block_size", physical)):
        if value & value - 1 or not _BLOCK_SIZES[0] <= value <= _BLOCK_SIZES[1]:
            raise _refusal(
                option, f"Property {option.driver}.{name} doesn't take value '{value}': a power of two from 512"
            )
    if physical < logical:
        raise _refusal(option, "logical_block_size > physical_block_size not supported")
    queue_size = _number(option, given, "queue-size", 256)
    if queue_size & queue_size - 1 or not 4 <= queue_size <= LARGEST_QUEUE:
        raise _refusal(
            option, f"invalid queue-size property ({queue_size}), must be a power of 2 (max {LARGEST_QUEUE})"
        )
    queues = _number(option, given, "num-queues", 1)
    if not 1 <= queues <= LARGEST_QUEUE:
        raise _refusal(option, f"num-queues property must be larger than 0 and at most {LARGEST_QUEUE}")
    sizes = {name: _number(option, given, name, 0) for name in ("min_io_size", "opt_io_size")}
    for name, value in sizes.items():
        if value % logical:
            raise _refusal(option, f"{name} must be a multiple of logical_block_size")
    if disk.drive.size % logical:
        raise _refusal(option, f"the disk's {disk.drive.size} bytes are no whole number of blocks of {logical}")
    return BlockOptions(
        serial=given.get("serial", disk.plan.image.serial),
        logical_block_size=logical,
        physical_block_size=physical,
        min_io_size=sizes["min_io_size"],
        opt_io_size=sizes["opt_io_size"],
        queues=queues,
        queue_size=queue_size,
        write_cache=_switch(option, given, "write-cache", disk.plan.image.write_cache),
        discard=_switch(option, given, "discard", True),
        write_zeroes=_switch(option, given, "write-zeroes", True),
    )


def _check_known(option: DeviceOption, known: tuple[str, ...]) -> None:
    if option.driver.endswith("-pci"):
        known = (*known, *_PCI)
    for key, _ in option.properties:
        if key not in known:
            raise _refusal(option, f"Property '{option.driver}.{key}' not found")


def _number(option: DeviceOption, given: dict[str, str], name: str, default: int) -> int:
    text = given.get(name)
    if text is None or (text == "auto" and name == "num-queues"):
        return default
    factor = {"k": 1 << 10, "m": 1 << 20}.get(text[-1:].lower(), 1)
    try:
        value = int(text[:-1] if factor > 1 else text, 0) * factor
    except ValueError:
        value = -1
    if not 0 <= value < 1 << 32:
        raise _refusal(option, f"Parameter '{name}' expects a number")
    return value


def _switch(option: DeviceOption, given: dict[str, str], name: str, default: bool) -> bool:
    value = given.get(name, "auto")
    if value == "auto":
        return default
    if value not in ("on", "off", "true", "false", "yes", "no"):
        raise _refusal(option, f"Parameter '{name}' expects 'on' or 'off'")
    return value in ("on", "true", "yes")


def _refusal(option: DeviceOption, why: str) -> UserError:
    return UserError(f"-device {option.driver}: {why}")
