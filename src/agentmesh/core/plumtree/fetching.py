"""When to stop waiting for a push, and whom to fetch from (docs/spec/plumtree.md §4). Decides only; the machine sends."""

from __future__ import annotations

from dataclasses import dataclass, field

from agentmesh.core.machine import Outbox, Timer
from agentmesh.core.plumtree.config import PlumtreeConfig
from agentmesh.core.plumtree.missing import ANNOUNCERS_MAX, Missing, MissingTable
from agentmesh.core.plumtree.neighbours import Neighbour, Neighbours
from agentmesh.ids import NodeId

FETCH = "plumtree.fetch"
#: Ids that were given up of which it is remembered who was asked, and so many of these each.
_GIVEN_UP_MAX = 1_024
_ASKED_MAX = 16
_RTT_S_MIN, _RTT_S_MAX = 0.002, 2.0


@dataclass(slots=True)
class Plan:
    """What to do about the ids that are due.

    Attributes:
        wanted: Ids to fetch, by whom to ask.
        declined: Of these the ones asked for the first time: eager neighbours need not push them any more.
        broken: Who was asked and did not deliver.
    """

    wanted: dict[NodeId, list[bytes]] = field(default_factory=dict[NodeId, list[bytes]])
    declined: list[bytes] = field(default_factory=list[bytes])
    broken: list[NodeId] = field(default_factory=list[NodeId])


