"""The driver: runs the brain on asyncio. The only place where effects become I/O.

One input at a time goes in, the outbox comes out: sends go to links, timers to the loop, records to the state store,
events to the node. The driver decides nothing.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from agentmesh.core.brain import Brain
from agentmesh.core.machine import Outbox, Send, Timer

_log = logging.getLogger("agentmesh.driver")


class Driver:
    """Feed a brain and carry out what it asks for.

    Args:
        brain: The composed machines.
        send: Sends a control message to a peer; must not block or raise.
        store: Keeps a record.
        emit: Tells the node about an event.
    """

    def __init__(
        self,
        brain: Brain,
        *,
        send: Callable[[Send], None],
        store: Callable[[Any], None],
        emit: Callable[[Any], None],
    ) -> None:
        self.brain = brain
        self._send = send
        self._store = store
        self._emit = emit
        self._timers: set[asyncio.TimerHandle] = set()
        self._inputs: list[Any] = []
        self._running = False
        self._closed = False

    @property
    def now_s(self) -> float:
        """Monotonic seconds, the brain's clock."""
        return time.monotonic()

    def feed(self, incoming: Any) -> None:
        """Give the brain an input and carry out the effects before returning; inputs made by effects follow in order."""
        if self._closed:
            return
        self._inputs.append(incoming)
        if self._running:
            return
        self._running = True
        try:
            while self._inputs:
                self._step(self._inputs.pop(0))
        finally:
            self._running = False

    def _step(self, incoming: Any) -> None:
        out = Outbox()
        try:
            self.brain.handle(incoming, self.now_s, out)
        except Exception:  # noqa: BLE001 one of three doors where any error is caught: one bad input, one lost step
            _log.exception("brain failed on %s", type(incoming).__name__)
            return
        for send in out.sends:
            self._send(send)
        for record in out.records:
            self._store(record)
        for delay_s, timer in out.timers:
            self._arm(delay_s, timer)
        for event in out.events:
            self._emit(event)

    def _arm(self, delay_s: float, timer: Timer) -> None:
        loop = asyncio.get_running_loop()
        due_s = self.now_s + delay_s

        def fire() -> None:
            self._timers.discard(handle)
            if self.now_s < due_s and not self._closed:
                # Loops fire up to a clock step early; machines may rely on it that the time has come.
                self._arm(due_s - self.now_s, timer)
                return
            self.feed(timer)

        handle = loop.call_later(max(0.0, delay_s), fire)
        self._timers.add(handle)

    def close(self) -> None:
        """Stop: no further input is taken and no timer fires. Idempotent."""
        self._closed = True
        for handle in self._timers:
            handle.cancel()
        self._timers.clear()
