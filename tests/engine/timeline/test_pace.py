"""When a checkpoint is due."""

from __future__ import annotations

import math
import threading
import time

from timevm.engine.timeline.pace import LOOKS, SLICE, Pace


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


def test_a_stretch_ends_where_the_next_checkpoint_is_due() -> None:
    now = 0.0
    pace = Pace(lambda: now, seconds=10.0, share=0.1, reach=math.inf)
    pace.ran(1_000_000, 1.0)  # a slice is ten million instructions
    assert pace.slice == 10_000_000
    assert pace.next_stretch == 10_000_000 // LOOKS
    pace.took(2.0)
    for seconds, expected in (
        (0.0, 10_000_000 // LOOKS),
        (9.0, 10_000_000 // LOOKS),
        (18.0, 2_000_000),
        (19.999, 100_000),
        (20.5, 10_000_000 // LOOKS),
    ):
        now = seconds
        assert pace.next_stretch == expected, seconds
        assert pace.due() == (seconds >= 20.0)


def test_where_checkpoints_are_dear_they_lie_close_enough_all_the_same() -> None:
    """The way from one and five times its cost are within reach, but they never take more than a fifth of the time."""
    for cost, expected in ((0.1, 1.0), (1.0, 10.0), (2.0, 20.0), (4.0, 30.0), (6.0, 30.0), (9.0, 45.0)):
        now = 0.0
        pace = Pace(lambda: now, seconds=1 / 0.9, share=0.1, reach=50.0)  # noqa: B023 (called in this very turn)
        assert pace.due()
        pace.took(cost)
        for now in (expected - 0.001, expected + 0.001):
            assert pace.due() == (now > expected), cost
