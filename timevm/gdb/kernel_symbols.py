"""A symbol file for gdb out of what a Linux guest prints of ``/proc/kallsyms``, where there is no ``vmlinux``.

``python -m timevm.gdb.kernel_symbols [--architecture x86_64] CONSOLE OUTPUT.elf``: ``CONSOLE`` is anything with lines
of kallsyms in it, for example the guest's whole console.  Functions only, and of the kernel proper: modules move.
"""

from __future__ import annotations

import argparse
import re
import struct
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

#: address, kind (``t``: local, ``T``: global, ``W``: weak function), name; a module's name would follow
_LINE = re.compile(r"^\s*([0-9a-f]{16}) ([tTwW]) ([\w.$]+)\s*$", re.MULTILINE | re.ASCII)

#: ELF-64, little-endian (System V ABI, chapter 4)
_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_EXECUTABLE = 2
#: ELF's numbers of processors
MACHINES = {"aarch64": 183, "riscv64": 243, "x86_64": 62}
_SYMBOLS, _STRINGS, _NOTHING_IN_FILE = 2, 3, 8
_ALLOCATED_CODE = 2 | 4
_LOCAL, _GLOBAL, _FUNCTION = 0, 1, 2
_SECTION_NAMES = b"\0.text\0.symtab\0.strtab\0.shstrtab\0"


def read_kallsyms(text: str) -> list[tuple[int, str, bool]]:
    """(address, name, is global) of each function, in order of address."""
    found = {(int(address, 16), name, kind.isupper()) for address, kind, name in _LINE.findall(text)}
    return sorted(symbol for symbol in found if symbol[0])


def symbol_file(symbols: Sequence[tuple[int, str, bool]], architecture: str = "aarch64") -> bytes:
    """An ELF file with no contents but ``symbols``, of which there is one at least."""
    first, last = symbols[0][0], symbols[-1][0]
    ordered = sorted(symbols, key=lambda symbol: symbol[2])  # local ones first, says the ABI
    names, table = bytearray(b"\0"), bytearray(_SYMBOL.size)
    ends = sorted({address for address, _, _ in symbols} | {last + 4})
    size_of = {start: end - start for start, end in pairwise(ends)}
    for address, name, is_global in ordered:
        binding = _GLOBAL if is_global else _LOCAL
        table += _SYMBOL.pack(len(names), binding << 4 | _FUNCTION, 0, 1, address, size_of[address])
        names += name.encode() + b"\0"
    locals_count = 1 + sum(not is_global for _, _, is_global in ordered)
    at = _HEADER.size
    places = []
    for part in (table, names, _SECTION_NAMES):
        places.append((at, len(part)))
        at += len(part)
    sections = b"".join(
        _SECTION.pack(*row)
        for row in (
            (0,) * 10,
            (1, _NOTHING_IN_FILE, _ALLOCATED_CODE, first, 0, last + 4 - first, 0, 0, 4, 0),
            (7, _SYMBOLS, 0, 0, *places[0], 3, locals_count, 8, _SYMBOL.size),
            (15, _STRINGS, 0, 0, *places[1], 0, 0, 1, 0),
            (23, _STRINGS, 0, 0, *places[2], 0, 0, 1, 0),
        )
    )
    identification = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = _HEADER.pack(
        identification, _EXECUTABLE, MACHINES[architecture], 1, first, 0, at, 0, _HEADER.size, 0, 0, _SECTION.size, 5, 4
    )
    return header + bytes(table) + bytes(names) + _SECTION_NAMES + sections


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m timevm.gdb.kernel_symbols",
        description="A symbol file for gdb, of a kernel's functions, out of what its guest prints of /proc/kallsyms.",
        epilog="In the guest, as root: echo 0 > /proc/sys/kernel/kptr_restrict; cat /proc/kallsyms",
    )
    parser.add_argument("console", type=Path, metavar="CONSOLE", help="text with lines of /proc/kallsyms in it")
    parser.add_argument("output", type=Path, metavar="OUTPUT.elf", help="the symbol file")
    parser.add_argument("--architecture", choices=sorted(MACHINES), default="aarch64", help="the guest's (aarch64)")
    options = parser.parse_args(argv)
    try:
        symbols = read_kallsyms(options.console.read_text(errors="replace"))
        if not symbols:
            parser.error(f"{options.console}: no symbols (is /proc/sys/kernel/kptr_restrict 0, and were you root?)")
        options.output.write_bytes(symbol_file(symbols, options.architecture))
    except OSError as error:
        parser.error(f"{error.filename}: {error.strerror}")
    print(f"{options.output}: {len(symbols)} functions")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
