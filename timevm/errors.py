"""One small tree of errors; each says whose fault it is.  Front ends map a class, never a message."""

from __future__ import annotations


class TimevmError(Exception):
    """Base of everything timevm raises on purpose.  ``str()`` is a sentence for the user."""

    exit_code = 1


class UserError(TimevmError):
    """The command line, a monitor command or a request was wrong."""


class GuestError(TimevmError):
    """The guest did what no machine could carry out (a double fault, a kernel image that is none)."""


class RecordingError(TimevmError):
    """The recording is missing, damaged, of another machine, or could not be written."""


class ReplayDivergence(RecordingError):
    """A replay differs from its recording.

    ``first`` and ``last`` bound the icounts between which it happened; ``what`` names the parts that differ.
    """

    def __init__(self, first: int, last: int, what: str) -> None:
        self.first, self.last, self.what = first, last, what
        super().__init__(
            f"the replay differs from the recording between instructions {first} and {last}: {what}. "
            "This is a bug in timevm: please report it together with the recording"
        )


class PeerError(TimevmError):
    """A client or another program broke its protocol."""


class HostError(TimevmError):
    """The host refused something (a file, memory, a port)."""


class InternalError(TimevmError):
    """timevm itself is wrong, or a library is not the one it was built for."""
