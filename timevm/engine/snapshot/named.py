"""Named snapshots of machine and disks together, in the machine's qcow2 images (``control.SnapshotStore``).

The first image that can keep snapshots holds the machine's state; every other one that the guest may write to gets a
snapshot of the same tag.  What a snapshot is of is written in it: another machine's is refused by name, and a replay
takes only those of its own recording, at a moment that this recording has.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import xxhash

from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.blkreplay.qcow2.snapshot_operations import StateReader, Unchanged
from timevm.blkreplay.qcow2.snapshot_table import SnapshotRecord
from timevm.engine.machine.dirty_pages import DirtyLog
from timevm.engine.machine.disks import OpenImage
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.outcome import ReplayMode, SnapshotInfo
from timevm.engine.machine.ram import PAGE
from timevm.engine.snapshot.position import Position
from timevm.engine.snapshot.vmstate import CHUNK, Head, Known, Origin, encode, read_chunks, read_head
from timevm.errors import TimevmError, UserError

_log = logging.getLogger(__name__)

NO_DEVICE = "no block device can store vmstate for snapshot"
_ADD_AN_IMAGE = "Add an image for them: timevm img create -f qcow2 vm.qcow2 1M, then -drive file=vm.qcow2,if=none,id=vm"
WORDS = PAGE // 8

#: number of the first, and their bytes (None: one of zeroes)
Chunks = list[tuple[int, bytes | None]]
#: of a snapshot: its image's path, its id, and where its tables are
Key = tuple[str, str, int]
Records = list[tuple[Qcow2Image, SnapshotRecord]]
Infos = list[SnapshotInfo]
#: image, its new snapshot, those that this one replaces
Made = list[tuple[Qcow2Image, SnapshotRecord, list[SnapshotRecord]]]
Places = list[tuple[Position, str]]


class Memory(Protocol):
    """Checkpoints: a snapshot of this session is there already, in memory."""

    def take(self, position: Position) -> object: ...

    def go_to(self, position: Position) -> bool:
        """False: not there (any more)."""


class NamedSnapshots:
    """The machine stands between two instructions during a call; CPU thread."""

    def __init__(self, machine: Machine, memory: Memory | None = None) -> None:
        self._machine = machine
        self._memory = memory
        identity = machine.identity
        self._origin = Origin(
            machine.name,
            identity.cpu,
            machine.ram.base,
            machine.ram.size,
            identity.shift,
            None if machine.mode is ReplayMode.NONE else xxhash.xxh3_128_hexdigest(identity.to_json()),
            layout=machine.layout,
        )
        #: what is known of snapshots that were read or written here
        self._heads: dict[Key, tuple[Origin, Position]] = {}
        self._dirty: DirtyLog | None = None
        #: the snapshot that RAM is as in, but for the chunks that were written since
        self._base: tuple[Key, str] | None = None
        self._known = Known(np.empty(0, dtype=np.uint64), 0, np.empty(0, dtype=np.bool_))

    @property
    def _replays(self) -> bool:
        return self._machine.mode is ReplayMode.PLAY

    # ---- which images

    def _vm_image(self) -> Qcow2Image:
        """Raises UserError: no image can hold a machine's state."""
        for image in self._machine.disks.images.values():
            if image.snapshot_refusal is None and isinstance(image.node, Qcow2Image):
                return image.node
        refusals = [image.snapshot_refusal for image in self._machine.disks.images.values()]
        lines = [NO_DEVICE, *(f"  {refusal}" for refusal in refusals if refusal)]
        if all(image.snapshot_refusal is None for image in self._written()):
            lines.append(_ADD_AN_IMAGE)  # that helps only where the guest's own disks keep snapshots as well
        raise UserError("\n".join(lines))

    def check(self) -> None:
        """Raises UserError if no snapshot of this machine could be saved."""
        self._others()

    def _others(self) -> list[Qcow2Image]:
        """The rest of what the guest may write to.  Raises UserError if one of them cannot keep a snapshot."""
        vm_image, found = self._vm_image(), []
        for image in self._written():
            if image.snapshot_refusal is not None or not isinstance(image.node, Qcow2Image):
                raise UserError(
                    f"Device '{image.name}' is writable but does not support snapshots: {image.snapshot_refusal}"
                )
            if image.node is not vm_image:
                found.append(image.node)
        return found

    def _written(self) -> Iterator[OpenImage]:
        for disk in self._machine.disks.disks:
            if not disk.image.plan.readonly:
                yield disk.image

    # ---- SnapshotStore

    def save(self, tag: str | None) -> SnapshotInfo:
        """Under ``tag``, replacing one of that name; None: a name is made up.  Raises UserError, HostError."""
        machine, image = self._machine, self._vm_image()
        others = self._others()
        machine.disks.drain()
        machine.gate.flush()
        now = time.time()
        tag = tag or time.strftime("vm-%Y%m%d%H%M%S", time.localtime(now))
        state = machine.state()
        made: Made = []
        try:
            for other in others:
                old = [record for record in other.snapshots() if record.tag == tag]
                made.append((other, self._save_in(other, tag, (), now, replace_tag=False), old))
            known = self._known_in(image)
            encoded = encode(machine.ram, state, self._origin, image.cluster_size, known)
            record = self._save_in(image, tag, encoded.pieces, now, replace_tag=True, known=known is not None)
        except BaseException:
            for other, new, _ in made:
                other.delete_snapshot(new.id)
            raise
        for other, _, old in made:
            for gone in old:
                other.delete_snapshot(gone.id)
        self._now_as(image, record, self._origin, encoded.checksums, encoded.head_size)
        return _information(record)

    def _now_as(
        self,
        image: Qcow2Image,
        record: SnapshotRecord,
        origin: Origin,
        checksums: npt.NDArray[np.uint64],
        head_size: int,
    ) -> None:
        """The machine is as in this snapshot."""
        position = Position(self._machine.icount, self._machine.settled)
        key = _key(image, record)
        self._heads[key] = (origin, position)
        self._written_chunks()
        self._base = (key, record.id)
        self._known = Known(checksums, head_size, np.zeros(len(checksums), dtype=np.bool_))
        if self._memory is not None:
            self._memory.take(position)

    def _written_chunks(self) -> None:
        """Those that were written since the last snapshot are known as changed."""
        if self._dirty is None:
            self._dirty = self._machine.dirty.log(everything=False)
        self._known.changed[self._dirty.take() // (CHUNK // PAGE)] = True

    def _known_in(self, image: Qcow2Image) -> Known | None:
        """The last snapshot that was read or written here, if it still is in the image."""
        if self._base is None:
            return None
        self._written_chunks()
        key, _ = self._base
        return self._known if any(_key(image, record) == key for record in image.snapshots()) else None

    def _save_in(
        self,
        image: Qcow2Image,
        tag: str,
        vm_state: Iterable[bytes | Unchanged],
        date: float,
        *,
        replace_tag: bool,
        known: bool = False,
    ) -> SnapshotRecord:
        return image.save_snapshot(
            tag,
            vm_state,
            date,
            self._machine.now_ns(),
            self._machine.icount,
            overlay=self._overlay(image),
            share_with=self._base[1] if known and self._base is not None else _newest(image),
            replace_tag=replace_tag,
            compare=not known,
        )

    def _overlay(self, image: Qcow2Image) -> dict[int, bytes]:
        for disk in self._machine.disks.disks:
            if disk.image.node is image:
                return disk.snapshot_overlay()
        return {}

    def load(self, tag: str) -> None:
        """By tag or id.  Raises UserError; then nothing has changed.  RecordingError, HostError as they come."""
        image, record = self._find(tag)
        others = [(other, self._find_in(other, record.tag, tag)) for other in self._others()]
        known = self._heads.get(_key(image, record))
        if self._replays and self._memory is not None and known is not None:
            self._check(tag, known[0])
            if self._memory.go_to(known[1]):
                return
        read = StateReader(image, record).read
        head = read_head(read)
        self._check(tag, head.origin)
        self._check_moment(tag, head)
        same = self._known_in(image)
        wanted = np.ones(len(head.checksums), dtype=np.bool_)
        if same is not None:
            wanted = same.changed | (same.checksums != head.checksums)
        chunks = [*read_chunks(read, head, wanted)]
        self._machine.disks.drain()
        self._write(chunks)
        self._load_disks(head.state, [(image, record), *others])
        self._machine.restore(head.state)
        self._now_as(image, record, head.origin, head.checksums, head.size)

    def delete(self, tag: str) -> None:
        """By tag or id, from every image that has it.  Raises UserError if none has."""
        image, record = self._find(tag)
        for other in self._machine.disks.images.values():
            if isinstance(other.node, Qcow2Image) and other.node is not image and other.snapshot_refusal is None:
                for found in other.node.snapshots():
                    if found.tag == record.tag:
                        other.node.delete_snapshot(found.id)
        self._heads.pop(_key(image, record), None)
        image.delete_snapshot(record.id)

    def list(self) -> Infos:
        """Those that hold a machine's state; [] if there is no image for them."""
        try:
            image = self._vm_image()
        except UserError:
            return []
        return [_information(record) for record in image.snapshots() if record.vm_state_size]

    # ---- origins for seeks

    def places(self) -> Places:
        """Moments of this recording that a snapshot is of, and its id."""
        found = []
        for record in self._vm_image().snapshots() if self.list() else []:
            if record.vm_state_size and record.icount >= 0:
                known = self._head_of(record)
                if known is not None and known[0] == self._origin:
                    found.append((known[1], record.id))
        return found

    def _head_of(self, record: SnapshotRecord) -> tuple[Origin, Position] | None:
        image = self._vm_image()
        key = _key(image, record)
        if key not in self._heads:
            try:
                head = read_head(StateReader(image, record).read)
                self._heads[key] = (head.origin, Position(record.icount, bool(head.state.get("settled"))))
            except TimevmError:
                return None
        return self._heads[key]

    # ---- loading

    def _find(self, tag: str) -> tuple[Qcow2Image, SnapshotRecord]:
        image = self._vm_image()
        for kind in ("id", "tag"):
            for record in image.snapshots():
                if record.vm_state_size and getattr(record, kind) == tag:
                    return image, record
        raise _missing(tag)

    @staticmethod
    def _find_in(image: Qcow2Image, name: str, asked: str) -> SnapshotRecord:
        for record in image.snapshots():
            if record.tag == name:
                return record
        raise _missing(asked)

    def _check(self, tag: str, origin: Origin) -> None:
        differences = origin.differences(self._origin)
        if differences:
            raise UserError(f"Snapshot '{tag}' is of another machine:" + "".join(f"\n  {line}" for line in differences))
        if not origin.layout:
            _log.warning("snapshot '%s' does not say of what its machine was made: an older timevm saved it", tag)
        if self._replays and origin.recording != self._origin.recording:
            what = "a machine that was not recorded" if origin.recording is None else "another recording"
            raise UserError(f"Snapshot '{tag}' is of {what}: this replay cannot go there")

    def _check_moment(self, tag: str, head: Head) -> None:
        """A gate is asked before anything changes; where it was is put back if the moment is not of this recording."""
        gate, icount = self._machine.gate, head.state.get("cpu", {}).get("icount")
        if not isinstance(icount, int) or not isinstance(head.state.get("gate"), dict):
            raise UserError(f"Snapshot '{tag}' is damaged: it does not say which moment it is of")
        before = gate.state()
        gate.restore(head.state["gate"])
        horizon, end = gate.horizon(icount), gate.end_icount
        gate.restore(before)
        if self._replays and (horizon < icount or (end is not None and icount > end)):
            raise UserError(f"Snapshot '{tag}' is of a moment that this recording does not have")

    def _write(self, chunks: Chunks) -> None:
        """RAM becomes the snapshot's; only what differs is written, and translations of that are dropped."""
        ram, cpu = self._machine.ram, self._machine.cpu
        used = np.zeros(ram.page_count, dtype=np.bool_)
        used[self._machine.dirty.ever()] = True
        for first, data in chunks:
            at, size = first * CHUNK, CHUNK if data is None else len(data)
            if not used[at // PAGE : (at + size) // PAGE].any():
                if data is not None:
                    ram.view[at : at + size] = data
                continue
            now = ram.bytes[at : at + size].view(np.uint64).reshape(-1, WORDS)
            wanted = np.zeros_like(now) if data is None else np.frombuffer(data, dtype=np.uint64).reshape(-1, WORDS)
            changed = np.flatnonzero((now != wanted).any(axis=1))
            if len(changed):
                now[changed] = wanted[changed]
                begin, end = int(changed[0]), int(changed[-1]) + 1
                cpu.code_changed(ram.base + at + begin * PAGE, (end - begin) * PAGE)

    def _load_disks(self, state: dict[str, Any], records: Records) -> None:
        for disk in self._machine.disks.disks:
            for image, record in records:
                if disk.image.node is image:
                    disk.load_snapshot(record.id, state["drives"][disk.name]["writes"])


def _key(image: Qcow2Image, record: SnapshotRecord) -> Key:
    return str(image.path), record.id, record.l1_offset


def _newest(image: Qcow2Image) -> str | None:
    """The snapshot that probably has most in common with what is saved now."""
    saved = [record for record in image.snapshots() if record.vm_state_size]
    return max(saved, key=lambda record: (record.date_seconds, record.date_nanoseconds)).id if saved else None


def _information(record: SnapshotRecord) -> SnapshotInfo:
    date = record.date_seconds + record.date_nanoseconds / 1e9
    return SnapshotInfo(record.id, record.tag, record.vm_state_size, date, record.vm_clock_ns, record.icount)


def _missing(tag: str) -> UserError:
    return UserError(f"Snapshot '{tag}' does not exist in one or more devices")
