"""The world: a virtual clock, what is still to happen, and the nodes (docs/spec/simulator.md §2).

An event is a tuple ``(time_us, sequence, node, life, payload, bytes)``; ties in time break by sequence number, so a run
depends on nothing but scenario, size and seed. ``node`` None = ``payload`` is a function of the simulator itself. A life
other than 0 names the run of the node that the event is for; other runs never see it.
"""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from collections.abc import Callable, Sequence
from heapq import heappop
from itertools import count
from typing import Any

from agentmesh.core.brain import Brain
from agentmesh.core.machine import Outbox, Timer
from agentmesh.core.messages import Received
from agentmesh.identity.reader import Reader
from agentmesh.ids import AgentId, NodeId
from agentmesh.sim.agenda import Agenda, Event
from agentmesh.sim.brains import new_brain, new_config, new_reader
from agentmesh.sim.carriage import Carriage, Packet
from agentmesh.sim.duties import Duties
from agentmesh.sim.links import Ether
from agentmesh.sim.node import DOWN, UP, SimNode
from agentmesh.sim.scenario import Scenario
from agentmesh.wire.envelope import Replays

#: Worlds up to this size send real bytes.
SMALL_MAX = 256
#: Brains whose invariants are checked each simulated second, in turn; one check costs as much as 50 inputs.
_CHECKED_PER_S = 16
_CHECKED_ALL_MAX = 32
_VIOLATIONS_MAX = 100
#: What a paused process can have waiting: the usual receive buffer of a UDP socket, and of a link's stream.
_HELD_BYTES_MAX = 4 * 1024 * 1024
_pack = struct.Struct("<QIII").pack
#: Inputs whose trace is added to the digest at once, minus 1.
_DIGEST_EVERY = (1 << 12) - 1
#: Simulated seconds in which a stuck world is noticed.
_WINDOW_S = 0.25

#: Makes the brain of one run of a node; tests put broken ones here.
Maker = Callable[[NodeId, Any, random.Random, Reader], Any]


class StuckError(AssertionError):
    """Brains go round in circles; a bug of a machine."""


