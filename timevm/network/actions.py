"""What a network's core asks of the host, as data; the shell carries it out, in order."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flow:
    """One conversation of the guest, as the guest sees it: its own address and port, and the other's."""

    guest: bytes
    guest_port: int
    other: bytes
    other_port: int


@dataclass(frozen=True, slots=True)
class Deliver:
    """A frame for the guest's card."""

    frame: bytes


@dataclass(frozen=True, slots=True)
class Connect:
    """TCP to ``host``; the answer is ``connected`` or ``lost``."""

    flow: Flow
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes for the other side of a TCP flow; ``written`` says how many the host took."""

    flow: Flow
    data: bytes


@dataclass(frozen=True, slots=True)
class FinishWriting:
    """The guest says no more on this TCP flow."""

    flow: Flow


@dataclass(frozen=True, slots=True)
class Listen:
    """The guest is there: what the other side of a forwarded TCP flow says may come."""

    flow: Flow


@dataclass(frozen=True, slots=True)
class Close:
    """The TCP flow is over, in order: what was given to write is still written."""

    flow: Flow


@dataclass(frozen=True, slots=True)
class Abort:
    """The TCP flow is over, at once."""

    flow: Flow


@dataclass(frozen=True, slots=True)
class Datagram:
    """UDP to ``host``, always from the same port for the same flow."""

    flow: Flow
    host: str
    port: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Forget:
    """The UDP flow was silent for long."""

    flow: Flow


Action = Deliver | Connect | Write | FinishWriting | Listen | Close | Abort | Datagram | Forget
