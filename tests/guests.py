"""The test guests: Debian's Linux with our initramfs, and the bare guests of ``examples/guests/bare``.

Linux comes from ``$TIMEVM_GUESTS`` when that is set (``arm64/kernel``, ``x86_64/initrd.gz``, ``disk/``), otherwise from
Debian packages, once, into ``.cache/guests``.  ``python -m tests.guests`` makes it and prints the paths.
"""

from __future__ import annotations

import fcntl
import gzip
import hashlib
import lzma
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.debian import Apt, NoPackages
from tests.initramfs import Entry, compressed

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "guests"
INIT = ROOT / "examples" / "guests" / "linux" / "init"
DATA = ROOT / "tests" / "data"

BUSYBOX_PACKAGE = "busybox-static"


@dataclass(frozen=True, slots=True)
class Flavour:
    """One architecture's Linux: ``folder`` of the guests, Debian's name of it and of its kernel.

    ``modules`` are loaded by init in this order, what they depend on first; built-in ones need nothing.
    """

    folder: str
    debian: str
    kernel_package: str
    modules: tuple[str, ...]
    #: of Debian, where the one that apt is configured for may not have the architecture
    release: str | None = None


VIRTIO = ("virtio", "virtio_ring", "virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net", "virtio-rng")
ARM64 = Flavour("arm64", "arm64", "linux-image-cloud-arm64", (*VIRTIO, "ext4"))
#: ext4 asks for crc32c by the name of the algorithm, which no dependency tells
I386 = Flavour("i386", "i386", "linux-image-686", (*VIRTIO, "ata_piix", "sd_mod", "crc32c_generic", "ext4"))
X86_64 = Flavour(
    "x86_64", "amd64", "linux-image-amd64", (*VIRTIO, "8139cp", "ata_piix", "sd_mod", "crc32c_generic", "ext4")
)
#: the first release with the architecture is Debian 13
RISCV64 = Flavour("riscv64", "riscv64", "linux-image-riscv64", (*VIRTIO, "crc32c_generic", "ext4"), release="trixie")


@dataclass(frozen=True, slots=True)
class LinuxGuest:
    """A kernel (flat Image, bzImage) and its initramfs; ``tvm=`` on its command line says what init does (README)."""

    kernel: Path
    initrd: Path


def linux_arm64() -> LinuxGuest:
    """The Linux guest; the calling test fails with the reason when there is none."""
    return linux_guest(ARM64)


def linux_x86_64() -> LinuxGuest:
    """The same for the PC."""
    return linux_guest(X86_64)


def linux_riscv64() -> LinuxGuest:
    """For the riscv board."""
    return linux_guest(RISCV64)


def linux_i386() -> LinuxGuest:
    """For a PC of 32 bits; from packages also where ``$TIMEVM_GUESTS`` has none."""
    return linux_guest(I386)


def linux_guest(flavour: Flavour) -> LinuxGuest:
    given = os.environ.get("TIMEVM_GUESTS")
    if given and (flavour is not I386 or (Path(given) / flavour.folder).exists()):
        return with_our_init(Path(given) / flavour.folder)
    try:
        return from_packages(flavour)
    except NoPackages as why:
        reason = str(why)
    folder = flavour.folder
    pytest.fail(
        f"no Linux guest: {reason}. Set TIMEVM_GUESTS to a folder with {folder}/kernel and {folder}/initrd.gz, "
        "or deselect these tests with -m 'not linux'",
        pytrace=False,
    )


def bare(name: str) -> Path:
    """A bare guest's ELF file: ``irq``, ``arm64``, ``arm64_mmu`` or ``disk``."""
    return DATA / f"{name}.elf"


def disk() -> Path | None:
    """The ext4 test disk (qcow2), where ``$TIMEVM_GUESTS`` has one."""
    given = os.environ.get("TIMEVM_GUESTS")
    path = Path(given) / "disk" / "tvm.qcow2" if given else None
    return path if path and path.exists() else None