class World:
    """Nodes, links and time of one run.

    Args:
        scenario: What there is.
        size: How many nodes.
        seed: The only source of chance.
        maker: Makes brains.

    Attributes:
        now_us: Simulated microseconds since the world began.
        nodes: By index.
        by_id, by_address: The same nodes.
        events: Inputs that brains took.
        violations: What broke, with its time; at most the first 100.
        on_event: Functions called with (node, event) for each event of that class that a brain emits.
        on_trace: Called before each input with (time_us, node, input, bytes) if set; for the story.
        real: Whether packets are bytes.
        sealed: Whether every datagram is signed and its signature checked, also where nobody damages it.
        newcomers: Nodes that are not there at the beginning.
        searches: Running searches of the measures, by node index and query.
        notes: Details of what was missed, for the report; at most the first 100.
    """

    def __init__(self, scenario: Scenario, size: int, seed: int, maker: Maker = new_brain) -> None:
        self.scenario, self.seed = scenario, seed
        self.now_us = 0
        self.rng = random.Random(f"world/{seed}")  # noqa: S311 a simulation
        encoding = scenario.world.encoding
        self.sealed = encoding == "sealed"
        self.real = self.sealed or encoding == "real" or (encoding == "auto" and size <= SMALL_MAX)
        self._maker, self._config = maker, new_config(scenario)
        self.reader = new_reader(size)
        self.ether = Ether(scenario.links, random.Random(f"ether/{seed}"), self.rng.getrandbits(32))  # noqa: S311
        self._agenda = Agenda()
        #: Let something reach a node: (time_us, node, life, payload, bytes); life 0 = whichever run of it is there then.
        self.push = self._agenda.push
        self._out = Outbox()
        self.events = 0
        self.violations: list[dict[str, Any]] = []
        self.on_event: dict[type, list[Callable[[SimNode, Any], None]]] = {}
        self.on_trace: Callable[[int, SimNode, Any, int], None] | None = None
        self.newcomers: list[SimNode] = []
        self.searches: dict[tuple[int, int], Any] = {}
        self.notes: list[str] = []
        self._queries = count(1)
        #: A world that takes more inputs than this in a quarter of a second goes round in circles.
        self._events_at_once = 100_000 + 5_000 * size
        self._events_max = 0
        self._trace = bytearray()
        self._hash = hashlib.sha256()
        self._names: dict[Any, int] = {}
        self._checked = 0
        tiers = _tiers(scenario.world.capacity, size, self.rng)
        sites = scenario.world.sites
        self.nodes = [SimNode(i, seed, tiers[i], f"site-{i % sites}" if sites > 1 else "") for i in range(size)]
        self.by_id: dict[NodeId, SimNode] = {node.node_id: node for node in self.nodes}
        self.by_address: dict[str, SimNode] = {node.address: node for node in self.nodes}
        self.duties = Duties(self)
        self.carriage = Carriage(self)
        self.every(1.0, self._check_some)

    # Time

    @property
    def now_s(self) -> float:
        """Simulated seconds since the world began."""
        return self.now_us * 1e-6

    def call(self, delay_s: float, function: Callable[[], None]) -> None:
        """Call a function of the simulator ``delay_s`` seconds from now."""
        self.push(self.now_us + int(delay_s * 1e6), None, 0, function, 0)

    def every(self, interval_s: float, function: Callable[[], None]) -> None:
        """Call a function again and again."""

        def again() -> None:
            function()
            self.call(interval_s, again)

        self.call(interval_s, again)

    def feed(self, node: SimNode, incoming: Any) -> None:
        """Give a running node's brain an input at this very time, after what already waits for it."""
        self.push(self.now_us, node, node.life, incoming, 0)

    def run(self, until_s: float) -> None:
        """Let everything happen up to a simulated time.

        Raises:
            StuckError: brains keep each other, or themselves, busy without end.
        """
        while self.now_us < int(until_s * 1e6):
            self._events_max = self.events + self._events_at_once
            self._run(min(int(until_s * 1e6), self.now_us + int(_WINDOW_S * 1e6)))

    def _run(self, until_us: int) -> None:
        near, out, push, note = self._agenda.near, self._out, self.push, self._note
        handlers, timers, sends, records, events = self.on_event, out.timers, out.sends, out.records, out.events
        send_all = self.carriage.send_all
        while near or self._agenda.advance(until_us):
            if near[0][0] > until_us:
                break
            at_us, _, node, life, payload, size = entry = heappop(near)
            self.now_us = at_us
            if node is None:
                payload()
                continue
            if node.state or (life and life != node.life):
                self._hold(entry)
                continue
            if size:
                node.bytes_in += size
                if type(payload) is Packet:
                    payload = self.carriage.read(node, payload)
                    if payload is None:
                        continue
            note(at_us, node, payload, size)
            try:
                node.brain.handle(payload, at_us * 1e-6, out)
            except Exception as error:  # noqa: BLE001 the simulator is a driver: one bad input is one finding, not the end
                self.violate(f"{type(error).__name__} on {_text(payload)}: {error}", node)
                for effects in (timers, sends, records, events):
                    effects.clear()  # as the daemon's driver: a step that failed has no effects
                continue
            if timers:
                base_us, life = at_us + node.lag_us + 1, node.life  # rounded up: no timer fires early
                for delay_s, timer in timers:
                    push(base_us + int(delay_s * 1e6), node, life, timer, 0)
                timers.clear()
            if sends:
                send_all(node, sends)
                sends.clear()
            if records:
                for record in records:
                    self.duties.store(node, record)
                records.clear()
            if events:
                for event in events:
                    for handler in handlers.get(event.__class__, ()):
                        handler(node, event)
                events.clear()
        self.now_us = max(self.now_us, until_us)

    def _note(self, at_us: int, node: SimNode, payload: Any, size: int) -> None:
        """Add an input to the running digest and to the story."""
        self.events += 1
        kind: Any = payload.__class__
        if kind is Received:
            kind = payload.message.__class__
        elif kind is Timer:
            kind = payload.name
        code = self._names.get(kind)
        if code is None:
            name: str = kind if isinstance(kind, str) else kind.__name__
            code = self._names[kind] = zlib.crc32(name.encode())
        self._trace += _pack(at_us, node.index, code, size)
        if self.on_trace is not None:
            self.on_trace(at_us, node, payload, size)
        if not self.events & _DIGEST_EVERY:
            self._hash.update(self._trace)
            self._trace.clear()
        if self.events > self._events_max:
            raise StuckError(f"more than {self._events_at_once} inputs within {_WINDOW_S} s, last a {_text(payload)}")

    def trace(self, node: SimNode, payload: Any) -> None:
        """Add an input that something beside a node's brain takes now to the digest and the story."""
        self._note(self.now_us, node, payload, 0)

    def _hold(self, entry: Event) -> None:
        """Keep what reaches a paused process, until its buffers are full; drop what reaches a dead one."""
        _, _, node, life, _, size = entry
        assert node is not None
        if node.state == DOWN or (life and life != node.life):
            return
        if node.held_bytes + size <= _HELD_BYTES_MAX:
            node.held_bytes += size
            node.held.append(entry)

    def digest(self) -> str:
        """Return the digest of all inputs so far, 16 hex digits."""
        total = self._hash.copy()
        total.update(self._trace)
        return total.hexdigest()[:16]

    # Nodes

    def alive(self) -> list[SimNode]:
        """Return the nodes that are not down, by index."""
        return [node for node in self.nodes if node.state != DOWN]

    def honest(self) -> list[SimNode]:
        """Return the nodes that run and do not lie, by index."""
        return [node for node in self.nodes if node.state == UP and node.mask is None]

    def boot(self, node: SimNode) -> None:
        """Start a node that is down: a new brain, its first inputs, its agents; stored contacts come with ``duties``."""
        assert node.state == DOWN, "a node that runs cannot start"
        node.state = UP
        node.life += 1
        node.started_us = self.now_us
        node.brain, node.replays = self.new_brain(node), Replays()
        node.proven.clear()
        self.duties.open(node)

    def new_brain(self, node: SimNode) -> Brain:
        """Make the brain of a node's next run."""
        rng = random.Random(f"brain/{self.seed}/{node.index}/{node.life}")  # noqa: S311 a simulation
        return self._maker(node.node_id, self._config, rng, self.reader)

    def crash(self, node: SimNode) -> None:
        """Cut a node's power: nothing it did not store survives, nobody is told."""
        node.state = DOWN
        node.life += 1
        node.held.clear()
        node.held_bytes = 0
        self.carriage.lose_links(node)

    def resume(self, node: SimNode, life: int) -> None:
        """Let a paused node go on with what waits for it, in order."""
        if node.life != life or node.state == UP:
            return
        node.state = UP
        for _, _, _, of, payload, size in node.held:
            self.push(self.now_us, node, of, payload, size)
        node.held.clear()
        node.held_bytes = 0

    # Findings

    def next_query(self) -> int:
        """Return a number for a search that no other has."""
        return next(self._queries)

    def note(self, text: str) -> None:
        """Keep a detail for the report."""
        if len(self.notes) < _VIOLATIONS_MAX:
            self.notes.append(text)

    def truth(self) -> dict[AgentId, int]:
        """Return the seq of the latest record of every agent whose honest node runs."""
        return {agent: manifest.seq for node in self.honest() for agent, manifest in node.manifests.items()}

    def disagreements(self, stop_at: int | None = None) -> int:
        """Count the pairs of honest node and living agent where the directory has no record, or not the latest."""
        truth, found = self.truth(), 0
        for node in self.honest():
            for agent, seq in truth.items():
                entry = node.brain.entry(agent)
                if entry is None or entry.manifest.seq != seq:
                    found += 1
                    if stop_at is not None and found >= stop_at:
                        return found
        return found

    def violate(self, what: str, node: SimNode | None = None) -> None:
        """Record that something is broken."""
        if len(self.violations) < _VIOLATIONS_MAX:
            where = {} if node is None else {"node": node.index}
            self.violations.append({"at_s": round(self.now_s, 6), **where, "what": what[:500]})

    def _check_some(self) -> None:
        """Check the invariants of every brain of a tiny world, of some in turn in others."""
        total = len(self.nodes)
        for _ in range(total if total <= _CHECKED_ALL_MAX else _CHECKED_PER_S):
            self._checked = (self._checked + 1) % total
            node = self.nodes[self._checked]
            if node.state == DOWN:
                continue
            try:
                node.brain.assert_invariants()
            except AssertionError as error:
                self.violate(f"invariant: {error}", node)


def _tiers(shares: Sequence[float], size: int, rng: random.Random) -> list[int]:
    """Return the capacity tier of each node: as many of each as its share says, in random order."""
    total, tiers, reached = sum(shares), list[int](), 0.0
    for tier, share in enumerate(shares):
        reached += share
        tiers += [tier] * (round(size * reached / total) - len(tiers))
    rng.shuffle(tiers)
    return tiers


def _text(payload: Any) -> str:
    """Return what an input is, for a finding."""
    if isinstance(payload, Timer):
        return f"timer {payload.name}"
    return (
        f"message {payload.message.__class__.__name__}" if isinstance(payload, Received) else payload.__class__.__name__
    )
