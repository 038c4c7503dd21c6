"""The real program as a subprocess, for tests: started, talked to over QMP by the PyPI client, waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from qemu.qmp import ConnectError, QMPClient

from tests.guests import bare

DEADLINE = 60
#: of a recording run.rr in the folder
RECORD = ["-icount", "shift=3,rr=record,rrfile=run.rr"]
REPLAY = ["-icount", "shift=3,rr=replay,rrfile=run.rr"]
QMP = ["-qmp", "unix:qmp,server=on,wait=off"]
_MAIN = "import sys; from timevm.cli import {entry}; sys.exit({entry}())"


def irq_guest(*, ram: int = 16) -> list[str]:
    """The interrupt guest with nothing that was not asked for."""
    return ["-M", "virt", "-m", str(ram), "-kernel", str(bare("irq")), "-nodefaults", "-display", "none"]


def command(arguments: Sequence[str], entry: str = "main_system_aarch64") -> list[str]:
    return [sys.executable, "-c", _MAIN.format(entry=entry), *arguments]


def run(
    arguments: Sequence[str], entry: str = "main_system_aarch64", *, typed: bytes | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """To its end, with standard input ``typed`` (None: empty)."""
    return subprocess.run(
        command(arguments, entry), input=typed or b"", capture_output=True, timeout=DEADLINE, check=False, cwd=cwd
    )


def verify(path: Path) -> None:
    """By ``timevm log verify``."""
    checked = run(["log", "verify", str(path)], "main")
    assert checked.returncode == 0, checked


def recorded(folder: Path, typed: bytes = b"abq") -> bytes:
    """A short recording ``run.rr``; its console."""
    done = run([*irq_guest(), *RECORD, "-serial", "stdio"], typed=typed, cwd=folder)
    assert done.returncode == 0, done
    assert done.stdout.count(b"rx ") == len(typed) and b"bye " in done.stdout
    return done.stdout


def wait_for_end(pid: int) -> None:
    """Of a process that is nobody's child here."""
    deadline = time.monotonic() + DEADLINE
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} never ended"
        time.sleep(0.02)


class Daemon:
    """A running ``timevm-system-*``; ``output`` and ``errors`` are what it has printed so far.

    ``hangup``: what SIGHUP does when the program starts, ``default`` or ``ignore`` (as under nohup, where the tests
    may run themselves).
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        descriptors: Sequence[int] = (),
        entry: str = "main_system_aarch64",
        hangup: str = "default",
    ) -> None:
        folder.mkdir(exist_ok=True)
        self._files = [(folder / name).open("wb") for name in ("stdout", "stderr")]
        self._folder = folder
        self.process = subprocess.Popen(
            ["env", f"--{hangup}-signal=HUP", "PYTHONFAULTHANDLER=1", *command(arguments, entry)],
            stdin=subprocess.PIPE,
            stdout=self._files[0],
            stderr=self._files[1],
            cwd=folder,
            pass_fds=descriptors,
        )

    @property
    def output(self) -> bytes:
        return (self._folder / "stdout").read_bytes()

    @property
    def errors(self) -> str:
        return (self._folder / "stderr").read_text(errors="replace")

    def type(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for it, while the process lives."""
        deadline = time.monotonic() + DEADLINE
        while not condition():
            alive = self.process.poll() is None
            assert alive, f"it ended with {self.process.returncode} before {what}: {self.errors}"
            assert time.monotonic() < deadline, f"never: {what}; {self.output!r} {self.errors}"
            await asyncio.sleep(0.02)

    async def shows(self, text: bytes) -> None:
        await self.until(lambda: text in self.output, f"{text!r} was shown")

    async def ends(self) -> int:
        """Its exit code.  One that does not end shows what its threads are doing."""
        try:
            return await asyncio.to_thread(self.process.wait, DEADLINE)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGABRT)
            self.process.wait(DEADLINE)
            raise AssertionError(f"it never ended: {self.errors}") from None

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(DEADLINE)
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()
        for file in self._files:
            file.close()


@contextlib.asynccontextmanager
async def running(
    arguments: Sequence[str],
    folder: Path,
    descriptors: Sequence[int] = (),
    entry: str = "main_system_aarch64",
    hangup: str = "default",
) -> AsyncIterator[Daemon]:
    """``descriptors`` are inherited; ``hangup`` as in ``Daemon``."""
    daemon = Daemon(arguments, folder, descriptors, entry, hangup)
    try:
        yield daemon
    finally:
        daemon.close()


async def status(client: QMPClient, wanted: str) -> None:
    """Wait for the run state."""
    deadline = time.monotonic() + DEADLINE
    while True:
        answer: Any = await client.execute("query-status")
        if answer["status"] == wanted:
            return
        assert time.monotonic() < deadline, f"never {wanted}: {answer}"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def qmp(daemon: Daemon, path: Path) -> AsyncIterator[QMPClient]:
    """The PyPI client, connected."""
    await daemon.until(lambda: os.path.exists(path), f"there was a socket {path}")
    async with asyncio.timeout(DEADLINE):
        while True:
            client = QMPClient("test")
            try:
                await client.connect(str(path))
                break
            except ConnectError as failure:
                if not isinstance(failure.exc, ConnectionRefusedError):
                    raise
                await asyncio.sleep(0.01)  # the socket is bound, and is not listened at yet
    try:
        yield client
    finally:
        with contextlib.suppress(Exception):  # it may have lost its daemon
            await client.disconnect()
