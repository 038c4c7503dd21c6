"""The programs of others that the tests talk to: real gdb, qemu-img, telnet …  ``make check`` installs them as root."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

#: program -> the Debian package that has it
PACKAGES = {
    "qemu-img": "qemu-utils",
    "qemu-io": "qemu-utils",
    "gdb-multiarch": "gdb-multiarch",
    "telnet": "telnet",
    "nc": "netcat-openbsd",
    "socat": "socat",
    "screen": "screen",
    "tmux": "tmux",
    "bash": "bash",
    "zsh": "zsh",
    "fish": "fish",
    "mkfs.ext4": "e2fsprogs",
    "fsck.ext4": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "nasm": "nasm",
    "grub-mkrescue": "grub-common",
    "xorriso": "xorriso",
    "readelf": "binutils",
    "as": "binutils",
    "ld": "binutils",
    "nm": "binutils",
    "objcopy": "binutils",
    "gcc": "gcc libc6-dev",
    "iasl": "acpica-tools",
    "syslinux": "syslinux",
    "mcopy": "mtools",
    "mkfs.vfat": "dosfstools",
}

#: files of packages that are not programs
FILES = {
    "/usr/share/seabios/bios-256k.bin": "seabios",
    "/usr/lib/grub/i386-pc/boot.img": "grub-pc-bin",
    "/usr/lib/riscv64-linux-gnu/opensbi/generic/fw_dynamic.bin": "opensbi",
    "/usr/lib/u-boot/qemu_arm64/u-boot.bin": "u-boot-qemu",
}


def need(program: str) -> str:
    """Its path; the calling test fails with what to install when it is not there."""
    found = shutil.which(program)
    if found is None:
        pytest.fail(
            f"this test needs {program}: apt-get install {PACKAGES[program]} (`make peers` does it as root)",
            pytrace=False,
        )
    return found


def need_file(path: str) -> Path:
    """A file of FILES; the calling test fails with what to install when it is not there."""
    if not Path(path).exists():
        pytest.fail(
            f"this test needs {path}: apt-get install {FILES[path]} (`make peers` does it as root)", pytrace=False
        )
    return Path(path)


if __name__ == "__main__":
    missing = {package for program, package in PACKAGES.items() if shutil.which(program) is None}
    missing |= {package for path, package in FILES.items() if not Path(path).exists()}
    print(*sorted(missing))
