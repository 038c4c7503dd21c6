"""Events that do not come from the machine (jobs): one bounded queue a subscriber, the oldest dropped when full."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from timevm.engine.control.port import VmEvent

#: events that a subscriber may leave unread
DEPTH = 1000


class _Subscription:
    def __init__(self) -> None:
        self._events: deque[VmEvent] = deque(maxlen=DEPTH)
        self._there = asyncio.Event()

    def put(self, event: VmEvent) -> None:
        self._events.append(event)
        self._there.set()

    def __aiter__(self) -> AsyncIterator[VmEvent]:
        return self

    async def __anext__(self) -> VmEvent:
        while not self._events:
            self._there.clear()
            await self._there.wait()
        return self._events.popleft()


class Broadcast:
    """``send`` reaches everybody who is subscribed at that moment."""

    def __init__(self) -> None:
        self._subscriptions: set[_Subscription] = set()

    def send(self, name: str, data: dict[str, Any]) -> None:
        event = VmEvent(name, data, time.time())
        for subscription in self._subscriptions:
            subscription.put(event)

    @contextmanager
    def subscribe(self) -> Iterator[AsyncIterator[VmEvent]]:
        """Events from now on; the iterator never ends by itself."""
        subscription = _Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
