"""The mail room: takes messages from agents here, carries them to agents elsewhere, and keeps what comes (docs/spec/mail.md).

    post ─► outgoing ─► courier (sans-IO) ─► ways ─► the peer's mail room ─► inbox
              │            │ sealed and opened by the sessions (``handshakes``)
            commits      timers

Everything is composed here and nothing of it runs before the first message. What is durable is on disk before ``post`` returns, and
at the recipient's before it is acknowledged. All methods belong to the daemon's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import struct
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentmesh.core.courier import inputs
from agentmesh.core.courier.message import AHEAD_MS_MAX, Delivery, Message, check, decode, encode
from agentmesh.core.courier.messages import Accept, Close, Letter, Open, Parcel, Refuse, decode_frame, encode_frame
from agentmesh.core.machine import Outbox, Timer
from agentmesh.errors import Busy, DecodeError, LimitError, MeshError, StoreError, Unauthorized, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId, did_of
from agentmesh.net.base import Contact, Stream
from agentmesh.net.tasks import TaskScope
from agentmesh.node.links import Links, Peer
from agentmesh.node.mail.commits import Commits
from agentmesh.node.mail.handshakes import Handshakes, Session
from agentmesh.node.mail.inbox import Inbox, Waiting
from agentmesh.node.mail.outgoing import SUBMIT_MAX, Out, Outgoing, Pair
from agentmesh.node.mail.seen import Seen
from agentmesh.node.mail.ways import Ways
from agentmesh.store.mail import DEAD, DELIVERED, EXPIRED, DeadRow, Ended, InRow, OutRow

_log = logging.getLogger("agentmesh.mail")

#: How often what waits is looked at, seconds.
_TURN_S = 0.5
_TIDY_S = 3_600.0
#: Messages between agents of this node whose fate is remembered.
_HERE_MAX = 8_192
#: Handshakes that failed are tried again after this, doubled each time, seconds.
_RETRY_S, _RETRY_MAX_S = 0.5, 30.0
#: An inbox with less room than this tells its senders how much it takes; with twice as much it lets them send freely again.
_TIGHT = 4_096
_WIDE = 1 << 20
_aad = struct.Struct(">QQQB").pack

#: Takes messages of its scope instead of the inbox; what it returns is awaited before they are acknowledged.
Sink = Callable[[list[Waiting]], Awaitable[None] | None]


class Tally:
    """What became of messages so far: sent = delivered + expired + dead + what waits."""

    __slots__ = ("dead", "delivered", "expired", "received", "repeated", "sent")

    def __init__(self) -> None:
        self.sent = self.delivered = self.expired = self.dead = self.received = self.repeated = 0

    def kept(self) -> dict[str, int]:
        """Return what is kept across restarts: all but what follows from it."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "sent"}

    def bring_back(self, kept: dict[str, int]) -> None:
        """Go on from what was kept."""
        for name, count in kept.items():
            if name in self.__slots__:
                setattr(self, name, getattr(self, name) + count)
        self.sent += sum(kept.get(name, 0) for name in ("delivered", "expired", "dead"))


