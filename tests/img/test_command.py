"""``timevm img`` beside the real qemu-img: the same output, byte by byte, the same exit status, the same files."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.peers import need
from timevm.blkreplay.opening import open_image
from timevm.blkreplay.qcow2.create import CreateOptions, create_image
from timevm.blkreplay.qcow2.image import Qcow2Image
from timevm.img.command import run_img
from timevm.img.text import parse_size, size_text

SIZE = 4 << 20
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def ours(capsys: pytest.CaptureFixture[str]) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = run_img([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


def theirs(*arguments: object) -> tuple[int, str, str]:
    done = subprocess.run([need("qemu-img"), *map(str, arguments)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr.replace("qemu-img", "timevm img")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With one image of each kind; relative names, as users type them."""
    monkeypatch.chdir(tmp_path)
    Path("base.raw").write_bytes(b"base" * 50_000 + bytes(SIZE - 200_000))
    create_image("base.qcow2", CreateOptions(SIZE))
    image = open_image("base.qcow2", "qcow2")
    assert isinstance(image, Qcow2Image)
    image.write(100_000, b"x" * 300_000)
    image.save_snapshot("first", b"vm" * 600_000, (1_700_000_000, 5000), 3_723_004_000_000, 123_456_789)
    image.save_snapshot("a tag that is longer than its column", b"", 1_700_000_001, 360_000 * 10**9)
    image.write(2 << 20, b"y" * 100_000)
    image.write_zeroes(131_072, 65_536, unmap=False)
    image.write_zeroes(196_608, 65_536)
    image.close()
    subprocess.run([need("qemu-img"), "convert", "-c", "-O", "qcow2", "base.qcow2", "packed.qcow2"], check=True)
    create_image("old.qcow2", CreateOptions(SIZE, version=2, backing_file="base.qcow2", backing_format="qcow2"))
    create_image("top.qcow2", CreateOptions(SIZE * 2, backing_file="old.qcow2", backing_format="qcow2"))
    for name in ("old.qcow2", "top.qcow2"):
        image = open_image(name, "qcow2")
        image.write(1 << 20, name.encode() * 5000)
        image.close()
    os.mkdir("deep")
    create_image("deep/top.qcow2", CreateOptions(SIZE, backing_file="../base.raw", backing_format="raw"))
    create_image("lazy.qcow2", CreateOptions(SIZE, lazy_refcounts=True))
    subprocess.run([need("qemu-io"), "-c", "write 0 1M", "-c", "abort", "lazy.qcow2"], capture_output=True)
    subprocess.run(
        [need("qemu-img"), "create", "-q", "-f", "qcow2", "-o", "preallocation=metadata", "meta.qcow2", "3M"]
    )
    subprocess.run([need("qemu-io"), "-c", "write 64k 100k", "meta.qcow2"], capture_output=True, check=True)
    leaky = bytearray(Path("top.qcow2").read_bytes())
    leaky += bytes(-len(leaky) % 65536 + 3 * 65536)
    block = int.from_bytes(leaky[0x10000:0x10008], "big")
    for cluster in range(len(leaky) // 65536 - 3, len(leaky) // 65536):
        leaky[block + cluster * 2 + 1] = 1
    Path("leaky.qcow2").write_bytes(leaky)
    return tmp_path


IMAGES = (
    "base.raw",
    "base.qcow2",
    "packed.qcow2",
    "old.qcow2",
    "top.qcow2",
    "deep/top.qcow2",
    "lazy.qcow2",
    "meta.qcow2",
    "leaky.qcow2",
)


@pytest.mark.parametrize(
    "command",
    [
        "info",
        "info --output=json",
        "info --backing-chain",
        "info --backing-chain --output=json",
        "check",
        "check --output=json",
        "check -q",
        "map",
        "map --output=json",
        "map --output=json --start-offset=1M --max-length=100k",
        "snapshot -l",
    ],
)
def test_looking_at_images(folder: Path, ours: Run, command: str) -> None:
    for name in IMAGES:
        mine = ours(*command.split(), name)
        other = theirs(*command.split(), name)
        assert mine == other, name


@pytest.mark.parametrize(
    "arguments",
    [
        ["-f", "qcow2", "new", "64M"],
        ["-f", "qcow2", "new", "5000"],
        ["-f", "qcow2", "new", "0"],
        ["-f", "qcow2", "new", "5.5M"],
        ["-f", "qcow2", "-o", "compat=0.10", "new", "1G"],
        ["-f", "qcow2", "-o", "compat=v2,cluster_size=4k", "new", "1M"],
        ["-f", "qcow2", "-o", "cluster_size=1k,refcount_bits=64", "new", "50M"],
        ["-f", "qcow2", "-o", "cluster_size=2M,lazy_refcounts=on", "-o", "refcount_bits=1", "new", "5G"],
        ["-f", "qcow2", "-o", "size=3M", "new"],
        ["-f", "qcow2", "-o", "compression_type=zstd", "new", "3M"],
        ["-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", "new"],
        ["-f", "qcow2", "-b", "base.raw", "-F", "raw", "-o", "compat=v2", "new", "10M"],
        ["-f", "qcow2", "-u", "-b", "nowhere", "-F", "raw", "new", "10M"],
        ["-f", "qcow2", "-o", "lazy_refcounts", "-q", "new", "1M"],
        ["new", "10M"],
        ["-f", "raw", "new", "1001"],
        # refused
        ["-f", "qcow2", "-b", "base.qcow2", "new"],
        ["-f", "qcow2", "-b", "nowhere", "-F", "qcow2", "new"],
        ["-f", "qcow2", "new"],
        ["-f", "qcow2", "new", "1Q"],
        ["-f", "foo", "new", "1M"],
        ["-f", "qcow2", "-o", "bogus=1", "new", "1M"],
        ["-f", "qcow2", "-o", "cluster_size=1000", "new", "1M"],
        ["-f", "qcow2", "-o", "cluster_size=4M", "new", "1M"],
        ["-f", "qcow2", "-o", "compat=9", "new", "1M"],
        ["-f", "qcow2", "-o", "refcount_bits=3", "new", "1M"],
        ["-f", "qcow2", "-o", "compat=v2,refcount_bits=8", "new", "1M"],
        ["-f", "qcow2", "-o", "compat=v2,lazy_refcounts=on", "new", "1M"],
        ["-f", "qcow2", "-o", "cluster_size=512", "new", "1T"],
        ["-f", "qcow2", "-o", "lazy_refcounts=maybe", "new", "1M"],
        ["-f", "qcow2", "-o", "preallocation=bogus", "new", "1M"],
        ["-f", "qcow2", "nowhere/new", "1M"],
        ["-f", "qcow2", "new", "1M", "extra"],
        [],
    ],
    ids=" ".join,
)
def test_creating_images(folder: Path, ours: Run, arguments: list[str]) -> None:
    other = theirs("create", *arguments)
    made = Path("new").read_bytes() if other[0] == 0 else b""
    Path("new").unlink(missing_ok=True)
    mine = ours("create", *arguments)
    assert (mine[0], mine[1], mine[2].rstrip()) == (other[0], other[1], other[2].rstrip())
    assert (Path("new").read_bytes() if mine[0] == 0 else b"") == made


@pytest.mark.parametrize(
    "arguments",
    [
        ["bogus"],
        ["info"],
        ["info", "base.raw", "base.qcow2"],
        ["info", "nowhere"],
        ["info", "-Z", "base.raw"],
        ["info", "--bogus", "base.raw"],
        ["info", "--output=xml", "base.raw"],
        ["info", "-f", "qcow2", "base.raw"],
        ["check", "nowhere"],
        ["check", "-r", "foo", "base.qcow2"],
        ["snapshot", "base.qcow2"],
        ["snapshot", "-c", "a", "-d", "b", "base.qcow2"],
        ["snapshot", "-a", "nothing", "base.qcow2"],
        ["snapshot", "-d", "nothing", "base.qcow2"],
        ["snapshot", "-c", "s", "base.raw"],
        ["snapshot", "-d", "s", "base.raw"],
        ["convert", "base.raw"],
        ["convert", "-O", "foo", "base.raw", "new"],
        ["convert", "-c", "-O", "raw", "base.raw", "new"],
        ["convert", "-c", "-O", "qcow2", "-o", "preallocation=metadata", "base.raw", "new"],
        ["create", "-f", "qcow2", "-o", "compression_type=zstd,compat=v2", "new", "1M"],
        ["create", "-f", "qcow2", "-o", "compression_type=lzo", "new", "1M"],
        ["convert", "-f", "raw", "-O", "qcow2", "nowhere", "new"],
    ],
    ids=" ".join,
)
def test_refusals(folder: Path, ours: Run, arguments: list[str]) -> None:
    assert ours(*arguments) == theirs(*arguments)


def test_applying_a_snapshot_of_a_raw_image(folder: Path, ours: Run) -> None:
    """qemu-img warns twice of the guessed format."""
    mine, other = ours("snapshot", "-a", "s", "base.raw")[2], theirs("snapshot", "-a", "s", "base.raw")[2]
    assert mine.splitlines()[3:] == other.splitlines()[-1:]


def test_a_locked_image(folder: Path, ours: Run) -> None:
    image = open_image("base.qcow2")
    for command in (["info"], ["check"], ["map"], ["snapshot", "-c", "x"], ["snapshot", "-l"]):
        assert ours(*command, "base.qcow2") == theirs(*command, "base.qcow2")
        if command[-1] != "x":
            assert ours(*command, "-U", "base.qcow2")[0] == 0
    image.close()


def test_snapshots_are_made_applied_and_deleted(folder: Path, ours: Run) -> None:
    before = subprocess.run([need("qemu-img"), "convert", "-O", "raw", "base.qcow2", "before.raw"])
    assert before.returncode == 0
    assert ours("snapshot", "-c", "mine", "base.qcow2") == (0, "", "")
    assert ours("snapshot", "-c", "mine", "base.qcow2") == (0, "", "")  # a second one of the same tag, as qemu-img does
    assert ours("snapshot", "-l", "base.qcow2") == theirs("snapshot", "-l", "base.qcow2")
    assert ours("snapshot", "-a", "first", "base.qcow2") == (0, "", "")
    assert ours("snapshot", "-d", "mine", "base.qcow2") == (0, "", "")
    assert ours("snapshot", "-a", "mine", "base.qcow2") == (0, "", "")
    subprocess.run([need("qemu-img"), "convert", "-O", "raw", "base.qcow2", "after.raw"], check=True)
    assert Path("before.raw").read_bytes() == Path("after.raw").read_bytes()
    assert theirs("check", "-q", "base.qcow2")[0] == 0


def test_repairs(folder: Path, ours: Run) -> None:
    status, out, _ = ours("check", "-r", "leaks", "leaky.qcow2")
    assert status == 0
    assert out.startswith("The following inconsistencies were found and repaired:\n\n    3 leaked clusters\n    0 corr")
    assert "\nDouble checking the fixed image now...\nNo errors were found on the image.\n" in out
    status, out, _ = ours("check", "-r", "leaks", "lazy.qcow2")
    assert status == 2
    status, out, _ = ours("check", "-r", "all", "--output=json", "lazy.qcow2")
    assert status == 0
    assert json.loads(out)["corruptions-fixed"] == 32
    for name in ("leaky.qcow2", "lazy.qcow2"):
        assert theirs("check", name)[0] == 0
        assert ours("check", name) == theirs("check", name)


@pytest.mark.parametrize("source", ["base.raw", "base.qcow2", "packed.qcow2", "top.qcow2"])
@pytest.mark.parametrize("target", [("raw", ""), ("qcow2", "compat=v2"), ("qcow2", "cluster_size=4k")], ids=str)
def test_conversions(folder: Path, ours: Run, source: str, target: tuple[str, str]) -> None:
    kind, options = target
    asked = ("-o", options) if options else ()
    assert ours("convert", "-O", kind, *asked, source, "new") == (0, "", "")
    assert theirs("compare", "new", source)[0] == 0
    if kind == "qcow2":
        assert theirs("check", "-q", "new")[0] == 0
    subprocess.run([need("qemu-img"), "convert", "-O", kind, *asked, source, "new.theirs"], check=True)
    assert Path("new").stat().st_blocks <= Path("new.theirs").stat().st_blocks + 256


@pytest.mark.parametrize("source", ["base.raw", "base.qcow2", "packed.qcow2", "top.qcow2", "mixed.raw"])
@pytest.mark.parametrize(
    "options",
    ["", "compat=v2", "cluster_size=512", "cluster_size=4k,refcount_bits=1", "cluster_size=2M",
     "compression_type=zstd", "compression_type=zstd,cluster_size=512,refcount_bits=64"],
)  # fmt: skip
def test_compressed(folder: Path, ours: Run, source: str, options: str) -> None:
    """qemu-img reads it, finds nothing to say, and would have made it no smaller."""
    Path("mixed.raw").write_bytes(mixed())
    asked = ("-o", options) if options else ()
    assert ours("convert", "-c", "-O", "qcow2", *asked, source, "new") == (0, "", "")
    assert theirs("compare", "new", source)[0] == 0
    assert theirs("check", "-q", "new")[0] == 0
    subprocess.run([need("qemu-img"), "convert", "-c", "-O", "qcow2", *asked, source, "new.theirs"], check=True)
    assert Path("new").stat().st_size <= Path("new.theirs").stat().st_size + 65536
    assert ours("check", "new") == theirs("check", "new")
    assert ours("info", "--output=json", "new")[0] == 0 and ours("map", "new") == theirs("map", "new")
    image = open_image("new", "qcow2")
    before = image.read(0, image.size)
    image.write(100_000, b"over" * 1000)
    image.close()
    assert theirs("check", "-q", "new")[0] == 0
    Path("wanted.raw").write_bytes(before[:100_000] + b"over" * 1000 + before[104_000:])
    assert theirs("compare", "-f", "qcow2", "-F", "raw", "new", "wanted.raw")[0] == 0


def mixed() -> bytes:
    """Clusters that deflate well, a little, not at all, and a disk that ends within one."""
    generator = random.Random(7)
    parts = [b"x" * 70_000, generator.randbytes(200_000), bytes(300_000)]
    for _ in range(40):
        parts += [generator.randbytes(generator.randrange(30_000)), b"text " * generator.randrange(8000)]
    return b"".join(parts)[: 2_000_000 // 512 * 512]


def test_compressed_into_an_image_that_is_there(folder: Path, ours: Run) -> None:
    """Where nothing is in use; what is cannot be replaced by a compressed cluster."""
    create_image("there.qcow2", CreateOptions(SIZE * 2))
    assert ours("convert", "-c", "-n", "-S", "0", "-O", "qcow2", "base.raw", "there.qcow2") == (0, "", "")
    assert theirs("compare", "there.qcow2", "base.raw")[0] == 0 and theirs("check", "-q", "there.qcow2")[0] == 0
    before = Path("there.qcow2").read_bytes()
    status, _, err = ours("convert", "-c", "-n", "-O", "qcow2", "base.raw", "there.qcow2")
    assert status == 1 and "is in use: no compressed one can replace it" in err
    assert theirs("compare", "there.qcow2", "base.raw")[0] == 0 and len(before) == Path("there.qcow2").stat().st_size


def test_converting_a_snapshot_with_progress(folder: Path, ours: Run) -> None:
    status, out, err = ours("convert", "-p", "-l", "first", "-O", "raw", "base.qcow2", "new")
    assert (status, out) == (0, "")
    assert "converting" in err
    subprocess.run([need("qemu-img"), "convert", "-l", "first", "-O", "raw", "base.qcow2", "new.theirs"], check=True)
    assert Path("new").read_bytes() == Path("new.theirs").read_bytes()


def test_resizing(folder: Path, ours: Run) -> None:
    assert ours("resize", "top.qcow2", "+1M") == (0, "Image resized.\n", "")
    assert ours("resize", "top.qcow2", "1M")[0] == 1
    assert ours("resize", "-q", "--shrink", "top.qcow2", "1M") == (0, "", "")
    assert json.loads(theirs("info", "--output=json", "top.qcow2")[1])["virtual-size"] == 1 << 20
    assert theirs("check", "-q", "top.qcow2")[0] == 0
    assert ours("resize", "-f", "raw", "base.raw", "5M") == (0, "Image resized.\n", "")
    assert Path("base.raw").stat().st_size == 5 << 20


def test_preallocated_tables(folder: Path, ours: Run) -> None:
    for options in ("preallocation=metadata", "preallocation=metadata,cluster_size=512,refcount_bits=64"):
        assert ours("create", "-q", "-f", "qcow2", "-o", options, "new", "3M")[0] == 0
        assert theirs("check", "new")[1].startswith("No errors were found on the image.\n")
        assert "= 100.00% allocated" in theirs("check", "new")[1]
        assert ours("map", "--output=json", "new") == theirs("map", "--output=json", "new")
        assert Path("new").stat().st_blocks * 512 < 1 << 20


def test_help(ours: Run) -> None:
    for arguments in (["--help"], ["-h"], ["create", "--help"]):
        status, out, err = ours(*arguments)
        assert (status, err) == (0, "")
        assert out.startswith("usage: timevm img")
    assert ours()[0] == 1


def test_help_on_options(ours: Run) -> None:
    status, out, _ = ours("create", "-f", "qcow2", "-o", "help")
    lines = theirs("create", "-f", "qcow2", "-o", "help")[1].splitlines()
    assert status == 0
    assert sum(line in lines for line in out.splitlines()) == 7


def test_a_missing_backing_file(folder: Path, ours: Run) -> None:
    create_image("alone.qcow2", CreateOptions(SIZE, backing_file="nowhere", backing_format="raw"))
    for command in ("map", "info", "snapshot -c x"):
        assert ours(*command.split(), "alone.qcow2") == theirs(*command.split(), "alone.qcow2")
    assert ours("snapshot", "-l", "alone.qcow2") == (0, "", "")
    assert ours("check", "alone.qcow2")[0] == 0


def test_names_from_an_image_do_not_steer_the_terminal(folder: Path, ours: Run) -> None:
    image = open_image("base.qcow2")
    assert isinstance(image, Qcow2Image)
    image.save_snapshot("evil\x1b[2J\n")
    image.close()
    for command in ("snapshot -l", "info", "info --output=json"):
        _, out, _ = ours(*command.split(), "base.qcow2")
        assert "\x1b" not in out
        assert "evil" in out


def test_sizes() -> None:
    assert [size_text(value) for value in (0, 999, 1000, 204 << 10, 1234567, 64 << 20, 1000 << 20, 5 << 40)] == [
        "0 B",
        "999 B",
        "0.977 KiB",
        "204 KiB",
        "1.18 MiB",
        "64 MiB",
        "0.977 GiB",
        "5 TiB",
    ]
    assert [parse_size(text) for text in ("1", "1k", "1K", "5.5M", "2G", "1T", "0x10", "7b")] == [
        1,
        1024,
        1024,
        5767168,
        2 << 30,
        1 << 40,
        16,
        7,
    ]
