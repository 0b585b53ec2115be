"""Brains on a dumb network in virtual time: links that cut, messages that get lost, doubled and out of order.

Every message crosses the real codec. Same seed, same run.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agentmesh.codec.canonical import canonical
from agentmesh.core.brain import Brain, BrainConfig
from agentmesh.core.exchange.messages import DialWanted
from agentmesh.core.machine import Outbox, PeerMisbehaved
from agentmesh.core.messages import AddressHint, LocalRecord, LocalStatus, PeerDown, PeerUp, Received, WallClock
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest, build_card, read_record, sign_card, sign_tombstone
from agentmesh.ids import NodeId
from agentmesh.wire import v1

#: The wall clock at virtual second 0.
EPOCH = 1_800_000_000


def key(number: int) -> KeyPair:
    """Return the same key for the same number."""
    return KeyPair(number.to_bytes(32, "big"))


def card(
    agent: KeyPair,
    node: str,
    *,
    name: str = "echo",
    seq: int = 1,
    iat: int = EPOCH,
    exp: int = EPOCH + 86_400,
    **over: Any,
) -> dict[str, Any]:
    """Return a small unsigned card."""
    members: dict[str, Any] = {
        "agent_key_did": agent.did,
        "node_id": node,
        "name": name,
        "description": "Repeats what it hears. 重复所听。",
        "version": "1.0",
        "skills": [{"id": "say", "name": "Say", "description": "Says it again.", "tags": ["demo"]}],
        "input_modes": ["text/plain"],
        "output_modes": ["text/plain"],
        "seq": seq,
        "iat": iat,
        "exp": exp,
    }
    return build_card(**{**members, **over})


def record(agent: KeyPair, node: str, *, signed: bool = True, now: int = EPOCH, **members: Any) -> Manifest:
    """Return a small manifest, verified."""
    made = card(agent, node, **members)
    raw = canonical(sign_card(agent, made) if signed else made)
    return read_record(raw, now=now, require_signed=signed)


def tombstone(agent: KeyPair, node: str, *, name: str = "echo", seq: int = 2, iat: int = EPOCH) -> Manifest:
    """Return a verified tombstone."""
    raw = sign_tombstone(agent, node_id=node, name=name, seq=seq, iat=iat, exp=iat + 86_400)
    return read_record(raw, now=iat, require_signed=True)


@dataclass
class Node:
    """One brain in the world."""

    number: int
    node_id: NodeId
    brain: Brain
    alive: bool = True
    links: dict[int, int] = field(default_factory=dict)
    events: list[Any] = field(default_factory=list)
    agents: dict[KeyPair, int] = field(default_factory=dict)


class World:
    """Nodes, links, messages and time.

    Args:
        seed: Decides every delay and loss.
        config: Of every brain.
    """

    def __init__(self, seed: int, config: BrainConfig | None = None) -> None:
        self.rng = random.Random(seed)
        self.config = config or BrainConfig()
        self.now_s = 0.0
        self.nodes: list[Node] = []
        self.loss = self.double = 0.0
        self.delay_s = (0.001, 0.05)
        self.island: dict[int, int] = {}
        self.sent = 0
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._dials: set[tuple[int, int]] = set()

    def add(self) -> Node:
        """Start a node."""
        number = len(self.nodes)
        node_id = NodeId(key(1000 + number).did)
        node = Node(number, node_id, Brain(node_id, self.config, random.Random(self.rng.getrandbits(64))))
        self.nodes.append(node)
        self.feed(node, WallClock(EPOCH + self.now_s))
        return node

    def introduce(self, node: Node, to: Node, source: Any = "static") -> None:
        """Tell a node where another one is."""
        self.feed(node, AddressHint(to.node_id, (f"memory:{to.number}",), source))

    def register(self, node: Node, number: int, name: str = "echo") -> None:
        """Register an agent, or a newer manifest of it."""
        agent = key(number)
        seq = node.agents.get(agent, 0) + 1
        node.agents[agent] = seq
        now = EPOCH + int(self.now_s)
        self.feed(
            node, LocalRecord(record(agent, node.node_id, name=name, seq=seq, iat=now, exp=now + 86_400, now=now))
        )
        self.feed(node, LocalStatus(node.brain.entries()[-1].manifest.agent_id, True))

    def withdraw(self, node: Node, number: int) -> None:
        """Withdraw an agent with a tombstone."""
        agent = key(number)
        seq = node.agents.pop(agent) + 1
        self.feed(node, LocalRecord(tombstone(agent, node.node_id, seq=seq, iat=EPOCH + int(self.now_s))))

    def crash(self, node: Node) -> None:
        """Stop a node without a word."""
        for other in list(node.links):
            self.unlink(node, self.nodes[other])
        node.alive = False

    def link(self, a: Node, b: Node) -> None:
        """Bring a link up; ``a`` dialled."""
        if b.number in a.links or not (a.alive and b.alive and self._reachable(a, b)):
            return
        generation = self._count
        a.links[b.number] = b.links[a.number] = generation
        self.feed(a, PeerUp(b.node_id, (f"memory:{b.number}",), "link"))
        self.feed(b, PeerUp(a.node_id, (f"memory:{a.number}",), "peer"))

    def unlink(self, a: Node, b: Node) -> None:
        """Cut a link."""
        if b.number in a.links:
            del a.links[b.number], b.links[a.number]
            self.feed(a, PeerDown(b.node_id))
            self.feed(b, PeerDown(a.node_id))

    def split(self, island: dict[int, int]) -> None:
        """Cut every link between nodes of different islands; {} heals."""
        self.island = island
        for a in self.nodes:
            for other in list(a.links):
                if not self._reachable(a, self.nodes[other]):
                    self.unlink(a, self.nodes[other])

    def feed(self, node: Node, incoming: Any) -> None:
        """Give a brain an input, carry out the effects, check the invariants."""
        if not node.alive:
            return
        out = Outbox()
        node.brain.handle(incoming, self.now_s, out)
        node.brain.assert_invariants()
        for to, message, *_ in out.sends:
            self._send(node, to, message)
        for delay_s, timer in out.timers:
            self.at(delay_s, lambda n=node, t=timer: self.feed(n, t))
        for event in out.events:
            node.events.append(event)
            if isinstance(event, DialWanted):
                self._dial(node, event)

    def at(self, delay_s: float, action: Callable[[], None]) -> None:
        """Do something later."""
        self._count += 1
        heapq.heappush(self._queue, (self.now_s + delay_s, self._count, action))

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> float:
        """Let time pass; returns the seconds that passed until the condition held, or all of them."""
        start_s, end_s = self.now_s, self.now_s + seconds
        while self._queue and self._queue[0][0] <= end_s:
            self.now_s, _, action = heapq.heappop(self._queue)
            action()
            if until is not None and until():
                return self.now_s - start_s
        self.now_s = end_s
        return seconds

    def views(self) -> list[dict[str, tuple[int, int]]]:
        """Return what each living node holds: agent id → (seq, mark)."""
        return [
            {e.manifest.agent_id: (e.manifest.seq, e.mark) for e in node.brain.entries()}
            for node in self.nodes
            if node.alive
        ]

    def truth(self) -> dict[str, int]:
        """Return the agents that are really there: agent id → seq."""
        return {agent.did: seq for node in self.nodes if node.alive for agent, seq in node.agents.items()}

    def agree(self) -> bool:
        """Say whether every living node holds exactly the truth."""
        truth = self.truth()
        return all({agent: seq for agent, (seq, _) in view.items()} == truth for view in self.views())

    def blamed(self) -> list[PeerMisbehaved]:
        """Return every misdeed that any node reported."""
        return [event for node in self.nodes for event in node.events if isinstance(event, PeerMisbehaved)]

    def _reachable(self, a: Node, b: Node) -> bool:
        return self.island.get(a.number, 0) == self.island.get(b.number, 0)

    def _dial(self, node: Node, wanted: DialWanted) -> None:
        target = next((n for n in self.nodes if f"memory:{n.number}" in wanted.addresses), None)
        if target is None or target is node or (node.number, target.number) in self._dials:
            return
        self._dials.add((node.number, target.number))

        def arrive() -> None:
            self._dials.discard((node.number, target.number))
            if target.node_id == wanted.node_id:
                self.link(node, target)

        self.at(self.rng.uniform(0.005, 0.2), arrive)

    def _send(self, node: Node, to: NodeId, message: Any) -> None:
        target = next((n for n in self.nodes if n.node_id == to), None)
        if target is None or target.number not in node.links:
            return
        self.sent += 1
        generation = node.links[target.number]
        payload = v1.encode(message)

        def arrive() -> None:
            if node.links.get(target.number) == generation:
                self.feed(target, Received(node.node_id, v1.decode_control(payload)))

        for _ in range(2 if self.rng.random() < self.double else 1):
            if self.rng.random() >= self.loss:
                self.at(self.rng.uniform(*self.delay_s), arrive)
