"""What every device is: registers behind ``read``/``write``, ports given to its constructor, and a plain state record.

A device knows no address, thread, clock source or file; what it needs from outside comes in through these Protocols.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from timevm.errors import GuestError


class InterruptLine(Protocol):
    """One wire into an interrupt controller.  ``set`` may be called with the level it already has."""

    def set(self, level: bool) -> None: ...


class Timer(Protocol):
    """A one-shot timer of virtual time."""

    def arm(self, deadline_ns: int) -> None:
        """Fire once at ``deadline_ns`` of virtual time; replaces an earlier deadline.  A past one fires at once."""

    def cancel(self) -> None: ...


class VirtualTime(Protocol):
    """Virtual time as a device sees it (ns since reset, exact at the access under way)."""

    def now_ns(self) -> int: ...

    def timer(self, name: str, fire: Callable[[], None]) -> Timer:
        """A new timer; ``name`` is unique in the machine and breaks ties: firing order never depends on luck."""


class DmaError(GuestError):
    """A device was told to reach memory that is not RAM: it reports that to its driver, the machine goes on."""


class GuestMemory(Protocol):
    """RAM by physical address, as a bus master reaches it; both raise DmaError if any byte of the range is not RAM."""

    def read(self, address: int, size: int) -> bytes: ...

    def write(self, address: int, data: bytes) -> None: ...


class Device(Protocol):
    """A window of registers.  ``size`` of an access is 1, 2, 4 or 8 bytes; ``offset`` is relative to the window."""

    name: str
    window: int  # bytes

    def read(self, offset: int, size: int) -> int: ...

    def write(self, offset: int, size: int, value: int) -> None: ...


class Stateful(Protocol):
    """State in, state out; ``restore`` calls nobody: no line is driven, no timer armed (rule 7 of the architecture)."""

    def reset(self) -> None:
        """Power-on state; does not drive lines either: the machine resets all devices together."""

    def state(self) -> dict[str, Any]:
        """A plain record: str keys; int, bool, None, bytes, str, and lists or dicts of those."""

    def restore(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class WithTraits(Protocol):
    """A device that its driver can tell from others of its kind by more than its state."""

    def traits(self) -> dict[str, Any]:
        """What a driver may read there and nobody ever changes: a plain record."""
