"""What the requests of a drive are carried out on: the image itself, or in a replay the journal over it."""

from __future__ import annotations

from typing import Protocol

from timevm.blkreplay.node import BlockNode
from timevm.blkreplay.temporary_overlay import TemporaryOverlay
from timevm.errors import HostError

#: bytes; all requests of a guest are of whole ones, so to keep one needs no reading
SECTOR = 512


class Layer(Protocol):
    """Called by the I/O thread, in the order of the requests.  Writes are numbered from 1; a read is made at the
    *version* that has as many writes as were asked for before it.  All may raise HostError."""

    @property
    def size(self) -> int: ...

    def read(self, offset: int, length: int, version: int) -> bytes: ...

    def write(self, offset: int, data: bytes, number: int) -> None: ...

    def write_zeroes(self, offset: int, length: int, number: int, *, unmap: bool) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...


class ImageLayer:
    """The image: its version is the present one, so numbers mean nothing.

    What a write covered that the host refused is undefined in the image, and a replay could not know it.  So the guest
    goes on to read what it tried to write, from memory, until it writes there with success: the same every time.
    """

    def __init__(self, node: BlockNode) -> None:
        self._node = node
        self._lost: TemporaryOverlay | None = None

    @property
    def node(self) -> BlockNode:
        return self._node

    @property
    def size(self) -> int:
        return self._node.size

    def read(self, offset: int, length: int, version: int) -> bytes:
        return (self._lost or self._node).read(offset, length)

    def write(self, offset: int, data: bytes, number: int) -> None:
        try:
            self._node.write(offset, data)
        except HostError:
            self._keep().write(offset, data)
            raise
        if self._lost is not None:
            self._lost.renew(offset, data)

    def write_zeroes(self, offset: int, length: int, number: int, *, unmap: bool) -> None:
        try:
            self._node.write_zeroes(offset, length, unmap=unmap)
        except HostError:
            self._keep().write_zeroes(offset, length)
            raise
        if self._lost is not None:
            self._lost.renew_zeroes(offset, length)

    def flush(self) -> None:
        self._node.flush()

    def forget(self) -> None:
        """Nothing is read from here any more, and the image stays open: what only this session holds is let go."""
        for node in (self._node, self._lost):
            if isinstance(node, TemporaryOverlay):
                node.forget()

    def close(self) -> None:
        self._node.close()

    def _keep(self) -> TemporaryOverlay:
        if self._lost is None:
            self._lost = TemporaryOverlay(self._node, granule=SECTOR)
        return self._lost
