"""Searches: agents found by id or capability, in the DHT alone and by all means, and records that outlive crashes."""

from __future__ import annotations

from collections.abc import Callable

from agentmesh.core.messages import Find, FindDone, Found, Lookup, LookupDone, LookupHit
from agentmesh.ids import AgentId, Key, capability_key, dht_key, public_key_of
from agentmesh.sim.boot import join
from agentmesh.sim.brains import is_member
from agentmesh.sim.node import DOWN, UP, SimNode
from agentmesh.sim.probes.base import Figures, Probe, quantile, spread_ms

#: A newcomer that found nothing asks again after this, as a person would not; it makes the figure a time, not a matter of luck.
_AGAIN_S = 0.05


class LookupProbe(Probe):
    """Look agents up by id in the DHT, from random honest nodes; only records that the agents' nodes signed count."""

    def open(self) -> None:
        """Plan the lookups."""
        self._running: dict[tuple[int, int], tuple[float, AgentId]] = {}
        self._hit: dict[tuple[int, int], float] = {}
        self.took_s: list[float] = []
        self.hops: list[float] = []
        self.asked: list[float] = []
        self.asks = self.good = self.forged = 0
        self.world.on_event.setdefault(LookupHit, []).append(self._on_hit)
        self.world.on_event.setdefault(LookupDone, []).append(self._on_done)
        for number in range(self.measure.count):
            self.world.call(self.at(number * self.measure.interval_s), self._fire)

    def _fire(self) -> None:
        owners = [node for node in self.world.nodes if node.agents and node.mask is None]
        honest = self.world.honest()
        if not owners or not honest:
            return
        asker, owner = self.world.rng.choice(honest), self.world.rng.choice(owners)
        agent = self.world.rng.choice(list(owner.agents))
        self.asks += 1
        query = self.world.next_query()
        self._running[asker.index, query] = (self.world.now_s, agent)
        self.world.feed(asker, Lookup(query, dht_key(public_key_of(agent)), 1))

    def _on_hit(self, node: SimNode, hit: LookupHit) -> None:
        running = self._running.get((node.index, hit.query))
        if running is None:
            return
        for provider in hit.providers:
            if provider.raw not in self.world.duties.provided:
                self.forged += 1
            elif provider.agent_id == running[1]:
                self._hit.setdefault((node.index, hit.query), self.world.now_s - running[0])

    def _on_done(self, node: SimNode, done: LookupDone) -> None:
        key = (node.index, done.query)
        if self._running.pop(key, None) is None:
            return
        took_s = self._hit.pop(key, None)
        self.asked.append(done.asked)
        if took_s is not None:
            self.good += 1
            self.took_s.append(took_s)
            self.hops.append(done.hops)

    def figures(self) -> Figures:
        """Return times, hops and the share of lookups that found the agent; unanswered ones count as failed."""
        figures = spread_ms("lookup", self.took_s)
        figures |= {"lookups": self.asks, "forged_accepted": self.forged}
        if self.asks:
            figures["success_ratio"] = round(self.good / self.asks, 5)
        if self.hops:
            figures["hops_p50"], figures["hops_p99"] = quantile(self.hops, 0.5), quantile(self.hops, 0.99)
            figures["requests_p50"], figures["requests_p99"] = quantile(self.asked, 0.5), quantile(self.asked, 0.99)
        return figures

    def misses(self) -> int:
        """Return the lookups that did not find their agent."""
        return self.asks - self.good


class _Search:
    """Ask one node for a capability until it finds an agent."""

    def __init__(self, probe: Probe, node: SimNode, skill: str, told: Callable[[float], None]) -> None:
        self._probe, self._node, self._life, self._told = probe, node, node.life, told
        self._key: Key = capability_key(skill)
        self.began_s = probe.world.now_s
        self.query = 0
        self.ask()

    def ask(self) -> None:
        """Ask (again)."""
        world = self._probe.world
        if self._node.life == self._life and self._node.state == UP:
            self.query = world.next_query()
            world.searches[self._node.index, self.query] = self
            world.feed(self._node, Find(self.query, self._key, 1, self._probe.measure.deadline_s))

    def on_done(self, agents: int) -> None:
        """Note the end of one question."""
        world = self._probe.world
        world.searches.pop((self._node.index, self.query), None)
        if agents:
            self._told(world.now_s - self.began_s)
        elif world.now_s - self.began_s < self._probe.measure.deadline_s:
            world.call(_AGAIN_S, self.ask)


class FindProbe(Probe):
    """Find an agent by capability from random honest nodes, wherever it is known: directory, neighbours, DHT."""

    def open(self) -> None:
        """Plan the searches."""
        self.took_s: list[float] = []
        self.asks = 0
        _listen(self)
        for number in range(self.measure.count):
            self.world.call(self.at(number * self.measure.interval_s), self._fire)

    def _fire(self) -> None:
        skills = [skill for node in self.world.honest() for _, skill in node.agents.values()]
        if skills:
            self.asks += 1
            asker = self.world.rng.choice(self.world.honest())
            _Search(self, asker, self.world.rng.choice(skills), self.took_s.append)

    def figures(self) -> Figures:
        """Return the times until an agent was found."""
        return {**spread_ms("find", self.took_s), "finds": self.asks, "finds_missed": self.misses()}

    def misses(self) -> int:
        """Return the searches that found nothing by the deadline."""
        return self.asks - len(self.took_s)


