"""Imports point down only (docs/architecture.md): the test walks the ast and fails on an arrow that points up."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "timevm"

#: room -> rooms it may import, itself included; the longest prefix of a module's name is its room
MAY_IMPORT: dict[str, set[str]] = {
    "timevm.errors": set(),
    "timevm.qmp_schema": set(),
    "timevm.chardev": {"timevm.errors"},
    "timevm.network": {"timevm.errors"},
    "timevm.config": {"timevm.errors", "timevm.engine.machine", "timevm.network"},
    "timevm.blkreplay": {"timevm.errors"},
    "timevm.engine.cpu": {"timevm.errors"},
    "timevm.engine.devices": {"timevm.errors"},
    "timevm.engine.clock": {"timevm.errors"},
    "timevm.engine.replay": {"timevm.errors"},
    "timevm.engine.machine": {
        "timevm.errors",
        "timevm.engine.cpu",
        "timevm.engine.devices",
        "timevm.engine.clock",
        "timevm.engine.replay",
        "timevm.blkreplay",
    },
    "timevm.engine.snapshot": {"timevm.errors", "timevm.engine.machine", "timevm.engine.cpu", "timevm.blkreplay"},
    "timevm.engine.vmcore": {"timevm.errors", "timevm.engine.machine", "timevm.engine.cpu"},
    "timevm.engine.timeline": {"timevm.errors", "timevm.engine.snapshot", "timevm.engine.machine", "timevm.engine.cpu"},
    "timevm.engine.control": {
        "timevm.errors",
        "timevm.engine.timeline",
        "timevm.engine.snapshot",
        "timevm.engine.vmcore",
        "timevm.engine.machine",
        "timevm.engine.replay",
        "timevm.engine.clock",
        "timevm.engine.cpu",
    },
    "timevm.monitor.commands": {"timevm.errors", "timevm.engine.control", "timevm.qmp_schema"},
    "timevm.monitor": {
        "timevm.errors",
        "timevm.chardev",
        "timevm.engine.control",
        "timevm.qmp_schema",
        "timevm.monitor.commands",
    },
    "timevm.gdb": {"timevm.errors", "timevm.engine.control", "timevm.qmp_schema", "timevm.monitor.commands"},
}
#: top modules (L5) know everyone
TOP = "timevm"
#: what a device must not touch: no host time, randomness, files or sockets
BANNED_IN_DEVICES = {"time", "random", "os", "socket", "asyncio", "threading", "secrets"}


def room_of(module: str) -> str:
    rooms = [room for room in MAY_IMPORT if module == room or module.startswith(room + ".")]
    return max(rooms, key=len, default=TOP)


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            if room_of(node.module) == TOP:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


FILES = sorted(ROOT.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    module = ".".join(("timevm", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    room = room_of(module)
    for name in imports(path):
        top = name.split(".")[0]
        if top == "unicorn":
            assert room == "timevm.engine.cpu", f"{module} imports unicorn"
        if room == "timevm.engine.devices":
            assert top not in BANNED_IN_DEVICES, f"{module} imports {name}"
        if room == TOP or top != "timevm" or name in ("timevm", "timevm.__version__"):
            continue
        target = room_of(name)
        assert target == room or target in MAY_IMPORT[room], f"{module} ({room}) imports {name} ({target})"
