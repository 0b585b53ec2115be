"""One simulated node: a brain, its key, its links, and what the daemon would keep on disk."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from agentmesh.core.brain import Brain
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest
from agentmesh.identity.node_record import NodeRecord
from agentmesh.ids import AgentId, Key, NodeId, dht_key, node_id
from agentmesh.wire.envelope import Replays

if TYPE_CHECKING:
    from agentmesh.sim.byzantine import Mask
    from agentmesh.sim.links import Link

UP, PAUSED, DOWN = 0, 1, 2
#: Contacts kept for the next start, as in the daemon's state store.
STORED_MAX = 256
PORT = 6374


class SimNode:
    """A node.

    Attributes:
        index: Its number in the world, from 0.
        key, node_id, dht_key: Who it is, for ever.
        address: "udp:10.x.y.7:6374", in a /24 of its own.
        site, capacity: As its record says.
        brain: The brain of this run.
        state: ``UP``, ``PAUSED`` (inputs wait in ``held``) or ``DOWN``.
        life: Number of this run, from 1; timers and links of an earlier one are void.
        seq: Highest seq signed, for its record and its agents; survives restarts.
        links, dialling: By peer; ``dialling`` holds the messages that wait for the link.
        stored: What the brain asked to keep, for the next start.
        agents: Keys of the agents behind it.
        manifests: What they published last.
        side: Which part of a partition it is in.
        slow, lag_us, skew_s: Faults: delays multiplied, inputs late, wall clock off.
        record: What it signed last of itself.
        proven: When a datagram of another node last came, µs.
        sick: Marks of its agents that fail, as in its record.
        nonce, replays: Of its datagrams: the last one sent, those seen in this run.
        started_us: When this run began.
        mask: Set if it lies (``sim.byzantine``).
        bytes_in, bytes_out: Since the world began.
    """

    __slots__ = (
        "address",
        "agents",
        "brain",
        "bytes_in",
        "bytes_out",
        "capacity",
        "dht_key",
        "dialling",
        "held",
        "held_bytes",
        "index",
        "key",
        "lag_us",
        "life",
        "links",
        "manifests",
        "mask",
        "node_id",
        "nonce",
        "proven",
        "record",
        "replays",
        "seq",
        "sick",
        "side",
        "site",
        "skew_s",
        "slow",
        "started_us",
        "state",
        "stored",
    )

    brain: Brain

    def __init__(self, index: int, seed: int, capacity: int, site: str) -> None:
        self.index = index
        self.key = KeyPair(random.Random(f"node/{seed}/{index}").randbytes(32))  # noqa: S311 a simulated key
        self.node_id: NodeId = node_id(self.key.public)
        self.dht_key: Key = dht_key(self.key.public)
        self.address = f"udp:10.{index >> 8 & 255}.{index & 255}.{7 + (index >> 16)}:{PORT}"
        self.site, self.capacity = site, capacity
        self.state, self.life, self.seq = DOWN, 0, 0
        self.links: dict[NodeId, Link] = {}
        self.dialling: dict[NodeId, list[Any]] = {}
        self.stored: dict[NodeId, tuple[str, ...]] = {}
        self.agents: dict[AgentId, tuple[KeyPair, str]] = {}
        self.manifests: dict[AgentId, Manifest] = {}
        self.proven: dict[NodeId, int] = {}
        self.sick: tuple[bytes, ...] = ()
        self.held: list[Any] = []
        self.held_bytes = 0
        self.side, self.slow, self.lag_us, self.skew_s = 0, 1.0, 0, 0.0
        self.mask: Mask | None = None
        self.record: NodeRecord | None = None
        self.nonce = 0
        self.replays = Replays()
        self.bytes_in = self.bytes_out = self.started_us = 0

    @property
    def is_honest(self) -> bool:
        """Whether it says what its brain says."""
        return self.mask is None
