"""Debian's arm64 kernel from reset to power-off: recorded, replayed, sliced, stressed; all of it must be the same."""

from __future__ import annotations

import hashlib
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import unicorn
from unicorn import unicorn_const as const

from tests.linux.harness import Outcome, assert_same, linux, record, replay
from timevm.engine.cpu.aarch64 import Aarch64Cpu
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.spec import MachineSpec

pytestmark = [pytest.mark.linux, pytest.mark.timeout(900)]

PROMPT = b"/ # "


@pytest.fixture(scope="module")
def boot(tmp_path_factory: pytest.TempPathFactory) -> tuple[MachineSpec, Outcome]:
    """A recorded boot to power-off, shared by the replays of this file."""
    spec = linux("basic,off", tmp_path_factory.mktemp("linux") / "boot.rr")
    outcome = record(spec)
    assert b"TIMEVM-GUEST basic uname Linux" in outcome.console
    assert b"TIMEVM-GUEST off" in outcome.console
    assert outcome.console.rstrip().endswith(b"reboot: Power down")
    return spec, outcome


def test_three_replays(boot: tuple[MachineSpec, Outcome]) -> None:
    spec, recorded = boot
    for _ in range(3):
        assert_same(recorded, replay(spec))


def test_a_replay_in_a_fresh_process(boot: tuple[MachineSpec, Outcome], tmp_path: Path) -> None:
    spec, recorded = boot
    code = (
        "import pickle, sys; from tests.linux.harness import replay; "
        "pickle.dump(replay(pickle.load(sys.stdin.buffer)), sys.stdout.buffer)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], input=pickle.dumps(spec), capture_output=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert_same(recorded, pickle.loads(done.stdout))


def random_limits(seed: int, least: int, most: int) -> Iterator[int]:
    generator, limit = random.Random(seed), 0
    while True:
        limit += generator.randint(least, most)
        yield limit


@pytest.mark.parametrize("seed", range(2))
def test_random_slicing(boot: tuple[MachineSpec, Outcome], seed: int) -> None:
    spec, recorded = boot
    assert_same(recorded, replay(spec, random_limits(seed, 1_000_000, 3_000_000)))


def test_flushes_of_translated_code(boot: tuple[MachineSpec, Outcome]) -> None:
    spec, recorded = boot

    def flush(machine: Machine) -> None:
        cpu = machine.cpu
        assert isinstance(cpu, Aarch64Cpu)
        cpu.flush_translations()

    assert_same(recorded, replay(spec, random_limits(5, 5_000_000, 15_000_000), flush))


@pytest.mark.parametrize(
    ("setting", "value"),
    [("translation_buffer", 8 << 20), ("exit_checks", True), ("flat_translation", False)],
)
def test_speed_settings_change_nothing(
    boot: tuple[MachineSpec, Outcome], monkeypatch: pytest.MonkeyPatch, setting: str, value: object
) -> None:
    defaults = Aarch64Cpu.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, setting, value)
    spec, recorded = boot
    assert_same(recorded, replay(spec))


SHELL = (
    (PROMPT, b"echo $((6 * 7)) answers; uname -m\r"),
    (b"aarch64", b""),
    (PROMPT, b"ls / | sort | md5sum\r"),
    (PROMPT, b"for i in 1 2 3; do echo round $i; done; date +%s\r"),
    (b"round 3", b""),
    # the shell edits lines in the terminal's raw mode: what cat is to read must come after it left that
    (PROMPT, b"echo now for $((40 + 2)) lines; cat > /tmp.txt\r"),
    (b"now for 42 lines", b"first line\rsecond line\r\x04"),
    (PROMPT, b"wc /tmp.txt; sleep 1; cat /proc/interrupts | head -20\r"),
    (PROMPT, b"head -c 16 /dev/urandom | od -An -tx1\r"),
    (PROMPT, b"exit\r"),
)


@pytest.mark.parametrize("sleep", [True, False], ids=["real-time", "no-sleep"])
def test_a_shell_driven_by_a_script(tmp_path: Path, sleep: bool) -> None:
    spec = linux("shell,off", tmp_path / "shell.rr", sleep=sleep)
    recorded = record(spec, SHELL)
    assert b"42 answers" in recorded.console and b"round 3" in recorded.console
    for _ in range(3):
        assert_same(recorded, replay(spec))
    assert_same(recorded, replay(spec, random_limits(7, 500_000, 2_000_000)))


@pytest.mark.parametrize("shift", [None, 0, 5])
def test_other_speeds_of_time(tmp_path: Path, shift: int | None) -> None:
    spec = linux("off", tmp_path / "off.rr", shift=shift, sleep=False)
    recorded = record(spec)
    assert_same(recorded, replay(spec))


def numbers(first: int, last: int) -> list[str]:
    return [str(number) for number in range(first, last + 1)]


def expected_stress(index: int) -> str:
    """What pipeline ``index`` of init's step ``stress`` hashes; gzip is undone in it, so no version matters."""
    count = index * 7 + 20
    if index % 3 == 1:
        digits = [text.translate(str.maketrans("0123456789", "abcdefghij")) for text in numbers(index, index + count)]
        text = "".join(f"{line}\n" for line in sorted(digits, reverse=True))
    else:
        text = "".join(f"{line}\n" for line in numbers(1, count))
        if index % 3 == 2:
            text = text.replace("\n", " ")
    return hashlib.sha512(text.encode()).hexdigest()


def test_stress(tmp_path: Path) -> None:
    spec = linux("stress,off", tmp_path / "stress.rr", sleep=False)
    recorded = record(spec)
    lines = [line.split() for line in recorded.console.decode().splitlines() if " stress " in line]
    assert [(int(words[2]), words[3]) for words in lines] == [(i, expected_stress(i)) for i in range(1, 151)]
    assert_same(recorded, replay(spec))


def test_unicorns_own_page_size_and_tlb_scan_change_nothing(
    boot: tuple[MachineSpec, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The speed settings that have no name: pages of 4 KiB, and the hook that spares a TLB scan at each translation."""
    spec, recorded = boot
    hook = Aarch64Cpu._hook

    def no_protection_hook(cpu: Aarch64Cpu, kind: int, *arguments: Any, **named: Any) -> int:
        return 0 if kind == const.UC_HOOK_MEM_READ_PROT else hook(cpu, kind, *arguments, **named)

    defaults = Aarch64Cpu.__init__.__kwdefaults__
    assert defaults is not None
    # our own translation keeps rights by pages of 4 KiB
    monkeypatch.setitem(defaults, "flat_translation", False)
    monkeypatch.setattr(unicorn.Uc, "ctl_set_page_size", lambda engine, size: None)
    monkeypatch.setattr(Aarch64Cpu, "_hook", no_protection_hook)
    assert_same(recorded, replay(spec))
