"""Unicorn asks the host for the time of day at one place only, its TLB's size, and gets no answer from the host."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.cpu.board import Board as ArmBoard
from tests.engine.cpu.riscv64_board import RiscvBoard
from tests.engine.cpu.x86_board import Board as X86Board
from timevm.engine.cpu import linkage


@pytest.mark.parametrize("board", [ArmBoard, X86Board, RiscvBoard], ids=["aarch64", "x86_64", "riscv64"])
def test_time_goes_by_looks_for_unicorn(board: Callable[..., Any]) -> None:
    board(b"\0" * 16)
    time_of_day = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(linkage.slot("gettimeofday").value)
    answers = []
    for _ in range(2):
        now = (ctypes.c_int64 * 2)(7, 7)
        assert time_of_day(ctypes.addressof(now), None) == 0
        answers.append(1_000_000 * now[0] + now[1])
        time.sleep(0.001)
    assert answers[1] - answers[0] == 2000
