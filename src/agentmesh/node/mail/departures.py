"""What goes out: which session carries what waits between two agents, and what became of it (docs/spec/mail.md §4)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from agentmesh.core.courier import inputs
from agentmesh.errors import Busy, MeshError
from agentmesh.ids import NodeId, did_of
from agentmesh.node.mail.commits import Commits
from agentmesh.node.mail.outgoing import SUBMIT_MAX, Out, Outgoing, Pair
from agentmesh.node.mail.tally import Tally
from agentmesh.store.mail import DEAD, DELIVERED, EXPIRED, DeadRow, Ended

if TYPE_CHECKING:
    from agentmesh.node.mail.handshakes import Handshakes, Session
    from agentmesh.node.mail.ways import Ways

#: Handshakes that failed are tried again after this, doubled each time, seconds.
_RETRY_S, _RETRY_MAX_S = 0.5, 30.0


class Departures:
    """Send what waits.

    Args:
        commits: Writes to disk.
        tally: Counts.
        rng: For jitter.
        feed: Feeds the courier.
        place_of: The node where an agent lives; None if unknown.
        mono_s, unix_ms: The clocks.

    Attributes:
        handshakes, ways: Sessions and streams; set before the first message.
        outgoing: What waits.
    """

    handshakes: Handshakes
    ways: Ways

    def __init__(
        self,
        commits: Commits,
        tally: Tally,
        rng: random.Random,
        *,
        feed: Callable[[Any], None],
        place_of: Callable[[bytes], NodeId | None],
        mono_s: Callable[[], float],
        unix_ms: Callable[[], int],
    ) -> None:
        self._commits, self._tally, self._rng = commits, tally, rng
        self._feed, self._place_of = feed, place_of
        self._mono_s, self._unix_ms = mono_s, unix_ms
        self.outgoing = Outgoing()
        self._due: dict[Pair, None] = {}

    def on_receipt(self, out: Out) -> None:
        """Hear that a third node handed a message over, and that its recipient signed for it."""
        if out.tag in self.outgoing.by_tag:
            if out in out.pair.queue:
                out.pair.queue.remove(out)
            else:  # on its direct way too, perhaps for long: what is said of it there finds nothing any more
                out.pair.under_way -= 1
            self.outgoing.end(out, DELIVERED)
            self._tally.delivered += 1
            self._commits.note(ended=[Ended(DELIVERED, "", self._unix_ms(), out.tries, out.tag)])

    def note_block(self, number: int, reason: str) -> None:
        """Note why what goes over a session waits; "" = it does not."""
        session = self.handshakes.sessions.get(number)
        if session is not None and (pair := self.outgoing.pairs.get((session.mine, session.theirs))) is not None:
            pair.reason = reason

    def on_delivered(self, tags: list[int]) -> None:
        """Hear that the other node has these."""
        before = len(self.outgoing.by_tag)
        durable, pair = self.outgoing.delivered(tags)
        self._tally.delivered += before - len(self.outgoing.by_tag)
        if durable:
            now_ms = self._unix_ms()
            self._commits.note(ended=[Ended(DELIVERED, "", now_ms, out.tries + 1, out.tag) for out in durable])
        if pair is not None:
            pair.since_s, pair.tries = 0.0, 0
            if pair.queue:
                self.push(pair)

    def on_returned(self, tags: list[int], reason: str) -> None:
        """Take messages back from the courier: they go in the next session, or not at all."""
        back: dict[Pair, list[Out]] = {}
        for tag in tags:
            out = self.outgoing.by_tag.get(tag)
            if out is None:
                continue
            out.pair.under_way -= 1
            if not out.acked and reason != "full":
                self._give_up(out, DEAD, "mail.no_path" if reason == "no_path" else "mail.lost")
                continue
            if reason not in ("full", "no_session", "no_path"):
                out.again = True
                out.tries += 1
            back.setdefault(out.pair, []).append(out)
        for pair, outs in back.items():
            self.outgoing.queue(pair, outs, first=True)
            if reason != "full":
                self.push(pair)

    def _give_up(self, out: Out, state: int, reason: str) -> None:
        """End a message that was not delivered, and put it on the list of dead letters."""
        now_ms, body = self._unix_ms(), out.body
        self.outgoing.end(out, state, reason)
        out.body = b""
        if state == EXPIRED:
            self._tally.expired += 1
        else:
            self._tally.dead += 1
        if out.acked:
            self._commits.note(
                ended=[Ended(state, reason, now_ms, out.tries, out.tag)] if out.durable else None,
                dead=[DeadRow(0, out.id, body, out.asked, reason, now_ms)],
            )

    def push_soon(self, pair: Pair) -> None:
        """Let what waits go in a moment, together with what else is taken in this turn of the loop."""
        if not self._due:
            asyncio.get_running_loop().call_soon(self._push_due)
        self._due[pair] = None

    def _push_due(self) -> None:
        due, self._due = self._due, {}
        for pair in due:
            self.push(pair)

    def push(self, pair: Pair) -> None:
        """Let what waits between two agents go as far as it can."""
        if not pair.queue:
            return
        if pair.session:
            room = SUBMIT_MAX - pair.under_way
            if room <= 0:
                return
            queue = pair.queue
            if len(queue) <= room:
                items = [out.item() for out in queue]
                queue.clear()
                pair.next_expiry_s = float("inf")
            else:
                items = [queue.popleft().item() for _ in range(room)]
            pair.under_way += len(items)
            self._feed(inputs.Submit(pair.session, items))
            if not self.ways.is_open(
                pair.node
            ):  # the session outlived its stream: try, and know for how long it is away
                self.ways.need(pair.node)
            return
        now_s = self._mono_s()
        pair.since_s = pair.since_s or now_s
        node = self._place_of(pair.theirs)
        if node is None:
            pair.reason = "mail.no_agent"
            return
        pair.node = node
        if not self.ways.is_open(node):
            pair.reason = "mail.no_route"
            self.ways.need(node)
            return
        if now_s < pair.retry_s or self.handshakes.is_begun(pair.mine, pair.theirs):
            return
        try:
            if not self.handshakes.begin(pair.mine, pair.theirs, node):
                pair.retry_s = now_s + _RETRY_S
        except MeshError as error:
            pair.reason, pair.retry_s = error.code, now_s + _RETRY_MAX_S

    def on_session(self, session: Session) -> None:
        """Hear that a session is up: let what waits go."""
        self._feed(inputs.SessionUp(session.id, session.node))
        try:
            pair = self.outgoing.pair(session.mine, session.theirs)
        except Busy:
            return
        if not pair.session:
            pair.session, pair.node = session.id, session.node
            pair.tries, pair.retry_s, pair.reason = 0, 0.0, ""
            self.push(pair)

    def on_session_down(self, session: Session, reason: str) -> None:
        """Hear that a session is gone: another one, if there is, takes its place."""
        pair = self.outgoing.pairs.get((session.mine, session.theirs))
        if pair is not None and pair.session == session.id:
            pair.session = next(
                (s.id for s in self.handshakes.sessions.values() if s.mine == pair.mine and s.theirs == pair.theirs), 0
            )
        self._feed(inputs.SessionDown(session.id, reason))

    def on_failed(self, mine: bytes, theirs: bytes, code: str) -> None:
        """Hear that a handshake failed: it is tried again later, unless the other node refuses for good."""
        pair = self.outgoing.pairs.get((mine, theirs))
        if pair is None or pair.session:
            return
        pair.tries += 1
        pair.reason = code
        delay_s = min(_RETRY_S * 2 ** min(pair.tries, 8), _RETRY_MAX_S) * self._rng.uniform(0.5, 1.0)
        pair.retry_s = self._mono_s() + delay_s
        if code == "session.refused":
            while pair.queue:
                self._give_up(pair.queue.popleft(), DEAD, "mail.refused")

    def on_up(self, node: NodeId) -> None:
        """Hear that a link to a node is up."""
        if self.outgoing.pairs:
            for pair in self.outgoing.pairs.values():
                if pair.waiting and not pair.session and self._place_of(pair.theirs) == node:
                    pair.tries, pair.retry_s = 0, 0.0
                    self.push(pair)
            self.ways.on_up(node)

    def on_changed(self, did: str) -> None:
        """Hear that an agent appeared or moved."""
        if self.outgoing.pairs:
            for pair in [p for p in self.outgoing.pairs.values() if p.waiting and not p.session]:
                if did_of(pair.theirs) == did:
                    pair.tries, pair.retry_s = 0, 0.0
                    self.push(pair)

    def withdrawn(self, agent: bytes) -> None:
        """Hear that an agent of this node is gone for good: what it wanted to send is dead."""
        self.handshakes.end_of(did_of(agent), "session.no_agent")
        for pair in [p for p in self.outgoing.pairs.values() if p.mine == agent]:
            while pair.queue:
                self._give_up(pair.queue.popleft(), DEAD, "mail.withdrawn")
            pair.next_expiry_s = float("inf")

    def on_expired(self, tags: list[int]) -> None:
        """Hear that the courier gave these up."""
        for tag in tags:
            if (out := self.outgoing.by_tag.get(tag)) is not None:
                out.pair.under_way -= 1
                self._give_up(out, EXPIRED, out.pair.reason or "mail.expired")

    def is_wanted(self, node: NodeId) -> bool:
        """Say whether anything waits for agents of a node."""
        return any(p.waiting and p.node == node for p in self.outgoing.pairs.values())

    def on_way(self, node: NodeId) -> None:
        """Hear that there is a stream to a node."""
        self._feed(inputs.PathUp(node))
        for pair in self.outgoing.pairs.values():
            if pair.node == node and pair.queue:
                pair.retry_s = 0.0
                self.push(pair)

    def on_no_way(self, node: NodeId) -> None:
        """Hear that there is none any more."""
        self._feed(inputs.PathDown(node))
        self.handshakes.lost(node)

    def turn(self, now_s: float) -> None:
        """Give up what has expired, and try again what could not go."""
        for pair in list(self.outgoing.pairs.values()):
            for out in self.outgoing.expired(pair, now_s):
                self._give_up(out, EXPIRED, pair.reason or "mail.expired")
            if pair.queue and not pair.session:
                self.push(pair)

    def is_busy(self, session: Session) -> bool:
        """Say whether anything of a session still waits."""
        pair = self.outgoing.pairs.get((session.mine, session.theirs))
        return pair is not None and pair.session == session.id and pair.waiting > 0
