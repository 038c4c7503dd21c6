"""The machine's disks: images opened as the block graph says, the drives on them, and what they are known by.

Which layer a drive's requests go to is decided here, once: live and recording the image itself, or a temporary overlay
for ``snapshot=on``; replaying the journal over what the recording began with.

A recording has to leave what it began with behind.  With ``snapshot=on`` or ``readonly=on`` the image itself stays so.
A qcow2 image that the guest writes to gets an internal snapshot when the recording begins (tag ``rr:`` and the name of
the recording's file; recording over that file replaces it).  Whoever replays finds it by its content.  A raw image can
keep nothing: it is refused.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from timevm.blkreplay.content_digest import content_digest
from timevm.blkreplay.differences import overlay_of
from timevm.blkreplay.drive import Drive
from timevm.blkreplay.iothread import IoThread, Worker
from timevm.blkreplay.journal import Journal
from timevm.blkreplay.layer import ImageLayer, Layer
from timevm.blkreplay.node import BlockNode
from timevm.blkreplay.null import NullNode
from timevm.blkreplay.opening import GuessedRawWarning, open_image
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.raw import RawImage
from timevm.blkreplay.temporary_overlay import TemporaryOverlay
from timevm.engine.machine.block_graph import DiskPlan, ImagePlan, plan_disks
from timevm.engine.machine.spec import MachineSpec
from timevm.errors import TimevmError, UserError

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class OpenImage:
    """An image of the graph, attached to a device or not (one that only holds VM snapshots)."""

    plan: ImagePlan
    node: Qcow2Image | RawImage | NullNode
    #: what a replay reads below the guest's writes; the node itself or one of its snapshots
    base: BlockNode
    #: live and recording with ``snapshot=on``
    overlay: TemporaryOverlay | None = None

    @property
    def name(self) -> str:
        return self.plan.name

    @property
    def snapshot_refusal(self) -> str | None:
        """Why no VM snapshot can be stored here, in a sentence; None: it can."""
        if self.plan.snapshot:
            return (
                f"'{self.name}' has snapshot=on: what is written to it is gone when timevm ends, and VM snapshots "
                "would be too. Leave snapshot=on out; a replay never changes what is on the disk"
            )
        if not isinstance(self.node, Qcow2Image):
            return f"'{self.name}' is no qcow2 image: only those hold snapshots"
        if self.node.read_only:
            return f"'{self.name}' is read-only"
        return None


@dataclass(slots=True)
class Disk:
    """A disk of the guest."""

    plan: DiskPlan
    image: OpenImage
    drive: Drive
    layer: Layer
    digest: str = ""

    @property
    def name(self) -> str:
        return self.plan.name

    def snapshot_overlay(self) -> dict[int, bytes]:
        """How the disk as it is now differs from the image's active state: cluster → bytes, for ``save_snapshot``.

        Empty unless replaying.  The drive must be drained.
        """
        if isinstance(self.layer, Journal) and isinstance(self.image.node, Qcow2Image):
            return overlay_of(self.image.node, self.layer, self.drive.writes)
        return {}

    def load_snapshot(self, tag: str, writes: int) -> None:
        """The disk becomes the one in the image's snapshot ``tag``, which is its version ``writes``.

        Replaying, the image stays as it is.  The drive must be drained; its state is restored by the caller.
        Raises UserError, HostError.
        """
        node = self.image.node
        if not isinstance(node, Qcow2Image):
            raise UserError(f"'{self.image.name}' is no qcow2 image: only those hold snapshots")
        if isinstance(self.layer, Journal):
            if not self.layer.knows(writes):
                self.layer.adopt(writes, node.snapshot_reader(tag, pin=True))
        else:
            node.apply_snapshot(tag)


@dataclass(slots=True)
class Disks:
    """All of a machine's.  ``drives`` are numbered as events number them."""

    images: dict[str, OpenImage] = field(default_factory=dict)
    disks: list[Disk] = field(default_factory=list)
    thread: IoThread | None = None
    #: the internal snapshots that this recording made: image, id
    begun: list[tuple[Qcow2Image, str]] = field(default_factory=list)
    _closed: bool = False

    @property
    def drives(self) -> list[Drive]:
        return [disk.drive for disk in self.disks]

    @property
    def digests(self) -> tuple[tuple[str, str], ...]:
        """For the recording's identity."""
        return tuple((disk.name, disk.digest) for disk in self.disks)

    def settle(self) -> None:
        """The machine is there: what a recording in the same file left in the images before is not wanted any more."""
        for image, identifier in self.begun:
            tag = image.find_snapshot(identifier).tag
            for record in image.snapshots():
                if record.tag == tag and record.id != identifier:
                    image.delete_snapshot(record.id)

    def abandon(self) -> None:
        """There will be no machine: the images are as they were."""
        try:
            for image, identifier in self.begun:
                image.delete_snapshot(identifier)
        finally:
            self.close()

    def drain(self) -> None:
        """Everything that the guest asked for is carried out when this returns.  Raises HostError."""
        for disk in self.disks:
            disk.drive.drain()

    def close(self) -> None:
        """Carry out what is under way, flush, let the files go.  Idempotent.  Raises HostError."""
        if self._closed:
            return
        self._closed = True
        attached = {id(disk.image) for disk in self.disks}
        failures: list[TimevmError] = []
        closers = [disk.drive.close for disk in self.disks]
        closers += [image.node.close for image in self.images.values()]  # a journal over a snapshot closes only that
        closers += [
            image.overlay.close for image in self.images.values() if image.overlay and id(image) not in attached
        ]
        for close in closers:
            try:
                close()
            except TimevmError as error:
                failures.append(error)
        if self.thread is not None:
            self.thread.close()
        if failures:
            raise failures[0]


