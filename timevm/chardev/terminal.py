"""The user's terminal in raw mode, and back again however the process ends (short of kill -9)."""

from __future__ import annotations

import atexit
import os
import termios
from typing import Any

_restore: dict[int, list[Any]] = {}


def make_raw(descriptor: int, *, signals: bool) -> bool:
    """Bytes pass as they are (output keeps its newline translation, as in QEMU's ``char-stdio.c``).

    ``signals``: Ctrl-C and Ctrl-Z still send signals.  False if ``descriptor`` is no terminal, or another job has it.
    """
    if not os.isatty(descriptor) or os.tcgetpgrp(descriptor) != os.getpgrp():
        return False
    before = termios.tcgetattr(descriptor)
    if descriptor not in _restore:
        if not _restore:
            atexit.register(restore_all)
        _restore[descriptor] = before
    raw = [*before[:6], list(before[6])]
    raw[0] &= ~(
        termios.IGNBRK
        | termios.BRKINT
        | termios.PARMRK
        | termios.ISTRIP
        | termios.INLCR
        | termios.IGNCR
        | termios.ICRNL
        | termios.IXON
    )
    raw[1] |= termios.OPOST
    raw[2] = (raw[2] & ~(termios.CSIZE | termios.PARENB)) | termios.CS8
    raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.IEXTEN)
    if not signals:
        raw[3] &= ~termios.ISIG
    raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
    termios.tcsetattr(descriptor, termios.TCSANOW, raw)
    return True


def restore_all() -> None:
    """Every terminal as it was found.  Idempotent; fit for signal handlers."""
    while _restore:
        descriptor, before = _restore.popitem()
        try:
            termios.tcsetattr(descriptor, termios.TCSANOW, before)
        except (termios.error, OSError):
            continue  # the terminal is gone: there is nothing to restore
