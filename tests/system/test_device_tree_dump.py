"""``-M virt,dumpdtb=``: the program writes the tree and ends; no machine runs and nothing is recorded."""

from __future__ import annotations

from pathlib import Path

import fdt
import pytest

from tests.guests import bare
from timevm.cli import run_system
from timevm.errors import HostError, TimevmError, UserError

KERNEL = str(bare("irq"))


def dump(target: Path, *options: str, architecture: str = "aarch64", machine: str = "virt") -> int:
    arguments = ["-M", f"{machine},dumpdtb={target}", "-display", "none", *options]
    return run_system(f"timevm-system-{architecture}", architecture, arguments)


def test_it_is_the_tree_of_this_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "tree.dtb"
    recording = tmp_path / "x.rr"
    assert (
        dump(
            target, "-m", "1G", "-kernel", KERNEL, "-append", "a b", "-icount", f"shift=1,rr=record,rrfile={recording}"
        )
        == 0
    )
    tree = fdt.parse_dtb(target.read_bytes())
    assert list(tree.get_node("/memory@40000000").get_property("reg")) == [0, 0x4000_0000, 0, 1 << 30]
    assert tree.get_node("/chosen").get_property("bootargs").value == "a b"
    output, errors = capsys.readouterr()
    assert output == "" and errors == f"timevm-system-aarch64: info: dtb dumped to {target}. Exiting.\n"
    assert not recording.exists()


def test_it_can_be_given_back(tmp_path: Path) -> None:
    first, second = tmp_path / "first.dtb", tmp_path / "second.dtb"
    dump(first, "-m", "64", "-kernel", KERNEL, "-append", "x")
    dump(second, "-m", "64", "-kernel", KERNEL, "-append", "x", "-dtb", str(first))
    one, other = (fdt.parse_dtb(path.read_bytes()) for path in (first, second))
    assert one.root.nodes and sorted(one.to_dts().split("\n")) == sorted(other.to_dts().split("\n"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (("-kernel", "none"), HostError, "none"),
        (("-dtb", "/dev/null"), UserError, "none that can be read"),
    ],
)
def test_what_cannot_be(tmp_path: Path, options: tuple[str, ...], error: type[TimevmError], message: str) -> None:
    with pytest.raises(error, match=message):
        dump(tmp_path / "tree.dtb", *options)
    assert not (tmp_path / "tree.dtb").exists()


def test_nothing_to_execute_is_no_matter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    dump(tmp_path / "tree.dtb", "-m", "64")
    assert not caplog.records


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    for target, why in (
        (tmp_path / "no" / "x", "No such file"),
        (tmp_path, "Is a directory"),
        (Path("/dev/full"), "No space"),
    ):
        with pytest.raises(HostError, match=f"failed to save the device tree to '{target}': {why}"):
            dump(target)


def test_a_pc_has_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="the machine 'pc' has no device tree to dump"):
        dump(tmp_path / "x", architecture="x86_64", machine="pc")
