"""What was asked for a moment ago, and of whom, so that two peers are not asked for the same and a stranger's answer is known."""

from __future__ import annotations

from agentmesh.core.directory.table import Rank
from agentmesh.ids import NodeId


class Wants:
    """Remember what is being waited for. Forgetting early costs a second question and nothing else.

    Args:
        retry_s: After this long without the record it may be asked for again.
        wants_max: Most records remembered; beyond, everything is forgotten.
    """

    #: How long a late answer still counts as asked for, in units of ``retry_s``.
    _PATIENCE = 5

    def __init__(self, retry_s: float, wants_max: int) -> None:
        self.retry_s = retry_s
        self.wants_max = wants_max
        self._asked: dict[bytes, tuple[Rank, float, NodeId]] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, position: bytes, rank: Rank, peer: NodeId, now_s: float) -> bool:
        """Say whether to ask the peer for a record of this rank now, and remember it if so."""
        asked = self._asked.get(position)
        if asked is not None and asked[0] >= rank and now_s - asked[1] < self.retry_s:
            return False
        if len(self._asked) >= self.wants_max:
            self._asked.clear()
        self._asked[position] = (rank, now_s, peer)
        return True

    def asked_of(self, position: bytes, peer: NodeId) -> bool:
        """Say whether this peer was the last one asked for what is at the position."""
        asked = self._asked.get(position)
        return asked is not None and asked[2] == peer

    def came(self, position: bytes) -> None:
        """Note that a record of the agent came."""
        self._asked.pop(position, None)

    def expire(self, now_s: float) -> None:
        """Forget what did not come in time."""
        if self._asked:
            keep_s = self.retry_s * self._PATIENCE
            self._asked = {at: asked for at, asked in self._asked.items() if now_s - asked[1] < keep_s}
