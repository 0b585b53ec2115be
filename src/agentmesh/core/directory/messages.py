"""What the directory sends between nodes and tells the node (docs/spec/exchange.md §3; tags are listed in ``wire.v1``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import msgspec

from agentmesh.ids import AgentId, NodeId

#: Entries per message; more are split.
BATCH_MAX = 256


class Lease(msgspec.Struct, array_like=True):
    """That an agent is alive: ``age_ms`` since its owner last renewed, as the sender knows it.

    Attributes:
        agent_id: The agent.
        seq: Of the manifest or tombstone the sender holds.
        age_ms: ≥ 0; grows on every hop, so that nobody can keep a dead agent alive by passing it on.
        healthy: The owner's last health check.
        gone: True for a tombstone.
        signed: False for an unsigned manifest, which ranks below every signed one.
        mark: First 6 bytes of the record's SHA-256 as a big-endian integer; tells two records of one seq apart.
    """

    agent_id: str
    seq: int
    age_ms: int
    healthy: bool = True
    gone: bool = False
    signed: bool = True
    mark: int = 0


class Digest(msgspec.Struct, tag="digest", kw_only=True):
    """What the sender holds; the receiver asks for what is newer with ``Want``. ``full`` = the list is complete."""

    leases: list[Lease]
    full: bool = False


class Want(msgspec.Struct, tag="want", kw_only=True):
    """Ask for the records of these agents."""

    agent_ids: list[str]


class Records(msgspec.Struct, tag="records", kw_only=True):
    """Signed records as JSON bytes: manifests (AgentCards) and tombstones, with their lease."""

    records: list[tuple[bytes, Lease]]


@dataclass(frozen=True, slots=True)
class AgentChanged:
    """An agent appeared, or its record or health changed; look at ``brain.entry(agent_id)``."""

    agent_id: AgentId


@dataclass(frozen=True, slots=True)
class AgentGone:
    """An agent left the directory: withdrawn by its owner, its lease or manifest expired, or it made room."""

    agent_id: AgentId
    name: str
    why: Literal["withdrawn", "lease", "expired", "evicted"] = "withdrawn"


@dataclass(frozen=True, slots=True)
class RecordRefused:
    """A peer's record was dropped for a reason that is nobody's misdeed (clock, unsigned, no room).

    Attributes:
        peer: Who sent it.
        code: "manifest.not_yet_valid", "manifest.expired", "manifest.unsigned" or "directory.full".
        detail: For a person.
        hint: The next step, or "".
    """

    peer: NodeId
    code: str
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class RenewalDue:
    """A local agent's manifest is near its ``exp``: sign a fresh one with a higher seq."""

    agent_id: AgentId
    name: str


@dataclass(frozen=True, slots=True)
class SeqBehind:
    """The mesh holds a record of a local agent with a higher seq than ours: sign again with more than ``seq``.

    Happens when this node's counters were lost, or when the same agent key is used on two nodes.
    """

    agent_id: AgentId
    name: str
    seq: int
    elsewhere: bool
