"""A conversation with a monitor's process over QMP, the same for QEMU and for timevm."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.guests import bare

DEADLINE = 30
NEGOTIATE: dict[str, Any] = {"execute": "qmp_capabilities"}


@dataclass(frozen=True, slots=True)
class Send:
    """``data`` as it is (a dict becomes JSON), then wait for ``replies`` and, after those, for the events named."""

    data: str | dict[str, Any]
    replies: int = 1
    events: tuple[str, ...] = ()


def hmp(line: str, *events: str) -> Send:
    request = {"execute": "human-monitor-command", "arguments": {"command-line": line}}
    return Send(request, events=events)


def qmp(command: str, events: Sequence[str] = (), /, **arguments: Any) -> Send:
    request: dict[str, Any] = {"execute": command}
    if arguments:
        request["arguments"] = {key.replace("_", "-"): value for key, value in arguments.items()}
    return Send(request, events=tuple(events))


@dataclass(frozen=True, slots=True)
class Scenario:
    """``arguments`` of ``-system-ARCHITECTURE`` besides the QMP socket; ``files`` are made first (name → kind)."""

    steps: tuple[Send, ...]
    arguments: tuple[str, ...] = ()
    files: tuple[tuple[str, str], ...] = ()
    #: an earlier run that records what this one replays
    before: tuple[str, ...] = ()
    architecture: str = "aarch64"

    @property
    def guest(self) -> tuple[str, ...]:
        return _GUESTS[self.architecture]


_BARE = ("-m", "16", "-nodefaults", "-display", "none")
_GUESTS = {
    "aarch64": ("-M", "virt", "-cpu", "cortex-a57", *_BARE, "-kernel", "irq.elf"),
    "x86_64": ("-M", "pc", *_BARE),
    "i386": ("-M", "pc", *_BARE),
}


@dataclass
class Heard:
    """``replies`` of each step; ``events`` of the whole conversation, without their times."""

    greeting: Any
    replies: list[list[Any]] = field(default_factory=list)
    events: list[Any] = field(default_factory=list)


def prepare(scenario: Scenario, program: Sequence[str], folder: Path) -> None:
    shutil.copy(bare("irq"), folder / "irq.elf")
    for name, kind in scenario.files:
        if kind == "qcow2":
            subprocess.run(
                ["qemu-img", "create", "-q", "-f", "qcow2", str(folder / name), "4M"], check=True, timeout=DEADLINE
            )
    if scenario.before:
        _record([*program, *scenario.guest, *scenario.before], folder)


def _record(command: Sequence[str], folder: Path) -> None:
    """Until the guest has ticked."""
    process = subprocess.Popen(
        command, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        while not process.stdout.readline().startswith(b"tick 00000002"):
            assert process.poll() is None, f"it ended with {process.returncode}"
        process.terminate()
        process.communicate(timeout=DEADLINE)
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait(DEADLINE)


def converse(scenario: Scenario, program: Sequence[str], folder: Path) -> Heard:
    """Run ``program`` in ``folder`` and have the conversation."""
    prepare(scenario, program, folder)
    process = subprocess.Popen(
        [*program, *scenario.guest, *scenario.arguments, "-qmp", "unix:qmp,server=on,wait=off"],
        cwd=folder,
        stdin=subprocess.DEVNULL,
    )
    try:
        with _connected(folder / "qmp", process) as connection, connection.makefile("rwb") as stream:
            return _talk(scenario, stream)
    finally:
        process.kill()
        process.wait(DEADLINE)


def _connected(path: Path, process: subprocess.Popen[bytes]) -> socket.socket:
    deadline = time.monotonic() + DEADLINE
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(DEADLINE)
    while True:
        try:
            connection.connect(str(path))
        except OSError:
            assert process.poll() is None, f"it ended with {process.returncode}"
            assert time.monotonic() < deadline, "there never was a QMP socket"
            time.sleep(0.02)
        else:
            return connection


def _talk(scenario: Scenario, stream: Any) -> Heard:
    heard = Heard(json.loads(stream.readline()))
    for step in scenario.steps:
        data = step.data if isinstance(step.data, str) else json.dumps(step.data)
        stream.write(data.encode(errors="surrogateescape"))
        stream.flush()
        replies: list[Any] = []
        missing = list(step.events)
        while len(replies) < step.replies or missing:
            line = stream.readline()
            assert line, f"the conversation broke off at {step}: {replies}"
            message = json.loads(line)
            if "event" in message:
                del message["timestamp"]
                heard.events.append(message)
                if message["event"] in missing:
                    missing.remove(message["event"])
            else:
                replies.append(message)
        heard.replies.append(replies)
    return heard


#: what differs from run to run: pattern → what stands for it
_VOLATILE = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "DATE"),
    (re.compile(r"thread_id=\d+"), "thread_id=N"),
    (re.compile(r" +[\d.]+ [KM]iB DATE"), " SIZE DATE"),
)
_VOLATILE_KEYS = {"thread-id": 0, "date-sec": 0, "date-nsec": 0, "actual-size": 0, "vm-state-size": 0}


def steady(value: Any) -> Any:
    """``value`` without what no two runs have in common."""
    if isinstance(value, dict):
        return {key: _VOLATILE_KEYS.get(key, steady(content)) for key, content in value.items()}
    if isinstance(value, list):
        return [steady(content) for content in value]
    if isinstance(value, str):
        for pattern, stands_for in _VOLATILE:
            value = pattern.sub(stands_for, value)
    return value
