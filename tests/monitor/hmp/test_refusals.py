"""Habits of QEMU's that timevm knows and does not serve: each is told why, and nobody meets an unknown command."""

from __future__ import annotations

import json

import pytest

from tests.monitor.record_transcripts import NAMES
from tests.monitor.toy_vm import ToyVm
from timevm.engine.machine.outcome import ReplayMode
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.hmp.checksum import MOST, checksum
from timevm.monitor.hmp.information import INFORMATION
from timevm.monitor.hmp.line import TOP, run_hmp_line
from timevm.monitor.hmp.refusals import INFORMATION_REFUSALS, REFUSALS

QEMU = frozenset(json.loads(NAMES.read_text()))
#: those of timevm, and those that nobody types out of habit
OURS = {alias for command in TOP for alias in command.names}
UNKNOWN = {"ringbuf_read", "ringbuf_write", "snapshot_blkdev_internal", "snapshot_delete_blkdev_internal"}


def context() -> MonitorContext:
    return MonitorContext(ToyVm(ReplayMode.NONE))


def test_what_qemu_knows_is_done_or_refused() -> None:
    refused = {command.names[0] for command in REFUSALS}
    assert not refused & OURS
    assert refused - QEMU == {"drive_add"}, "the help of which goes over lines"
    assert {name for name in QEMU - OURS - refused if not name.startswith("info ")} == UNKNOWN


def test_what_qemu_says_of_is_said_or_refused() -> None:
    refused = {f"info {command.names[0]}" for command in INFORMATION_REFUSALS}
    ours = {f"info {command.names[0]}" for command in INFORMATION}
    assert not refused & ours
    assert refused <= QEMU
    assert {name for name in QEMU - ours - refused if name.startswith("info ")} == {"info lapic"}


@pytest.mark.parametrize(
    "name",
    [*(command.names[0] for command in REFUSALS), *(f"info {command.names[0]}" for command in INFORMATION_REFUSALS)],
)
async def test_the_reason_is_one_sentence(name: str) -> None:
    printed = await run_hmp_line(f"{name} any thing -at all", context())
    assert printed.startswith(f"{name}: ") and printed.endswith("\n") and printed.count("\n") == 1
    assert await run_hmp_line(f"help {name}", context()) == f"{name}  -- not here: {printed.removeprefix(f'{name}: ')}"


async def test_what_is_refused_is_not_in_the_list() -> None:
    assert "sendkey" not in await run_hmp_line("help", context())
    assert await run_hmp_line("frobnicate", context()) == "unknown command: 'frobnicate'\n"


@pytest.mark.parametrize(
    ("data", "value"), [(b"", 0), (b"\x01", 1), (b"\x01\x00", 0x8000), (b"\xff\xff", 0x807F + 0xFF)]
)
def test_checksums(data: bytes, value: int) -> None:
    assert checksum(data) == value
    assert checksum(data[1:], checksum(data[:1])) == value


async def test_a_sum_of_what_is_not_there() -> None:
    assert await run_hmp_line("sum 0x4000fff0 32", context()) == "Error: there is no memory at 0x40010000\n"
    assert await run_hmp_line(f"sum 0x40000000 {MOST + 1}", context()) == f"Error: at most {MOST} bytes at once\n"


async def test_the_flat_view_has_all_ranges_of_the_tree() -> None:
    flat = await run_hmp_line("info mtree -f -d -o -D", context())
    tree = await run_hmp_line("info mtree", context())
    assert flat.startswith('FlatView #0\n AS "memory", root: system\n Root memory region: system\n  0')
    for line in tree.splitlines()[2:]:
        assert f"\n{line.removeprefix('  ')}\n" in flat
