"""How much a read or write of shared state promises (docs/spec/state.md §5; RQ3 ConsistencyLevel; research:
p2p-reliability §3).
"""

from __future__ import annotations

from enum import IntEnum


class ConsistencyLevel(IntEnum):
    """Ordered: a higher level promises all that a lower one does, and costs more. One that cannot be given is an error.

    LOCAL: this node's own replica, never waits. CAUSAL: not before what the session's token has seen (read your writes,
    monotonic
    reads). QUORUM: R = W = 2 of N = 3 holders, with read repair; a regular register, not a linearisable one.
    LINEARIZABLE: by the configured engine of critical state, which also gives fencing tokens.
    """

    LOCAL = 0
    CAUSAL = 1
    QUORUM = 2
    LINEARIZABLE = 3

    @property
    def word(self) -> str:
        """Its name as people type it: "local" … "linearizable"."""
        return self.name.lower()