class JoinProbe(Probe):
    """Newcomers that know one node's address: when do they have neighbours, when do they find an agent by capability?"""

    def open(self) -> None:
        """Plan the newcomers; they are the nodes that ``boot.start`` left out."""
        self.joined_s: list[float] = []
        self.found_s: list[float] = []
        self.came = 0
        _listen(self)
        for number, node in enumerate(self.world.newcomers):
            self.world.call(self.at(number * self.measure.interval_s), lambda n=node: self._join(n))

    def _join(self, node: SimNode) -> None:
        if node.state != DOWN:
            return
        world = self.world
        skills = [skill for other in world.honest() for _, skill in other.agents.values()]
        join(world, node, world.rng.choice(world.honest()))
        self.came += 1
        began_s, life = world.now_s, node.life

        def look() -> None:
            if node.life != life or world.now_s - began_s > self.measure.deadline_s:
                return
            if is_member(node.brain):
                self.joined_s.append(world.now_s - began_s)
            else:
                world.call(0.005, look)

        world.call(0.005, look)
        if skills:
            _Search(self, node, world.rng.choice(skills), self.found_s.append)

    def figures(self) -> Figures:
        """Return the times from start to membership and to the first agent found."""
        figures = spread_ms("join", self.joined_s) | spread_ms("first_find", self.found_s)
        return {**figures, "newcomers": self.came, "joins_missed": self.misses()}

    def misses(self) -> int:
        """Return the newcomers that did not get both in time."""
        return 2 * self.came - len(self.joined_s) - len(self.found_s)


class ReplicasProbe(Probe):
    """Records in the DHT when many nodes crash at once: which are lost, and when are the others back?

    A record counts as there when a lookup from some living node finds it. From the crash on every record is looked up
    once a second, from another node each time, until it is found.
    """

    def open(self) -> None:
        """Wait for the crash."""
        self._missing: dict[AgentId, SimNode] = {}
        self._running: dict[tuple[int, int], AgentId] = {}
        self._all: dict[AgentId, SimNode] = {}
        self.back_s: list[float] = []
        self.world.on_event.setdefault(LookupHit, []).append(self._on_hit)
        self.world.call(self.at(0), self._begin)

    def _begin(self) -> None:
        owners = [node for node in self.world.nodes if node.agents and node.mask is None]
        agents = [(agent, node) for node in owners for agent in node.agents][: self.measure.count]
        self._all = dict(agents)
        self._missing = dict(agents)
        self._ask()

    def _ask(self) -> None:
        honest = self.world.honest()
        for agent, owner in list(self._missing.items()):
            askers = [node for node in self.world.rng.sample(honest, min(3, len(honest))) if node is not owner]
            if askers:
                query = self.world.next_query()
                self._running[askers[0].index, query] = agent
                self.world.feed(askers[0], Lookup(query, dht_key(public_key_of(agent)), 1))
        if self.world.now_s - self.start_s < self.measure.deadline_s:
            self.world.call(self.measure.interval_s, self._ask)

    def _on_hit(self, node: SimNode, hit: LookupHit) -> None:
        agent = self._running.get((node.index, hit.query))
        if (
            agent is not None
            and agent in self._missing
            and any(p.agent_id == agent and p.raw in self.world.duties.provided for p in hit.providers)
        ):
            del self._missing[agent]
            self.back_s.append(self.world.now_s - self.start_s)

    def figures(self) -> Figures:
        """Return how many records were lost with and without a living owner, and how long the others took."""
        orphans = [agent for agent, owner in self._all.items() if owner.state == DOWN]
        lost = [agent for agent in orphans if agent in self._missing]
        figures: Figures = {
            "records": len(self._all),
            "records_without_owner": len(orphans),
            "lost_records": len(lost),
            "lost_records_with_owner": len(self._missing) - len(lost),
        }
        if orphans:
            figures["lost_records_ratio"] = round(len(lost) / len(orphans), 6)
        if self.back_s:
            figures["recover_p99_s"] = round(quantile(self.back_s, 0.99), 2)
            figures["recover_s"] = round(max(self.back_s), 2)
        return figures

    def misses(self) -> int:
        """Return the lost records whose owner lives."""
        return sum(1 for owner in self._missing.values() if owner.state != DOWN)


def _listen(probe: Probe) -> None:
    """Route the ends of searches of any probe, once per world."""
    world = probe.world
    if FindDone in world.on_event:
        return

    def on_found(node: SimNode, found: Found) -> None:
        search = world.searches.get((node.index, found.query))
        if search is not None:
            search.on_done(1)

    def on_done(node: SimNode, done: FindDone) -> None:
        search = world.searches.get((node.index, done.query))
        if search is not None:
            search.on_done(done.agents)

    world.on_event[Found] = [on_found]
    world.on_event[FindDone] = [on_done]
