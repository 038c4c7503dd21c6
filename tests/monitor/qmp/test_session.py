"""The session's core: negotiation, ids, out-of-band; no socket."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from timevm.engine.control.port import VmEvent
from timevm.monitor.commands.errors import CommandError
from timevm.monitor.qmp.session import Answer, Execute, QmpSession

FRAGMENTS = st.sampled_from([b'{"execute":', b'"stop"', b"}", b"{", b'"id":'])


def answers(session: QmpSession, data: bytes) -> list[Any]:
    """Answers parsed; executions as their names."""
    return [
        json.loads(step.data) if isinstance(step, Answer) else step.name + ("!" if step.out_of_band else "")
        for step in session.feed(data)
    ]


def error(description: str, kind: str = "GenericError") -> dict[str, Any]:
    return {"error": {"class": kind, "desc": description}}


def negotiated(enable: str = "") -> QmpSession:
    session = QmpSession()
    request = b'{"execute":"qmp_capabilities","arguments":{"enable":[%s]}}' % enable.encode()
    assert answers(session, request) == [{"return": {}}]
    return session


def test_greeting() -> None:
    greeting = json.loads(QmpSession().greeting())["QMP"]
    assert greeting["capabilities"] == ["oob"]
    assert greeting["version"]["package"].startswith("timevm ")


def test_negotiation() -> None:
    session = QmpSession()
    expecting = error("Expecting capabilities negotiation with 'qmp_capabilities'", "CommandNotFound")
    assert answers(session, b'{"execute":"query-status"}') == [expecting]
    wrong = b'{"execute":"qmp_capabilities","arguments":{"enable":["foo"]},"id":1}'
    assert answers(session, wrong) == [error("Parameter 'enable[0]' does not accept value 'foo'") | {"id": 1}]
    assert not session.negotiated
    assert answers(session, b'{"execute":"qmp_capabilities","id":[2]}') == [{"return": {}, "id": [2]}]
    assert answers(session, b'{"execute":"qmp_capabilities"}') == ["qmp_capabilities"]


def test_out_of_band() -> None:
    unexpected = error("QMP input member 'exec-oob' is unexpected")
    assert answers(negotiated(), b'{"exec-oob":"x-timevm-cancel"}') == [unexpected]
    session = negotiated('"oob"')
    assert answers(session, b'{"exec-oob":"x-timevm-cancel"}') == ["x-timevm-cancel!"]
    assert answers(session, b'{"execute":"x-timevm-cancel"}') == ["x-timevm-cancel"]
    refused = error("The command query-status does not support OOB") | {"id": 1}
    assert answers(session, b'{"exec-oob":"query-status","id":1}') == [refused]
    assert answers(session, b'{"exec-oob":"nope"}') == [error("The command nope has not been found", "CommandNotFound")]
    both = b'{"execute":"stop","exec-oob":"stop"}'
    assert answers(session, both) == [error("QMP input member 'exec-oob' clashes with 'execute'")]


def test_several_without_newlines_and_null_id() -> None:
    steps = negotiated().feed(b'{"execute":"stop","id":null}{"execute":"cont"}')
    assert [(step.name, step.request.has_id) for step in steps if isinstance(step, Execute)] == [
        ("stop", True),
        ("cont", False),
    ]


def test_event_and_error_and_result() -> None:
    session = negotiated()
    (step,) = session.feed(b'{"execute":"stop","id":"x"}')
    assert isinstance(step, Execute)
    assert json.loads(session.result(step.request, None)) == {"return": {}, "id": "x"}
    assert json.loads(session.error(step.request, CommandError("no"))) == error("no") | {"id": "x"}
    event = json.loads(session.event(VmEvent("RESET", {"guest": True}, 12.000345)))
    assert event == {
        "event": "RESET",
        "data": {"guest": True},
        "timestamp": {"seconds": 12, "microseconds": 345},
    }
    assert session.event(VmEvent("STOP")).endswith(b"}\r\n")


@given(st.lists(st.binary(max_size=60) | FRAGMENTS, max_size=8))
def test_garbage_is_answered_with_errors(pieces: list[bytes]) -> None:
    session = negotiated()
    for piece in pieces:
        for step in session.feed(piece):
            if isinstance(step, Answer):
                assert set(json.loads(step.data)) <= {"error", "id"}
