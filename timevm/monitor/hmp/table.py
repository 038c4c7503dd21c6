"""What a command of the human monitor is, and how one is found."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.hmp.parameters import FormatMemory, Parameter


@dataclass(slots=True)
class HmpState:
    """What one session remembers from line to line.  ``columns``: of its terminal, None for a client of plain lines."""

    formats: FormatMemory = field(default_factory=FormatMemory)
    history: list[str] = field(default_factory=list)
    greeted: bool = False
    columns: int | None = None


@dataclass(frozen=True, slots=True)
class Call:
    """One execution of a command: parsed ``values`` by parameter name."""

    context: MonitorContext
    state: HmpState
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class HmpCommand:
    """``names``: the first is the one in lists; ``syntax`` and ``help`` as printed; ``examples``: lines to type.

    ``run`` returns what is printed.  An error is printed behind ``Error: `` where QEMU does (``prefix``).
    """

    names: tuple[str, ...]
    help: str
    run: Callable[[Call], Awaitable[str]]
    parameters: tuple[Parameter, ...] = ()
    syntax: str = ""
    examples: tuple[str, ...] = ()
    prefix: bool = True

    @property
    def title(self) -> str:
        """As messages spell it: ``quit|q``."""
        return "|".join(self.names)

    def help_line(self, group: str = "") -> str:
        return f"{group}{self.title} {self.syntax} -- {self.help}\n"

    def help_text(self, group: str = "") -> str:
        """The line, and examples."""
        return self.help_line(group) + "".join(f"    example: {example}\n" for example in self.examples)


def find(table: Iterable[HmpCommand], name: str) -> HmpCommand | None:
    return next((command for command in table if name in command.names), None)
