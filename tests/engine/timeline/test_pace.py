"""When a checkpoint is due."""

from __future__ import annotations

import threading
import time

from timevm.engine.timeline.pace import SLICE, Pace


def spin(seconds: float) -> None:
    """Use this much of the thread's own time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_the_thread_that_runs_need_not_be_the_one_that_made_it() -> None:
    """The maker has used much time, the runner little: a checkpoint is due all the same."""
    spin(2 * SLICE)
    pace = Pace()
    due: list[bool] = []

    def run() -> None:
        due.append(pace.due())
        pace.took(0.0)
        due.append(pace.due())
        spin(SLICE)
        due.append(pace.due())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert due == [True, False, True]
