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


def test_a_slice_ends_where_the_next_checkpoint_is_due() -> None:
    now = 0.0
    pace = Pace(lambda: now, seconds=10.0, share=0.1)
    pace.ran(1_000_000, 1.0)  # a slice is ten million instructions
    assert pace.next_slice == pace.slice == 10_000_000
    pace.took(2.0)
    for seconds, expected in (
        (0.0, 10_000_000),
        (9.0, 10_000_000),
        (15.0, 5_000_000),
        (19.999, 100_000),
        (20.5, 10_000_000),
    ):
        now = seconds
        assert pace.next_slice == expected, seconds
        assert pace.due() == (seconds >= 20.0)
