"""What is known about a client that is a terminal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Terminal:
    """A client that is one: ``name`` as in ``$TERM``; whoever changes the size calls ``resized``."""

    name: str = "xterm"
    columns: int = 80
    rows: int = 24
    resized: Callable[[], None] = lambda: None
    #: told by the console when it begins to draw (how to print what others say above its prompt) and ends (None)
    draws: Callable[[Callable[[bytes], Awaitable[None]] | None], None] = lambda above: None
