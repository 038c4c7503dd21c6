"""All rows, by name.  Everything that lists, documents, validates or executes commands begins here."""

from __future__ import annotations

from timevm.qmp_schema import block, chardev, control, dump, extension, facts, job, machine, pci, replay, run_state
from timevm.qmp_schema.base import Command, Event

#: modules of the schema in the order of the reference manual: (title, rows, events)
CHAPTERS: tuple[tuple[str, tuple[Command, ...], tuple[Event, ...]], ...] = (
    ("The protocol", control.COMMANDS, control.EVENTS),
    ("Running and stopping", run_state.COMMANDS, run_state.EVENTS),
    ("Record and replay", replay.COMMANDS, ()),
    ("timevm's own: the ways back", extension.COMMANDS, ()),
    ("Snapshots and jobs", job.COMMANDS, job.EVENTS),
    ("The machine", (*machine.COMMANDS, *facts.COMMANDS, *pci.COMMANDS, *dump.COMMANDS), dump.EVENTS),
    ("Block devices", block.COMMANDS, ()),
    ("Character devices", chardev.COMMANDS, ()),
)

COMMANDS: dict[str, Command] = {row.name: row for _, rows, _ in CHAPTERS for row in rows}
EVENTS: dict[str, Event] = {event.name: event for _, _, events in CHAPTERS for event in events}
