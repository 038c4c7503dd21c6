"""Random RISC-V programs that end at a given icount whatever they do.

Arithmetic, memory (aligned or not, RAM, nothing, a device that pulses an interrupt), reservations and atomics, floating
point, control registers, traps of all kinds, stores into the program itself.  The trap handler counts what it sees and
goes on behind the instruction.  In S-mode with paging too: page faults, pages whose table entries change with a fence
behind that or none, the program written through another mapping, a timer that fires.

``python -m tests.engine.cpu.riscv64_random FIRST COUNT`` runs so many in each of the two modes.
"""

from __future__ import annotations

import random
import sys
from dataclasses import dataclass
from typing import Any

from tests.engine.cpu import riscv64_assembler as a
from tests.engine.cpu.device import COUNTER, LINE
from tests.engine.cpu.riscv64_board import DATA, DEVICE, HANDLER, HOLE, RAM, RiscvBoard
from tests.engine.cpu.riscv64_tables import ACCESSED, DIRTY, READ, VALID, VIRTUAL, WRITE, Tables
from timevm.engine.cpu.base import StopKind
from timevm.engine.cpu.sbi import Arguments, SbiOutcome

#: instructions that a program runs
LENGTH = 700
#: words at its beginning that it may overwrite
OVERWRITTEN = 128
#: x26: the handler's sum, x27 data, x28 the device, x29 nothing, x30 the program, x31 and x25 the handler's own; in
#: S-mode x24 is the data's page table entry
SUM, DATA_AT, DEVICE_AT, HOLE_AT, PROGRAM_AT, SCRATCH, SCRATCH_2, ENTRY_AT = 26, 27, 28, 29, 30, 31, 25, 24
REGISTERS = (1, 2, 3, 5, 8, 9, 10, 11, 12, 13, 14, 15)
COMPRESSED = (8, 9, 10, 11, 12, 13, 14, 15)


@dataclass(frozen=True, slots=True)
class Mode:
    """``prefix`` of its control registers."""

    prefix: str
    line: str
    leave: int
    #: of sie or mie, and of sstatus or mstatus
    enabled: int
    interrupts_on: int

    def register(self, name: str) -> str:
        return self.prefix + name

    def handler(self) -> bytes:
        """Interrupts: line and timer are off.  Exceptions go on behind the instruction: its low bits are its length."""
        timer_off = [a.addi(SCRATCH, 0, -1), a.csrw("stimecmp", SCRATCH)] if self is SUPERVISOR else [a.NOP, a.NOP]
        return a.code(
            a.csrr(SCRATCH, self.register("cause")),
            a.add(SUM, SUM, SCRATCH),
            a.branch(5, SCRATCH, 0, 20),
            a.store(0, DEVICE_AT, LINE, 2),
            *timer_off,
            self.leave,
            a.csrr(SCRATCH_2, self.register("tval")),
            a.xor(SUM, SUM, SCRATCH_2),
            a.csrr(SCRATCH, self.register("epc")),
            a.load(SCRATCH_2, SCRATCH, 0, 4),
            a.andi(SCRATCH_2, SCRATCH_2, 3),
            a.addi(SCRATCH_2, SCRATCH_2, -3),
            a.addi(SCRATCH, SCRATCH, 2),
            a.bne(SCRATCH_2, 0, 8),
            a.addi(SCRATCH, SCRATCH, 2),
            a.csrw(self.register("epc"), SCRATCH),
            self.leave,
        )


MACHINE = Mode("m", "meip", a.MRET, 0x800, 8)
SUPERVISOR = Mode("s", "seip", a.SRET, 0x220, 2)


#: of an entry's two low bytes, what may change: rights, marks of use, the lowest bits of the frame
CHANGES = (VALID, WRITE, READ | WRITE, ACCESSED, DIRTY, ACCESSED | DIRTY, 0x400, ACCESSED | 0x400)


def _of_supervisor(rng: random.Random, rd: int) -> list[int]:
    """The table entry of the data's page, or of the program's other mapping, changes; or the timer is set."""
    if rng.random() < 0.7:
        bits, at, fence = rng.choice(CHANGES), rng.choice((0, 0, 0, 64)), rng.choice(([], [], [a.SFENCE_VMA]))
        constant = [a.addi(2, 0, bits if bits < 0x800 else bits - 0x1000)]
        if at == 0 and rng.random() < 0.3:
            return [*constant, a.atomic(4, rd, ENTRY_AT, 2, rng.random() < 0.5), *fence]
        kind = rng.choice((1, 2, 3, 3))
        return [*constant, a.load(rd, ENTRY_AT, at, kind), a.xor(rd, rd, 2), a.store(rd, ENTRY_AT, at, kind), *fence]
    return [a.csrr(rd, "time"), a.addi(rd, rd, rng.randrange(6)), a.csrw("stimecmp", rd)]


