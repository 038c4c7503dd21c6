"""The human monitor on sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from timevm.monitor.commands.context import MonitorContext
from timevm.monitor.endpoint import SocketEndpoint, run_endpoint
from timevm.monitor.hmp.session import hmp_session


async def run_hmp_server(
    endpoint: SocketEndpoint,
    context: MonitorContext,
    listening: Callable[[str | tuple[str, int]], None] | None = None,
) -> None:
    """Serve the human monitor at ``endpoint`` until cancelled (see ``run_endpoint``)."""

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hmp_session(reader, writer, context, telnet=endpoint.telnet)

    await run_endpoint(endpoint, context, session, listening)
