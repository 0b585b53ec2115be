"""When to answer a doubt about this very node with a new signature (docs/spec/swim.md §4.3).

Signing is cheap for the accuser to ask for and dear for everybody who gets the record, so one accuser can ask for it rarely.
"""

from __future__ import annotations

import math

from agentmesh.ids import NodeId

#: An accuser that repeats itself after the first of these and before the second makes us sign a new record.
_PATIENCE_S = 1.0
_FORGIVEN_S = 10.0
#: Within this time a new record of ours is thought to be under way.
_SIGNING_S = 1.0
#: Peers that doubted us lately, and peers that wait for our record, at most.
_ACCUSED_MAX = 256
_OWED_MAX = 32


class Refutation:
    """Who doubts this node, and who is to get its record for it.

    Args:
        interval_s: One accuser can make this node sign once in so long.
    """

    __slots__ = ("_accused_s", "_interval_s", "_owed", "_wanted_s", "_wanted_seq")

    def __init__(self, interval_s: float) -> None:
        self._interval_s = interval_s
        self._owed: dict[NodeId, None] = {}
        self._accused_s: dict[NodeId, float] = {}
        self._wanted_seq, self._wanted_s = 0, -math.inf

    def __bool__(self) -> bool:
        """Say whether somebody waits for our record."""
        return bool(self._owed)

    def owe(self, accuser: NodeId) -> None:
        """Note that a peer is to get our record; forgotten if too many wait, as they ask again."""
        if len(self._owed) < _OWED_MAX:
            self._owed[accuser] = None

    def take_owed(self) -> list[NodeId]:
        """Return who waits for our record, and owe it to nobody any longer."""
        owed = list(self._owed)
        self._owed.clear()
        return owed

    def admit(self, accuser: NodeId, seq: int, now_s: float, *, dead: bool) -> bool:
        """Take a doubt about our current ``seq``; say whether to sign above it now.

        Being called dead is answered at once; a suspicion only when it stays, as most are over with our next answer.
        """
        due_s = self._accused_s.pop(accuser, -math.inf)
        if len(self._accused_s) >= _ACCUSED_MAX:
            del self._accused_s[next(iter(self._accused_s))]
        if not dead and now_s >= due_s + _FORGIVEN_S:
            due_s = now_s + _PATIENCE_S
        if now_s < due_s:
            self._accused_s[accuser] = due_s
            return False
        self._accused_s[accuser] = now_s + self._interval_s
        if seq == self._wanted_seq and now_s - self._wanted_s < _SIGNING_S:
            return False
        return self.admit_forgotten(seq, now_s)

    def admit_forgotten(self, seq: int, now_s: float) -> bool:
        """Take a sign that ``seq`` was used already; say whether to sign above it, or that is under way."""
        if seq <= self._wanted_seq and now_s - self._wanted_s < _SIGNING_S:
            return False
        self._wanted_seq, self._wanted_s = seq, now_s
        return True

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound is broken."""
        assert len(self._owed) <= _OWED_MAX
        assert len(self._accused_s) <= _ACCUSED_MAX
