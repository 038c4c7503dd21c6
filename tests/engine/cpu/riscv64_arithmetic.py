"""Random arithmetic, loads, stores and atomics of RV64IMAFDC without a trap, and what QEMU makes of them.

``python -m tests.engine.cpu.riscv64_arithmetic FIRST COUNT`` compares with ``qemu-riscv64`` (Debian: qemu-user);
``... FIRST COUNT write`` writes the digests of it that ``test_riscv64_arithmetic`` compares with.
"""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import xxhash

from tests.engine.cpu import riscv64_assembler as a
from tests.engine.cpu.riscv64_board import RAM, RiscvBoard
from timevm.engine.cpu.base import StopKind

DIGESTS = Path(__file__).parents[2] / "data" / "riscv64-arithmetic.json"
#: a program is so many stretches of so many instructions, with all registers noted behind each
STRETCHES, LENGTH = 24, 40
DATA, DUMP = RAM + 0x10_0000, RAM + 0x12_0000
#: of one note: 32 registers, 32 of floating point, fcsr, and room
NOTE, FLOATS, FCSR = 552, 256, 512
DATA_AT, SCRATCH, DUMP_AT = 27, 30, 31
REGISTERS = (*range(1, 27), 28, 29)
COMPRESSED = (8, 9, 10, 11, 12, 13, 14, 15)
NOTED = tuple(number for number in range(65) if number not in (0, DATA_AT, SCRATCH, DUMP_AT))

WHOLE = (0, 1, 2, 32, 63, 64, (1 << 31) - 1, 1 << 31, 0xFFFF_FFFF, 0xFFFF_FFFF_8000_0000, (1 << 63) - 1, 1 << 63,
         (1 << 64) - 1)  # fmt: skip
DOUBLES = (0, 1 << 63, 0x3FF << 52, 0xBFF << 52, 0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48, 0x7FF << 52 | 1, 1,
           (1 << 52) - 1, 1 << 52, (0x7FF << 52) - 1, 0x433 << 52, 0x43E << 52, 0xC3E << 52, 0x41DF_FFFF_FFC0_0000,
           0x41E << 52)  # fmt: skip
SINGLES = (0, 1 << 31, 0x3F80_0000, 0xBF80_0000, 0x7F80_0000, 0xFF80_0000, 0x7FC0_0000, 0x7F80_0001, 1, 0x7F_FFFF,
           0x80_0000, 0x7F7F_FFFF, 0x4B00_0000, 0x5F00_0000, 0xDF00_0000, 0x4F00_0000)  # fmt: skip


def _whole(rng: random.Random) -> int:
    return rng.choice(WHOLE) if rng.random() < 0.4 else rng.getrandbits(64) >> rng.randrange(64)


def _double(rng: random.Random) -> int:
    if rng.random() < 0.7:
        return rng.choice(DOUBLES) if rng.random() < 0.7 else rng.getrandbits(64)
    return int(struct.unpack("<Q", struct.pack("<d", rng.uniform(-1e6, 1e6)))[0])


def _single(rng: random.Random) -> int:
    if rng.random() < 0.7:
        value = rng.choice(SINGLES) if rng.random() < 0.7 else rng.getrandbits(32)
    else:
        value = struct.unpack("<I", struct.pack("<f", rng.uniform(-1e6, 1e6)))[0]
    return 0xFFFF_FFFF << 32 | value


def _register_operation(rng: random.Random, rd: int, rs1: int, rs2: int) -> int:
    word = rng.random() < 0.4
    funct7, funct3 = rng.choice(
        (*((0, kind) for kind in ((0, 1, 5) if word else range(8))), (0x20, 0), (0x20, 5),
         *((1, kind) for kind in ((0, 4, 5, 6, 7) if word else range(8))))
    )  # fmt: skip
    return a.operation(funct7, funct3, rd, rs1, rs2, word)


def _shift(rng: random.Random, rd: int, rs1: int) -> int:
    is_word = rng.random() < 0.5
    opcode, count = (0x1B, rng.randrange(32)) if is_word else (0x13, rng.randrange(64))
    kind, arithmetic = rng.choice(((1, 0), (5, 0), (5, 0x400)))
    return (count | arithmetic) << 20 | rs1 << 15 | kind << 12 | rd << 7 | opcode


