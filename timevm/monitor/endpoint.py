"""A monitor at an endpoint of its own, from opening to closing."""

from __future__ import annotations

from timevm.chardev.endpoint import EndpointServer, Handler, Listening, SocketEndpoint
from timevm.monitor.commands.context import MonitorContext

__all__ = ["SocketEndpoint", "run_endpoint"]


async def run_endpoint(
    endpoint: SocketEndpoint,
    context: MonitorContext,
    handler: Handler,
    listening: Listening | None = None,
) -> None:
    """Open, serve until cancelled, close.

    ``listening`` is told the address as soon as clients can come: path, or host and port (port 0 means any).
    Raises HostError if the address cannot be had.
    """
    server = EndpointServer(endpoint)
    await server.open()
    if endpoint.label is not None:
        context.chardevs.append(server)
    try:
        if listening is not None and endpoint.server:
            listening(server.listening_at())
        await server.serve(handler)
    finally:
        await server.close()
        if server in context.chardevs:
            context.chardevs.remove(server)
