"""The mail room: takes messages from agents here, carries them to agents elsewhere, and keeps what comes (docs/spec/mail.md).

    post ─► departures ─► carriage (the courier) ─► ways ─► the peer's mail room ─► arrivals ─► inboxes
               │              │ sealed and opened by the sessions (``handshakes``)     │
            commits         timers                                                  commits

Everything is composed here and nothing of it runs before the first message. What is durable is on disk before ``post`` returns,
and at the recipient's before it is acknowledged. All methods belong to the daemon's loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from agentmesh.core.courier import inputs
from agentmesh.core.courier.message import Message, check, decode, encode
from agentmesh.core.machine import PeerMisbehaved
from agentmesh.errors import Busy, DecodeError, LimitError, MeshError, Unauthorized, UsageError
from agentmesh.identity.agreement import Agreement
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId, did_of
from agentmesh.net.base import Contact, Stream
from agentmesh.net.tasks import TaskScope
from agentmesh.node.links import Links, Peer
from agentmesh.node.mail.arrivals import Arrivals, Sink
from agentmesh.node.mail.carriage import Carriage
from agentmesh.node.mail.carriers import Carriers
from agentmesh.node.mail.commits import Commits
from agentmesh.node.mail.departures import Departures
from agentmesh.node.mail.handshakes import Handshakes, Session
from agentmesh.node.mail.inbox import Inbox, Waiting
from agentmesh.node.mail.outgoing import Out, Outgoing, Pair
from agentmesh.node.mail.tally import Tally
from agentmesh.node.mail.ways import Ways
from agentmesh.obs.metrics import Readings
from agentmesh.store.mail import DEAD, DELIVERED, OutRow

_log = logging.getLogger("agentmesh.mail")

#: How often what waits is looked at, and the store tidied, seconds.
_TURN_S = 0.5
_TIDY_S = 3_600.0
#: Messages between agents of this node whose fate is remembered.
_HERE_MAX = 8_192
#: Rows that are brought back at the start: what may wait at most.
_BACK_MAX = 100_000


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
        agreement_of, agreement_keys, near: See ``Carriers``.
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
        agreement_of: Callable[[bytes], Agreement | None],
        agreement_keys: Callable[[bytes], dict[str, bytes]],
        near: Callable[[bytes], Sequence[NodeId]],
        on_misbehaved: Callable[[NodeId, str, str], None],
        mono_s: Callable[[], float] = time.monotonic,
        unix_ms: Callable[[], int] = lambda: int(time.time() * 1000),
    ) -> None:
        self.node_id = NodeId(key.did)
        self._key_of, self._place_of, self._refusal_of = key_of, place_of, refusal_of
        self._any_refused = any_refused
        self._refuse, self._is_abroad, self._on_misbehaved = refuse, is_abroad, on_misbehaved
        self.mono_s, self.unix_ms = mono_s, unix_ms
        self._scope = TaskScope("mail")
        self.tally = Tally()
        self.commits = Commits(path, self._scope, self.tally.kept)
        #: How many messages of others, and how many bytes, this node keeps sealed.
        self.carried = (0, 0)
        self._here: dict[bytes, OutRow] = {}
        self._begun = self._closed = False
        rng = random.Random(os.urandom(16))  # noqa: S311 jitter, not secrets
        now_s, now_ms = (lambda: self.mono_s()), (lambda: self.unix_ms())
        self._carriage: Carriage = Carriage(lambda node, frame: self._ways.push(node, frame), self._on_event, now_s)
        feed = self._carriage.feed
        self._departures = Departures(
            self.commits, self.tally, rng, feed=feed, place_of=place_of, mono_s=now_s, unix_ms=now_ms
        )
        self.arrivals = Arrivals(
            self.commits, self.tally, self._scope, feed=feed, on_misbehaved=on_misbehaved, mono_s=now_s, unix_ms=now_ms
        )
        self._ways: Ways = Ways(
            links,
            contact_of,
            self._scope,
            rng,
            on_open=self._departures.on_way,
            on_lost=self._on_no_way,
            fill=self._carriage.fill,
            on_frame=self._carriage.on_frame,
            is_wanted=self._departures.is_wanted,
        )
        self.sessions = Handshakes(
            self.node_id,
            key_of=key_of,
            refusal_of=refusal_of,
            is_full=self.arrivals.is_full,
            push=self._ways.push,
            on_up=self._on_session,
            on_down=self._on_session_down,
            on_failed=self._departures.on_failed,
            on_misbehaved=on_misbehaved,
            clock=lambda: (self.mono_s(), self.unix_ms()),
        )
        self.carriers = Carriers(
            self.commits,
            self._departures,
            self.arrivals,
            links,
            self._scope,
            contact_of=contact_of,
            key_of=key_of,
            place_of=place_of,
            agreement_of=agreement_of,
            agreement_keys=agreement_keys,
            near=near,
            refusal_of=refusal_of,
            on_change=self._on_carried,
            mono_s=now_s,
            unix_ms=now_ms,
        )
        self._carriage.handshakes = self.arrivals.handshakes = self._departures.handshakes = self.sessions
        self._departures.ways = self._ways

    @property
    def outgoing(self) -> Outgoing:
        """What waits to go out, and what became of it."""
        return self._departures.outgoing

    @property
    def inboxes(self) -> dict[bytes, Inbox]:
        """What waits to be read, by the raw key of the agent."""
        return self.arrivals.inboxes

    def inbox_of(self, agent: bytes) -> Inbox:
        """Return the inbox of an agent (or of the node), made if need be."""
        return self.arrivals.inbox_of(agent)

    # Beginning and end

    async def open(self) -> None:
        """Bring back what waited when the node stopped; nothing is read, made or loaded if there was nothing.

        Raises:
            StoreError, ConfigError: the file cannot be read.
        """
        if not self.commits.exists:
            return
        self._begin()
        waiting = await self.commits.read(lambda store: store.waiting(_BACK_MAX))
        arrived = await self.commits.read(lambda store: store.arrived(_BACK_MAX))
        high = await self.commits.read(lambda store: store.highest())
        self.tally.bring_back(await self.commits.read(lambda store: store.tally()))
        self.commits.number = max(self.commits.number, high)
        for row in arrived:
            with contextlib.suppress(DecodeError, LimitError):
                one = Waiting(
                    row.cursor,
                    decode(row.body),
                    row.received_ms,
                    encrypted=bool(row.encrypted),
                    stored=True,
                    tries=row.tries,
                )
                self.inbox_of(row.agent).put([one])
        now_s, now_ms = self.mono_s(), self.unix_ms()
        await self.carriers.open()
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
            out.tries, out.state = row.tries, row.state
            self.tally.sent += 1
            self.outgoing.queue(pair, [out])
            pairs[pair] = None
        for pair in pairs:
            self._departures.push(pair)

    def _begin(self) -> None:
        """Make what works, with the first message."""
        if self._begun:
            return
        self._begun = True
        self._carriage.begin()
        self.commits.number = max(self.commits.number, self.unix_ms() * 1000)
        self._scope.spawn(self._turn(), "turn")
        self._scope.spawn(self._carry(), "carry")

    def on_message(self, scope_prefix: str, sink: Sink) -> None:
        """Have a part of the node take the messages whose scope begins so, before they reach any inbox."""
        self.arrivals.on_message(scope_prefix, sink)

    async def aclose(self) -> None:
        """Stop; what is durable waits on disk for the next start. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._carriage.close()
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
        outgoing, number = self.outgoing, self.commits.number
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
                rows.append(
                    OutRow(number, out.id, asked, pair.theirs, body, 0, "", message.sent_ms, out.expires_ms, 0, 0)
                )
                kept.append((index, out))
            if pair in ready:
                ready[pair].append(out)
            else:
                ready[pair] = [out]
        self.commits.number = number
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
            self._departures.push_soon(pair)
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

    async def _post_here(self, local: list[tuple[int, Message]], results: list[MeshError | None], asked: str) -> None:
        """Put messages to agents of this node into their inboxes, without a courier."""
        now_ms = self.unix_ms()
        fitting: list[tuple[int, Message]] = []
        counts: dict[bytes, int] = {}
        for index, message in local:
            counts[message.recipient] = counts.get(message.recipient, 0) + 1
            if (
                self.arrivals.sink_of(message) is None
                and self.inbox_of(message.recipient).room < counts[message.recipient]
            ):
                results[index] = Busy("the inbox of that agent is full", code="mail.full")
            elif message.expires_ms <= now_ms:
                results[index] = UsageError("its time to live is over already", code="message.ttl")
            else:
                fitting.append((index, message))
        try:
            await self.arrivals.keep(
                [(message, encode(message) if message.durable else b"") for _, message in fitting], encrypted=False
            )
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

    def read_measures(self, readings: Readings) -> None:
        """Tell the figures of mail (``obs.metrics``)."""
        tally = self.tally
        for what in ("sent", "delivered", "expired", "dead", "received", "repeated"):
            readings.set("agentmesh_messages_total", getattr(tally, what), what)
        readings.set("agentmesh_messages_queued", len(self.outgoing.by_tag))
        readings.set("agentmesh_inbox_messages", sum(len(inbox) for inbox in self.inboxes.values()))
        readings.set("agentmesh_carried_messages", self.carried[0])
        readings.set("agentmesh_mail_sessions", len(self.sessions.sessions))

    # What the parts tell each other

    async def serve(self, peer: Peer, stream: Stream) -> None:
        """Read the mail stream of a peer (``MailOpen``)."""
        self._begin()
        self._ways.need(peer.link.peer)
        await self._ways.serve(peer, stream)

    def on_up(self, node: NodeId) -> None:
        """Hear that a link to a node is up."""
        if not self._closed:
            if self._begun:
                self._departures.on_up(node)
            self.carriers.on_up(node)

    def on_changed(self, did: str) -> None:
        """Hear that an agent appeared or moved."""
        if not self._closed:
            if self._begun:
                self._departures.on_changed(did)
            self.carriers.on_changed(did)

    def withdrawn(self, agent: bytes) -> None:
        """Hear that an agent of this node is gone for good: what it has to read or to send is dead."""
        self.arrivals.withdrawn(agent)
        if self._begun:
            self._departures.withdrawn(agent)

    def _on_carried(self, load: tuple[int, int]) -> None:
        self.carried = load

    def _on_no_way(self, node: NodeId) -> None:
        self._carriage.drop(node)
        self._departures.on_no_way(node)

    def _on_session(self, session: Session) -> None:
        self._departures.on_session(session)
        self.arrivals.on_session(session)

    def _on_session_down(self, session: Session, reason: str) -> None:
        self.arrivals.on_session_down(session)
        self._departures.on_session_down(session, reason)

    def _on_event(self, event: Any) -> None:
        match event:
            case inputs.Deliver():
                self.arrivals.on_deliver(event.session, event.letters)
            case inputs.Delivered():
                self._departures.on_delivered(event.tags)
            case inputs.Ready():
                self._ways.ready(event.peer)
            case inputs.Expired():
                self._departures.on_expired(event.tags)
            case inputs.Returned():
                self._departures.on_returned(event.tags, event.reason)
            case inputs.Blocked():
                self._departures.note_block(event.session, "mail.blocked")
            case inputs.Unblocked():
                self._departures.note_block(event.session, "")
            case inputs.Refused():
                self.sessions.end(event.session, "session.busy")
            case PeerMisbehaved():
                self._on_misbehaved(event.peer, event.code, event.detail)
            case _:  # ``Idle``: sessions end by ``Handshakes.tidy``
                pass

    # Now and then

    async def _turn(self) -> None:
        tidied_s = self.mono_s()
        while True:
            await asyncio.sleep(_TURN_S)
            now_s, now_ms = self.mono_s(), self.unix_ms()
            self.sessions.tidy(self._departures.is_busy)
            if self._any_refused():
                self._part()
            self._departures.turn(now_s)
            self.arrivals.turn(now_s, now_ms)
            self._ways.turn(time.monotonic())
            if now_s - tidied_s > _TIDY_S and self.commits.exists:
                tidied_s = now_s
                with contextlib.suppress(MeshError):
                    await self.commits.read(lambda store: store.tidy(self.unix_ms()))

    async def _carry(self) -> None:
        while True:
            await asyncio.sleep(_TURN_S)
            await self.carriers.turn()

    def _part(self) -> None:
        """End the sessions of those that were revoked."""
        for session in list(self.sessions.sessions.values()):
            for did in (session.node, did_of(session.theirs), did_of(session.mine)):
                if self._refusal_of(did) is not None:
                    self.sessions.end(session.id, "session.refused")
                    break
