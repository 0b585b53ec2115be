"""Anti-entropy: two nodes compare sums of what they hold, go down where they differ, and ask for what they lack.

Range-based set reconciliation (A. Meyer, "Range-Based Set Reconciliation", 2022) over 16-ary prefixes: docs/spec/directory.md
§4 says where this departs. Traffic grows with the number of differences and the logarithm of what is held.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from itertools import islice

from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.holdings import Item, line_of
from agentmesh.core.directory.messages import (
    BATCH_MAX,
    LINES_MAX,
    RANGES_MAX,
    Line,
    Listing,
    Ranges,
    RangeSum,
    Want,
)
from agentmesh.core.directory.ranges import RangeSet, children, is_prefix
from agentmesh.core.machine import Outbox, Timer
from agentmesh.ids import NodeId

SYNC = "directory.sync"
#: A range of at most so many items, on both sides, is listed and not cut further.
LIST_MAX = 32
#: Ranges of one message that are cut further; the others wait for the next comparison.
_DESCEND_MAX = 16


class Sync:
    """With whom to compare, when, and how to answer.

    Args:
        held: Everything that is compared.
        config: Intervals.
        rng: For choice and jitter.
        has_room: Says whether agents not known here would be taken in.
        is_waiting: Says whether something that was asked for has not come yet.
        weigh: Says of a peer's line: True = ask for it, False = do not; or returns the line of what is newer here.
    """

    def __init__(
        self,
        held: RangeSet[Item],
        config: DirectoryConfig,
        rng: random.Random,
        has_room: Callable[[], bool],
        is_waiting: Callable[[], bool],
        weigh: Callable[[NodeId, Line, float], Line | bool],
    ) -> None:
        self.held = held
        self.config = config
        self.neighbours: dict[NodeId, bool] = {}
        self._rng = rng
        self._has_room = has_room
        self._is_waiting = is_waiting
        self._weigh = weigh
        #: Comparisons that others asked for and that found the same as here, and those that did not; and when the last of the
        #: first kind was, 0 before it.
        self.same = self.different = 0
        self.same_s = 0.0
        #: When this node last came to have a neighbour after it had none.
        self.met_s = 0.0
        self._hot_until_s = -1.0
        self._due_s = -1.0
        self._again = False
        self._token = 0
        self._source: NodeId | None = None

    # When

    def start(self, now_s: float, out: Outbox) -> None:
        """Schedule the first comparison."""
        self._schedule(now_s, self.config.sync_s * self._rng.random(), out)

    def meet(self, peer: NodeId, zone: bool, now_s: float, out: Outbox) -> None:
        """Compare everything with a new neighbour at once."""
        known = peer in self.neighbours
        if not self.neighbours:
            self.met_s = now_s
        self.neighbours[peer] = zone
        if not known:
            self._hot_until_s = max(self._hot_until_s, now_s + self.config.sync_fast_s * 2)
            self.compare(peer, out)
            self._hurry(now_s, self.config.sync_fast_s, out)

    def part(self, peer: NodeId) -> None:
        """Forget a neighbour."""
        self.neighbours.pop(peer, None)

    def heat(self, now_s: float, out: Outbox, source: NodeId | None = None, *, fresh: bool = False) -> None:
        """Note that there was news to be had by comparing: do it again soon, the source included, and with others.

        Fresh news may have been on its way by broadcast. They are worth one round, later: else a mesh where something is
        always on its way would compare without end.
        """
        self._source = source or self._source
        if fresh:
            self._again = True
            self._hurry(now_s, self.config.sync_fresh_s, out)
            return
        self._hot_until_s = now_s + self.config.sync_hot_s
        self._hurry(now_s, self.config.sync_fast_s, out)

    def on_timer(self, timer: Timer, now_s: float, out: Outbox) -> None:
        """Compare with the next neighbours, if the time has come."""
        if timer.token != self._token:
            return
        # Somebody who never answers must not keep it hot: only for a while after there was news.
        patience_s = 2 * self.config.sync_hot_s if self._is_waiting() else 0.0
        hot = now_s < self._hot_until_s + patience_s
        many = hot or self._again
        self._again = False
        wait_s = self.config.sync_fast_s if hot else self.config.sync_s
        self._schedule(now_s, wait_s * self._rng.uniform(0.85, 1.15), out)
        peers = list(self.neighbours)
        count = min(len(peers), self.config.sync_fast_peers if many else 1)
        chosen = self._rng.sample(peers, count)
        if self._source is not None and self._source in self.neighbours and self._source not in chosen:
            chosen.append(self._source)
        self._source = None
        for peer in chosen:
            self.compare(peer, out)

    def _hurry(self, now_s: float, wait_s: float, out: Outbox) -> None:
        if self._due_s > now_s + wait_s * 1.15:
            self._schedule(now_s, wait_s * self._rng.uniform(0.85, 1.15), out)

    def _schedule(self, now_s: float, wait_s: float, out: Outbox) -> None:
        self._token += 1
        self._due_s = now_s + wait_s
        out.after(wait_s, Timer(SYNC, self._token))

    # What

    def compare(self, peer: NodeId, out: Outbox) -> None:
        """Send the sum of everything."""
        out.send(peer, Ranges(ranges=[self._sum("")], room=self._has_room()))

    def on_ranges(self, peer: NodeId, message: Ranges, now_s: float, out: Outbox) -> str | None:
        """Answer sums with finer ones, or with lines, where they differ. Returns what no honest node would send."""
        if len(message.ranges) > RANGES_MAX:
            return f"{len(message.ranges)} ranges in one message"
        large: list[str] = []
        small: list[str] = []
        is_whole = len(message.ranges) == 1 and not message.ranges[0].prefix
        for theirs in message.ranges:
            if not is_prefix(theirs.prefix) or theirs.count < 0 or len(theirs.total) != 16:
                return f"a range {theirs.prefix[:70]!r} of {theirs.count}"
            count, total = self.held.total(theirs.prefix)
            if count == theirs.count and total == int.from_bytes(theirs.total, "big"):
                continue
            fine = max(count, theirs.count) <= LIST_MAX or min(count, theirs.count) == 0 or len(theirs.prefix) > 62
            (small if fine else large).append(theirs.prefix)
        if is_whole:
            self._note(not large and not small, now_s)
        if len(large) > _DESCEND_MAX:
            large = self._rng.sample(large, _DESCEND_MAX)
        sums = [self._sum(child) for prefix in large for child in children(prefix)]
        if sums:
            out.send(peer, Ranges(ranges=sums, room=self._has_room()))
        if small:
            self._list(peer, small, out)
        return None

    def _note(self, same: bool, now_s: float) -> None:
        if same:
            self.same, self.same_s = self.same + 1, now_s
        else:
            self.different += 1

    def on_listing(self, peer: NodeId, message: Listing, now_s: float, out: Outbox) -> str | None:
        """Ask for what is new in a listing and offer what it lacks. Returns what no honest node would send."""
        if len(message.lines) > LINES_MAX or len(message.prefixes) > RANGES_MAX:
            return f"{len(message.lines)} lines of {len(message.prefixes)} ranges in one message"
        if not all(map(is_prefix, message.prefixes)) or any(len(line.position) != 32 for line in message.lines):
            return "a malformed position or range"
        wanted: list[bytes] = []
        offers: list[Line] = []
        named: set[bytes] = set()
        for line in message.lines:
            named.add(line.position)
            verdict = self._weigh(peer, line, now_s)
            if isinstance(verdict, Line):
                offers.append(verdict)
            elif verdict:
                wanted.append(line.position)
        for at in range(0, len(wanted), BATCH_MAX):
            out.send(peer, Want(positions=wanted[at : at + BATCH_MAX]))
        self._offer(peer, message, offers, named, out)
        return None

    def _offer(self, peer: NodeId, message: Listing, newer: list[Line], named: set[bytes], out: Outbox) -> None:
        """Send lines of what the peer holds older or, in the ranges it listed whole, not at all."""
        mine: dict[bytes, Line] = {}
        for prefix in message.prefixes:
            for item in self.held.items(prefix):
                line = line_of(item)
                if line.position not in named and (message.room or line.kind):
                    mine[line.position] = line
                if len(mine) >= LINES_MAX:
                    break
        for line in newer:
            mine[line.position] = line
        if mine:
            out.send(peer, Listing(prefixes=[], lines=list(islice(mine.values(), LINES_MAX)), room=self._has_room()))

    def _list(self, peer: NodeId, prefixes: Iterable[str], out: Outbox) -> None:
        """List ranges whole, as many as fit."""
        lines: list[Line] = []
        whole: list[str] = []
        for prefix in prefixes:
            items = self.held.items(prefix)
            if len(lines) + len(items) > LINES_MAX:
                lines += [line_of(item) for item in items[: LINES_MAX - len(lines)]]
                break
            lines += [line_of(item) for item in items]
            whole.append(prefix)
        out.send(peer, Listing(prefixes=whole, lines=lines, room=self._has_room()))

    def _sum(self, prefix: str) -> RangeSum:
        count, total = self.held.total(prefix)
        return RangeSum(prefix, count, total.to_bytes(16, "big"))

    def assert_invariants(self) -> None:
        """Raise AssertionError if no comparison is coming."""
        assert self._due_s >= 0 or not self.neighbours
