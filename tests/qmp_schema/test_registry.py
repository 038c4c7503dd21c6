"""The registry is sound: examples fit their own models, the manual is current, introspection is closed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from timevm.qmp_schema.arguments import parse_arguments
from timevm.qmp_schema.base import Command, Event
from timevm.qmp_schema.document import TARGET, render
from timevm.qmp_schema.introspection import SchemaInfo, schema
from timevm.qmp_schema.registry import CHAPTERS, COMMANDS, EVENTS

#: the part of QEMU 7.2's query-qmp-schema about the commands and events that timevm has
#: (``python -m tests.monitor.record_transcripts`` writes it)
QEMU_SCHEMA = Path(__file__).parent / "qemu-7.2-schema.json"


def resolve(entries: list[dict[str, Any]], name: str, within: tuple[str, ...] = ()) -> Any:
    """A type without invented names: members (``*`` before optional ones), values, elements."""
    entry = {found["name"]: found for found in entries}[name]
    if name in within:
        return "recursive"
    within = (*within, name)
    match entry["meta-type"]:
        case "builtin":
            return entry["json-type"]
        case "array":
            return [resolve(entries, entry["element-type"], within)]
        case "alternate":
            return "alternate"
        case "enum":
            return {"enum": entry["values"]}
        case _:
            members = {
                ("*" if "default" in member else "") + member["name"]: resolve(entries, member["type"], within)
                for member in entry["members"]
            }
            return {"object": members}


def test_names_are_unique() -> None:
    assert len(COMMANDS) == sum(len(rows) for _, rows, _ in CHAPTERS)
    assert len(EVENTS) == sum(len(events) for _, _, events in CHAPTERS)


@pytest.mark.parametrize("row", COMMANDS.values(), ids=COMMANDS)
def test_example_fits(row: Command) -> None:
    parse_arguments(row.arguments, row.example.arguments or {})
    if row.result is None:
        assert row.example.result == {}
    else:
        TypeAdapter(row.result).validate_python(row.example.result)
    for name, data in row.example.events:
        parse_arguments(EVENTS[name].data, data)


@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
def test_event_example_fits(event: Event) -> None:
    parse_arguments(event.data, event.example)


def test_manual_is_current() -> None:
    assert TARGET.read_text() == render(), "docs/qmp.md is stale: python -m timevm.qmp_schema.document"


def own_schema() -> list[SchemaInfo]:
    return schema(COMMANDS.values(), EVENTS.values())


def test_introspection_is_closed_and_plain_json() -> None:
    entries = json.loads(json.dumps(own_schema()))
    names = [entry["name"] for entry in entries]
    assert len(names) == len(set(names))
    for entry in entries:
        for key in ("arg-type", "ret-type", "element-type"):
            assert entry.get(key, "0") in names
        for member in entry.get("members", []):
            assert member.get("type", "0") in names


# -- against QEMU's

#: members that QEMU's types have and timevm's have not, all of them optional there: features that timevm has not
LEFT_OUT = {
    "bps_max", "bps_max_length", "bps_rd_max", "bps_rd_max_length", "bps_wr_max", "bps_wr_max_length", "iops_max",
    "iops_max_length", "iops_rd_max", "iops_rd_max_length", "iops_wr_max", "iops_wr_max_length", "iops_size", "group",
    "dirty-bitmaps", "backing-filename-format", "backing-image", "compressed", "encrypted", "format-specific",
    "full-backing-filename", "io-status", "tray_open", "backing", "driver-specific", "parent", "idle_time_ns",
    "flush_latency_histogram", "rd_latency_histogram", "wr_latency_histogram", "die-id", "node-id", "info",
    "pci_bridge",
}  # fmt: skip


def compare(theirs: Any, ours: Any, path: str, *, argument: bool) -> None:
    """Types as ``resolve`` makes them.  In what timevm answers, optional members and some values may be missing."""
    if path.startswith("query-qmp-schema ret"):
        return  # its own types are any values here
    if isinstance(theirs, list) and isinstance(ours, list):
        compare(theirs[0], ours[0], f"{path}[]", argument=argument)
    elif isinstance(theirs, dict) and "enum" in theirs:
        assert set(ours["enum"]) <= set(theirs["enum"]), path
    elif isinstance(theirs, dict) and "object" in theirs:
        for name, kind in ours["object"].items():
            assert name in theirs["object"] or (f"*{name}" in theirs["object"] and not argument), f"{path}/{name}"
            compare(
                theirs["object"].get(name, theirs["object"].get(f"*{name}")), kind, f"{path}/{name}", argument=argument
            )
        for name in theirs["object"]:
            there = name in ours["object"] or name.removeprefix("*") in ours["object"]
            assert there or (name.removeprefix("*") in LEFT_OUT and not argument and name[0] == "*"), (
                f"{path}: no {name}"
            )
    else:
        assert theirs == ours, path


@pytest.mark.parametrize("name", [*COMMANDS, *EVENTS])
def test_types_are_qemus(name: str) -> None:
    qemu, own = json.loads(QEMU_SCHEMA.read_text()), json.loads(json.dumps(own_schema()))
    theirs = next((entry for entry in qemu if entry["name"] == name), None)
    ours = next(entry for entry in own if entry["name"] == name)
    if theirs is None:
        assert name.startswith(("x-timevm-", "TIMEVM_")) or name == "query-events"  # gone from QEMU, and still of use
        return
    assert theirs.get("allow-oob", False) == ours.get("allow-oob", False)
    for key in ("arg-type", "ret-type"):
        if key in theirs:
            compare(
                resolve(qemu, theirs[key]),
                resolve(own, ours[key]),
                f"{name} {key}",
                argument=key == "arg-type" and name in COMMANDS,
            )
