"""Networks of the real program: what ``info network`` says, forwarded ports, a replay that asks the host for none."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from tests.daemon import Daemon, irq_guest, run

CARD = ["-netdev", "user,id=n0", "-device", "virtio-net-device,netdev=n0"]


@pytest.fixture
def port() -> int:
    """One that nobody has at the moment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        found: int = free.getsockname()[1]
        return found


def forwarded(port: int) -> list[str]:
    return ["-netdev", f"user,id=n0,hostfwd=tcp::{port}-:22", "-device", "virtio-net-device,netdev=n0"]


async def test_info_network_is_qemus(tmp_path: Path) -> None:
    """QEMU 7.2's words for the same command line."""
    daemon = Daemon(
        [
            *irq_guest(), "-S", "-serial", "none", "-monitor", "stdio", *CARD,
            "-netdev", "user,id=n1,restrict=on,net=10.9.0.0/24", "-object", "filter-replay,id=fr,netdev=n0",
            "-device", "virtio-net-device,id=card,mac=52:54:00:00:00:01",
        ],
        tmp_path,
    )  # fmt: skip
    daemon.type(b"info network\n")
    await daemon.shows(b"00:00:01")
    daemon.type(b"quit\n")
    assert await daemon.ends() == 0
    shown = daemon.output.decode().replace("\r", "")
    assert (
        "n1: index=0,type=user,net=10.9.0.0,restrict=on\n"
        "virtio-net-device.0: index=0,type=nic,model=virtio-net-device,macaddr=52:54:00:12:34:56\n"
        " \\ n0: index=0,type=user,net=10.0.2.0,restrict=off\n"
        "filters:\n"
        "  - fr: type=filter-replay,position=tail,status=on,insert=behind,netdev=n0,queue=all\n"
        "card: index=0,type=nic,model=virtio-net-device,macaddr=52:54:00:00:00:01\n"
    ) in shown
    assert "warning: netdev n1 has no peer" in daemon.errors
    assert "warning: nic card has no peer" in daemon.errors


async def test_ports_are_forwarded_at_run_time(tmp_path: Path, port: int) -> None:
    """In QEMU's words."""
    daemon = Daemon([*irq_guest(), "-S", "-serial", "none", "-monitor", "stdio", *CARD], tmp_path)
    rule = f"tcp::{port}-:22"
    said = 1

    async def ask(line: str, answer: str) -> None:
        nonlocal said
        daemon.type(f"{line}\nprint {said}\n".encode())  # an answer of nothing is one, too
        await daemon.shows(f"(timevm) {answer}(timevm) {said:#x}\r\n".encode())
        said += 1

    await ask(f"hostfwd_add {rule}", "")
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.close()
    await ask(f"hostfwd_add n0 {rule}", f"Could not set up host forwarding rule '{rule}': Address already in use\r\n")
    await ask(f"hostfwd_add foo {rule}", "unrecognized netdev id 'foo'\r\n")
    await ask("hostfwd_add x", "Invalid host forwarding rule 'x' (No : separators)\r\n")
    await ask("hostfwd_remove x", "invalid format\r\n")
    await ask(f"hostfwd_remove tcp::{port}", f"host forwarding rule for tcp::{port} removed\r\n")
    await ask(f"hostfwd_remove n0 tcp::{port}", f"host forwarding rule for tcp::{port} not found\r\n")
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    await ask(f"hostfwd_add udp::{port}-:53", "")
    await ask(f"hostfwd_remove udp:127.0.0.1:{port}", f"host forwarding rule for udp:127.0.0.1:{port} removed\r\n")
    daemon.type(b"quit\n")
    assert await daemon.ends() == 0


async def test_without_a_network_no_port_is_forwarded(tmp_path: Path) -> None:
    daemon = Daemon([*irq_guest(), "-S", "-serial", "none", "-monitor", "stdio"], tmp_path)
    daemon.type(b"hostfwd_add tcp::1-:2\n")
    await daemon.shows(b"user mode network stack not in use\r\n")
    daemon.type(b"quit\n")
    assert await daemon.ends() == 0


async def test_a_forwarded_port_is_open_while_the_machine_is_there(tmp_path: Path, port: int) -> None:
    daemon = Daemon([*irq_guest(), "-serial", "stdio", *forwarded(port)], tmp_path)
    await daemon.shows(b"irq ready")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"hello")
    daemon.type(b"q")  # the guest has no driver: nobody answers
    assert await daemon.ends() == 0
    with suppress(ConnectionError):  # the end or a reset, as the host likes
        assert await reader.read() == b""
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


def test_a_port_that_is_taken_ends_it_before_the_recording(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run(
            [*irq_guest(), *forwarded(port), "-icount", "shift=3,rr=record,rrfile=run.rr", "-serial", "none"],
            cwd=tmp_path,
        )
    assert done.returncode == 1 and not (tmp_path / "run.rr").exists()
    [line] = done.stderr.decode().splitlines()
    assert f"-netdev user,id=n0: Could not set up host forwarding rule 'tcp::{port}-:22': Address already" in line


def test_a_replay_has_no_use_for_the_hosts_ports(tmp_path: Path, port: int) -> None:
    """They may be taken; and a card is part of the machine that is recorded."""
    done = run(
        [*irq_guest(), *forwarded(port), "-icount", "shift=3,rr=record,rrfile=run.rr", "-serial", "stdio"],
        typed=b"aq",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done
    replay = ["-icount", "shift=3,rr=replay,rrfile=run.rr", "-serial", "stdio"]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        taken.listen()
        again = run([*irq_guest(), *forwarded(port), *replay], cwd=tmp_path)
        assert again.returncode == 0 and again.stdout == done.stdout, again
    other = run([*irq_guest(), *replay], cwd=tmp_path)
    assert other.returncode == 1
    assert b"devices: recorded with virtio-net-device, now none" in other.stderr
