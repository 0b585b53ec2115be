"""What the daemon does for its brain, done for every simulated brain: sign, keep, read the clock (docs/spec/simulator.md §5).

Keys and signatures are real. All this happens at once, without simulated time passing.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import msgspec

from agentmesh.core.contacts.messages import ForgetContact, StoreContact
from agentmesh.core.directory.messages import RenewalDue, SeqBehind
from agentmesh.core.messages import (
    AddressHint,
    Leaving,
    LocalNode,
    LocalRecord,
    NodeRecordWanted,
    Provide,
    ProvidersWanted,
    SignatureWanted,
    Signed,
    WallClock,
)
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import build_card, sign_card
from agentmesh.identity.node_record import NodeRecord, node_body, sign_node_record
from agentmesh.identity.provider import sign_provider
from agentmesh.identity.statement import sign_statement
from agentmesh.ids import AgentId, agent_id
from agentmesh.sim.node import STORED_MAX, SimNode
from agentmesh.wire.v1 import WIRE_VERSION

if TYPE_CHECKING:
    from agentmesh.sim.world import World

#: Unix time at which every world begins; any would do.
UNIX_S = 1_700_000_000
#: How often a node reads its wall clock, seconds (``node.node``).
_CLOCK_READ_S = 20.0
_MANIFEST_LIFE_S = 7 * 86_400


class Duties:
    """Do what the nodes' brains ask for.

    Attributes:
        published: Raw bytes of every manifest that an honest agent signed.
        provided: The same of provider records.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self.published: set[bytes] = set()
        self.provided: set[bytes] = set()
        on = world.on_event
        on.setdefault(NodeRecordWanted, []).append(self._on_record_wanted)
        on.setdefault(SignatureWanted, []).append(self._on_signature_wanted)
        on.setdefault(ProvidersWanted, []).append(self._on_providers_wanted)
        on.setdefault(RenewalDue, []).append(self._on_renewal_due)
        on.setdefault(SeqBehind, []).append(self._on_seq_behind)

    def unix_s(self, node: SimNode) -> float:
        """Return what a node's wall clock shows."""
        return UNIX_S + self._world.now_us * 1e-6 + node.skew_s

    def unix_ms(self, node: SimNode) -> int:
        """Return the same in milliseconds."""
        return int(self.unix_s(node) * 1000)

    def open(self, node: SimNode) -> None:
        """Give a brain its first inputs, as the daemon does: the clock, its own record, its agents, stored contacts."""
        world = self._world
        world.feed(node, WallClock(self.unix_s(node)))
        world.feed(node, LocalNode(self.sign_record(node)))
        for agent, (_, skill) in list(node.agents.items()):
            self._publish(node, agent, skill)
        for peer, addresses in node.stored.items():
            world.feed(node, AddressHint(peer, addresses, "stored"))
        self._read_clock(node, node.life)

    def _read_clock(self, node: SimNode, life: int) -> None:
        if node.life != life:
            return
        if self._world.now_us > node.started_us:
            self._world.feed(node, WallClock(self.unix_s(node)))
        self._world.call(_CLOCK_READ_S, lambda: self._read_clock(node, life))

    def store(self, node: SimNode, record: Any) -> None:
        """Keep what the brain wants to find again at its next start."""
        if isinstance(record, StoreContact):
            node.stored.pop(record.node_id, None)
            node.stored[record.node_id] = record.addresses
            if len(node.stored) > STORED_MAX:
                del node.stored[next(iter(node.stored))]
        elif isinstance(record, ForgetContact):
            node.stored.pop(record.node_id, None)

    # Agents

    def new_agent(self, node: SimNode, skill: str) -> AgentId:
        """Put an agent behind a running node and publish it."""
        seed = random.Random(f"agent/{self._world.seed}/{node.index}/{len(node.agents)}")  # noqa: S311 a simulated key
        key = KeyPair(seed.randbytes(32))
        agent = agent_id(key.public)
        node.agents[agent] = (key, skill)
        self._publish(node, agent, skill)
        return agent

    def _publish(self, node: SimNode, agent: AgentId, skill: str, seq_min: int = 0) -> None:
        key, _ = node.agents[agent]
        node.seq = max(node.seq + 1, seq_min)
        now = int(self.unix_s(node))
        card = build_card(
            agent_key_did=key.did,
            node_id=node.node_id,
            name=f"agent-{node.index}",
            description="simulated",
            version="1",
            skills=[{"id": skill, "name": skill, "description": "simulated", "tags": ["simulated"]}],
            input_modes=["text/plain"],
            output_modes=["text/plain"],
            seq=node.seq,
            iat=now,
            exp=now + _MANIFEST_LIFE_S,
        )
        raw = msgspec.json.encode(sign_card(key, card))
        manifest = self._world.reader.manifest(raw, now, require_signed=True)
        self.published.add(manifest.raw)
        node.manifests[agent] = manifest
        self._world.feed(node, LocalRecord(manifest))

    def _on_renewal_due(self, node: SimNode, due: RenewalDue) -> None:
        if due.agent_id in node.agents:
            self._publish(node, due.agent_id, node.agents[due.agent_id][1])

    def _on_seq_behind(self, node: SimNode, behind: SeqBehind) -> None:
        if behind.agent_id in node.agents and not behind.elsewhere:
            self._publish(node, behind.agent_id, node.agents[behind.agent_id][1], behind.seq + 1)

    # Signatures

    def sign_record(self, node: SimNode, wanted: NodeRecordWanted | None = None) -> NodeRecord:
        """Sign a node's record with the next seq."""
        wanted = wanted or NodeRecordWanted()
        node.seq = max(node.seq, wanted.seq_min) + 1
        if wanted.sick is not None:
            node.sick = wanted.sick
        now = int(self.unix_s(node))
        body = node_body(
            seq=node.seq,
            iat=now,
            wire=WIRE_VERSION,
            addresses=(node.address,),
            site=node.site,
            capacity=node.capacity,
            leaving=wanted.leaving,
            sick=node.sick,
            name=f"node-{node.index}",
        )
        node.record = self._world.reader.node(sign_node_record(node.key, body), now)
        return node.record

    def _on_record_wanted(self, node: SimNode, wanted: NodeRecordWanted) -> None:
        self._world.feed(node, LocalNode(self.sign_record(node, wanted)))

    def _on_signature_wanted(self, node: SimNode, wanted: SignatureWanted) -> None:
        self._world.feed(node, Signed(wanted.context, sign_statement(node.key, wanted.context, wanted.body)))

    def _on_providers_wanted(self, node: SimNode, wanted: ProvidersWanted) -> None:
        node.seq += 1
        now = int(self.unix_s(node))
        items = tuple(
            (key, sign_provider(node.key, key, agent=wanted.agent_id, seq=node.seq, iat=now, addresses=(node.address,)))
            for key in wanted.keys
        )
        self.provided.update(raw for _, raw in items)
        self._world.feed(node, Provide(wanted.agent_id, items))

    # The end

    def leave(self, node: SimNode) -> None:
        """Stop a node in good order: it says goodbye, then its links end."""
        self._world.feed(node, Leaving("stopping"))
        life = node.life
        self._world.call(1.0, lambda: self._stop(node, life))

    def _stop(self, node: SimNode, life: int) -> None:
        if node.life == life:
            self._world.carriage.close_links(node)
            self._world.crash(node)
