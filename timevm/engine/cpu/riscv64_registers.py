"""RISC-V's registers by name: how debuggers list them, and the numbers of the control registers among them."""

from __future__ import annotations

from timevm.engine.cpu.base import Register

GENERAL = tuple(f"x{number}" for number in range(32))
FLOATS = tuple(f"f{number}" for number in range(32))
#: address of each control register (Privileged specification 2.2)
CONTROL = {
    "fflags": 0x001,
    "frm": 0x002,
    "fcsr": 0x003,
    "sstatus": 0x100,
    "sie": 0x104,
    "stvec": 0x105,
    "scounteren": 0x106,
    "sscratch": 0x140,
    "sepc": 0x141,
    "scause": 0x142,
    "stval": 0x143,
    "sip": 0x144,
    "satp": 0x180,
    "mstatus": 0x300,
    "misa": 0x301,
    "medeleg": 0x302,
    "mideleg": 0x303,
    "mie": 0x304,
    "mtvec": 0x305,
    "mcounteren": 0x306,
    "mscratch": 0x340,
    "mepc": 0x341,
    "mcause": 0x342,
    "mtval": 0x343,
    "mip": 0x344,
    "cycle": 0xC00,
    "time": 0xC01,
    "instret": 0xC02,
    "mhartid": 0xF14,
}
#: their value is the moment
COUNTERS = ("cycle", "time", "instret")
#: the privilege mode: 0 user, 1 supervisor, 3 machine
MODE = "priv"
_FLOAT_CONTROL = ("fflags", "frm", "fcsr")

REGISTERS: tuple[Register, ...] = (
    *(Register(name, 64, "general") for name in (*GENERAL, "pc")),
    *(Register(name, 64, "float") for name in FLOATS),
    *(Register(name, 32, "float") for name in _FLOAT_CONTROL),
    *(Register(name, 64, "system") for name in CONTROL if name not in _FLOAT_CONTROL),
    Register(MODE, 64, "system"),
)
NAMES = frozenset(register.name for register in REGISTERS)
