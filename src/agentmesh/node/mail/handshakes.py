"""Sessions of this node's agents with agents of other nodes: how they begin, are kept, and end (docs/spec/mail.md §3).

A session is made when the first message wants to go, by one handshake over the mail streams. It outlives the link; it ends when
nothing went over it for long, when its channel is old, when the peer says that it does not know it (it was restarted), or when
the agent goes. What was not acknowledged in it goes out again in the next.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from agentmesh.core.courier.messages import Accept, Close, Open, Refuse, encode_frame
from agentmesh.errors import MeshError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId, did_of, public_key_of

if TYPE_CHECKING:
    from agentmesh.identity.session import Channel, Initiator

#: Sessions at once, of all agents of this node, and handshakes under way.
SESSIONS_MAX = 4_096
PENDING_MAX = 1_024
#: Sessions that one peer may begin, so that none keeps all others out.
PEER_MAX = 1_024
#: Answered handshakes per peer: so many at once, and so many more each second. Each costs about 0.3 ms.
_BURST, _RATE = 256.0, 64.0
#: An answer that does not come within this is asked for anew.
ANSWER_S = 10.0
#: A session over which nothing went for so long is closed.
IDLE_S = 600.0


class Session:
    """One session, up.

    Attributes:
        id: Chosen by who began it.
        mine, theirs: Raw keys of the two agents.
        node: The peer's node.
        channel: Its keys.
        used_s: When something last went over it, monotonic.
    """

    __slots__ = ("channel", "id", "mine", "node", "theirs", "used_s")

    def __init__(self, number: int, mine: bytes, theirs: bytes, node: NodeId, channel: Channel, now_s: float) -> None:
        self.id, self.mine, self.theirs, self.node, self.channel = number, mine, theirs, node, channel
        self.used_s = now_s


class _Begun(NamedTuple):
    initiator: Initiator
    mine: bytes
    theirs: bytes
    node: NodeId
    until_s: float


class Handshakes:
    """Make and keep sessions.

    Args:
        node_id: Own node.
        key_of: The key pair of an agent of this node (or of the node itself) by its public key; None if there is none.
        refusal_of: Why a key may do nothing here; None if it may.
        is_full: Whether the inbox of an agent here takes nothing more.
        push: Sends a frame to a peer.
        on_up, on_down: A session is up; is gone, with the reason.
        on_failed: (mine, theirs, code): a handshake was refused or not answered.
        on_misbehaved: (peer, code, detail).
        clock: Returns (monotonic seconds, unix milliseconds).
    """

    def __init__(
        self,
        node_id: NodeId,
        *,
        key_of: Callable[[bytes], KeyPair | None],
        refusal_of: Callable[[str], MeshError | None],
        is_full: Callable[[bytes], bool],
        push: Callable[[NodeId, bytes], None],
        on_up: Callable[[Session], None],
        on_down: Callable[[Session, str], None],
        on_failed: Callable[[bytes, bytes, str], None],
        on_misbehaved: Callable[[NodeId, str, str], None],
        clock: Callable[[], tuple[float, int]],
    ) -> None:
        self.node_id, self._key_of, self._refusal_of, self._push = node_id, key_of, refusal_of, push
        self._is_full = is_full
        self._on_up, self._on_down, self._on_failed = on_up, on_down, on_failed
        self._on_misbehaved, self._clock = on_misbehaved, clock
        self.sessions: dict[int, Session] = {}
        self._begun: dict[int, _Begun] = {}
        self._allowed: dict[NodeId, tuple[float, float]] = {}

    def begin(self, mine: bytes, theirs: bytes, node: NodeId) -> bool:
        """Offer a session to an agent; say whether it could be (``on_up`` or ``on_failed`` follow)."""
        key = self._key_of(mine)
        if key is None or len(self._begun) >= PENDING_MAX:
            return False
        from agentmesh.identity.session import Initiator  # with the first message: a node without mail needs none of it

        now_s, now_ms = self._clock()
        number = int.from_bytes(os.urandom(8), "big") >> 1 or 1
        initiator = Initiator(key, theirs, os.urandom(32), now_ms, self._context(self.node_id, node))
        self._begun[number] = _Begun(initiator, mine, theirs, node, now_s + ANSWER_S)
        self._push(node, encode_frame(Open(number, initiator.offer)))
        return True

    def is_begun(self, mine: bytes, theirs: bytes) -> bool:
        """Say whether an offer to that agent is under way."""
        return any(b.mine == mine and b.theirs == theirs for b in self._begun.values())

    def _context(self, first: NodeId, second: NodeId) -> bytes:
        return public_key_of(first) + public_key_of(second)

    # What a peer says

    def on_open(self, peer: NodeId, frame: Open) -> None:
        """Answer an offer, or refuse it."""
        try:
            self._answer(peer, frame)
        except MeshError as error:
            self._push(peer, encode_frame(Refuse(frame.session, error.code[:64])))
            if error.code.startswith(("signature.", "session.malformed", "session.low_order", "session.recipient")):
                self._on_misbehaved(peer, error.code, error.detail)

    def _answer(self, peer: NodeId, frame: Open) -> None:
        from agentmesh.identity.session import peek_recipient, respond

        now_s, now_ms = self._clock()
        if frame.session in self.sessions or frame.session in self._begun:
            self._push(peer, encode_frame(Refuse(frame.session, "session.taken")))
            return
        is_full = len(self.sessions) >= PEER_MAX and sum(s.node == peer for s in self.sessions.values()) >= PEER_MAX
        if not self._may(peer, now_s) or is_full or (len(self.sessions) >= SESSIONS_MAX and not self._evict(now_s)):
            self._push(peer, encode_frame(Refuse(frame.session, "session.busy")))
            return
        key = self._key_of(peek_recipient(frame.offer))
        if key is None:
            self._push(peer, encode_frame(Refuse(frame.session, "session.no_agent")))
            return
        if self._is_full(key.public):
            self._push(peer, encode_frame(Refuse(frame.session, "session.busy")))
            return
        answer, channel, sender = respond(key, frame.offer, os.urandom(32), now_ms, self._context(peer, self.node_id))
        for did in (peer, did_of(sender), did_of(key.public)):
            if self._refusal_of(did) is not None:
                self._push(peer, encode_frame(Refuse(frame.session, "session.refused")))
                return
        session = Session(frame.session, key.public, sender, peer, channel, now_s)
        self.sessions[frame.session] = session
        self._push(peer, encode_frame(Accept(frame.session, answer)))
        self._on_up(session)

    def on_accept(self, peer: NodeId, frame: Accept) -> None:
        """Finish a handshake that this node began."""
        begun = self._begun.get(frame.session)
        if begun is None or begun.node != peer:
            return
        try:
            channel = begun.initiator.finish(frame.answer)
        except MeshError as error:
            self._on_misbehaved(peer, error.code, error.detail)
            return  # a true answer may still come
        del self._begun[frame.session]
        now_s, _ = self._clock()
        if len(self.sessions) >= SESSIONS_MAX and not self._evict(now_s):
            self._push(peer, encode_frame(Close(frame.session, "session.busy")))
            self._on_failed(begun.mine, begun.theirs, "session.busy")
            return
        session = Session(frame.session, begun.mine, begun.theirs, peer, channel, now_s)
        self.sessions[frame.session] = session
        self._on_up(session)

    def on_refuse(self, peer: NodeId, frame: Refuse) -> None:
        """Hear that an offer was refused, or that a session is not known any more."""
        begun = self._begun.get(frame.session)
        if begun is not None and begun.node == peer:
            del self._begun[frame.session]
            self._on_failed(begun.mine, begun.theirs, frame.code)
            return
        self.end(frame.session, frame.code, peer=peer, tell=False)

    def on_close(self, peer: NodeId, frame: Close) -> None:
        """Hear that the peer ended a session."""
        self.end(frame.session, frame.reason, peer=peer, tell=False)

    def unknown(self, peer: NodeId, number: int) -> None:
        """Tell a peer that its session is not known here."""
        self._push(peer, encode_frame(Refuse(number, "session.unknown")))

    # Keeping

    def end(self, number: int, reason: str, *, peer: NodeId | None = None, tell: bool = True) -> None:
        """End a session; ``peer``: only if it is with that node."""
        session = self.sessions.get(number)
        if session is None or (peer is not None and session.node != peer):
            return
        del self.sessions[number]
        if tell:
            self._push(session.node, encode_frame(Close(number, reason[:64])))
        self._on_down(session, reason)

    def end_of(self, did: str, reason: str) -> None:
        """End every session of a node or agent."""
        raw = public_key_of(did)
        for session in [s for s in self.sessions.values() if raw in (s.mine, s.theirs) or s.node == did]:
            self.end(session.id, reason)

    def lost(self, node: NodeId) -> None:
        """Give up the offers to a node whose stream is gone: they are made anew when there is one again."""
        for number in [n for n, b in self._begun.items() if b.node == node]:
            begun = self._begun.pop(number)
            self._on_failed(begun.mine, begun.theirs, "session.lost")

    def tidy(self, is_busy: Callable[[Session], bool]) -> None:
        """Give up offers that nobody answered; close sessions that are idle, and those that are old."""
        now_s, now_ms = self._clock()
        for number in [n for n, b in self._begun.items() if b.until_s <= now_s]:
            begun = self._begun.pop(number)
            self._on_failed(begun.mine, begun.theirs, "session.no_answer")
        for session in list(self.sessions.values()):
            if now_s - session.used_s > IDLE_S and not is_busy(session):
                self.end(session.id, "session.idle")
            elif session.channel.is_old(now_ms):
                self.end(session.id, "session.old")

    def _evict(self, now_s: float) -> bool:
        """Make room by the session that was used least lately, if that was a while ago."""
        oldest = min(self.sessions.values(), key=lambda session: session.used_s)
        if now_s - oldest.used_s < ANSWER_S:
            return False
        self.end(oldest.id, "session.evicted")
        return True

    def _may(self, peer: NodeId, now_s: float) -> bool:
        """Take one of the handshakes that a peer may ask for."""
        left, at_s = self._allowed.pop(peer, (_BURST, now_s))
        left = min(_BURST, left + (now_s - at_s) * _RATE)
        while len(self._allowed) >= PENDING_MAX:
            del self._allowed[next(iter(self._allowed))]
        self._allowed[peer] = (max(0.0, left - 1.0), now_s)
        return left >= 1.0
