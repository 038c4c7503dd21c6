"""The picture of a recording: whatever is on it, it fits, and every label is led to from its place."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as some

from tests.monitor.toy_vm import ToyVm
from timevm.engine.control.port import ReplayMode
from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.hmp.line import run_hmp_line
from timevm.monitor.hmp.table import HmpState
from timevm.monitor.hmp.timeline_picture import ASCII, LABELS, UNICODE, Moment, draw


def test_a_picture() -> None:
    moments = [Moment(9_452_911, "discovery"), Moment(3_850_570, "damage"), Moment(3_850_570, "here")]
    rows = draw((0, 9_455_822), 3_850_570, moments, (0, 900_000, 3_849_570, 7_000_000), width=50)
    assert rows == [
        "0                                        9,455,822",
        "┻━━━┻━━━━━━━━━━━━━━◆────────────────┴───────────●─",
        "                   │                 discovery ─╯",
        "                   ├─ damage",
        "                   ╰─ here",
    ]


def test_plain_characters() -> None:
    rows = draw((0, 100), 50, [Moment(50, "here"), Moment(90, "b")], (0, 20, 80), width=40, symbols=ASCII)
    assert rows == [
        "0                                    100",
        "+======+===========@-----------+---o----",
        "                   |               `- b",
        "                   `- here",
    ]


def test_a_label_goes_where_no_way_leads_through_it() -> None:
    """The row of a label must not cut the way to one that comes below."""
    rows = draw((0, 77), 0, [Moment(20, "x" * 30), Moment(40, "y" * 30), Moment(76, "z" * 30)], width=78)
    for column, letter in ((20, "x"), (40, "y"), (76, "z")):
        ends = next(number for number, row in enumerate(rows) if letter in row)
        for row in rows[2:ends]:
            assert row[column] == UNICODE.down, rows


def test_too_many_moments_are_marks_only() -> None:
    rows = draw((0, 1000), 0, [Moment(index * 20, f"s{index}") for index in range(40)])
    assert len(rows) == 2 + LABELS and rows[-1].endswith("s32") and rows[1].count(UNICODE.mark) >= 35


_ICOUNTS = some.integers(0, 1 << 62)


@given(
    some.tuples(_ICOUNTS, _ICOUNTS).map(lambda pair: (min(pair), max(pair))),
    _ICOUNTS,
    some.lists(some.builds(Moment, _ICOUNTS, some.text("abc ", max_size=200)), max_size=12),
    some.lists(_ICOUNTS, max_size=20),
    some.integers(20, 200),
)
def test_anything_fits(
    extent: tuple[int, int], here: int, moments: list[Moment], checkpoints: list[int], width: int
) -> None:
    for symbols in (UNICODE, ASCII):
        rows = draw(extent, here, moments, checkpoints, width, symbols)
        assert all(len(row) <= max(width, len(f"{extent[0]:,} {extent[1]:,}")) for row in rows)
        assert rows[1].count(symbols.here) == 1 and len(rows) == 2 + min(len(moments), LABELS)


async def test_the_command() -> None:
    vm = ToyVm(ReplayMode.PLAY, end=1000)
    vm.machine.go_to(500)
    await vm.save_snapshot("half")
    context = MonitorContext(vm)
    plain = await run_hmp_line("timeline", context)
    assert plain.isascii() and max(len(line) for line in plain.splitlines()) == 78
    assert "=@-" in plain and "+- half\n" in plain and "`- now\n" in plain
    assert "                 1000 end\n" in plain, "and the exact numbers"
    drawn = await run_hmp_line("timeline", context, HmpState(columns=120))
    assert "━◆─" in drawn and "╰─ now\n" in drawn and max(len(line) for line in drawn.splitlines()) == 118


async def test_no_picture_without_a_recording() -> None:
    assert "@" not in await run_hmp_line("timeline", MonitorContext(ToyVm()))
