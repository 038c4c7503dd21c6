"""The disk of a recording that somebody may look back at: the image, and beside it the journal a replay would have."""

from __future__ import annotations

import logging
from collections.abc import Callable

from timevm.blkreplay.journal import Journal
from timevm.blkreplay.layer import ImageLayer
from timevm.blkreplay.node import BlockNode
from timevm.errors import HostError

_log = logging.getLogger(__name__)

#: bytes of writes that are kept: most in a temporary file
MOST = 256 << 20


class RecordedLayer:
    """A Layer.  A write costs what it costs the image, and 3 us for each 4 KiB more.

    ``base`` is what the disk was when the recording began.  Of more writes than ``most`` bytes none is kept any more:
    who looks back then has to run the guest from the start again.  The guest never knows.
    """

    def __init__(self, image: ImageLayer, base: BlockNode, *, most: int = MOST) -> None:
        self._image = image
        self._base = base
        self._most = most
        self._journal: Journal | None = Journal(base)

    @property
    def size(self) -> int:
        return self._image.size

    def read(self, offset: int, length: int, version: int) -> bytes:
        return self._image.read(offset, length, version)

    def write(self, offset: int, data: bytes, number: int) -> None:
        self._keep(lambda journal: journal.write(offset, data, number))
        self._image.write(offset, data, number)

    def write_zeroes(self, offset: int, length: int, number: int, *, unmap: bool) -> None:
        self._keep(lambda journal: journal.write_zeroes(offset, length, number, unmap=unmap))
        self._image.write_zeroes(offset, length, number, unmap=unmap)

    def _keep(self, write: Callable[[Journal], None]) -> None:
        """Also what the image then refuses: the guest of a replay reads what it tried to write, as this one does."""
        if self._journal is None:
            return
        try:
            write(self._journal)
        except HostError as error:
            self._give_up(str(error))
            return
        if self._journal.bytes_kept > self._most:
            self._give_up(f"more than {self._most >> 20} MiB were written")

    def _give_up(self, why: str) -> None:
        _log.info("what the guest writes to its disk is not kept any more (%s): looking back will take longer", why)
        if self._journal is not None:
            self._journal.forget()
        self._journal = None

    def flush(self) -> None:
        self._image.flush()

    def look_back(self) -> tuple[Journal, bool]:
        """The layer of the replay that the recording becomes, and whether it has all writes up to now.

        What only the recording needed is let go; ``base`` goes with the journal.  Raises HostError.
        """
        self._image.flush()
        self._image.forget()
        whole = self._journal is not None
        return self._journal or Journal(self._base), whole

    def close(self) -> None:
        if self._journal is not None:
            self._journal.forget()
        self._image.close()
        self._base.close()
