"""A recording is of one machine: every way in which a replay would be of another is refused by name."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests.guests import bare
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.images import read_images
from timevm.engine.machine.outcome import ReplayMode
from timevm.engine.machine.recording import admit, identity_of
from timevm.engine.machine.spec import MIB, DeviceOption, Loader, LoaderData, MachineSpec
from timevm.engine.replay.live_gate import LiveGate
from timevm.errors import InternalError, RecordingError

SPARE = 0x4080_0000


def quiet(port: int, data: bytes) -> None:
    """Nobody listens to this guest."""


@pytest.fixture
def spec(tmp_path: Path) -> MachineSpec:
    """A machine with as much of everything as fits beside a bare guest."""
    (tmp_path / "blob").write_bytes(b"a blob")
    return MachineSpec(
        kernel=bare("irq"),
        ram_bytes=32 * MIB,
        append="one two",
        loaders=(Loader(tmp_path / "blob", SPARE), LoaderData(b"\1\2", SPARE + 0x100)),
        shift=3,
        rtc_base=1_000_000_000,
        mode="record",
        rrfile=tmp_path / "x.rr",
        sleep=False,
    )


def recorded(spec: MachineSpec) -> MachineSpec:
    """Its replay."""
    machine = build_machine(spec, quiet)
    machine.run(1000)
    machine.finish("quit")
    return replace(spec, mode="play")


def refusal(spec: MachineSpec) -> list[str]:
    """The lines behind the first one."""
    with pytest.raises(RecordingError) as caught:
        build_machine(spec, quiet)
    first, *lines = str(caught.value).splitlines()
    assert first == f"Replay: {spec.rrfile} is a recording of another machine:"
    return [line.strip() for line in lines]


def test_the_same_machine_is_admitted(spec: MachineSpec) -> None:
    play = recorded(spec)
    machine = build_machine(replace(play, shift=None, rtc_base=None, seed=99, sleep=True), quiet)
    assert machine.replay_info().mode is ReplayMode.PLAY
    assert (machine.identity.shift, machine.identity.rtc_base_seconds) == (3, 1_000_000_000)
    assert machine.run(1 << 60).icount == 1000
    machine.close()


def changed_file(spec: MachineSpec, name: str) -> Path:
    assert spec.rrfile is not None
    path = spec.rrfile.parent / name
    path.write_bytes(b"something else")
    return path


def other_kernel(spec: MachineSpec) -> MachineSpec:
    return replace(spec, kernel=bare("arm64"))


def other_blob(spec: MachineSpec) -> MachineSpec:
    changed_file(spec, "blob")
    return spec


def other_loader(spec: MachineSpec, **changes: object) -> MachineSpec:
    first, second = spec.loaders
    assert isinstance(first, Loader)
    return replace(spec, loaders=(replace(first, **changes), second))  # type: ignore[arg-type]


DIFFERENCES: list[tuple[str, Callable[[MachineSpec], MachineSpec], list[str]]] = [
    ("cpu", lambda spec: replace(spec, cpu="cortex-a53"), ["CPU model: recorded with cortex-a57, now cortex-a53"]),
    ("ram", lambda spec: replace(spec, ram_bytes=64 * MIB), ["RAM size: recorded with 32 MiB, now 64 MiB"]),
    ("append", lambda spec: replace(spec, append="one"), ["-append: recorded with 'one two', now 'one'"]),
    ("shift", lambda spec: replace(spec, shift=4), ["icount shift: recorded with 3, now 4"]),
    (
        "rtc",
        lambda spec: replace(spec, rtc_base=0),
        ["RTC base: recorded with 2001-09-09T01:46:40, now 1970-01-01T00:00:00"],
    ),
    ("kernel", other_kernel, ["kernel: recorded with the one with digest"]),
    ("no kernel", lambda spec: replace(spec, kernel=None), ["kernel: recorded with the one with digest"]),
    ("blob", other_blob, ["loaded file 'blob at 0x40800000': recorded with the one with digest"]),
    (
        "place",
        lambda spec: other_loader(spec, address=SPARE + 0x1000),
        [
            "loaded file 'blob at 0x40800000': recorded with",
            "loaded file 'blob at 0x40801000': recorded with none, now",
        ],
    ),
    ("raw", lambda spec: other_loader(spec, raw=True), ["loaded file 'blob at 0x40800000'", "0x40800000, as it is'"]),
    ("start", lambda spec: other_loader(spec, sets_pc=True), ["loaded file 'blob at 0x40800000'", ", started'"]),
    (
        "value",
        lambda spec: replace(spec, loaders=(spec.loaders[0], LoaderData(b"\1\3", SPARE + 0x100))),
        ["loaded file 'value at 0x40800100': recorded with the one with digest"],
    ),
    (
        "program counter",
        lambda spec: replace(spec, loaders=(*spec.loaders, LoaderData(b"", SPARE, sets_pc=True))),
        ["loaded file 'start at 0x40800000': recorded with none, now the one with digest"],
    ),
    (
        "devices",
        lambda spec: replace(spec, devices=(DeviceOption("virtio-rng-device", "rng0"),)),
        ["devices: recorded with none, now virtio-rng-device"],
    ),
]


@pytest.mark.parametrize(("change", "lines"), [pytest.param(*rest, id=name) for name, *rest in DIFFERENCES])
def test_one_difference(spec: MachineSpec, change: Callable[[MachineSpec], MachineSpec], lines: list[str]) -> None:
    found = refusal(change(recorded(spec)))
    assert len(found) == len(lines)
    assert all(wanted in line for wanted, line in zip(lines, found, strict=True)), found


def test_initrd_and_device_tree_and_disks_are_compared(spec: MachineSpec, tmp_path: Path) -> None:
    """Without a machine: a bare guest takes none of them."""
    files = {name: tmp_path / name for name in ("initrd", "dtb")}
    for path in files.values():
        path.write_bytes(b"before")
    full = replace(spec, initrd=files["initrd"], dtb=files["dtb"])
    disks = (("hd0", "digest before"),)
    admission = admit(full, identity_of(full, read_images(full), 1), lambda recorded: disks)
    admission.open_gate().close()
    for path in files.values():
        path.write_bytes(b"after")
    play = replace(full, mode="play")
    with pytest.raises(RecordingError) as caught:
        admit(play, identity_of(play, read_images(play), 1), lambda recorded: (("hd1", "digest"),))
    titles = [line.strip().split(":")[0] for line in str(caught.value).splitlines()[1:]]
    assert titles == ["initrd", "device tree", "disk 'hd0'", "disk 'hd1'"]


def test_every_difference_is_named_at_once(spec: MachineSpec) -> None:
    play = replace(
        recorded(spec), cpu="max", ram_bytes=16 * MIB, append="", shift=0, rtc_base=5, kernel=None, loaders=()
    )
    titles = [line.split(":")[0] for line in refusal(play)]
    assert titles == [
        "CPU model",
        "RAM size",
        "kernel",
        "-append",
        "icount shift",
        "RTC base",
        "loaded file 'blob at 0x40800000'",
        "loaded file 'value at 0x40800100'",
    ]


def test_a_refusal_leaves_the_recording_and_lets_it_go(spec: MachineSpec) -> None:
    play = recorded(spec)
    assert play.rrfile is not None
    before = play.rrfile.read_bytes()
    refusal(replace(play, cpu="max"))
    assert play.rrfile.read_bytes() == before
    recorded(spec)  # which nobody holds


def test_what_on_the_host_stands_behind_a_device_may_change(spec: MachineSpec) -> None:
    def devices(identifier: str, **properties: str) -> tuple[str, ...]:
        option = DeviceOption("virtio-blk-device", identifier, tuple(properties.items()))
        return identity_of(replace(spec, devices=(option,)), read_images(spec), 1).devices

    assert devices("a", drive="x", serial="S") == devices("b", drive="y", serial="S") == ("virtio-blk-device,serial=S",)
    assert devices("a", serial="T") != devices("a", serial="S")
    assert identity_of(replace(spec, serial_ports=2), read_images(spec), 1).devices == ("2 serial ports",)


def test_what_is_left_open_is_decided() -> None:
    before = int(time.time())
    spec = MachineSpec()
    one, other = (identity_of(spec, read_images(spec), 6) for _ in range(2))
    assert one.shift == 6 and before <= one.rtc_base_seconds <= time.time()
    assert one.seed != other.seed and len(one.seed) == 32
    fixed = [identity_of(replace(spec, seed=seed), read_images(spec), 6).seed for seed in (0, -5, 1 << 200)]
    assert len(set(fixed)) == 3 and all(len(seed) == 32 for seed in fixed)


def test_a_live_machine_records_nothing(tmp_path: Path) -> None:
    spec = MachineSpec()
    admission = admit(spec, identity_of(spec, read_images(spec), 1))
    gate = admission.open_gate()
    assert isinstance(gate, LiveGate) and admission.mode is ReplayMode.NONE
    with pytest.raises(InternalError):
        admit(replace(spec, mode="record"), identity_of(spec, read_images(spec), 1))
