"""For gdb (12 and later) to read: ``source PATH/timevm/gdb/gdbinit.py``.

After every ``monitor`` command gdb looks at the machine again, for such a command may have moved it in time.
``tvm seek``, ``tvm icount``, ``tvm timeline``, ``tvm last-write``, ``tvm checkpoints``, ``tvm refresh``; the function
``$icount()`` and, after every stop, the variable ``$_icount``.  It needs nothing of timevm in gdb's Python.
"""

from __future__ import annotations

import contextlib
from typing import Any

import gdb  # type: ignore[import-untyped]

_WATCHPOINTS = (gdb.BP_WATCHPOINT, gdb.BP_HARDWARE_WATCHPOINT, gdb.BP_READ_WATCHPOINT, gdb.BP_ACCESS_WATCHPOINT)
#: watched when the length is not told by a type
_POINTER_SIZE = 8


def _ask(packet: str) -> str:
    """What the machine's gdb server answers; empty if it is not timevm's, or nobody is connected."""
    connection = gdb.selected_inferior().connection
    if not isinstance(connection, gdb.RemoteTargetConnection):
        return ""
    answer = connection.send_packet(packet)
    return answer.decode(errors="replace") if answer else ""


def _icount() -> int | None:
    with contextlib.suppress(gdb.error, ValueError):
        return int(_ask("qTimevm.Icount"), 16)
    return None


def _note_icount(event: Any = None) -> None:
    gdb.set_convenience_variable("_icount", _icount())


def refresh() -> None:
    """Registers, memory and watched values are asked for again when they are needed."""
    with contextlib.suppress(gdb.error):
        gdb.execute("maintenance flush register-cache", to_string=True)
        gdb.execute("maintenance flush dcache", to_string=True)
    for breakpoint in gdb.breakpoints() or ():
        # a watchpoint remembers the value of the moment before
        if breakpoint.type in _WATCHPOINTS and breakpoint.enabled:
            breakpoint.enabled = False
            breakpoint.enabled = True
    _note_icount()


def before_monitor() -> None:
    """The server need not tell us that we must look again."""
    with contextlib.suppress(gdb.error):
        _ask("QTimevm.Refreshes")


def _monitor(line: str) -> None:
    """Raises gdb.GdbError, which gdb prints as a sentence and not as a Python exception."""
    try:
        gdb.execute(f"monitor {line}")
    except gdb.error as error:
        raise gdb.GdbError(str(error)) from error


class Tvm(gdb.Command):  # type: ignore[misc]
    """Commands of timevm, the machine that can go back"""

    def __init__(self) -> None:
        super().__init__("tvm", gdb.COMMAND_RUNNING, prefix=True)


class TvmSeek(gdb.Command):  # type: ignore[misc]
    """Go to another moment of the recording
    tvm seek N | +N | -N | end
    N instructions are done then, counted from the reset; with a sign: from here."""

    def __init__(self) -> None:
        super().__init__("tvm seek", gdb.COMMAND_RUNNING)

    def invoke(self, argument: str, from_tty: bool) -> None:
        if not argument.strip():
            raise gdb.GdbError("tvm seek N, +N, -N or end")
        _monitor(f"replay_seek {argument.strip()}")
        gdb.execute("frame")


class TvmIcount(gdb.Command):  # type: ignore[misc]
    """How many instructions were executed since the machine's reset"""

    def __init__(self) -> None:
        super().__init__("tvm icount", gdb.COMMAND_STATUS)

    def invoke(self, argument: str, from_tty: bool) -> None:
        icount = _icount()
        if icount is None:
            raise gdb.GdbError("not connected to timevm")
        print(icount)


class TvmLastWrite(gdb.Command):  # type: ignore[misc]
    """Who wrote this variable last?
    tvm last-write EXPRESSION
    A variable, or an address: then the eight bytes there.  The machine stays where it is."""

    def __init__(self) -> None:
        super().__init__("tvm last-write", gdb.COMMAND_DATA, gdb.COMPLETE_EXPRESSION)

    def invoke(self, argument: str, from_tty: bool) -> None:
        if not argument.strip():
            raise gdb.GdbError("tvm last-write EXPRESSION")
        try:
            value = gdb.parse_and_eval(argument)
        except gdb.error as error:
            raise gdb.GdbError(f"{error} (by physical address: monitor last_write -p ADDRESS [LENGTH])") from error
        place, size = (value, _POINTER_SIZE) if value.address is None else (value.address, value.type.sizeof)
        _monitor(f"last_write {int(place):#x} {size}")


class _Borrowed(gdb.Command):  # type: ignore[misc]
    """A command of the human monitor under the name of ours."""

    def __init__(self, name: str, line: str, summary: str) -> None:
        self._line = line
        self.__doc__ = summary  # what gdb's help says, which it asks for when the command is made
        super().__init__(name, gdb.COMMAND_STATUS)

    def invoke(self, argument: str, from_tty: bool) -> None:
        _monitor(self._line)


class TvmRefresh(gdb.Command):  # type: ignore[misc]
    """Look at the machine again: somebody else has moved it"""

    def __init__(self) -> None:
        super().__init__("tvm refresh", gdb.COMMAND_STATUS)

    def invoke(self, argument: str, from_tty: bool) -> None:
        refresh()
        gdb.execute("frame")


class Icount(gdb.Function):  # type: ignore[misc]
    """$icount(): instructions since the machine's reset."""

    def __init__(self) -> None:
        super().__init__("icount")

    def invoke(self) -> int:
        icount = _icount()
        if icount is None:
            raise gdb.GdbError("not connected to timevm")
        return icount


def install() -> None:
    Tvm()
    TvmSeek()
    TvmIcount()
    TvmLastWrite()
    TvmRefresh()
    _Borrowed("tvm timeline", "timeline", "The recording drawn, and where the machine is in it")
    _Borrowed("tvm checkpoints", "info checkpoints", "The checkpoints in memory, and what they cost")
    Icount()
    gdb.events.stop.connect(_note_icount)
    gdb.execute("define hook-monitor\npython before_monitor()\nend")
    gdb.execute("define hookpost-monitor\npython refresh()\nend")


install()
