"""Our own records: provided, checked, provided again (docs/spec/dht.md §7)."""

from __future__ import annotations

import random
from collections import deque
from functools import partial

from agentmesh.core.dht.config import DhtConfig
from agentmesh.core.dht.messages import CHECK_KEYS_MAX, Check, Checked, Item, Store, Stored
from agentmesh.core.dht.place import place_of
from agentmesh.core.dht.roster import Roster
from agentmesh.core.dht.search import Search, Searches
from agentmesh.core.dht.values import Values
from agentmesh.core.machine import Outbox, Timer, WallTime
from agentmesh.core.messages import Advertise, Provide, ProvidersWanted
from agentmesh.errors import MeshError
from agentmesh.identity.reader import Reader
from agentmesh.ids import AgentId, Key, NodeId

REPUBLISH = "dht.republish"
RETRY = "dht.retry"
_RETRY_S_MAX = 60.0


class Publication:
    """One record of a local agent under one key.

    Attributes:
        agent_id, key: What it is of.
        raw: The signed record, b"" until it was signed.
        fresh: Its replicas hold an older one, or perhaps none: it is to be stored at all of them, not only where it is missing.
        replicas: Nodes that acknowledged it.
        wanted: How many these were when it was last provided; losses are judged against it.
        queued: It waits to be provided, or is being provided.
        attempts: Failed ones in a row.
    """

    __slots__ = ("agent_id", "attempts", "fresh", "key", "queued", "raw", "replicas", "wanted")

    def __init__(self, agent_id: AgentId, key: Key) -> None:
        self.agent_id, self.key = agent_id, key
        self.raw = b""
        self.replicas: dict[NodeId, None] = {}
        self.wanted = self.attempts = 0
        self.fresh = self.queued = False


class Replica:
    """A node that holds records of ours.

    Attributes:
        publications: Which.
        checked_s: When it was last asked, or stored to.
        failures: Checks in a row it did not answer.
    """

    __slots__ = ("checked_s", "failures", "publications")

    def __init__(self, now_s: float) -> None:
        self.publications: dict[Publication, None] = {}
        self.checked_s = now_s
        self.failures = 0


class _Storing:
    """One record on its way to the nearest nodes."""

    __slots__ = ("due", "publication", "spare")

    def __init__(self, publication: Publication, spare: list[tuple[NodeId, tuple[str, ...]]]) -> None:
        self.publication, self.spare, self.due = publication, spare, 0