def with_our_init(folder: Path) -> LinuxGuest:
    """Ready-made files, with our init behind their archive: of two files of one path the later one stays."""
    kernel, initrd = folder / "kernel", folder / "initrd.gz"
    for path in (kernel, initrd):
        if not path.exists():
            pytest.fail(f"TIMEVM_GUESTS is set, but {path} does not exist", pytrace=False)
    ready = initrd.read_bytes()
    ours = compressed([Entry.file("init", INIT.read_bytes(), 0o755)])
    target = CACHE / f"given-{hashlib.sha256(ready + ours).hexdigest()[:16]}.gz"
    with locked():
        if not target.exists():
            write_whole(target, ready + bytes(-len(ready) % 4) + ours)
    return LinuxGuest(kernel, target)


def from_packages(flavour: Flavour) -> LinuxGuest:
    """The guest made of Debian packages, from the cache when it is there.  Raises NoPackages."""
    recipe = hashlib.sha256(INIT.read_bytes() + repr(flavour.modules).encode()).hexdigest()[:16]
    folder = CACHE / flavour.folder
    guest = LinuxGuest(folder / "kernel", folder / f"initrd-{recipe}.gz")
    with locked():
        packages = folder / "root"
        if not guest.kernel.exists():
            shutil.rmtree(packages, ignore_errors=True)
            apt = apt_for(flavour)
            apt.prepare()
            kernels = [name for name in apt.depends(flavour.kernel_package) if name.startswith("linux-image-")]
            if not kernels:
                raise NoPackages(f"{flavour.kernel_package} depends on no kernel")
            versions = [apt.unpack(name, packages) for name in (kernels[0], BUSYBOX_PACKAGE)]
            (folder / "VERSION").write_text("\n".join(versions) + "\n")
            kernel = one(packages, "boot/vmlinu[xz]*")
            write_whole(guest.kernel, flat_image(kernel) if flavour is ARM64 else kernel.read_bytes())
        if not guest.initrd.exists():
            write_whole(guest.initrd, compressed(initramfs(packages, flavour.modules)))
    return guest


def apt_for(flavour: Flavour) -> Apt:
    """Of i386 the release alone: the mirror's updates for it are at times half there, and nothing needs them."""
    folder = CACHE / ("apt" if flavour is ARM64 else f"apt-{flavour.debian}")
    return Apt(folder, flavour.debian, release_alone=flavour is I386, release=flavour.release)


def initramfs(packages: Path, modules: tuple[str, ...]) -> list[Entry]:
    """busybox, our init, the modules in the order in which they go in, and empty folders."""
    entries = [Entry.folder(name) for name in ("bin", "dev", "mnt", "mod", "proc", "sys")]
    entries.append(Entry.file("bin/busybox", one(packages, "*bin/busybox").read_bytes(), 0o755))
    entries.append(Entry.file("init", INIT.read_bytes(), 0o755))
    available = {plain(path.name): path for path in packages.rglob("*.ko*")}
    order: dict[str, bytes] = {}

    def add(name: str) -> None:
        if name in order or name not in available:
            return
        data = available[name].read_bytes()
        module = lzma.decompress(data) if available[name].suffix == ".xz" else data
        depends = re.search(rb"\0depends=([^\0]*)\0", module)
        for other in depends.group(1).decode().split(",") if depends else ():
            add(plain(other))
        order[name] = module

    for name in modules:
        add(plain(name))
    entries += [Entry.file(f"mod/{name}.ko", module) for name, module in order.items()]
    entries.append(Entry.file("mod/order", "".join(f"{name}\n" for name in order).encode()))
    return entries


def plain(name: str) -> str:
    """A module's name as the kernel writes it."""
    return name.split(".")[0].replace("-", "_")


def one(folder: Path, pattern: str) -> Path:
    found = sorted(path for path in folder.rglob(pattern) if path.is_file())
    if not found:
        raise NoPackages(f"the packages hold no {pattern}")
    return found[0]


def flat_image(path: Path) -> bytes:
    """An arm64 ``Image`` (magic at 56: Linux, Documentation/arch/arm64/booting.rst), unpacked if it was gzipped."""
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    if data[56:60] != b"ARM\x64":
        raise NoPackages(f"{path.name} is no flat arm64 kernel image")
    return data


def write_whole(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(data)
    part.replace(path)


@contextmanager
def locked() -> Iterator[None]:
    """Only one process at a time makes guests."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


if __name__ == "__main__":
    made = linux_arm64()
    print(made.kernel, made.initrd, *(bare(name) for name in ("irq", "arm64")), sep="\n")
