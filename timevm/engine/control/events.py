"""The event stream: every subscriber has a bounded queue of its own, so that one who does not read hurts nobody."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

from timevm.engine.control.port import RunResult, VmEvent

_log = logging.getLogger(__name__)

#: events that a subscriber may leave unread; then the oldest go
DEPTH = 1000


class _Subscription:
    """An endless iterator over the events of one subscriber."""

    def __init__(self) -> None:
        self._events: deque[VmEvent] = deque()
        self._there = asyncio.Event()
        self.lost = 0

    def put(self, event: VmEvent) -> None:
        if len(self._events) == DEPTH:
            self._events.popleft()
            self.lost += 1
            if self.lost == 1:
                _log.warning("an event subscriber does not read: its oldest events are dropped")
        self._events.append(event)
        self._there.set()

    def __aiter__(self) -> AsyncIterator[VmEvent]:
        return self

    async def __anext__(self) -> VmEvent:
        while not self._events:
            self._there.clear()
            await self._there.wait()
        return self._events.popleft()


class EventStream:
    """``send`` reaches everybody who is subscribed at that moment.  Belongs to the event loop."""

    def __init__(self) -> None:
        self._subscriptions: set[_Subscription] = set()

    def send(self, name: str, data: dict[str, Any] | None = None, result: RunResult | None = None) -> None:
        event = VmEvent(name, data or {}, time.time(), result)
        for subscription in self._subscriptions:
            subscription.put(event)

    @contextmanager
    def subscribe(self) -> Iterator[AsyncIterator[VmEvent]]:
        subscription = _Subscription()
        self._subscriptions.add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions.discard(subscription)
