"""Who is pushed to, who is told, who is trusted (docs/spec/plumtree.md §3, §6)."""

from __future__ import annotations

import random

from agentmesh.core.plumtree.config import PlumtreeConfig
from agentmesh.ids import NodeId


class Neighbour:
    """What is kept about one neighbour.

    Attributes:
        node, zone: As the overlay told.
        eager: True = payloads are pushed to it.
        fresh: A zone mate not yet given a role.
        bad: Its score fell below the limit: ignored until the overlay drops it.
        promised: Missing ids for which it is the first announcer.
        late: Copies in a row with which it came second.
        pruned_s: When it was last told not to push.
    """

    __slots__ = (
        "_bytes_left",
        "_fault_s",
        "_filled_s",
        "_ids_left",
        "_score",
        "_scored_s",
        "_served_left",
        "bad",
        "config",
        "eager",
        "fresh",
        "late",
        "node",
        "promised",
        "pruned_s",
        "zone",
    )

    def __init__(self, node: NodeId, zone: bool, config: PlumtreeConfig, score: float, now_s: float) -> None:
        self.node, self.zone, self.config = node, zone, config
        self.eager = not zone
        self.fresh = zone
        self.bad = False
        self.promised = self.late = 0
        self.pruned_s = self._fault_s = -1e9
        self._score, self._scored_s = score, now_s
        self._ids_left = config.ids_burst
        self._bytes_left = self._served_left = config.bytes_burst
        self._filled_s = now_s

    def score(self, now_s: float) -> float:
        """Return the score: 0 = nothing known, up to ``score_max``, below 0 = distrusted."""
        return self._score * 0.5 ** ((now_s - self._scored_s) / self.config.score_half_life_s)

    def credit(self, points: float, now_s: float) -> float:
        """Add points, which may be negative, and return the new score."""
        self._score = min(self.config.score_max, self.score(now_s) + points)
        self._scored_s = now_s
        return self._score

    def may_fault(self, now_s: float) -> bool:
        """Say whether a fault that honest nodes commit as well may be charged again: once a second."""
        if now_s - self._fault_s < 1.0:
            return False
        self._fault_s = now_s
        return True

    def takes_ids(self, count: int, now_s: float) -> bool:
        """Take ``count`` new ids off its allowance; False, and nothing is taken, if it is used up."""
        self._fill(now_s)
        if count > self._ids_left:
            return False
        self._ids_left -= count
        return True

    def takes_bytes(self, size_bytes: int, now_s: float) -> bool:
        """The same for payload bytes that it sends."""
        self._fill(now_s)
        if size_bytes > self._bytes_left:
            return False
        self._bytes_left -= size_bytes
        return True

    def serves_bytes(self, size_bytes: int, now_s: float) -> bool:
        """The same for payload bytes that it asks for."""
        self._fill(now_s)
        if size_bytes > self._served_left:
            return False
        self._served_left -= size_bytes
        return True

    def _fill(self, now_s: float) -> None:
        past_s = now_s - self._filled_s
        if past_s <= 0:
            return
        config = self.config
        self._filled_s = now_s
        self._ids_left = min(config.ids_burst, self._ids_left + past_s * config.ids_per_s)
        more = past_s * config.bytes_per_s
        self._bytes_left = min(config.bytes_burst, self._bytes_left + more)
        self._served_left = min(config.bytes_burst, self._served_left + more)


