"""What a command line asks for, as frozen plain data: ``argv`` → ``Config`` → ``app``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from uuid import UUID

from timevm.engine.machine.spec import MachineSpec
from timevm.network.settings import UserSettings

NO_UUID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class Null:
    """Takes everything, gives nothing."""


@dataclass(frozen=True, slots=True)
class Stdio:
    """The terminal.  ``signal``: Ctrl-C is a signal and not a byte for the guest."""

    signal: bool = True


@dataclass(frozen=True, slots=True)
class File:
    """Output into ``path``; ``input_path`` is read as the input, if given."""

    path: Path
    append: bool = False
    input_path: Path | None = None


@dataclass(frozen=True, slots=True)
class Pipe:
    """Two named pipes ``path``.in and ``path``.out, or one ``path`` for both ways."""

    path: Path


@dataclass(frozen=True, slots=True)
class Pty:
    """A new pseudo-terminal; ``path`` is a symbolic link made to it."""

    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Ringbuf:
    """The last ``size`` bytes of output, in memory (a power of two)."""

    size: int = 65536


@dataclass(frozen=True, slots=True)
class Socket:
    """A stream socket: one of ``path`` (unix), ``port`` (tcp) or ``fd`` (inherited).

    ``wait``: a server whose first client is waited for before the machine starts.  ``reconnect``: seconds between
    attempts of a client, 0 for none.
    """

    path: Path | None = None
    host: str = ""
    port: str | None = None
    fd: int | None = None
    server: bool = False
    wait: bool = False
    telnet: bool = False
    nodelay: bool = True
    reconnect: int = 0


Backend = Null | Stdio | File | Pipe | Pty | Ringbuf | Socket


@dataclass(frozen=True, slots=True)
class Chardev:
    """``-chardev``, or what a short form like ``-serial stdio`` means.

    ``mux``: several front ends share it (Ctrl-A c goes round).  ``option`` is how the user wrote it, for messages.
    """

    identifier: str
    backend: Backend
    mux: bool = False
    logfile: Path | None = None
    log_append: bool = False
    option: str = ""


class MonitorMode(Enum):
    """``-mon mode=``."""

    CONTROL = "control"  # QMP
    READLINE = "readline"  # HMP


@dataclass(frozen=True, slots=True)
class Monitor:
    """A QMP or HMP on the chardev named."""

    chardev: str
    mode: MonitorMode
    pretty: bool = False


@dataclass(frozen=True, slots=True)
class UserNetdev:
    """``-netdev user``: a network that the host's own sockets make, for the card that names it."""

    identifier: str
    settings: UserSettings


@dataclass(frozen=True, slots=True)
class Config:
    """One run of ``timevm-system-*``."""

    program: str
    machine: MachineSpec
    chardevs: tuple[Chardev, ...] = ()
    netdevs: tuple[UserNetdev, ...] = ()
    #: the chardev of each serial port, None: not connected
    serial: tuple[str | None, ...] = ()
    monitors: tuple[Monitor, ...] = ()
    #: the chardev of the gdb server
    gdb: str | None = None
    start_paused: bool = False
    no_shutdown: bool = False
    #: tag of the snapshot to start from (``-loadvm``)
    loadvm: str | None = None
    name: str | None = None
    uuid: UUID = NO_UUID
    pidfile: Path | None = None
    log_file: Path | None = None
    log_items: frozenset[str] = frozenset()
    #: those of ``-d`` that QEMU knows and of which nothing is logged here, as they were given
    unlogged_items: tuple[str, ...] = ()
    prompt: str = "(timevm) "
    #: the device tree is written there, and no machine runs (``-M …,dumpdtb=``)
    dump_device_tree: Path | None = None
    #: the key after Ctrl, or the code, that starts a command of a multiplexed terminal (``-echr``)
    escape: int = 1

    @property
    def has_control(self) -> bool:
        """Whether somebody can talk to the machine: then a replay that ended pauses and stays."""
        return bool(self.monitors) or self.gdb is not None

    def chardev(self, identifier: str) -> Chardev:
        return next(chardev for chardev in self.chardevs if chardev.identifier == identifier)


@dataclass(frozen=True, slots=True)
class Information:
    """The command line asks for a text, not for a machine (``-h``, ``-version``, ``-cpu help``)."""

    text: str
