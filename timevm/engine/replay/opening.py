"""How a recording is begun and opened, and the question whether it is of this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from timevm import __version__
from timevm.engine.replay.build import Build
from timevm.engine.replay.identity import Identity
from timevm.engine.replay.log_reader import LogReader
from timevm.engine.replay.log_writer import LogWriter
from timevm.errors import RecordingError


def create_recording(path: Path | str, identity: Identity) -> LogWriter:
    """Creates or replaces ``path``; the header is written before this returns.  Raises HostError, RecordingError."""
    return LogWriter(path, identity)


def open_recording(path: Path | str) -> LogReader:
    """Everything up to the last sound frame.  Raises RecordingError: missing, not timevm's, header damaged."""
    return LogReader(path)


def check_same_machine(reader: LogReader, now: Identity) -> None:
    """Raises RecordingError that names everything in which ``now`` is not the recorded machine."""
    differences = reader.identity.differences(now)
    if differences:
        raise _of_another_machine(reader, differences)


def check_same_build(reader: LogReader, build: Build) -> bool:
    """Raises RecordingError that names everything in which ``build`` is not the recorded machine's.

    False: the recording does not say of what that was made.
    """
    differences = reader.identity.differences(replace(reader.identity, build=build))
    if differences:
        raise _of_another_machine(reader, differences)
    return bool(reader.identity.build)


def _of_another_machine(reader: LogReader, differences: list[str]) -> RecordingError:
    listed = "".join(f"\n  {line}" for line in differences)
    if reader.identity.timevm_version != __version__:
        advice = f" (replay it with timevm {reader.identity.timevm_version}, or record it again)"
    elif differences[-1].startswith("build:"):
        advice = f" (replay it with the build of timevm {__version__} that recorded it, or record it again)"
    else:
        advice = ""
    return RecordingError(f"Replay: {reader.path} is a recording of another machine{advice}:{listed}")
