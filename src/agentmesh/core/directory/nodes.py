"""What is known of the nodes behind the agents: alive or not, since when, and which of their agents are sick.

A node is judged by signed words (its own record, reports of its zone) and by this node's own eyes (SWIM). Words are ordered:
the best one counts, in whatever order they come, so that all who heard the same think the same (docs/spec/directory.md §6).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.directory.messages import NODE, Line
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.zone_report import DEAD, LIVES, Row, ZoneReport
from agentmesh.ids import Key, NodeId, dht_key, public_key_of

#: What is signed about a node: incarnation, clock of the report or record (``claim_of``), and whether it lives. The highest
#: counts.
Claim = tuple[int, int, bool]
#: The clock of a node's last record, in which it says that it leaves: nothing outranks it but a higher incarnation.
LEFT = 2**62


@dataclass(slots=True, eq=False)
class NodeState:
    """A node as this directory knows it.

    Attributes:
        node: Its id.
        key: Its DHT key.
        record: Its newest record known here.
        best: The highest claim.
        missed_iat: Unix second at which this node's own eyes gave it up, by SWIM or because nothing was heard; 0 = not so.
        direct: It is a neighbour that answers: what others say of its death waits until it is none any longer.
        up: What follows from those three; False = unreachable: said to be dead, left, missed.
        since_s: Monotonic time since when it is up or not.
        heard_s: Monotonic time of the last word of its life.
        life_iat: When the last word of its life was signed; only a later one is news of it.
        down_iat: When its death was last signed or noticed; 0 = never. While it is not up, records of its agents signed
            before are not taken in.
        gone_after_s: While not up: its agents are dropped so long after ``since_s``.
        lacking: While not up: agents of it were dropped, or not taken in.
        blamed: The reporter who said that it is dead, if one did, and the ``iat`` of that report.
        sick_s: Monotonic time when its sick marks last changed.
    """

    node: NodeId
    key: Key
    record: NodeRecord | None = None
    best: Claim = (0, 0, True)
    missed_iat: int = 0
    direct: bool = False
    up: bool = True
    since_s: float = 0.0
    heard_s: float = 0.0
    life_iat: int = 0
    down_iat: int = 0
    gone_after_s: float = math.inf
    lacking: bool = False
    blamed: tuple[NodeId, int] | None = None
    sick_s: float = 0.0

    def healthy(self, agent: bytes) -> bool:
        """Say whether the agent with this DHT key may be offered."""
        return self.up and (self.record is None or not self.record.sick or agent[:8] not in self.record.sick)

    @property
    def word(self) -> bool:
        """True if its record says what everybody should know: that it leaves, or who is sick."""
        return self.record is not None and (self.record.leaving or bool(self.record.sick))

    @property
    def deemed_up(self) -> bool:
        """What ``up`` must be."""
        return self.direct or (self.best[2] and not self.missed_iat)

    @property
    def rank(self) -> tuple[bool, int, bool, int]:
        """The rank of its record, to be compared with that of a line."""
        return True, 0 if self.record is None else self.record.seq, False, 0


def claim_of(row: Row, report: ZoneReport) -> Claim:
    """Return what a row of a report says.

    That a node lives is no answer to a word of its death unless the row says so: its signer may not have noticed yet.
    """
    _, seq, said = row
    return seq, 0 if said == LIVES else report.seq, said != DEAD


def node_position(key: bytes) -> bytes:
    """Return the position of a node's record: the complement of its DHT key, so that it never meets an agent's."""
    return bytes(byte ^ 0xFF for byte in key)


def node_line(record: NodeRecord) -> Line:
    """Return the line of a node record."""
    return Line(NODE, node_position(record.key), record.seq)


def word_value(kind: int, key: bytes, seq: int, mark: int) -> int:
    """Return the value of a node record or zone report in range sums."""
    text = b"%d %b %d %d" % (kind, key, seq, mark)
    return int.from_bytes(hashlib.sha256(text).digest()[:16], "big")


class Nodes:
    """Nodes by id and by the first 8 bytes of their key; ``spare`` are those without agents here, the oldest first.

    Args:
        config: Bounds.
    """

    def __init__(self, config: DirectoryConfig) -> None:
        self.config = config
        self.known: dict[NodeId, NodeState] = {}
        self.spare: dict[NodeId, None] = {}
        self._by_mark: dict[bytes, NodeState] = {}

    def __len__(self) -> int:
        return len(self.known)

    def get(self, node: NodeId) -> NodeState | None:
        """Return what is known of a node."""
        return self.known.get(node)

    def marked(self, mark: bytes) -> NodeState | None:
        """Return the node whose DHT key starts with these 8 bytes."""
        return self._by_mark.get(mark)

    def at(self, position: bytes) -> NodeState | None:
        """Return the node whose record belongs at a position."""
        state = self._by_mark.get(node_position(position[:8]))
        return state if state is not None and node_position(state.key) == position else None

    def add(self, node: NodeId, key: Key | None, now_s: float) -> NodeState:
        """Make a place for a node that is not known; it is spare until an agent behind it is held."""
        state = NodeState(node, key or dht_key(public_key_of(node)), since_s=now_s, heard_s=now_s)
        self.known[node] = state
        self.spare[node] = None
        self._by_mark[state.key[:8]] = state
        return state

    def remove(self, state: NodeState) -> None:
        """Forget a node."""
        del self.known[state.node]
        self.spare.pop(state.node, None)
        self._by_mark.pop(state.key[:8], None)

    def assert_invariants(self) -> None:
        """Raise AssertionError if index or bounds are off."""
        assert len(self._by_mark) == len(self.known)
        assert all(node in self.known for node in self.spare)
        assert len(self.spare) <= self.config.spare_nodes_max + 1  # one is in use while its agent is judged
        for node, state in self.known.items():
            assert state.node == node
            assert self._by_mark[state.key[:8]] is state
            assert state.up or state.gone_after_s < math.inf
            assert not (state.up and state.lacking)
            assert state.up is state.deemed_up
