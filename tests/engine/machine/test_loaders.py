"""``-device loader``, and that nothing lies on top of another."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.engine.machine.elf import Segment, elf64
from timevm.engine.machine.images import Images, Piece, read_images
from timevm.engine.machine.loaders import check_places, loader_pieces
from timevm.engine.machine.spec import Loader, LoaderData, MachineSpec
from timevm.errors import UserError

MACHINES = ("EM_AARCH64",)


def pieces_of(*loaders: Loader | LoaderData) -> tuple[list[Piece], int | None]:
    spec = MachineSpec(loaders=loaders)
    return loader_pieces(spec, read_images(spec), MACHINES)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "raw").write_bytes(b"raw bytes")
    (tmp_path / "packed").write_bytes(gzip.compress(b"packed bytes"))
    (tmp_path / "elf").write_bytes(elf64([Segment(0x1000, b"code"), Segment(0x2000, b"data")], entry=0x1004))
    return tmp_path


def test_a_file_goes_where_it_is_told(folder: Path) -> None:
    assert pieces_of(Loader(folder / "raw", 0x5000)) == ([Piece(0x5000, b"raw bytes", 9)], None)
    assert pieces_of(Loader(folder / "packed", 0x5000)) == ([Piece(0x5000, b"packed bytes", 12)], None)


def test_an_elf_file_knows_where_it_goes(folder: Path) -> None:
    wanted = [Piece(0x1000, b"code", 4), Piece(0x2000, b"data", 4)]
    assert pieces_of(Loader(folder / "elf")) == (wanted, None)
    assert pieces_of(Loader(folder / "elf", 0x7000)) == (wanted, None)


def test_data(folder: Path) -> None:
    assert pieces_of(LoaderData(b"\x01\x02", 0x44)) == ([Piece(0x44, b"\x01\x02", 2)], None)


def test_where_the_cpu_starts(folder: Path) -> None:
    assert pieces_of(Loader(folder / "elf", sets_pc=True))[1] == 0x1004
    assert pieces_of(Loader(folder / "raw", 0x5000, sets_pc=True))[1] == 0x5000
    both = (Loader(folder / "elf", sets_pc=True), Loader(folder / "raw", 0x5000, sets_pc=True))
    assert pieces_of(*both)[1] == 0x5000, "the last one counts"
    assert pieces_of(both[0], Loader(folder / "raw", 0x5000))[1] == 0x1004
    assert pieces_of(both[0], LoaderData(b"", 0x6000, sets_pc=True))[1] == 0x6000
    assert pieces_of(LoaderData(b"", 0x6000, sets_pc=True)) == ([], 0x6000)


def test_forced_raw_looks_into_nothing(folder: Path) -> None:
    for name in ("elf", "packed"):
        data = (folder / name).read_bytes()
        assert pieces_of(Loader(folder / name, 0x9000, raw=True)) == ([Piece(0x9000, data, len(data))], None)


def test_they_keep_their_order(folder: Path) -> None:
    pieces, _ = pieces_of(LoaderData(b"1", 3), Loader(folder / "raw", 2), LoaderData(b"2", 1), Loader(folder / "elf"))
    assert [piece.address for piece in pieces] == [3, 2, 1, 0x1000, 0x2000]


@pytest.mark.parametrize(("name", "raw"), [("raw", False), ("elf", True)])
def test_a_file_without_a_place(folder: Path, name: str, raw: bool) -> None:
    with pytest.raises(UserError, match=rf"{name}' is no ELF file: say where it goes with addr="):
        pieces_of(Loader(folder / name, raw=raw))


def test_no_loaders() -> None:
    assert loader_pieces(MachineSpec(), Images(), MACHINES) == ([], None)


PLACES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)), max_size=6)


@given(PLACES)
def test_places_against_a_naive_check(places: list[tuple[int, int]]) -> None:
    pieces = [(f"<{number}>", Piece(at, bytes(size), size)) for number, (at, size) in enumerate(places) if size]
    cells = [cell for _, piece in pieces for cell in range(piece.address, piece.end)]
    outside = [title for title, piece in pieces if piece.address < 10 or piece.end > 50]
    doubled = len(cells) != len(set(cells))
    try:
        check_places(pieces, 10, 50)
    except UserError as error:
        if "does not fit into RAM" in str(error):
            assert outside and str(error).split()[0] in outside
        else:
            named = [piece for title, piece in pieces if title in str(error)]
            assert doubled and len(named) == 2
            assert named[0].address < named[1].end and named[1].address < named[0].end
    else:
        assert not outside and not doubled


def test_the_messages() -> None:
    kernel, initrd = Piece(0x4000_0000, b"k", 0x1000), Piece(0x4000_0800, b"i", 0x100)
    with pytest.raises(UserError) as caught:
        check_places([("the initrd", initrd), ("the kernel", kernel)], 0x4000_0000, 0x4100_0000)
    assert str(caught.value) == (
        "the kernel (0x40000000 to 0x40001000) and the initrd (0x40000800 to 0x40000900) overlap: "
        "give the machine more RAM with -m, or load them elsewhere"
    )
    with pytest.raises(UserError, match=r"the kernel does not fit into RAM: it needs 0x40000000 to 0x40001000, RAM is"):
        check_places([("the kernel", kernel)], 0x4000_0000, 0x4000_0800)
