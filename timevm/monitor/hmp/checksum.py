"""``sum``: the checksum of a range of memory, as QEMU makes it (16 bits, turned right by one before each byte)."""

from __future__ import annotations

import asyncio

from timevm.engine.control.port import MachinePort
from timevm.monitor.hmp.errors import HmpError
from timevm.monitor.hmp.table import Call

#: bytes: a tenth of a second for each MiB
MOST = 16 << 20
#: looked at between two instructions
_CHUNK = 1 << 20
_WORD = 0xFFFF


def checksum(data: bytes, value: int = 0) -> int:
    """``value``: of what was before."""
    for byte in data:
        value = (value >> 1 | value << 15) + byte & _WORD
    return value


async def sum_(call: Call) -> str:
    address, size = call.values["address"] & 0xFFFF_FFFF, call.values["size"] & 0xFFFF_FFFF
    if size > MOST:
        raise HmpError(f"at most {MOST} bytes at once")
    value = 0
    for start in range(address, address + size, _CHUNK):
        length = min(_CHUNK, address + size - start)

        def look(machine: MachinePort, start: int = start, length: int = length) -> bytes:
            return machine.read_memory(start, length, physical=True)

        data = await call.context.vm.inspect(look)
        if len(data) != length:
            raise HmpError(f"there is no memory at {start + len(data):#x}")
        value = await asyncio.to_thread(checksum, data, value)
    return f"{value:05}\n"
