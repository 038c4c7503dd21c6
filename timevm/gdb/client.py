"""What the client said it can do, and how it is therefore answered."""

from __future__ import annotations

import re
from dataclasses import dataclass

from timevm.gdb.link import PACKET_SIZE

OK = b"OK"
#: QEMU's codes, which are errno's: EFAULT, EINVAL; 1 for the rest
NO_SUCH_ADDRESS, BAD_REQUEST, REFUSED = 14, 22, 1

#: outside of these a sentence would need escapes that gdb does not resolve in errors
_UNSAYABLE = re.compile(r"[^ -\")+-|~]|[#$*}]")
_CONSOLE_CHUNK = PACKET_SIZE // 2 - 1


def error_code(code: int) -> bytes:
    """In decimal digits, as QEMU writes it."""
    return b"E%02d" % code


def console(text: str) -> list[bytes]:
    """``O`` packets."""
    data = text.encode(errors="replace")
    return [b"O" + data[at : at + _CONSOLE_CHUNK].hex().encode() for at in range(0, len(data), _CONSOLE_CHUNK)]


@dataclass(frozen=True, slots=True)
class Client:
    """From the features of its ``qSupported``; one that never asked has none."""

    features: frozenset[str] = frozenset()
    #: it asked for something that only LLDB has
    is_lldb: bool = False

    @property
    def is_gdb(self) -> bool:
        """Only gdb itself offers to relocate instructions (for tracepoints); LLDB and scripts do not."""
        return "qRelocInsn+" in self.features

    def announced(self, feature: str) -> bool:
        return f"{feature}+" in self.features

    def thread(self) -> bytes:
        """The one thread, as QEMU writes it."""
        return b"p01.01" if self.announced("multiprocess") else b"01"

    def refusal(self, text: str, code: int = REFUSED) -> list[bytes]:
        """An error in words.

        gdb takes ``E.text`` since long before ``error-message`` was invented; and it would take console output that
        comes as the first answer to a memory write for a success.
        """
        if self.announced("error-message") or self.is_gdb:
            return [b"E." + _UNSAYABLE.sub("'", text).encode()]
        return [*console(f"{text}\n"), error_code(code)]
