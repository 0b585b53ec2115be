"""The gate of one agent: calls pass, wait in a bounded queue, or are refused with a time to come back (docs/spec/guard.md §2–§3).

Between callers who wait, the one that holds the fewest running calls for its weight goes first; among equals they take turns.
Within the calls of one caller, the highest priority goes first, then the nearest deadline. When the queue is full, a
newcomer of a caller that has fewer waiting than another pushes out the least urgent call of the one that has most: one
caller can fill an empty queue and cannot keep anybody out of it. Callers that come last
(``CallerLimits.last``) get what the others leave.

Pure: time is an argument; the driver (``node.guard``) calls ``settle`` when ``wake_s`` has come.
"""

from __future__ import annotations

import heapq
import itertools
from typing import Literal

from agentmesh.core.budget.bucket import Bucket
from agentmesh.core.budget.limits import NO_LIMITS, CallerLimits, GateLimits

#: Priorities go from 0, which can wait, to 9.
PRIORITY_MAX, PRIORITY_USUAL = 9, 5
#: Bounds of the time that a refusal names, seconds.
RETRY_S_MIN, RETRY_S_MAX = 0.05, 3_600.0
#: How much the newest call counts in the mean time of service.
_SERVICE_WEIGHT = 0.2

State = Literal["waiting", "running", "refused", "left"]


class Ticket:
    """One call at the gate.

    Args:
        caller: Who asks.
        priority: 0 … ``PRIORITY_MAX``; orders the calls of one caller only.
        until_s: Monotonic time at which waiting has no more use.
        number: Rises with every ticket of a gate.
        now_s: When it asked.
    """

    __slots__ = ("_order", "asked_s", "caller", "number", "priority", "retry_after_s", "state", "until_s", "why")

    def __init__(self, caller: str, priority: int, until_s: float, number: int, now_s: float) -> None:
        self.caller, self.priority, self.until_s, self.number, self.asked_s = caller, priority, until_s, number, now_s
        self.state: State = "waiting"
        #: Of a refusal: which limit it was, and when another try would have passed if nobody else had come.
        self.why: Literal["", "qps", "concurrency", "queue", "waited", "callers"] = ""
        self.retry_after_s = 0.0
        self._order = (-priority, until_s, number)

    def __lt__(self, other: Ticket) -> bool:
        return self._order < other._order


class _Line:
    """What is known of one caller: its calls that wait, most urgent first, and how many run."""

    __slots__ = ("bucket", "credit", "heap", "limits", "running", "waiting")

    def __init__(self, limits: CallerLimits, now_s: float) -> None:
        self.limits = limits
        self.bucket = None if limits.qps is None else Bucket(limits.qps, limits.burst, now_s)
        self.heap: list[Ticket] = []
        self.waiting = self.running = 0
        self.credit = limits.weight

    @property
    def load(self) -> tuple[bool, float]:
        """What it holds already: the less, the sooner it is its turn."""
        return self.limits.last, self.running / self.limits.weight

    @property
    def length(self) -> tuple[bool, float]:
        """How much of it waits: the more, the sooner something of it has to go."""
        return self.limits.last, self.waiting / self.limits.weight

    def is_idle(self, now_s: float) -> bool:
        return not self.waiting and not self.running and (self.bucket is None or self.bucket.is_full(now_s))