def open_disks(
    spec: MachineSpec, recorded: Mapping[str, str] | None = None, workers: Callable[[str], Worker] | None = None
) -> Disks:
    """``recorded``: in a replay the digests of the recording's identity, by which each disk's beginning is found.

    ``workers``: disk's name → who carries out its I/O, by default one thread for all.  Raises UserError, HostError.
    """
    plans, disk_plans = plan_disks(spec)
    if not plans:
        return Disks()
    _check_rules(spec, disk_plans)
    disks = Disks()
    if workers is None:
        disks.thread = thread = IoThread()
        workers = lambda name: thread  # noqa: E731 (one for all)
    try:
        for plan in plans:
            disks.images[plan.name] = _open(plan, spec)
        for disk_plan in disk_plans:
            disks.disks.append(_attach(disks, disk_plan, spec, recorded, workers(disk_plan.name)))
    except BaseException:
        disks.abandon()
        raise
    return disks


def _check_rules(spec: MachineSpec, plans: Iterable[DiskPlan]) -> None:
    if spec.mode == "none":
        return
    for plan in plans:
        if not plan.filters:
            image = plan.image
            file = f"file={image.path}," if image.path is not None else ""
            snapshot = "" if image.readonly else "snapshot=on,"
            raise UserError(
                f"the disk '{plan.name}' is not behind blkreplay: when its requests are done would not be recorded, "
                f"and a replay would differ. Write: -drive {file}if=none,{snapshot}id={plan.name}-direct "
                f"-drive driver=blkreplay,if=none,image={plan.name}-direct,id={plan.name} "
                f"-device {plan.device.driver},drive={plan.name}"
            )
        if spec.mode == "record" and _is_written(plan.image) and plan.image.format == "raw":
            raise _raw_refusal(plan)


def _raw_refusal(plan: DiskPlan) -> UserError:
    image = plan.image
    return UserError(
        f"the disk '{plan.name}' is a raw image that the guest may write to: a recording of it could not be replayed, "
        "for a raw image does not keep what it was. Add snapshot=on (what the guest writes is then gone at the end) "
        f"or readonly=on to it, or make it qcow2: timevm img convert -O qcow2 {image.path} NEW.qcow2"
    )


def _is_written(plan: ImagePlan) -> bool:
    return not plan.snapshot and not plan.readonly and plan.path is not None


def _open(plan: ImagePlan, spec: MachineSpec) -> OpenImage:
    if plan.path is None:
        null = NullNode(plan.size)
        return OpenImage(plan, null, null)
    readonly = plan.readonly or plan.snapshot
    if spec.mode == "play" and not os.access(plan.path, os.W_OK):
        readonly = True  # a replay writes VM snapshots only
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", GuessedRawWarning)
        node = open_image(plan.path, plan.format, readonly, durable=plan.durable)
    for warning in said:
        _log.warning("%s", warning.message)
    overlay = TemporaryOverlay(node) if plan.snapshot and spec.mode != "play" else None
    return OpenImage(plan, node, node, overlay)


def _attach(
    disks: Disks, plan: DiskPlan, spec: MachineSpec, recorded: Mapping[str, str] | None, worker: Worker
) -> Disk:
    image = disks.images[plan.image.name]
    digest = ""
    if spec.mode == "record":
        digest = _begin_recording(plan, image, spec, disks.begun)
    elif spec.mode == "play":
        image.base, digest = _find_base(plan, image, spec, (recorded or {}).get(plan.name))
    layer: Layer
    if spec.mode == "play" and not isinstance(image.node, NullNode):
        layer = Journal(image.base)
    else:
        layer = ImageLayer(image.overlay or image.node)
    drive = Drive(plan.name, layer, worker, read_only=image.plan.readonly)
    return Disk(plan, image, drive, layer, digest)


def recording_tag(spec: MachineSpec) -> str:
    """Of the internal snapshot that a recording leaves behind."""
    return f"rr:{spec.rrfile.name}" if spec.rrfile is not None else "rr"


def _begin_recording(plan: DiskPlan, image: OpenImage, spec: MachineSpec, begun: list[tuple[Qcow2Image, str]]) -> str:
    """What the disk is when the recording begins, kept where the guest may change it; its digest."""
    node = image.node
    if isinstance(node, NullNode) or not _is_written(image.plan):
        return content_digest(node)
    if not isinstance(node, Qcow2Image):
        raise _raw_refusal(plan)
    record = node.save_snapshot(recording_tag(spec), date=time.time(), icount=0, replace_tag=False)
    begun.append((node, record.id))
    return content_digest(node.snapshot_reader(record.id))


def _find_base(plan: DiskPlan, image: OpenImage, spec: MachineSpec, recorded: str | None) -> tuple[BlockNode, str]:
    """The image or the first of its snapshots with the recorded digest; the image, and its digest, if none has it."""
    node = image.node
    digest = content_digest(node)
    if digest == recorded or recorded is None or not isinstance(node, Qcow2Image):
        return node, digest
    likely = (spec.rrsnapshot, recording_tag(spec))
    for record in sorted(node.snapshots(), key=lambda one: one.tag not in likely):
        reader = node.snapshot_reader(record.id)
        if content_digest(reader) == recorded:
            return node.snapshot_reader(record.id, pin=True), recorded
    return node, digest
