"""A recorded machine becomes the replay of what was recorded so far, where it stands."""

from __future__ import annotations

from pathlib import Path

from timevm.engine.machine import disk_past
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import ReplayMode
from timevm.engine.replay.opening import open_recording
from timevm.engine.replay.replay_gate import ReplayGate
from timevm.errors import RecordingError, UserError

#: in the recording's end mark
REASON = "look-back"


def look_back(machine: Machine) -> bool:
    """The recording ends here, in order (nothing more is done if it has ended already).

    False: what the disks held on the way is not known; checkpoints other than the start are of no use.
    Raises UserError, RecordingError, HostError; the recording goes on then.
    """
    info = machine.replay_info()
    if info.mode is not ReplayMode.RECORD or info.filename is None:
        raise UserError("the machine is not recorded: there is nothing to look back at")
    path = Path(info.filename)
    machine.gate.flush()
    _check_readable(path, machine)
    position = machine.gate.state()
    machine.disks.drain()
    machine.finish(REASON)
    gate = ReplayGate(open_recording(path))
    gate.restore(position)
    whole = disk_past.look_back(machine.disks)
    machine.replay(gate)
    return whole


def _check_readable(path: Path, machine: Machine) -> None:
    """Before anything is ended.  Raises RecordingError."""
    reader = open_recording(path)
    reader.close()
    if reader.identity != machine.identity:
        raise RecordingError(f"the file {path} is not this recording any more: it goes on, where nobody can read it")
