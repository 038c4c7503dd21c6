"""Arithmetic of the x86 CPU against the processor that runs the tests: SSE, x87 and integers, bit for bit.

Each instruction runs as the same machine code in both, over a few hundred operands with all the special values.
Left out because architecture leaves their bits open: reciprocal estimates, transcendental functions, undefined flags.
Left out because Unicorn computes them otherwise: DPPS and DPPD (order of additions, signs of zero), FPREM1 of a large
quotient (how far one step goes).
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import random

import pytest

from tests.engine.cpu.x86_assembler import assemble
from tests.engine.cpu.x86_board import CODE, END, LONG_MODE, RAM_SIZE, Board
from timevm.engine.cpu.base import StopKind

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="compares with an x86-64 processor")

COUNT = 300
INPUT, OUTPUT = 0x20_0000, 0x28_0000
ALL, CARRY, ZERO, CARRY_OVERFLOW, NONE = 0x8D5, 0x1, 0x40, 0x801, 0

SSE = """
addps addpd addss addsd subps subpd subss subsd mulps mulpd mulss mulsd divps divpd divss divsd sqrtps sqrtpd sqrtss
sqrtsd minps minpd minss minsd maxps maxpd maxss maxsd andps andnps orps xorps cvtps2pd cvtpd2ps cvtss2sd cvtsd2ss
cvtdq2ps cvtps2dq cvttps2dq cvtdq2pd cvtpd2dq cvttpd2dq unpcklps unpckhps unpcklpd unpckhpd haddps haddpd hsubps hsubpd
addsubps addsubpd movshdup movsldup movddup paddb paddw paddd paddq paddsb paddsw paddusb paddusw psubb psubw psubd
psubq psubsb psubsw psubusb psubusw pmullw pmulhw pmulhuw pmuludq pmaddwd psadbw pavgb pavgw pminub pmaxub pminsw pmaxsw
pcmpeqb pcmpeqw pcmpeqd pcmpgtb pcmpgtw pcmpgtd packsswb packssdw packuswb punpcklbw punpcklwd punpckldq punpcklqdq
punpckhbw punpckhwd punpckhdq punpckhqdq psllw pslld psllq psrlw psrld psrlq psraw psrad pand pandn por pxor
pshufb phaddw phaddd phsubw phsubd pmaddubsw pmulhrsw psignb psignw psignd pabsb pabsw pabsd
pmuldq pmulld pminsb pminsd pminuw pminud pmaxsb pmaxsd pmaxuw pmaxud pcmpeqq pcmpgtq packusdw pmovsxbw pmovzxdq
phminposuw
"""
IMMEDIATE = """
cmpps:0 cmpps:1 cmpps:2 cmpps:3 cmpps:4 cmpps:5 cmpps:6 cmpps:7 cmppd:1 cmppd:6 cmpss:2 cmpsd:5 shufps:0x1b shufpd:1
pshufd:0x4e pshuflw:0x93 pshufhw:0x39 roundps:0 roundps:1 roundpd:2 roundss:3 roundsd:4 blendps:5 pblendw:0x5a
mpsadbw:3 palignr:5 pclmulqdq:0x11
"""
#: a part of their result comes from another part of the operands
MIXED = """
haddps haddpd hsubps hsubpd unpcklps unpckhpd packsswb packssdw packuswb packusdw punpcklbw punpckhdq pshufb pmaddwd
pmaddubsw psadbw pmuludq phminposuw cvtps2pd cvtpd2ps cvtdq2pd movsldup shufps:0x1b shufpd:1 pshufd:0x4e pshufhw:0x39
palignr:5 mpsadbw:3
"""
PAIRWISE = ("phaddw", "phaddd", "phaddsw", "phsubw", "phsubd", "phsubsw")
SHIFTS = ("shl", "shr", "sar", "rol", "ror", "rcl", "rcr")
#: text of an instruction on xmm0, xmm1, or rax (first operand), rcx (second) with its defined flags
CASES: dict[str, tuple[str, int]] = {
    **{name: (f"{name} xmm0, xmm1", NONE) for name in SSE.split()},
    **{row: (f"{row.split(':')[0]} xmm0, xmm1, {row.split(':')[1]}", NONE) for row in IMMEDIATE.split()},
    **{f"{row} of itself": (f"{row.split(':')[0]} xmm0, xmm0{', ' + row.split(':')[1] if ':' in row else ''}", NONE)
       for row in (*MIXED.split(), *PAIRWISE)},
    **{f"mmx {name} {operand}": (f"movq mm0, [rsi]\n movq mm1, [rsi + 16]\n {name} mm0, {operand}\n movq rax, mm0\n "
                                 "emms", NONE)
       for name in PAIRWISE for operand in ("mm0", "mm1")},
    **{name: (f"{name} xmm0, xmm1", ALL) for name in ("comiss", "comisd", "ucomiss", "ucomisd", "ptest")},
    "cvtsi2sd": ("cvtsi2sd xmm0, rax", NONE),
    "cvtsi2ss": ("cvtsi2ss xmm0, eax", NONE),
    "cvtsd2si": ("cvtsd2si rax, xmm1", NONE),
    "cvttss2si": ("cvttss2si eax, xmm1", NONE),
    "aesenc": ("aesenc xmm0, xmm1", NONE),
    "aesdeclast": ("aesdeclast xmm0, xmm1", NONE),
    "pcmpistri": ("pcmpistri xmm0, xmm1, 0x0c\n mov eax, ecx", CARRY | ZERO),
    "crc32": ("crc32 rax, rcx", NONE),
    **{
        f"{name} {size}": (f"{name} {a}, {c}", ALL)
        for name in ("add", "sub", "cmp")
        for size, a, c in (("8", "al", "cl"), ("16", "ax", "cx"), ("32", "eax", "ecx"), ("64", "rax", "rcx"))
    },
    **{f"{name} after {set_carry}": (f"{set_carry}\n {name} eax, ecx", ALL) for name in ("adc", "sbb")
       for set_carry in ("stc", "clc")},
    **{name: (f"{name} rax, rcx", ALL & ~0x10) for name in ("and", "or", "xor", "test")},
    **{name: (f"{name} eax", ALL) for name in ("neg", "inc", "dec")},
    **{f"{name} 1": (f"{name} eax, 1", CARRY_OVERFLOW) for name in ("rol", "ror", "rcl", "rcr")},
    **{f"{name} cl": (f"and ecx, 63\n {name} rax, cl", NONE) for name in SHIFTS},
    **{f"{name} 7": (f"{name} ax, 7", CARRY | ZERO | 0x84) for name in ("shl", "shr", "sar")},
    "shld": ("mov rdx, rcx\n and ecx, 63\n shld rax, rdx, cl", NONE),
    "shrd": ("mov rdx, rcx\n and ecx, 31\n shrd eax, edx, cl", NONE),
    "mul": ("mul ecx\n shl rdx, 32\n or rax, rdx", CARRY_OVERFLOW & 0),
    "imul": ("imul rax, rcx", CARRY_OVERFLOW),
    "imul one": ("imul cx\n shl edx, 16\n xor eax, edx", NONE),
    "div": ("or ecx, 0x80000000\n xor edx, edx\n div ecx\n shl rdx, 32\n add rax, rdx", NONE),
    "idiv": ("or ecx, 1\n and ecx, 0x7fffffff\n cdq\n idiv ecx\n shl rdx, 32\n add rax, rdx", NONE),
    "bsf": ("or rcx, 16\n bsf rax, rcx", ZERO),
    "bsr": ("or rcx, 16\n bsr rax, rcx", ZERO),
    "popcnt": ("popcnt rax, rcx", ALL),
    "bt": ("bt rax, rcx", CARRY),
    "btc": ("btc rax, rcx", CARRY),
    "bswap": ("bswap rax", NONE),
    "xadd": ("xadd eax, ecx\n shl rcx, 32\n or rax, rcx", NONE),
    "cmpxchg": ("mov edx, 7\n cmpxchg ecx, edx\n shl rcx, 32\n or rax, rcx", NONE),
    "andn": ("andn rax, rax, rcx", NONE),
    "pdep": ("pdep rax, rax, rcx", NONE),
    "mulx": ("mov rdx, rax\n mulx rax, rcx, rcx", NONE),
    **{
        f"x87 {name}": (f"fninit\n {control}movq [rdi], xmm0\n fld {size} ptr [rdi]\n movq [rdi], xmm1\n "
                        f"fld {size} ptr [rdi]\n {name}\n fstp tbyte ptr [rdi + 16]\n mov rax, [rdi + 16]\n "
                        "movzx ecx, word ptr [rdi + 24]\n movq xmm0, rcx", NONE)
        for control in ("",)
        for size in ("qword",)
        for name in ("faddp", "fsubp", "fsubrp", "fmulp", "fdivp", "fdivrp", "fabs", "fchs", "fsqrt", "frndint", "fxch",
                     "fld1\n fscale")
    },
    "x87 fist": ("fninit\n movq [rdi], xmm0\n fld qword ptr [rdi]\n fistp qword ptr [rdi]\n mov rax, [rdi]", NONE),
    "x87 fild": ("fninit\n mov [rdi], rax\n fild qword ptr [rdi]\n fstp dword ptr [rdi]\n mov eax, [rdi]", NONE),
    "x87 fcomi": ("fninit\n movq [rdi], xmm0\n fld qword ptr [rdi]\n movq [rdi], xmm1\n fld qword ptr [rdi]\n "
                  "fcomi st(0), st(1)\n pushfq\n pop rax\n and eax, 0x45", NONE),
    "x87 fxam": ("fninit\n movq [rdi], xmm0\n fld qword ptr [rdi]\n fxam\n fnstsw ax\n and eax, 0x4700", NONE),
}  # fmt: skip


def code(instruction: str, flags: int) -> str:
    """A function of the System V ABI: rdi output, rsi input, edx how many."""
    return f"""
    push rbx
    mov ebx, edx
