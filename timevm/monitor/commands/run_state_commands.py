"""Running and stopping."""

from __future__ import annotations

from timevm.monitor.commands.context import Handler, MonitorContext
from timevm.qmp_schema.base import Empty
from timevm.qmp_schema.run_state import RunState, StatusInfo


async def query_status(context: MonitorContext, arguments: Empty) -> StatusInfo:
    status = RunState(context.vm.run_state.value)
    return StatusInfo(running=status is RunState.RUNNING, singlestep=False, status=status)


async def stop(context: MonitorContext, arguments: Empty) -> None:
    await context.vm.stop()


async def cont(context: MonitorContext, arguments: Empty) -> None:
    if context.vm.run_state.value != RunState.RUNNING.value:
        await context.vm.cont()


async def system_reset(context: MonitorContext, arguments: Empty) -> None:
    await context.vm.system_reset()


async def system_powerdown(context: MonitorContext, arguments: Empty) -> None:
    await context.vm.system_powerdown()


async def quit_(context: MonitorContext, arguments: Empty) -> None:
    await context.vm.quit()


HANDLERS: dict[str, Handler] = {
    "query-status": query_status,
    "stop": stop,
    "cont": cont,
    "system_reset": system_reset,
    "system_powerdown": system_powerdown,
    "quit": quit_,
}
