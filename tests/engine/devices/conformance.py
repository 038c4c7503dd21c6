"""What every device owes: a plain state record, and a restored device that cannot be told from the original."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Protocol

from hypothesis import strategies as st

from timevm.engine.devices.base import Device, Stateful


class Rig(Protocol):
    """A device with its surroundings."""

    @property
    def device(self) -> Stateful: ...

    @property
    def windows(self) -> Sequence[Device]: ...

    def outside(self, number: int) -> None:
        """Something happens at the device's ports; any ``number`` means something."""

    def calls(self) -> list[Any]:
        """Everything that the device called so far, in order."""

    def surroundings(self) -> Any:
        """State of the surroundings (clock, memory): plain."""

    def restore_surroundings(self, state: Any) -> None: ...


@dataclass(frozen=True)
class Step:
    """One access of the guest (``window`` counts modulo the number of windows), or an outside event."""

    kind: str
    number: int
    window: int = 0
    offset: int = 0
    size: int = 4


def steps(offsets: Sequence[int], values: st.SearchStrategy[int]) -> st.SearchStrategy[list[Step]]:
    """Lists of steps that mostly touch ``offsets``."""
    offset = st.one_of(st.sampled_from(list(offsets)), st.sampled_from(list(offsets)), st.integers(0, 0xFFFF))
    size = st.sampled_from([4, 4, 4, 1, 2, 8])
    access = st.builds(Step, st.sampled_from(["read", "write"]), values, st.integers(0, 1), offset, size)
    outside = st.builds(Step, st.just("outside"), st.integers(0, 1 << 16))
    return st.lists(st.one_of(access, access, outside), max_size=60)


def run(rig: Rig, todo: Sequence[Step]) -> list[int]:
    answers = []
    for step in todo:
        if step.kind == "outside":
            rig.outside(step.number)
            continue
        window = rig.windows[step.window % len(rig.windows)]
        offset = step.offset % window.window // step.size * step.size
        if step.kind == "read":
            answer = window.read(offset, step.size)
            assert 0 <= answer < 1 << 8 * step.size
            answers.append(answer)
        else:
            window.write(offset, step.size, step.number & (1 << 8 * step.size) - 1)
    return answers


def check_plain(value: Any) -> None:
    if isinstance(value, dict):
        assert all(isinstance(key, str) for key in value)
        for item in value.values():
            check_plain(item)
    elif isinstance(value, list):
        for item in value:
            check_plain(item)
    else:
        assert value is None or type(value) in (int, bool, bytes, str), type(value)


def check_state_round_trip(factory: Callable[[], Rig], before: Sequence[Step], after: Sequence[Step]) -> None:
    """``restore`` into a used device calls nobody, and both go on alike; ``reset`` is the power-on state and silent."""
    original, other = factory(), factory()
    power_on = original.device.state()
    run(original, before)
    saved, surroundings = original.device.state(), original.surroundings()
    kept = deepcopy(saved)
    check_plain(saved)
    run(other, after)
    other.restore_surroundings(surroundings)
    calls = len(other.calls())
    other.device.restore(saved)
    assert len(other.calls()) == calls, "restore called somebody"
    assert other.device.state() == saved
    first, second = len(original.calls()), len(other.calls())
    answers = run(original, after)
    assert run(other, after) == answers
    assert other.device.state() == original.device.state()
    assert other.calls()[second:] == original.calls()[first:]
    assert saved == kept, "a state record changed after it was taken"
    calls = len(other.calls())
    other.device.reset()
    assert len(other.calls()) == calls, "reset called somebody"
    assert other.device.state() == power_on
