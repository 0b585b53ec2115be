"""Messages to groups, and who is in them (docs/spec/sealed.md §7–8).

A message to a group is encrypted and signed once, by its sender's key for the group, and goes to each member as a copy of its own
through the courier, in order and acknowledged as any message. The copies carry the sender's key, inside the session
with that member, until one of them is known to be delivered. What cannot be opened here becomes a dead letter, never silence; if
only the key is missing its sender is asked to send it with the next message.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from agentmesh.core.courier.message import PAYLOAD_BYTES_MAX, TTL_MS_MAX, Kind, Message, encode
from agentmesh.errors import Busy, LimitError, MeshError, RecordNotFound, StoreError, Unauthorized, UsageError
from agentmesh.identity.group import sign_group
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import did_of
from agentmesh.node.mail import views
from agentmesh.node.mail.host import MailDesk
from agentmesh.node.mail.inbox import Waiting
from agentmesh.node.mail.rings import Missing, Ring, Rings, Sending
from agentmesh.store.mail import DELIVERED, DeadRow
from agentmesh.wire.message_views import GroupView, MessageRequest, SentView

_log = logging.getLogger("agentmesh.mail")

SCOPE = "group:"
#: Content types of what nodes say to each other about groups; agents never see them.
COPY = "application/vnd.agentmesh.group+msgpack"
STATEMENT = "application/vnd.agentmesh.group-members"
NEED = "application/vnd.agentmesh.group-need"
#: Room that a copy takes besides what was written: the letter's head, the key, the members.
_COPY_BYTES = 16 * 1024
#: For how many chains keys were asked for lately, and how long nobody asks again, seconds.
_ASKED_MAX, _ASK_S = 1_024, 30.0
#: A sender for whom so much waits is asked for nothing more.
_NEEDS_MAX = 64


class Groups:
    """Make groups, write to them, and open what comes.

    Args:
        desk: Where messages are taken and kept.
        key: The node's key; it signs the groups that are made here.
        key_of: Key of an agent of this node, or of the node, by raw public key.
        rings: What is known of groups.
    """

    def __init__(self, desk: MailDesk, key: KeyPair, key_of: Callable[[bytes], KeyPair | None], rings: Rings) -> None:
        self._desk, self._key, self._key_of, self.rings = desk, key, key_of, rings
        self._order = asyncio.Lock()
        self._asked: dict[bytes, float] = {}
        desk.room.on_message(SCOPE, self._take)

    # Members

    async def groups(self) -> list[GroupView]:
        """Return the groups that agents of this node are in, or that it made."""
        return [self._view(ring) for ring in self.rings.all()]

    async def set_group(self, name: str, members: Sequence[str]) -> GroupView:
        """Make a group of this node, or change who is in it; all members are told.

        Raises:
            AgentNotFound: a member is not known. UsageError: the name cannot be one, or nobody is named.
            LimitError: too many members, or groups. Nothing changed.
            Unauthorized: a group of that name that agents here are in was made elsewhere (code "group.owner").
            StoreError: it cannot be kept. Nothing changed.
        """
        if not members:
            raise UsageError("a group has members", code="group.empty", hint="agentmesh group remove NAME   ends one")
        keys = tuple(dict.fromkeys([await self._desk.recipient(ref) for ref in members]))
        ring = self._mine(name)
        if ring is not None and set(ring.group.members) == set(keys):
            return self._view(ring)
        return self._view(await self._change(name, ring, keys))

    async def remove_group(self, name: str) -> GroupView:
        """End a group of this node; all members are told. Raises RecordNotFound, Unauthorized, StoreError."""
        ring = self._mine(name)
        if ring is None or not ring.group.members:
            raise RecordNotFound(f"no group {name[:80]!r} was made here", code="not_found.group")
        return self._view(await self._change(name, ring, ()))

    def _mine(self, name: str) -> Ring | None:
        """Return this node's group of that name; refuse if people here know another by it."""
        ring = self.rings.own(name)
        others = [r for r in self.rings.all() if r.group.name.casefold() == name.casefold() and r is not ring]
        if (ring is None or not ring.group.members) and others:
            raise Unauthorized(
                f"another node made the group {name[:80]!r}",
                code="group.owner",
                why="only the node that made a group changes it, and a second group of its name would be mistaken for it",
                hint=f"ask there: {others[0].group.owner}, or choose another name",
            )
        return ring

    async def _change(self, name: str, ring: Ring | None, members: tuple[bytes, ...]) -> Ring:
        before = ring.group.members if ring else ()
        epoch = ring.group.epoch + 1 if ring else 1
        raw = sign_group(self._key, name=name, epoch=epoch, iat=int(time.time()), members=members)
        changed = self.rings.learn(raw)
        assert changed is not None
        told = dict.fromkeys([*members, *before])  # who left hears it too
        await self._desk.room.post([self._note(one, name, STATEMENT, raw) for one in told], f"{SCOPE}{name}")
        return changed

    def _note(self, to: bytes, name: str, content_type: str, payload: bytes, sender: bytes = b"") -> Message:
        return Message(
            id=uuid.uuid4().bytes,
            sender=sender or self._key.public,
            recipient=to,
            kind=Kind.STATE_SYNC,
            sent_ms=self._desk.room.unix_ms(),
            payload=payload,
            ttl_ms=TTL_MS_MAX,
            content_type=content_type,
            scope=f"{SCOPE}{name}",
        )

    def _view(self, ring: Ring) -> GroupView:
        dids = [did_of(member) for member in ring.group.members]
        return GroupView(
            name=ring.group.name,
            owner=ring.group.owner,
            members=dids,
            member_names=[self._desk.name_of(did) for did in dids],
            epoch=ring.group.epoch,
        )

    # Writing

    async def send(self, request: MessageRequest, sender: bytes) -> SentView:
        """Send to all members but the sender (``MailDesk.many``).

        Raises:
            RecordNotFound, UsageError: no such group, several, or nobody else is in it.
            Unauthorized: the sender is no member, nor the node that made the group (code "group.member").
            LimitError: too large. MeshError: none of the copies was taken; that of the first.
        """
        ring = self.rings.named(request.to.removeprefix(SCOPE))
        key = self._key_of(sender)
        if key is None or not ring.may_write(sender):
            raise Unauthorized(
                f"who writes to the group {ring.group.name!r} is a member of it",
                code="group.member",
                hint="agentmesh send group:NAME TEXT --from AGENT   names the member",
            )
        scope = f"{SCOPE}{ring.group.name}"
        message = views.message_of(request, sender, sender, self._desk.room.unix_ms(), scope)
        if request.message_id and (known := await self._desk.known(message.id)):
            return known
        members = [member for member in ring.group.members if member != sender]
        if not members:
            raise UsageError("nobody else is in that group", code="group.empty")
        if len(message.payload) + len(message.content_type) > PAYLOAD_BYTES_MAX - _COPY_BYTES:
            raise LimitError(
                f"a payload of {len(message.payload)} bytes, at most {PAYLOAD_BYTES_MAX - _COPY_BYTES} go to a group",
                code="message.too_large",
            )
        sending, share, letter = self.rings.write(ring, key, message)
        with_key, without = self.rings.copy(ring, letter, share), self.rings.copy(ring, letter, None)
        lacking = [member for member in members if not self._has(sending, member)]
        copies = [
            msgspec.structs.replace(
                message, recipient=member, content_type=COPY, payload=with_key if member in lacking else without
            )
            for member in members
        ]
        results = await self._desk.room.post(copies, request.to)
        failed = [error for error in results if error is not None]
        if len(failed) == len(members):
            raise failed[0]
        for member, error in zip(members, results, strict=True):
            if error is None and member in lacking:
                sending.given[member] = b"" if self._key_of(member) else message.id
        view = await self._desk.sent(views.id_text(message.id))
        view.copies, view.recipient, view.recipient_name = len(members) - len(failed), "", ""
        if failed:
            view.reason = view.reason or failed[0].code
        return view

    def _has(self, sending: Sending, member: bytes) -> bool:
        """Say whether a member is known to have the key of a chain."""
        carrier = sending.given.get(member)
        if not carrier:
            return carrier is not None
        room = self._desk.room
        outs = [out for out in room.outgoing.copies(carrier) if out.pair.theirs == member]
        if any(out.state == DELIVERED for out in outs):
            sending.given[member] = b""
            return True
        return False

    # Reading

    def _take(self, ones: list[Waiting]) -> Awaitable[None]:
        return self._receive(ones)

    async def _receive(self, ones: list[Waiting]) -> None:
        """Open what came, in order, and keep it.

        Raises:
            StoreError: it cannot be kept; what is durable comes again, and opens again.
        """
        async with self._order:
            opened: list[Waiting] = []
            needs: list[Message] = []
            for one in ones:
                try:
                    plain = self._open(one, needs)
                except MeshError as error:
                    if isinstance(error, StoreError) and one.message.durable:
                        raise
                    self._give_up(one.message, error)
                    continue
                if plain is not None:
                    one.message = plain
                    opened.append(one)
            if opened:
                pieces = [(one.message, encode(one.message) if one.message.durable else b"") for one in opened]
                await self._desk.room.arrivals.keep(pieces, encrypted=opened[0].encrypted, opened=True)
            try:
                self.rings.settle()
            except StoreError as error:
                _log.error("keys of groups cannot be kept, their senders will be asked after a restart: %s", error)
        if needs:
            await self._desk.room.post(needs)

    def _open(self, one: Waiting, needs: list[Message]) -> Message | None:
        """Return the message that a copy hides; None for what is not for the agent."""
        message = one.message
        if message.content_type == STATEMENT:
            self.rings.learn(message.payload)
            return None
        if message.content_type == NEED:
            self._on_need(message)
            return None
        if message.content_type != COPY:
            raise Unauthorized("a message to a group that was not encrypted for it", code="group.clear")
        if not one.encrypted and not self._desk.room.inbox_of(message.recipient).room:
            raise Busy("the inbox of a member is full", code="mail.full")  # from elsewhere its sender waits
        try:
            inner = self.rings.read(message)
        except Missing:
            self._ask(message, needs)
            raise
        return msgspec.structs.replace(message, content_type=inner.content_type, payload=inner.payload)

    def _ask(self, message: Message, needs: list[Message]) -> None:
        """Ask the sender of a letter for its key, now and then."""
        pair = self._desk.room.outgoing.pairs.get((message.recipient, message.sender))
        if pair is not None and pair.waiting >= _NEEDS_MAX:
            return  # it writes and takes nothing: what waits for it must not fill the room of all
        head, now_s = self.rings.head(message), self._desk.room.mono_s()
        if now_s - self._asked.pop(head.chain, -_ASK_S) < _ASK_S:
            return
        while len(self._asked) >= _ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        self._asked[head.chain] = now_s
        name = message.scope.removeprefix(SCOPE)
        needs.append(self._note(message.sender, name, NEED, head.group + head.chain, message.recipient))

    def _on_need(self, message: Message) -> None:
        """Hear that a member lacks the key of an agent here: the next copy carries it again."""
        ring = self.rings.of(message.payload[:16])
        sending = None if ring is None else ring.sending.get(message.recipient)
        if sending is not None and sending.chain.chain == message.payload[16:]:
            sending.given.pop(message.sender, None)

    def _give_up(self, message: Message, error: MeshError) -> None:
        _log.debug("a message to a group from %s is given up: %s", did_of(message.sender), error)
        room = self._desk.room
        row = DeadRow(1, message.id, encode(message), "", error.code, room.unix_ms())
        room.commits.note(dead=[row])

    def close(self) -> None:
        """Close the store. Idempotent."""
        self.rings.close()
