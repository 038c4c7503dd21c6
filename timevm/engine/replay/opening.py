"""How a recording is begun and opened, and the question whether it is of this machine."""

from __future__ import annotations

from pathlib import Path

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
        listed = "".join(f"\n  {line}" for line in differences)
        raise RecordingError(f"Replay: {reader.path} is a recording of another machine:{listed}")
