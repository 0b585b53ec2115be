"""What the node offers about messages to people and programs beside it (``api.messaging.Mail``; docs/spec/mail.md §7)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from agentmesh.core.courier.message import Message, decode
from agentmesh.errors import AgentNotFound, MeshError, StateError, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId, did_of, public_key_of
from agentmesh.node.mail import views
from agentmesh.node.mail.acquaintances import Acquaintances
from agentmesh.node.mail.inbox import Waiting
from agentmesh.node.mail.mailroom import Mailroom
from agentmesh.node.mail.outgoing import Out
from agentmesh.node.registry import Registry
from agentmesh.node.resolve import Directory, id_of
from agentmesh.store.mail import DELIVERED, QUEUED, OutRow
from agentmesh.wire.message_views import (
    AckView,
    DeadLetters,
    GroupView,
    InboxPage,
    MailView,
    MessageRequest,
    SentView,
)

#: What one request may ask for.
LIMIT_MAX = 1_000
WAIT_S_MAX = 60.0
LEASE_S_MIN, LEASE_S_MAX = 1.0, 3_600.0
_OUTGOING_MAX = 100

#: Sends a message to many: the request, the sender's key, unix milliseconds.
Many = Callable[[MessageRequest, bytes], Awaitable[SentView]]


class Groups(Protocol):
    """Groups of agents (``node.mail.groups``)."""

    async def groups(self) -> list[GroupView]: ...
    async def set_group(self, name: str, members: Sequence[str]) -> GroupView: ...
    async def remove_group(self, name: str) -> GroupView: ...
    def close(self) -> None: ...


class MailDesk:
    """Take requests about messages.

    Args:
        key: The node's key.
        room: The mail room.
        registry: The agents beside this node.
        directory: Agents that may be written to.
        name_of_node: Name of a node for people.
        look_for: Looks in the whole mesh for an agent that the directory does not hold.
        is_node: Whether an id is that of a known node.
        away: Agents that were written to, for when the directory has forgotten them.
    """

    def __init__(
        self,
        key: KeyPair,
        room: Mailroom,
        registry: Registry,
        directory: Directory,
        *,
        name_of_node: Callable[[str], str],
        look_for: Callable[[str], Awaitable[None]],
        is_node: Callable[[NodeId], bool],
        away: Acquaintances,
    ) -> None:
        self.room = room
        self._key, self._registry, self._directory = key, registry, directory
        self.away = away
        self._name_of_node, self._look_for, self._is_node = name_of_node, look_for, is_node
        #: Prefix of ``to`` → who sends to so many: "group:", "topic:", "*".
        self.many: dict[str, Many] = {}
        #: Put in by ``node.mail.groups``.
        self.members: Groups | None = None

    def name_of(self, did: str) -> str:
        """Return the name of an agent or node for people; "" if it is not known."""
        entry = self._directory.entry(did)
        if entry is not None:
            return entry.manifest.name
        if self._is_node(NodeId(did)) or did == self._key.did:
            return self._name_of_node(did)
        return self.away.name(did)

    def local(self, ref: str) -> bytes:
        """Return the raw key of an agent of this node, by name or id; "" = the node itself. Raises AgentNotFound."""
        if ref in ("", self._key.did):
            return self._key.public
        agent = self._registry.get(ref) if ref.startswith("did:") else None
        if agent is None:
            name, _, node = ref.partition("@")
            agent = self._registry.by_name(name)
            if agent is not None and node not in ("", self._key.did, self._name_of_node(self._key.did)):
                agent = None
        if agent is None:
            raise AgentNotFound.near(ref, (a.manifest.name for a in self._registry.agents()))
        return public_key_of(agent.manifest.agent_id)

    async def send(self, request: MessageRequest) -> SentView:
        """Take a message (see ``api.messaging.Mail.send``)."""
        sender = self.local(request.sender)
        for prefix, many in self.many.items():
            if request.to.startswith(prefix):
                return await many(request, sender)
        if request.to.startswith(("group:", "topic:")) or request.to == "*":
            raise UsageError(f"this node cannot send to {request.to[:80]!r}", code="message.scope")
        recipient = await self.recipient(request.to)
        message = views.message_of(request, sender, recipient, self.room.unix_ms())
        if request.message_id and (known := await self.known(message.id)):
            return known
        (error,) = await self.room.post([message], request.to)
        if error is not None:
            raise error
        return await self.sent(views.id_text(message.id))

    async def recipient(self, ref: str) -> bytes:
        """Return the raw key of an agent or node of the mesh, by name or id. Raises AgentNotFound, UsageError."""
        if not ref:
            raise UsageError("a message needs a recipient", code="message.recipient")
        node = NodeId(ref)
        if ref == self._key.did or (ref.startswith("did:") and self._is_node(node)):
            return public_key_of(ref)
        name = ref.partition("@")[0]
        here = self._directory.entry(ref) if ref.startswith("did:") else self._directory.by_name(name)
        if not here and (away := self.away.find(ref)) is not None:
            return away  # it waits until its node is back, or goes through a third one
        await self._look_for(ref)
        did = id_of(ref, self._directory, self._name_of_node)
        if self._directory.entry(did) is None and not self._is_node(NodeId(did)):
            raise AgentNotFound.near(ref, (e.manifest.name for e in self._directory.entries()))
        return public_key_of(did)

    async def known(self, message_id: bytes) -> SentView | None:
        """Return what became of a message that was taken before; None if there is none of that id."""
        try:
            return await self.sent(views.id_text(message_id))
        except MeshError:
            return None

    async def sent(self, message_id: str) -> SentView:
        """Return what became of a message (see ``api.messaging.Mail.sent``)."""
        raw = views.read_id(message_id)
        rows = [_row(out) for out in self.room.outgoing.copies(raw)]
        if not rows and (here := self.room.local_of(raw)) is not None:
            rows = [here]
        if not rows and self.room.commits.exists:
            rows = await self.room.commits.read(lambda store: store.sent(raw))
        if not rows:
            raise views.missing(message_id)
        return self._sent(rows)

    def _sent(self, rows: Sequence[OutRow]) -> SentView:
        """Return one view of all copies: the state of the one that has come least far, but for those that ended badly."""
        newest = {row.recipient: row for row in sorted(rows, key=lambda row: row.tag)}  # one sent again counts once
        worst = min(newest.values(), key=lambda row: row.state)
        view = views.sent_view(worst, self.name_of, len(newest))
        view.tries = max(row.tries for row in rows)
        return view

    async def inbox(self, agent: str, *, limit: int, wait_s: float, lease_s: float, peek: bool) -> InboxPage:
        """Hand out what waits for an agent here (see ``api.messaging.Mail.inbox``)."""
        key = self.local(agent)
        box = self.room.inbox_of(key)
        limit = max(1, min(limit, LIMIT_MAX))
        lease_s = max(LEASE_S_MIN, min(lease_s, LEASE_S_MAX))
        until_s = self.room.mono_s() + max(0.0, min(wait_s, WAIT_S_MAX))
        while True:
            now_s = self.room.mono_s()
            ones = box.hand_out(limit, now_s, self.room.unix_ms(), lease_s, peek=peek)
            if ones or now_s >= until_s:
                break
            lease = box.next_lease_s()
            await box.wait(max(0.01, min(until_s, lease or until_s) - now_s))
        if not peek:
            self.room.arrivals.handed_out(ones)
        return InboxPage(
            messages=[views.waiting_view(one, self.name_of) for one in ones], waiting=len(box), bytes=box.bytes
        )

    async def ack(self, agent: str, message_ids: Sequence[str], *, back: bool) -> AckView:
        """Acknowledge messages, or give them back (see ``api.messaging.Mail.ack``)."""
        key = self.local(agent)
        box = self.room.inbox_of(key)
        raws = [views.read_id(one) for one in message_ids[:LIMIT_MAX]]
        if back:
            return AckView(done=sum(box.give_back(raw) for raw in raws))
        gone: list[Waiting] = [one for raw in raws for one in box.take(raw)]
        self.room.arrivals.taken(key, gone)
        if any(one.stored for one in gone):
            await self.room.commits.settle()
        return AckView(done=len(gone))

    async def figures(self) -> MailView:
        """Return the courier in figures."""
        room, tally = self.room, self.room.tally
        carried, carried_bytes = room.carried
        outs: list[Out] = []
        for out in room.outgoing.by_tag.values():
            if len(outs) >= _OUTGOING_MAX:
                break
            outs.append(out)
        return MailView(
            queued=len(room.outgoing.by_tag),
            queued_bytes=room.outgoing.bytes,
            inbox=sum(len(box) for box in room.inboxes.values()),
            inbox_bytes=sum(box.bytes for box in room.inboxes.values()),
            carried=carried,
            carried_bytes=carried_bytes,
            sent=tally.sent,
            delivered=tally.delivered,
            expired=tally.expired,
            dead=tally.dead,
            received=tally.received,
            repeated=tally.repeated,
            sessions=len(room.sessions.sessions),
            outgoing=[views.sent_view(_row(out), self.name_of) for out in outs],
        )

    async def dead(self, limit: int, start: int) -> DeadLetters:
        """Return messages that were given up, newest first."""
        if not self.room.commits.exists:
            return DeadLetters(letters=[])
        await self.room.commits.settle()
        rows, total = await self.room.commits.read(
            lambda store: store.dead(max(1, min(limit, LIMIT_MAX)), max(0, start))
        )
        return DeadLetters(
            letters=[views.dead_view(row, decode(row.body), self.name_of) for _, row in rows], total=total
        )

    async def retry(self, message_id: str) -> SentView:
        """Send a dead letter again (see ``api.messaging.Mail.retry``)."""
        raw = views.read_id(message_id)
        if not self.room.commits.exists:
            raise views.missing(message_id)
        await self.room.commits.settle()
        rows = await self.room.commits.read(lambda store: store.dead_of(raw))
        if not rows:
            raise views.missing(message_id)
        messages: list[Message] = [decode(row.body) for _, row in rows]
        error = await self.room.revive([number for number, _ in rows], messages, rows[0][1].asked)
        if error is not None:
            raise error
        return await self.sent(message_id)

    async def aclose(self) -> None:
        """Stop; what is durable waits on disk for the next start. Idempotent."""
        await self.room.aclose()
        if self.members is not None:
            self.members.close()
        self.away.close()

    async def groups(self) -> list[GroupView]:
        """Return the groups that agents of this node are in or made."""
        return [] if self.members is None else await self.members.groups()

    async def set_group(self, name: str, members: Sequence[str]) -> GroupView:
        """Make a group, or change who is in it."""
        return await self._groups().set_group(name, members)

    async def remove_group(self, name: str) -> GroupView:
        """End a group."""
        return await self._groups().remove_group(name)

    def _groups(self) -> Groups:
        if self.members is None:
            raise StateError("this node keeps no groups", code="mail.no_groups")
        return self.members


def _row(out: Out) -> OutRow:
    reason = out.reason or (out.pair.reason if out.state == QUEUED else "")
    return OutRow(
        out.tag,
        out.id,
        out.asked or did_of(out.pair.theirs),
        out.pair.theirs,
        b"",
        out.state,
        reason,
        out.sent_ms,
        out.expires_ms,
        0,
        out.tries + (out.state == DELIVERED),
    )