class Fetching:
    """The awaited ids of one node and the patience it has learned.

    Args:
        config: Waits and bounds.
        neighbours: Whom one can ask.
    """

    __slots__ = ("_config", "_given_up", "_neighbours", "_rtt_s", "_wait_s", "_wake_s", "_wake_token", "missing")

    def __init__(self, config: PlumtreeConfig, neighbours: Neighbours) -> None:
        self.missing = MissingTable()
        self._config, self._neighbours = config, neighbours
        # Who was asked for ids that are awaited no longer: under load answers come after that, and are no offence.
        self._given_up: dict[bytes, list[NodeId]] = {}
        self._rtt_s = config.rtt_first_s
        self._wait_s = config.fetch_wait_s
        self._wake_s = float("inf")
        self._wake_token = 0

    def wait_s(self) -> float:
        """Return how long a push is awaited after the first announcement."""
        return max(self._wait_s, self._config.fetch_wait_rtts * self._rtt_s)

    def wait_longer(self) -> None:
        """Note that a push was only late: links here repeat what is lost, so fetching early gets payloads twice."""
        self._wait_s = min(self._config.fetch_wait_s_max, self._wait_s + 2 * self._config.fetch_wait_step_s)

    def admit(self, peer: Neighbour, id_: bytes, hops: int, wait_s: float, size_bytes: int, now_s: float) -> bool:
        """Note that a neighbour has an unknown id; False if it announced more than agreed."""
        missing = self.missing.by_id.get(id_)
        if missing is None:
            config = self._config
            if not peer.takes_ids(1, now_s):
                return False
            if peer.promised >= config.promised_max or len(self.missing.by_id) >= config.missing_max:
                return True  # no offence: a burst of many authors; others announce it too, or a comparison finds it
            peer.promised += 1
            self.missing.admit(id_, Missing([(peer.node, hops)], now_s + wait_s, size_bytes=size_bytes))
            return True
        missing.size_bytes = missing.size_bytes or size_bytes
        if len(missing.announcers) < ANNOUNCERS_MAX and all(node != peer.node for node, _ in missing.announcers):
            missing.announcers.append((peer.node, hops))
        if missing.waiting is None and now_s + wait_s < missing.due_s:
            self.missing.postpone(id_, missing, now_s + wait_s)
        return True

    def close(self, id_: bytes) -> Missing | None:
        """Await an id no longer: it is here, or nobody delivered it."""
        missing = self.missing.expire(id_)
        if missing is not None:
            first = self._neighbours.known.get(missing.announcers[0][0])
            if first is not None:
                first.promised = max(0, first.promised - 1)
        return missing

    def asked(self, id_: bytes, missing: Missing | None) -> list[NodeId]:
        """Return who was ever asked for an id that is here now, as far as it is remembered."""
        return self._given_up.pop(id_, []) + ([] if missing is None else missing.asked)

    def _remember(self, id_: bytes, asked: list[NodeId]) -> None:
        """Note who was asked for an id that is given up."""
        if asked:
            asked = self._given_up.pop(id_, []) + asked
            while len(self._given_up) >= _GIVEN_UP_MAX:
                del self._given_up[next(iter(self._given_up))]
            self._given_up[id_] = asked[-_ASKED_MAX:]

    def note_answer(self, peer: Neighbour, missing: Missing | None, size_bytes: int, now_s: float) -> None:
        """Learn from a payload that came by fetch: the push may be lost for good, and how long a round trip is."""
        self._wait_s = max(self._config.fetch_wait_s_min, self._wait_s - self._config.fetch_wait_step_s)
        if missing is None or missing.asked != [peer.node] or size_bytes > self._config.inline_bytes_max:
            return
        sample_s = min(max(now_s - missing.asked_s, _RTT_S_MIN), _RTT_S_MAX)
        self._rtt_s += (sample_s - self._rtt_s) / 8

    def part(self, node: NodeId, now_s: float) -> None:
        """Ask a former neighbour no longer; whom it kept waiting asks the next at once. Call after it was expired."""
        table = self.missing
        for id_, missing in list(table.by_id.items()):
            if all(announcer != node for announcer, _ in missing.announcers):
                continue
            was_first = missing.announcers[0][0] == node
            missing.announcers = [told for told in missing.announcers if told[0] != node]
            if not missing.announcers:
                table.expire(id_)
                self._remember(id_, missing.asked)
                continue
            if was_first:
                self._neighbours.known[missing.announcers[0][0]].promised += 1
            if missing.waiting == node:
                missing.waiting = None
                table.postpone(id_, missing, now_s)

    def plan(self, now_s: float) -> Plan:
        """Decide about all ids that are due: each is fetched from one announcer, or given up after enough failures."""
        config = self._config
        plan = Plan()
        for id_, missing in self.missing.take_due(now_s):
            if missing.waiting is not None:
                plan.broken.append(missing.waiting)
            announcer = self._pick_announcer(missing, now_s) if len(missing.asked) < config.attempts_max else None
            if announcer is None:
                self.close(id_)
                self._remember(id_, missing.asked)
                continue
            missing.waiting, missing.asked_s = announcer.node, now_s
            missing.asked.append(announcer.node)
            wait_s = max(config.retry_wait_s, config.retry_wait_rtts * self._rtt_s)
            self.missing.postpone(id_, missing, now_s + wait_s + missing.size_bytes / config.fetch_bytes_per_s)
            plan.wanted.setdefault(announcer.node, []).append(id_)
            if not missing.declined:
                missing.declined = True
                plan.declined.append(id_)
        return plan

    def _pick_announcer(self, missing: Missing, now_s: float) -> Neighbour | None:
        """Pick whom to ask: the one asked least often, of these one in good standing, of these the first that told."""
        best: Neighbour | None = None
        best_rank = (0, True)
        for node, _ in missing.announcers:
            neighbour = self._neighbours.known.get(node)
            if neighbour is None or neighbour.bad:
                continue
            rank = (missing.asked.count(node), node == missing.waiting or neighbour.score(now_s) < -1.0)
            if best is None or rank < best_rank:
                best, best_rank = neighbour, rank
        return best

    def wakes(self, timer: Timer) -> bool:
        """Say whether this is the timer that waits for the next due id; the caller then plans, and arms anew."""
        if timer.token != self._wake_token:
            return False
        self._wake_s = float("inf")
        return True

    def arm(self, now_s: float, out: Outbox) -> None:
        """See to it that a timer wakes the machine when the next id is due."""
        due_s = self.missing.next_due_s()
        if due_s is not None and due_s < self._wake_s:
            self._wake_s = due_s
            self._wake_token += 1
            out.after(max(0.0, due_s - now_s), Timer(FETCH, self._wake_token))

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule is broken."""
        self.missing.assert_invariants(self._config.missing_max)
        assert len(self._given_up) <= _GIVEN_UP_MAX
        assert not self.missing.by_id or self._wake_s < float("inf"), "ids are awaited and no timer runs"