def _one(rng: random.Random, mode: Mode) -> list[int]:
    rd, rs1, rs2 = (rng.choice(REGISTERS) for _ in range(3))
    c1, c2 = rng.choice(COMPRESSED), rng.choice(COMPRESSED)
    offset = rng.randrange(-256, 256)
    match rng.randrange(27 if mode is SUPERVISOR else 25):
        case 0:
            return [a.addi(rd, rs1, rng.randrange(-2048, 2048))]
        case 1:
            return [a.operation(rng.choice((0, 1)), rng.randrange(8), rd, rs1, rs2)]
        case 2:
            return [a.operation(1, rng.choice((0, 4, 5, 6, 7)), rd, rs1, rs2, word=True)]
        case 3:
            return [a.lui(rd, rng.getrandbits(20))]
        case 4 | 5:
            return [a.load(rd, DATA_AT, offset, rng.randrange(7))]
        case 6 | 7:
            return [a.store(rs2, DATA_AT, offset, rng.randrange(4))]
        case 8:
            return [a.c_addi(rd, rng.randrange(-32, 32)), a.c_mv(rd, rs2)]
        case 9:
            return [a.c_mv(c1, DATA_AT), rng.choice((a.c_ld, a.c_sd))(c2, c1, 8 * rng.randrange(32))]
        case 10:
            return [a.c_mv(c1, DATA_AT), rng.choice((a.c_lw, a.c_sw))(c2, c1, 4 * rng.randrange(32))]
        case 11:
            kind = rng.choice((0, 1, 4, 8, 12, 16, 20, 24, 28))
            return [
                a.addi(rs1, DATA_AT, offset & rng.choice((-1, -8))),
                a.atomic(kind, rd, rs1, rs2, rng.random() < 0.5),
            ]
        case 12:
            return [a.andi(1, 1, 0x78), a.add(1, 1, DATA_AT), a.atomic(2, rd, 1, 0), a.addi(2, rd, 1),
                    a.atomic(3, rs2, rng.choice((1, DATA_AT)), 2)]  # fmt: skip
        case 13:
            return [a.store(rng.choice((0, rs2)), DEVICE_AT, LINE, 2)]
        case 14:
            return [a.load(rd, DEVICE_AT, COUNTER, rng.randrange(3))]
        case 15:
            return [
                rng.choice((a.load(rd, HOLE_AT, offset), a.store(rs2, HOLE_AT, offset), a.float_load(1, HOLE_AT, 8)))
            ]
        case 16:
            return [rng.choice((a.ECALL, a.EBREAK, a.C_EBREAK, a.C_ILLEGAL, 0xFFFF_FFFF, a.SRET | 1 << 26))]
        case 17:
            names = ("cycle", "time", "instret", "mcycle", mode.register("ip"), mode.register("status"), "fcsr")
            return [a.csrr(rd, rng.choice(names))]
        case 18:
            return [a.csrw(rng.choice(("mscratch", "fflags", "fcsr", "sepc", "stval")), rs1)]
        case 19:
            f1, f2, f3 = (rng.randrange(8) for _ in range(3))
            return [
                a.floating(rng.choice((0, 1, 4, 5, 8, 9, 12, 13)), f1, f2, f3, rng.choice((7, 7, 0, 1, 2, 3, 4, 5)))
            ]
        case 20:
            return [a.floating(0x69, rng.randrange(8), rs1, 2), a.floating(0x61, rd, rng.randrange(8), 2, 1)]
        case 21:
            return [rng.choice((a.float_load(rng.randrange(8), DATA_AT, offset), a.float_store(2, DATA_AT, offset, 2)))]
        case 22:
            forward = rng.choice((8, 12, 16))
            return [a.branch(rng.choice((0, 1, 4, 5, 6, 7)), rs1, rs2, forward)]
        case 23:
            # an instruction of the program becomes an addition
            place = 4 * rng.randrange(OVERWRITTEN)
            fence = rng.choice(([], [a.FENCE_I]))
            return [*a.load_constant(rd, a.addi(rs1, rs1, 1)), a.store(rd, PROGRAM_AT, place, 2), *fence]
        case _:
            if mode is SUPERVISOR and rng.random() < 0.7:
                return _of_supervisor(rng, rd)
            status, enabled = mode.register("status"), mode.register("ie")
            unmask = a.csrsi(status, mode.interrupts_on)
            return [rng.choice((unmask, a.csrrc(0, enabled, rs1), a.csrw(enabled, SUM), a.SFENCE_VMA))]


def program(seed: int, mode: Mode) -> bytes:
    rng = random.Random(seed)
    text = a.code(a.csrr(20, mode.register("status")))
    while len(text) < 0x700:
        text += a.code(*_one(rng, mode))
    # a store may have made an instruction of four bytes out of the last one of two
    return text + a.code(a.NOP, a.NOP, a.NOP, a.NOP, a.jal(0, -len(text) - 16))


