"""Writes of devices to watched memory (DMA): met by runs both ways, named; the old value before, the new one behind."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.machine.pc_guests import BOOT_SECTOR, assemble
from tests.engine.machine.test_pc import firmware, pc, recorded, with_disk
from tests.engine.timeline.guests import Replay, replay
from tests.engine.timeline.test_timeline import ShortPace, Waiter
from tests.linux.harness import Terminal, build, record
from tests.linux.test_disk_guest import guest
from timevm.engine.cpu.base import WatchKind, Watchpoint
from timevm.engine.machine.device_writes import DeviceWrite
from timevm.engine.machine.outcome import RunEnd, RunResult, Stops
from timevm.engine.machine.spec import MachineSpec
from timevm.engine.replay.gate import NEVER
from timevm.engine.snapshot.position import Position

LENGTH = 8


def written(address: int, length: int = LENGTH) -> Stops:
    return Stops(watchpoints=frozenset({Watchpoint(address, length, WatchKind.WRITE)}))


def all_writes(spec: MachineSpec) -> list[DeviceWrite]:
    """Of devices, to any place, in one pass of an ordinary replay."""
    machine = build(replace(spec, mode="play"), Terminal())
    machine.set_stops(written(machine.ram.base, machine.ram.size))
    result, _, _ = machine.pass_by(NEVER)
    assert result.end in (RunEnd.POWERED_OFF, RunEnd.RECORDING_ENDED)
    machine.close()
    return list(machine.device_writes.found)


def popular(writes: list[DeviceWrite], *, early: bool) -> int:
    """The address that is written to at most moments."""
    moments = {(write.icount, write.stop.address) for write in writes if write.early == early}
    counted = Counter(address for _, address in moments if address is not None)
    return max(counted, key=lambda address: (counted[address], address))


Met = tuple[Position, str]


def in_one_pass(spec: MachineSpec, stops: Stops) -> list[Met]:
    """Where one stands before each stop, and the device; of one place the last."""
    machine = build(replace(spec, mode="play"), Terminal())
    machine.set_stops(stops)
    met: dict[Position, str] = {}
    end = RunEnd.LIMIT
    while end in (RunEnd.LIMIT, RunEnd.KICKED):
        end = machine.pass_by(machine.icount + 20_000)[0].end
        met |= {Position(write.icount, not write.early): write.stop.device for write in machine.device_writes.found}
    ends = machine.icount
    machine.close()
    machine = build(replace(spec, mode="play"), Terminal())
    machine.set_stops(stops)
    while (passed := machine.pass_by(min(ends, machine.icount + 500)))[0].end in (RunEnd.LIMIT, RunEnd.KICKED):
        assert passed[2]
        met |= {Position(stop.icount, settled=True): "" for stop in passed[1]}
        if machine.icount == ends:
            break
    machine.close()
    return sorted(met.items())


def check_both_ways(spec: MachineSpec, address: int) -> Replay:
    """Every stop is met forward and backward, where it belongs, with the memory that it found and left."""
    stops = written(address)
    expected = in_one_pass(spec, stops)
    travel = replay(spec, pace=ShortPace(50_000))
    machine, timeline = travel.machine, travel.timeline
    machine.set_stops(stops)
    met, behind = [], {}
    while (result := machine.run(NEVER)).end is RunEnd.DEBUG:
        assert result.stop is not None and result.stop.watch is not None and result.stop.is_write
        assert result.stop.pc == machine.cpu.pc
        within = result.stop.device != "" and not travel.track.place.settled
        met.append((Position(result.icount - within, within or result.stop.device == ""), result.stop.device))
        behind[met[-1]] = machine.read_memory(address, LENGTH, physical=True)
    assert sorted(set(met)) == expected
    back = []
    while (result := timeline.reverse_continue(stops, Waiter())).end is RunEnd.DEBUG:
        assert result.stop is not None
        back.append((travel.track.place, result.stop.device))
        if result.stop.device:
            before = machine.read_memory(address, LENGTH, physical=True)
            again = machine.run(NEVER)
            while machine.read_memory(address, LENGTH, physical=True) != behind[back[-1]]:
                again = machine.run(NEVER)  # of several at this moment the last left this
            assert again.stop is not None and again.stop.device == result.stop.device
            timeline.seek(back[-1][0].icount, Waiter())
            if back[-1][0].settled:
                travel.track.settle()
            assert machine.read_memory(address, LENGTH, physical=True) == before
    assert result == RunResult(RunEnd.LIMIT, 0)
    assert back[::-1] == expected
    return travel


def test_a_virtio_disk_writes(tmp_path: Path) -> None:
    spec = guest(tmp_path, requests=30)
    record(spec)
    writes = all_writes(spec)
    assert len(writes) > 100 and all(write.early for write in writes)
    address = popular(writes, early=True)
    travel = check_both_ways(spec, address)
    machine, timeline = travel.machine, travel.timeline
    last = max(w.icount for w in writes if w.stop.address == address)
    timeline.seek(machine.end or 0, Waiter())
    here = travel.look
    found = timeline.find_last(written(address), Waiter())
    assert found.icount >= last and travel.look == here
    # from behind the write, where a run forward stops, the way back is to before it
    timeline.seek(last, Waiter())
    old = machine.read_memory(address, LENGTH, physical=True)
    machine.set_stops(written(address))
    stopped = machine.run(NEVER)
    assert (stopped.icount, travel.track.place) == (last, Position(last, settled=True))
    assert machine.read_memory(address, LENGTH, physical=True) != old
    back = timeline.reverse_continue(written(address), Waiter())
    assert back.stop is not None and back.stop.device.startswith("virtio-blk")
    assert travel.track.place == Position(last)
    assert machine.read_memory(address, LENGTH, physical=True) == old
    machine.close()


def test_reads_are_not_writes(tmp_path: Path) -> None:
    spec = guest(tmp_path, requests=10)
    record(spec)
    address = popular(all_writes(spec), early=True)
    machine = build(replace(spec, mode="play"), Terminal())
    machine.set_stops(Stops(watchpoints=frozenset({Watchpoint(address, LENGTH, WatchKind.READ)})))
    while (result := machine.run(NEVER)).end is RunEnd.DEBUG:
        assert result.stop is not None and not result.stop.device
    machine.close()


@pytest.mark.parametrize("driver", ["ide-hd", "virtio-blk-pci"])
def test_firmware_is_handed_its_tables_by_a_device_within_an_instruction(driver: str, tmp_path: Path) -> None:
    """SeaBIOS reads fw_cfg by DMA: the access to the register does it at once."""
    firmware()
    image = assemble(BOOT_SECTOR, tmp_path / "disk.img")
    spec = recorded(with_disk(pc(), image, driver), tmp_path)
    record(spec)
    writes = all_writes(spec)
    within = [write for write in writes if not write.early]
    assert within and {write.stop.device for write in within} >= {"fw_cfg"}
    check_both_ways(spec, popular(within, early=False)).machine.close()
