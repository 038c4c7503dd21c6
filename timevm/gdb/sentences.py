"""What a client is told in words."""

from __future__ import annotations

from pathlib import Path

from timevm.engine.control.port import ReplayMode
from timevm.gdb.client import Client

_HELPER = Path(__file__).with_name("gdbinit.py")

WRITE_REFUSALS = {
    ReplayMode.PLAY: "registers and memory cannot be written while replaying: what happened stays as it was",
    ReplayMode.RECORD: "registers and memory cannot be written while recording: the recording would not know of it",
}
LOOK_BACK = (
    "the machine is being recorded: 'monitor look_back' ends the recording here and makes this its replay; then one "
    "can go back"
)
NO_RECORDING = "going back needs a replay: start timevm with -icount shift=…,rr=replay,rrfile=…"


def moved(client: Client, icount: int) -> str:
    """A monitor command has moved the machine in time, and the client does not look again by itself."""
    if client.is_lldb:
        what = "LLDB still shows the one before, until it has gone a step"
    else:
        what = (
            "gdb still shows the one before. 'maint flush register-cache' and 'maint flush dcache' make it look again, "
            f"and with 'source {_HELPER}' it does so by itself"
        )
    return f"timevm: the machine is at another moment now (instruction {icount}); {what}\n"