def _compressed(rng: random.Random, rd: int, rs2: int) -> int:
    """C.ADDI, C.MV, C.ADD, C.LI, C.ADDIW, C.SLLI, C.LUI and those of two of eight registers."""
    c1, c2, bits = rng.choice(COMPRESSED) - 8, rng.choice(COMPRESSED) - 8, rng.randrange(1, 32)
    two = c1 << 7 | c2 << 2
    return rng.choice(
        (a.c_addi(rd, bits), a.c_mv(rd, rs2), 0x9002 | rd << 7 | rs2 << 2, 0x4001 | rd << 7 | bits << 2,
         0x2001 | rd << 7 | bits << 2, 0x0002 | rd << 7 | bits << 2, 0x6001 | (rd + 3 * (rd == 2)) << 7 | bits << 2,
         0x8001 | c1 << 7 | bits << 2, 0x8401 | c1 << 7 | bits << 2, 0x9801 | c1 << 7 | bits << 2,
         *(kind | two for kind in (0x8C01, 0x8C21, 0x8C41, 0x8C61, 0x9C01, 0x9C21)))
    )  # fmt: skip


def _floating(rng: random.Random, rd: int, rs1: int, form: int) -> list[int]:
    """``form``: 0 single, 1 double."""
    f1, f2, f3, f4 = (rng.randrange(32) for _ in range(4))
    rounding = rng.choice((0, 1, 2, 3, 4, 7))
    match rng.randrange(10):
        case 0:
            return [a.floating(0x2C | form, f1, f2, 0, rounding)]  # FSQRT
        case 1:
            return [a.floating(0x10 | form, f1, f2, f3, rng.randrange(3))]  # FSGNJ
        case 2:
            return [a.floating(0x14 | form, f1, f2, f3, rng.randrange(2))]  # FMIN, FMAX
        case 3:
            return [a.floating(0x50 | form, rd, f2, f3, rng.randrange(3))]  # FLE, FLT, FEQ
        case 4:
            return [a.floating(0x70 | form, rd, f2, 0, 1)]  # FCLASS
        case 5:
            return [f4 << 27 | a.floating(form, f1, f2, f3, rounding) & ~0x7F | rng.choice((0x43, 0x47, 0x4B, 0x4F))]
        case 6:
            return [a.floating(0x60 | form, rd, f2, rng.randrange(4), rounding)]  # FCVT to a whole number
        case 7:
            return [a.floating(0x68 | form, f1, rs1, rng.randrange(4), rounding)]  # and from one
        case _:
            return [a.floating(rng.choice((0, 4, 8, 12)) | form, f1, f2, f3, rounding)]


def _one(rng: random.Random, form: int) -> list[int]:
    rd, rs1, rs2 = (rng.choice(REGISTERS) for _ in range(3))
    offset, double = rng.randrange(-1024, 1016), rng.random() < 0.5
    match rng.randrange(17):
        case 0 | 1 | 2 | 3:
            return [_register_operation(rng, rd, rs1, rs2)]
        case 4:
            return [a.addi(rd, rs1, rng.randrange(-2048, 2048)) | rng.choice((0, 2, 3, 4, 6, 7)) << 12]
        case 5:
            return [rng.choice((_shift(rng, rd, rs1), a.addiw(rd, rs1, offset), a.lui(rd, rng.getrandbits(20))))]
        case 6:
            return [a.load(rd, DATA_AT, offset, rng.randrange(7))]
        case 7:
            return [a.store(rs2, DATA_AT, offset, rng.randrange(4))]
        case 8:
            kind = rng.choice((0, 1, 4, 8, 12, 16, 20, 24, 28))
            return [a.addi(SCRATCH, DATA_AT, offset & -8), a.atomic(kind, rd, SCRATCH, rs2, double)]
        case 9:
            reserve, release = a.atomic(2, rd, SCRATCH, 0, double), a.atomic(3, rs1, SCRATCH, rs2, double)
            return [a.addi(SCRATCH, DATA_AT, offset & -8), reserve, release]
        case 10:
            return [_compressed(rng, rd, rs2)]
        case 11:
            kind = 2 + form
            number = rng.randrange(32)
            return [rng.choice((a.float_load, a.float_store))(number, DATA_AT, offset, kind)]
        case 12:
            return [a.csrr(rd, "fflags")] if double else [a.addi(SCRATCH, 0, rng.randrange(5)), a.csrw("frm", SCRATCH)]
        case _:
            return _floating(rng, rd, rs1, form)


