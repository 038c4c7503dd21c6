"""The machine's disks as monitors show them: plain data, made on the CPU thread."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from timevm.blkreplay.null import NullNode
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.raw import RawImage
from timevm.engine.machine.disks import Disk, Disks, OpenImage
from timevm.errors import HostError


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A block node.  ``file``: as the user may name it; sizes in bytes, ``allocated``: on the host's disk."""

    name: str
    driver: str
    file: str
    read_only: bool
    size: int
    allocated: int | None = None
    cluster_size: int | None = None
    dirty: bool | None = None
    backing_file: str | None = None
    backing_depth: int = 0
    write_cache: bool = True
    no_flush: bool = False


@dataclass(frozen=True, slots=True)
class DriveInfo:
    """A ``-drive``, or a node of ``-blockdev`` (``device`` is then empty).

    ``attached``: the device's name, None if no device has it.  ``statistics``: counters by name, none where nothing is
    counted (it is not what a device uses).
    """

    device: str
    attached: str | None
    node: NodeInfo
    statistics: dict[str, int]


def drive_infos(disks: Disks) -> list[DriveInfo]:
    """All drives, and the nodes that a device has."""
    return [info for info in _all(disks) if info.device or info.attached]


def _all(disks: Disks) -> list[DriveInfo]:
    """The images, each followed by what is above it."""
    infos = []
    for number, image in enumerate(disks.images.values()):
        disk = next((disk for disk in disks.disks if disk.image is image), None)
        node = _image_node(image, number)
        filters = disk.plan.filters if disk is not None else ()
        names = [image.name, *reversed(filters)]
        for name in names:
            last = disk is not None and name == names[-1]
            is_node = image.plan.is_node_name
            above = name if is_node else f"#blkreplay-{name}"
            shown = node if name == image.name else replace(node, name=above, driver="blkreplay")
            attached = disk.plan.device.identifier or disk.plan.device.driver if disk is not None and last else None
            infos.append(
                DriveInfo(
                    "" if is_node else name, attached, shown, _statistics(disk) if last and disk is not None else {}
                )
            )
    return infos


def nodes(disks: Disks) -> list[NodeInfo]:
    """All nodes: those of the drives, and the files below them."""
    found = [info.node for info in _all(disks)]
    for number, image in enumerate(disks.images.values()):
        if not isinstance(image.node, NullNode):
            size = image.node.file.size
            node = _image_node(image, number)
            found.append(
                NodeInfo(f"#file{number:03}", "file", node.file, node.read_only, size, allocated=node.allocated)
            )
    return found


def _image_node(image: OpenImage, number: int) -> NodeInfo:
    plan, node = image.plan, image.node
    name = plan.name if plan.is_node_name else f"#block{number:03}"
    if isinstance(node, NullNode):
        return NodeInfo(name, "null-co", "null-co://", plan.readonly, node.size, write_cache=plan.write_cache)
    depth, backing = 0, None
    if isinstance(node, Qcow2Image):
        backing = node.header.backing_file
        depth = sum(1 for _ in _chain(node))
    info = NodeInfo(
        name,
        "qcow2" if isinstance(node, Qcow2Image) else "raw",
        str(node.path),
        plan.readonly,
        node.size,
        allocated=_allocated(node),
        cluster_size=node.cluster_size if isinstance(node, Qcow2Image) else None,
        dirty=node.header.is_dirty if isinstance(node, Qcow2Image) else None,
        backing_file=backing,
        backing_depth=depth,
        write_cache=plan.write_cache,
        no_flush=not plan.durable,
    )
    if not plan.snapshot:
        return info
    # the temporary overlay is what is seen from above
    return replace(info, file=f"{node.path} (temporary overlay)", backing_file=str(node.path), backing_depth=depth + 1)


def _chain(image: Qcow2Image) -> Iterator[object]:
    backing = image.backing
    while backing is not None:
        yield backing
        backing = backing.backing if isinstance(backing, Qcow2Image) else None


def _allocated(node: Qcow2Image | RawImage) -> int | None:
    try:
        return node.file.allocated_bytes
    except (OSError, HostError):
        return None


def _statistics(disk: Disk) -> dict[str, int]:
    counted = disk.drive.statistics
    names = {"rd": "read", "wr": "write", "flush": "flush"}
    numbers = {f"{short}_bytes": counted.bytes[name] for short, name in names.items() if short != "flush"}
    numbers |= {f"{short}_operations": counted.operations[name] for short, name in names.items()}
    numbers |= {f"{short}_total_time_ns": counted.nanoseconds[name] for short, name in names.items()}
    return numbers | {"wr_highest_offset": counted.highest_write}
