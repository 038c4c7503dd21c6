"""A few RISC-V instructions as numbers, enough for programs of some dozen lines (Unprivileged specification 27)."""

from __future__ import annotations

import struct

NOP = 0x0000_0013
ECALL, EBREAK = 0x0000_0073, 0x0010_0073
SRET, MRET, WFI = 0x1020_0073, 0x3020_0073, 0x1050_0073
FENCE_I, SFENCE_VMA = 0x0000_100F, 0x1200_0073
C_NOP, C_EBREAK, C_ILLEGAL = 0x0001, 0x9002, 0x0000

CSR = {
    "fflags": 0x001,
    "frm": 0x002,
    "fcsr": 0x003,
    "sstatus": 0x100,
    "sie": 0x104,
    "stvec": 0x105,
    "scounteren": 0x106,
    "sepc": 0x141,
    "scause": 0x142,
    "stval": 0x143,
    "sip": 0x144,
    "stimecmp": 0x14D,
    "satp": 0x180,
    "mstatus": 0x300,
    "medeleg": 0x302,
    "mideleg": 0x303,
    "mie": 0x304,
    "mtvec": 0x305,
    "mcounteren": 0x306,
    "mcountinhibit": 0x320,
    "mscratch": 0x340,
    "mepc": 0x341,
    "mcause": 0x342,
    "mtval": 0x343,
    "mip": 0x344,
    "pmpcfg0": 0x3A0,
    "pmpaddr0": 0x3B0,
    "mcycle": 0xB00,
    "cycle": 0xC00,
    "time": 0xC01,
    "instret": 0xC02,
    "hpmcounter3": 0xC03,
}


def code(*instructions: int) -> bytes:
    """Those whose two low bits are not both set have two bytes."""
    return b"".join(struct.pack("<I" if bits & 3 == 3 else "<H", bits) for bits in instructions)


def _register(funct7: int, rs2: int, rs1: int, funct3: int, rd: int, opcode: int) -> int:
    return funct7 << 25 | rs2 << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode


def _immediate(value: int, rs1: int, funct3: int, rd: int, opcode: int) -> int:
    return (value & 0xFFF) << 20 | rs1 << 15 | funct3 << 12 | rd << 7 | opcode


def _store(value: int, rs2: int, rs1: int, funct3: int, opcode: int) -> int:
    return _register(value >> 5 & 0x7F, rs2, rs1, funct3, value & 0x1F, opcode)


def addi(rd: int, rs1: int, value: int) -> int:
    return _immediate(value, rs1, 0, rd, 0x13)


def addiw(rd: int, rs1: int, value: int) -> int:
    return _immediate(value, rs1, 0, rd, 0x1B)


def andi(rd: int, rs1: int, value: int) -> int:
    return _immediate(value, rs1, 7, rd, 0x13)


def slli(rd: int, rs1: int, count: int) -> int:
    return _immediate(count, rs1, 1, rd, 0x13)


def srli(rd: int, rs1: int, count: int) -> int:
    return _immediate(count, rs1, 5, rd, 0x13)


def operation(funct7: int, funct3: int, rd: int, rs1: int, rs2: int, word: bool = False) -> int:
    """Of two registers, M extension included (funct7 1)."""
    return _register(funct7, rs2, rs1, funct3, rd, 0x3B if word else 0x33)


def add(rd: int, rs1: int, rs2: int) -> int:
    return operation(0, 0, rd, rs1, rs2)


def xor(rd: int, rs1: int, rs2: int) -> int:
    return operation(0, 4, rd, rs1, rs2)


def lui(rd: int, value: int) -> int:
    return (value & 0xFFFFF) << 12 | rd << 7 | 0x37


def load(rd: int, rs1: int, offset: int = 0, kind: int = 3) -> int:
    """``kind``: 0 LB, 1 LH, 2 LW, 3 LD, 4 LBU, 5 LHU, 6 LWU."""
    return _immediate(offset, rs1, kind, rd, 0x03)


def store(rs2: int, rs1: int, offset: int = 0, kind: int = 3) -> int:
    """``kind``: 0 SB, 1 SH, 2 SW, 3 SD."""
    return _store(offset, rs2, rs1, kind, 0x23)


def branch(kind: int, rs1: int, rs2: int, offset: int) -> int:
    """``kind``: 0 BEQ, 1 BNE, 4 BLT, 5 BGE, 6 BLTU, 7 BGEU; ``offset`` in bytes."""
    bits = offset & 0x1FFF
    return (
        (bits >> 12) << 31 | (bits >> 5 & 0x3F) << 25 | rs2 << 20 | rs1 << 15 | kind << 12
        | (bits >> 1 & 0xF) << 8 | (bits >> 11 & 1) << 7 | 0x63
    )  # fmt: skip


