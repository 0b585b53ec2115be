"""One walk towards a key: whom to ask next, on which path, and when it is over (docs/spec/dht.md §4, §5).

Pure bookkeeping: the machine sends, times and verifies. Where it departs from Kademlia: no rounds, a request goes out
whenever fewer than ``alpha`` are under way that are not late; and a node's word is worth only as much as the nodes it named
before proved to be (``referral_credit``), so that a liar's invented nodes near the key cost a few requests, not all.
"""

from __future__ import annotations

from bisect import insort
from enum import IntEnum

from agentmesh.core.dht.config import DhtConfig
from agentmesh.core.dht.messages import Hint
from agentmesh.core.dht.place import number_of
from agentmesh.ids import NodeId


class State(IntEnum):
    """What is known of a candidate, in the order of its life."""

    NEW = 0
    ASKED = 1
    LATE = 2
    ANSWERED = 3
    FAILED = 4


#: Members of an enumeration cost a look-up and a comparison of numbers each time; these walks are the hot path of a DHT.
_NEW, _ASKED, _LATE, _ANSWERED, _FAILED = State


class Candidate:
    """A node that a walk knows of.

    Attributes:
        public: Its raw key bytes.
        distance: Of its DHT key from the target.
        node: Its id, filled in when it is first needed: spelling it costs 10 µs.
        addresses: Where it may be, at most 3.
        depth: Referrals that led to it, 0 = from our own table.
        referrers: Who named it, at most 3; none = our own table.
        path: Which of the disjoint paths it belongs to.
        state: See ``State``.
        outstanding: Of the nodes it named and was the first to name: asked, and not answered.
        answered: Of these: answered.
        pages: How often it was asked for more values.
    """

    __slots__ = (
        "addresses",
        "answered",
        "depth",
        "distance",
        "node",
        "outstanding",
        "pages",
        "path",
        "public",
        "referrers",
        "state",
    )

    def __init__(self, public: bytes, distance: int, depth: int, path: int) -> None:
        self.public, self.distance, self.depth, self.path = public, distance, depth, path
        self.node: NodeId | None = None
        self.addresses: tuple[str, ...] = ()
        self.referrers: tuple[Candidate, ...] = ()
        self.state = State.NEW
        self.outstanding = self.answered = self.pages = 0

    def __lt__(self, other: Candidate) -> bool:
        return self.distance < other.distance


