"""The block graph of the command line: ``-drive``, ``-blockdev`` and ``-device`` become images and disks (plain data).

Nothing is opened here.  A graph is a chain: a device names a node; ``blkreplay`` nodes name their image; at the end
is an image (``qcow2``, ``raw``: a format over a file; ``null-co``: no file).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from timevm.engine.machine.spec import Blockdev, DeviceOption, Drive, MachineSpec, Properties
from timevm.errors import UserError

#: what a disk may hang on
BLOCK_DEVICES = ("virtio-blk-device", "virtio-blk-pci", "ide-hd", "ide-cd")
DEFAULT_NULL_SIZE = 1 << 30
#: values of ``cache=`` for which the guest sees no write cache; and for which nothing is ever synchronised
WRITE_THROUGH, UNSAFE = ("writethrough", "directsync"), ("unsafe",)
#: keys of ``-blockdev`` by driver; those without effect here are taken as in QEMU
_COMMON = ("read-only", "auto-read-only", "discard", "detect-zeroes", "force-share", "cache.direct", "cache.no-flush")
_FILE = ("filename", "locking", "aio", "drop-cache", "x-check-cache-dropped")
_FORMAT = ("file", *(f"file.{key}" for key in ("driver", "node-name", *_COMMON, *_FILE)))
_QCOW2 = (
    "lazy-refcounts", "pass-discard-request", "pass-discard-snapshot", "pass-discard-other", "overlap-check",
    "cache-size", "l2-cache-size", "l2-cache-entry-size", "refcount-cache-size", "cache-clean-interval",
)  # fmt: skip
KEYS: dict[str, tuple[str, ...]] = {
    "file": (*_COMMON, *_FILE),
    "raw": (*_COMMON, *_FORMAT),
    "qcow2": (*_COMMON, *_FORMAT, *_QCOW2),
    "null-co": (*_COMMON, "size", "latency-ns", "read-zeroes"),
    "blkreplay": (*_COMMON, "image"),
}
CACHES = ("none", "writeback", *WRITE_THROUGH, *UNSAFE)


@dataclass(frozen=True, slots=True)
class ImagePlan:
    """One image.  ``format`` None: look at the file; ``path`` None: ``null-co`` of ``size`` bytes."""

    name: str
    path: Path | None
    format: str | None = None
    snapshot: bool = False
    readonly: bool = False
    #: fsync means fsync
    durable: bool = True
    write_cache: bool = True
    serial: str = ""
    size: int = 0
    #: of a ``-blockdev``; the name of a ``-drive`` is its device's, the node's is made up
    is_node_name: bool = False


@dataclass(frozen=True, slots=True)
class DiskPlan:
    """A disk on a device.  ``name``: the node that the device names; ``filters``: the blkreplay nodes on the way."""

    name: str
    image: ImagePlan
    filters: tuple[str, ...]
    device: DeviceOption


def plan_disks(spec: MachineSpec) -> tuple[list[ImagePlan], list[DiskPlan]]:
    """All images, and the disks in the order of their devices (as in QEMU ``if=ide`` first, ``if=virtio`` last).

    Raises UserError.
    """
    graph = _Graph(spec)
    devices = [_ide_device(name, drive) for name, drive in graph.drives.items() if drive.interface == "ide"]
    devices += [device for device in spec.devices if device.driver in BLOCK_DEVICES]
    bus = "device" if spec.machine == "virt" else "pci"
    for name, drive in graph.drives.items():
        if drive.interface == "virtio":
            devices.append(DeviceOption(f"virtio-blk-{bus}", None, (("drive", name),)))
    disks: list[DiskPlan] = []
    for device in devices:
        name = dict(device.properties)["drive"]
        image, filters = graph.resolve(name)
        if device.driver == "ide-cd":
            image = graph.images[image.name] = replace(image, readonly=True)
        taken = next((disk for disk in disks if disk.image.name == image.name), None)
        if taken is not None:
            raise UserError(f"-device {device.driver},drive={name}: Drive '{image.name}' is already in use")
        disks.append(DiskPlan(name, image, filters, device))
    return list(graph.images.values()), disks


def _ide_device(name: str, drive: Drive) -> DeviceOption:
    """``index=N`` counts the places of all channels, ``bus=`` and ``unit=`` name one.  Raises UserError."""
    given = dict(drive.properties)
    place: dict[str, str] = {}
    if "index" in given:
        channel, unit = divmod(_size(f"-drive id={name}", given["index"]), 2)
        place = {"bus": f"ide.{channel}", "unit": str(unit)}
    elif "bus" in given or "unit" in given:
        place = {"bus": f"ide.{given.get('bus', '0')}", "unit": given.get("unit", "0")}
    driver = "ide-cd" if given.get("media") == "cdrom" else "ide-hd"
    return DeviceOption(driver, None, (("drive", name), *place.items()))


class _Graph:
    """``images``: by the name of their node."""

    def __init__(self, spec: MachineSpec) -> None:
        self.drives: dict[str, Drive] = {}
        self._blockdevs = {blockdev.node_name: blockdev for blockdev in spec.blockdevs}
        self.images: dict[str, ImagePlan] = {}
        for number, drive in enumerate(spec.drives):
            self.drives[drive.identifier or _automatic_name(drive, number)] = drive
        inner = {dict(blockdev.properties).get("file") for blockdev in spec.blockdevs}
        for name, drive in self.drives.items():
            if drive.driver != "blkreplay":
                self.images[name] = _image_of_drive(name, drive)
        for name, blockdev in self._blockdevs.items():
            _check_keys(blockdev)
            if blockdev.driver != "blkreplay" and name not in inner:
                self.images[name] = self._image_of_blockdev(blockdev)

    def resolve(self, name: str) -> tuple[ImagePlan, tuple[str, ...]]:
        """The image at the end of the chain that begins with ``name``."""
        filters: list[str] = []
        while name not in self.images:
            if name in filters:
                raise UserError(f"blkreplay nodes in a circle: {', '.join(filters)}")
            filters.append(name)
            name = self._image_named_by(name)
        return self.images[name], tuple(filters)

    def _image_named_by(self, name: str) -> str:
        if name in self.drives:
            return self.drives[name].image or ""
        if name in self._blockdevs and self._blockdevs[name].driver == "blkreplay":
            return dict(self._blockdevs[name].properties).get("image", "")
        if name in self._blockdevs:
            raise UserError(f"node '{name}' is the file of another node: name that one")
        raise UserError(f"Cannot find device='{name}' nor node-name='{name}'")

    def _image_of_blockdev(self, blockdev: Blockdev) -> ImagePlan:
        properties = dict(blockdev.properties)
        shown = f"-blockdev driver={blockdev.driver},node-name={blockdev.node_name}"
        readonly = _switch(shown, properties, "read-only", False)
        durable = not _switch(shown, properties, "cache.no-flush", False)
        if blockdev.driver == "null-co":
            size = _size(shown, properties.get("size", str(DEFAULT_NULL_SIZE)))
            return ImagePlan(blockdev.node_name, None, "null-co", readonly=readonly, size=size, is_node_name=True)
        path = self._path_of(shown, blockdev)
        image_format = "raw" if blockdev.driver == "file" else blockdev.driver
        return ImagePlan(blockdev.node_name, path, image_format, readonly=readonly, durable=durable, is_node_name=True)

    def _path_of(self, shown: str, blockdev: Blockdev) -> Path:
        properties = dict(blockdev.properties)
        name = properties.get("file")
        if blockdev.driver == "file" or (name is None and "file.filename" in properties):
            key = "filename" if blockdev.driver == "file" else "file.filename"
            if key not in properties:
                raise UserError(f"{shown}: Parameter '{key}' is missing")
            return Path(properties[key])
        if name is None:
            raise UserError(f'{shown}: A block device must be specified for "file"')
        file = self._blockdevs.get(name)
        if file is None or file.driver != "file":
            raise UserError(f"{shown},file={name}: Cannot find device='{name}' nor node-name='{name}'")
        return self._path_of(f"-blockdev driver=file,node-name={name}", file)


def _check_keys(blockdev: Blockdev) -> None:
    for key, value in blockdev.properties:
        if key not in KEYS.get(blockdev.driver, (key,)):
            raise UserError(
                f"-blockdev driver={blockdev.driver},node-name={blockdev.node_name},{key}={value}: "
                f"Parameter '{key}' is unexpected"
            )
        if key == "file.driver" and value != "file":
            raise UserError(f"-blockdev node-name={blockdev.node_name},{key}={value}: images are files only")


def _automatic_name(drive: Drive, number: int) -> str:
    return f"{drive.interface}{number}"


def _image_of_drive(name: str, drive: Drive) -> ImagePlan:
    properties = dict(drive.properties)
    shown = f"-drive id={name}"
    cache = properties.get("cache", "writeback")
    if cache not in CACHES:
        raise UserError(f"{shown}: invalid cache option '{cache}' (known: {', '.join(CACHES)})")
    no_flush = _switch(shown, properties, "cache.no-flush", False)
    return ImagePlan(
        name,
        drive.file,
        drive.format,
        snapshot=drive.snapshot,
        readonly=drive.readonly,
        durable=cache not in UNSAFE and not no_flush,
        write_cache=cache not in WRITE_THROUGH,
        serial=properties.get("serial", ""),
    )


def _switch(shown: str, properties: dict[str, str], key: str, default: bool) -> bool:
    value = properties.get(key)
    if value is None:
        return default
    if value in ("on", "true", "yes"):
        return True
    if value in ("off", "false", "no"):
        return False
    raise UserError(f"{shown}: Parameter '{key}' expects 'on' or 'off'")


def _size(shown: str, text: str) -> int:
    factor = {"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}.get(text[-1:].lower(), 0)
    digits = text[:-1] if factor else text
    if not digits.isascii() or not digits.isdigit():
        raise UserError(f"{shown}: Parameter 'size' expects a size")
    return int(digits) * (factor or 1)


__all__ = ["BLOCK_DEVICES", "DiskPlan", "ImagePlan", "Properties", "plan_disks"]
