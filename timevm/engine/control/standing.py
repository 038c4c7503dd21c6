"""What the CPU thread reports becomes run states and events; on the event loop."""

from __future__ import annotations

from collections.abc import Callable

from timevm.engine.control.events import EventStream
from timevm.engine.control.messages import Began, Ended, Failed, Motion, Progressed, Report, WasReset
from timevm.engine.control.policy import Over, OverReason, VmPolicy
from timevm.engine.control.port import ReplayMode, RunEnd, RunResult
from timevm.engine.control.run_state import RunState, check_move
from timevm.errors import HostError, TimevmError


class Standing:
    """``messages`` receives sentences for the user that no event carries; ``end`` is told why the process shall end."""

    def __init__(
        self, mode: ReplayMode, policy: VmPolicy, messages: Callable[[str], None], end: Callable[[Over], None]
    ) -> None:
        self.mode = mode
        self.state = RunState.PRELAUNCH
        self.events = EventStream()
        #: resets that the user asked for and that have not happened yet
        self.resets_asked = 0
        self._policy = policy
        self._messages = messages
        self._end = end

    def take(self, report: Report) -> None:
        match report:
            case Began():
                self.run()
            case Ended(motion, result):
                self._take_end(motion, result)
            case Failed(error, icount):
                self._take_failure(error, icount)
            case WasReset():
                by_host = self.resets_asked > 0
                self.resets_asked -= by_host
                reason = "host-qmp-system-reset" if by_host else "guest-reset"
                self.events.send("RESET", {"guest": not by_host, "reason": reason})
            case Progressed(operation, done, total):
                self.events.send("TIMEVM_PROGRESS", {"operation": operation, "done": done, "total": total})

    def _take_end(self, motion: Motion, result: RunResult) -> None:
        replaying = self.mode is ReplayMode.PLAY
        match result.end:
            case RunEnd.POWERED_OFF | RunEnd.RESET | RunEnd.QUIT | RunEnd.RECORDING_ENDED if replaying:
                self._take_end_of_replay(result)
            case RunEnd.POWERED_OFF | RunEnd.RESET | RunEnd.QUIT:
                self._take_shutdown(result)
            case RunEnd.GUEST_PANICKED:
                self.events.send("GUEST_PANICKED", {"action": "pause"})
                self._stand(RunState.GUEST_PANICKED, result)
            case RunEnd.GUEST_ERROR:
                self._messages(result.detail or "the guest cannot go on")
                self._stand(RunState.INTERNAL_ERROR, result)
                self._end_if_alone(Over(OverReason.FAILED))
            case RunEnd.DEBUG:
                self._stand(RunState.DEBUG, result)
            case RunEnd.LIMIT if motion in (Motion.STEP, Motion.REVERSE):
                self._stand(RunState.DEBUG, result)
            case _:
                self._stand(RunState.PAUSED, result)

    def _take_end_of_replay(self, result: RunResult) -> None:
        if result.end is RunEnd.RECORDING_ENDED and result.detail:
            self._messages(result.detail)
        self._stand(RunState.PAUSED, result)
        self._end_if_alone(Over(OverReason.REPLAY_ENDED, exit_code=result.exit_code or 0))

    def _take_shutdown(self, result: RunResult) -> None:
        reason = "guest-reset" if result.end is RunEnd.RESET else "guest-shutdown"
        self.events.send("SHUTDOWN", {"guest": True, "reason": reason})
        if self._policy.no_shutdown and result.exit_code is None:
            self._stand(RunState.SHUTDOWN, result)
        else:
            self.move(RunState.SHUTDOWN)
            self._end(Over(OverReason.GUEST, exit_code=result.exit_code or 0))

    def _take_failure(self, error: TimevmError, icount: int) -> None:
        self._messages(str(error))
        state = RunState.IO_ERROR if isinstance(error, HostError) else RunState.INTERNAL_ERROR
        self._stand(state, RunResult(RunEnd.GUEST_ERROR, icount, str(error)))
        self._end_if_alone(Over(OverReason.FAILED))

    def _end_if_alone(self, over: Over) -> None:
        if not self._policy.stays:
            self._end(over)

    # -- the run state

    def move(self, state: RunState) -> None:
        """Raises ``IllegalRunStateMove``."""
        if state is not self.state:
            check_move(self.state, state)
            self.state = state

    def run(self) -> None:
        if self.state is not RunState.RUNNING:
            self.move(RunState.RUNNING)
            self.events.send("RESUME")

    def _stand(self, state: RunState, result: RunResult) -> None:
        was_running = self.state is RunState.RUNNING
        self.move(state)
        if was_running:
            self.events.send("STOP", result=result)
