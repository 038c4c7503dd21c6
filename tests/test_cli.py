"""The command line's last words, wherever its output goes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

CODE = "import sys; from timevm.cli import {0}; sys.exit({0}())"


@pytest.mark.parametrize(
    ("entry", "arguments"),
    [("main", ["--help"]), ("main", ["completion", "bash"]), ("main_system_aarch64", ["-M", "help"])],
)
def test_output_onto_a_full_disk_fails_in_a_sentence(entry: str, arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-c", CODE.format(entry), *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.endswith("cannot write the output: No space left on device")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--help"], 0, "create, info, check, snapshot, map, convert, resize"),
        (["completion", "--help"], 0, "source <(timevm completion bash)"),
        (["completion", "tcsh"], 1, "name a shell: bash, zsh, fish"),
        (["lgo"], 1, "there is no command 'lgo' (did you mean 'log'?)"),
        (["log", "--help"], 0, "usage: timevm log dump|verify|stat [options] FILE"),
        (["log", "stat", "-h"], 0, "usage: timevm log stat [-h] [--json] FILE"),
        (["log", "stat", "a", "b"], 2, "timevm log: error: unrecognized arguments: b"),
        (["log", "dump", "--to", "soon", "a"], 2, "argument --to: 'soon' is not a number of instructions"),
        (["img", "--help"], 0, "compression_type=zlib|zstd"),
        (["img", "craete"], 1, "Command not found: craete (did you mean 'create'?)"),
        (["img", "rebase"], 1, "Command not found: rebase (qemu-img has it)"),
    ],
)
def test_help_and_mistakes(arguments: list[str], code: int, words: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format("main"), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "COLUMNS": "120"},
    )
    assert (done.returncode, words in done.stdout + done.stderr) == (code, True), done.stdout + done.stderr


def test_a_reader_that_leaves_is_no_failure() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE.format("main"), "completion", "bash"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=60) == 0
