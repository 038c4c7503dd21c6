"""QEMU's sentences about wrong arguments (the same as in tests/monitor/transcripts)."""

from __future__ import annotations

from typing import Any

import pytest

from timevm.qmp_schema.arguments import ArgumentError, parse_arguments
from timevm.qmp_schema.base import QapiModel
from timevm.qmp_schema.control import CapabilitiesArguments
from timevm.qmp_schema.extension import TimevmStops
from timevm.qmp_schema.job import SnapshotArguments
from timevm.qmp_schema.machine import HumanMonitorArguments
from timevm.qmp_schema.replay import Position

WRONG: list[tuple[type[QapiModel], dict[str, Any], str]] = [
    (Position, {}, "Parameter 'icount' is missing"),
    (Position, {"foo": 2}, "Parameter 'icount' is missing"),
    (Position, {"icount": "a"}, "Invalid parameter type for 'icount', expected: integer"),
    (Position, {"icount": 1.0}, "Invalid parameter type for 'icount', expected: integer"),
    (Position, {"icount": True, "foo": 2}, "Invalid parameter type for 'icount', expected: integer"),
    (Position, {"icount": None}, "Invalid parameter type for 'icount', expected: integer"),
    (Position, {"icount": 1 << 63}, "Invalid parameter type for 'icount', expected: integer"),
    (Position, {"icount": 1, "foo": 2}, "Parameter 'foo' is unexpected"),
    (HumanMonitorArguments, {"command-line": 5}, "Invalid parameter type for 'command-line', expected: string"),
    (HumanMonitorArguments, {"command_line": ""}, "Parameter 'command-line' is missing"),
    (
        HumanMonitorArguments,
        {"command-line": "", "cpu-index": None},
        "Invalid parameter type for 'cpu-index', expected: integer",
    ),
    (CapabilitiesArguments, {"enable": "oob"}, "Invalid parameter type for 'enable', expected: array"),
    (CapabilitiesArguments, {"enable": ["foo"]}, "Parameter 'enable[0]' does not accept value 'foo'"),
    (CapabilitiesArguments, {"enable": [1]}, "Invalid parameter type for 'enable[0]', expected: string"),
    (TimevmStops, {"writes": [1, "a"]}, "Invalid parameter type for 'writes[1]', expected: integer"),
    (
        SnapshotArguments,
        {"job-id": "j", "tag": "t", "vmstate": "v", "devices": {}},
        "Invalid parameter type for 'devices', expected: array",
    ),
]


@pytest.mark.parametrize(("model", "arguments", "sentence"), WRONG)
def test_sentence(model: type[QapiModel], arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        parse_arguments(model, arguments)
    assert str(caught.value) == sentence


def test_dashes_on_the_wire_underscores_in_python() -> None:
    parsed = parse_arguments(HumanMonitorArguments, {"command-line": "info status", "cpu-index": 0})
    assert (parsed.command_line, parsed.cpu_index) == ("info status", 0)
    assert parsed.on_wire() == {"command-line": "info status", "cpu-index": 0}
