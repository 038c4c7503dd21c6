"""Whether a machine is live, recorded or replayed: the gate is chosen here, once, with what the spec left open."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

import xxhash

from timevm.engine.machine.images import File, Images
from timevm.engine.machine.outcome import ReplayMode
from timevm.engine.machine.spec import DeviceOption, LoaderData, MachineSpec
from timevm.engine.replay.build import Build
from timevm.engine.replay.gate import Gate
from timevm.engine.replay.identity import SEED_BYTES, Identity
from timevm.engine.replay.live_gate import LiveGate
from timevm.engine.replay.opening import check_same_build, check_same_machine, create_recording, open_recording
from timevm.engine.replay.record_gate import RecordGate
from timevm.engine.replay.replay_gate import ReplayGate
from timevm.errors import InternalError

_log = logging.getLogger(__name__)

#: properties of ``-device`` that name something on the host: they may be others in a replay
_HOST_SIDE = {"id", "drive", "netdev", "rng", "chardev"}


@dataclass(frozen=True, slots=True)
class Admission:
    """Who the machine is (in a replay the recorded one), and its gate.

    ``recognized`` comes when the machine is put together.  ``open_gate`` creates the recording: called when everything
    else is there, so that a machine that cannot be built leaves no file behind.  ``abandon`` is called instead when it
    cannot.
    """

    identity: Identity
    mode: ReplayMode
    begin: Callable[[Identity], Gate]
    abandon: Callable[[], None] = lambda: None
    filename: str | None = None
    #: replaying: icount of the recording's end
    end: int | None = None
    #: None: nothing is known already of what the machine is made of.  Raises RecordingError: of something else
    check_build: Callable[[Build], bool] | None = None

    def recognized(self, build: Build) -> Admission:
        """With the identity of a machine that was made of that.  Raises RecordingError."""
        if self.check_build is None:
            return replace(self, identity=replace(self.identity, build=build))
        if not self.check_build(build):
            _log.warning(
                "the recording %s does not say of what its machine was made (an older timevm recorded it): "
                "if the replay differs, that may be why",
                self.filename,
            )
        return self

    def open_gate(self) -> Gate:
        return self.begin(self.identity)


#: opens the disks, given the digests that a recording has of them; gives theirs
FindDisks = Callable[[Mapping[str, str] | None], tuple[tuple[str, str], ...]]


def _no_disks(recorded: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
    return ()


def identity_of(spec: MachineSpec, images: Images, auto_shift: int) -> Identity:
    """What the spec leaves open is decided: shift, date, seed."""

    def digest(file: File | None) -> str | None:
        return None if file is None else file.digest

    seed = os.urandom(SEED_BYTES) if spec.seed is None else spec.seed.to_bytes(SEED_BYTES, "little", signed=True)
    files = iter(images.loaded)
    loaders = []
    for loader in spec.loaders:
        if isinstance(loader, LoaderData):
            what = "start" if loader.sets_pc else "value"
            loaders.append((f"{what} at {loader.address:#x}", xxhash.xxh3_128_hexdigest(loader.data)))
        else:
            where = "" if loader.address is None else f" at {loader.address:#x}"
            how = (", as it is" if loader.raw else "") + (", started" if loader.sets_pc else "")
            loaders.append((f"{loader.path.name}{where}{how}", next(files).digest))
    if images.bios is not None:
        loaders.append(("firmware", images.bios.digest))
    return Identity(
        machine=spec.machine,
        cpu=spec.cpu,
        ram_bytes=spec.ram_bytes,
        shift=auto_shift if spec.shift is None else spec.shift,
        rtc_base_seconds=int(time.time()) if spec.rtc_base is None else spec.rtc_base,
        seed=seed,
        kernel=digest(images.kernel),
        initrd=digest(images.initrd),
        dtb=digest(images.dtb),
        append=spec.append,
        loaders=tuple(loaders),
        devices=devices_of(spec),
    )


def devices_of(spec: MachineSpec) -> tuple[str, ...]:
    """What the guest sees of ``-device`` and ``-serial``: not who on the host stands behind it."""

    def shown(device: DeviceOption) -> str:
        return ",".join(
            [device.driver, *(f"{key}={value}" for key, value in device.properties if key not in _HOST_SIDE)]
        )

    serial = () if spec.serial_ports == 1 else (f"{spec.serial_ports} serial ports",)
    properties = (f"{key}={value}" for key, value in spec.machine_properties)
    return (*serial, *properties, *map(shown, spec.devices))


def admit(spec: MachineSpec, identity: Identity, find_disks: FindDisks = _no_disks) -> Admission:
    """Opens the recording that is to be replayed, and the disks: which ones they are may depend on it.

    Raises RecordingError, UserError, HostError; ``open_gate`` HostError, RecordingError.
    """
    if spec.mode == "none":
        find_disks(None)
        return Admission(identity, ReplayMode.NONE, lambda identity: LiveGate(sleep=spec.sleep))
    path = spec.rrfile
    if path is None:
        raise InternalError("a recording has no file")
    if spec.mode == "record":
        identity = replace(identity, disks=find_disks(None))

        def begin(identity: Identity) -> Gate:
            return RecordGate(create_recording(path, identity), sleep=spec.sleep)

        return Admission(identity, ReplayMode.RECORD, begin, filename=str(path))
    reader = open_recording(path)
    now = identity.replaying(
        reader.identity, keep_shift=spec.shift is not None, keep_rtc_base=spec.rtc_base is not None
    )
    try:
        now = replace(now, disks=find_disks(dict(reader.identity.disks)), build=reader.identity.build)
        check_same_machine(reader, now)
    except BaseException:
        reader.close()
        raise
    return Admission(
        now,
        ReplayMode.PLAY,
        lambda identity: ReplayGate(reader),
        reader.close,
        str(path),
        reader.end_icount,
        partial(check_same_build, reader),
    )
