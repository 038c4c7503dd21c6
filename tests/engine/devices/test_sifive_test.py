"""The test finisher."""

from __future__ import annotations

import pytest

from timevm.engine.devices.sifive_test import TestFinisher


@pytest.mark.parametrize(
    ("offset", "size", "value", "calls"),
    [
        (0, 4, 0x5555, [None]),
        (0, 2, 0x5555, [None]),
        (0, 4, 0x7777, ["reset"]),
        (0, 4, 0x3333, [0]),
        (0, 4, 0x0007_3333, [7]),
        (0, 4, 0x0101_3333, [1]),
        (0, 4, 0x1234, []),
        (0, 1, 0x55, []),
        (0, 8, 0x5555, []),
        (4, 4, 0x5555, []),
    ],
)
def test_writes(offset: int, size: int, value: int, calls: list[object]) -> None:
    seen: list[object] = []
    device = TestFinisher("test", seen.append, lambda: seen.append("reset"))
    device.write(offset, size, value)
    assert seen == calls
    assert device.read(offset, size) == 0
