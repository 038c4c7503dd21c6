"""Figures as a table for people and as JSON for the next comparison."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from timevm import __version__

RESULTS = Path(__file__).with_name("results")


@dataclass(slots=True)
class Line:
    """One figure of one case: samples by side, or why a side has none."""

    case: str
    figure: str
    larger_is_better: bool
    samples: dict[str, list[float]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    def median(self, side: str) -> float | None:
        return statistics.median(self.samples[side]) if self.samples.get(side) else None

    def cell(self, side: str) -> str:
        median = self.median(side)
        if median is None:
            return "failed" if side in self.failures else "-"
        low, high = min(self.samples[side]), max(self.samples[side])
        return f"{median:.4g} [dim]{low:.4g}…{high:.4g}[/dim]"


def show(lines: list[Line], sides: list[str], screen: Console) -> None:
    table = Table(title="medians (least…most)", title_justify="left")
    for heading in ("case", "figure", *sides, "timevm / qemu"):
        table.add_column(heading, justify="left" if heading in ("case", "figure") else "right")
    for line in lines:
        ours, theirs = line.median("timevm"), line.median("qemu")
        ratio = f"{ours / theirs:.2f}" if ours is not None and theirs else "-"
        arrow = "↑" if line.larger_is_better else "↓"
        table.add_row(line.case, f"{line.figure} {arrow}", *(line.cell(side) for side in sides), ratio)
    screen.print(table)
    for line in lines:
        for side, why in line.failures.items():
            screen.print(f"{escape(line.case)}, {side}: failed: {escape(why)}", soft_wrap=True)


def save(lines: list[Line], path: Path | None = None) -> Path:
    """All samples, and where they were taken."""
    if path is None:
        RESULTS.mkdir(exist_ok=True)
        path = RESULTS / time.strftime("%Y%m%d-%H%M%S.json")
    about = {
        "timevm": __version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
        "processors": os.cpu_count(),
        "load": os.getloadavg(),
        "taken": time.strftime("%Y-%m-%d %H:%M:%S"),
    }
    content = [
        {"case": line.case, "figure": line.figure, "samples": line.samples, "failures": line.failures} for line in lines
    ]
    path.write_text(json.dumps({"about": about, "lines": content}, indent=1) + "\n")
    return path
