"""Dumps of real machines: all of their memory, all of their registers, and nothing of the machine is changed."""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.engine.vmcore.core_guests import ENOUGH, GUESTS, RAM_BYTES, TEXT, CoreGuest
from tests.engine.vmcore.cores import read_core
from timevm.engine.cpu.mappings import Mappings
from timevm.engine.machine.builder import build_machine
from timevm.engine.machine.machine import Machine
from timevm.engine.machine.ram import PAGE
from timevm.engine.vmcore import core_dump
from timevm.engine.vmcore.core_dump import CoreDump, DumpRequest
from timevm.errors import HostError, UserError

#: file's class, ELF machine, notes and the ``struct`` format of a register in the first of them, and where those begin
EXPECTED = {
    "aarch64": (64, "EM_AARCH64", [("CORE", 1, 392), ("CORE", 2, 528)], "<Q", 112),
    "x86_64": (64, "EM_X86_64", [("CORE", 1, 336), ("QEMU", 0, 440)], "<Q", 112),
    "i386": (64, "EM_386", [("CORE", 1, 144), ("QEMU", 0, 440)], "<I", 72),
    "riscv64": (64, "EM_RISCV", [("CORE", 1, 376)], "<Q", 112),
}


@pytest.fixture(params=GUESTS, ids=[guest.architecture for guest in GUESTS])
def guest(request: pytest.FixtureRequest) -> CoreGuest:
    found: CoreGuest = request.param
    return found


@pytest.fixture
def machine(guest: CoreGuest, tmp_path: Path) -> Iterator[Machine]:
    yield from running(guest, tmp_path)


@pytest.fixture
def arm(tmp_path: Path) -> Iterator[Machine]:
    yield from running(GUESTS[0], tmp_path)


def running(guest: CoreGuest, folder: Path) -> Iterator[Machine]:
    machine = build_machine(guest.spec(folder), lambda port, data: None)
    machine.run(ENOUGH)
    yield machine
    machine.close()


def dump(machine: Machine, path: Path, *, chosen: range | None = None, paging: bool = False) -> CoreDump:
    taken = CoreDump(DumpRequest(str(path), chosen, paging))
    taken.take(machine)
    return taken


