"""``timevm demo``: what it prints, how it goes back, and that any input to its guest is recorded and replayed."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.demo.document import comparable, demonstrate, documented
from tests.peers import need
from timevm import cli
from timevm.demo import SESSION, run_demo
from timevm.demo.runs import Outcome, open_replay, record, run_to_end, specification
from timevm.demo.way_back import Damage, damage_on, go_back_to, last_call, replay_at_end, typed_before
from timevm.errors import RecordingError
from timevm.guests import DEMO_AARCH64, DEMO_SOURCES
from timevm.guests.source_places import SourcePlaces

#: where the shipped guest goes wrong (examples/guests/demo/main.c)
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
    assert re.search(r"header 11000000 [0-9a-f]{8} becomes 00000000 [0-9a-f]{8}", output)
    source = (DEMO_SOURCES / "main.c").read_text().splitlines()[87]
    assert f"->   88  {source}" in lines


def test_the_guilty_write_is_the_same_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    found = {
        tuple(re.findall(r"[0-9,]+ instructions earlier|before instruction .*|in text_value.*", run(capsys)[1]))
        for _ in range(2)
    }
    assert len(found) == 1 and len(found.pop()) == 3, (
        "the demo's machine is the same on every host, but for its seed and date"
    )


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
    original = run_to_end
    runs = 0

    def changed(*arguments: object) -> Outcome:
        nonlocal runs
        runs += 1
        outcome = original(*arguments)  # type: ignore[arg-type]
        return outcome if runs != 2 else replace(outcome, icount=outcome.icount + 1)

    monkeypatch.setattr("timevm.demo.command.run_to_end", changed)
    code, output = run(capsys)
    assert code == 1 and re.search(r"again .* NO", output) and GUILTY not in output


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
    assert "Traceback" not in done.stderr and "a bug" not in done.stderr and message in done.stderr
    assert len(done.stderr.splitlines()) <= 4, done.stderr


def test_a_full_disk_takes_the_output() -> None:
    code = "import sys; from timevm.cli import main; sys.exit(main())"
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", code, "demo"], stdout=full, stderr=subprocess.PIPE, timeout=60, check=False
        )
    assert done.returncode == 1 and b"No space left on device" in done.stderr and b"a bug" not in done.stderr


def test_the_session_is_what_the_demo_tells_about() -> None:
    assert len(SESSION) == 16 and SESSION[10] == 'let note = "sixteen letters!"'


# -- going back

#: the way from main to the guilty write, as gdb and the sources have it
CALLS = ["text_value", "keep", "do_let", "carry_out", "main"]


def without_gdb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)


def test_the_timeline_is_drawn(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    without_gdb(monkeypatch)
    output = run(capsys)[1]
    lines = output.splitlines()
    top = next(number for number, line in enumerate(lines) if line.startswith("The recording, its"))
    extent, line, discovery, damage = lines[top + 1 : top + 5]
    end = int(extent.split()[1].replace(",", ""))
    places = [int(re.findall(r": ([0-9,]+)", label)[0].replace(",", "")) for label in (damage, discovery)]
    for mark, icount in zip("◆●", places, strict=True):
        assert line.count(mark) == 1 and abs(line.index(mark) - 2 - icount * 77 // end) <= 1
    assert line.startswith("  ┻━") and line.count("┻") + line.count("┴") >= 2, "the start is always a checkpoint"
    assert damage.index("╰") == line.index("◆") and discovery.index("╯") == line.index("●")


def test_the_backtrace_is_gdbs(capsys: pytest.CaptureFixture[str]) -> None:
    need("gdb-multiarch")
    output = run(capsys)[1]
    assert "Backtrace, by gdb-multiarch" in output
    told = output.partition("Backtrace, by")[2]
    assert re.findall(r"#\d+ +(?:0x[0-9a-f]+ in )?(\w+) \(", told) == CALLS
    assert "length=16" in told and "main.c:88" in told


def test_the_backtrace_without_gdb(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    without_gdb(monkeypatch)
    output = run(capsys)[1]
    assert "Backtrace, by timevm itself" in output
    assert re.findall(r"#\d+ +(\w+) at main.c:\d+", output.partition("Backtrace, by")[2]) == CALLS


@pytest.mark.parametrize("script", ["exit 1", "echo nonsense", "exec sleep 60"])
def test_a_gdb_that_is_of_no_use(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str
) -> None:
    program = tmp_path / "gdb-multiarch"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setattr("shutil.which", lambda name: str(program))
    monkeypatch.setattr("timevm.demo.debugger.PATIENCE", 0.5)
    code, output = run(capsys)
    assert code == 0 and "Backtrace, by timevm itself" in output and CALLS[0] in output


def test_plain_where_it_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No colours; and an encoding that has no lines to draw with gets other characters."""
    code = "import sys; from timevm.cli import main; sys.exit(main())"
    for encoding in ("utf-8", "ascii"):
        done = subprocess.run(
            [sys.executable, "-c", code, "demo"],
            env={"PATH": "/nonexistent", "PYTHONIOENCODING": encoding},
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0 and done.stderr == b"" and b"\x1b" not in done.stdout
        assert all(len(line) <= 80 for line in done.stdout.decode().splitlines())
        if encoding == "ascii":
            assert done.stdout.isascii() and b"?" not in done.stdout.replace(b"Who did it?", b"")


def test_the_manual_shows_it() -> None:
    need("gdb-multiarch")
    assert comparable(documented()) == comparable(demonstrate()), "python -m tests.demo.document takes it anew"


def test_it_is_quick(capsys: pytest.CaptureFixture[str]) -> None:
    """The promise is ten seconds; it takes one or two."""
    seconds = re.search(r"gone back in ([0-9.]+) s\.", run(capsys)[1])
    assert seconds is not None and float(seconds[1]) < 10


async def test_the_machine_stands_before_the_write(tmp_path: Path) -> None:
    spec = specification(tmp_path / "x.rr")
    recorded = record(spec, SESSION)
    damage = damage_on(recorded.console)
    assert damage is not None
    places = SourcePlaces(DEMO_AARCH64)
    looks = places.function_named("check_heap")
    assert looks is not None
    async with replay_at_end(spec) as replay:
        discovery = await last_call(replay.vm, looks)
        guilty = await go_back_to(replay.vm, damage)
        info = await replay.vm.replay_info()
        here = await replay.vm.inspect(
            lambda machine: (machine.read_register("pc"), machine.read_memory(damage.address, 8))
        )
    assert discovery is not None and guilty.icount < discovery < recorded.icount
    assert info.icount == guilty.icount and here == (guilty.pc, guilty.before)
    assert not damage.is_in(guilty.before) and damage.is_in(guilty.after)
    assert typed_before(tmp_path / "x.rr", guilty.icount) == SESSION[10]


async def test_the_way_back_passes_writes_that_changed_nothing_for_the_worse(tmp_path: Path) -> None:
    """To the one before which the header was sound; here that is the first of all, when RAM was still empty."""
    spec = specification(tmp_path / "x.rr")
    damage = damage_on(record(spec, SESSION).console)
    assert damage is not None
    async with replay_at_end(spec) as replay:
        first = await go_back_to(replay.vm, replace(damage, pattern=0))
    assert first.stops > 2 and first.before == bytes(8)
    async with replay_at_end(spec) as replay:
        with pytest.raises(RecordingError, match="nobody wrote to the 8 bytes at 0x40ff0000"):
            await go_back_to(replay.vm, replace(damage, address=0x40FF0000))


def test_what_the_guest_says_is_understood() -> None:
    text = b"x\r\nheap corrupted: cell 3 at 0x40089060: size 0x0, guard 0x7e11a10d, expected 0x7e11a11c\r\n"
    assert damage_on(text) == Damage(3, 0x40089060, 0x7E11A11C)
    assert damage_on(b"> print 1\r\n1\r\n> ") is None
