"""Who called whom in the last hour, as one node saw it: counts by minute, and each edge's latest latencies.

An edge leads from a caller to a callee. Everything is bounded: when the table is full the edge that was quiet longest makes
room, and what it counted stays in the totals, so that a reader can tell how much is not shown. A node that brings callers
without end gets one edge for all further ones, so that it cannot push out what others did.

Pure: time is an argument, monotonic seconds.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

#: Whole minutes that are kept, beside the one that runs.
MINUTES = 60
_SPAN = MINUTES + 1
_MINUTE_S = 60.0
Outcome = Literal["ok", "failed", "refused", "canceled"]
Way = Literal["local", "direct", "relayed", ""]
#: Name under which refusals count whose reason is one too many.
OTHER = "other"


@dataclass(frozen=True, slots=True)
class TrafficConfig:
    """Bounds.

    Attributes:
        edges_max: Edges in all, 4 kB each at most.
        node_edges_max: Edges from callers at one other node; calls of further callers count as the node's own.
        latencies_max: Latest latencies of an edge from which percentiles are read.
        reasons_max: Reasons of refusals that are told apart.
        runs_max: Latest runs that are remembered, so that a run counts once.
    """

    edges_max: int = 5_000
    node_edges_max: int = 1_000
    latencies_max: int = 256
    reasons_max: int = 64
    runs_max: int = 4_096


class Minutes:
    """A few counters for the minute that runs and each of the ``MINUTES`` before it.

    Args:
        columns: How many counters.
        minute: The minute that runs.

    Attributes:
        cells: The counters of all minutes, in a ring.
    """

    __slots__ = ("_columns", "cells", "minute")

    def __init__(self, columns: int, minute: int) -> None:
        self._columns, self.minute = columns, minute
        self.cells = array("I", bytes(4 * columns * _SPAN))

    def at(self, minute: int) -> int:
        """Return where in ``cells`` the counters of a minute begin; one that is over already is taken for the one that runs."""
        if minute > self.minute:
            self._turn(minute)
        return self.minute % _SPAN * self._columns

    def _turn(self, minute: int) -> None:
        cells, columns = self.cells, self._columns
        zeros = array("I", bytes(4 * columns))
        for past in range(max(self.minute, minute - _SPAN) + 1, minute + 1):
            place = past % _SPAN * columns
            cells[place : place + columns] = zeros
        self.minute = minute

    def of(self, minute: int) -> tuple[int, ...]:
        """Return the counters of one minute; zeros for one that is not kept."""
        if not self.minute - _SPAN < minute <= self.minute:
            return (0,) * self._columns
        place = minute % _SPAN * self._columns
        return tuple(self.cells[place : place + self._columns])

    def sums(self, minute: int, whole: int) -> list[int]:
        """Return the sums of the counters over ``minute``, which runs, and the ``whole`` minutes before it."""
        columns = self._columns
        first, last = max(minute - whole, self.minute - _SPAN + 1), min(minute, self.minute)
        if first > last:
            return [0] * columns
        # The minutes stand in a ring: one piece of it, or two.
        begin, end = first % _SPAN * columns, (last % _SPAN + 1) * columns
        cells = self.cells[begin:end] if begin < end else self.cells[begin:] + self.cells[:end]
        return [sum(cells[column::columns]) for column in range(columns)]


class Count(NamedTuple):
    """What happened in a window: calls, and how many of them failed, were refused, or went through a relay."""

    calls: int
    failures: int
    refusals: int
    relayed: int


#: Counters of an edge, as in ``Count``: calls come first.
_FAILURES, _REFUSALS, _RELAYED = 1, 2, 3
#: Of the totals, in the place of ``_RELAYED``.
_RUNS = 3
_COLUMNS: dict[Outcome, int] = {"failed": _FAILURES, "refused": _REFUSALS}


class Edge:
    """Calls from one caller to one callee. Made and counted by ``Traffic``; others only read.

    Attributes:
        caller, callee: did:key of each; of a caller that is no agent, the node that it sits at.
        caller_node, callee_node: Where each is; "" for a program that no node vouches for.
        caller_name, callee_name: What they were called when the edge was new; "" if nothing trustworthy said so.
        running: Calls under way.
        way: How the last call travelled, "" while none said.
        last_s: Monotonic seconds of the last thing that happened.
    """

    __slots__ = (
        "_latencies",
        "_minutes_of",
        "_next",
        "callee",
        "callee_name",
        "callee_node",
        "caller",
        "caller_name",
        "caller_node",
        "counts",
        "last_s",
        "running",
        "way",
    )

    def __init__(self, caller: str, caller_node: str, callee: str, callee_node: str, now_s: float) -> None:
        self.caller, self.caller_node, self.callee, self.callee_node = caller, caller_node, callee, callee_node
        self.caller_name = self.callee_name = ""
        self.running = 0
        self.way: Way = ""
        self.last_s = now_s
        self.counts = Minutes(4, int(now_s // _MINUTE_S))
        self._latencies, self._minutes_of = array("f"), array("I")
        self._next = 0

    def took(self, seconds: float, minute: int, most: int) -> None:
        """Take note of a latency; the oldest makes room."""
        if len(self._latencies) < most:
            self._latencies.append(seconds)
            self._minutes_of.append(minute)
            return
        place = self._next
        self._latencies[place], self._minutes_of[place] = seconds, minute
        self._next = (place + 1) % most

    def count(self, now_s: float, whole: int) -> Count:
        """Return what happened in a window."""
        return Count(*self.counts.sums(int(now_s // _MINUTE_S), whole))

    def latencies(self, minute: int, whole: int) -> list[float]:
        """Return the latest latencies of a window that ends now, rising."""
        times, minutes, oldest = self._latencies, self._minutes_of, self._next
        if oldest:  # the ring was closed: begin at the oldest
            times, minutes = times[oldest:] + times[:oldest], minutes[oldest:] + minutes[:oldest]
        return sorted(times[bisect_left(minutes, max(0, minute - whole)) :])


def percentile(rising: Sequence[float], share: float) -> float | None:
    """Return the smallest value that is not below ``share`` (0 … 1) of them; None of none."""
    return rising[max(0, -int(-share * len(rising) // 1) - 1)] if rising else None


class Traffic:
    """The table.

    Args:
        own: This node; callers elsewhere are counted by the node they came from.
        now_s: Monotonic seconds.
        config: Bounds.
    """

    def __init__(self, own: str, now_s: float, config: TrafficConfig = TrafficConfig()) -> None:
        self._own, self._config = own, config
        self.started_s = now_s
        self._edges: OrderedDict[tuple[str, str], Edge] = OrderedDict()
        self._of_node: dict[str, int] = {}
        self._dropped = Minutes(1, int(now_s // _MINUTE_S))
        self._totals = Minutes(4, int(now_s // _MINUTE_S))
        self._reasons: dict[str, Minutes] = {}
        self._runs: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._edges)

    # What happens

    def edge(self, caller: str, caller_node: str, callee: str, callee_node: str, now_s: float) -> Edge:
        """Return the edge between two, made if need be; the one that was quiet longest makes room for it."""
        edge = self._edges.get((caller, callee))
        if edge is None:
            if self._of_node.get(caller_node, 0) >= self._config.node_edges_max:
                caller = caller_node
                edge = self._edges.get((caller, callee))
            if edge is None:
                return self._make(caller, caller_node, callee, callee_node, now_s)
        if edge.counts.minute != int(now_s // _MINUTE_S):
            self._edges.move_to_end((caller, callee))
        edge.callee_node = callee_node
        return edge

    def _make(self, caller: str, caller_node: str, callee: str, callee_node: str, now_s: float) -> Edge:
        while len(self._edges) >= self._config.edges_max:
            _, old = self._edges.popitem(last=False)
            self._dropped.cells[self._dropped.at(int(now_s // _MINUTE_S))] += 1
            self._leave(old.caller_node)
        edge = self._edges[caller, callee] = Edge(caller, caller_node, callee, callee_node, now_s)
        if caller_node and caller_node != self._own:
            self._of_node[caller_node] = self._of_node.get(caller_node, 0) + 1
        return edge

    def _leave(self, node: str) -> None:
        if node in self._of_node:
            self._of_node[node] -= 1
            if not self._of_node[node]:
                del self._of_node[node]

    def begin(self, edge: Edge, run_id: str, now_s: float) -> None:
        """Take note that a call begins."""
        edge.running += 1
        edge.last_s = now_s
        self.run(run_id, now_s)

    def run(self, run_id: str, now_s: float) -> None:
        """Take note of a run; one that was met among the last ``runs_max`` does not count again."""
        if run_id in self._runs:
            return
        while len(self._runs) >= self._config.runs_max:
            self._runs.popitem(last=False)
        self._runs[run_id] = None
        totals = self._totals
        totals.cells[totals.at(int(now_s // _MINUTE_S)) + _RUNS] += 1

    def end(self, edge: Edge, outcome: Outcome, way: Way, took_s: float | None, now_s: float) -> None:
        """Take note that a call that began is over.

        Args:
            edge: As it began.
            outcome: How it ended.
            way: How it travelled; "" if nobody can say.
            took_s: How long the answer took; None if there was none.
            now_s: Monotonic seconds.
        """
        edge.running -= 1
        self.count(edge, outcome, way, took_s, now_s)

    def count(self, edge: Edge, outcome: Outcome, way: Way, took_s: float | None, now_s: float) -> None:
        """Count a call that never began, or one whose beginning was not told; arguments as for ``end``."""
        minute = int(now_s // _MINUTE_S)
        counts, totals = edge.counts, self._totals
        here, there = counts.at(minute), totals.at(minute)
        counts.cells[here] += 1
        totals.cells[there] += 1
        edge.last_s = now_s
        if outcome in _COLUMNS:
            counts.cells[here + _COLUMNS[outcome]] += 1
            totals.cells[there + _COLUMNS[outcome]] += 1
        if way:
            edge.way = way
            if way == "relayed":
                counts.cells[here + _RELAYED] += 1
        if took_s is not None:
            edge.took(max(0.0, took_s), minute, self._config.latencies_max)

    def count_unplaced(self, now_s: float) -> None:
        """Count a call that was refused before anybody could say between whom it was."""
        totals = self._totals
        place = totals.at(int(now_s // _MINUTE_S))
        totals.cells[place] += 1
        totals.cells[place + _REFUSALS] += 1

    def refuse(self, reason: str, now_s: float) -> None:
        """Count the reason of a refusal."""
        minute = int(now_s // _MINUTE_S)
        counts = self._reasons.get(reason)
        if counts is None:
            if len(self._reasons) >= self._config.reasons_max:
                self._forget_reasons(minute)
            if len(self._reasons) >= self._config.reasons_max:
                reason = OTHER
            counts = self._reasons.setdefault(reason, Minutes(1, minute))
        counts.cells[counts.at(minute)] += 1

    def _forget_reasons(self, minute: int) -> None:
        self._reasons = {reason: m for reason, m in self._reasons.items() if minute - m.minute <= MINUTES}

    # What that makes

    def live(self, now_s: float, whole: int) -> list[Edge]:
        """Return the edges that may have calls in a window, or have some under way, quiet ones first.

        Args:
            now_s: Monotonic seconds.
            whole: The window: so many whole minutes and the one that runs.
        """
        first = int(now_s // _MINUTE_S) - whole
        return [edge for edge in self._edges.values() if edge.counts.minute >= first or edge.running > 0]

    def edges(self, now_s: float, whole: int) -> Iterator[tuple[Edge, Count]]:
        """Yield the edges with calls in a window or under way, quiet ones first; arguments as for ``live``."""
        for edge in self.live(now_s, whole):
            count = edge.count(now_s, whole)
            if count.calls or edge.running > 0:
                yield edge, count

    def dropped(self, now_s: float, whole: int) -> int:
        """Return how many edges made room in the window."""
        return self._dropped.sums(int(now_s // _MINUTE_S), whole)[0]

    def totals(self, now_s: float, whole: int) -> Count:
        """Return what all calls of the window make, edges that made room included; ``relayed`` is 0."""
        calls, failures, refusals, _ = self._totals.sums(int(now_s // _MINUTE_S), whole)
        return Count(calls, failures, refusals, 0)

    def runs(self, now_s: float, whole: int) -> int:
        """Return how many runs were new in the window."""
        return self._totals.sums(int(now_s // _MINUTE_S), whole)[_RUNS]

    def hour(self, now_s: float) -> list[tuple[int, ...]]:
        """Return (calls, failures, refusals, runs) of each of the last ``MINUTES`` whole minutes, oldest first."""
        minute = int(now_s // _MINUTE_S)
        return [self._totals.of(past) for past in range(minute - MINUTES, minute)]

    def reasons(self, now_s: float) -> dict[str, int]:
        """Return how often each reason refused a call in the last hour, most first."""
        minute = int(now_s // _MINUTE_S)
        sums = ((reason, counts.sums(minute, MINUTES)[0]) for reason, counts in self._reasons.items())
        return dict(sorted(((r, n) for r, n in sums if n), key=lambda one: (-one[1], one[0])))

    def covered_s(self, now_s: float, whole: int) -> float:
        """Return how many seconds a window covers: since the start at most, and a minute at least, by which rates are read."""
        since = max(self.started_s, (now_s // _MINUTE_S - whole) * _MINUTE_S)
        return max(_MINUTE_S, now_s - since)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound is broken or a count is off."""
        assert len(self._edges) <= self._config.edges_max
        assert len(self._reasons) <= self._config.reasons_max + 1
        assert len(self._runs) <= self._config.runs_max
        of_node: dict[str, int] = {}
        for (caller, callee), edge in self._edges.items():
            assert (caller, callee) == (edge.caller, edge.callee)
            assert len(edge.latencies(0, 0)) <= self._config.latencies_max
            if edge.caller_node and edge.caller_node != self._own:
                of_node[edge.caller_node] = of_node.get(edge.caller_node, 0) + 1
        assert of_node == self._of_node
