"""The ways back of a machine: checkpoints and timeline while replaying, named snapshots on its disks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from timevm.engine.control.port import ReplayMode, RunResult
from timevm.engine.control.time_travel import SnapshotStore, TimeTravel
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.snapshot.checkpoints import Checkpoints
from timevm.engine.snapshot.named import NamedSnapshots
from timevm.engine.snapshot.periodic import PeriodicSnapshots
from timevm.engine.timeline.timeline import Timeline
from timevm.engine.timeline.track import MachineTrack


@dataclass(frozen=True, slots=True)
class History:
    """``run`` is the machine's, or one that leaves checkpoints behind on its way."""

    run: Callable[[int], RunResult]
    time_travel: TimeTravel | None = None
    snapshots: SnapshotStore | None = None
    checkpoints: Checkpoints | None = None


def history_of(machine: Machine, spec: MachineSpec, mode: ReplayMode) -> History:
    """Where the machine stands is the start of its history; ``rrsnapshot`` is made or gone to.

    Raises UserError, HostError, RecordingError.
    """
    if mode is not ReplayMode.PLAY:
        snapshots = NamedSnapshots(machine)
        run = machine.run
        if mode is ReplayMode.RECORD:
            if spec.rrsnapshot is not None:
                snapshots.save(spec.rrsnapshot)
            if spec.rrinterval is not None:
                snapshots.check()
                run = PeriodicSnapshots(machine, spec.rrinterval, snapshots.save).run
        return History(run, snapshots=snapshots)
    checkpoints = Checkpoints(machine, spec.rrmem)
    snapshots = NamedSnapshots(machine, checkpoints)
    track = MachineTrack(machine, checkpoints, restarts=not spec.no_reboot, archive=snapshots)
    timeline = Timeline(track)
    if spec.rrsnapshot is not None:
        snapshots.load(spec.rrsnapshot)
    return History(timeline.run, timeline, snapshots, checkpoints)
