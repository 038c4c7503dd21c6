"""``snapshot=on``: what the guest writes is kept for the session and is gone with it; the image stays as it is."""

from __future__ import annotations

from timevm.blkreplay.granules import BLOCK, GRANULE, Part, parts, zero_parts
from timevm.blkreplay.node import BlockNode
from timevm.blkreplay.runs import BASE, ZERO, read_through
from timevm.blkreplay.spool import MEMORY, Spool


class TemporaryOverlay:
    """A BlockNode over ``base``, which is only read (and closed with it).

    Each granule that is written takes its bytes, once.  Where requests are whole granules the base is never read to
    complete one.
    """

    def __init__(self, base: BlockNode, *, memory: int = MEMORY, granule: int = GRANULE) -> None:
        self._base = base
        self._granule = granule
        self._spool = Spool(memory)
        self._places: dict[int, int] = {}  # granule -> position in the spool, or ZERO
        self._zeroes: set[int] = set()  # blocks that are zero where no granule says otherwise

    @property
    def size(self) -> int:
        return self._base.size

    @property
    def base(self) -> BlockNode:
        return self._base

    def read(self, offset: int, length: int) -> bytes:
        return read_through(self._locate, self._spool, self._base, offset, length, self._granule)

    def write(self, offset: int, data: bytes) -> None:
        done = 0
        fresh = range(0)  # neighbouring granules that are whole and not held yet: kept as one piece
        for part in parts(offset, len(data), self._granule):
            if part.whole and self._locate(part.granule) < 0:
                fresh = range(fresh.start if fresh else part.granule, part.granule + 1)
            else:
                self._keep(fresh, offset, data)
                fresh = range(0)
                self._put(part, data[done : done + part.length])
            done += part.length
        self._keep(fresh, offset, data)

    def _keep(self, granules: range, offset: int, data: bytes) -> None:
        """These whole granules of a write of ``data`` at ``offset``."""
        if not granules:
            return
        size = self._granule
        start = granules.start * size - offset
        place = self._spool.append(data[start : start + len(granules) * size])
        self._places.update(zip(granules, range(place, self._spool.size, size), strict=True))

    def renew(self, offset: int, data: bytes) -> None:
        """``data`` is in the base now: what is held of that range becomes it.  Nothing else is held afterwards."""
        done = 0
        for part in parts(offset, len(data), self._granule):
            if self._locate(part.granule) != BASE:
                self._put(part, data[done : done + part.length])
            done += part.length

    def renew_zeroes(self, offset: int, length: int) -> None:
        """The same with zeroes."""
        size = self._granule
        first, last = offset // size, (offset + length - 1) // size
        for granule in [granule for granule in self._places if first <= granule <= last]:
            start, end = max(offset, granule * size), min(offset + length, (granule + 1) * size)
            self.renew(start, bytes(end - start))

    def write_zeroes(self, offset: int, length: int, *, unmap: bool = True) -> None:
        for blocks, part in zero_parts(offset, length, self._granule):
            if part is not None and part.whole:
                self._places[part.granule] = ZERO
            elif part is not None:
                self._put(part, bytes(part.length))
            for block in blocks or ():
                self._zeroes.add(block)
                for granule in range(block * BLOCK, (block + 1) * BLOCK):
                    self._places.pop(granule, None)

    def discard(self, offset: int, length: int) -> None:
        self.write_zeroes(offset, length)

    def flush(self) -> None:
        """Nothing here outlives the session."""

    def forget(self) -> None:
        """It is not used any more; its base is."""
        self._spool.close()
        self._places.clear()

    def close(self) -> None:
        self.forget()
        self._base.close()

    def _locate(self, granule: int) -> int:
        place = self._places.get(granule)
        if place is not None:
            return place
        return ZERO if granule // BLOCK in self._zeroes else BASE

    def _put(self, part: Part, data: bytes) -> None:
        place = self._locate(part.granule)
        if place >= 0:
            self._spool.overwrite(place + part.start, data)
            return
        if not part.whole:
            size = self._granule
            begins = part.granule * size
            old = self.read(begins, min(size, self.size - begins)).ljust(size, b"\0")
            data = old[: part.start] + data + old[part.end :]
        self._places[part.granule] = self._spool.append(data)
