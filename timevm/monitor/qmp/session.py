"""One QMP connection without its socket: bytes in → steps to take; results and events → bytes out.

The rules are those of QEMU's ``docs/interop/qmp-spec.txt`` and ``monitor/qmp.c``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from timevm.engine.control.port import VmEvent
from timevm.errors import TimevmError
from timevm.monitor.commands.control_commands import NegotiationError, version
from timevm.monitor.commands.dispatch import find_command, on_wire
from timevm.monitor.commands.errors import CommandError, qmp_class
from timevm.monitor.qmp.json_stream import JsonFailure, JsonStream
from timevm.monitor.qmp.json_value import JsonError, parse_json
from timevm.qmp_schema.arguments import ArgumentError, parse_arguments
from timevm.qmp_schema.control import CapabilitiesArguments, QmpCapability

_NEGOTIATE = "qmp_capabilities"


@dataclass(frozen=True, slots=True)
class Answer:
    """Send this when everything before it has been answered."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Execute:
    """Execute this; hand what comes of it to ``QmpSession.result`` or ``.error``.

    ``out_of_band``: at once, without waiting for what came before.
    """

    name: str
    arguments: dict[str, Any]
    request: Request
    out_of_band: bool


@dataclass(frozen=True, slots=True)
class Request:
    """What an answer needs to know of its request: its ``id``, if it had one."""

    has_id: bool = False
    id: Any = None


class QmpSession:
    """``feed`` never raises: whatever is wrong with the input becomes an answer.

    ``pretty``: answers and events are indented, for people.
    """

    def __init__(self, *, pretty: bool = False) -> None:
        self._stream = JsonStream()
        self._indent = 4 if pretty else None
        self._negotiated = False
        self._out_of_band = False

    @property
    def negotiated(self) -> bool:
        """Events are only for clients that have left negotiation mode."""
        return self._negotiated

    def greeting(self) -> bytes:
        capabilities = [capability.value for capability in QmpCapability]
        return self._encode({"QMP": {"version": version().on_wire(), "capabilities": capabilities}})

    def feed(self, data: bytes) -> list[Answer | Execute]:
        steps: list[Answer | Execute] = []
        for item in self._stream.feed(data):
            if isinstance(item, JsonFailure):
                steps.append(Answer(self.error(Request(), CommandError(item.sentence))))
                continue
            try:
                value = parse_json(item.data)
            except JsonError as wrong:
                steps.append(Answer(self.error(Request(), wrong)))
                continue
            steps.append(self._request(value))
        return steps

    def _request(self, value: Any) -> Answer | Execute:
        if not isinstance(value, dict):
            return Answer(self.error(Request(), CommandError("QMP input must be a JSON object")))
        request = Request("id" in value, value.get("id"))
        try:
            return self._step(value, request)
        except TimevmError as wrong:
            return Answer(self.error(request, wrong))

    def _step(self, value: dict[str, Any], request: Request) -> Answer | Execute:
        name, arguments, out_of_band = self._members(value)
        if not self._negotiated and name != _NEGOTIATE:
            raise NegotiationError("Expecting capabilities negotiation with 'qmp_capabilities'")
        command = find_command(name)
        if out_of_band and not command.allow_oob:
            raise CommandError(f"The command {name} does not support OOB")
        if name == _NEGOTIATE and not self._negotiated:
            self._negotiate(arguments)
            return Answer(self.result(request, None))
        return Execute(name, arguments, request, out_of_band)

    def _members(self, value: dict[str, Any]) -> tuple[str, dict[str, Any], bool]:
        """Name, arguments, and whether it is out of band."""
        name: str | None = None
        arguments: dict[str, Any] = {}
        out_of_band = False
        for member, content in value.items():
            if member == "execute" or (member == "exec-oob" and self._out_of_band):
                if not isinstance(content, str):
                    raise CommandError(f"QMP input member '{member}' must be a string")
                if name is not None:
                    first = "exec-oob" if out_of_band else "execute"
                    raise CommandError(f"QMP input member '{member}' clashes with '{first}'")
                name, out_of_band = content, member == "exec-oob"
            elif member == "arguments":
                if not isinstance(content, dict):
                    raise CommandError("QMP input member 'arguments' must be an object")
                arguments = content
            elif member != "id":
                raise CommandError(f"QMP input member '{member}' is unexpected")
        if name is None:
            raise CommandError("QMP input lacks member 'execute'")
        return name, arguments, out_of_band

    def _negotiate(self, arguments: dict[str, Any]) -> None:
        try:
            wanted: CapabilitiesArguments = parse_arguments(CapabilitiesArguments, arguments)
        except ArgumentError as wrong:
            raise CommandError(str(wrong)) from wrong
        self._out_of_band = QmpCapability.OOB in (wanted.enable or ())
        self._negotiated = True

    def result(self, request: Request, result: Any) -> bytes:
        return self._encode({"return": on_wire(result)} | _id(request))

    def error(self, request: Request, error: TimevmError) -> bytes:
        return self._encode({"error": {"class": qmp_class(error), "desc": str(error)}} | _id(request))

    def event(self, event: VmEvent) -> bytes:
        seconds, microseconds = divmod(round(event.seconds * 1_000_000), 1_000_000)
        message: dict[str, Any] = {"timestamp": {"seconds": seconds, "microseconds": microseconds}, "event": event.name}
        if event.data:
            message["data"] = event.data
        return self._encode(message)

    def _encode(self, message: dict[str, Any]) -> bytes:
        return json.dumps(message, indent=self._indent).encode() + b"\r\n"


def _id(request: Request) -> dict[str, Any]:
    return {"id": request.id} if request.has_id else {}