class Gate:
    """Decide about every call at one agent. Each method returns the waiting tickets whose state it changed.

    Args:
        limits: Of the agent.
        now_s: Monotonic seconds.
    """

    def __init__(self, limits: GateLimits, now_s: float) -> None:
        self.limits = limits
        self.running = self.waiting = 0
        self._bucket = None if limits.qps is None else Bucket(limits.qps, limits.burst, now_s)
        self._lines: dict[str, _Line] = {}
        #: Callers with calls that wait, in the order of their turns.
        self._turns: dict[str, _Line] = {}
        self._ends: list[tuple[float, int, Ticket]] = []
        self._numbers = itertools.count()
        self._service_s = 0.0

    def change(self, limits: GateLimits, now_s: float) -> list[Ticket]:
        """Take new limits; calls that run go on, and a bucket never gains by the change."""
        if (limits.qps, limits.burst) != (self.limits.qps, self.limits.burst):
            if limits.qps is None:
                self._bucket = None
            elif self._bucket is None:
                self._bucket = Bucket(limits.qps, limits.burst, now_s)
            else:
                self._bucket = self._bucket.change(limits.qps, limits.burst, now_s)
        self.limits = limits
        return self.settle(now_s)

    def ask(
        self,
        caller: str,
        now_s: float,
        *,
        until_s: float,
        priority: int = PRIORITY_USUAL,
        limits: CallerLimits = NO_LIMITS,
        may_wait: bool = True,
    ) -> tuple[Ticket, list[Ticket]]:
        """Ask for one call.

        Args:
            caller: did:key.
            now_s: Monotonic seconds.
            until_s: When the call is of no more use; ``GateLimits.wait_s`` bounds it as well.
            priority: 0 … ``PRIORITY_MAX``.
            limits: Of this caller.
            may_wait: False: now or not at all.

        Returns:
            Its ticket, running, waiting or refused, and others that this changed.
        """
        until_s = min(until_s, now_s + self.limits.wait_s)
        ticket = Ticket(caller, min(max(priority, 0), PRIORITY_MAX), until_s, next(self._numbers), now_s)
        line = self._line(caller, limits, now_s)
        if line is None:
            ticket.state, ticket.why, ticket.retry_after_s = "refused", "callers", 1.0
            return ticket, []
        self._join(line, ticket)
        changed = self.settle(now_s)
        if ticket.state == "waiting":
            changed += self._make_room(line, ticket, now_s, may_wait=may_wait)
        return ticket, [other for other in changed if other is not ticket]

    def leave(self, ticket: Ticket, now_s: float) -> list[Ticket]:
        """Take back a ticket: its call ended, or whoever asked gave up. Idempotent."""
        line = self._lines.get(ticket.caller)
        if ticket.state == "waiting":
            self._drop(ticket, "left")
        elif ticket.state == "running" and line is not None:
            ticket.state = "left"
            line.running -= 1
            self.running -= 1
            took_s = max(0.0, now_s - ticket.asked_s)
            if self._service_s:
                took_s = self._service_s + _SERVICE_WEIGHT * (took_s - self._service_s)
            self._service_s = took_s
        else:
            return []
        return self.settle(now_s)

    def settle(self, now_s: float) -> list[Ticket]:
        """Let pass what may pass now, and refuse what has waited long enough."""
        changed: list[Ticket] = []
        while (line := self._next(now_s)) is not None:
            changed.append(self._admit(line, now_s))
        while self._ends and (self._ends[0][2].state != "waiting" or self._ends[0][0] <= now_s):
            ticket = heapq.heappop(self._ends)[2]
            if ticket.state == "waiting":
                self._refuse(ticket, "waited", now_s)
                changed.append(ticket)
        return changed

    def wake_s(self, now_s: float) -> float | None:
        """Return the monotonic time at which ``settle`` may find something without any call ending; None if never."""
        if not self.waiting:
            return None
        times = [self._ends[0][0]] if self._ends else []
        if self.running < self.limits.concurrency:
            shared_s = self._bucket.wait_s(now_s) if self._bucket is not None else 0.0
            for line in self._turns.values():
                if self._has_slot(line):
                    own_s = line.bucket.wait_s(now_s) if line.bucket is not None else 0.0
                    times.append(now_s + max(shared_s, own_s))
        return min(times, default=None)

    # Lines

    def _line(self, caller: str, limits: CallerLimits, now_s: float) -> _Line | None:
        line = self._lines.get(caller)
        if line is None:
            if len(self._lines) >= self.limits.callers:
                for name in [name for name, one in self._lines.items() if one.is_idle(now_s)]:
                    del self._lines[name]
                if len(self._lines) >= self.limits.callers:
                    return None
            line = self._lines[caller] = _Line(limits, now_s)
        elif line.limits != limits:
            if limits.qps is None:
                line.bucket = None
            elif line.bucket is None:
                line.bucket = Bucket(limits.qps, limits.burst, now_s)
            elif (limits.qps, limits.burst) != (line.limits.qps, line.limits.burst):
                line.bucket = line.bucket.change(limits.qps, limits.burst, now_s)
            line.limits = limits
        return line

    def _join(self, line: _Line, ticket: Ticket) -> None:
        heapq.heappush(line.heap, ticket)
        heapq.heappush(self._ends, (ticket.until_s, ticket.number, ticket))
        if not line.waiting:
            line.credit = line.limits.weight
            self._turns[ticket.caller] = line
        line.waiting += 1
        self.waiting += 1

    def _has_slot(self, line: _Line) -> bool:
        own = line.limits.concurrency
        return self.running < self.limits.concurrency and (own is None or line.running < own)

    def _next(self, now_s: float) -> _Line | None:
        """Return the caller whose turn it is, None if nobody may pass: least loaded first, then in turn."""
        if not self.waiting or self.running >= self.limits.concurrency:
            return None
        if self._bucket is not None and self._bucket.wait_s(now_s) > 0:
            return None
        best: _Line | None = None
        for line in self._turns.values():
            if (best is None or line.load < best.load) and self._has_slot(line):
                if line.bucket is not None and line.bucket.wait_s(now_s) > 0:
                    continue
                best = line
                if not line.running and not line.limits.last:
                    break  # nobody can hold less
        return best

    def _admit(self, line: _Line, now_s: float) -> Ticket:
        ticket = heapq.heappop(line.heap)
        while ticket.state != "waiting":
            ticket = heapq.heappop(line.heap)
        for bucket in (self._bucket, line.bucket):
            if bucket is not None:
                bucket.take(now_s)
        ticket.state = "running"
        ticket.asked_s = now_s
        line.running += 1
        self.running += 1
        self._count_out(ticket.caller, line)
        line.credit -= 1
        if line.credit <= 0 and line.waiting:
            line.credit = line.limits.weight
            self._turns[ticket.caller] = self._turns.pop(ticket.caller)
        return ticket

    def _count_out(self, caller: str, line: _Line) -> None:
        line.waiting -= 1
        self.waiting -= 1
        if not line.waiting:
            line.heap.clear()
            self._turns.pop(caller, None)
        elif len(line.heap) > 2 * line.waiting + 8:
            line.heap = [one for one in line.heap if one.state == "waiting"]
            heapq.heapify(line.heap)
        if len(self._ends) > 2 * self.waiting + 64:
            self._ends = [end for end in self._ends if end[2].state == "waiting"]
            heapq.heapify(self._ends)

    def _drop(self, ticket: Ticket, state: State) -> None:
        ticket.state = state
        self._count_out(ticket.caller, self._lines[ticket.caller])

    # Refusals

    def _make_room(self, line: _Line, ticket: Ticket, now_s: float, *, may_wait: bool) -> list[Ticket]:
        """Decide about a ticket that cannot pass now: it waits, another one goes for it, or it is refused."""
        if not may_wait:
            self._refuse(ticket, self._reason(line, now_s), now_s)
            return []
        if line.limits.queue is not None and line.waiting > line.limits.queue:
            worst = self._least_urgent(line)
        elif self.waiting > self.limits.queue:
            longest = max(self._turns.values(), key=lambda one: one.length)
            # Its own line counts the newcomer: pushing out others must leave no caller with less than the pusher.
            if line.length >= longest.length:
                longest = line
            worst = self._least_urgent(longest)
        else:
            return []
        self._refuse(worst, "queue" if self.limits.queue else self._reason(line, now_s), now_s)
        return [worst]

    def _least_urgent(self, line: _Line) -> Ticket:
        return max(one for one in line.heap if one.state == "waiting")

    def _reason(self, line: _Line, now_s: float) -> Literal["qps", "concurrency"]:
        limited = any(b is not None and b.wait_s(now_s) > 0 for b in (self._bucket, line.bucket))
        return "qps" if limited and self._has_slot(line) else "concurrency"

    def _refuse(self, ticket: Ticket, why: Literal["qps", "concurrency", "queue", "waited"], now_s: float) -> None:
        line = self._lines[ticket.caller]
        self._drop(ticket, "refused")
        ticket.why = why
        ticket.retry_after_s = min(max(self._free_in_s(line, now_s), RETRY_S_MIN), RETRY_S_MAX)

    def _free_in_s(self, line: _Line, now_s: float) -> float:
        """Return when one more call would pass if nobody else came: exact for rates, by the mean of calls so far for slots."""
        times = [0.0]
        if self._bucket is not None:
            times.append(self._bucket.wait_s(now_s, self.waiting + 1))
        if line.bucket is not None:
            times.append(line.bucket.wait_s(now_s, line.waiting + 1))
        service_s = self._service_s or 1.0
        ahead = self.running + self.waiting + 1 - self.limits.concurrency
        if ahead > 0:
            times.append(service_s * ahead / self.limits.concurrency)
        own = line.limits.concurrency
        if own is not None and (ahead := line.running + line.waiting + 1 - own) > 0:
            times.append(service_s * ahead / own)
        return max(times)
