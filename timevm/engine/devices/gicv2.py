"""The Arm Generic Interrupt Controller, version 2 (Arm IHI 0048B.b), for one CPU and without the Security Extensions.

That is the GIC of QEMU's ``virt`` board with ``secure=off``: both interrupt groups exist, both signal IRQ until the
guest sets GICC_CTLR.FIQEn.
"""

from __future__ import annotations

from typing import Any

from timevm.engine.devices.base import InterruptLine
from timevm.engine.devices.gicv2_cpu_interface import SPURIOUS, CpuInterface
from timevm.engine.devices.gicv2_distributor import Distributor
from timevm.engine.devices.gicv2_interrupts import FIRST_SPI, MAXIMUM_INTERRUPTS, SGI_COUNT, Interrupts
from timevm.errors import InternalError


class Gicv2:
    """Stateful as a whole; its two register windows are ``distributor`` and ``cpu_interface`` (Devices).

    ``spi_count`` is the number of shared interrupts (0 to 988).  ``irq`` and ``fiq`` are driven only when they change.
    """

    def __init__(self, spi_count: int, irq: InterruptLine, fiq: InterruptLine) -> None:
        if not 0 <= spi_count <= MAXIMUM_INTERRUPTS - FIRST_SPI:
            raise InternalError(f"a GICv2 has 0 to 988 shared interrupts, not {spi_count}: correct the board")
        interrupts = Interrupts(spi_count)
        self.name = "gicv2"
        self._interrupts = interrupts
        self._irq, self._fiq = irq, fiq
        self._irq_level = self._fiq_level = False
        self.distributor = Distributor("gicv2-distributor", interrupts, self._update)
        self.cpu_interface = CpuInterface(
            "gicv2-cpu-interface", interrupts, lambda: self.distributor.control, self._update
        )

    def reset(self) -> None:
        self._interrupts.reset()
        self.distributor.reset()
        self.cpu_interface.reset()
        self._irq_level = self._fiq_level = False

    def state(self) -> dict[str, Any]:
        return {
            "interrupts": self._interrupts.state(),
            "distributor": self.distributor.state(),
            "cpu_interface": self.cpu_interface.state(),
            "irq": self._irq_level,
            "fiq": self._fiq_level,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._interrupts.restore(state["interrupts"])
        self.distributor.restore(state["distributor"])
        self.cpu_interface.restore(state["cpu_interface"])
        self._irq_level = state["irq"]
        self._fiq_level = state["fiq"]

    def set_line(self, interrupt_id: int, level: bool) -> None:
        """The input wire of a PPI (16 to 31) or SPI (32 and up) has this level."""
        if self._interrupts.set_line(interrupt_id, level):
            self._update()

    def line(self, interrupt_id: int) -> InterruptLine:
        """The input wire of a PPI or SPI, for a device's constructor."""
        if not SGI_COUNT <= interrupt_id < self._interrupts.count:
            raise InternalError(
                f"interrupt {interrupt_id} of the GIC has no wire: PPIs and SPIs are {SGI_COUNT} to "
                f"{self._interrupts.count - 1}; correct the board"
            )
        return _Wire(self, interrupt_id)

    def _update(self) -> None:
        interrupt_id = self.cpu_interface.signalled()
        fiq = interrupt_id != SPURIOUS and self.cpu_interface.is_fiq(interrupt_id)
        irq = interrupt_id != SPURIOUS and not fiq
        if irq != self._irq_level:
            self._irq_level = irq
            self._irq.set(irq)
        if fiq != self._fiq_level:
            self._fiq_level = fiq
            self._fiq.set(fiq)


class _Wire:
    """One input of the GIC."""

    __slots__ = ("_gic", "_interrupt_id")

    def __init__(self, gic: Gicv2, interrupt_id: int) -> None:
        self._gic = gic
        self._interrupt_id = interrupt_id

    def set(self, level: bool) -> None:
        self._gic.set_line(self._interrupt_id, level)
