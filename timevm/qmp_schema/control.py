"""QAPI modules ``control`` and ``introspect``: the protocol itself (QEMU: ``qapi/control.json``)."""

from __future__ import annotations

from typing import Any

from timevm.qmp_schema.base import Command, Event, Example, Int, QapiEnum, QapiModel, Str


class QmpCapability(QapiEnum):
    OOB = "oob"


class CapabilitiesArguments(QapiModel):
    """``enable``: capabilities of the greeting that the client wants."""

    enable: list[QmpCapability] | None = None


class VersionTriple(QapiModel):
    major: Int
    minor: Int
    micro: Int


class VersionInfo(QapiModel):
    """``qemu``: the QEMU version whose commands and texts these are; ``package``: the program that answers."""

    qemu: VersionTriple
    package: Str


class EventsLostData(QapiModel):
    """``count``: events that this connection did not get."""

    count: Int


class CommandInfo(QapiModel):
    name: Str


class EventInfo(QapiModel):
    name: Str


COMMANDS = (
    Command(
        name="qmp_capabilities",
        documentation="Enable capabilities and leave negotiation mode.  Must be the first command.",
        arguments=CapabilitiesArguments,
        example=Example({"enable": ["oob"]}, {}),
        errors=("Capabilities negotiation is already complete, command ignored",),
        allow_preconfig=True,
    ),
    Command(
        name="query-version",
        documentation="Which QEMU's protocol this is, and which program answers.",
        result=VersionInfo,
        example=Example(None, {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": "timevm 0.1.0"}),
        allow_preconfig=True,
        hmp="info version",
    ),
    Command(
        name="query-commands",
        documentation="The names of all commands.",
        result=list[CommandInfo],
        example=Example(None, [{"name": "query-commands"}, {"name": "stop"}]),
        allow_preconfig=True,
    ),
    Command(
        name="query-events",
        documentation="The names of all events.",
        result=list[EventInfo],
        example=Example(None, [{"name": "STOP"}, {"name": "RESUME"}]),
        allow_preconfig=True,
    ),
    Command(
        name="query-qmp-schema",
        documentation="Every command, event and type, in the shape of QEMU's `SchemaInfo`.",
        result=list[Any],
        example=Example(None, [{"name": "stop", "meta-type": "command", "arg-type": "0", "ret-type": "0"}]),
        allow_preconfig=True,
    ),
)

EVENTS = (
    Event(
        "TIMEVM_EVENTS_LOST",
        "This connection was not read from, so that events for it had to be dropped (timevm's own).",
        EventsLostData,
        {"count": 12},
    ),
)
