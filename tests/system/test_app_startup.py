"""What cannot begin says so in one to three lines, exits with 1 and leaves nothing behind; the ``timevm`` command."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import irq_guest, run
from tests.guests import bare
from timevm import cli
from timevm.engine.replay.log_reader import LogReader
from timevm.engine.replay.opening import create_recording, open_recording

_KERNEL = str(bare("irq"))
_NO_PLACE = "no block device can store vmstate for snapshot"
_REPLAY = "-icount shift=3,rr=replay,rrfile={}"
#: name → arguments, behind a whole guest of 16 MiB; a piece of the message
CANNOT: dict[str, tuple[str, str]] = {
    "rr option": ("-icount shift=auto,rr=foo", "Invalid icount rr option: foo"),
    "no rrfile": ("-icount shift=auto,rr=replay", "File name not specified for replay"),
    "no shift": ("-icount rr=replay,rrfile=x", "Please enable icount to use record/replay"),
    "bad shift": ("-icount shift=99", "icount: Invalid shift value"),
    "no recording": (_REPLAY.format("none.rr"), "Replay: open none.rr: No such file or directory"),
    "recording's folder": ("-icount shift=3,rr=record,rrfile=no/x", "open no/x: No such file or directory"),
    "a folder": (_REPLAY.format("."), "Replay: open .: Is a directory"),
    "another RAM": (f"-m 32 {_REPLAY.format('run.rr')}", "RAM size: recorded with 16 MiB, now 32 MiB"),
    "another -append": (f"-append x {_REPLAY.format('run.rr')}", "-append: recorded with '', now 'x'"),
    "another shift": (_REPLAY.format("run.rr").replace("=3", "=4"), "icount shift: recorded with 3, now 4"),
    "another CPU": (f"-cpu cortex-a53 {_REPLAY.format('run.rr')}", "CPU model: recorded with cortex-a57"),
    "another kernel": (f"-kernel {bare('arm64')} {_REPLAY.format('run.rr')}", "kernel: recorded with"),
    "another build": (_REPLAY.format("build.rr"), "makes another memory map, no device lost, a new device rtc"),
    "another version": (_REPLAY.format("version.rr"), "replay it with timevm 0.0.9, or record it again"),
    "cut header": (_REPLAY.format("cut.rr"), "the header is cut short"),
    "junk": (_REPLAY.format("junk.rr"), "not a recording of timevm"),
    "empty": (_REPLAY.format("empty.rr"), "the recording is empty"),
    "no kernel": ("-kernel none", "none': No such file or directory"),
    "no firmware": ("-bios none", "none"),
    "no disk": ("-drive file=none.qcow2,if=none,id=d -device virtio-blk-device,drive=d", "none.qcow2"),
    "not a disk": ("-drive file=junk.rr,format=qcow2,if=none,id=d -device virtio-blk-device,drive=d", "junk.rr"),
    "rrsnapshot": ("-icount shift=3,rr=record,rrfile=new.rr,rrsnapshot=s", _NO_PLACE),
    "loadvm": ("-loadvm tag", _NO_PLACE),
    "serial socket": ("-serial unix:no/s,server,nowait", "Failed to listen on 'unix:no/s,server=on'"),
    "serial peer": ("-serial unix:nobody", "Failed to connect to 'nobody': No such file or directory"),
    "serial file": ("-serial file:no/f", "Could not open 'no/f': No such file or directory"),
    "QMP socket": ("-qmp unix:no/s,server,nowait", "Failed to listen on 'unix:no/s,server=on'"),
    "two sockets": ("-qmp unix:q,server,nowait -monitor unix:no/s,server,nowait", "Failed to listen on 'unix:no/s"),
    "gdb port": ("-gdb tcp:999.0.0.1:5", "Failed to listen on 'tcp:999.0.0.1:5,server=on'"),
    "pid file": ("-pidfile no/pid", "cannot create PID file: Cannot open pid file: No such file or directory"),
    "log": ("-D no/log", "Could not open log file: No such file or directory"),
    "logfile": ("-chardev null,id=n,logfile=no/l -serial chardev:n", "Unable to open logfile no/l"),
    "recording and socket": (
        "-icount shift=3,rr=record,rrfile=new.rr -qmp unix:no/s,server,nowait",
        "Failed to listen on 'unix:no/s,server=on'",
    ),
    "socket and recording": (f"-qmp unix:q,server,nowait {_REPLAY.format('none.rr')}", "Replay: open none.rr"),
}  # fmt: skip


def recorded_as(path: Path, reader: LogReader, **changes: Any) -> None:
    """The same events of a machine that was another one."""
    writer = create_recording(path, replace(reader.identity, **changes))
    for entry in reader.entries():
        writer.append(entry.icount, entry.event)
    writer.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("startup")
    done = run([*irq_guest(), "-icount", "shift=3,rr=record,rrfile=run.rr", "-serial", "stdio"], typed=b"aq", cwd=path)
    assert done.returncode == 0, done
    (path / "cut.rr").write_bytes((path / "run.rr").read_bytes()[:100])
    reader = open_recording(path / "run.rr")
    build = dict(reader.identity.build) | {"memory map": "another", "device lost": "12"}
    del build["device rtc"]
    recorded_as(path / "build.rr", reader, build=tuple(build.items()))
    recorded_as(path / "version.rr", reader, timevm_version="0.0.9")
    recorded_as(path / "older.rr", reader, build=())
    reader.close()
    (path / "junk.rr").write_bytes(b"no recording at all" * 100)
    (path / "empty.rr").write_bytes(b"")
    return path


@pytest.fixture
def in_folder(folder: Path) -> Iterator[Path]:
    """The tests run here, in this process: a start costs a second otherwise."""
    before = os.getcwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)


@pytest.mark.parametrize("name", CANNOT)
def test_what_cannot_begin_says_so(
    name: str, in_folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments, piece = CANNOT[name]
    there = sorted(os.listdir(in_folder))
    monkeypatch.setattr(sys, "argv", ["timevm-system-aarch64", *irq_guest(), *arguments.split()])
    assert cli.main_system_aarch64() == 1
    printed, complaint = capfd.readouterr()
    assert printed == ""
    assert complaint.startswith("timevm-system-aarch64: ") and piece in complaint
    assert 1 <= complaint.count("\n") <= 3 and "Traceback" not in complaint
    assert sorted(os.listdir(in_folder)) == there, "something was left behind"


def test_every_difference_is_named(folder: Path) -> None:
    replay = _REPLAY.format("run.rr").replace("=3", "=4").split()
    done = run([*irq_guest(), "-m", "32", "-append", "x", "-cpu", "max", *replay], cwd=folder)
    assert done.returncode == 1
    for piece in (b"RAM size", b"-append", b"CPU model", b"icount shift"):
        assert piece in done.stderr


def test_a_recording_of_an_older_timevm_is_replayed_with_a_warning(folder: Path) -> None:
    plain, older = (
        run([*irq_guest(), *_REPLAY.format(name).split(), "-serial", "stdio"], cwd=folder)
        for name in ("run.rr", "older.rr")
    )
    assert plain.returncode == older.returncode == 0 and plain.stdout == older.stdout
    assert b"of what its machine was made" not in plain.stderr
    assert b"the recording older.rr does not say of what its machine was made" in older.stderr


def test_a_pid_file_that_somebody_has(folder: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", "import sys; from timevm.cli import main_system_aarch64 as m; sys.exit(m())",
         *irq_guest(), "-S", "-serial", "pty", "-pidfile", "pid"], cwd=folder, stdout=subprocess.PIPE
    )  # fmt: skip
    try:
        assert first.stdout is not None
        assert b"char device redirected" in first.stdout.readline()
        second = run([*irq_guest(), "-S", "-pidfile", "pid"], cwd=folder)
        assert second.returncode == 1 and b"cannot create PID file: Cannot lock pid file" in second.stderr
        assert (folder / "pid").read_text() == f"{first.pid}\n"
    finally:
        first.terminate()
        first.communicate(timeout=30)
    assert first.returncode == 0 and not (folder / "pid").exists()


# -- the command timevm


def call(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["timevm", *arguments])
    return cli.main()


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(monkeypatch) == 0 == call(monkeypatch, "--help")
    assert capsys.readouterr().out.count("usage: timevm COMMAND") == 2
    assert call(monkeypatch, "--version") == 0
    assert re.fullmatch(r"timevm [0-9.]+\n", capsys.readouterr().out)
    assert call(monkeypatch, "system-aarch64", "-version") == 0
    assert "timevm-system-aarch64" in capsys.readouterr().out
    assert call(monkeypatch, "system-aarch65") == 1
    assert "there is no command 'system-aarch65' (did you mean 'system-aarch64'?)" in capsys.readouterr().err
    assert call(monkeypatch, "system-riscv64", "-M", "help") == 0
    assert "RISC-V VirtIO board" in capsys.readouterr().out
    assert call(monkeypatch, "completion", "tcsh") == 1
    assert "name a shell" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error() -> None:
    done = subprocess.run(
        f'"{sys.executable}" -c "from timevm.cli import main; exit(main())" system-aarch64 -h | head -1',
        shell=True, capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.startswith(b"usage:") and done.stderr == b""


def test_a_bug_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(arguments: object) -> int:
        raise ZeroDivisionError("oh")

    monkeypatch.setitem(cli._COMMANDS, "demo", broken)
    assert call(monkeypatch, "demo") == 1
    assert (
        capsys.readouterr().err
        == "timevm: a bug in timevm (ZeroDivisionError: oh); TIMEVM_DEBUG=1 shows where, please report it\n"
    )