class Walk:
    """The candidates of one lookup, by path and distance.

    Args:
        target: The number walked to.
        me: Our own raw key bytes: hints at ourselves are no use.
        config: ``k``, ``alpha``, bounds.
    """

    __slots__ = ("_config", "_me", "asked", "by_public", "paths", "target", "under_way")

    def __init__(self, target: int, me: bytes, config: DhtConfig) -> None:
        self.target = target
        self.by_public: dict[bytes, Candidate] = {}
        self.paths: list[list[Candidate]] = [[]]
        self.asked = 0
        #: Requests not answered, per path: those in time, and those late.
        self.under_way: list[list[int]] = [[0, 0]]
        self._me = me
        self._config = config

    def add_path(self) -> int:
        """Open another path; return its number."""
        self.paths.append([])
        self.under_way.append([0, 0])
        return len(self.paths) - 1

    def add_seed(self, public: bytes, node: NodeId, number: int, address: str, path: int) -> None:
        """Note a contact of our own table; the first path that knows a node keeps it."""
        if public in self.by_public:
            return
        candidate = Candidate(public, number ^ self.target, 0, path)
        candidate.node = node
        candidate.addresses = (address,) if address else ()
        self._insert(candidate)

    def add_hints(self, source: Candidate, hints: list[Hint]) -> None:
        """Note what an asked node named: at most ``k`` nodes, ourselves and doubles left out."""
        for hint in hints[: self._config.k]:
            public = hint.public
            if len(public) != 32 or public == self._me or public == source.public:
                continue
            candidate = self.by_public.get(public)
            if candidate is not None:
                if candidate.path != source.path or candidate.state != State.NEW:
                    continue
                if candidate.referrers and len(candidate.referrers) < 3 and source not in candidate.referrers:
                    candidate.referrers = (*candidate.referrers, source)
                if hint.address and len(candidate.addresses) < 3 and hint.address not in candidate.addresses:
                    candidate.addresses = (*candidate.addresses, hint.address)
                continue
            candidate = Candidate(public, number_of(public) ^ self.target, source.depth + 1, source.path)
            candidate.addresses = (hint.address,) if hint.address else ()
            candidate.referrers = (source,)
            self._insert(candidate)

    def pick_next(self) -> Candidate | None:
        """Return whom to ask now, marked as asked; None while enough requests are under way or nobody is worth asking."""
        config = self._config
        for path, candidates in enumerate(self.paths):
            in_time, late = self.under_way[path]
            if in_time >= config.alpha or in_time + late >= config.alpha_max or self.asked >= config.asked_max:
                continue
            found = self._first_new(candidates)
            if found is not None:
                self.asked += 1
                self._move(found, State.ASKED)
                return found
        return None

    def note_late(self, candidate: Candidate) -> None:
        """Note that a request was not answered when it might have been: another one may go out beside it."""
        if candidate.state == State.ASKED:
            self._move(candidate, State.LATE)

    def note_answer(self, candidate: Candidate) -> None:
        """Note that a node answered, in time or late."""
        if candidate.state in (State.ASKED, State.LATE):
            self._move(candidate, State.ANSWERED)

    def note_failure(self, candidate: Candidate) -> None:
        """Note that a node did not answer, or lied: it counts no longer, nor does it as one of the nearest."""
        if candidate.state != State.FAILED:
            self._move(candidate, State.FAILED)

    def is_over(self) -> bool:
        """Say whether the ``k`` nearest trustworthy candidates of each path have answered, or nothing is left to ask."""
        for path, candidates in enumerate(self.paths):
            if self.asked < self._config.asked_max and self._first_new(candidates) is not None:
                return False
            if sum(self.under_way[path]) and self._waits_for_near(candidates):
                return False
        return True

    def nearest(self, count: int) -> list[Candidate]:
        """Return the nearest nodes that answered, of all paths, nearest first."""
        answered = [c for path in self.paths for c in path if c.state == State.ANSWERED]
        answered.sort()
        return answered[:count]

    def _first_new(self, candidates: list[Candidate]) -> Candidate | None:
        """Return the nearest candidate not asked, if it is among the ``k`` nearest that count."""
        left = self._config.k
        for candidate in candidates:
            state = candidate.state
            if state is _NEW:
                if self._is_trusted(candidate):
                    return candidate
            elif state is _ASKED or state is _ANSWERED:
                # A late one does not count: it may be dead, and the walk must end with k that live.
                left -= 1
                if not left:
                    return None
        return None

    def _waits_for_near(self, candidates: list[Candidate]) -> bool:
        """Say whether an answer is due of a node among the ``k`` nearest.

        Late ones are waited for only while fewer than ``k`` have answered: most of them are dead.
        """
        answered, late = 0, False
        for candidate in candidates:
            state = candidate.state
            if state is _ASKED:
                return True
            if state is _ANSWERED:
                answered += 1
                if answered >= self._config.k:
                    return False
            elif state is _LATE:
                late = True
        return late

    def _is_trusted(self, candidate: Candidate) -> bool:
        """Say whether one of those who named it has credit left."""
        if not candidate.referrers:
            return True
        credit = self._config.referral_credit
        for referrer in candidate.referrers:
            if referrer.state is not _FAILED and referrer.outstanding < credit + referrer.answered:
                return True
        return False

    def _insert(self, candidate: Candidate) -> None:
        if len(self.by_public) >= self._config.candidates_max:
            path = self.paths[candidate.path]
            if not path or path[-1].state != State.NEW or path[-1].distance < candidate.distance:
                return
            del self.by_public[path.pop().public]
        self.by_public[candidate.public] = candidate
        insort(self.paths[candidate.path], candidate)

    def _move(self, candidate: Candidate, state: State) -> None:
        old, candidate.state = candidate.state, state
        counts = self.under_way[candidate.path]
        if old in (State.ASKED, State.LATE):
            counts[old - State.ASKED] -= 1
        if state in (State.ASKED, State.LATE):
            counts[state - State.ASKED] += 1
        if candidate.referrers:
            first = candidate.referrers[0]
            if state == State.ASKED:
                first.outstanding += 1
            elif state == State.ANSWERED:
                first.outstanding -= 1
                first.answered += 1

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or count of the walk is broken."""
        assert len(self.by_public) <= self._config.candidates_max, "too many candidates"
        assert len(self.by_public) == sum(map(len, self.paths)), "candidate on no path, or on two"
        assert self.asked <= self._config.asked_max, "asked too often"
        for path, candidates in enumerate(self.paths):
            assert candidates == sorted(candidates), "path out of order"
            for state in (State.ASKED, State.LATE):
                count = sum(c.state == state for c in candidates)
                assert count == self.under_way[path][state - State.ASKED], "requests miscounted"
