"""From recording to looking back, in one process and at once: what was remembered while recording serves the replay."""

from __future__ import annotations

from timevm.engine.machine import look_back as turn
from timevm.engine.machine.machine import Machine
from timevm.engine.snapshot.checkpoints import Checkpoints
from timevm.engine.timeline.pace import Pace
from timevm.engine.timeline.timeline import Timeline
from timevm.engine.timeline.track import Archive, MachineTrack


class LookBack:
    """``control.time_travel.LookBack``.  Made before the first instruction of a recording."""

    def __init__(
        self, machine: Machine, checkpoints: Checkpoints, track: MachineTrack, timeline: Timeline, archive: Archive
    ) -> None:
        self._machine = machine
        self._checkpoints = checkpoints
        self._track = track
        self._timeline = timeline
        self._archive = archive
        self._restorations = machine.restorations

    def look_back(self) -> int:
        """A snapshot that was loaded while recording (where nothing had been recorded since) leaves places behind that
        are of no past of this machine: then only the start is kept, as where the disks' past is not known."""
        one_run = self._machine.restorations == self._restorations
        whole = turn.look_back(self._machine)
        if not whole or not one_run:
            self._checkpoints.go_to(self._checkpoints.start.position)
            self._checkpoints.forget_all_but_start()
        if not one_run:
            self._track.forget_ways()
        self._track.archive = self._archive
        self._track.trace()
        self._timeline.pace = Pace()
        return self._machine.icount
