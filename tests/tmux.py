"""A real terminal for tests: one tmux server of our own, with one window."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
import uuid

from tests.peers import need

DEADLINE = 20


class Tmux:
    """``command`` runs in it; what it shows is asked for."""

    def __init__(self, command: str, columns: int = 100, rows: int = 20) -> None:
        need("tmux")
        self._socket = f"timevm-test-{uuid.uuid4().hex}"
        self._tmux("new-session", "-d", "-x", str(columns), "-y", str(rows), command)

    def _tmux(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-u", "-L", self._socket, "-f", "/dev/null", *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        ).stdout

    def type(self, *keys: str) -> None:
        self._tmux("send-keys", "--", *keys)

    def screen(self, *, colours: bool = False) -> str:
        return self._tmux("capture-pane", "-p", *(("-e",) if colours else ()))

    def close(self) -> None:
        subprocess.run(["tmux", "-L", self._socket, "kill-server"], capture_output=True, timeout=DEADLINE)

    async def shows(self, pattern: str, *, colours: bool = False) -> str:
        """Wait for the screen to match."""
        deadline = time.monotonic() + DEADLINE
        while True:
            screen = await asyncio.to_thread(self.screen, colours=colours)
            if re.search(pattern, screen):
                return screen
            assert time.monotonic() < deadline, f"never saw {pattern!r} on\n{screen}"
            await asyncio.sleep(0.05)
