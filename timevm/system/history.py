"""The ways back of a machine: checkpoints and timeline while recording and replaying, named snapshots on its disks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from timevm.engine.control.port import ReplayMode, RunResult
from timevm.engine.control.time_travel import LookBack, SnapshotStore, TimeTravel
from timevm.engine.machine import disk_past
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.snapshot.checkpoints import Checkpoints
from timevm.engine.snapshot.named import NamedSnapshots
from timevm.engine.snapshot.periodic import PeriodicSnapshots
from timevm.engine.timeline import look_back
from timevm.engine.timeline.pace import RECORDING_REACH, RECORDING_SHARE, RECORDING_SLICE, Pace
from timevm.engine.timeline.timeline import Timeline
from timevm.engine.timeline.track import MachineTrack


@dataclass(frozen=True, slots=True)
class History:
    """``run`` is the machine's, or one that leaves checkpoints behind on its way."""

    run: Callable[[int], RunResult]
    time_travel: TimeTravel | None = None
    look_back: LookBack | None = None
    snapshots: SnapshotStore | None = None
    checkpoints: Checkpoints | None = None


def history_of(machine: Machine, spec: MachineSpec, mode: ReplayMode, *, looks_back: bool | None = None) -> History:
    """Where the machine stands is the start of its history; ``rrsnapshot`` is made or gone to.

    ``looks_back``: somebody may want to (None: when it replays), which costs a recording or a
    replay up to a tenth of its speed.  Raises UserError, HostError, RecordingError.
    """
    if mode is ReplayMode.NONE:
        return History(machine.run, snapshots=NamedSnapshots(machine))
    if mode is ReplayMode.RECORD:
        return _of_recording(machine, spec, bool(looks_back))
    if looks_back is False:
        snapshots = NamedSnapshots(machine)
        if spec.rrsnapshot is not None:
            snapshots.load(spec.rrsnapshot)
        return History(machine.run, snapshots=snapshots)
    checkpoints = Checkpoints(machine, spec.rrmem)
    snapshots = NamedSnapshots(machine, checkpoints)
    track = MachineTrack(machine, checkpoints, restarts=not spec.no_reboot, archive=snapshots)
    timeline = Timeline(track)
    if spec.rrsnapshot is not None:
        snapshots.load(spec.rrsnapshot)
    return History(timeline.run, timeline, snapshots=snapshots, checkpoints=checkpoints)


def _of_recording(machine: Machine, spec: MachineSpec, looks_back: bool) -> History:
    if not looks_back:
        snapshots = NamedSnapshots(machine)
        return History(_with_snapshots(machine, spec, snapshots, machine.run), snapshots=snapshots)
    checkpoints = Checkpoints(machine, spec.rrmem)
    snapshots = NamedSnapshots(machine, checkpoints)
    track = MachineTrack(machine, checkpoints, restarts=not spec.no_reboot, traces=False)
    timeline = Timeline(track, Pace(seconds=RECORDING_SLICE, share=RECORDING_SHARE, reach=RECORDING_REACH))
    disk_past.keep_past(machine.disks)
    run = _with_snapshots(machine, spec, snapshots, timeline.run)
    turn = look_back.LookBack(machine, checkpoints, track, timeline, snapshots)
    return History(run, timeline, turn, snapshots, checkpoints)


def _with_snapshots(
    machine: Machine, spec: MachineSpec, snapshots: NamedSnapshots, run: Callable[[int], RunResult]
) -> Callable[[int], RunResult]:
    """``rrsnapshot`` now; a ``run`` that makes ``rrinterval``'s as long as the machine is recorded."""
    if spec.rrsnapshot is not None:
        snapshots.save(spec.rrsnapshot)
    if spec.rrinterval is None:
        return run
    snapshots.check()
    periodic = PeriodicSnapshots(machine, spec.rrinterval, snapshots.save, run=run)
    return lambda limit: (periodic.run if machine.mode is ReplayMode.RECORD else run)(limit)
