"""QEMU's x86 test programs, fetched as Debian's source package and compiled here: nothing of them is in the repository.

They print what instructions computed (``test-i386``, ``test-mmx``) or what went wrong (the others).  They lie in
``.cache/guests``, and are compiled again when the compiler or this recipe changes.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.debian import NoPackages
from tests.guests import CACHE, I386, apt_for, locked
from tests.peers import need

#: inside of the source package
SOURCES = "tests/tcg/i386/"
#: what a 32-bit program is linked with; the compiler's own package is added
LIBRARIES = ("libc6", "libc6-dev", "linux-libc-dev")


@dataclass(frozen=True, slots=True)
class Recipe:
    """A program beside its C file: what else it needs.  ``header``: of test-mmx.py, made of x86.csv for these sets."""

    options: tuple[str, ...] = ()
    assembly: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    bits: tuple[int, ...] = (64, 32)


RECIPES = {
    "test-i386": Recipe(("-fno-pie", "-no-pie"), ("test-i386-code16.S", "test-i386-vm86.S")),
    "test-i386-bmi2": Recipe(),
    "test-i386-f2xm1": Recipe(),
    "test-i386-fbstp": Recipe(),
    "test-i386-fisttp": Recipe(),
    "test-i386-fldcst": Recipe(),
    "test-i386-fp-exceptions": Recipe(),
    "test-i386-fpatan": Recipe(),
    "test-i386-fscale": Recipe(),
    "test-i386-fxam": Recipe(),
    "test-i386-fxtract": Recipe(),
    "test-i386-fyl2x": Recipe(),
    "test-i386-fyl2xp1": Recipe(),
    "test-i386-pcmpistri": Recipe(("-msse4.2",)),
    "test-i386-pseudo-denormal": Recipe(),
    "test-i386-snan-convert": Recipe(),
    "test-i386-sse-exceptions": Recipe(("-msse4.1", "-mfpmath=sse")),
    "test-i386-ssse3": Recipe(bits=(64,)),
    "test-mmx": Recipe(("-masm=intel", "-O", "-I."), header=("MMX", "SSE", "SSE2", "SSE3", "SSSE3"), bits=(64,)),
}


def programs() -> dict[str, Path]:
    """Each as ``64/test-i386``.  The calling test fails with the reason where they cannot be had."""
    if platform.machine() != "x86_64":
        pytest.skip("the suite is compiled by and compared with an x86-64 host")
    compiler = need("gcc")
    try:
        with locked():
            return made(compiler)
    except NoPackages as why:
        reason = str(why)
    pytest.fail(f"no x86 instruction tests: {reason}. Deselect them with -m 'not linux'", pytrace=False)


def made(compiler: str) -> dict[str, Path]:
    """Raises NoPackages."""
    version = output([compiler, "-dumpfullversion"], CACHE).strip()
    key = hashlib.sha256(repr((version, RECIPES, LIBRARIES)).encode()).hexdigest()[:16]
    folder = CACHE / f"x86-suite-{key}"
    names = [f"{bits}/{name}" for bits in (64, 32) for name, recipe in RECIPES.items() if bits in recipe.bits]
    if not folder.exists():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        sources, libraries = fetched(part, version)
        for name in names:
            compile_program(compiler, name, part, sources, libraries)
        shutil.rmtree(part / "packages")
        part.rename(folder)
    return {name: folder / name for name in names}


def fetched(part: Path, version: str) -> tuple[Path, Path]:
    """The sources, and the 32-bit libraries for this version of gcc."""
    packages = part / "packages"
    apt = apt_for(I386)
    apt.prepare()
    apt.download("qemu", packages)
    archives = list(packages.glob("qemu_*.orig.tar.*"))
    if len(archives) != 1:
        raise NoPackages(f"the source package qemu has {len(archives)} archives of sources")
    sources = part / "sources"
    sources.mkdir()
    with tarfile.open(archives[0]) as archive:
        for member in archive:
            if member.isfile() and f"/{SOURCES}" in member.name and (data := archive.extractfile(member)):
                (sources / Path(member.name).name).write_bytes(data.read())
    libraries = part / "libraries"
    for package in (*LIBRARIES, f"libgcc-{version.split('.')[0]}-dev"):
        apt.unpack(package, libraries)
    return sources, libraries


def compile_program(compiler: str, name: str, part: Path, sources: Path, libraries: Path) -> None:
    bits, plain = name.split("/")
    recipe = RECIPES[plain]
    if recipe.header:
        made_header = [sys.executable, "test-mmx.py", "x86.csv", f"{plain}.h", *recipe.header]
        output(made_header, sources)
    command = [compiler, f"-m{bits}", "-O2", "-w", "-static", *recipe.options]
    if bits == "32":
        command += for_32_bits(libraries)
    (part / bits).mkdir(exist_ok=True)
    output([*command, "-o", str(part / name), f"{plain}.c", *recipe.assembly, "-lm"], sources)


def for_32_bits(libraries: Path) -> list[str]:
    """Options that let a compiler without multilib find the other architecture's files."""
    found = [path.parent for pattern in ("crt1.o", "crtbeginT.o") for path in libraries.rglob(pattern)]
    headers = libraries / "usr" / "include"
    options = ["-isystem", str(headers), "-isystem", str(headers / "i386-linux-gnu")]
    for folder in found:
        options += ["-B", str(folder), "-L", str(folder)]
    return options


def output(command: list[str], folder: Path) -> str:
    """Raises NoPackages with what the program said if it fails."""
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise NoPackages(f"{' '.join(command)} failed: {done.stderr.strip()[-1000:]}")
    return done.stdout
