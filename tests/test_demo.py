"""``timevm demo``: what it prints, what it finds, and that any input to its guest is recorded and replayed."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from timevm import cli, demo
from timevm.demo import SESSION, open_replay, record, run_demo, run_to_end, specification

#: QEMU's places, not ours: where the shipped guest goes wrong (examples/guests/demo/main.c)
GUILTY = "main.c:88"


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = run_demo(list(arguments))
    output, errors = capsys.readouterr()
    assert errors == ""
    return code, output


def test_the_built_in_session(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, output = run(capsys)
    assert code == 0
    lines = output.splitlines()
    assert all(len(line) <= 80 for line in lines), "it is meant for a terminal of 80 columns"
    rows = [line.split() for line in lines if re.match(r"(record|replay|again) ", line)]
    assert [row[0] for row in rows] == ["record", "replay", "again"]
    assert "…" not in output, "numbers and digests are whole"
    for row in rows:
        instructions, digest = int(row[1].replace(",", "")), row[6]
        assert instructions > 1_000_000 and re.fullmatch(r"[0-9a-f]{16}", digest)
        assert row[1:7] == rows[0][1:7]
    assert [row[-1] for row in rows[1:]] == ["yes", "yes"]
    assert GUILTY in output and "sixteen letters!" in output
    assert re.search(r"header 11000000 [0-9a-f]{8} became 00000000 [0-9a-f]{8}", output)


def test_the_guilty_write_is_the_same_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        tuple(line for line in run(capsys)[1].splitlines() if "instruction" in line and "earlier" in line)
        for _ in range(2)
    }
    assert len(found) == 1, "the demo's machine is the same on every host, but for its seed and date"


def test_harmless_input(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_text('let a = "fifteen letters"\nlet b = 6 * 7\nprint b\ncheck\n')
    code, output = run(capsys, "--input", str(lines), "--show-console")
    assert code == 0
    assert "42\n" in output and "the heap is sound" in output
    assert "The guest's heap stayed sound with this input." in output and GUILTY not in output


def test_input_that_does_the_damage_elsewhere(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_text('let a = 1\nlet b = 2\nlet a = "sixteen letters!"\nprint b\ncheck\nlet never = 1\n')
    code, output = run(capsys, "--input", str(lines))
    assert code == 0 and GUILTY in output and 'let a = "sixteen letters!"' in output


@pytest.mark.parametrize(
    "text", ["", "\n\n\n", "bye\nlet a = 1\n", "[bold]no markup[/bold]\nlet x = ä\n", "print\t1\n" * 3]
)
def test_odd_input(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str) -> None:
    lines = tmp_path / "lines"
    lines.write_text(text)
    code, output = run(capsys, "--input", str(lines), "--show-console")
    assert code == 0 and "stayed sound" in output
    if "[bold]" in text:
        assert "[bold]no markup[/bold]" in output


def test_input_of_any_alphabet(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b"\xff\xfe\x01 let\nprint 7\n")
    code, output = run(capsys, "--input", str(lines), "--show-console")
    assert code == 0 and "\n7\n" in output


WORDS = [
    *(f'let {name} = "{"x" * size}"' for name in "abc" for size in (1, 15, 16, 17, 32)),
    *("let a = 7", "let b = a + 1", "print a", "print b + c", "push a", "pop b", "drop c", "list", "time", "check"),
    *("primes 50", "nonsense", "", "let", "print 1 / 0", "push", "pop q", "help"),
]


@pytest.mark.parametrize("seed", range(6))
def test_any_session_replays(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    spec = specification(tmp_path / "x.rr")
    recorded = record(spec, chance.choices(WORDS, k=chance.randint(1, 40)))
    assert recorded.same_as(run_to_end(*open_replay(spec)))


def test_the_recording_is_kept_where_it_was_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "kept.rr"
    assert run(capsys, "--keep", str(path))[0] == 0
    monkeypatch.setattr(sys, "argv", ["timevm", "log", "verify", str(path)])
    assert cli.main() == 0


def test_a_replay_that_differs_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What is printed is compared, not asserted: a run that is not the same says NO, and the exit code is 1."""
    original = demo.run_to_end
    runs = 0

    def changed(*arguments: object) -> demo.Outcome:
        nonlocal runs
        runs += 1
        outcome = original(*arguments)  # type: ignore[arg-type]
        return outcome if runs != 3 else replace(outcome, icount=outcome.icount + 1)

    monkeypatch.setattr(demo, "run_to_end", changed)
    code, output = run(capsys)
    assert code == 1 and re.search(r"again .* NO", output)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "none"], "none"),
        (["--input", "."], "Is a directory"),
        (["--keep", "no/x.rr"], "No such file or directory"),
        (["--keep", "/dev/full"], "No space left on device"),
        (["--wrong"], "--wrong"),
    ],
)
def test_what_cannot_be(tmp_path: Path, arguments: list[str], message: str) -> None:
    code = "import sys; from timevm.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", code, "demo", *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode in (1, 2), done
    assert "Traceback" not in done.stderr and message in done.stderr
    assert len(done.stderr.splitlines()) <= 4, done.stderr


def test_the_session_is_what_the_demo_tells_about() -> None:
    assert len(SESSION) == 16 and SESSION[10] == 'let note = "sixteen letters!"'
