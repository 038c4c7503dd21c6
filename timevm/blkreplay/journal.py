"""The disk of a replay: the image is only read, and every write of the guest is kept with its number.

The n-th write of a disk is the same in every replay, so what the disk holds is a function of one number: how many
writes were made.  Going back needs no copying and forgets nothing: who reads says at which version, and writes that are
made once more are already there.  The writes of abandoned requests may still come: they are the same ones, too.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import chain, pairwise

from timevm.blkreplay.granules import BLOCK, GRANULE, Part, parts, zero_parts
from timevm.blkreplay.node import BlockNode
from timevm.blkreplay.runs import BASE, ZERO, read_through
from timevm.blkreplay.spool import MEMORY, Spool


class _Versions:
    """Of one granule: numbers of the writes to it, ascending, and where the data of each is."""

    __slots__ = ("numbers", "places")

    def __init__(self) -> None:
        self.numbers = array("Q")
        self.places = array("q")

    def put(self, number: int, place: int) -> None:
        at = bisect_right(self.numbers, number)
        self.numbers.insert(at, number)
        self.places.insert(at, place)


class Journal:
    """A Layer.  Version v is the disk after writes 1 … v; version 0 is ``base``.  One thread at a time.

    Costs about 3 us and 4 KiB for a granule of 4 KiB that is written for the first time; nothing when it is written
    again in another pass.  ``memory``: bytes after which a temporary file takes the data.
    """

    def __init__(self, base: BlockNode, *, memory: int = MEMORY) -> None:
        self._bases: list[tuple[int, BlockNode]] = [(0, base)]
        self._spool = Spool(memory)
        self._versions: dict[int, _Versions] = {}
        self._zeroes: dict[int, array[int]] = {}  # block -> numbers of the writes that made all of it zero
        self._known: list[list[int]] = []  # runs of write numbers that are here: first, last

    @property
    def size(self) -> int:
        return self._bases[0][1].size

    @property
    def bytes_kept(self) -> int:
        return self._spool.size

    def base_at(self, version: int) -> BlockNode:
        """What ``read`` and ``touched`` of that version are over."""
        return self._base_of(version)[1]

    def knows(self, version: int) -> bool:
        """Whether all writes that lead to ``version`` are here."""
        return version == 0 or any(first == 1 and version <= last for first, last in self._known)

    def adopt(self, version: int, node: BlockNode) -> None:
        """The disk at ``version`` is what ``node`` reads: a snapshot was loaded whose earlier writes are not here."""
        at = bisect_right([base_version for base_version, _ in self._bases], version)
        self._bases.insert(at, (version, node))

    def read(self, offset: int, length: int, version: int) -> bytes:
        first, base = self._base_of(version)
        return read_through(lambda granule: self._locate(granule, first, version), self._spool, base, offset, length)

    def write(self, offset: int, data: bytes, number: int) -> None:
        if not self._is_new(number):
            return
        done = 0
        whole = 0  # bytes of neighbouring whole granules, kept as one piece
        start = None
        for part in parts(offset, len(data)):
            if part.whole:
                start = done if start is None else start
                whole += GRANULE
            else:
                self._merge(part, data[done : done + part.length], number)
            done += part.length
        if start is not None:
            place = self._spool.append(data[start : start + whole])
            first = (offset + start) // GRANULE
            for index in range(whole // GRANULE):
                self._put(first + index, number, place + index * GRANULE)
        self._learn(number)

    def write_zeroes(self, offset: int, length: int, number: int, *, unmap: bool = True) -> None:
        if not self._is_new(number):
            return
        for blocks, part in zero_parts(offset, length):
            if part is not None and part.whole:
                self._put(part.granule, number, ZERO)
            elif part is not None:
                self._merge(part, bytes(part.length), number)
            for block in blocks or ():
                numbers = self._zeroes.setdefault(block, array("Q"))
                numbers.insert(bisect_right(numbers, number), number)
        self._learn(number)

    def flush(self) -> None:
        """Nothing here outlives the session."""

    def forget(self) -> None:
        """It is not used any more; its bases are."""
        self._spool.close()

    def close(self) -> None:
        self.forget()
        for _, base in self._bases:
            base.close()

    def touched(self, version: int) -> Iterator[int]:
        """Offsets of the granules that were written between the base and ``version``, ascending.

        For a VM snapshot taken in a replay.
        """
        first, _ = self._base_of(version)
        blocks = {block for block, numbers in self._zeroes.items() if first < self._newest(numbers, version)}
        single = (granule for granule in self._versions if granule // BLOCK not in blocks)
        inside = chain.from_iterable(range(block * BLOCK, (block + 1) * BLOCK) for block in blocks)
        for granule in sorted(chain(single, inside)):
            if self._locate(granule, first, version) != BASE:
                yield granule * GRANULE

    def _base_of(self, version: int) -> tuple[int, BlockNode]:
        for first, base in reversed(self._bases):
            if first <= version:
                return first, base
        raise AssertionError("version 0 is always there")

    def _locate(self, granule: int, first: int, version: int) -> int:
        """Position in the spool, ZERO or BASE, of a granule as of ``version`` over the base of version ``first``."""
        newest, place = first, BASE
        versions = self._versions.get(granule)
        if versions is not None:
            at = bisect_right(versions.numbers, version) - 1
            if at >= 0 and versions.numbers[at] > newest:
                newest, place = versions.numbers[at], versions.places[at]
        numbers = self._zeroes.get(granule // BLOCK)
        if numbers is not None and self._newest(numbers, version) > newest:
            return ZERO
        return place

    @staticmethod
    def _newest(numbers: array[int], version: int) -> int:
        at = bisect_right(numbers, version) - 1
        return numbers[at] if at >= 0 else -1

    def _put(self, granule: int, number: int, place: int) -> None:
        versions = self._versions.get(granule)
        if versions is None:
            versions = self._versions[granule] = _Versions()
        versions.put(number, place)

    def _merge(self, part: Part, data: bytes, number: int) -> None:
        begins = part.granule * GRANULE
        old = self.read(begins, min(GRANULE, self.size - begins), number - 1).ljust(GRANULE, b"\0")
        self._put(part.granule, number, self._spool.append(old[: part.start] + data + old[part.end :]))

    def _is_new(self, number: int) -> bool:
        """False if write ``number`` is here already, or is in the base that holds for it."""
        return not any(first <= number <= last for first, last in reversed(self._known))

    def _learn(self, number: int) -> None:
        self._known.append([number, number])
        self._known.sort()
        for run, following in reversed([*pairwise(self._known)]):
            if run[1] + 1 == following[0]:
                run[1] = following[1]
                self._known.remove(following)
