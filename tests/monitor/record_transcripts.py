"""Records QEMU's side of every scenario: ``python -m tests.monitor.record_transcripts`` (needs qemu-system-aarch64)."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from tests.monitor.conversation import converse, steady
from tests.monitor.scenarios import SCENARIOS
from tests.peers import need

FOLDER = Path(__file__).with_name("transcripts")


def record(name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        heard = converse(SCENARIOS[name], [need("qemu-system-aarch64")], Path(folder))
    steps = [
        {"sent": step.data, "replies": steady(replies)}
        for step, replies in zip(SCENARIOS[name].steps, heard.replies, strict=True)
    ]
    transcript = {"greeting": heard.greeting, "steps": steps, "events": heard.events}
    (FOLDER / f"{name}.json").write_text(json.dumps(transcript, indent=1) + "\n")


if __name__ == "__main__":
    for scenario in sys.argv[1:] or SCENARIOS:
        print(scenario)
        record(scenario)
