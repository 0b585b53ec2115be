"""How many links a node may be dialling at once in the background.

A handshake costs both sides milliseconds of CPU. Where machines are overloaded, handshakes time out half-done, and trying
more of them at once makes it worse: what is spent on those that fail is lacking for the others. So the window is additive
increase, multiplicative decrease, as TCP's (V. Jacobson, 1988), by the one sign that means overload: the peer took the
connection and could not finish the handshake. A dead peer says nothing about load.
"""

from __future__ import annotations

from agentmesh.errors import MeshError

#: Dials at once to begin with and at most: as many as begin in a second (docs/spec/contacts.md §2).
WINDOW_MAX = 16.0
_WINDOW_MIN = 1.0
#: Dials that fail within this time of each other are one sign of overload, seconds.
_ONE_SIGN_S = 2.0
OVERLOADED = "unreached.timeout.handshake"


class DialWindow:
    """The window of one node."""

    __slots__ = ("_cut_s", "size")

    def __init__(self) -> None:
        self.size = WINDOW_MAX
        self._cut_s = float("-inf")

    def has_room(self, dialling: int) -> bool:
        """Say whether one more may be dialled while so many are."""
        return dialling < self.size

    def note(self, error: MeshError | None, now_s: float) -> None:
        """Take the outcome of a dial into account; None = the handshake was done."""
        if error is None:
            self.size = min(WINDOW_MAX, self.size + 1.0 / self.size)
        elif error.code == OVERLOADED and now_s - self._cut_s >= _ONE_SIGN_S:
            self._cut_s = now_s
            self.size = max(_WINDOW_MIN, self.size / 2)
