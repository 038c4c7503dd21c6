"""``timevm log``: the same codec, any file, friendly answers."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.replay.toys import IDENTITY
from timevm.engine.replay.events import Digest, End, Event, Idle, NetworkInput, Request, RequestKind, SerialInput
from timevm.engine.replay.opening import create_recording
from timevm.log_command import log_parser, run

ROOT = Path(__file__).resolve().parents[1]
EVENTS: list[tuple[int, Event]] = [
    (0, Digest(0x1234, 2, 3)),
    (1_000, SerialInput(0, b"ls\r\x1b[2J")),
    (1_000, Idle(4_000_000)),
    (2_500, Request(RequestKind.RESET)),
    (1_000_000, Digest(4, 5, 6)),
    (1_000_000, End("shutdown")),
]
#: what a console script would do
PROGRAM = """
import sys
from timevm.log_command import log_parser, run
sys.exit(run(log_parser().parse_args(sys.argv[1:])))
"""


def parse(*arguments: object) -> argparse.Namespace:
    return log_parser().parse_args([*map(str, arguments)])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    writer = create_recording(tmp_path / "run.tvm", IDENTITY)
    for number, (icount, event) in enumerate(EVENTS):
        writer.append(icount, event)
        if number == 2:
            writer.flush()
    writer.close()
    return tmp_path / "run.tvm"


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    # in the second frame: the file ends with index and end mark
    data[-150] ^= 1
    path.write_bytes(data)


def test_dump_shows_every_event_with_its_icount(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse("dump", path)) == 0
    _, *lines = capsys.readouterr().out.splitlines()
    assert [line.split(maxsplit=3) for line in lines] == [
        ["0", "0", "digest", "cpu 0000000000001234 ram 0000000000000002 devices 0000000000000003"],
        ["1", "1000", "serial-input", r"port 0: b'ls\r\x1b[2J'"],
        ["2", "1000", "idle", "4000000 ns"],
        ["3", "2500", "request", "request reset"],
        ["4", "1000000", "digest", "cpu 0000000000000004 ram 0000000000000005 devices 0000000000000006"],
        ["5", "1000000", "end", "'shutdown'"],
    ]


def test_dump_for_programs(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse("dump", "--json", "--from", "0x3e8", "--to", "2500", path)) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"event": 1, "icount": 1000, "kind": "serial-input", "port": 0, "data": b"ls\r\x1b[2J".hex()},
        {"event": 2, "icount": 1000, "kind": "idle", "ns": 4_000_000},
        {"event": 3, "icount": 2500, "kind": "request", "request": "reset"},
    ]
    assert run(parse("dump", "--json", "--kind", "end", "--kind", "idle", path)) == 0
    assert [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()] == [2, 5]


def test_frames_are_shown_by_their_addresses_and_to_programs_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = create_recording(tmp_path / "net.rr", IDENTITY)
    event = NetworkInput(1, bytes.fromhex("52540012345652550a0002020806") + bytes(46))
    writer.append(7, event)
    writer.close()
    assert run(parse("dump", tmp_path / "net.rr", "--kind", "network-input")) == 0
    [_, line] = capsys.readouterr().out.splitlines()
    shown = "60 bytes from 52:55:0a:00:02:02 to 52:54:00:12:34:56"
    assert line.split(maxsplit=3) == ["0", "7", "network-input", f"card 1: {shown}"]
    assert str(event) == f"NetworkInput(card=1, {shown})"
    assert run(parse("dump", tmp_path / "net.rr", "--json")) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["frame"] == event.frame.hex()


@pytest.mark.parametrize("bad", [("--from", "-1"), ("--to", "soon"), ("--kind", "nothing")])
def test_a_wrong_option_is_refused(path: Path, bad: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parse("dump", *bad, path)
    assert bad[1] in capsys.readouterr().err


def test_verify_says_that_it_is_sound(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse("verify", path)) == 0
    assert capsys.readouterr().out == (
        f"{path} is sound: 6 events in 2 frames; "
        "the recording ends at instruction 1000000: the guest switched itself off\n"
    )
    assert run(parse("verify", "--json", path)) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["sound"] is True and record["events"] == 6 and record["end_icount"] == 1_000_000


def test_verify_says_what_is_wrong(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(path)
    assert run(parse("verify", path)) == 1
    out = capsys.readouterr().out
    assert "is not whole: 3 events in 1 frame are sound" in out and "checksum" in out
    assert "lost are 3 events up to instruction 1000000" in out
    assert run(parse("verify", "--json", path)) == 1
    record = json.loads(capsys.readouterr().out)
    assert record["sound"] is False and record["damage"]["icount"] == 1000


def test_a_recording_without_an_end_mark_is_not_whole(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    writer = create_recording(path, IDENTITY)
    writer.append(5, Idle(1))
    writer.flush()
    writer.abandon()
    assert run(parse("verify", path)) == 1
    assert "no end mark" in capsys.readouterr().out


def test_a_damaged_recording_is_dumped_as_far_as_it_goes(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(path)
    assert run(parse("dump", "--json", path)) == 1
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 3
    assert "damaged" in err and len(err.splitlines()) == 1
    assert run(parse("stat", path)) == 1


def test_stat_counts(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse("stat", "--json", path)) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["machine"]["cpu"] == "cortex-a57"
    assert record["kinds"]["serial-input"] == {"count": 1, "bytes": 12, "first": 1000, "last": 1000}
    assert record["kinds"]["digest"] == {"count": 2, "bytes": 54, "first": 0, "last": 1_000_000}
    assert sum(kind["bytes"] for kind in record["kinds"].values()) == record["plain_bytes"]
    assert record["file_bytes"] == path.stat().st_size
    assert record["bits_per_million_instructions"] == path.stat().st_size * 8
    assert run(parse("stat", path)) == 0
    out = capsys.readouterr().out
    assert "serial-input" in out and "1,000,000" in out and "'virt', 'cortex-a57', 512 MiB" in out


@pytest.mark.parametrize("action", ["dump", "verify", "stat"])
def test_what_is_no_recording(action: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(parse(action, tmp_path / "X")) == 1
    assert capsys.readouterr().err == f"timevm: Replay: open {tmp_path / 'X'}: No such file or directory\n"
    (tmp_path / "X").write_bytes(b"garbage")
    assert run(parse(action, tmp_path / "X")) == 1
    assert "not a recording" in capsys.readouterr().err


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_is_answered_with_a_traceback(
    path: Path, data: st.DataObject, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = path.read_bytes()
    start = data.draw(st.integers(0, len(whole)))
    broken = path.parent / "broken"
    broken.write_bytes(
        whole[:start] + data.draw(st.binary(max_size=20)) + whole[data.draw(st.integers(start, start + 9)) :]
    )
    for action in ("dump", "verify", "stat"):
        assert run(parse(action, broken)) in (0, 1)
        assert run(parse(action, "--json", broken)) in (0, 1)
    out, err = capsys.readouterr()
    assert "Traceback" not in out + err


def long_recording(path: Path) -> None:
    writer = create_recording(path, IDENTITY)
    for number in range(100_000):
        writer.append(number, Idle(1))
    writer.close()


def start_dump(path: Path) -> subprocess.Popen[bytes]:
    arguments = [sys.executable, "-c", PROGRAM, "dump", str(path)]
    return subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_a_broken_pipe_is_no_error(tmp_path: Path) -> None:
    """``timevm log dump F | head -1``"""
    long_recording(tmp_path / "log")
    child = start_dump(tmp_path / "log")
    assert child.stdout is not None and child.stderr is not None
    assert child.stdout.readline().split() == [b"event", b"icount", b"kind", b"what"]
    child.stdout.close()
    assert child.wait(20) == 141
    assert child.stderr.read() == b""
    child.stderr.close()


def test_ctrl_c_ends_it_quietly(tmp_path: Path) -> None:
    long_recording(tmp_path / "log")
    child = start_dump(tmp_path / "log")
    assert child.stdout is not None
    child.stdout.readline()  # it is at work; the pipe is full before the end
    os.kill(child.pid, signal.SIGINT)
    _, err = child.communicate(timeout=20)
    assert child.returncode == 130
    assert err == b""
