"""A recording as a line of text: its extent, its checkpoints, the moments that have names, and where the machine is.

Pure text from plain numbers, so that whoever has them may draw it (the monitor's ``timeline``, ``timevm demo``)::

    0                                    9,455,822
    ┻━━━━━━━┻━━━━━━┻━━━◆┴┴──────┴──────┴─────────●
                       │              discovery ─╯
                       ╰─ here
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: what fits into a terminal that says nothing about its size
WIDTH = 78
#: moments that get a label; further ones are marks on the line only
LABELS = 8


@dataclass(frozen=True, slots=True)
class Moment:
    """``label``: printed below its place on the line."""

    icount: int
    label: str


@dataclass(frozen=True, slots=True)
class Symbols:
    """A character each.  ``past`` and ``future`` are the line before and behind the machine's place, the two behind
    them the same with a checkpoint there; ``turns`` and ``forks`` lead to a label on the right and on the left."""

    past: str
    future: str
    past_checkpoint: str
    future_checkpoint: str
    mark: str
    here: str
    down: str
    turns: tuple[str, str]
    forks: tuple[str, str]
    along: str


UNICODE = Symbols("━", "─", "┻", "┴", "●", "◆", "│", ("╰", "╯"), ("├", "┤"), "─")
#: for clients of which nothing is known
ASCII = Symbols("=", "-", "+", "+", "o", "@", "|", ("`", "'"), ("+", "+"), "-")


def draw(
    extent: tuple[int, int],
    here: int,
    moments: Sequence[Moment] = (),
    checkpoints: Iterable[int] = (),
    width: int = WIDTH,
    symbols: Symbols = UNICODE,
) -> list[str]:
    """Lines of at most ``width`` (>= 20) characters, as far as two icounts fit into that.

    ``extent``: first and last icount.  Of more than ``LABELS`` moments the last ones have labels.
    """
    first, last = extent

    def column(icount: int) -> int:
        return max(0, min(width - 1, (icount - first) * (width - 1) // max(1, last - first)))

    line = [symbols.past if place < column(here) else symbols.future for place in range(width)]
    for icount in checkpoints:
        place = column(icount)
        line[place] = symbols.past_checkpoint if place < column(here) else symbols.future_checkpoint
    for moment in moments:
        line[column(moment.icount)] = symbols.mark
    line[column(here)] = symbols.here
    labelled = sorted(moments, key=lambda moment: moment.icount)[-LABELS:]
    numbers = f"{first:,}", f"{last:,}"
    return [
        f"{numbers[0]} {numbers[1].rjust(width - len(numbers[0]) - 1)}",
        "".join(line),
        *_labels([(column(moment.icount), moment.label) for moment in labelled], width, symbols),
    ]


def _labels(places: list[tuple[int, str]], width: int, symbols: Symbols) -> list[str]:
    """A row each, led to from the line; ``places`` (column, label) ascend."""
    rows = []
    waiting = [_Label.at(column, text, width) for column, text in places]
    while waiting:
        chosen = _next(waiting)
        waiting.remove(chosen)
        row = [" "] * width
        for other in waiting:
            row[other.column] = symbols.down
        ends = symbols.turns if all(other.column != chosen.column for other in waiting) else symbols.forks
        row[chosen.begin : chosen.end] = chosen.text
        if chosen.on_the_right:
            row[chosen.column : chosen.begin] = [ends[0], symbols.along, " "]
        else:
            row[chosen.end : chosen.column + 1] = [" ", symbols.along, ends[1]]
        rows.append("".join(row).rstrip())
    return rows


@dataclass(eq=False, slots=True)
class _Label:
    """Takes the columns ``begin`` … ``end`` - 1, and is led to from ``column``."""

    column: int
    text: str
    begin: int
    end: int

    @classmethod
    def at(cls, column: int, text: str, width: int) -> _Label:
        """On the right of its column if it fits there, otherwise on the side with more room."""
        right, left = width - column - 3, column - 2
        if len(text) <= right or right >= left:
            text = text[:right]
            return cls(column, text, column + 3, column + 3 + len(text))
        text = text[:left]
        return cls(column, text, column - 2 - len(text), column - 2)

    @property
    def on_the_right(self) -> bool:
        return self.begin > self.column

    def covers(self, other: _Label) -> bool:
        """Whether the way down to ``other`` would lead through this one."""
        first, behind = min(self.begin, self.column), max(self.end, self.column)
        return first <= other.column < behind and other.column != self.column


def _next(waiting: list[_Label]) -> _Label:
    """One that nobody's way leads through, the rightmost; of one place the first."""
    order = sorted(waiting, key=lambda label: -label.column)
    free = (label for label in order if not any(label.covers(other) for other in waiting))
    return next(free, order[0])