1:  movdqu xmm0, [rsi]
    movdqu xmm1, [rsi + 16]
    mov rax, [rsi]
    mov rcx, [rsi + 16]
    {instruction}
    pushfq
    pop rdx
    movdqu [rdi], xmm0
    mov [rdi + 16], rax
    and edx, {flags}
    mov [rdi + 24], rdx
    add rsi, 32
    add rdi, 32
    dec ebx
    jnz 1b
    fninit
    pop rbx
    ret
    """


SPECIAL_64 = [
    0, 1 << 63, 0x3FF0000000000000, 0xBFF0000000000000, 0x7FF0000000000000, 0xFFF0000000000000, 0x7FF8000000000001,
    0x7FF0000000000001, 0xFFF8000000000000, 1, 0x000FFFFFFFFFFFFF, 0x0010000000000000, 0x7FEFFFFFFFFFFFFF,
    0x41DFFFFFFFC00000, 0xC1E0000000000000, 0x43E0000000000000, 0x3FE0000000000000, 0x4000000000000000, (1 << 64) - 1,
]  # fmt: skip
SPECIAL_32 = [
    0, 1 << 31, 0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00001, 0x7F800001, 1, 0x007FFFFF, 0x00800000,
    0x7F7FFFFF, 0x4F000000, 0xCF000000, 0x3F000000, 0x7FFFFFFF, 0xFFFFFFFF,
]  # fmt: skip


def operands(rng: random.Random) -> bytes:
    def half() -> int:
        choice = rng.random()
        if choice < 0.35:
            return rng.choice(SPECIAL_64)
        if choice < 0.7:
            return rng.choice(SPECIAL_32) | rng.choice(SPECIAL_32) << 32
        if choice < 0.85:
            return rng.getrandbits(1) << 63 | rng.randrange(0x3F0, 0x410) << 52 | rng.getrandbits(52)
        return rng.getrandbits(64)

    return b"".join(half().to_bytes(8, "little") for _ in range(4 * COUNT))


def on_host(machine_code: bytes, data: bytes, count: int = COUNT, size: int = 32 * COUNT) -> bytes:
    area = mmap.mmap(-1, 1 << 16, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    area.write(machine_code)
    anchor = ctypes.c_char.from_buffer(area)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint32)(ctypes.addressof(anchor))
    output = ctypes.create_string_buffer(size)
    function(ctypes.addressof(output), data, count)
    del anchor
    return output.raw


def features() -> frozenset[str]:
    with open("/proc/cpuinfo") as file:
        return frozenset(next(line for line in file if line.startswith("flags")).split())


def is_nan(data: bytes, bits: int, *, signaling: bool = False) -> bool:
    """Is any of the lanes a NaN?"""
    fraction = 23 if bits == 32 else 52
    for at in range(0, len(data), bits // 8):
        value = int.from_bytes(data[at : at + bits // 8], "little") & (1 << bits - 1) - 1
        if value > (1 << bits - 1) - (1 << fraction) and not (signaling and value >> fraction - 1 & 1):
            return True
    return False


def is_known_difference(name: str, data: bytes) -> bool:
    """Where Unicorn's own arithmetic (QEMU 5.0's) differs from processors, the same on every host.

    Of two NaNs SSE has to give the first, it gives the larger one.  A signaling NaN stays one when x87 loads it.
    A CMPXCHG of 32 bits that succeeds clears the upper half of rax.
    """
    if name.startswith("x87"):
        return is_nan(data[:8] + data[16:24], 64, signaling=True)
    if name == "cmpxchg":
        return data[:4] == data[16:20]
    if name.startswith(("add", "sub", "mul", "div", "hadd", "hsub")):
        bits = 64 if name.endswith("d") else 32
        return (is_nan(data[:16], bits) and is_nan(data[16:], bits)) or (name.startswith("h") and is_nan(data, bits))
    return False


NEEDED = {"andn": "bmi1", "pdep": "bmi2", "mulx": "bmi2", "pclmulqdq:0x11": "pclmulqdq", "aesenc": "aes"}


#: calls the function at 0x110000 with the arguments above
PROGRAM = f"mov edi, {OUTPUT}\n mov esi, {INPUT}\n mov edx, {COUNT}\n mov eax, 0x110000\n fninit\n call rax\n"


@pytest.fixture(scope="module")
def board() -> Board:
    """It is started again for each instruction."""
    return Board(b"", model="max")


@pytest.mark.parametrize("name", CASES)
def test_an_instruction_computes_what_the_host_computes(name: str, board: Board) -> None:
    if NEEDED.get(name.split()[0], "sse2") not in features():
        pytest.skip("the host has not this instruction")
    instruction, flags = CASES[name]
    machine_code = assemble(code(instruction, flags))
    data = operands(random.Random(name))
    board.memory[:] = bytes(RAM_SIZE)
    board.write(CODE, assemble(LONG_MODE + PROGRAM + END, CODE))
    board.write(0x11_0000, machine_code)
    board.write(INPUT, data)
    board.cpu.reset(CODE, [])
    board.cpu.flush_translations()
    assert board.run(board.cpu.icount + 100_000).kind is StopKind.POWER_OFF
    got, expected = board.read(OUTPUT, 32 * COUNT), on_host(machine_code, data)
    for place in range(0, 32 * COUNT, 32):
        if is_known_difference(name, data[place : place + 32]):
            continue
        assert got[place : place + 32].hex() == expected[place : place + 32].hex(), data[place : place + 32].hex()
