"""What the disks of a recording need for looking back at it: every write that was made, over what they began as.

Nothing is kept where nobody could look back; then these are never called.
"""

from __future__ import annotations

from timevm.blkreplay.layer import ImageLayer
from timevm.blkreplay.node import BlockNode
from timevm.blkreplay.recorded_layer import RecordedLayer
from timevm.engine.machine.disks import Disk, Disks


def keep_past(disks: Disks) -> None:
    """Of a recording whose first instruction is still to come."""
    for disk in disks.disks:
        base = _beginning(disks, disk)
        if base is not None and isinstance(disk.layer, ImageLayer):
            disk.layer = RecordedLayer(disk.layer, base)
            disk.drive.use(disk.layer)


def _beginning(disks: Disks, disk: Disk) -> BlockNode | None:
    """What the disk was when the recording began; None: nothing that could be written to."""
    image = disk.image
    for node, identifier in disks.begun:
        if node is image.node:
            return node.snapshot_reader(identifier, pin=True)
    return None if image.plan.path is None else image.node


def look_back(disks: Disks) -> bool:
    """The disks are those of the replay that the recording becomes.  False: not all writes up to now are known.

    The caller has drained them.  Raises HostError.
    """
    whole = True
    for disk in disks.disks:
        if isinstance(disk.layer, RecordedLayer):
            disk.layer, known = disk.layer.look_back()
            whole &= known
            disk.drive.use(disk.layer)
    return whole
