"""What the node tells a replica, and what a replica tells the node (docs/spec/state.md §5)."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from agentmesh.core.state.causality import VersionVector
from agentmesh.core.state.levels import ConsistencyLevel
from agentmesh.core.state.messages import Placement, Write
from agentmesh.core.state.ops import Op
from agentmesh.core.state.types import Past
from agentmesh.errors import MeshError
from agentmesh.ids import NodeId


class Use(msgspec.Struct, frozen=True):
    """Input: this node reads or writes a space from now on."""

    space: str


class LocalWrite(msgspec.Struct, frozen=True):
    """Input: do one operation; ``Done`` answers.

    Attributes:
        ref: Chosen by the asker, unique among those that wait.
        space, key, op: What.
        level: Below LINEARIZABLE.
        vector: What must have been seen before; None for nothing.
    """

    ref: int
    space: str
    key: str
    op: Op
    level: ConsistencyLevel = ConsistencyLevel.LOCAL
    vector: VersionVector | None = None


class LocalRead(msgspec.Struct, frozen=True):
    """Input: make this replica fit to be read at a level; ``Done`` answers. Fields as in ``LocalWrite``."""

    ref: int
    space: str
    key: str
    level: ConsistencyLevel = ConsistencyLevel.LOCAL
    vector: VersionVector | None = None


class Members(msgspec.Struct, frozen=True):
    """Input, every few seconds: the nodes that are there, this one left out, as far as this node knows.

    ``sure`` is False while so much of the mesh is lost that this may be the smaller part of it: no space is founded then.
    ``whole`` is False if the mesh has more nodes than these: then the DHT is asked who holds a space.
    """

    nodes: tuple[NodeId, ...]
    sure: bool = True
    whole: bool = True


class Places(msgspec.Struct, frozen=True):
    """Input: answer to ``PlacesWanted``: nodes that hold the space as the DHT says; none if it knows of none."""

    space: str
    nodes: tuple[NodeId, ...]


class Flushed(msgspec.Struct, frozen=True):
    """Input: answer to ``FlushWanted``: all records up to this number are on disk and outlast the machine's power."""

    upto: int


@dataclass(frozen=True, slots=True)
class Done:
    """Event: a local read or write has ended.

    Attributes:
        ref: As asked.
        error: Why not; None if all is well.
        acked: Holders that had it on disk (writes), or answered (reads), at QUORUM.
    """

    ref: int
    error: MeshError | None = None
    acked: int = 0


class Changed(msgspec.Struct, frozen=True, gc=False):
    """Event: a key shows something else than before."""

    space: str
    key: str


class FlushWanted(msgspec.Struct, frozen=True, gc=False):
    """Event: bring all records up to this number to disk; one such wish is open at a time."""

    upto: int


class PlacesWanted(msgspec.Struct, frozen=True, gc=False):
    """Event: which nodes hold this space, as the DHT says?"""

    space: str


class Refusal(msgspec.Struct, frozen=True, gc=False):
    """Event: a write of another node was not let in though nobody broke the protocol: a clock that is ahead, or no room."""

    peer: NodeId
    code: str
    detail: str


# Records


class KeepWrite(msgspec.Struct, frozen=True, gc=False):
    """Keep a write, and forget those that it makes superfluous; up to ``n`` this node's numbers may have been used."""

    space: str
    key: str
    mark: bytes
    write: Write
    past: Past
    dropped: tuple[bytes, ...] = ()
    n: int = 0


class KeepSpace(msgspec.Struct, frozen=True, gc=False):
    """Keep what is known of a space besides its keys."""

    space: str
    placement: Placement | None
    voted: Placement | None
    seen: bytes
