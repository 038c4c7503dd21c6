"""Debian with a network card, recorded beside a real server, replayed when that is gone.

QEMU 7.2's replay of a recorded ``virtio-net-device`` hangs on arm64 (three of three): these do not.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.timeline.guests import replay as travel_in
from tests.engine.timeline.test_look_back import Places
from tests.engine.timeline.test_timeline import Waiter
from tests.linux.harness import Outcome, assert_same, replay
from tests.linux.networking import (
    Session,
    around,
    frames_of,
    http_server,
    links_of,
    networked,
    record_networked,
    with_card,
)
from tests.linux.test_bare_irq import random_limits
from tests.linux.test_riscv_debian import linux_riscv
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.outcome import ReplayMode
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay.events import Event, NetworkInput
from timevm.engine.snapshot.checkpoints import Checkpoints
from timevm.engine.timeline.look_back import LookBack
from timevm.engine.timeline.timeline import Timeline
from timevm.engine.timeline.track import MachineTrack
from timevm.errors import RecordingError
from timevm.network.settings import Forward, UserSettings

pytestmark = [pytest.mark.linux, pytest.mark.timeout(900)]

BODY = random.Random(13).randbytes(400_000)
MODERN = (("virtio-mmio.force-legacy", "off"),)


@pytest.fixture(scope="module", params=["virtio-net-device", "virtio-net-pci", "rtl8139"])
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[MachineSpec, Outcome]:
    """A page of 400 000 bytes fetched from the host's own server; that is gone when the replays begin."""
    path = tmp_path_factory.mktemp("network") / "net.rr"
    with http_server(BODY) as (port, asked):
        spec = networked(request.param, "net,off", path, port)
        outcome = asyncio.run(record_networked(spec))
    assert asked == ["/"]
    check_fetched(outcome, BODY)
    assert len(frames_of(path)) > len(BODY) // 1460
    return spec, outcome


def check_fetched(outcome: Outcome, body: bytes) -> None:
    assert b"TIMEVM-GUEST net eth0 52:54:00:12:34:56 10.0.2.15" in outcome.console, outcome.console
    fetched = f"TIMEVM-GUEST net wget {len(body)} bytes md5 {hashlib.md5(body).hexdigest()}"
    assert fetched.encode() in outcome.console, outcome.console


