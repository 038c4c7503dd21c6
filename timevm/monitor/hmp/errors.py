"""What is wrong with a line of the human monitor."""

from __future__ import annotations

from timevm.errors import UserError


class HmpError(UserError):
    """``str()`` is the text as it is printed, without the end of the line."""


class UnknownCommand(HmpError):
    """QEMU: ``unknown command: 'x'``."""

    def __init__(self, name: str) -> None:
        super().__init__(f"unknown command: '{name}'")


class ParameterError(HmpError):
    """The parameters do not fit; the text names the help that does."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
