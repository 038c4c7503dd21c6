"""Which machine a recording is of: everything that must be the same for a replay to be the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from timevm import __version__
from timevm.engine.replay.build import Build, build_differences
from timevm.engine.replay.gate import NEVER
from timevm.errors import RecordingError

MIB = 1 << 20
SEED_BYTES = 32
#: what a header may say at most: of any machine that could be built (QEMU's largest shift is 10)
LARGEST_RAM, LARGEST_SHIFT, LARGEST_RTC = 1 << 48, 10, 1 << 40


@dataclass(frozen=True, slots=True)
class Identity:
    """Digests are lower-case hexadecimal strings of any one algorithm; None: there is no such file.

    ``start_icount`` and ``start_snapshot`` say where the recording begins (0 and None: at reset).
    """

    machine: str
    cpu: str
    ram_bytes: int
    #: virtual ns are ``icount << shift``
    shift: int
    #: what the real-time clock showed at reset, seconds since 1970
    rtc_base_seconds: int
    #: SEED_BYTES bytes from which all of the machine's random numbers come
    seed: bytes
    kernel: str | None = None
    initrd: str | None = None
    dtb: str | None = None
    append: str = ""
    #: (name of the drive, digest of what a guest reads from it)
    disks: tuple[tuple[str, str], ...] = ()
    #: (description, digest) of each ``-device loader`` and of ``-bios``
    loaders: tuple[tuple[str, str], ...] = ()
    #: devices beyond the board's own, as the guest sees them
    devices: tuple[str, ...] = ()
    start_icount: int = 0
    start_snapshot: str | None = None
    timevm_version: str = __version__
    #: what timevm made of all that; (): an older timevm recorded it, which did not say
    build: Build = ()

    def replaying(self, recorded: Identity, *, keep_shift: bool = False, keep_rtc_base: bool = False) -> Identity:
        """This machine as it is when it replays ``recorded``: shift, RTC base, seed and start are the recording's.

        ``keep_shift``, ``keep_rtc_base``: the user named one (no ``shift=auto``, no ``base=utc``); it stays, for
        ``differences`` to compare.
        """
        return replace(
            self,
            shift=self.shift if keep_shift else recorded.shift,
            rtc_base_seconds=self.rtc_base_seconds if keep_rtc_base else recorded.rtc_base_seconds,
            seed=recorded.seed,
            start_icount=recorded.start_icount,
            start_snapshot=recorded.start_snapshot,
        )

    def differences(self, other: Identity) -> list[str]:
        """One line for everything in which ``other`` (the machine now) is not this one (the recorded).

        Where the recording starts is no difference: a replay may start elsewhere in it.
        """
        lines = [
            f"{title}: recorded with {show(getattr(self, name))}, now {show(getattr(other, name))}"
            for name, title, show in _COMPARED
            if getattr(self, name) != getattr(other, name)
        ]
        lines += _named_differences("disk", self.disks, other.disks)
        lines += _named_differences("loaded file", self.loaders, other.loaders)
        if build := build_differences(self.build, other.build):
            lines.append(f"build: this timevm makes {build}")
        return lines

    def to_json(self) -> bytes:
        """Compact UTF-8; ``from_json`` is its inverse."""
        record = asdict(self)
        record["seed"] = self.seed.hex()
        if not self.build:
            del record["build"]
        return json.dumps(record, separators=(",", ":"), sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> Identity:
        """Raises RecordingError if it is not what ``to_json`` writes."""
        try:
            record = json.loads(data)
            identity = cls(**{name: _FIELDS[name](value) for name, value in record.items()})
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise RecordingError(f"the description of the recorded machine cannot be read: {error!r}") from error
        if not (
            0 < identity.ram_bytes <= LARGEST_RAM
            and 0 <= identity.shift <= LARGEST_SHIFT
            and abs(identity.rtc_base_seconds) <= LARGEST_RTC
            and len(identity.seed) == SEED_BYTES
            and 0 <= identity.start_icount < NEVER
        ):
            raise RecordingError("the description of the recorded machine holds a number that is out of range")
        return identity


def _show_bytes(value: int) -> str:
    return f"{value // MIB} MiB" if value % MIB == 0 else f"{value} bytes"


def _show_digest(value: str | None) -> str:
    return "none" if value is None else f"the one with digest {value[:16]}"


def _show_time(value: int) -> str:
    try:
        return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{value} s since 1970"


def _show_list(value: tuple[str, ...]) -> str:
    return " and ".join(value) or "none"


def _show_seed(value: bytes) -> str:
    return f"{value.hex()[:16]}…"


#: attribute, how it is called, how it is shown; in the order of the message
_COMPARED: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("timevm_version", "timevm", str),
    ("machine", "machine", str),
    ("cpu", "CPU model", str),
    ("ram_bytes", "RAM size", _show_bytes),
    ("kernel", "kernel", _show_digest),
    ("initrd", "initrd", _show_digest),
    ("dtb", "device tree", _show_digest),
    ("append", "-append", repr),
    ("devices", "devices", _show_list),
    ("shift", "icount shift", str),
    ("rtc_base_seconds", "RTC base", _show_time),
    ("seed", "random seed", _show_seed),
)


def _named_differences(what: str, recorded: tuple[tuple[str, str], ...], now: tuple[tuple[str, str], ...]) -> list[str]:
    before, after = dict(recorded), dict(now)
    lines = []
    for name in [*before, *(name for name in after if name not in before)]:
        was, is_now = before.get(name), after.get(name)
        if was != is_now:
            lines.append(f"{what} '{name}': recorded with {_show_digest(was)}, now {_show_digest(is_now)}")
    if not lines and recorded != now:
        lines.append(f"{what}s: recorded in another order ({', '.join(before)}; now {', '.join(after)})")
    return lines


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no string")
    return value


def _optional_text(value: object) -> str | None:
    return None if value is None else _text(value)


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no integer")
    return value


def _pairs(value: object) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return tuple((_text(name), _text(digest)) for name, digest in value)


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r} is no list")
    return tuple(_text(each) for each in value)


_FIELDS: dict[str, Callable[[Any], Any]] = {
    "machine": _text,
    "cpu": _text,
    "ram_bytes": _integer,
    "shift": _integer,
    "rtc_base_seconds": _integer,
    "seed": bytes.fromhex,
    "kernel": _optional_text,
    "initrd": _optional_text,
    "dtb": _optional_text,
    "append": _text,
    "disks": _pairs,
    "loaders": _pairs,
    "devices": _texts,
    "start_icount": _integer,
    "start_snapshot": _optional_text,
    "timevm_version": _text,
    "build": _pairs,
}
