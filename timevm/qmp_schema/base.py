"""The building blocks of the schema: QAPI's built-in types, models, and the rows of the registry."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, Strict

#: QAPI ``int``: a JSON integer of 64 bits, signed
Int = Annotated[int, Strict(), Field(ge=-(1 << 63), lt=1 << 63)]
#: QAPI ``uint64``: a guest's address; those of kernels have the highest bit set
Address = Annotated[int, Strict(), Field(ge=0, lt=1 << 64)]
#: an address where QEMU's schema has ``int``: scripts that give it as a negative number go on working
IntAddress = Annotated[int, Strict(), Field(ge=-(1 << 63), lt=1 << 64)]
#: QAPI ``str``
Str = Annotated[str, Strict()]
#: QAPI ``bool``
Bool = Annotated[bool, Strict()]
#: QAPI ``number``: any JSON number
Number = Annotated[float, Strict()]


def qapi_name(name: str) -> str:
    """QAPI spells members with dashes where Python has underscores; a trailing one only avoids a keyword."""
    return name.removesuffix("_").replace("_", "-")


class QapiEnum(Enum):
    """A QAPI enumeration; values are the names on the wire."""


class QapiModel(BaseModel):
    """A QAPI struct.  Members are spelt with dashes on the wire, unknown ones are refused, absent ones are left out."""

    # built at their first use: a session uses few of them
    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=qapi_name, populate_by_name=True, defer_build=True
    )

    def on_wire(self) -> dict[str, Any]:
        """The struct as plain JSON values."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class Empty(QapiModel):
    """No members: a command without arguments, an event without data."""


@dataclass(frozen=True, slots=True)
class Example:
    """One exchange as the documentation shows it: what the client sends (``execute`` is added) and gets back."""

    arguments: dict[str, Any] | None
    result: Any
    #: events that follow, by name and data
    events: tuple[tuple[str, dict[str, Any]], ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """One row: everything that is known about a command, except how it is done (``timevm.monitor.commands``).

    ``result`` is a type annotation made of the types above (None: the empty object).  ``run_states`` are QAPI run state
    names in which the command is legal (None: in all), ``refusal`` the error otherwise.  ``hmp`` is the twin in the
    human monitor.
    """

    name: str
    documentation: str
    example: Example
    arguments: type[QapiModel] = Empty
    result: Any = None
    errors: tuple[str, ...] = ()
    run_states: frozenset[str] | None = None
    refusal: str = ""
    allow_oob: bool = False
    allow_preconfig: bool = False
    features: tuple[str, ...] = ()
    hmp: str | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of event."""

    name: str
    documentation: str
    data: type[QapiModel] = Empty
    example: dict[str, Any] = field(default_factory=dict)
