"""Lookups: walks that are running or waiting, what they found, and when they end (docs/spec/dht.md §4, §5)."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from functools import partial

from agentmesh.core.dht.config import DhtConfig
from agentmesh.core.dht.messages import VALUES_MAX, FindNode, FindReply, FindValue
from agentmesh.core.dht.roster import ADDRESS_CHARS_MAX, Roster
from agentmesh.core.dht.values import Values
from agentmesh.core.dht.walk import Candidate, State, Walk
from agentmesh.core.machine import Outbox, PeerMisbehaved, WallTime
from agentmesh.core.messages import Lookup, LookupDone, LookupHit
from agentmesh.errors import MeshError, ReplayError
from agentmesh.identity.provider import Provider
from agentmesh.identity.reader import Reader
from agentmesh.ids import AgentId, Key, NodeId, node_id

#: Called when a search is over, with the search.
Ended = Callable[["Search", float, Outbox], None]
#: The nearest nodes are this many times farther than the size of the network lets expect: somebody hides them.
_SPARSE = 3.0


class Search:
    """One walk and what it found.

    Attributes:
        key, values_max: As in ``Lookup``.
        query: Of the lookup; None for a walk of the machine's own.
        walk: Whom it knows.
        providers: Newest record of each (agent, node).
        hops: Referrals behind the first hit, None = nothing found yet.
        over: It has ended; late answers do not matter.
        pages_due: Further pages of values under way.
    """

    __slots__ = ("ended", "hops", "key", "over", "pages_due", "providers", "query", "values_max", "walk", "widened")

    def __init__(self, key: Key, values_max: int, query: int | None, walk: Walk, ended: Ended) -> None:
        self.key, self.values_max, self.query, self.walk, self.ended = key, values_max, query, walk, ended
        self.providers: dict[tuple[AgentId, NodeId], Provider] = {}
        self.hops: int | None = None
        self.over = self.widened = False
        self.pages_due = 0

    def nearest(self, count: int) -> tuple[NodeId, ...]:
        """Return the nearest nodes that answered, nearest first."""
        return tuple(c.node for c in self.walk.nearest(count) if c.node is not None)


class Searches:
    """All lookups of one node.

    Args:
        roster: Table and questions.
        values: What is held here.
        config: Bounds.
        rng: For places to start reading many values from.
        reader, wall: To verify values.
    """

    __slots__ = ("_config", "_reader", "_rng", "_roster", "_values", "_wall", "running", "waiting")

    def __init__(
        self, roster: Roster, values: Values, config: DhtConfig, rng: random.Random, reader: Reader, wall: WallTime
    ) -> None:
        self.running: dict[int, Search] = {}
        self.waiting: deque[Lookup] = deque()
        self._roster, self._values, self._config, self._rng = roster, values, config, rng
        self._reader, self._wall = reader, wall

    def look_up(self, lookup: Lookup, now_s: float, out: Outbox) -> None:
        """Start a lookup, or let it wait; with too many waiting it ends at once with nothing."""
        if len(lookup.key) != 32:
            raise AssertionError("a key has 32 bytes")
        if len(self.running) >= self._config.lookups_max:
            if len(self.waiting) >= self._config.queue_max:
                out.emit(LookupDone(lookup.query, lookup.key, 0, (), 0, 0))
            else:
                self.waiting.append(lookup)
            return
        if lookup.query in self.running:
            raise AssertionError(f"lookup {lookup.query} is running already")
        search = self._search(lookup.key, lookup.values_max, lookup.query, self._on_ended)
        self.running[lookup.query] = search
        if lookup.values_max:
            self._take(search, self._values.of(lookup.key, self._wall.unix_s(now_s)), 0, out)
        self._begin(search, now_s, out)

    def walk_to(self, key: Key, now_s: float, out: Outbox, ended: Ended) -> None:
        """Look for the nodes nearest to a key, for the machine's own ends; the caller bounds how many run."""
        self._begin(self._search(key, 0, None, ended), now_s, out)

    def _search(self, key: Key, values_max: int, query: int | None, ended: Ended) -> Search:
        table = self._roster.table
        walk = Walk(int.from_bytes(key, "big"), table.place.public, self._config)
        return Search(key, values_max, query, walk, ended)

    def _begin(self, search: Search, now_s: float, out: Outbox) -> None:
        table, walk = self._roster.table, search.walk
        table.touch(walk.target, now_s)
        for contact in table.nearest(walk.target, self._config.k):
            walk.add_seed(contact.place.public, contact.place.node, contact.place.number, contact.address, 0)
        self._advance(search, now_s, out)

    def _advance(self, search: Search, now_s: float, out: Outbox) -> None:
        """Ask on; widen or end the search when there is nobody left to ask."""
        while not search.over:
            if search.values_max and len(search.providers) >= search.values_max:
                self._end(search, now_s, out)
                return
            while (candidate := search.walk.pick_next()) is not None:
                self._ask(search, candidate, self._rng.getrandbits(16), now_s, out)
            if search.pages_due or not search.walk.is_over():
                return
            if search.widened or not self._looks_wrong(search):
                self._end(search, now_s, out)
                return
            self._widen(search)

    def _ask(self, search: Search, candidate: Candidate, skip: int, now_s: float, out: Outbox) -> None:
        if candidate.node is None:
            candidate.node = node_id(candidate.public)
        question = (
            FindValue(rpc=0, key=search.key, skip=skip) if search.values_max else FindNode(rpc=0, target=search.key)
        )
        known = self._roster.table.contacts.get(candidate.node)
        addresses = candidate.addresses
        if known is not None and known.address and known.address not in addresses[:1]:
            addresses = (known.address, *(a for a in addresses if a != known.address))
        done = partial(self._on_reply, search, candidate, skip)
        self._roster.calls.ask(
            candidate.node, question, addresses, now_s, out, done, partial(self._on_late, search, candidate)
        )

    def _on_late(self, search: Search, candidate: Candidate, now_s: float, out: Outbox) -> None:
        if not search.over:
            search.walk.note_late(candidate)
            self._advance(search, now_s, out)

    def _on_reply(
        self, search: Search, candidate: Candidate, skip: int, reply: FindReply | None, now_s: float, out: Outbox
    ) -> None:
        if search.over:
            return
        if candidate.state == State.ANSWERED:
            search.pages_due -= 1
        if reply is None:
            if candidate.state != State.ANSWERED:
                search.walk.note_failure(candidate)
        elif self._read(search, candidate, reply, now_s, out):
            first = candidate.state != State.ANSWERED
            search.walk.note_answer(candidate)
            if first:
                search.walk.add_hints(candidate, reply.hints)
            self._ask_for_more(search, candidate, reply, skip, now_s, out)
        else:
            search.walk.note_failure(candidate)
        self._advance(search, now_s, out)

    def _ask_for_more(
        self, search: Search, candidate: Candidate, reply: FindReply, skip: int, now_s: float, out: Outbox
    ) -> None:
        """Ask a node that holds more values than a datagram takes once more, if they are wanted."""
        read = (candidate.pages + 1) * max(1, len(reply.values))
        wanted = len(search.providers) < min(search.values_max, reply.total)
        if reply.values and wanted and read < reply.total and candidate.pages < self._config.pages_max:
            candidate.pages += 1
            search.pages_due += 1
            self._ask(search, candidate, skip + len(reply.values), now_s, out)

    def _read(self, search: Search, candidate: Candidate, reply: FindReply, now_s: float, out: Outbox) -> bool:
        """Take the values of an answer; False if its sender lied and is to be left out."""
        assert candidate.node is not None
        if (
            len(reply.hints) > self._config.k
            or len(reply.values) > VALUES_MAX
            or any(len(h.public) != 32 or len(h.address) > ADDRESS_CHARS_MAX for h in reply.hints)
        ):
            return self._blame(candidate.node, "dht.malformed", "an answer with too much in it", now_s, out)
        if not search.values_max:
            return True
        found: list[Provider] = []
        unix_s = self._wall.unix_s(now_s)
        for raw in reply.values:
            try:
                found.append(self._reader.provider(raw, search.key, unix_s))
            except ReplayError:
                continue  # just over, or a clock is wrong: of no use, but no lie
            except MeshError as error:
                return self._blame(candidate.node, "dht.forged", error.detail, now_s, out)
        self._take(search, found, candidate.depth + 1, out)
        return True

    def _blame(self, node: NodeId, code: str, detail: str, now_s: float, out: Outbox) -> bool:
        out.emit(PeerMisbehaved(node, code, detail))
        self._roster.expel(node, now_s, out)
        self._roster.shun(node, now_s)
        return False

    def _take(self, search: Search, found: list[Provider], hops: int, out: Outbox) -> None:
        """Tell of providers that are new, or newer than what this search found before."""
        news: list[Provider] = []
        for provider in found:
            subject = (provider.agent_id, provider.node_id)
            old = search.providers.get(subject)
            if old is None and len(search.providers) >= search.values_max:
                continue
            if old is None or provider.seq > old.seq:
                search.providers[subject] = provider
                news.append(provider)
        if news:
            if search.hops is None:
                search.hops = hops
            if search.query is not None:
                out.emit(LookupHit(search.query, tuple(news)))

    def _looks_wrong(self, search: Search) -> bool:
        """Say whether disjoint paths are worth a try: nothing found, or the nearest nodes are too far from the key."""
        if self._config.paths < 2 or len(self._roster.table.contacts) <= self._config.k:
            return False
        if search.values_max:
            return not search.providers
        nearest = search.walk.nearest(self._config.k)
        if len(nearest) < self._config.k:
            return True
        expected = self._config.k * (1 << 256) // max(1, self._roster.size_estimate())
        return nearest[-1].distance > _SPARSE * expected

    def _widen(self, search: Search) -> None:
        """Open further paths from contacts this search has not met; each keeps the nodes it learns of to itself."""
        search.widened = True
        config, walk = self._config, search.walk
        fresh = [
            contact
            for contact in self._roster.table.nearest(walk.target, 4 * config.k)
            if contact.place.public not in walk.by_public
        ]
        paths = [walk.add_path() for _ in range(config.paths - 1)]
        for turn, contact in enumerate(fresh[: len(paths) * config.alpha]):
            place = contact.place
            walk.add_seed(place.public, place.node, place.number, contact.address, paths[turn % len(paths)])

    def _end(self, search: Search, now_s: float, out: Outbox) -> None:
        search.over = True
        search.ended(search, now_s, out)

    def _on_ended(self, search: Search, now_s: float, out: Outbox) -> None:
        assert search.query is not None
        nearest = search.walk.nearest(self._config.k)
        hops = search.hops
        if hops is None:
            hops = nearest[0].depth + 1 if nearest else 0
        out.emit(
            LookupDone(
                search.query,
                search.key,
                len(search.providers),
                search.nearest(self._config.k),
                hops,
                search.walk.asked,
            )
        )
        del self.running[search.query]

    def start_waiting(self, now_s: float, out: Outbox) -> None:
        """Start lookups that wait, as far as there is room."""
        while self.waiting and len(self.running) < self._config.lookups_max:
            self.look_up(self.waiting.popleft(), now_s, out)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of lookups is broken."""
        assert len(self.running) <= self._config.lookups_max
        assert len(self.waiting) <= self._config.queue_max
        for query, search in self.running.items():
            assert search.query == query
            assert not search.over, "a lookup that ended is kept"
            assert len(search.providers) <= max(search.values_max, 0)
            search.walk.assert_invariants()