class Mailroom:
    """One node's mail.

    Args:
        key: The node's key.
        links: Links to peers.
        path: The file of the store.
        contact_of: Where a node may be.
        key_of: The key of an agent of this node (or of the node) by raw public key; None if it is none of them or keeps its own.
        place_of: The node where an agent lives by its raw public key; None if unknown.
        refusal_of: Why a key may do nothing here.
        any_refused: Whether there is any such key.
        refuse: Raises ReadOnly while this node is stopped.
        is_abroad: Whether a node is of another mesh.
        on_misbehaved: (peer, code, detail).
        mono_s, unix_ms: The clocks.
    """

    def __init__(
        self,
        key: KeyPair,
        links: Links,
        path: Path,
        *,
        contact_of: Callable[[NodeId], Contact],
        key_of: Callable[[bytes], KeyPair | None],
        place_of: Callable[[bytes], NodeId | None],
        refusal_of: Callable[[str], MeshError | None],
        any_refused: Callable[[], bool],
        refuse: Callable[[], None],
        is_abroad: Callable[[str], bool],
        on_misbehaved: Callable[[NodeId, str, str], None],
        mono_s: Callable[[], float] = time.monotonic,
        unix_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self.node_id = NodeId(key.did)
        self._links, self._contact_of = links, contact_of
        self._key_of, self._place_of, self._refusal_of = key_of, place_of, refusal_of
        self._any_refused = any_refused
        self._refuse, self._is_abroad, self._on_misbehaved = refuse, is_abroad, on_misbehaved
        self.mono_s, self.unix_ms = mono_s, unix_ms
        self._rng = random.Random(os.urandom(16))  # noqa: S311 jitter, not secrets
        self._scope = TaskScope("mail")
        self.tally = Tally()
        self.commits = Commits(path, self._scope, self.tally.kept)
        self.outgoing = Outgoing()
        self.inboxes: dict[bytes, Inbox] = {}
        #: How often messages that came could not be stored.
        self.refused_writes = 0
        #: How many messages of others, and how many bytes, this node keeps sealed.
        self.carried = (0, 0)
        self._here: dict[bytes, OutRow] = {}
        self._sinks: list[tuple[str, Sink]] = []
        self._seen: Seen = Seen(mono_s())
        self._number = 0
        self._begun = False
        self._closed = False
        self._courier: Any = None
        self._out = Outbox()
        self._timers: set[asyncio.TimerHandle] = set()
        self._feeding = False
        self._fed: list[Any] = []
        self._parcels: dict[NodeId, deque[Parcel]] = {}
        self._ways: Ways = Ways(
            links,
            contact_of,
            self._scope,
            self._rng,
            on_open=self._on_way,
            on_lost=self._on_no_way,
            fill=self._fill,
            on_frame=self._on_frame,
            is_wanted=self._is_wanted,
        )
        self.sessions = Handshakes(
            self.node_id,
            key_of=key_of,
            refusal_of=refusal_of,
            push=self._ways.push,
            on_up=self._on_session,
            on_down=self._on_session_down,
            on_failed=self._on_failed,
            on_misbehaved=on_misbehaved,
            clock=lambda: (self.mono_s(), self.unix_ms()),
        )

    # Beginning and end

    async def open(self) -> None:
        """Bring back what waited when the node stopped; nothing is read, made or loaded if there was nothing.

        Raises:
            StoreError, ConfigError: the file cannot be read.
        """
        if not self.commits.exists:
            return
        self._begin()
        waiting = await self.commits.read(lambda store: store.waiting(100_000))
        arrived = await self.commits.read(lambda store: store.arrived(100_000))
        high = await self.commits.read(lambda store: store.highest())
        self.tally.bring_back(await self.commits.read(lambda store: store.tally()))
        self._number = max(self._number, high)
        for row in arrived:
            with contextlib.suppress(DecodeError, LimitError):
                one = Waiting(row.cursor, decode(row.body), row.received_ms, encrypted=bool(row.encrypted), stored=True, tries=row.tries)
                self.inbox_of(row.agent).put([one])
        now_s, now_ms = self.mono_s(), self.unix_ms()
        pairs: dict[Pair, None] = {}
        for row in waiting:
            try:
                message = decode(row.body)
                pair = self.outgoing.pair(message.sender, message.recipient)
                expires_s = now_s + (message.expires_ms - now_ms) / 1000
                out = self.outgoing.add(message, row.body, pair, row.tag, expires_s, row.asked, again=True)
            except MeshError as error:
                _log.error("a message that waited cannot be sent: %s", error)
                continue
            out.tries = row.tries
            self.tally.sent += 1
            self.outgoing.queue(pair, [out])
            pairs[pair] = None
        for pair in pairs:
            self._push(pair)

    def _begin(self) -> None:
        """Make what works, with the first message."""
        if self._begun:
            return
        from agentmesh.core.courier.config import CourierConfig
        from agentmesh.core.courier.machine import Courier

        self._begun = True
        self._courier = Courier(CourierConfig())
        self._number = max(self._number, self.unix_ms() * 1000)
        self._scope.spawn(self._turn(), "turn")

    def on_message(self, scope_prefix: str, sink: Sink) -> None:
        """Have a part of the node take the messages whose scope begins so, before they reach any inbox."""
        self._sinks.append((scope_prefix, sink))

    async def aclose(self) -> None:
        """Stop; what is durable waits on disk for the next start. Idempotent."""
        if self._closed:
            return
        self._closed = True
        for handle in self._timers:
            handle.cancel()
        self._timers.clear()
        await self.commits.aclose()
        await self._scope.aclose()

    # Taking messages

    async def post(self, messages: Sequence[Message], asked: str = "") -> list[MeshError | None]:
        """Take messages of agents here, in order; what is durable is on disk then.

        Args:
            messages: Each to one recipient.
            asked: How the recipient was named, for people.

        Returns:
            For each message None if it was taken, else why not: UsageError, LimitError, Busy ("mail.full"), StoreError.

        Raises:
            ReadOnly: this node is stopped; none was taken.
        """
        self._refuse()
        self._begin()
        now_s, now_ms = self.mono_s(), self.unix_ms()
        results: list[MeshError | None] = [None] * len(messages)
        ready: dict[Pair, list[Out]] = {}
        local: list[tuple[int, Message]] = []
        rows: list[OutRow] = []
        kept: list[tuple[int, Out]] = []
        outgoing, number = self.outgoing, self._number
        pair: Pair | None = None
        for index, message in enumerate(messages):
            try:
                check(message)
                if pair is None or pair.mine != message.sender or pair.theirs != message.recipient:
                    if self._is_here(message.recipient):
                        self._check_sender(message.sender)
                        local.append((index, message))
                        continue
                    pair = self._pair(message.sender, message.recipient)
                number += 1
                body = encode(message)
                expires_s = now_s + (message.sent_ms + message.ttl_ms - now_ms) / 1000
                out = outgoing.add(message, body, pair, number, expires_s, asked)
            except MeshError as error:
                results[index] = error
                continue
            if out.durable:
                rows.append(OutRow(number, out.id, asked, pair.theirs, body, 0, "", message.sent_ms, out.expires_ms, 0, 0))
                kept.append((index, out))
            if pair in ready:
                ready[pair].append(out)
            else:
                ready[pair] = [out]
        self._number = number
        if rows:
            try:
                await self.commits.add(rows, [])
            except MeshError as error:
                for index, out in kept:
                    results[index] = error
                    outgoing.end(out, DEAD, error.code)
                    out.body = b""
        for pair, outs in ready.items():
            taken = [out for out in outs if out.tag in outgoing.by_tag] if rows else outs
            self.tally.sent += len(taken)
            outgoing.queue(pair, taken)
            self._push(pair)
        if local:
            await self._post_here(local, results, asked)
        return results

    def _check_sender(self, sender: bytes) -> KeyPair:
        key = self._key_of(sender)
        if key is None:
            raise UsageError(
                "messages are sent in the name of an agent of this node whose key the node keeps",
                code="message.sender",
                hint="agentmesh agents   lists them",
            )
        return key

    def _is_here(self, recipient: bytes) -> bool:
        return self._place_of(recipient) == self.node_id

    def _pair(self, sender: bytes, recipient: bytes) -> Pair:
        pair = self.outgoing.pairs.get((sender, recipient))
        if pair is not None and pair.session:
            return pair
        self._check_sender(sender)
        for key in (sender, recipient):
            if (refusal := self._refusal_of(did_of(key))) is not None:
                raise refusal
        if (node := self._place_of(recipient)) is not None:
            if (refusal := self._refusal_of(node)) is not None:
                raise refusal
            if self._is_abroad(node):
                raise Unauthorized(
                    "that agent belongs to another mesh; messages stay within one",
                    code="mail.abroad",
                    hint="call it instead: agentmesh call",
                )
        return pair or self.outgoing.pair(sender, recipient)

    async def _post_here(
        self, local: list[tuple[int, Message]], results: list[MeshError | None], asked: str
    ) -> None:
        """Put messages to agents of this node into their inboxes, without a courier."""
        now_ms = self.unix_ms()
        fitting: list[tuple[int, Message]] = []
        counts: dict[bytes, int] = {}
        for index, message in local:
            counts[message.recipient] = counts.get(message.recipient, 0) + 1
            if self._sink_of(message) is None and self.inbox_of(message.recipient).room < counts[message.recipient]:
                results[index] = Busy("the inbox of that agent is full", code="mail.full")
            elif message.expires_ms <= now_ms:
                results[index] = UsageError("its time to live is over already", code="message.ttl")
            else:
                fitting.append((index, message))
        try:
            await self._keep([(message, encode(message) if message.durable else b"") for _, message in fitting], encrypted=False)
        except MeshError as error:
            for index, _ in fitting:
                results[index] = error
            return
        self.tally.sent += len(fitting)
        self.tally.delivered += len(fitting)
        for _, one in fitting:
            row = OutRow(0, one.id, asked, one.recipient, b"", DELIVERED, "", one.sent_ms, one.expires_ms, now_ms, 1)
            self._here[one.id] = row
        while len(self._here) > _HERE_MAX:
            del self._here[next(iter(self._here))]

    def local_of(self, message_id: bytes) -> OutRow | None:
        """Return what became of a message to an agent of this node; the newest are remembered."""
        return self._here.get(message_id)

    async def revive(self, numbers: Sequence[int], messages: Sequence[Message], asked: str) -> MeshError | None:
        """Send dead letters again as they were, from now on; return why the first of those that failed did."""
        now_ms = self.unix_ms()
        fresh = [msgspec.structs.replace(message, sent_ms=now_ms) for message in messages]
        results = await self.post(fresh, asked)
        taken = [number for number, error in zip(numbers, results, strict=True) if error is None]
        await self.commits.read(lambda store: store.revive(taken))
        return next((error for error in results if error is not None), None)

    # What comes

    def _sink_of(self, message: Message) -> Sink | None:
        scope = message.scope
        if scope:
            for prefix, sink in self._sinks:
                if scope.startswith(prefix):
                    return sink
        return None

    async def _keep(self, pieces: list[tuple[Message, bytes]], *, encrypted: bool) -> None:
        """Store and hand over messages that came. Raises StoreError: none was kept."""
        now_ms = self.unix_ms()
        rows: list[InRow] = []
        entries: list[Waiting] = []
        for message, body in pieces:
            self._number += 1
            stored = bool(body) and self._sink_of(message) is None
            entries.append(Waiting(self._number, message, now_ms, encrypted=encrypted, stored=stored))
            if stored:
                mark = message.sender + message.id if message.delivery != Delivery.AT_MOST_ONCE else b""
                rows.append(InRow(self._number, message.recipient, body, now_ms, encrypted, 0, mark, message.expires_ms + AHEAD_MS_MAX))
        if rows:
            again = await self.commits.add([], rows)
            if again:
                self.tally.repeated += len(again)
                entries = [one for one in entries if one.cursor not in again]
        await self._hand_over(entries)

    async def _hand_over(self, entries: list[Waiting]) -> None:
        wait = self._sort(entries)
        for awaitable in wait:
            await awaitable

    def _sort(self, entries: list[Waiting]) -> list[Awaitable[None]]:
        """Give messages to inboxes and sinks; return what must be awaited before they count as taken."""
        waits: list[Awaitable[None]] = []
        self.tally.received += len(entries)
        boxes: dict[bytes, list[Waiting]] = {}
        sinks: dict[Sink, list[Waiting]] = {}
        for one in entries:
            message = one.message
            if message.scope and (sink := self._sink_of(message)) is not None:
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
        self.commits.note(
            taken=[(one.cursor,)] if one.stored else None,
            dead=[DeadRow(1, message.id, encode(message), "", reason, self.unix_ms())],
        )

    def taken(self, agent: bytes, ones: Sequence[Waiting]) -> None:
        """Hear that an agent is done with messages that were in its inbox."""
        if stored := [(one.cursor,) for one in ones if one.stored]:
            self.commits.note(taken=stored)
        inbox = self.inboxes[agent]
        if inbox.closed_to and inbox.room > 0:
            self._open_windows(inbox)

    def handed_out(self, ones: Sequence[Waiting]) -> None:
        """Hear that messages were handed out."""
        if tries := [(one.tries, one.cursor) for one in ones if one.stored]:
            self.commits.note(tries=tries)

    # Streams

    async def serve(self, peer: Peer, stream: Stream) -> None:
        """Read the mail stream of a peer (``MailOpen``)."""
        self._begin()
        self._ways.need(peer.link.peer)
        await self._ways.serve(peer, stream)

    def on_up(self, node: NodeId) -> None:
        """Hear that a link to a node is up."""
        if self._begun and not self._closed:
            for pair in self.outgoing.pairs.values():
                if pair.waiting and not pair.session and self._place_of(pair.theirs) == node:
                    pair.tries, pair.retry_s = 0, 0.0
                    self._push(pair)
            self._ways.on_up(node)

    def on_changed(self, did: str) -> None:
        """Hear that an agent appeared or moved."""
        if self._begun and not self._closed:
            for pair in [p for p in self.outgoing.pairs.values() if p.waiting and not p.session]:
                if did_of(pair.theirs) == did:
                    pair.tries, pair.retry_s = 0, 0.0
                    self._push(pair)

    def withdrawn(self, agent: bytes) -> None:
        """Hear that an agent of this node is gone for good: what it has to read or to send is dead."""
        now_ms = self.unix_ms()
        if (inbox := self.inboxes.pop(agent, None)) is not None:
            gone = inbox.drain()
            self.commits.note(
                taken=[(one.cursor,) for one in gone if one.stored],
                dead=[DeadRow(1, one.message.id, encode(one.message), "", "mail.withdrawn", now_ms) for one in gone],
            )
        if not self._begun:
            return
        self.sessions.end_of(did_of(agent), "session.no_agent")
        for pair in [p for p in self.outgoing.pairs.values() if p.mine == agent]:
            while pair.queue:
                self._give_up(pair.queue.popleft(), DEAD, "mail.withdrawn")
            pair.next_expiry_s = float("inf")

    def _is_wanted(self, node: NodeId) -> bool:
        return any(p.waiting and p.node == node for p in self.outgoing.pairs.values())

    def _on_way(self, node: NodeId) -> None:
        self._feed(inputs.PathUp(node))
        for pair in self.outgoing.pairs.values():
            if pair.node == node and pair.queue:
                pair.retry_s = 0.0
                self._push(pair)

    def _on_no_way(self, node: NodeId) -> None:
        self._parcels.pop(node, None)
        self._feed(inputs.PathDown(node))
        self.sessions.lost(node)

    def _fill(self, node: NodeId, room: int) -> bytes | None:
        """Ask the courier for the next parcel for a peer, seal and encode it."""
        parcels = self._parcels.get(node)
        if parcels is None:
            parcels = self._parcels[node] = deque()
        if not parcels:
            self._feed(inputs.Room(node, room))
        return self._sealed(parcels.popleft()) if parcels else None

    def _sealed(self, parcel: Parcel) -> bytes:
        session = self.sessions.sessions.get(parcel.session)
        if session is None:
            parcel.letters = []
        elif parcel.letters:
            seal, number = session.channel.seal, parcel.session
            for letter in parcel.letters:
                letter.body = seal(letter.seq, _aad(number, letter.seq, letter.after, letter.lane), letter.body)
            session.used_s = self.mono_s()
        return encode_frame(parcel)

    def _on_frame(self, peer: NodeId, raw: bytes) -> None:
        frame = decode_frame(raw)
        if isinstance(frame, Parcel):
            self._on_parcel(peer, frame)
        elif isinstance(frame, Open):
            self.sessions.on_open(peer, frame)
        elif isinstance(frame, Accept):
            self.sessions.on_accept(peer, frame)
        elif isinstance(frame, Refuse):
            self.sessions.on_refuse(peer, frame)
        else:
            self.sessions.on_close(peer, frame)

    def _on_parcel(self, peer: NodeId, parcel: Parcel) -> None:
        session = self.sessions.sessions.get(parcel.session)
        if session is None:
            self.sessions.unknown(peer, parcel.session)
            return
        if session.node != peer:
            raise DecodeError("a parcel of a session with another node", code="session.foreign")
        if parcel.letters:
            opened, number = session.channel.open, parcel.session
            for letter in parcel.letters:
                letter.body = opened(letter.seq, _aad(number, letter.seq, letter.after, letter.lane), letter.body)
            session.used_s = self.mono_s()
        self._feed(inputs.Arrived(peer, parcel))

    # The courier

    def _feed(self, incoming: Any) -> None:
        """Give the courier an input and carry out the effects before returning; inputs made by effects follow in order."""
        if self._courier is None or self._closed:
            return
        self._fed.append(incoming)
        if self._feeding:
            return
        self._feeding = True
        out, fed = self._out, self._fed
        try:
            while fed:
                one = fed.pop(0)
                try:
                    self._courier.handle(one, self.mono_s(), out)
                except Exception:  # noqa: BLE001 as in ``node.driver``: one bad input, one lost step
                    _log.exception("courier failed on %s", type(one).__name__)
                if out.sends:
                    answers = type(one) is inputs.Room
                    for send in out.sends:
                        if answers:
                            self._parcels[send.to].append(send.message)
                        else:  # an acknowledgement, which the courier says at once
                            self._ways.push(send.to, self._sealed(send.message))
                    out.sends.clear()
                if out.timers:
                    for delay_s, timer in out.timers:
                        self._arm(delay_s, timer)
                    out.timers.clear()
                if out.events:
                    events, out.events = out.events, []
                    for event in events:
                        self._on_event(event)
        finally:
            self._feeding = False

    def _arm(self, delay_s: float, timer: Timer) -> None:
        due_s = self.mono_s() + delay_s

        def fire() -> None:
            self._timers.discard(handle)
            if self.mono_s() < due_s and not self._closed:
                self._arm(due_s - self.mono_s(), timer)
                return
            self._feed(timer)

        handle = asyncio.get_running_loop().call_later(max(0.0, delay_s), fire)
        self._timers.add(handle)

    def _on_event(self, event: Any) -> None:
        kind = type(event)
        if kind is inputs.Deliver:
            self._on_deliver(event.session, event.letters)
        elif kind is inputs.Delivered:
            self._on_delivered(event.tags)
        elif kind is inputs.Ready:
            self._ways.ready(event.peer)
        elif kind is inputs.Expired:
            for tag in event.tags:
                if (out := self.outgoing.by_tag.get(tag)) is not None:
                    out.pair.under_way -= 1
                    self._give_up(out, EXPIRED, out.pair.reason or "mail.expired")
        elif kind is inputs.Returned:
            self._on_returned(event.tags, event.reason)
        elif kind is inputs.Blocked:
            self._note_block(event.session, "mail.blocked")
        elif kind is inputs.Unblocked:
            self._note_block(event.session, "")
        elif kind is inputs.Refused:
            self.sessions.end(event.session, "session.busy")
        elif kind is inputs.Idle:
            pass  # sessions end by ``Handshakes.tidy``
        else:
            self._on_misbehaved(event.peer, event.code, event.detail)

    def _note_block(self, number: int, reason: str) -> None:
        session = self.sessions.sessions.get(number)
        if session is not None and (pair := self.outgoing.pairs.get((session.mine, session.theirs))) is not None:
            pair.reason = reason

    def _on_delivered(self, tags: list[int]) -> None:
        outgoing = self.outgoing
        ended: list[Ended] = []
        pair: Pair | None = None
        for tag in tags:
            out = outgoing.by_tag.get(tag)
            if out is None:
                continue
            pair = out.pair
            pair.under_way -= 1
            outgoing.end(out, DELIVERED)
            self.tally.delivered += 1
            if out.durable:
                ended.append(Ended(DELIVERED, "", self.unix_ms(), out.tries + 1, tag))
        if ended:
            self.commits.note(ended=ended)
        if pair is not None:
            pair.since_s, pair.tries = 0.0, 0
            if pair.queue:
                self._push(pair)

    def _on_returned(self, tags: list[int], reason: str) -> None:
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
                self._push(pair)

    def _give_up(self, out: Out, state: int, reason: str) -> None:
        """End a message that was not delivered, and put it on the list of dead letters."""
        now_ms, body = self.unix_ms(), out.body
        self.outgoing.end(out, state, reason)
        out.body = b""
        if state == EXPIRED:
            self.tally.expired += 1
        else:
            self.tally.dead += 1
        if out.acked:
            self.commits.note(
                ended=[Ended(state, reason, now_ms, out.tries, out.tag)] if out.durable else None,
                dead=[DeadRow(0, out.id, body, out.asked, reason, now_ms)],
            )

    # Sessions and pairs

    def _push(self, pair: Pair) -> None:
        """Let what waits between two agents go as far as it can."""
        if not pair.queue or self._closed:
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
            return
        now_s = self.mono_s()
        pair.since_s = pair.since_s or now_s
        node = self._place_of(pair.theirs)
        if node is None:
            pair.reason = "mail.no_agent"
            return
        pair.node = node
        if not self._ways.is_open(node):
            pair.reason = "mail.no_route"
            self._ways.need(node)
            return
        if now_s < pair.retry_s or self.sessions.is_begun(pair.mine, pair.theirs):
            return
        try:
            if not self.sessions.begin(pair.mine, pair.theirs, node):
                pair.retry_s = now_s + _RETRY_S
        except MeshError as error:
            pair.reason, pair.retry_s = error.code, now_s + _RETRY_MAX_S

    def _on_session(self, session: Session) -> None:
        self._feed(inputs.SessionUp(session.id, session.node))
        inbox = self.inboxes.get(session.mine)
        if inbox is not None and inbox.closed_to:
            inbox.closed_to[session.id] = None
            self._open_windows(inbox)
        try:
            pair = self.outgoing.pair(session.mine, session.theirs)
        except Busy:
            return
        if not pair.session:
            pair.session, pair.node = session.id, session.node
            pair.tries, pair.retry_s, pair.reason = 0, 0.0, ""
            self._push(pair)

    def _on_session_down(self, session: Session, reason: str) -> None:
        pair = self.outgoing.pairs.get((session.mine, session.theirs))
        if pair is not None and pair.session == session.id:
            pair.session = next(
                (s.id for s in self.sessions.sessions.values() if s.mine == pair.mine and s.theirs == pair.theirs), 0
            )
        inbox = self.inboxes.get(session.mine)
        if inbox is not None:
            inbox.closed_to.pop(session.id, None)
        self._feed(inputs.SessionDown(session.id, reason))

    def _on_failed(self, mine: bytes, theirs: bytes, code: str) -> None:
        pair = self.outgoing.pairs.get((mine, theirs))
        if pair is None or pair.session:
            return
        pair.tries += 1
        pair.reason = code
        delay_s = min(_RETRY_S * 2 ** min(pair.tries, 8), _RETRY_MAX_S) * self._rng.uniform(0.5, 1.0)
        pair.retry_s = self.mono_s() + delay_s
        if code == "session.refused":
            while pair.queue:
                self._give_up(pair.queue.popleft(), DEAD, "mail.refused")

    # Arrival

    def _on_deliver(self, number: int, letters: list[Letter]) -> None:
        session = self.sessions.sessions.get(number)
        if session is None:
            return
        mine, theirs = session.mine, session.theirs
        now_ms = self.unix_ms()
        seen, seqs = self._seen, []
        entries: list[Waiting] = []
        slow: list[tuple[Message, bytes]] = []
        slow_seqs: list[int] = []
        number_now = self._number
        has_sinks = bool(self._sinks)
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
            if message.sent_ms + message.ttl_ms <= now_ms - AHEAD_MS_MAX or message.sent_ms > now_ms + AHEAD_MS_MAX:
                self._on_stale(message, now_ms)
                seqs.append(letter.seq)
                continue
            if message.durable and message.delivery:
                slow.append((message, body))
                slow_seqs.append(letter.seq)
                continue
            seqs.append(letter.seq)
            if message.delivery and not seen.fresh(theirs, message.id):
                self.tally.repeated += 1
                continue
            number_now += 1
            entries.append(Waiting(number_now, message, now_ms, encrypted=True, stored=False))
        self._number = number_now
        waits: list[Awaitable[None]] = []
        if entries:
            if has_sinks:
                waits = self._sort(entries)
            else:
                self.tally.received += len(entries)
                inbox = self.inbox_of(mine)
                inbox.put(entries)
                if inbox.room < _TIGHT:
                    inbox.closed_to[number] = None
                    self._open_windows(inbox)
        seen.tidy(self.mono_s())
        if slow:
            self._scope.spawn(self._keep_then_take(number, mine, slow, slow_seqs), "keep")
        if waits:
            self._scope.spawn(self._wait_then_take(number, waits, seqs), "sink")
        elif seqs:
            self._feed(inputs.Taken(number, seqs))

    def _on_stale(self, message: Message, now_ms: int) -> None:
        reason = "mail.expired" if message.sent_ms <= now_ms else "mail.clock"
        self.commits.note(dead=[DeadRow(1, message.id, encode(message), "", reason, now_ms)])

    async def _keep_then_take(self, number: int, mine: bytes, pieces: list[tuple[Message, bytes]], seqs: list[int]) -> None:
        """Put durable messages on disk, hand them over, and acknowledge them; on a full disk their sender keeps them."""
        delay_s = _RETRY_S
        while True:
            try:
                await self._keep(pieces, encrypted=True)
                break
            except StoreError as error:
                self.refused_writes += 1
                _log.error("messages that came cannot be stored, their senders keep them: %s", error)
                session = self.sessions.sessions.get(number)
                if session is None:
                    return
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _RETRY_MAX_S)
        inbox = self.inbox_of(mine)
        if inbox.room < _TIGHT:
            inbox.closed_to[number] = None
            self._open_windows(inbox)
        self._feed(inputs.Taken(number, seqs))

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

    # Now and then

    async def _turn(self) -> None:
        tidied_s = self.mono_s()
        while True:
            await asyncio.sleep(_TURN_S)
            now_s, now_ms = self.mono_s(), self.unix_ms()
            self.sessions.tidy(self._is_busy)
            if self._any_refused():
                self._part()
            self._seen.tidy(now_s)
            for pair in list(self.outgoing.pairs.values()):
                for out in self.outgoing.expired(pair, now_s):
                    self._give_up(out, EXPIRED, pair.reason or "mail.expired")
                if pair.queue and not pair.session:
                    self._push(pair)
            for inbox in self.inboxes.values():
                inbox.expire(now_s, now_ms)
            if now_s - tidied_s > _TIDY_S and self.commits.exists:
                tidied_s = now_s
                with contextlib.suppress(MeshError):
                    await self.commits.read(lambda store: store.tidy(self.unix_ms()))

    def _part(self) -> None:
        """End the sessions of those that were revoked."""
        for session in list(self.sessions.sessions.values()):
            for did in (session.node, did_of(session.theirs), did_of(session.mine)):
                if self._refusal_of(did) is not None:
                    self.sessions.end(session.id, "session.refused")
                    break

    def _is_busy(self, session: Session) -> bool:
        pair = self.outgoing.pairs.get((session.mine, session.theirs))
        return pair is not None and pair.session == session.id and pair.waiting > 0
