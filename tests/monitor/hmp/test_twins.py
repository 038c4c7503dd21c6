"""Every ``x-timevm-`` command has a twin among the lines, and the reverse; habits of QEMU find their names."""

from __future__ import annotations

import json

import pytest

from tests.monitor.record_transcripts import NAMES
from timevm.monitor.hmp.actions import ACTIONS
from timevm.monitor.hmp.information import INFORMATION
from timevm.monitor.hmp.line import TOP, split_command
from timevm.qmp_schema.registry import COMMANDS

QEMU = frozenset(json.loads(NAMES.read_text()))
OWN = [row for name, row in COMMANDS.items() if name.startswith("x-timevm-")]


@pytest.mark.parametrize("row", OWN, ids=lambda row: row.name)
def test_an_own_command_has_a_line(row: object) -> None:
    line = getattr(row, "hmp", None)
    assert line is not None
    command, _, _, _ = split_command(line)
    assert command.examples or not command.parameters


def test_a_line_that_qemu_has_not_is_a_command() -> None:
    twins = {row.hmp for row in COMMANDS.values() if row.hmp is not None}
    lines = [command.names[0] for command in ACTIONS] + [f"info {command.names[0]}" for command in INFORMATION]
    assert [line for line in lines if line not in QEMU and line not in twins] == []


def test_lines_of_the_contract_are_those_of_qemu() -> None:
    """Their names and aliases, so that a habit works."""
    aliases = {alias for command in TOP for alias in command.names}
    for name in [
        "replay_break",
        "replay_delete_break",
        "replay_seek",
        "savevm",
        "loadvm",
        "delvm",
        "x",
        "xp",
        "print",
        "p",
        "stop",
        "s",
        "cont",
        "c",
        "system_reset",
        "system_powerdown",
        "gdbserver",
        "help",
        "?",
        "quit",
        "q",
        "memsave",
        "pmemsave",
        "gva2gpa",
        "info",
    ]:
        assert name in aliases and name in QEMU
    for name in [
        "replay",
        "snapshots",
        "registers",
        "status",
        "block",
        "chardev",
        "mtree",
        "qtree",
        "network",
        "roms",
        "version",
        "history",
        "name",
    ]:
        assert any(name in command.names for command in INFORMATION) and f"info {name}" in QEMU


def test_the_manual_names_them() -> None:
    manual = (NAMES.parents[3] / "docs" / "console.md").read_text()
    for row in OWN:
        assert f"`{row.name}`" in manual and f"`{row.hmp}" in manual
