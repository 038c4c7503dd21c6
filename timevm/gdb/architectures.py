"""The architectures that gdb can be told about.  A new one is a module like ``aarch64_features`` and a row here."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from timevm.engine.control.port import Register
from timevm.errors import InternalError
from timevm.gdb import aarch64_features, riscv_features, x86_features
from timevm.gdb.target_description import Architecture

#: by ``VmPort.architecture``
ARCHITECTURES: dict[str, Callable[[Sequence[Register]], Architecture]] = {
    "aarch64": aarch64_features.describe,
    "riscv64": riscv_features.describe,
    "x86_64": x86_features.describe_64,
    "i386": x86_features.describe_32,
}


def describe(architecture: str, registers: Sequence[Register]) -> Architecture:
    """Raises InternalError for an architecture without a row."""
    try:
        make = ARCHITECTURES[architecture]
    except KeyError:
        raise InternalError(f"the gdb server does not know the architecture '{architecture}'") from None
    return make(registers)
