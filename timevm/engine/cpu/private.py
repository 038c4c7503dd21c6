"""What Unicorn's private fields have alike on all processors: CPUState, and how a field is proved.

The offsets are those of the wheel of Unicorn 2.1.4 for x86-64 Linux; each architecture's ``prove`` provokes them.
"""

from __future__ import annotations

import ctypes
import os
import struct
from functools import cache

import unicorn

from timevm.engine.cpu import unicorn_library
from timevm.errors import InternalError

# CPUState (QEMU's include/hw/core/cpu.h as built into Unicorn)
NEXT_BLOCK_FLAGS = 24  # cflags_next_tb
ENV_POINTER = 296
ACCESS_HOST_PC = 0x8178  # mem_io_pc
HALTED = 0x8198
EXCEPTION_INDEX = 0x81A0
UNICORN_POINTER = 0x81A8

#: how far into ``uc_struct`` fields are looked for (bytes)
SCAN = 0x1000


def read_own(address: int, size: int) -> bytes | None:
    """Memory of this process, without a crash if there is none."""
    try:
        with open("/proc/self/mem", "rb", buffering=0) as memory:
            return os.pread(memory.fileno(), size, address)
    except (OSError, OverflowError, ValueError):
        return None


def read_u64(address: int) -> int | None:
    data = read_own(address, 8)
    return int(struct.unpack("<Q", data)[0]) if data is not None and len(data) == 8 else None


def read_u32(address: int) -> int:
    return int(ctypes.c_uint32.from_address(address).value)


def refused(what: str) -> InternalError:
    return InternalError(
        f"this build of Unicorn is not the one that timevm was made for ({what}): install unicorn==2.1.4 from PyPI"
    )


def expect(condition: bool, what: str) -> None:
    if not condition:
        raise refused(what)


def cpu_state_of(engine: unicorn.Uc, env: int) -> int:
    """Address of the engine's CPUState.  Raises InternalError if nothing in ``uc_struct`` looks like one.

    ``env``: offset of the architecture's own structure in it.
    """
    handle = unicorn_library.handle_of(engine)
    for offset in range(0, SCAN, 8):
        candidate = read_u64(handle + offset)
        if candidate is None:
            break
        if candidate % 8 or candidate < 4096:
            continue
        if read_u64(candidate + UNICORN_POINTER) == handle and read_u64(candidate + ENV_POINTER) == candidate + env:
            return candidate
    raise refused("no CPU state in the engine")


@cache
def exit_request_offset(suffix: str) -> int:
    """Offset in ``uc_struct`` of the flag that leaves out the exit check after each load and store."""
    code = ctypes.string_at(unicorn_library.exported(f"check_exit_request_{suffix}"), 64)
    at = code.find(b"\x80\xbe")
    if at < 0 or at > 16:
        raise refused("check_exit_request has another shape")
    return int(struct.unpack_from("<I", code, at + 2)[0])
