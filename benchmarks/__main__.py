"""``python -m benchmarks``: timevm's figures, side by side with QEMU's where it is installed (``make bench``)."""

from __future__ import annotations

import argparse
import fnmatch
import tempfile
from pathlib import Path

from rich.console import Console

from benchmarks.cases import Case, cases
from benchmarks.programs import BenchFailed, Side, sides
from benchmarks.report import Line, save, show


def measure(case: Case, compared: list[Side], runs: int, folder: Path) -> list[Line]:
    """``runs`` rounds, the sides alternating; a side that failed gets no more."""
    lines: dict[str, Line] = {}
    failures: dict[str, str] = {}
    for _ in range(runs):
        for side in compared:
            if side.name in failures:
                continue
            try:
                figures = case.measure(side, folder)
            except (BenchFailed, OSError) as why:
                failures[side.name] = str(why)
                continue
            for figure, value in figures.items():
                line = lines.setdefault(figure, Line(case.name, figure, case.larger_is_better))
                line.samples.setdefault(side.name, []).append(value)
    measured = list(lines.values()) or [Line(case.name, "-", case.larger_is_better)]
    measured[0].failures = {side: why for side, why in failures.items() if why != "not for this side"}
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--runs", type=int, default=3, help="rounds of each case (default 3)")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="cases whose name matches, e.g. 'Linux*'")
    parser.add_argument("--no-qemu", action="store_true", help="timevm alone")
    parser.add_argument("--json", type=Path, metavar="FILE", help="default: benchmarks/results/DATE.json")
    options = parser.parse_args()
    compared = [side for side in sides() if not (options.no_qemu and side.name == "qemu")]
    screen = Console(highlight=False)
    lines: list[Line] = []
    with tempfile.TemporaryDirectory(prefix="timevm-bench-") as folder:
        for case in cases():
            if fnmatch.fnmatch(case.name, options.only):
                with screen.status(case.name):
                    lines += measure(case, compared, options.runs, Path(folder))
    show(lines, [side.name for side in compared], screen)
    screen.print(f"all samples: {save(lines, options.json)}")


if __name__ == "__main__":
    main()
