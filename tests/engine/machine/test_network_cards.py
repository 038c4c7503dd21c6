"""Network cards of the command line, and frames for machines that have them or have not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.devices.test_virtio_net import a_frame
from tests.engine.machine.pc_guests import kernel
from tests.engine.machine.test_pc import HELLO, pc
from tests.linux.harness import bare_guest
from timevm.engine.devices.pci_function import PciFunction
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.network_cards import Cables, plan_cards
from timevm.engine.machine.spec import DeviceOption, MachineSpec
from timevm.engine.replay.events import Event, NetworkInput
from timevm.engine.replay.opening import create_recording, open_recording
from timevm.engine.replay.replay_gate import LiveInputRefused
from timevm.errors import RecordingError, UserError

CARD = DeviceOption("virtio-net-device")


def machine_of(spec: MachineSpec) -> Machine:
    return build_machine(spec, lambda port, data: None)


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    return replace(bare_guest("irq", tmp_path / "run.rr"), devices=(CARD,))


def test_names_and_addresses_are_qemus() -> None:
    options = (
        CARD,
        DeviceOption("virtio-blk-device", None, (("drive", "d"),)),
        DeviceOption("virtio-net-device", "mine", (("netdev", "n1"), ("mac", "52:54:00:12:34:57"))),
        DeviceOption("virtio-net-device"),
        DeviceOption("rtl8139", None, (("mac", "02-00-00-00-00-AB"),)),
    )
    plans = plan_cards(MachineSpec(devices=options))
    assert [plan.name for plan in plans] == ["virtio-net-device.0", "mine", "virtio-net-device.2", "rtl8139.0"]
    assert [plan.address.hex(":") for plan in plans] == [
        "52:54:00:12:34:56",
        "52:54:00:12:34:57",
        "52:54:00:12:34:58",
        "02:00:00:00:00:ab",
    ]
    assert [plan.netdev for plan in plans] == [None, "n1", None, None]
    assert [plan.number for plan in plans] == [0, 1, 2, 3]


@pytest.mark.parametrize("address", ["52:54", "zz:54:00:12:34:56", "53:54:00:12:34:56", "52:54:00:12:34:56:78", ""])
def test_what_is_no_cards_address(address: str) -> None:
    with pytest.raises(UserError, match=f"-device rtl8139,mac={address}: "):
        plan_cards(MachineSpec(devices=(DeviceOption("rtl8139", None, (("mac", address),)),)))


@pytest.mark.parametrize(("architecture", "driver"), [("aarch64", "virtio-net-device"), ("x86_64", "rtl8139")])
def test_a_property_that_is_none_is_refused(architecture: str, driver: str, spec: MachineSpec) -> None:
    board = "virt" if architecture == "aarch64" else "pc"
    devices = (DeviceOption(driver, None, (("colour", "red"),)),)
    cpu = "cortex-a57" if board == "virt" else "qemu64"
    changed = replace(spec, architecture=architecture, machine=board, cpu=cpu, devices=devices)
    with pytest.raises(UserError, match=f"-device {driver}: Property '{driver}.colour' not found"):
        machine_of(changed)


def test_cards_of_a_pc_go_where_they_are_told(tmp_path: Path) -> None:
    devices = (
        DeviceOption("rtl8139", "first"),
        DeviceOption("virtio-net-pci", "second"),
        DeviceOption("rtl8139", "third", (("addr", "0x2"),)),
        DeviceOption("virtio-net-pci", "fourth", (("addr", "7"),)),
    )
    machine = machine_of(pc(kernel(HELLO, tmp_path / "kernel"), devices=devices))
    found = [device.name for device in machine._board.devices.values() if isinstance(device, PciFunction)]
    assert found[-4:] == ["third", "first", "second", "fourth"]
    machine.close()


def test_a_frame_before_there_is_a_driver_is_recorded_and_lost(spec: MachineSpec) -> None:
    events: list[tuple[int, Event]] = []
    machine = machine_of(spec)
    machine.trace = lambda icount, event: events.append((icount, event))
    machine.run(5_000)
    machine.inject(NetworkInput(0, a_frame(100)))
    machine.run(40_000)
    assert events == [(5_000, NetworkInput(0, a_frame(100)))] and machine.gate.frames_waiting(0) == 0
    digest = machine.digest()
    machine.finish("quit")
    machine.close()
    again = machine_of(replace(spec, mode="play"))
    again.trace = lambda icount, event: events.append((icount, event))
    again.run(40_000)
    assert events[0] == events[1] and again.digest() == digest
    with pytest.raises(LiveInputRefused, match=r"NetworkInput refused"):
        again.inject(NetworkInput(0, a_frame()))
    again.close()


def test_what_the_guest_sends_goes_nowhere_in_a_replay(spec: MachineSpec) -> None:
    sent: list[tuple[int, bytes]] = []
    for mode in ("record", "play"):
        machine = build_machine(
            replace(spec, mode=mode),
            lambda port, data: None,
            send_frame=lambda card, frame: sent.append((card, frame)),
        )
        machine.run(1000)
        machine.cables.cables[0].send(b"frame")
        machine.close()
    assert sent == [(0, b"frame")]


def test_a_card_that_is_not_there(spec: MachineSpec) -> None:
    machine_of(spec).close()
    assert spec.rrfile is not None
    reader = open_recording(spec.rrfile)
    identity = reader.identity
    reader.close()
    writer = create_recording(spec.rrfile, identity)
    writer.append(500, NetworkInput(7, a_frame()))
    writer.close()
    machine = machine_of(replace(spec, mode="play"))
    with pytest.raises(RecordingError, match="a frame for network card number 7, of 1 that are there"):
        machine.run(1000)
    machine.close()


def test_cables_belong_to_options_not_to_what_they_say() -> None:
    twins = (DeviceOption("virtio-net-device"), DeviceOption("virtio-net-device"))
    cables = Cables.of(MachineSpec(devices=twins))
    assert [cables.of_device(option) for option in twins] == list(cables.cables)
