"""Files of others: kernels, ELF files, gzip; sound ones, wrong ones, damaged ones."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.engine.machine.elf import EM_386, EM_X86_64, HEADER, PT_NOTE, Segment, elf64
from tests.guests import bare
from timevm.engine.machine import images
from timevm.engine.machine.images import File, Images, Piece, elf_pieces, read_file, read_images, unpacked
from timevm.engine.machine.spec import Loader, LoaderData, MachineSpec
from timevm.errors import HostError, UserError

MACHINES = ("EM_AARCH64",)
GUEST = bare("irq").read_bytes()


def file(data: bytes, title: str = "kernel") -> File:
    return File(Path("folder/a-file"), data, title)


def pieces_of(data: bytes) -> tuple[list[Piece], int]:
    return elf_pieces(file(data), data, MACHINES)


def test_segments_go_to_their_physical_addresses() -> None:
    data = elf64(
        [
            Segment(0x1000, b"code", virtual=0xFFFF_0000_0000_1000),
            Segment(0x8000, b"data", memory_size=100, virtual=0xFFFF_0000_0000_8000),
            Segment(0, b"a note", kind=PT_NOTE),
            Segment(0x9000, b"", memory_size=0),
        ],
        entry=0xFFFF_0000_0000_1002,
    )
    pieces, entry = pieces_of(data)
    assert pieces == [Piece(0x1000, b"code", 4), Piece(0x8000, b"data", 100)]
    assert entry == 0x1002, "the CPU starts with the MMU off"
    assert pieces[1].end == 0x8000 + 100


def test_an_entry_outside_all_segments_stays() -> None:
    assert pieces_of(elf64([Segment(0x1000, b"code")], entry=0x5000))[1] == 0x5000


@pytest.mark.parametrize(("machine", "name"), [(EM_X86_64, "EM_X86_64"), (EM_386, "EM_386"), (0xABCD, "43981")])
def test_another_cpus_program(machine: int, name: str) -> None:
    with pytest.raises(UserError, match=rf"'folder/a-file' is for another CPU \({name}, not EM_AARCH64\)"):
        pieces_of(elf64([Segment(0x1000, b"code")], machine=machine))


def test_nothing_to_load() -> None:
    for segments in ([], [Segment(0, b"a note", kind=PT_NOTE)]):
        with pytest.raises(UserError, match="holds nothing to load"):
            pieces_of(elf64(segments))


def test_a_segment_behind_the_end_of_the_file() -> None:
    data = elf64([Segment(0x1000, bytes(100))])
    with pytest.raises(UserError, match="a segment reaches behind the file's end"):
        pieces_of(data[:-1])
    with pytest.raises(UserError, match="damaged"):
        pieces_of(elf64([Segment(0x1000, bytes(100), memory_size=99)]))


def check_anything(data: bytes) -> None:
    """Pieces that make sense, or one sentence; nothing else, and nothing large."""
    try:
        pieces, entry = pieces_of(data)
    except UserError as error:
        assert "\n" not in str(error) and "folder/a-file" in str(error)
        return
    assert pieces and entry >= 0
    for piece in pieces:
        assert 0 <= piece.address < 1 << 64 and 0 < piece.size < 1 << 64
        assert len(piece.data) <= min(piece.size, len(data))


@settings(max_examples=400)
@given(st.lists(st.tuples(st.integers(0, HEADER + 3 * 56), st.integers(0, 255)), min_size=1, max_size=8))
def test_damaged_headers(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GUEST)
    for place, value in changes:
        data[place] = value
    check_anything(bytes(data))


@given(st.integers(0, len(GUEST) - 1), st.binary(max_size=4))
def test_truncated_files(length: int, tail: bytes) -> None:
    check_anything(GUEST[:length] + tail)


@settings(max_examples=300)
@given(st.binary(max_size=200))
@example(b"")
@example(b"\x02\x01")
def test_garbage_behind_the_magic(data: bytes) -> None:
    check_anything(b"\x7fELF" + data)


@given(st.lists(st.tuples(st.integers(0, len(GUEST) - 1), st.integers(0, 255)), min_size=1, max_size=40))
def test_bytes_changed_anywhere(changes: list[tuple[int, int]]) -> None:
    data = bytearray(GUEST)
    for place, value in changes:
        data[place] = value
    check_anything(bytes(data))


def test_gzip_is_undone_and_others_stay() -> None:
    assert unpacked(file(gzip.compress(b"kernel" * 100))) == b"kernel" * 100
    assert unpacked(file(b"flat")) == b"flat" and unpacked(file(b"")) == b""


PACKED = gzip.compress(bytes(range(256)) * 20, mtime=0)


@settings(max_examples=300)
@given(
    st.integers(2, len(PACKED)),
    st.lists(st.tuples(st.integers(2, len(PACKED) - 1), st.integers(0, 255)), max_size=4),
    st.binary(max_size=8),
)
def test_damaged_gzip(length: int, changes: list[tuple[int, int]], tail: bytes) -> None:
    data = bytearray(PACKED)
    for place, value in changes:
        data[place] = value
    try:
        unpacked(file(bytes(data[:length]) + tail))
    except UserError as error:
        assert str(error).startswith("kernel 'folder/a-file' is damaged: ") and "\n" not in str(error)


def test_a_gzip_bomb_is_not_unpacked_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "LARGEST_KERNEL", 1 << 20)
    assert len(unpacked(file(gzip.compress(bytes(1 << 20))))) == 1 << 20
    bomb = gzip.compress(bytes(64 << 20))
    assert len(bomb) < 100_000
    with pytest.raises(UserError, match="unpacks to more than 1 MiB"):
        unpacked(file(bomb))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for path, why in ((tmp_path / "none", "No such file or directory"), (tmp_path, "Is a directory")):
        with pytest.raises(HostError) as caught:
            read_file(path, "initrd")
        assert str(caught.value) == f"could not load initrd '{path}': {why}"


def test_all_files_of_a_specification(tmp_path: Path) -> None:
    names = ("kernel", "initrd", "dtb", "bios", "one", "two")
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    spec = MachineSpec(
        kernel=tmp_path / "kernel",
        initrd=tmp_path / "initrd",
        dtb=tmp_path / "dtb",
        bios=tmp_path / "bios",
        loaders=(Loader(tmp_path / "one"), LoaderData(b"1", 0), Loader(tmp_path / "two")),
    )
    read = read_images(spec)
    found = (read.kernel, read.initrd, read.dtb, read.bios, *read.loaded)
    assert [each and each.data.decode() for each in found] == list(names)
    assert len({each.digest for each in found if each}) == len(names)
    assert read_images(MachineSpec()) == Images()