class Program:
    """``memory``: what is at RAM, from its first instruction on.  ``end``: the first call of the system in it."""

    def __init__(self, seed: int) -> None:
        rng = random.Random(seed)
        self.form = seed & 1
        registers = [_whole(rng) for _ in range(32)]
        registers += [(_double if self.form else _single)(rng) for _ in range(32)]
        data = rng.randbytes(4096)
        text = [*a.load_constant(DUMP_AT, DUMP)]
        text += [a.float_load(number, DUMP_AT, FLOATS + 8 * number) for number in range(32)]
        text += [a.load(number, DUMP_AT, 8 * number) for number in range(1, 31)]
        text += a.load_constant(DATA_AT, DATA + 2048)
        for _ in range(STRETCHES):
            end = len(text) + LENGTH
            while len(text) < end:
                text += _one(rng, self.form)
            text += [a.addi(DUMP_AT, DUMP_AT, NOTE)]
            text += [a.store(number, DUMP_AT, 8 * number) for number in range(1, 31)]
            text += [a.float_store(number, DUMP_AT, FLOATS + 8 * number) for number in range(32)]
            text += [a.csrr(SCRATCH, "fcsr"), a.store(SCRATCH, DUMP_AT, FCSR)]
        # write(1, DUMP, ...); exit(0)
        text += [a.addi(10, 0, 1), *a.load_constant(11, DUMP), *a.load_constant(12, NOTE * (STRETCHES + 1))]
        text += [a.addi(17, 0, 64)]
        self.end = RAM + len(a.code(*text))
        code = a.code(*text, a.ECALL, a.addi(10, 0, 0), a.addi(17, 0, 93), a.ECALL)
        memory = bytearray(DUMP - RAM + NOTE * (STRETCHES + 1))
        memory[: len(code)] = code
        memory[DATA - RAM : DATA - RAM + len(data)] = data
        memory[DUMP - RAM : DUMP - RAM + 512] = struct.pack("<64Q", *registers)
        self.memory = bytes(memory)

    def notes(self, dump: bytes) -> list[tuple[int, ...]]:
        """What is compared.  Of single precision without the upper half of registers: see decision 0152."""
        found = []
        for stretch in range(1, STRETCHES + 1):
            words = struct.unpack_from("<65Q", dump, NOTE * stretch)
            mask = (1 << 64) - 1 if self.form else 0xFFFF_FFFF
            found.append(tuple(words[n] & mask if 32 <= n < 64 else words[n] for n in NOTED))
        return found

    def digest(self, dump: bytes) -> str:
        """Of the program, and of what it noted."""
        return f"{xxhash.xxh64_hexdigest(self.memory)} {xxhash.xxh64_hexdigest(repr(self.notes(dump)).encode())}"


class Bench:
    def __init__(self) -> None:
        self._board = RiscvBoard(b"")
        self._start = self._board.cpu.state()

    def run(self, program: Program) -> bytes:
        board = self._board
        board.write(RAM, program.memory)
        board.cpu.code_changed(RAM, len(program.memory))
        board.cpu.restore(self._start)
        board.cpu.write_register("mstatus", 1 << 13)
        board.cpu.set_breakpoints(frozenset({program.end}))
        stop = board.cpu.run(100_000)
        assert stop.kind is StopKind.BREAKPOINT, stop
        return board.read(DUMP, NOTE * (STRETCHES + 1))


def qemu(program: Program) -> bytes:
    """The same program as a process of its own: an ELF file with one segment."""
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1" + bytes(9), 2, 243, 1, RAM, 64, 0, 5, 64, 56, 1, 0, 0, 0)
    size = len(program.memory)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0x1000, RAM, RAM, size, size, 0x1000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program"
        path.write_bytes((header + segment).ljust(0x1000, b"\0") + program.memory)
        path.chmod(0o755)
        return subprocess.run(["qemu-riscv64", str(path)], capture_output=True, timeout=60, check=True).stdout


def main() -> int:
    first, count = int(sys.argv[1]), int(sys.argv[2])
    bench, digests, differ = Bench(), {}, 0
    for seed in range(first, first + count):
        program = Program(seed)
        theirs, ours = qemu(program), bench.run(program)
        digests[str(seed)] = program.digest(theirs)
        for stretch, (one, other) in enumerate(zip(program.notes(theirs), program.notes(ours), strict=True)):
            if one != other:
                names = [n for n, x, y in zip(NOTED, one, other, strict=True) if x != y]
                print(f"seed {seed}, stretch {stretch}: registers {names} (from 32 on of floating point)")
                differ += 1
                break
    if sys.argv[3:] == ["write"]:
        DIGESTS.write_text(json.dumps(digests, indent=1) + "\n")
    print(f"{count} programs, {differ} differ")
    return int(differ > 0)


if __name__ == "__main__":
    sys.exit(main())