def test_all_of_it_is_there(guest: CoreGuest, machine: Machine, tmp_path: Path) -> None:
    before = machine.digest()
    taken = dump(machine, tmp_path / "core")
    assert machine.digest() == before
    core = read_core(tmp_path / "core")
    bits, name, notes, word, place = EXPECTED[guest.architecture]
    assert (core.bits, core.machine) == (bits, name)
    assert [(owner, kind, len(data)) for owner, kind, data in core.notes] == notes
    assert all(load.virtual == load.physical for load in core.loads)
    assert core.loads[0].physical == machine.ram.base and core.loads[0].data == bytes(machine.ram.view)
    assert taken.total == taken.completed == sum(len(load.data) for load in core.loads)
    for load in core.loads:
        assert load.data == machine.read_memory(load.physical, len(load.data), physical=True)
    registers = core.notes[0][2][place:]
    values = [value for (value,) in struct.iter_unpack(word, registers[: len(registers) // 8 * 8])]
    for register, value in guest.general.items():
        assert machine.read_register(register) == value
        assert value in values, register


def test_at_the_addresses_that_the_guest_maps(guest: CoreGuest, machine: Machine, tmp_path: Path) -> None:
    dump(machine, tmp_path / "core", paging=True)
    core = read_core(tmp_path / "core")
    assert core.at(guest.high, len(TEXT)) == TEXT
    known = machine.mappings()
    for virtual, physical in zip(known.virtual.tolist(), known.physical.tolist(), strict=True):
        if machine.ram.contains(physical, PAGE):
            assert core.at(virtual, PAGE) == machine.ram.read(physical, PAGE)


def test_a_part_of_it(guest: CoreGuest, machine: Machine, tmp_path: Path) -> None:
    chosen = range(guest.physical + 2, guest.physical + 2 * PAGE + 1)
    taken = dump(machine, tmp_path / "core", chosen=chosen)
    [load] = read_core(tmp_path / "core").loads
    assert (load.physical, len(load.data), taken.total) == (chosen.start, len(chosen), len(chosen))
    assert load.data.startswith(TEXT[2:])
    dump(machine, tmp_path / "core", chosen=chosen, paging=True)
    core = read_core(tmp_path / "core")
    assert core.at(guest.high + 2, len(TEXT) - 2) == TEXT[2:]
    assert core.at(guest.high, 1) == b""


def test_what_was_never_written_takes_no_room(arm: Machine, tmp_path: Path) -> None:
    dump(arm, tmp_path / "core")
    found = (tmp_path / "core").stat()
    assert found.st_size > RAM_BYTES and found.st_blocks * 512 < RAM_BYTES // 8
    assert found.st_mode & 0o777 == 0o400


def test_pages_are_not_touched_by_it(arm: Machine, tmp_path: Path) -> None:
    before = arm.dirty.held()
    dump(arm, tmp_path / "core", paging=True)
    assert np.array_equal(arm.dirty.held(), before)
    assert arm.dirty.method == "nothing is watched"


def test_a_pipe_gets_the_same(arm: Machine, tmp_path: Path) -> None:
    dump(arm, tmp_path / "core")
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()), daemon=True)
    reader.start()
    opened = os.open(tmp_path / "pipe", os.O_WRONLY)  # the reader is there from now on
    dump(arm, tmp_path / "pipe")
    dump(arm, Path(f"/dev/fd/{opened}"))
    os.close(opened)
    reader.join(30)
    assert read == [(tmp_path / "core").read_bytes() * 2]


def test_links_stay_links(arm: Machine, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "folder" / "core")
    for _ in range(2):
        dump(arm, tmp_path / "link")
        assert (tmp_path / "link").is_symlink() and (tmp_path / "folder" / "core").stat().st_size > RAM_BYTES


def left(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"aarch64.image"}


def test_files_that_cannot_be(arm: Machine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, words in (
        ("", "No such file or directory"),
        ("/nonexistent/core", "No such file or directory"),
        (str(tmp_path), "Is a directory"),
        (f"{tmp_path}/new/", "Is a directory"),
        (str(tmp_path / "pipe"), "No such device or address"),
        (f"{tmp_path}/{'x' * 300}", "File name too long"),
        (f"{tmp_path}/a\0b", "embedded null byte"),
        (f"{tmp_path}/\ud800", "surrogates not allowed"),
    ):
        with pytest.raises(HostError, match=words) as refused:
            CoreDump(DumpRequest(name)).take(arm)
        assert str(refused.value).startswith(f"Could not open '{name}': ")
    assert left(tmp_path) == {"pipe"}


def test_nothing_to_dump(arm: Machine, tmp_path: Path) -> None:
    end = arm.ram.end
    for chosen in (range(4096), range(end, end + 1), range(end - 1, end - 1), range(end, 0)):
        with pytest.raises(UserError, match="dump: no guest memory to dump"):
            dump(arm, tmp_path / "core", chosen=chosen)
    assert left(tmp_path) == set()


def test_a_full_disk_leaves_what_was_there(arm: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "core").write_bytes(b"an older one")
    with pytest.raises(HostError, match=r"^dump: failed to write elf header: No space left on device$"):
        CoreDump(DumpRequest("/dev/full")).take(arm)
    limit = 50_000
    original = os.pwrite

    def full(descriptor: int, data: bytes | memoryview, offset: int) -> int:
        if offset + len(data) > limit:
            raise OSError(28, "No space left on device")
        return original(descriptor, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(HostError, match=r"^dump: failed to save memory: No space left on device$"):
        dump(arm, tmp_path / "core")
    assert left(tmp_path) == {"core"} and (tmp_path / "core").read_bytes() == b"an older one"


def test_one_that_is_cancelled(arm: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core_dump, "PIECE", 4096)
    taken = CoreDump(DumpRequest(str(tmp_path / "core")), lambda: taken.cancel())
    with pytest.raises(UserError, match="dump: cancelled"):
        taken.take(arm)
    assert left(tmp_path) == set()
    with pytest.raises(UserError, match="dump: cancelled"):
        taken.take(arm)


def test_a_reader_that_does_not_read_can_be_left(arm: Machine, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    taken = CoreDump(DumpRequest(str(tmp_path / "pipe")))
    threading.Timer(0.1, taken.cancel).start()
    with pytest.raises(UserError, match="dump: cancelled"):
        taken.take(arm)
    os.close(reader)


class More:
    """A machine whose tables are too many."""

    def __init__(self, machine: Machine, mappings: Mappings) -> None:
        self.memory_image = machine.memory_image
        self._mappings = mappings

    def mappings(self) -> Mappings:
        return self._mappings


def test_tables_that_map_too_much_or_nothing(arm: Machine, tmp_path: Path) -> None:
    request = DumpRequest(str(tmp_path / "core"), None, True)
    with pytest.raises(UserError, match="map more than 1048576 pages: dump without paging"):
        CoreDump(request).take(More(arm, Mappings(more_from=0)))
    with pytest.raises(UserError, match="no guest memory to dump: the guest's page tables map none of it"):
        CoreDump(request).take(More(arm, Mappings()))
    CoreDump(request).take(More(arm, Mappings(absent="the MMU is off")))
    assert [load.virtual for load in read_core(tmp_path / "core").loads] == [arm.ram.base]
