"""One session: two halves, what is due when, and the parcels it makes (docs/spec/courier.md §3)."""

from __future__ import annotations

from math import inf

from agentmesh.core.courier.config import CourierConfig
from agentmesh.core.courier.messages import LANES, Letter, Parcel
from agentmesh.core.courier.receiving import Receiving
from agentmesh.core.courier.sending import Sending
from agentmesh.ids import NodeId

_LANES_MASK = (1 << LANES) - 1


class Session:
    """A session.

    Attributes:
        id, peer: Which, and the node at its other end.
        sending, receiving: Its halves.
        listed: Bits of the queues of its path in which it stands.
        allowance: Bytes that it may send in its turn.
        debt: Bytes that it sent beyond its turns; below 0: what is left of a turn that it has begun.
        returning: The path is new; what was on its way is repeated when the peer has said what it has.
        up_s: When the path came up last.
        ack_s: When what is owed must be acknowledged; infinity if nothing is.
        ask_s: When the peer is asked whether it takes more.
        asks: How often in a row it was.
        answered_s: When a question of the peer was last answered at once.
        looked_s: When expiry was last looked for.
        busy_s: When something was last sent, received or submitted.
        wake_s: Its valid entry in the agenda.
        idle: That it is idle was told.
    """

    __slots__ = (
        "_config",
        "ack_s",
        "allowance",
        "answered_s",
        "ask_s",
        "asks",
        "busy_s",
        "debt",
        "id",
        "idle",
        "listed",
        "looked_s",
        "peer",
        "receiving",
        "returning",
        "sending",
        "up_s",
        "wake_s",
    )

    def __init__(self, session: int, peer: NodeId, config: CourierConfig, now_s: float) -> None:
        self._config = config
        self.id, self.peer = session, peer
        self.sending, self.receiving = Sending(config), Receiving(config)
        self.listed = self.allowance = self.debt = self.asks = 0
        self.returning = self.idle = False
        self.up_s = self.busy_s = now_s
        self.looked_s = self.answered_s = -inf
        self.ack_s = self.ask_s = self.wake_s = inf

    def parcel(self, letters: list[Letter], gone: list[int], *, ask: bool = False) -> Parcel:
        """Return a parcel with these and all that is owed; nothing is owed then."""
        receiving = self.receiving
        receiving.raise_credit()
        receiving.owed = 0
        receiving.asked = False
        self.ack_s = inf
        return Parcel(self.id, letters, receiving.acks(), receiving.credit, self.sending.floor, gone, ask)

    def wants(self) -> bool:
        """Say whether something waits that the peer does not take."""
        sending = self.sending
        return sending.lanes_open & _LANES_MASK != 0 and sending.seq >= sending.seq_max()

    def due_s(self, *, up: bool) -> float:
        """Return when there is something to do, if nothing happens before.

        Args:
            up: Whether there is a path.
        """
        sending, config = self.sending, self._config
        due_s = max(sending.expires_s, self.looked_s + config.expiry_s)
        if up:
            due_s = min(due_s, self.ack_s, self.ask_s, sending.overdue_s())
        if not self.idle and not sending.waiting and not sending.flight:
            due_s = min(due_s, self.busy_s + config.idle_s)
        return due_s
