"""What the directory sends between nodes and tells the node (docs/spec/directory.md; tags are listed in ``wire.v1``)."""

from __future__ import annotations

from typing import Literal

import msgspec

from agentmesh.ids import AgentId, NodeId

#: Records asked for or sent in one message, and answers to one ``Seek``.
BATCH_MAX = 256
#: Sums in one ``Ranges``: 16 children of 16 ranges.
RANGES_MAX = 256
#: Lines in one ``Listing``: about 50 KB.
LINES_MAX = 1_024

#: What a line or word speaks of: an agent's record, a node record, or a zone report.
AGENT, NODE, ZONE = 0, 1, 2


class RangeSum(msgspec.Struct, array_like=True):
    """What the sender holds in one range of positions.

    Attributes:
        prefix: Leading hex digits of all positions in it, lower case; "" = everything.
        count: Number of items.
        total: Sum of their values modulo 2^128, 16 bytes big-endian.
    """

    prefix: str
    count: int
    total: bytes


class Ranges(msgspec.Struct, tag="ranges", kw_only=True):
    """Compare these; the receiver answers where it holds something else (docs/spec/directory.md §4).

    Attributes:
        ranges: At most ``RANGES_MAX``.
        room: The sender takes in agents it does not know; False = its table is full.
    """

    ranges: list[RangeSum]
    room: bool = True


class Line(msgspec.Struct, array_like=True):
    """One item that the sender holds.

    Attributes:
        kind: ``AGENT``, ``NODE`` or ``ZONE``.
        position: 32 bytes, see docs/spec/directory.md §4.1.
        seq: Of the record.
        mark: Tells two records of one ``seq`` apart: ``Manifest.mark``, 0 of a node record, ``ZoneReport.mark``.
        gone: True for a tombstone.
        signed: False for an unsigned manifest, which ranks below every signed one.
    """

    kind: int
    position: bytes
    seq: int
    mark: int = 0
    gone: bool = False
    signed: bool = True


class Listing(msgspec.Struct, tag="listing", kw_only=True):
    """Items that the sender holds; who lacks one, or holds an older one, asks with ``Want``.

    Attributes:
        prefixes: Ranges that are listed whole: the receiver offers what it holds there beyond the lines. Empty = the
            lines are an offer only.
        lines: At most ``LINES_MAX``.
        room: As in ``Ranges``.
    """

    prefixes: list[str]
    lines: list[Line]
    room: bool = True


class Want(msgspec.Struct, tag="want", kw_only=True):
    """Ask for what is at these positions; ``Records`` answers with what is there."""

    positions: list[bytes]


class Records(msgspec.Struct, tag="records", kw_only=True):
    """Records as they were signed.

    Attributes:
        records: Manifests (AgentCards) and tombstones as JSON bytes.
        words: Pairs of ``NODE`` or ``ZONE`` and the statement.
    """

    records: list[bytes]
    words: list[tuple[int, bytes]] = []


class Seek(msgspec.Struct, tag="seek", kw_only=True):
    """Ask a neighbour which agents it knows under a key; ``Sought`` answers."""

    key: bytes
    agents_max: int = 16


class Sought(msgspec.Struct, tag="sought", kw_only=True):
    """Manifests of agents under the key, healthy ones first; empty if none is known."""

    key: bytes
    records: list[bytes]


class AgentChanged(msgspec.Struct, frozen=True):
    """An agent appeared, or its record or health changed; look at ``brain.entry(agent_id)``."""

    agent_id: AgentId


class AgentGone(msgspec.Struct, frozen=True):
    """An agent left the directory: withdrawn by its owner, its node is dead or its manifest expired, or it made room."""

    agent_id: AgentId
    name: str
    why: Literal["withdrawn", "lease", "expired", "evicted"] = "withdrawn"


class RecordRefused(msgspec.Struct, frozen=True):
    """A peer's record was dropped for a reason that is nobody's misdeed (clock, unsigned, no room).

    Attributes:
        peer: Who sent it.
        code: "manifest.not_yet_valid", "manifest.expired", "manifest.unsigned", the same of "node_record" and
            "zone_report", or "directory.full".
        detail: For a person.
        hint: The next step, or "".
    """

    peer: NodeId
    code: str
    detail: str
    hint: str = ""


class RenewalDue(msgspec.Struct, frozen=True):
    """A local agent's manifest is near its ``exp``: sign a fresh one with a higher seq."""

    agent_id: AgentId
    name: str


class SeqBehind(msgspec.Struct, frozen=True):
    """The mesh holds a record of a local agent with a higher seq than ours: sign again with more than ``seq``.

    Happens when this node's counters were lost, or when the same agent key is used on two nodes.
    """

    agent_id: AgentId
    name: str
    seq: int
    elsewhere: bool
