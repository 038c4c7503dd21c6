"""The command line's last words, wherever its output goes."""

from __future__ import annotations

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
