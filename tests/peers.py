"""The programs of others that the tests talk to: real gdb, qemu-img, telnet …  ``make check`` installs them as root."""

from __future__ import annotations

import shutil

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
    "iasl": "acpica-tools",
    "syslinux": "syslinux",
    "mcopy": "mtools",
    "mkfs.vfat": "dosfstools",
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


if __name__ == "__main__":
    print(*sorted({package for program, package in PACKAGES.items() if shutil.which(program) is None}))
