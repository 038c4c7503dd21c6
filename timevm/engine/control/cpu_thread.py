"""The one thread that owns the machine (rule 6).  It is told by messages, woken by kicks, and tells by reports."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue

from timevm.engine.control.messages import (
    Alter,
    Began,
    Ended,
    Failed,
    Halt,
    Inspect,
    Leave,
    Message,
    Motion,
    Progressed,
    Reply,
    Report,
    Run,
    SetReplayBreakpoint,
    SetStops,
    Step,
    Travel,
    WasReset,
)
from timevm.engine.control.port import MachinePort, RunEnd, RunResult
from timevm.engine.control.time_travel import Journey
from timevm.engine.replay.gate import NEVER
from timevm.errors import InternalError, TimevmError, UserError

_log = logging.getLogger(__name__)

#: seconds of a journey before its first progress report, and between two of them
PROGRESS_AFTER, PROGRESS_EVERY = 1.0, 0.25
#: seconds between two looks at whether the guest's output is taken again
_HOLD = 0.005


class MachineLeft(UserError):
    """A request came when timevm was already on its way out."""


@dataclass(frozen=True, slots=True)
class ResetPolicy:
    """``restart`` False: a reset ends the run (``-no-reboot``).  ``finish``: power-off and such end the recording."""

    restart: bool = True
    finish: bool = True


class CpuThread:
    """``post`` may be called on any thread; ``report`` is called on this one and must not block.

    ``run``: the machine's, or one around it that leaves checkpoints behind.  ``congested``: nobody takes the guest's
    output, the machine pauses until somebody does.  A pause is between two instructions and changes nothing in them;
    messages are attended to meanwhile.
    """

    def __init__(
        self,
        machine: MachinePort,
        report: Callable[[Report], None],
        policy: ResetPolicy,
        congested: Callable[[], bool] = lambda: False,
        run: Callable[[int], RunResult] | None = None,
    ) -> None:
        self._machine = machine
        self._run = run or machine.run
        self._congested = congested
        self._report = report
        self._policy = policy
        self._inbox: SimpleQueue[Message] = SimpleQueue()
        self._deferred: deque[Message] = deque()
        self._running = False
        self._limit = NEVER
        self._replay_breakpoint: int | None = None
        self._left = False
        self._thread = threading.Thread(target=self._main, name="cpu", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def post(self, message: Message) -> None:
        self._inbox.put(message)
        self._machine.kick()

    def join(self, timeout: float) -> bool:
        """After ``Leave``: True when the thread has ended within ``timeout`` seconds."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    # -- everything below happens on the thread

    def _main(self) -> None:
        while not self._left:
            message = self._next()
            try:
                if message is not None:
                    self._handle(message)
                else:
                    self._slice()
            except Exception as error:  # noqa: BLE001 (the last line of defence: the machine stays to be looked at)
                self._fail(_explained(error))

    def _next(self) -> Message | None:
        """The next message; None: there is none and the machine runs."""
        if self._deferred:
            return self._deferred.popleft()
        if not self._running:
            return self._inbox.get()
        self._hold()
        try:
            return self._inbox.get_nowait()
        except Empty:
            return None

    def _hold(self) -> None:
        while self._congested() and self._inbox.empty() and not self._deferred:
            time.sleep(_HOLD)

    def _fail(self, error: TimevmError) -> None:
        self._running = False
        self._report(Failed(error, self._machine.icount))

    def _handle(self, message: Message) -> None:
        match message:
            case Run(limit):
                self._limit = NEVER if limit is None else limit
                self._running = True
                self._machine.pass_breakpoint()
                self._report(Began(Motion.RUN))
            case Halt(reply):
                self._halt()
                reply.answer(None)
            case Step(count, reply, further):
                self._move(Travel(Motion.STEP, lambda journey: self._step(count, further, journey), reply))
            case Travel():
                self._move(message)
            case Inspect(look, reply) | Alter(look, reply):
                self._call(lambda: look(self._machine), reply)
            case SetStops(stops, reply):
                self._call(lambda: self._machine.set_stops(stops), reply)
            case SetReplayBreakpoint(icount, reply):
                self._replay_breakpoint = icount
                reply.answer(None)
            case Leave(reason, reply):
                self._left = True
                self._halt()
                self._call(lambda: None if reason is None else self._machine.finish(reason), reply)
                self._refuse_the_rest()

    @staticmethod
    def _call(work: Callable[[], object], reply: Reply) -> None:
        try:
            answer = work()
        except Exception as error:  # noqa: BLE001 (it is raised again where the question was asked)
            reply.fail(error)
        else:
            reply.answer(answer)

    def _refuse_the_rest(self) -> None:
        """Nobody waits for ever: what came too late is told so."""
        rest = list(self._deferred)
        while not self._inbox.empty():
            rest.append(self._inbox.get_nowait())
        for message in rest:
            if not isinstance(message, Run):
                message.reply.fail(MachineLeft("the machine is gone: timevm is about to end"))

    def _halt(self) -> None:
        if self._running:
            self._running = False
            self._report(Ended(Motion.RUN, RunResult(RunEnd.KICKED, self._machine.icount)))

    def _slice(self) -> None:
        limit, stop = self._limit, self._replay_breakpoint
        if stop is not None and self._machine.icount <= stop < limit:
            limit = stop
        result = self._run(limit)
        if not self._goes_on(result):
            self._running = False
            self._report(Ended(Motion.RUN, result))

    def _goes_on(self, result: RunResult) -> bool:
        """Whether a forward run continues behind ``result``; resets and ends the machine as it asks for."""
        match result.end:
            case RunEnd.KICKED:
                return True
            case RunEnd.RESET if self._policy.restart:
                self._machine.reset()
                self._report(WasReset())
                return True
            case RunEnd.RESET:
                self._finish("reset")
            case RunEnd.POWERED_OFF:
                self._finish("shutdown")
            case RunEnd.LIMIT if result.icount == self._replay_breakpoint:
                self._replay_breakpoint = None
            case _:
                pass
        return False

    def _finish(self, reason: str) -> None:
        if self._policy.finish:
            self._machine.finish(reason)

    def _step(self, count: int, further: Callable[[MachinePort], bool] | None, journey: Journey) -> RunResult:
        target = self._machine.icount + count
        self._machine.pass_breakpoint()
        while True:
            result = self._run(target)
            at_replay_breakpoint = result.icount == self._replay_breakpoint
            if self._goes_on(result):
                if result.end is RunEnd.KICKED and journey.cancelled():
                    return result
                continue
            if result.end is not RunEnd.LIMIT or at_replay_breakpoint or further is None or not further(self._machine):
                return result
            target += 1

    def _move(self, message: Travel) -> None:
        """A journey begins where the machine stands, or stops it if it runs, and it stands afterwards."""
        self._running = False
        self._report(Began(message.motion))
        try:
            result = message.travel(_Journey(self, message.motion))
        except UserError as error:
            self._report(Ended(message.motion, RunResult(RunEnd.LIMIT, self._machine.icount)))
            message.reply.fail(error)
            return
        except Exception as error:  # noqa: BLE001 (as in _main, and it is told to who waits)
            explained = _explained(error)
            self._fail(explained)
            message.reply.fail(explained)
            return
        self._report(Ended(message.motion, result))
        message.reply.answer(result)

    def _attend(self, motion: Motion) -> bool:
        """In mid-journey: answer looks, put off the rest; True if something of that wants the journey to end."""
        self._hold()
        while not self._inbox.empty():
            message = self._inbox.get_nowait()
            if isinstance(message, Inspect):
                self._handle(message)
            else:
                self._deferred.append(message)
        return any(
            isinstance(message, Halt | Leave)
            or (motion is Motion.SEEK and isinstance(message, Travel) and message.motion is Motion.SEEK)
            for message in self._deferred
        )


def _explained(error: Exception) -> TimevmError:
    if isinstance(error, TimevmError):
        return error
    _log.error("a bug in timevm: the machine stops here", exc_info=error)
    return InternalError(f"a bug in timevm ({type(error).__name__}: {error}); please report it")


class _Journey:
    """The ``Journey`` of one motion."""

    def __init__(self, thread: CpuThread, motion: Motion) -> None:
        self._thread, self._motion = thread, motion
        self._next_report = time.monotonic() + PROGRESS_AFTER

    def cancelled(self) -> bool:
        return self._thread._attend(self._motion)

    def progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now >= self._next_report:
            self._next_report = now + PROGRESS_EVERY
            self._thread._report(Progressed(self._motion.name.lower(), done, total))