class Bench:
    """One board for many programs."""

    def __init__(self, mode: Mode) -> None:
        def sbi(extension: int, function: int, arguments: Arguments) -> SbiOutcome:
            return SbiOutcome(extension & 0xFF, function & 0xFF)

        self.mode = mode
        self.board = RiscvBoard(b"", line=mode.line, sbi=sbi if mode is SUPERVISOR else None)
        self.start = self.board.cpu.state()

    def _map(self) -> dict[str, int]:
        """Tables, and the registers that go with them: data and the program have other addresses, holes none."""
        tables = Tables(self.board)
        tables.map(VIRTUAL, DATA, READ | WRITE | ACCESSED | DIRTY)
        tables.map(VIRTUAL + 0x8000, RAM, READ | WRITE)
        return {
            "satp": tables.satp,
            f"x{DATA_AT}": VIRTUAL + 0x80,
            f"x{PROGRAM_AT}": VIRTUAL + 0x8000,
            f"x{ENTRY_AT}": tables.entry(VIRTUAL),
        }

    def _prepare(self, seed: int) -> None:
        board, mode, rng = self.board, self.mode, random.Random(~seed)
        board.memory[:] = bytes(len(board.memory))
        board.write(HANDLER, mode.handler())
        board.write(RAM, program(seed, mode))
        board.write(DATA - 0x200, rng.randbytes(0x500))
        mapped = self._map() if mode is SUPERVISOR else {}
        board.cpu.code_changed(RAM, 0x4000)
        board.device.reads, board.device.log = 0, []
        board.cpu.restore(self.start)
        registers = {
            mode.register("tvec"): HANDLER,
            mode.register("status"): 1 << 13 | rng.choice((0, mode.interrupts_on)),
            mode.register("ie"): rng.choice((0, mode.enabled)),
            f"x{DATA_AT}": DATA,
            f"x{DEVICE_AT}": DEVICE,
            f"x{HOLE_AT}": HOLE,
            f"x{PROGRAM_AT}": RAM,
            **{f"x{number}": rng.getrandbits(64) for number in REGISTERS},
            **{f"f{number}": rng.getrandbits(64) for number in range(8)},
            **mapped,
        }
        for name, value in registers.items():
            board.cpu.write_register(name, value)

    def _finish(self) -> tuple[Any, ...]:
        state = self.board.cpu.state()
        return state, bytes(self.board.memory), tuple(self.board.device.log)

    def whole(self, seed: int) -> tuple[Any, ...]:
        self._prepare(seed)
        self._run(LENGTH)
        return self._finish()

    def _run(self, limit: int) -> bool:
        """Whether it goes on; some switch the machine off."""
        stop = self.board.cpu.run(limit)
        assert stop.kind is StopKind.POWER_OFF or (stop.kind, stop.icount) == (StopKind.LIMIT, limit), stop
        return stop.kind is StopKind.LIMIT and limit < LENGTH

    def sliced(self, seed: int, sizes: tuple[int, ...]) -> tuple[Any, ...]:
        """Now and then its state is taken and put back, and translations are dropped."""
        self._prepare(seed)
        rng = random.Random(seed)
        while self._run(min(LENGTH, self.board.cpu.icount + rng.choice(sizes))):
            if rng.random() < 0.1:
                self.board.cpu.restore(self.board.cpu.state())
            elif rng.random() < 0.02:
                self.board.cpu.flush_translations()
        return self._finish()


def differences(one: tuple[Any, ...], other: tuple[Any, ...]) -> str:
    """Empty if there are none."""
    found = [f"{key}" for key in one[0] if one[0][key] != other[0][key]]
    if one[0]["context"] != other[0]["context"]:
        found += [f"+{at}" for at in range(0, len(one[0]["context"]), 8)
                  if one[0]["context"][at:at + 8] != other[0]["context"][at:at + 8]]  # fmt: skip
    if one[1] != other[1]:
        found.append(f"memory at {next(at for at in range(len(one[1])) if one[1][at] != other[1][at]):#x}")
    if one[2] != other[2]:
        found.append("device log")
    return ", ".join(found)


def check(bench: Bench, seed: int) -> str:
    whole = bench.whole(seed)
    for sizes in ((1,), (1, 2, 3, 7, 20)):
        found = differences(whole, bench.sliced(seed, sizes))
        if found:
            return f"seed {seed}, slices of {sizes}: {found}"
    for instructions in (1, 3):
        bench.board.cpu.limit_blocks(instructions)
        found = differences(whole, bench.whole(seed))
        bench.board.cpu.limit_blocks(0)
        if found:
            return f"seed {seed}, blocks of {instructions}: {found}"
    return ""


def main() -> None:
    first, count = (int(argument) for argument in (*sys.argv[1:], "0", "1000")[:2])
    for mode in (MACHINE, SUPERVISOR):
        bench = Bench(mode)
        for seed in range(first, first + count):
            found = check(bench, seed)
            if found:
                print(f"{mode.prefix}-mode, {found}")


if __name__ == "__main__":
    main()
