"""The host bridge of the 440FX (Intel 290549): what firmware knows the board by, and its memory attribute registers.

The attribute registers (PAM, SMRAM) are kept and have no effect: the areas below 1 MiB are always RAM that can be
written.  At power-on they say "ROM", so that firmware copies all of itself there, as on the real thing.
"""

from __future__ import annotations

from timevm.engine.devices.pci_function import Identity, PciFunction

#: subsystem of all of QEMU's devices, by which SeaBIOS knows that its configuration interface is there
SUBSYSTEM_VENDOR, SUBSYSTEM = 0x1AF4, 0x1100
PAM, PAM_COUNT, SMRAM = 0x59, 7, 0x72


class I440fx(PciFunction):
    def __init__(self, name: str) -> None:
        super().__init__(
            name,
            Identity(0x8086, 0x1237, 0x060000, 2, SUBSYSTEM_VENDOR, SUBSYSTEM),
        )
        self.set_initial(SMRAM, 1, 0x02)
        self.allow(PAM, PAM_COUNT, int.from_bytes(b"\xf0" + b"\xff" * (PAM_COUNT - 1), "little"))
        self.allow(SMRAM, 1, 0x78)
        self.reset()