def test_it_replays_with_the_server_gone(
    recorded: tuple[MachineSpec, Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three times, and without a socket of the host."""
    spec, outcome = recorded

    def refuse(*arguments: object) -> None:
        raise AssertionError("a replay asked the host for a socket")

    monkeypatch.setattr(socket, "socket", refuse)
    for _ in range(3):
        assert_same(outcome, replay(spec))


def test_it_replays_in_slices(recorded: tuple[MachineSpec, Outcome]) -> None:
    """Random ones, and dense ones around the arrival of frames."""
    spec, outcome = recorded
    generator = random.Random(7)
    assert_same(outcome, replay(spec, random_limits(generator, 1, 20_000_000)))
    assert spec.rrfile is not None
    places = generator.sample(frames_of(spec.rrfile), 40)
    assert_same(outcome, replay(spec, around(places, generator)))


def test_one_steps_back_across_a_frame(recorded: tuple[MachineSpec, Outcome]) -> None:
    """Before its arrival the card's rings, the RAM and the CPU are what they were, each time."""
    spec, outcome = recorded
    assert spec.rrfile is not None
    frames = frames_of(spec.rrfile)
    travel = travel_in(spec, budget=None)
    for place in (frames[0], frames[len(frames) // 2], frames[-1]):
        seen = {}
        travel.timeline.seek(place - 3, Waiter())
        for icount in range(place - 3, place + 4):
            travel.timeline.run(icount)
            seen[icount] = travel.machine.digest(), travel.machine.now_ns()
        assert len({digest.devices for digest, _ in seen.values()}) > 1, "nothing arrived"
        for icount in range(place + 2, place - 4, -1):
            travel.timeline.reverse_step(1, Waiter())
            assert travel.machine.icount == icount
            assert (travel.machine.digest(), travel.machine.now_ns()) == seen[icount]
        travel.timeline.run(place + 3)
        assert (travel.machine.digest(), travel.machine.now_ns()) == seen[place + 3]
    travel.timeline.seek(outcome.icount, Waiter())
    assert travel.machine.digest() == outcome.digest
    travel.machine.close()


def test_a_restored_machine_goes_on_with_its_network(recorded: tuple[MachineSpec, Outcome]) -> None:
    """A state record in the midst of the transfer, put back into the same machine much later."""
    spec, outcome = recorded
    assert spec.rrfile is not None
    frames = frames_of(spec.rrfile)
    travel = travel_in(spec, budget=None)
    middle = frames[len(frames) // 3]
    travel.timeline.seek(middle, Waiter())
    before = travel.machine.digest()
    travel.timeline.seek(frames[-1], Waiter())
    travel.timeline.seek(middle, Waiter())
    assert travel.machine.digest() == before
    travel.timeline.run(1 << 60)
    assert travel.machine.icount == outcome.icount and travel.machine.digest() == outcome.digest
    travel.machine.close()


def test_another_card_is_refused_by_name(recorded: tuple[MachineSpec, Outcome]) -> None:
    spec, _ = recorded
    [card] = spec.devices
    with pytest.raises(RecordingError, match=f"devices: recorded with {card.driver}, now none"):
        replay(replace(spec, devices=()))
    other = replace(card, properties=(*card.properties, ("mac", "52:54:00:00:00:07")))
    with pytest.raises(RecordingError, match=r"devices: recorded with .*, now .*mac=52:54:00:00:00:07"):
        replay(replace(spec, devices=(other,)))


@pytest.mark.parametrize("modern", [False, True], ids=["legacy", "modern"])
async def test_either_interface_with_and_without_sleep(tmp_path: Path, modern: bool) -> None:
    """Where an idle machine's time jumps, an answer of the host's takes none of it: nothing times out."""
    with http_server(BODY) as (port, _):
        spec = networked("virtio-net-device", "net,off", tmp_path / "net.rr", port)
        spec = replace(spec, sleep=modern, machine_properties=MODERN if modern else ())
        outcome = await record_networked(spec)
    check_fetched(outcome, BODY)
    assert_same(outcome, replay(spec))


async def test_riscv_too(tmp_path: Path) -> None:
    with http_server(BODY) as (port, _):
        spec = with_card(linux_riscv("net,off", tmp_path / "net.rr"), "virtio-net-device", port)
        outcome = await record_networked(spec)
    check_fetched(outcome, BODY)
    assert_same(outcome, replay(spec))
    assert_same(outcome, replay(spec, random_limits(random.Random(2), 1, 20_000_000)))


async def test_nobody_answers(tmp_path: Path) -> None:
    """A server that is not there refuses; the replay has the same failure."""
    with http_server(b"") as (port, _):
        pass
    spec = networked("virtio-net-device", "net,off", tmp_path / "net.rr", port)
    outcome = await record_networked(spec)
    assert b"TIMEVM-GUEST net wget failed" in outcome.console
    assert_same(outcome, replay(spec))


@pytest.mark.parametrize("driver", ["virtio-net-device", "virtio-net-pci", "rtl8139"])
async def test_the_host_reaches_the_guest(tmp_path: Path, driver: str) -> None:
    """A port forwarded to the guest's own web server; what was asked and answered is in the replay."""
    answers = []

    async def fetch(session: Session, path: str) -> bytes:
        reader, writer = await asyncio.open_connection(*session.links.listens(0)[0])
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = await asyncio.wait_for(reader.read(), 60)
        writer.close()
        assert answer.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")), answer[:100]
        return answer.partition(b"\r\n\r\n")[2]

    async def visitor(session: Session) -> None:
        await session.shows(b"TIMEVM-GUEST shell")
        session.type(b"mkdir /www; cp /bin/busybox /www/big; echo the page > /www/page; httpd -f -h /www & \n")
        session.type(b"echo ser''ving $(md5sum < /www/big)\n")
        await session.shows(b"serving ")
        for _ in range(3):
            answers.append(await fetch(session, "/page"))
        answers.append(await fetch(session, "/big"))
        session.type(b"exit\n")

    with http_server(b"") as (port, _):
        spec = networked(driver, "net,shell,off", tmp_path / "net.rr", port)
        settings = UserSettings(forwards=(Forward.parse("tcp::0-:80"),))
        outcome = await record_networked(spec, settings, visitor)
    assert answers[:3] == [b"the page\n"] * 3 and len(answers[3]) > 500_000
    assert f"serving {hashlib.md5(answers[3]).hexdigest()}".encode() in outcome.console
    assert_same(outcome, replay(spec))


async def test_a_guest_asks_for_its_address(tmp_path: Path) -> None:
    """busybox's own DHCP client and ping, beside what the unit tests speak."""

    async def user(session: Session) -> None:
        await session.shows(b"TIMEVM-GUEST shell")
        session.type(b"printf '#!/bin/sh\\necho le''ase $1 $ip $router $dns $subnet\\n' > /s; chmod 755 /s\n")
        session.type(b"udhcpc -i eth0 -n -q -s /s; ping -c 3 10.0.2.2; ping -c 3 10.0.2.3; echo do''ne; exit\n")

    with http_server(b"") as (port, _):
        spec = networked("virtio-net-device", "net,shell,off", tmp_path / "net.rr", port)
        outcome = await record_networked(spec, somebody=user)
    assert b"lease bound 10.0.2.15 10.0.2.2 10.0.2.3 255.255.255.0" in outcome.console, outcome.console
    assert outcome.console.count(b"3 packets received, 0% packet loss") == 2
    assert_same(outcome, replay(spec))


async def test_one_looks_back_in_the_midst_of_a_transfer(tmp_path: Path) -> None:
    """The recording becomes its own replay: the network ends there, and the machine goes back and forth without."""
    with http_server(BODY) as (port, _):
        spec = networked("virtio-net-device", "net,off", tmp_path / "net.rr", port)
        links = links_of(spec)
        await links.open()
        machine = build_machine(spec, lambda port, data: None, send_frame=links.transmit)
        links.attend(machine)
        checkpoints = Checkpoints(machine, None)
        track = MachineTrack(machine, checkpoints, traces=False)
        timeline = Timeline(track)
        turn = LookBack(machine, checkpoints, track, timeline, Places())
        frames: list[int] = []

        def count(icount: int, event: Event) -> None:
            if isinstance(event, NetworkInput):
                frames.append(icount)

        def half() -> None:
            machine.trace = count
            while len(frames) < 100:
                timeline.run(machine.icount + 100_000)
            machine.trace = None
            turn.look_back()

        await asyncio.to_thread(half)
        end, digest = machine.icount, machine.digest()
        assert machine.mode is ReplayMode.PLAY and machine.end == end
        for _ in range(200):  # what the server still says is not for the guest
            await asyncio.sleep(0.01)
        assert machine.gate.frames_waiting(0) == 0
    timeline.seek(frames[-1], Waiter())
    timeline.reverse_step(1, Waiter())
    assert machine.icount == frames[-1] - 1
    timeline.run(end)
    assert machine.digest() == digest
    machine.close()
    await links.close()
