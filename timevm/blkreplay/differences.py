"""What a replay adds to an image when its disk is saved: how it differs from the image's active disk."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from timevm.blkreplay.granules import GRANULE
from timevm.blkreplay.journal import Journal
from timevm.blkreplay.qcow2.entries import COPIED, Table
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.qcow2.snapshot_operations import SnapshotReader


def overlay_of(image: Qcow2Image, journal: Journal, version: int) -> dict[int, bytes]:
    """Cluster number → bytes, of every cluster in which the disk of a replay is not the image's active one.

    The journal is over ``image`` or snapshots of it.
    """
    size = image.cluster_size
    base = journal.base_at(version)
    touched = {cluster for at in journal.touched(version) for cluster in _clusters(at, size)}
    if isinstance(base, SnapshotReader):
        touched.update(_differing(image, image.l1, base.l1))
    clusters = {}
    for cluster in sorted(touched):
        offset = cluster * size
        if offset < image.size:
            clusters[cluster] = journal.read(offset, min(size, image.size - offset), version).ljust(size, b"\0")
    return clusters


def _clusters(offset: int, size: int) -> range:
    """Of ``size`` bytes, that a granule at ``offset`` is in; small ones are several."""
    return range(offset // size, (offset + GRANULE - 1) // size + 1)


def _differing(image: Qcow2Image, left: Table, right: Table) -> Iterator[int]:
    """Numbers of the clusters that two L1 tables of one image map differently."""
    entries = 1 << image.l2_bits
    nothing = np.zeros(entries, np.uint64)
    for index in range(max(len(left), len(right))):
        pair = [int(table[index]) & ~COPIED if index < len(table) else 0 for table in (left, right)]
        if pair[0] == pair[1]:
            continue
        tables = [image.table_at(entry) for entry in pair]
        values = [nothing if table is None else table.values & ~np.uint64(COPIED) for table in tables]
        for entry in np.flatnonzero(values[0] != values[1]).tolist():
            yield index * entries + entry
        image.l2.shrink()
