"""The schema as ``query-qmp-schema`` shows it: QEMU's ``SchemaInfo`` (QEMU: ``qapi/introspect.json``).

As in QEMU, struct and enum types have numbers for names: clients find them by walking from a command.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, get_args, get_origin

from timevm.qmp_schema.arguments import bare
from timevm.qmp_schema.base import Command, Empty, Event, QapiEnum, QapiModel

SchemaInfo = dict[str, Any]

_BUILTIN: dict[Any, SchemaInfo] = {
    int: {"name": "int", "meta-type": "builtin", "json-type": "int"},
    str: {"name": "str", "meta-type": "builtin", "json-type": "string"},
    bool: {"name": "bool", "meta-type": "builtin", "json-type": "boolean"},
    float: {"name": "number", "meta-type": "builtin", "json-type": "number"},
    Any: {"name": "any", "meta-type": "builtin", "json-type": "value"},
}


class _Builder:
    def __init__(self) -> None:
        self.entries: dict[str, SchemaInfo] = {}
        self._numbers: dict[Any, str] = {}

    def type_name(self, annotation: Any) -> str:
        """The name of a type, whose entry is made when it is met first."""
        kind = bare(annotation)
        if kind in _BUILTIN:
            entry = _BUILTIN[kind]
            return str(self.entries.setdefault(entry["name"], entry)["name"])
        if get_origin(kind) is list:
            element = self.type_name(get_args(kind)[0])
            name = f"[{element}]"
            self.entries[name] = {"name": name, "meta-type": "array", "element-type": element}
            return name
        if kind in self._numbers:
            return self._numbers[kind]
        name = self._numbers[kind] = str(len(self._numbers))
        self.entries[name] = {}  # keeps its place before the types of its members
        self.entries[name] = self._enum(name, kind) if issubclass(kind, QapiEnum) else self._object(name, kind)
        return name

    def _enum(self, name: str, kind: type[QapiEnum]) -> SchemaInfo:
        values = [member.value for member in kind]
        members = [{"name": value} for value in values]
        return {"name": name, "meta-type": "enum", "members": members, "values": values}

    def _object(self, name: str, kind: type[QapiModel]) -> SchemaInfo:
        members = []
        for python_name, field in kind.model_fields.items():
            member: SchemaInfo = {"name": field.alias or python_name, "type": self.type_name(field.annotation)}
            if not field.is_required():
                member["default"] = None
            members.append(member)
        return {"name": name, "meta-type": "object", "members": members}


def schema(commands: Iterable[Command], events: Iterable[Event]) -> list[SchemaInfo]:
    """Commands, events, then the types that they use."""
    builder = _Builder()
    builder.type_name(Empty)
    head: list[SchemaInfo] = []
    for command in commands:
        entry: SchemaInfo = {
            "name": command.name,
            "meta-type": "command",
            "arg-type": builder.type_name(command.arguments),
            "ret-type": builder.type_name(Empty if command.result is None else command.result),
        }
        if command.allow_oob:
            entry["allow-oob"] = True
        if command.features:
            entry["features"] = list(command.features)
        head.append(entry)
    for event in events:
        head.append({"name": event.name, "meta-type": "event", "arg-type": builder.type_name(event.data)})
    return head + list(builder.entries.values())
