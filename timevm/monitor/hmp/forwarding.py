"""Forwarded ports of a user-mode network at run time, with QEMU's words (``net/slirp.c``)."""

from __future__ import annotations

from timevm.errors import TimevmError
from timevm.monitor.hmp.errors import HmpError
from timevm.monitor.hmp.parameters import Kind, Parameter
from timevm.monitor.hmp.table import Call, HmpCommand


def _arguments(call: Call) -> tuple[str | None, str]:
    """The network's id, if one was named, and the rule."""
    first, second = call.values["arg1"], call.values.get("arg2")
    return (None, first) if second is None else (first, second)


async def hostfwd_add(call: Call) -> str:
    netdev, rule = _arguments(call)
    if call.context.forwarding is None:
        raise HmpError("user mode network stack not in use")
    try:
        await call.context.forwarding.forward(netdev, rule)
    except TimevmError as error:
        raise HmpError(str(error)) from error
    return ""


async def hostfwd_remove(call: Call) -> str:
    netdev, rule = _arguments(call)
    if call.context.forwarding is None:
        raise HmpError("user mode network stack not in use")
    try:
        found = await call.context.forwarding.stop_forwarding(netdev, rule)
    except TimevmError as error:
        raise HmpError(str(error)) from error
    return f"host forwarding rule for {rule} {'removed' if found else 'not found'}\n"


_PARAMETERS = (Parameter("arg1", Kind.STRING), Parameter("arg2", Kind.STRING, optional=True))

FORWARDING: tuple[HmpCommand, ...] = (
    HmpCommand(
        ("hostfwd_add",),
        "redirect TCP or UDP connections from host to guest",
        hostfwd_add,
        _PARAMETERS,
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport-[guestaddr]:guestport",
        ("hostfwd_add tcp::2222-:22", "hostfwd_add n0 udp::5353-:53"),
        prefix=False,
    ),
    HmpCommand(
        ("hostfwd_remove",),
        "remove a redirection from host to guest",
        hostfwd_remove,
        _PARAMETERS,
        "[netdev_id] [tcp|udp]:[hostaddr]:hostport",
        ("hostfwd_remove tcp::2222",),
        prefix=False,
    ),
)
