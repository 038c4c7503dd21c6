"""Another size for the virtual disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from timevm.blkreplay.qcow2.layout import L1_LIMIT, l1_entries_for
from timevm.blkreplay.qcow2.transaction import transaction
from timevm.errors import UserError

if TYPE_CHECKING:
    from timevm.blkreplay.qcow2.image import Qcow2Image


def resize(image: Qcow2Image, size: int) -> None:
    """What is new reads as zeroes, what is behind the new end is given up.  Raises UserError, HostError."""
    old = image.size
    entries = l1_entries_for(size, image.cluster_bits)
    if size < 0 or entries * 8 > L1_LIMIT:
        raise UserError(f"the image {image.path} cannot have a disk of {size} bytes with clusters of its size")
    if image.records and image.header.version < 3:
        raise UserError("Can't resize a v2 image which has snapshots")
    if size == old:
        return
    if size < old:
        first = size + -size % image.cluster_size
        if first < old:
            image.discard(first, old - first)
    with transaction(image) as change:
        disk = l1_entries_for(min(old, size), image.cluster_bits)
        gone = image.l1.copy()
        gone[:disk] = 0  # VM state that an apply by QEMU left in the active table goes too
        change.subtract_tree(gone)
        l1 = np.concatenate((image.l1[:disk], np.zeros(entries - disk, dtype=np.uint64)))
        change.finish(l1, image.records, size=size)
    if size > old:
        end = old + -old % image.cluster_size
        if image.backing is not None:
            end = max(end, image.backing.size)
        image.write_zeroes(old, min(end, size) - old)
        image.flush()
