"""One IDE channel: up to two drives behind one set of registers (ATA/ATAPI-7, chapter 9 and volume 2)."""

from __future__ import annotations

from typing import Any

from timevm.engine.devices.base import InterruptLine
from timevm.engine.devices.ide_bus_master import BusMaster
from timevm.engine.devices.ide_drive import BSY, COMMAND, DATA, DEVICE, DEVICE_SELECT, STATUS, IdeDrive

# device control register
CONTROL_NO_INTERRUPT, CONTROL_RESET, CONTROL_HIGH_ORDER = 0x02, 0x04, 0x80
DEVICE_RESET, DIAGNOSE = 0x08, 0x90


class IdeChannel:
    """Stateful; its windows are ``command_block`` (8 ports) and ``control_block`` (1 port).

    ``drives`` are put in by ``plug``; None is an empty place.
    """

    def __init__(self, name: str, interrupt: InterruptLine, bus_master: BusMaster) -> None:
        self.name = name
        self.bus_master = bus_master
        self.drives: list[IdeDrive | None] = [None, None]
        self.command_block = _CommandBlock(self)
        self.control_block = _ControlBlock(self)
        self._interrupt = interrupt
        bus_master.started = self._bus_master_started
        bus_master.stopped = self._bus_master_stopped
        self.reset()

    def reset(self) -> None:
        self._select(0)
        self._control = 0
        self._pending = False  # INTRQ
        self._level = False
        for drive in self.drives:
            if drive is not None:
                drive.reset()

    def state(self) -> dict[str, Any]:
        return {
            "selected": self._selected,
            "control": self._control,
            "pending": self._pending,
            "level": self._level,
            "drives": [None if drive is None else drive.state() for drive in self.drives],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._select(state["selected"])
        self._control = state["control"]
        self._pending = state["pending"]
        self._level = state["level"]
        for drive, saved in zip(self.drives, state["drives"], strict=True):
            if drive is not None:
                drive.restore(saved)

    # the drives

    def plug(self, unit: int, drive: IdeDrive | None) -> None:
        """The board's, before the first instruction."""
        self.drives[unit] = drive
        self._select(self._selected)

    def _select(self, unit: int) -> None:
        self._selected = unit
        #: the drive that answers, None for an empty place
        self.active = self.drives[unit]

    def interrupt(self) -> None:
        self._pending = True
        self.bus_master.interrupt()
        self._update()

    # the guest

    def read_register(self, offset: int, size: int) -> int:
        drive = self.active
        if drive is None:
            return 0
        value = self._status(drive) if offset == STATUS else drive.read_register(offset, high_order=self._shows_old())
        if offset == STATUS:
            self._pending = False
            self._update()
        return value

    def write_register(self, offset: int, size: int, value: int) -> None:
        if offset == DATA:
            drive = self.active
            if drive is not None:
                drive.write_data(size, value)
            return
        self._control &= ~CONTROL_HIGH_ORDER
        if offset == COMMAND:
            self._execute(value)
            return
        if offset == DEVICE:
            self._select(int(bool(value & DEVICE_SELECT)))
            for drive in self.drives:
                if drive is not None:
                    drive.device = value
            return
        for drive in self.drives:
            if drive is not None:
                drive.write_register(offset, value)

    def alternate_status(self) -> int:
        drive = self.active
        return 0 if drive is None else self._status(drive)

    def write_control(self, value: int) -> None:
        falling = self._control & ~value & CONTROL_RESET
        rising = value & ~self._control & CONTROL_RESET
        self._control = value
        if rising:
            self._pending = False
        if rising or falling:
            self._select(0)
            for drive in self.drives:
                if drive is not None:
                    drive.soft_reset()
        self._update()

    def _execute(self, command: int) -> None:
        self._pending = False
        self._update()
        if command == DIAGNOSE:
            # Both drives do it; the first one answers.
            for drive in self.drives:
                if drive is not None:
                    drive.soft_reset()
            self._select(0)
            if self.drives[0] is not None:
                self.interrupt()
            return
        drive = self.active
        if drive is None:
            return
        if command == DEVICE_RESET or not drive.status & BSY:
            drive.execute(command)

    def _status(self, drive: IdeDrive) -> int:
        return BSY if self._control & CONTROL_RESET else drive.status

    def _shows_old(self) -> bool:
        return bool(self._control & CONTROL_HIGH_ORDER)

    def _update(self) -> None:
        level = self._pending and not self._control & CONTROL_NO_INTERRUPT
        if level != self._level:
            self._level = level
            self._interrupt.set(level)

    def _bus_master_started(self) -> None:
        drive = self.active
        if drive is not None:
            drive.bus_master_started()

    def _bus_master_stopped(self) -> None:
        drive = self.active
        if drive is not None:
            drive.bus_master_stopped()


class _CommandBlock:
    """Data port (16 or 32 bits) and byte registers; a wider access of a byte register sees its low byte only."""

    window = 8

    def __init__(self, channel: IdeChannel) -> None:
        self.name = f"{channel.name}-command"
        self._channel = channel

    def read(self, offset: int, size: int) -> int:
        """Firmware reads disks word by word through the data port: about 1 us each."""
        if offset == DATA:
            if size == 8:
                return self.read(DATA, 4) | self.read(DATA, 4) << 32
            drive = self._channel.active
            return 0 if drive is None else drive.read_data(size)
        value = 0
        for index in range(min(size, self.window - offset)):
            value |= self._channel.read_register(offset + index, 1) << 8 * index
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == DATA:
            self._channel.write_register(DATA, size, value)
            return
        for index in range(min(size, self.window - offset)):
            self._channel.write_register(offset + index, 1, value >> 8 * index & 0xFF)


class _ControlBlock:
    """Alternate status and device control."""

    window = 1

    def __init__(self, channel: IdeChannel) -> None:
        self.name = f"{channel.name}-control"
        self._channel = channel

    def read(self, offset: int, size: int) -> int:
        return self._channel.alternate_status() | ((1 << 8 * size) - 1) & ~0xFF

    def write(self, offset: int, size: int, value: int) -> None:
        self._channel.write_control(value & 0xFF)
