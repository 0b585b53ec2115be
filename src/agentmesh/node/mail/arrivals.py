"""What comes: judged, remembered, stored if durable, handed to inboxes or to parts of the node (docs/spec/mail.md §5–6)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from agentmesh.core.courier import inputs
from agentmesh.core.courier.message import AHEAD_MS_MAX, Delivery, Message, decode, encode
from agentmesh.core.courier.messages import Letter
from agentmesh.errors import MeshError, StoreError
from agentmesh.ids import NodeId
from agentmesh.net.tasks import TaskScope
from agentmesh.node.mail.commits import Commits
from agentmesh.node.mail.inbox import Inbox, Waiting
from agentmesh.node.mail.seen import Seen
from agentmesh.node.mail.tally import Tally
from agentmesh.store.mail import DeadRow, InRow

if TYPE_CHECKING:
    from agentmesh.node.mail.handshakes import Handshakes, Session

_log = logging.getLogger("agentmesh.mail")

#: An inbox with less room than this tells its senders how much it takes; with twice as much it lets them send freely again.
_TIGHT = 4_096
_WIDE = 1 << 20
#: A batch that the disk refused is tried again after this, doubled each time, seconds.
_RETRY_S, _RETRY_MAX_S = 0.5, 30.0

#: Takes messages of its scope instead of the inbox; what it returns is awaited before they are acknowledged.
Sink = Callable[[list[Waiting]], Awaitable[None] | None]


class Arrivals:
    """Take in what comes for agents of this node.

    Args:
        commits: Writes to disk.
        tally: Counts.
        scope: Owns tasks.
        feed: Feeds the courier.
        on_misbehaved: (peer, code, detail).
        mono_s, unix_ms: The clocks.

    Attributes:
        handshakes: The sessions; set before the first letter.
        inboxes: By raw key of the agent.
        refused_writes: How often messages that came could not be stored.
    """

    handshakes: Handshakes

    def __init__(
        self,
        commits: Commits,
        tally: Tally,
        scope: TaskScope,
        *,
        feed: Callable[[Any], None],
        on_misbehaved: Callable[[NodeId, str, str], None],
        mono_s: Callable[[], float],
        unix_ms: Callable[[], int],
    ) -> None:
        self._commits, self._tally, self._scope = commits, tally, scope
        self._feed, self._on_misbehaved = feed, on_misbehaved
        self._mono_s, self._unix_ms = mono_s, unix_ms
        self.inboxes: dict[bytes, Inbox] = {}
        self.refused_writes = 0
        self._sinks: list[tuple[str, Sink]] = []
        self._seen = Seen(mono_s())
        #: Durable letters of each session that wait for the disk, and their numbers; one task each keeps them, in order.
        self._slow: dict[int, tuple[list[tuple[Message, bytes]], list[int]]] = {}

    def on_message(self, scope_prefix: str, sink: Sink) -> None:
        """Have a part of the node take the messages whose scope begins so, before they reach any inbox."""
        self._sinks.append((scope_prefix, sink))

    def sink_of(self, message: Message) -> Sink | None:
        scope = message.scope
        if scope:
            for prefix, sink in self._sinks:
                if scope.startswith(prefix):
                    return sink
        return None

    async def keep(self, pieces: list[tuple[Message, bytes]], *, encrypted: bool, opened: bool = False) -> None:
        """Store and hand over messages that came; ``opened``: a part of the node has seen to their scope already.

        Raises:
            StoreError: none was kept.
        """
        now_ms = self._unix_ms()
        rows: list[InRow] = []
        entries: list[Waiting] = []
        for message, body in pieces:
            self._commits.number += 1
            stored = bool(body) and (opened or self.sink_of(message) is None)
            entries.append(Waiting(self._commits.number, message, now_ms, encrypted=encrypted, stored=stored))
            if stored:
                mark = b""
                if message.delivery != Delivery.AT_MOST_ONCE:  # two members of a group here get the same id
                    # 96 bits of each key: nobody makes a key that begins like another one.
                    mark = message.sender[:12] + message.recipient[:12] + message.id
                rows.append(
                    InRow(
                        self._commits.number,
                        message.recipient,
                        body,
                        now_ms,
                        encrypted,
                        0,
                        mark,
                        message.expires_ms + AHEAD_MS_MAX,
                    )
                )
        if rows:
            again = await self._commits.add([], rows)
            if again:
                self._tally.repeated += len(again)
                entries = [one for one in entries if one.cursor not in again]
        for awaitable in self._sort(entries, opened=opened):
            await awaitable

    def _sort(self, entries: list[Waiting], *, opened: bool = False) -> list[Awaitable[None]]:
        """Give messages to inboxes and sinks; return what must be awaited before they count as taken."""
        waits: list[Awaitable[None]] = []
        self._tally.received += 0 if opened else len(entries)
        boxes: dict[bytes, list[Waiting]] = {}
        sinks: dict[Sink, list[Waiting]] = {}
        for one in entries:
            message = one.message
            if message.scope and not opened and (sink := self.sink_of(message)) is not None:
                sinks.setdefault(sink, []).append(one)
            elif (box := boxes.get(message.recipient)) is not None:
                box.append(one)
            else:
                boxes[message.recipient] = [one]
        for agent, ones in boxes.items():
            self.inbox_of(agent).put(ones)
        for sink, ones in sinks.items():
            if (wait := sink(ones)) is not None:
                waits.append(wait)
        return waits

    def inbox_of(self, agent: bytes) -> Inbox:
        """Return the inbox of an agent (or of the node), made if need be."""
        inbox = self.inboxes.get(agent)
        if inbox is None:
            inbox = self.inboxes[agent] = Inbox(self._on_unread)
        return inbox

    def _on_unread(self, one: Waiting, reason: str) -> None:
        message = one.message
        self._commits.note(
            taken=[(one.cursor,)] if one.stored else None,
            dead=[DeadRow(1, message.id, encode(message), "", reason, self._unix_ms())],
        )

    def taken(self, agent: bytes, ones: Sequence[Waiting]) -> None:
        """Hear that an agent is done with messages that were in its inbox."""
        if stored := [(one.cursor,) for one in ones if one.stored]:
            self._commits.note(taken=stored)
        inbox = self.inboxes[agent]
        if inbox.closed_to and inbox.room > 0:
            self._open_windows(inbox)

    def is_full(self, agent: bytes) -> bool:
        """Say whether an inbox takes nothing more now."""
        inbox = self.inboxes.get(agent)
        return inbox is not None and not inbox.room

    def handed_out(self, ones: Sequence[Waiting]) -> None:
        """Hear that messages were handed out."""
        if tries := [(one.tries, one.cursor) for one in ones if one.stored]:
            self._commits.note(tries=tries)

    def on_deliver(self, number: int, letters: list[Letter]) -> None:
        session = self.handshakes.sessions.get(number)
        if session is None:
            return
        mine, theirs = session.mine, session.theirs
        if (box := self.inboxes.get(mine)) is not None and box.is_over:
            # Every session may send some letters before it hears a window. Not acknowledged, they stay with their sender.
            self.handshakes.end(number, "session.busy")
            return
        ends = theirs + mine
        now_ms = self._unix_ms()
        oldest_ms, latest_ms = now_ms - AHEAD_MS_MAX, now_ms + AHEAD_MS_MAX
        seen = self._seen
        young, old = seen.of(ends)
        known = len(young)
        seqs: list[int] = []
        entries: list[Waiting] = []
        slow: list[tuple[Message, bytes]] = []
        slow_seqs: list[int] = []
        number_now = self._commits.number
        is_scoped = False
        for letter in letters:
            body = letter.body
            try:
                message = decode(body)
            except MeshError as error:
                self._on_misbehaved(session.node, error.code, error.detail)
                seqs.append(letter.seq)
                continue
            if message.sender != theirs or message.recipient != mine:
                self._on_misbehaved(session.node, "message.forged", "a message of or for another agent in this session")
                seqs.append(letter.seq)
                continue
            sent_ms = message.sent_ms
            if sent_ms > latest_ms or sent_ms + message.ttl_ms <= oldest_ms:  # ``is_stale``
                self._on_stale(message, now_ms)
                seqs.append(letter.seq)
                continue
            if message.durable and message.delivery:
                slow.append((message, body))
                slow_seqs.append(letter.seq)
                continue
            seqs.append(letter.seq)
            message_id = message.id
            if message.delivery:
                if message_id in young or message_id in old:
                    self._tally.repeated += 1
                    continue
                young.add(message_id)
            number_now += 1
            if message.scope:
                is_scoped = True
            entries.append(Waiting(number_now, message, now_ms, True, False))
        self._commits.number = number_now
        waits: list[Awaitable[None]] = []
        if entries:
            inbox = self.inbox_of(mine)
            if is_scoped:
                waits = self._sort(entries)
            else:
                self._tally.received += len(entries)
                inbox.put(entries)
            if inbox.room < _TIGHT:
                inbox.closed_to[number] = None
                self._open_windows(inbox)
        seen.count += len(young) - known
        seen.tidy(self._mono_s())
        if slow:
            queue = self._slow.get(number)
            if queue is None:
                self._scope.spawn(self._keep_then_take(number, mine), "keep")
                queue = self._slow[number] = ([], [])  # before the task begins, and only if it does
            queue[0].extend(slow)
            queue[1].extend(slow_seqs)
        if waits:
            self._scope.spawn(self._wait_then_take(number, waits, seqs), "sink")
        elif seqs:
            self._feed(inputs.Taken(number, seqs))

    def is_stale(self, message: Message, now_ms: int) -> bool:
        """Say whether a message is past its end, or from the future, beyond what clocks may differ by."""
        sent_ms = message.sent_ms
        return sent_ms + message.ttl_ms <= now_ms - AHEAD_MS_MAX or sent_ms > now_ms + AHEAD_MS_MAX

    def _on_stale(self, message: Message, now_ms: int) -> None:
        reason = "mail.expired" if message.sent_ms <= now_ms else "mail.clock"
        self._commits.note(dead=[DeadRow(1, message.id, encode(message), "", reason, now_ms)])

    async def _keep_then_take(self, number: int, mine: bytes) -> None:
        """Put a session's durable messages on disk, hand them over, and acknowledge them; on a full disk their sender keeps them.

        What comes while the disk is busy, or refuses, waits behind: nothing overtakes a batch that is tried again.
        """
        try:
            while (queue := self._slow[number])[0]:
                pieces, seqs = queue
                self._slow[number] = ([], [])
                if not await self._kept(number, pieces):
                    return
                inbox = self.inbox_of(mine)
                if inbox.room < _TIGHT:
                    inbox.closed_to[number] = None
                    self._open_windows(inbox)
                self._feed(inputs.Taken(number, seqs))
        finally:
            del self._slow[number]

    async def _kept(self, number: int, pieces: list[tuple[Message, bytes]]) -> bool:
        """Keep messages, however often that takes; say False if their session ended before it was done."""
        delay_s = _RETRY_S
        while True:
            try:
                await self.keep(pieces, encrypted=True)
            except StoreError as error:
                self.refused_writes += 1
                _log.error("messages that came cannot be stored, their senders keep them: %s", error)
                await asyncio.sleep(delay_s)
                if number not in self.handshakes.sessions:
                    return False  # they come again, in the next one
                delay_s = min(2 * delay_s, _RETRY_MAX_S)
            else:
                return True

    async def _wait_then_take(self, number: int, waits: list[Awaitable[None]], seqs: list[int]) -> None:
        for wait in waits:
            await wait
        self._feed(inputs.Taken(number, seqs))

    def _open_windows(self, inbox: Inbox) -> None:
        """Tell the senders of an inbox how much more it takes."""
        room = inbox.room
        numbers = list(inbox.closed_to)
        if room >= 2 * _TIGHT:
            inbox.closed_to.clear()
            share = _WIDE
        else:
            share = room // max(1, len(numbers))
        for number in numbers:
            self._feed(inputs.Window(number, share, share * _WIDE if room else 0))

    def on_session(self, session: Session) -> None:
        """Hear that a session is up: if its inbox is nearly full, its sender learns so."""
        inbox = self.inboxes.get(session.mine)
        if inbox is not None and inbox.closed_to:
            inbox.closed_to[session.id] = None
            self._open_windows(inbox)

    def on_session_down(self, session: Session) -> None:
        """Hear that a session is gone."""
        inbox = self.inboxes.get(session.mine)
        if inbox is not None:
            inbox.closed_to.pop(session.id, None)

    def withdrawn(self, agent: bytes) -> None:
        """Hear that an agent of this node is gone for good: what it has to read is dead."""
        if (inbox := self.inboxes.pop(agent, None)) is not None and len(inbox):
            now_ms = self._unix_ms()
            gone = inbox.drain()
            self._commits.note(
                taken=[(one.cursor,) for one in gone if one.stored],
                dead=[DeadRow(1, one.message.id, encode(one.message), "", "mail.withdrawn", now_ms) for one in gone],
            )

    def turn(self, now_s: float, now_ms: int) -> None:
        """Do what is due."""
        self._seen.tidy(now_s)
        for inbox in self.inboxes.values():
            inbox.expire(now_s, now_ms)
