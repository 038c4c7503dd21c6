"""Compressed clusters into an image that is being made: one behind the other, several of them in a host cluster."""

from __future__ import annotations

import numpy as np

from timevm.blkreplay.qcow2.compressed import compress
from timevm.blkreplay.qcow2.entries import compressed_entry
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.errors import UserError

_SECTOR = 512


class CompressedWriter:
    """For guest clusters without a place only: a compressed one is never written over.

    ``finish`` at the end, then the image's ``flush``.
    """

    def __init__(self, image: Qcow2Image) -> None:
        """Raises UserError, HostError."""
        image.begin_writing()
        self._image = image
        #: bytes of the file that the next one may take
        self._at = self._end = 0

    def write(self, offset: int, data: bytes) -> None:
        """One guest cluster; the disk's last one may be shorter.  What does not get smaller is written as it is.

        Costs what deflating costs, some 20 ms a MiB.  Raises UserError for a cluster that has a place, HostError.
        """
        image = self._image
        packed = compress(data.ljust(image.cluster_size, b"\0"), image.header.compression)
        if packed is None:
            image.write(offset, data)
            return
        number = offset >> image.cluster_bits
        table = image.writable_table(number >> image.l2_bits)
        index = number & ((1 << image.l2_bits) - 1)
        if int(table.values[index]):
            raise UserError(f"the cluster at {offset} of {image.path} is in use: no compressed one can replace it")
        at = self._allocate(len(packed))
        image.file.write(at, packed)
        table.values[index] = np.uint64(compressed_entry(at, len(packed), image.cluster_bits))
        image.l2.touch(table, index, index + 1)
        image.relieve()

    def finish(self) -> None:
        """Readers take whole sectors."""
        file = self._image.file
        file.truncate(file.size + -file.size % _SECTOR)

    def _allocate(self, size: int) -> int:
        """A place for ``size`` bytes, less than a cluster: counted once in each cluster that it touches."""
        image, bits = self._image, self._image.cluster_bits
        current = np.array([self._at >> bits])
        if self._at < self._end and int(image.refcounts.counts(current)[0]) >= (1 << image.header.refcount_bits) - 1:
            self._at = self._end  # as many share it as its count can say
        rest = self._end - self._at
        if size > rest:
            first, _ = image.refcounts.allocate(1)
            start = first << bits
            if not rest or start != self._end:
                self._at, rest = start, 0
            self._end = start + image.cluster_size
        else:
            rest = size
        if rest:
            image.refcounts.add(current)
        at = self._at
        self._at += size
        return at
