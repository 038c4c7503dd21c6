"""timevm says what QEMU 7.2 said (``transcripts/*.json``), but for ``differences.json``, which gives the reasons."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import command
from tests.monitor.conversation import converse, steady
from tests.monitor.record_transcripts import FOLDER
from tests.monitor.scenarios import SCENARIOS
from timevm.monitor.qmp.session import QmpSession

DIFFERENCES: dict[str, list[dict[str, Any]]] = json.loads((FOLDER / "differences.json").read_text())


def expected(name: str) -> dict[str, Any]:
    """QEMU's transcript with the known differences in it.  A difference that changes nothing is an error."""
    transcript: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    for difference in DIFFERENCES.get(name, []):
        step = transcript["steps"][difference["step"]]
        assert step["sent"] == difference["sent"], f"{name}: step {difference['step']} is another one by now"
        assert step["replies"] != difference["timevm"], f"{name}: no difference in step {difference['step']}"
        assert difference["reason"]
        step["replies"] = difference["timevm"]
    return transcript


@pytest.mark.parametrize("name", SCENARIOS)
def test_timevm_says_what_qemu_said(name: str, tmp_path: Path) -> None:
    transcript = expected(name)
    scenario = SCENARIOS[name]
    heard = converse(scenario, command([], f"main_system_{scenario.architecture}"), tmp_path)
    assert heard.greeting["QMP"]["capabilities"] == transcript["greeting"]["QMP"]["capabilities"]
    assert heard.greeting["QMP"]["version"]["qemu"].keys() == transcript["greeting"]["QMP"]["version"]["qemu"].keys()
    for step, replies in zip(transcript["steps"], heard.replies, strict=True):
        assert steady(replies) == step["replies"], step["sent"]
    assert heard.events == transcript["events"]


def test_every_difference_is_of_a_scenario() -> None:
    assert set(DIFFERENCES) <= set(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_byte_by_byte_it_is_the_same_conversation(name: str) -> None:
    whole, single = QmpSession(), QmpSession()
    for step in SCENARIOS[name].steps:
        data = (step.data if isinstance(step.data, str) else json.dumps(step.data)).encode()
        expected_steps = whole.feed(data)
        assert [found for byte in data for found in single.feed(bytes((byte,)))] == expected_steps
        assert len(expected_steps) == step.replies