class Neighbours:
    """The neighbours of one node with their roles, and the scores of former ones.

    Args:
        node_id: This node.
        config: Degrees and scores.
        rng: Picks first eager zone mates and partners for comparison.
    """

    __slots__ = ("_config", "_eager", "_former", "_lazy", "_node_id", "_rng", "_turn", "known")

    def __init__(self, node_id: NodeId, config: PlumtreeConfig, rng: random.Random) -> None:
        self._node_id, self._config, self._rng = node_id, config, rng
        self.known: dict[NodeId, Neighbour] = {}
        self._former: dict[NodeId, tuple[float, float]] = {}
        self._turn = rng.randrange(1_000)
        self._eager: list[NodeId] | None = []
        self._lazy: list[NodeId] | None = []

    def admit(self, node: NodeId, zone: bool, now_s: float) -> Neighbour:
        """Take a neighbour in, or note that it became a long link or a mere zone mate."""
        neighbour = self.known.get(node)
        if neighbour is None:
            score, at_s = self._former.pop(node, (0.0, now_s))
            score *= 0.5 ** ((now_s - at_s) / self._config.score_half_life_s)
            neighbour = self.known[node] = Neighbour(node, zone, self._config, score, now_s)
        elif neighbour.zone != zone:
            neighbour.zone = zone
            neighbour.eager = neighbour.eager or not zone
            neighbour.fresh = False
        self.changed()
        return neighbour

    def expire(self, node: NodeId, now_s: float) -> None:
        """Let a neighbour go; a score below zero stays on record."""
        neighbour = self.known.pop(node, None)
        if neighbour is None:
            return
        score = neighbour.score(now_s)
        if score < 0:
            self._former[node] = (score, now_s)
            while len(self._former) > self._config.scores_max:
                del self._former[next(iter(self._former))]
        self.changed()

    def former_score(self, node: NodeId, now_s: float) -> float:
        """Return the score of a node that is no neighbour now; 0.0 = nothing against it."""
        score, at_s = self._former.get(node, (0.0, now_s))
        return score * 0.5 ** ((now_s - at_s) / self._config.score_half_life_s)

    def changed(self) -> None:
        """Forget the lists made of the roles; call after changing ``eager``, ``bad`` or ``zone``."""
        self._eager = self._lazy = None

    def set_eager(self, neighbour: Neighbour, eager: bool) -> None:
        """Give a neighbour a role."""
        neighbour.fresh = False
        if neighbour.eager != eager:
            neighbour.eager = eager
            neighbour.late = 0
            self.changed()

    def eager(self) -> list[NodeId]:
        """Return whom payloads are pushed to, in the order of arrival. Not to be changed by the caller."""
        if self._eager is None:
            self._settle()
            self._eager = [n.node for n in self.known.values() if n.eager and not n.bad]
        return self._eager

    def lazy(self) -> list[NodeId]:
        """Return whom messages are announced to: all lazy long links and ``zone_lazy`` zone mates. Not to be changed.

        All members of a zone know each other, so each takes those at the same distances in the order of ids round the
        zone, and each is taken by as many as it takes.
        """
        if self._lazy is None:
            self._settle()
            mates = sorted(n.node for n in self.known.values() if n.zone)
            after = next((i for i, node in enumerate(mates) if node > self._node_id), 0)
            ring = mates[after:] + mates[:after]
            count = min(self._config.zone_lazy, len(ring))
            picked = [ring[i * len(ring) // count] for i in range(count)]
            long = [n.node for n in self.known.values() if not n.zone]
            known = self.known
            self._lazy = [node for node in long + picked if not known[node].eager and not known[node].bad]
        return self._lazy

    def lazy_long(self) -> list[NodeId]:
        """Return the long links that are only told, in the order of arrival."""
        return [n.node for n in self.known.values() if not n.zone and not n.eager and not n.bad]

    def pick_partners(self) -> list[NodeId]:
        """Pick whom to compare with: one at random, and zone mates that are told nothing, in turn.

        The latter may have lost all who do tell them; when half of all nodes crash, one in some hundred has.
        """
        nodes = [n.node for n in self.known.values() if not n.bad]
        if not nodes:
            return []
        picked = [self._rng.choice(nodes)]
        told = self.lazy()
        untold = [n.node for n in self.known.values() if n.zone and not n.eager and not n.bad and n.node not in told]
        for _ in range(min(self._config.sync_untold, len(untold))):
            self._turn += 1
            node = untold[self._turn % len(untold)]
            if node not in picked:
                picked.append(node)
        return picked

    def _settle(self) -> None:
        """Give fresh zone mates a role: some are pushed to while fewer than ``zone_eager`` are."""
        fresh = [n for n in self.known.values() if n.fresh]
        if not fresh:
            return
        wanted = self._config.zone_eager - sum(1 for n in self.known.values() if n.zone and n.eager)
        picked = self._rng.sample(fresh, min(max(0, wanted), len(fresh)))
        for neighbour in fresh:
            neighbour.fresh = False
        for neighbour in picked:
            neighbour.eager = True

    def assert_invariants(self) -> None:
        """Raise AssertionError if a rule is broken."""
        assert len(self._former) <= self._config.scores_max
        for node, neighbour in self.known.items():
            assert neighbour.node == node != self._node_id
            assert neighbour.promised >= 0
            assert not (neighbour.fresh and neighbour.eager)
        if self._eager is not None and self._lazy is not None:
            assert not set(self._eager) & set(self._lazy)
