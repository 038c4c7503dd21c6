"""A few A64 instructions as words, enough for programs of a dozen lines (encodings: Arm ARM C4)."""

from __future__ import annotations

import struct

NOP = 0xD503201F
WFI = 0xD503207F
ERET = 0xD69F03E0
ISB = 0xD5033FDF
DSB = 0xD5033F9F
IC_IALLU = 0xD508751F


def code(*words: int) -> bytes:
    return struct.pack(f"<{len(words)}I", *words)


def movz(rd: int, value: int, shift: int = 0) -> int:
    return 0xD2800000 | (shift // 16) << 21 | value << 5 | rd


def movk(rd: int, value: int, shift: int) -> int:
    return 0xF2800000 | (shift // 16) << 21 | value << 5 | rd


def load_constant(rd: int, value: int) -> list[int]:
    """Two instructions, 32 bits."""
    return [movz(rd, value & 0xFFFF), movk(rd, value >> 16 & 0xFFFF, 16)]


def add(rd: int, rn: int, value: int) -> int:
    return 0x91000000 | value << 10 | rn << 5 | rd


def subs(rd: int, rn: int, value: int) -> int:
    return 0xF1000000 | value << 10 | rn << 5 | rd


def eor(rd: int, rn: int, rm: int) -> int:
    return 0xCA000000 | rm << 16 | rn << 5 | rd


def ldr(rt: int, rn: int, offset: int = 0) -> int:
    return 0xF9400000 | (offset // 8) << 10 | rn << 5 | rt


def str_(rt: int, rn: int, offset: int = 0) -> int:
    return 0xF9000000 | (offset // 8) << 10 | rn << 5 | rt


def ldr_w(rt: int, rn: int, offset: int = 0) -> int:
    return 0xB9400000 | (offset // 4) << 10 | rn << 5 | rt


def str_w(rt: int, rn: int, offset: int = 0) -> int:
    return 0xB9000000 | (offset // 4) << 10 | rn << 5 | rt


def ldrh(rt: int, rn: int, offset: int = 0) -> int:
    return 0x79400000 | (offset // 2) << 10 | rn << 5 | rt


def strh(rt: int, rn: int, offset: int = 0) -> int:
    return 0x79000000 | (offset // 2) << 10 | rn << 5 | rt


def ldur(rt: int, rn: int, offset: int) -> int:
    return 0xF8400000 | (offset & 0x1FF) << 12 | rn << 5 | rt


def stur(rt: int, rn: int, offset: int) -> int:
    return 0xF8000000 | (offset & 0x1FF) << 12 | rn << 5 | rt


def ldp(rt: int, rt2: int, rn: int, offset: int = 0) -> int:
    return 0xA9400000 | (offset // 8 & 0x7F) << 15 | rt2 << 10 | rn << 5 | rt


def stp(rt: int, rt2: int, rn: int, offset: int = 0) -> int:
    return 0xA9000000 | (offset // 8 & 0x7F) << 15 | rt2 << 10 | rn << 5 | rt


def ldxr(rt: int, rn: int) -> int:
    return 0xC85F7C00 | rn << 5 | rt


def stxr(rs: int, rt: int, rn: int) -> int:
    return 0xC8007C00 | rs << 16 | rn << 5 | rt


def dc_zva(rt: int) -> int:
    return 0xD50B7420 | rt


def lsl(rd: int, rn: int, count: int) -> int:
    return 0xD3400000 | (64 - count & 63) << 16 | (63 - count) << 10 | rn << 5 | rd


def blr(rn: int) -> int:
    return 0xD63F0000 | rn << 5


def ret() -> int:
    return 0xD65F03C0


def b(words: int) -> int:
    """Branch by so many instructions."""
    return 0x14000000 | words & 0x3FFFFFF


def b_ne(words: int) -> int:
    return 0x54000001 | (words & 0x7FFFF) << 5


def svc(number: int = 0) -> int:
    return 0xD4000001 | number << 5


def hvc(number: int = 0) -> int:
    return 0xD4000002 | number << 5


def daif_clear(mask: int) -> int:
    return 0xD50340FF | mask << 8


def daif_set(mask: int) -> int:
    return 0xD50340DF | mask << 8


def ic_ivau(rt: int) -> int:
    return 0xD50B7520 | rt


def mrs(rt: int, op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    return 0xD5300000 | (op0 & 1) << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | rt


def msr(rt: int, op0: int, op1: int, crn: int, crm: int, op2: int) -> int:
    return 0xD5100000 | (op0 & 1) << 19 | op1 << 16 | crn << 12 | crm << 8 | op2 << 5 | rt


VBAR_EL1 = (3, 0, 12, 0, 0)
SCTLR_EL1 = (3, 0, 1, 0, 0)
TTBR0_EL1 = (3, 0, 2, 0, 0)
TCR_EL1 = (3, 0, 2, 0, 2)
MAIR_EL1 = (3, 0, 10, 2, 0)
FAR_EL1 = (3, 0, 6, 0, 0)
CNTVCT_EL0 = (3, 3, 14, 0, 2)
CNTV_CTL_EL0 = (3, 3, 14, 3, 1)
CNTV_CVAL_EL0 = (3, 3, 14, 3, 2)
CNTV_TVAL_EL0 = (3, 3, 14, 3, 0)
ELR_EL1 = (3, 0, 4, 0, 1)
ESR_EL1 = (3, 0, 5, 2, 0)
