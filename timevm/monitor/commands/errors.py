"""What a command answers when it cannot do its work.  The one mapping from our errors to QMP's error classes."""

from __future__ import annotations

from timevm.errors import TimevmError, UserError

GENERIC_ERROR = "GenericError"
COMMAND_NOT_FOUND = "CommandNotFound"


class CommandError(UserError):
    """A command that is wrong, or wrong now.  ``str()`` is QEMU's sentence where QEMU has one."""

    qmp_class = GENERIC_ERROR


class CommandNotFound(CommandError):
    """No such command."""

    qmp_class = COMMAND_NOT_FOUND

    def __init__(self, name: str) -> None:
        super().__init__(f"The command {name} has not been found")


def qmp_class(error: TimevmError) -> str:
    """QAPI ``QapiErrorClass``."""
    return error.qmp_class if isinstance(error, CommandError) else GENERIC_ERROR
