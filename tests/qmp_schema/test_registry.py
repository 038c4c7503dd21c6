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

#: the part of QEMU 7.2's query-qmp-schema about the commands and events that timevm has, with the names of types
#: replaced by the types themselves (tests/monitor/transcripts/record.py writes it)
QEMU_SCHEMA = Path(__file__).parent / "qemu-7.2-schema.json"


def resolve(entries: list[dict[str, Any]], name: str) -> Any:
    """A type without invented names: members, values, elements."""
    entry = {found["name"]: found for found in entries}[name]
    match entry["meta-type"]:
        case "builtin":
            return entry["name"]
        case "array":
            return [resolve(entries, entry["element-type"])]
        case "enum":
            return {"enum": entry["values"]}
        case _:
            members = {
                ("*" if "default" in member else "") + member["name"]: resolve(entries, member["type"])
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
