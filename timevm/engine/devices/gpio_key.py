"""A push button on a wire, such as the power button: pressed from outside, released by itself a little later."""

from __future__ import annotations

from typing import Any, Final

from timevm.engine.devices.base import InterruptLine, VirtualTime

#: ns of virtual time; longer than any debouncing, shorter than a long press (QEMU's gpio-key holds as long)
HELD_NS: Final = 100_000_000


class GpioKey:
    """The button: Stateful.  ``wire`` is high while it is pressed."""

    def __init__(self, name: str, wire: InterruptLine, time: VirtualTime) -> None:
        self.name = name
        self._wire = wire
        self._time = time
        self._release = time.timer(f"{name}.release", self._released)
        self.reset()

    def reset(self) -> None:
        self._pressed = False

    def state(self) -> dict[str, Any]:
        return {"pressed": self._pressed}

    def restore(self, state: dict[str, Any]) -> None:
        self._pressed = state["pressed"]

    def press(self) -> None:
        """Once more while it is held: held anew."""
        self._release.arm(self._time.now_ns() + HELD_NS)
        if not self._pressed:
            self._pressed = True
            self._wire.set(True)

    def _released(self) -> None:
        # A timer that was armed before a reset says nothing.
        if self._pressed:
            self._pressed = False
            self._wire.set(False)