def bne(rs1: int, rs2: int, offset: int) -> int:
    return branch(1, rs1, rs2, offset)


def jal(rd: int, offset: int) -> int:
    bits = offset & 0x1FFFFF
    return (
        (bits >> 20) << 31 | (bits >> 1 & 0x3FF) << 21 | (bits >> 11 & 1) << 20 | (bits >> 12 & 0xFF) << 12 | rd << 7
        | 0x6F
    )  # fmt: skip


def jalr(rd: int, rs1: int, offset: int = 0) -> int:
    return _immediate(offset, rs1, 0, rd, 0x67)


def csrrw(rd: int, name: str, rs1: int) -> int:
    return _immediate(CSR[name], rs1, 1, rd, 0x73)


def csrrs(rd: int, name: str, rs1: int) -> int:
    return _immediate(CSR[name], rs1, 2, rd, 0x73)


def csrrc(rd: int, name: str, rs1: int) -> int:
    return _immediate(CSR[name], rs1, 3, rd, 0x73)


def csrr(rd: int, name: str) -> int:
    return csrrs(rd, name, 0)


def csrw(name: str, rs1: int) -> int:
    return csrrw(0, name, rs1)


def csrsi(name: str, value: int) -> int:
    return _immediate(CSR[name], value, 6, 0, 0x73)


def atomic(kind: int, rd: int, rs1: int, rs2: int, double: bool = True) -> int:
    """``kind``: 0 AMOADD, 1 AMOSWAP, 2 LR, 3 SC, 4 AMOXOR, 8 AMOOR, 12 AMOAND, 16 AMOMIN, ..."""
    return _register(kind << 2, rs2, rs1, 3 if double else 2, rd, 0x2F)


def floating(funct7: int, rd: int, rs1: int, rs2: int, rounding: int = 7) -> int:
    """``funct7``: 0 FADD.S, 1 FADD.D, 4/5 FSUB, 8/9 FMUL, 12/13 FDIV, 0x69 FCVT.D.x, 0x61 FCVT.x.D, ..."""
    return _register(funct7, rs2, rs1, rounding, rd, 0x53)


def float_load(rd: int, rs1: int, offset: int = 0, kind: int = 3) -> int:
    return _immediate(offset, rs1, kind, rd, 0x07)


def float_store(rs2: int, rs1: int, offset: int = 0, kind: int = 3) -> int:
    return _store(offset, rs2, rs1, kind, 0x27)


def c_addi(rd: int, value: int) -> int:
    return (value >> 5 & 1) << 12 | rd << 7 | (value & 0x1F) << 2 | 1


def c_mv(rd: int, rs2: int) -> int:
    return 0x8002 | rd << 7 | rs2 << 2


def c_ld(rd: int, rs1: int, offset: int = 0) -> int:
    """``rd`` and ``rs1`` from x8 to x15, ``offset`` in eights up to 248."""
    return 0x6000 | (offset >> 3 & 7) << 10 | (rs1 - 8) << 7 | (offset >> 6 & 3) << 5 | (rd - 8) << 2


def c_sd(rs2: int, rs1: int, offset: int = 0) -> int:
    return c_ld(rs2, rs1, offset) | 0x8000


def c_lw(rd: int, rs1: int, offset: int = 0) -> int:
    """``offset`` in fours up to 124."""
    return (
        0x4000
        | (offset >> 3 & 7) << 10
        | (rs1 - 8) << 7
        | (offset >> 2 & 1) << 6
        | (offset >> 6 & 1) << 5
        | (rd - 8) << 2
    )


def c_sw(rs2: int, rs1: int, offset: int = 0) -> int:
    return c_lw(rs2, rs1, offset) | 0x8000


def c_ldsp(rd: int, offset: int = 0) -> int:
    return 0x6002 | (offset >> 5 & 1) << 12 | rd << 7 | (offset >> 3 & 3) << 5 | (offset >> 6 & 7) << 2


def c_sdsp(rs2: int, offset: int = 0) -> int:
    return 0xE002 | (offset >> 3 & 7) << 10 | (offset >> 6 & 7) << 7 | rs2 << 2


def load_constant(rd: int, value: int) -> list[int]:
    """Four instructions, 32 bits without sign."""
    high, low = value + 0x800 >> 12, value & 0xFFF
    return [lui(rd, high), addiw(rd, rd, low), slli(rd, rd, 32), srli(rd, rd, 32)]