class Provides:
    """Everything that this node says of its own agents.

    Args:
        roster, searches, values: Of the same machine.
        config: Sizes and times.
        rng: For jitter.
        reader, wall: To check what the driver signed.
    """

    __slots__ = (
        "_config",
        "_queue",
        "_reader",
        "_retries",
        "_rng",
        "_roster",
        "_searches",
        "_serial",
        "_tokens",
        "_values",
        "_wall",
        "adverts",
        "replicas",
        "running",
    )

    def __init__(
        self,
        roster: Roster,
        searches: Searches,
        values: Values,
        config: DhtConfig,
        rng: random.Random,
        reader: Reader,
        wall: WallTime,
    ) -> None:
        self.adverts: dict[AgentId, dict[Key, Publication]] = {}
        self.replicas: dict[NodeId, Replica] = {}
        self.running = 0
        self._roster, self._searches, self._values = roster, searches, values
        self._config, self._rng, self._reader, self._wall = config, rng, reader, wall
        self._queue: deque[Publication] = deque()
        self._tokens: dict[int, AgentId] = {}
        self._retries: dict[int, Publication] = {}
        self._serial = 0

    def advertise(self, advertise: Advertise, out: Outbox) -> None:
        """Take on, change or drop what a local agent is to be found under."""
        old = self.adverts.pop(advertise.agent_id, {})
        others = sum(map(len, self.adverts.values()))
        keys = advertise.keys[: max(0, self._config.advertised_max - others)]
        fresh = {key: old.pop(key, None) or Publication(advertise.agent_id, key) for key in keys}
        for publication in old.values():
            self._withdraw(publication)
        self._tokens = {token: agent for token, agent in self._tokens.items() if agent != advertise.agent_id}
        if fresh:
            self.adverts[advertise.agent_id] = fresh
            self._want(advertise.agent_id, out)

    def provide(self, provide: Provide, now_s: float) -> None:
        """Take records that the driver signed, and store them where they belong."""
        wanted = self.adverts.get(provide.agent_id, {})
        for key, raw in provide.items:
            publication = wanted.get(key)
            if publication is None:
                continue  # withdrawn while it was being signed
            try:
                provider = self._reader.provider(raw, key, self._wall.unix_s(now_s))
            except MeshError as error:
                raise AssertionError(f"the driver signed a record that does not read: {error}") from error
            signed_for = (provider.node_id, provider.agent_id)
            assert signed_for == (self._roster.table.place.node, provide.agent_id), "signed for somebody else"
            publication.raw, publication.fresh = raw, True
            self.enqueue(publication)

    def enqueue(self, publication: Publication) -> None:
        """Provide a record as soon as there is room."""
        if publication.queued or not publication.raw:
            return
        publication.queued = True
        self._queue.append(publication)

    def start_waiting(self, now_s: float, out: Outbox) -> None:
        """Start providing records that wait, as far as there is room."""
        while self._queue and self.running < self._config.provides_max:
            publication = self._queue.popleft()
            if not self._is_current(publication):
                continue
            self.running += 1
            self._searches.walk_to(publication.key, now_s, out, partial(self._on_walked, publication))

    def on_timer(self, timer: Timer, out: Outbox) -> None:
        """Have records signed afresh, or try one again."""
        if timer.name == REPUBLISH:
            agent = self._tokens.pop(timer.token, None)
            if agent is not None and agent in self.adverts:
                self._want(agent, out)
        elif (publication := self._retries.pop(timer.token, None)) is not None and self._is_current(publication):
            self.enqueue(publication)

    def review(self) -> None:
        """Look again where every record belongs, and store it where it is missing."""
        for publications in self.adverts.values():
            for publication in publications.values():
                self.enqueue(publication)

    def on_changed(self) -> None:
        """Look again at records with too few replicas: nodes came."""
        for publications in self.adverts.values():
            for publication in publications.values():
                if len(publication.replicas) < self._config.replicas_min:
                    self.enqueue(publication)

    def check_next(self, pause_s: float, now_s: float, out: Outbox) -> bool:
        """Ask the replica not asked for longest, and not within ``pause_s``, whether it still holds our records.

        Returns:
            False if there is none to ask.
        """
        if not self.replicas:
            return False
        node = next(iter(self.replicas))
        replica = self.replicas[node]
        if now_s - replica.checked_s < pause_s:
            return False
        self._check(node, replica, now_s, out)
        return True

    def suspect(self, node: NodeId, now_s: float, out: Outbox) -> None:
        """Take a hint that a node may be dead: ask it, if it holds records of ours."""
        replica = self.replicas.get(node)
        if replica is not None:
            self._check(node, replica, now_s, out)

    def _check(self, node: NodeId, replica: Replica, now_s: float, out: Outbox) -> None:
        del self.replicas[node]
        self.replicas[node] = replica  # asked last
        replica.checked_s = now_s
        counts: dict[Key, int] = {}
        for publication in replica.publications:
            counts[publication.key] = counts.get(publication.key, 0) + 1
            if len(counts) >= CHECK_KEYS_MAX:
                break
        question = Check(rpc=0, keys=list(counts))
        done = partial(self._on_checked, node, counts)
        self._roster.calls.ask(node, question, self._addresses(node), now_s, out, done, self._check_more)

    def _check_more(self, now_s: float, out: Outbox) -> None:
        """Ask further replicas as soon as an answer is late: if many died at once, every second counts."""
        for _ in range(self._config.check_burst):
            if not self.check_next(2 * self._config.rpc_timeout_s, now_s, out):
                return

    def _on_checked(
        self, node: NodeId, counts: dict[Key, int], answer: Checked | None, now_s: float, out: Outbox
    ) -> None:
        replica = self.replicas.get(node)
        if replica is None:
            return
        if answer is None:
            replica.failures += 1
            if replica.failures == 1:
                self._check(node, replica, now_s, out)  # one lost datagram is no death
            suspects = list(replica.publications)
            if replica.failures > 1:
                self._forget_replica(node)
        else:
            replica.failures = 0
            short = {key for key, held in zip(counts, answer.held, strict=False) if held < counts[key]}
            suspects = [p for p in replica.publications if p.key in short]
            for publication in suspects:
                self._unlink(publication, node)
        for publication in suspects:
            if self._is_low(publication):
                publication.fresh = True  # those not asked yet may have lost it too
                self.enqueue(publication)

    def _is_low(self, publication: Publication) -> bool:
        alive = sum(not self.replicas[node].failures for node in publication.replicas)
        return alive < max(self._config.replicas_low * publication.wanted, min(publication.wanted, 1))

    def _want(self, agent: AgentId, out: Outbox) -> None:
        """Have all records of an agent signed now, and again after ``republish_s``."""
        out.emit(ProvidersWanted(agent, tuple(self.adverts[agent])))
        self._serial += 1
        self._tokens[self._serial] = agent
        jitter = self._config.republish_jitter
        out.after(self._config.republish_s * self._rng.uniform(1 - jitter, 1 + jitter), Timer(REPUBLISH, self._serial))

    def _on_walked(self, publication: Publication, search: Search, now_s: float, out: Outbox) -> None:
        """Store at the nearest that answered; at ourselves too, if we are one of them."""
        if not self._is_current(publication):
            self.running -= 1
            return
        config = self._config
        me = self._roster.table.place.number ^ search.walk.target
        found = search.walk.nearest(config.k + config.store_set)
        targets = [(c.node, c.addresses) for c in found if c.node is not None]
        nearer = sum(c.distance < me for c in found)
        count = config.store_set
        if nearer < count:
            provider = self._reader.provider(publication.raw, publication.key, self._wall.unix_s(now_s))
            self._values.admit(provider, self._wall.unix_s(now_s))
            count -= 1
        if len(found) >= config.k:
            # Who stands beyond all of these was given the record before nearer nodes were known: nobody will ask it.
            for node in list(publication.replicas):
                if place_of(node).number ^ search.walk.target > found[-1].distance:
                    self._unlink(publication, node)
        storing = _Storing(publication, targets[count:])
        lacking = [(n, at) for n, at in targets[:count] if publication.fresh or n not in publication.replicas]
        publication.fresh = False
        storing.due = len(lacking)
        if not storing.due:
            self._on_stored(storing, now_s, out)
        for node, addresses in lacking:
            self._store(storing, node, addresses, now_s, out)

    def _store(self, storing: _Storing, node: NodeId, addresses: tuple[str, ...], now_s: float, out: Outbox) -> None:
        publication = storing.publication
        question = Store(rpc=0, items=[Item(publication.key, publication.raw)])
        done = partial(self._on_acknowledged, storing, node)
        self._roster.calls.ask(node, question, self._addresses(node) or addresses, now_s, out, done)

    def _on_acknowledged(
        self, storing: _Storing, node: NodeId, answer: Stored | None, now_s: float, out: Outbox
    ) -> None:
        publication = storing.publication
        if answer is not None and answer.kept > 0:
            if self._is_current(publication):
                publication.replicas[node] = None
                replica = self.replicas.get(node)
                if replica is None:
                    replica = self.replicas[node] = Replica(now_s)
                replica.publications[publication] = None
                replica.failures = 0
        elif storing.spare:
            self._store(storing, *storing.spare.pop(0), now_s, out)
            return
        storing.due -= 1
        if not storing.due:
            self._on_stored(storing, now_s, out)

    def _on_stored(self, storing: _Storing, now_s: float, out: Outbox) -> None:
        """Count the acknowledgements: enough is done, too few is tried again later."""
        publication = storing.publication
        self.running -= 1
        publication.queued = False
        publication.wanted = len(publication.replicas)
        if self._is_current(publication):
            # Those that are farther than the nearest ones now are let go: newer records will not reach them.
            for node in list(publication.replicas)[: max(0, len(publication.replicas) - 2 * self._config.store_set)]:
                self._unlink(publication, node)
            if publication.wanted < min(self._config.replicas_min, len(self._roster.table.contacts)):
                wait_s = min(_RETRY_S_MAX, self._config.provide_retry_s * 2.0 ** min(publication.attempts, 10))
                publication.attempts += 1
                self._serial += 1
                self._retries[self._serial] = publication
                out.after(wait_s * self._rng.uniform(0.8, 1.2), Timer(RETRY, self._serial))
            else:
                publication.attempts = 0

    def _addresses(self, node: NodeId) -> tuple[str, ...]:
        contact = self._roster.table.contacts.get(node)
        return (contact.address,) if contact is not None and contact.address else ()

    def _is_current(self, publication: Publication) -> bool:
        return self.adverts.get(publication.agent_id, {}).get(publication.key) is publication

    def _withdraw(self, publication: Publication) -> None:
        for node in list(publication.replicas):
            self._unlink(publication, node)

    def _unlink(self, publication: Publication, node: NodeId) -> None:
        publication.replicas.pop(node, None)
        replica = self.replicas.get(node)
        if replica is not None:
            replica.publications.pop(publication, None)
            if not replica.publications:
                del self.replicas[node]

    def _forget_replica(self, node: NodeId) -> None:
        replica = self.replicas.pop(node, None)
        if replica is not None:
            for publication in replica.publications:
                publication.replicas.pop(node, None)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of providing is broken."""
        assert self.running <= self._config.provides_max, "too many records being provided"
        assert sum(map(len, self.adverts.values())) <= self._config.advertised_max
        assert len(self._tokens) == len(self.adverts), "an agent without its republishing, or with two"
        for node, replica in self.replicas.items():
            assert replica.publications, "a replica of nothing"
            for publication in replica.publications:
                assert node in publication.replicas, "linked one way only"
                assert self._is_current(publication), "replica of what was withdrawn"
        for publications in self.adverts.values():
            for publication in publications.values():
                assert len(publication.replicas) <= 3 * self._config.store_set
                assert all(publication in self.replicas[node].publications for node in publication.replicas)
