"""Records QEMU's side of every scenario: ``python -m tests.monitor.record_transcripts`` (needs qemu-system-…).

Also the names of its human monitor's commands, and its schema of the commands and events that timevm has.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from pathlib import Path

from tests.monitor.conversation import NEGOTIATE, Scenario, Send, converse, hmp, qmp, steady
from tests.monitor.scenarios import SCENARIOS
from tests.peers import need
from timevm.qmp_schema.registry import COMMANDS, EVENTS

FOLDER = Path(__file__).with_name("transcripts")
NAMES = FOLDER / "hmp-names.json"
SCHEMA = FOLDER.parents[1] / "qmp_schema" / "qemu-7.2-schema.json"


def record(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        heard = converse(SCENARIOS[name], [need(f"qemu-system-{SCENARIOS[name].architecture}")], Path(folder))
    steps = [
        {"sent": step.data, "replies": steady(replies)}
        for step, replies in zip(SCENARIOS[name].steps, heard.replies, strict=True)
    ]
    transcript = {"greeting": heard.greeting, "steps": steps, "events": heard.events}
    (FOLDER / f"{name}.json").write_text(json.dumps(transcript, indent=1) + "\n")


def record_names() -> None:
    """``info`` and its subcommands as ``info NAME``."""
    said = ""
    for architecture in ("aarch64", "x86_64"):
        scenario = Scenario((Send(NEGOTIATE), hmp("help"), hmp("help info")), ("-S",), architecture=architecture)
        with tempfile.TemporaryDirectory() as folder:
            heard = converse(scenario, [need(f"qemu-system-{architecture}")], Path(folder))
        said += heard.replies[1][0]["return"] + heard.replies[2][0]["return"]
    names = {"info"}
    for line in said.splitlines():
        if " -- " in line:
            head = line.split(" -- ")[0]
            prefix = "info " if head.startswith("info ") else ""
            names |= {
                prefix + name
                for name in head.removeprefix("info ").split()[0].split("|")
                if re.fullmatch(r"[a-z][\w-]*|\?", name)
            }
    NAMES.write_text(json.dumps(sorted(names), indent=1) + "\n")


def record_schema() -> None:
    """What timevm has of it, with the types that it needs."""
    scenario = Scenario((Send(NEGOTIATE), qmp("query-qmp-schema")), ("-S",))
    with tempfile.TemporaryDirectory() as folder:
        heard = converse(scenario, [need("qemu-system-aarch64")], Path(folder))
    entries = {entry["name"]: entry for entry in heard.replies[1][0]["return"]}
    wanted = [name for name in (*COMMANDS, *EVENTS) if name in entries]
    kept: dict[str, object] = {}
    while wanted:
        name = wanted.pop()
        if name in kept:
            continue
        entry = kept[name] = entries[name]
        wanted += [entry[key] for key in ("arg-type", "ret-type", "element-type") if key in entry]
        wanted += [member["type"] for member in entry.get("members", []) if "type" in member]
        wanted += [variant["type"] for variant in entry.get("variants", [])]
    SCHEMA.write_text(json.dumps([kept[name] for name in sorted(kept)], indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) == 1:
        record_names()
        record_schema()
    for scenario in sys.argv[1:] or SCENARIOS:
        print(scenario)
        record(scenario)
