"""Written pages: the kernel's answer against a comparison, several consumers, writes of host and guest, and fork."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.cpu import assembler as a
from timevm.engine.cpu.aarch64 import Aarch64Cpu
from timevm.engine.machine import dirty_pages
from timevm.engine.machine.dirty_pages import (
    REGIONS,
    ComparingWatcher,
    DirtyLog,
    DirtyPages,
    KernelWatcher,
    watcher_for,
)
from timevm.engine.machine.ram import PAGE, Ram

BASE = 0x4000_0000
PAGES = 64


def make_ram(pages: int = PAGES) -> Ram:
    return Ram(BASE, pages * PAGE)


def kernel_watcher(ram: Ram) -> KernelWatcher:
    try:
        return KernelWatcher(ram)
    except OSError as error:
        pytest.skip(f"this kernel cannot tell which pages were written ({error}): Linux 6.7 or later does")


def put(ram: Ram, page: int, value: int) -> None:
    ram.write(ram.base + page * PAGE + page, bytes([value]))


WRITES = st.lists(st.tuples(st.integers(0, PAGES - 1), st.integers(0, 3)), max_size=30)


@settings(max_examples=60)
@given(WRITES, st.lists(WRITES, max_size=6))
def test_the_kernel_sees_all_that_a_comparison_sees(
    before: list[tuple[int, int]], rounds: list[list[tuple[int, int]]]
) -> None:
    ram = make_ram()
    for page, value in before:
        put(ram, page, value)
    kernel, comparing = kernel_watcher(ram), ComparingWatcher(ram)
    assert kernel.take().tolist() == [], "what was there before is not written since"
    for writes in rounds:
        for page, value in writes:
            put(ram, page, value)
        seen, changed = kernel.take().tolist(), comparing.take().tolist()
        assert seen == sorted({page for page, _ in writes}), "written is written, of the same value too"
        assert set(changed) <= set(seen) and changed == sorted(changed)
    assert kernel.take().tolist() == comparing.take().tolist() == []
    kernel.close()


@pytest.mark.parametrize("make", [kernel_watcher, ComparingWatcher])
def test_reading_is_not_writing(make: Callable[[Ram], KernelWatcher | ComparingWatcher]) -> None:
    ram = make_ram()
    watcher = make(ram)
    assert not ram.bytes.any() and ram.read(BASE, PAGE) == bytes(PAGE)
    assert watcher.take().tolist() == []


def page_table_bytes() -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmPTE:")[1].split()[0])


def test_of_a_large_ram_only_what_was_touched_costs() -> None:
    ram = make_ram(1 << 20)  # 4 GiB, for which page tables would take 8 MiB
    before = page_table_bytes()
    watcher = kernel_watcher(ram)
    assert not ram.bytes[: 64 * PAGE].any() and watcher.take().tolist() == []
    pages = [0, 5, 1 << 19, (1 << 20) - 1]
    for value in (1, 2):
        for page in pages:
            ram.pages[page, 7] = value
        assert watcher.take().tolist() == pages
    assert page_table_bytes() - before < 1 << 20


@pytest.mark.parametrize("make", [kernel_watcher, ComparingWatcher])
def test_more_runs_of_pages_than_one_look_gives(make: Callable[[Ram], KernelWatcher | ComparingWatcher]) -> None:
    ram = make_ram(4 * REGIONS)
    watcher = make(ram)
    ram.pages[::2, 100] = 1
    assert watcher.take().tolist() == list(range(0, 4 * REGIONS, 2))
    ram.pages[-3:, 0] = 2
    ram.pages[0, 0] = 2
    assert watcher.take().tolist() == [0, *range(4 * REGIONS - 3, 4 * REGIONS)]


def test_writes_of_the_kernel_for_this_process_are_seen() -> None:
    ram = make_ram()
    watcher = kernel_watcher(ram)
    reader, writer = os.pipe()
    os.write(writer, b"from a file")
    assert os.readv(reader, [ram.view[5 * PAGE : 5 * PAGE + 11]]) == 11
    os.close(reader)
    os.close(writer)
    assert watcher.take().tolist() == [5] and ram.read(BASE + 5 * PAGE, 4) == b"from"


def test_a_fork_changes_nothing_for_the_parent() -> None:
    """Sharing after a fork protects the same pages by the same bit of the hardware."""
    ram = make_ram()
    put(ram, 1, 1)
    watcher = kernel_watcher(ram)
    put(ram, 2, 1)
    child = os.fork()
    if child == 0:
        put(ram, 3, 1)
        os._exit(0)
    put(ram, 4, 1)
    assert os.waitpid(child, 0)[1] == 0
    assert watcher.take().tolist() == [2, 4]
    put(ram, 1, 2)
    put(ram, 4, 2)
    assert watcher.take().tolist() == [1, 4]


@pytest.mark.parametrize("make", [kernel_watcher, ComparingWatcher])
def test_stores_of_the_guest_are_seen(make: Callable[[Ram], KernelWatcher | ComparingWatcher]) -> None:
    ram = make_ram()
    cpu = Aarch64Cpu("cortex-a57", time_shift=0, seed=1, timer_line=lambda name, level: None)
    cpu.map_ram(ram.base, ram.host_address, ram.size)
    stride = 3 * PAGE
    program = a.code(
        *a.load_constant(1, BASE + 8 * PAGE),
        a.movz(2, 10),
        *a.load_constant(3, stride),
        # loop: a store, three pages on
        a.str_(2, 1),
        0x8B030021,  # add x1, x1, x3
        a.subs(2, 2, 1),
        a.b_ne(-3),
        a.b(0),
    )
    ram.write(BASE, program)
    watcher = make(ram)
    cpu.reset(BASE, [])
    stored = []
    for rounds in range(10):
        cpu.run(5 + 4 * rounds + 1)
        stored.append(watcher.take().tolist())
    assert stored == [[8 + 3 * n] for n in range(10)]


def test_the_fallback_is_chosen_and_said_where_the_kernel_is_older(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(ram: Ram) -> None:
        raise OSError("no such request")

    monkeypatch.setattr(dirty_pages, "KernelWatcher", refuse)
    with caplog.at_level(logging.WARNING):
        assert isinstance(watcher_for(make_ram()), ComparingWatcher)
    assert "no such request" in caplog.text


def test_an_unknown_host_architecture_falls_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dirty_pages, "_USERFAULTFD", {})
    assert isinstance(watcher_for(make_ram()), ComparingWatcher)


def test_a_watcher_leaves_no_descriptors_behind() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        watcher_for(make_ram()).take()
    assert len(os.listdir("/proc/self/fd")) <= before + 2


CONSUMERS = 3
MOVES = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.integers(0, PAGES - 1)),
        st.tuples(st.just("take"), st.integers(0, CONSUMERS - 1)),
        st.tuples(st.just("look"), st.just(0)),
        st.tuples(st.just("join"), st.booleans().map(int)),
    ),
    max_size=50,
)


@settings(max_examples=100)
@given(MOVES, st.booleans())
def test_each_consumer_gets_what_was_written_since_it_asked(moves: list[tuple[str, int]], compare: bool) -> None:
    with pytest.MonkeyPatch.context() as patched:
        if compare:
            patched.setattr(dirty_pages, "watcher_for", ComparingWatcher)
        ram = make_ram()
        pages = DirtyPages(ram)
        assert pages.method == "nothing is watched"
        logs: list[DirtyLog] = []
        wanted: list[set[int]] = []
        for count, (kind, number) in enumerate(moves):
            match kind:
                case "write":
                    ram.pages[number, 0] = count % 255 + 1
                    ram.pages[number, 1:3] = count + 1 & 0xFF, count >> 8
                    for each in wanted:
                        each.add(number)
                case "take" if number < len(logs):
                    taken = logs[number].take()
                    assert taken.dtype == np.int64
                    assert taken.tolist() == sorted(wanted[number])
                    wanted[number] = set()
                case "look" if logs:
                    pages.look()
                case "join" if len(logs) < CONSUMERS:
                    logs.append(pages.log(everything=bool(number)))
                    wanted.append(set(range(PAGES)) if number else set())
        for log, each in zip(logs, wanted, strict=True):
            assert log.take().tolist() == sorted(each)
        assert bool(logs) == (pages.method != "nothing is watched")


def test_what_was_ever_written_is_known_also_from_before_anybody_watched() -> None:
    ram = Ram(0, 64 * PAGE)
    ram.write(3 * PAGE + 5, b"before")
    assert not ram.read(7 * PAGE, 8).strip(b"\0")  # a look is no write
    pages = DirtyPages(ram)
    log = pages.log(everything=False)
    ram.write(9 * PAGE, b"after")
    assert log.take().tolist() == [9]
    assert pages.ever().tolist() == [3, 9]
