"""From a MachineSpec to a machine before its first instruction."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from timevm.blkreplay.iothread import Worker
from timevm.engine.machine.assembly import Order
from timevm.engine.machine.boards import board_for
from timevm.engine.machine.dirty_pages import DirtyPages
from timevm.engine.machine.disks import Disks, open_disks
from timevm.engine.machine.fingerprint import fingerprint
from timevm.engine.machine.images import read_images
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.machine_digest import MachineDigest
from timevm.engine.machine.network_cards import Cables
from timevm.engine.machine.outcome import ReplayMode
from timevm.engine.machine.parts import Parts
from timevm.engine.machine.recording import admit, identity_of
from timevm.engine.machine.spec import MachineSpec
from timevm.errors import UserError


def _nowhere(card: int, frame: bytes) -> None:
    """Where frames go when no network is there."""


def build_machine(
    spec: MachineSpec,
    transmit: Callable[[int, bytes], None],
    workers: Callable[[str], Worker] | None = None,
    send_frame: Callable[[int, bytes], None] = _nowhere,
) -> Machine:
    """``transmit(port, data)`` gets the guest's serial output, on the CPU thread; ``send_frame(card, frame)`` what its
    network cards send, unless it is replayed.

    ``workers``: disk's name → who carries out its I/O, by default one thread for all.
    Raises UserError, HostError, RecordingError; in that case no recording was begun.
    """
    board = board_for(spec.architecture, spec.machine)
    spec = board.with_firmware(spec)
    images = read_images(spec)
    disks, cables = Disks(), Cables.of(spec)

    def find_disks(recorded: Mapping[str, str] | None) -> tuple[tuple[str, str], ...]:
        nonlocal disks
        disks = open_disks(spec, recorded, workers)
        return disks.digests

    try:
        admission = admit(spec, identity_of(spec, images, board.auto_shift), find_disks)
    except BaseException:
        disks.abandon()
        raise
    identity = admission.identity
    try:
        assembly = board.assemble(
            Order(spec, images, identity.shift, identity.rtc_base_seconds, identity.seed, transmit, disks, cables)
        )
        made = fingerprint(assembly)
        admission = admission.recognized(made.whole)
        dirty = DirtyPages(assembly.ram)
        digest = MachineDigest(assembly.ram, dirty)
        if admission.mode is not ReplayMode.NONE:
            digest.watch()
        gate = admission.open_gate()
        disks.settle()
    except BaseException:
        admission.abandon()
        disks.abandon()
        raise
    return Machine(
        Parts(
            name=spec.machine,
            board=assembly,
            gate=gate,
            identity=admission.identity,
            layout=made.layout,
            dirty=dirty,
            digest=digest,
            disks=disks,
            cables=cables,
            send_frame=_nowhere if admission.mode is ReplayMode.PLAY else send_frame,
            mode=admission.mode,
            filename=admission.filename,
        )
    )


def device_tree_of(spec: MachineSpec) -> bytes:
    """The flattened device tree that the guest of ``spec`` would be given (``-M virt,dumpdtb=``); nothing is recorded.

    Raises UserError, HostError.
    """
    board = board_for(spec.architecture, spec.machine)
    spec = board.with_firmware(spec)
    images = read_images(spec)
    identity = identity_of(spec, images, board.auto_shift)
    order = Order(
        spec,
        images,
        identity.shift,
        identity.rtc_base_seconds,
        identity.seed,
        transmit=lambda port, data: None,
        cables=Cables.of(spec),
    )
    tree = board.assemble(order).device_tree
    if tree is None:
        raise UserError(f"-M: the machine '{spec.machine}' has no device tree to dump")
    return tree
