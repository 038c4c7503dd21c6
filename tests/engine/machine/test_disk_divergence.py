"""Recordings that are not of this guest's disk requests: a divergence, named with the request."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.guests import bare
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.spec import MIB, DeviceOption, Drive, MachineSpec
from timevm.engine.replay.events import BlockCompletion, End
from timevm.engine.replay.opening import create_recording, open_recording
from timevm.errors import RecordingError, ReplayDivergence


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    create_image(tmp_path / "disk.qcow2", CreateOptions(4 * MIB))
    return MachineSpec(
        kernel=bare("disk"),
        ram_bytes=16 * MIB,
        sleep=False,
        shift=3,
        mode="record",
        rrfile=tmp_path / "run.rr",
        drives=(
            Drive("direct", tmp_path / "disk.qcow2", snapshot=True),
            Drive("disk", driver="blkreplay", image="direct"),
        ),
        devices=(DeviceOption("virtio-blk-device", None, (("drive", "disk"),)),),
    )


def replay_of(spec: MachineSpec, *events: tuple[int, BlockCompletion]) -> None:
    """A recording with just these, replayed."""
    recorded = build_machine(spec, lambda port, data: None)
    recorded.close()
    assert spec.rrfile is not None
    reader = open_recording(spec.rrfile)
    identity = reader.identity
    reader.close()
    writer = create_recording(spec.rrfile, identity)
    for icount, event in events:
        writer.append(icount, event)
    writer.append(10_000_000, End("quit"))
    writer.close()
    machine = build_machine(replace(spec, mode="play"), lambda port, data: None)
    try:
        machine.run(20_000_000)
    finally:
        machine.close()


def test_a_request_that_was_not_made(spec: MachineSpec) -> None:
    with pytest.raises(
        ReplayDivergence, match="request 5 of the disk 'disk' is done, but the guest has none such"
    ) as no:
        replay_of(spec, (500, BlockCompletion(0, 5)))
    assert (no.value.first, no.value.last) == (0, 500)


def test_a_disk_that_is_not_there(spec: MachineSpec) -> None:
    with pytest.raises(RecordingError, match="a request of disk number 7, of 1 that are there"):
        replay_of(spec, (500, BlockCompletion(7, 0)))


def test_a_request_that_is_never_done(spec: MachineSpec) -> None:
    """The guest waits for its first one, in the recording it went on to another event."""
    with pytest.raises(ReplayDivergence, match="the CPU waits at instruction"):
        replay_of(spec)
