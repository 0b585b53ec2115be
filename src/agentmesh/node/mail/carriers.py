"""Mail through a third node, for agents whose nodes are never there at the same time (docs/spec/mail.md §9).

When a recipient's node has been away for a while, durable messages to it are sealed to the recipient's agreement key and left
with up to three nodes, those nearest to the recipient's DHT key. They keep them, sealed, and hand them to the recipient's node
when it is there; what the recipient signs for it goes back to the sender. The message waits at its sender all the same:
whichever way is first delivers it, and the recipient drops the second by its id.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Sequence

from agentmesh.core.courier.message import TTL_MS_MAX, decode
from agentmesh.errors import MeshError, PeerError
from agentmesh.identity.agreement import Agreement
from agentmesh.identity.keys import SIGNATURE_BYTES, KeyPair, verify
from agentmesh.ids import NodeId, did_of, public_key_of
from agentmesh.net.base import Contact, Stream
from agentmesh.net.tasks import TaskScope
from agentmesh.node.links import Links, Peer
from agentmesh.node.mail.arrivals import Arrivals
from agentmesh.node.mail.commits import Commits
from agentmesh.node.mail.departures import Departures
from agentmesh.node.mail.outgoing import Out, Pair
from agentmesh.store.mail import CARRIED, QUEUED, CarriedRow
from agentmesh.wire import v1

_log = logging.getLogger("agentmesh.mail")

#: How long a recipient's node must have been away before its mail is left with others, seconds.
AWAY_S = 5.0
CARRIERS = 3
#: How long a deposit that failed rests, and how often those for whom something is kept are tried, seconds.
_REST_S = 30.0
#: What one node may leave here, and all together: letters and bytes.
DEPOSITOR_MAX, DEPOSITOR_BYTES_MAX = 1_000, 16 * 1024 * 1024
CARRIED_ALL_MAX, CARRIED_BYTES_MAX = 10_000, 64 * 1024 * 1024
_LETTER_BYTES_MAX = 3 * 1024 * 1024
_ANSWER_S = 10.0
#: Nodes that are tried at once.
_SEEK_MAX = 64
_MARK_BYTES = 32
_MARK = b"agentmesh/1 mail mark\n"
_RECEIPT = b"agentmesh/1 mail receipt\n"


def mark_of(sender: bytes, recipient: bytes, message_id: bytes) -> bytes:
    """Return what a carried message is known by: without its id, which is random and secret, nobody can compute it."""
    return hashlib.sha256(_MARK + sender + recipient + message_id).digest()


class Carriers:
    """Leave, keep, hand over.

    Args:
        commits: The store.
        departures: What waits here.
        arrivals: Takes what is handed over.
        links: Links to peers.
        scope: Owns tasks.
        contact_of: Where a node may be.
        key_of: The key of an agent here.
        place_of: The node where an agent lives.
        agreement_of: The agreement key that an agent's manifest names; None if it names none.
        agreement_keys: The private agreement keys of an agent here, by kid.
        near: The nodes nearest to an agent's DHT key, best first.
        refusal_of: Why a key may do nothing here.
        on_change: Called with how much is kept for others.
        mono_s, unix_ms: The clocks.
    """

    def __init__(
        self,
        commits: Commits,
        departures: Departures,
        arrivals: Arrivals,
        links: Links,
        scope: TaskScope,
        *,
        contact_of: Callable[[NodeId], Contact],
        key_of: Callable[[bytes], KeyPair | None],
        place_of: Callable[[bytes], NodeId | None],
        agreement_of: Callable[[bytes], Agreement | None],
        agreement_keys: Callable[[bytes], dict[str, bytes]],
        near: Callable[[bytes], Sequence[NodeId]],
        refusal_of: Callable[[str], MeshError | None],
        on_change: Callable[[tuple[int, int]], None],
        mono_s: Callable[[], float],
        unix_ms: Callable[[], int],
    ) -> None:
        self._commits, self._departures, self._arrivals = commits, departures, arrivals
        self._links, self._scope, self._contact_of = links, scope, contact_of
        self._key_of, self._place_of, self._near, self._refusal_of = key_of, place_of, near, refusal_of
        self._agreement_of, self._agreement_keys = agreement_of, agreement_keys
        self._on_change, self._mono_s, self._unix_ms = on_change, mono_s, unix_ms
        self._rests: dict[Pair, float] = {}
        #: Nodes that are being given their mail, and whether to look again afterwards.
        self._handing: dict[NodeId, bool] = {}
        #: Whether anything of others, or receipts for them, may be in the store.
        self.keeps = False
        self._seeking = False

    async def open(self) -> None:
        """Look what is kept from earlier runs. Raises StoreError."""
        self._seek()
        self._on_change(await self._commits.read(lambda store: store.carried_totals()))

    # At the sender

    async def turn(self) -> None:
        """Leave the mail of those who have been away for a while with others."""
        now_s = self._mono_s()
        for pair in list(self._departures.outgoing.pairs.values()):
            if not pair.waiting or not pair.node or self._rests.get(pair, 0.0) > now_s:
                continue
            if self._departures.ways.away_s(pair.node, now_s) < AWAY_S:
                continue
            if pair.session:
                self._departures.handshakes.end(
                    pair.session, "session.away", tell=False
                )  # so that all of it waits here
            outs = [out for out in pair.queue if out.durable and out.state == QUEUED]
            if outs:
                while len(self._rests) > 1_000:
                    del self._rests[next(iter(self._rests))]
                self._rests[pair] = now_s + _REST_S
                with contextlib.suppress(MeshError):
                    await self._deposit(pair, outs[: v1.CARRIED_MAX])
                    self._rests.pop(pair, None)

    async def _deposit(self, pair: Pair, outs: list[Out]) -> None:
        """Leave messages with the carriers. Raises MeshError: they could not be sealed, or nobody took them."""
        from agentmesh.identity.sealed import seal

        key, agreement = self._key_of(pair.mine), self._agreement_of(pair.theirs)
        if key is None or agreement is None:
            raise PeerError("the recipient names no key to seal to", code="sealed.key")
        recipient, iat = did_of(pair.theirs), self._unix_ms() // 1000
        letters: list[v1.Carried] = []
        size = 0
        for out in outs:
            sealed = seal(out.body, sender=key, recipient=recipient, agreement=agreement, iat=iat)
            if letters and size + len(sealed) > v1.CARRY_BYTES_MAX:
                break
            size += len(sealed)
            letters.append(v1.Carried(mark_of(pair.mine, pair.theirs, out.id), pair.theirs, out.expires_ms, sealed))
        taken: dict[bytes, int] = {}
        asked = 0
        for node in self._near(pair.theirs):
            if asked >= CARRIERS:
                break
            if node in (pair.node, self._departures.handshakes.node_id):
                continue
            reply = await self._ask(node, v1.CarryOpen(v=v1.WIRE_VERSION, verb="deposit", letters=letters))
            if reply is not None and reply.taken:
                asked += 1
                for mark in reply.taken:
                    taken[mark] = taken.get(mark, 0) + 1
        carried = [
            out
            for out in outs[: len(letters)]
            if mark_of(pair.mine, pair.theirs, out.id) in taken and out.state == QUEUED
        ]
        for out in carried:
            out.state = CARRIED
        if not carried:
            raise PeerError("no node carries the message", code="mail.no_carrier")
        await self._commits.read(lambda store: store.note_carried([out.tag for out in carried]))

    async def _ask(self, node: NodeId, message: v1.CarryOpen) -> v1.CarryReply | None:
        """Ask another node; None if it does not answer, or not in the way it should."""
        try:
            async with asyncio.timeout(_ANSWER_S):
                peer = await self._links.connect(self._contact_of(node))
                if peer.calls_only:
                    return None
                stream = await peer.link.open_stream()
                try:
                    await stream.send(v1.encode(message))
                    await stream.finish()
                    raw = await stream.recv()
                finally:
                    stream.reset(0)
            return None if raw is None else v1.decode_carry_reply(raw)
        except (MeshError, TimeoutError) as error:
            _log.debug("node %s does not answer about mail: %s", node, error)
            return None

    def _on_receipts(self, receipts: Sequence[tuple[bytes, bytes]]) -> list[bytes]:
        """End messages whose recipients signed for them; return the marks that hold, or that nothing waits for any more."""
        waiting = {
            mark_of(out.pair.mine, out.pair.theirs, out.id): out
            for out in self._departures.outgoing.by_tag.values()
            if out.state == CARRIED
        }
        heard: list[bytes] = []
        for mark, receipt in receipts:
            out = waiting.get(mark)
            if out is not None:
                try:
                    verify(out.pair.theirs, _RECEIPT + mark, receipt)
                except PeerError:
                    continue
                self._departures.on_receipt(out)
            heard.append(mark)
        return heard

    # At the carrier

    async def serve(self, peer: Peer, stream: Stream, message: v1.CarryOpen) -> None:
        """Answer a CarryOpen."""
        node = peer.link.peer
        if len(message.letters) > v1.CARRIED_MAX or len(message.receipts) > v1.CARRIED_MAX:
            raise PeerError("more letters than one message may have", code="wire.too_many")
        reply = v1.CarryReply()
        if message.verb == "deposit":
            reply.taken = await self._keep(node, message.letters)
        elif message.verb == "hand":
            reply = await self._take(message.letters)
        elif message.verb == "receipts":
            reply.taken = self._on_receipts(message.receipts)
        await stream.send(v1.encode(reply))
        await stream.finish()

    async def _keep(self, node: NodeId, letters: Sequence[v1.Carried]) -> list[bytes]:
        """Keep the letters of a node, as far as there is room for them."""
        now_ms, depositor = self._unix_ms(), public_key_of(node)
        count, size, all_count, all_size = await self._commits.read(lambda store: store.carried_load(depositor))
        taken: list[bytes] = []
        places: dict[NodeId, None] = {}
        for letter in letters:
            length = len(letter.sealed)
            if (
                len(letter.mark) != _MARK_BYTES
                or len(letter.recipient) != 32
                or not 0 < length <= _LETTER_BYTES_MAX
                or not now_ms < letter.expires_ms <= now_ms + 2 * TTL_MS_MAX
            ):
                continue
            count, size, all_count, all_size = count + 1, size + length, all_count + 1, all_size + length
            if count > DEPOSITOR_MAX or size > DEPOSITOR_BYTES_MAX:
                break
            if all_count > CARRIED_ALL_MAX or all_size > CARRIED_BYTES_MAX:
                break
            row = CarriedRow(letter.mark, b"", letter.recipient, depositor, letter.sealed, letter.expires_ms)
            await self._commits.read(lambda store, row=row: store.carry(row))
            taken.append(letter.mark)
            place = self._place_of(letter.recipient)
            if place is not None and self._links.is_connected(place):
                places[place] = None
        if taken:
            self._seek()
        self._on_change(await self._commits.read(lambda store: store.carried_totals()))
        for place in places:
            self.hand_over(place)
        return taken

    def _seek(self) -> None:
        """Try from now on, now and then, to reach those for whom something is kept."""
        self.keeps = True
        if not self._seeking:
            with contextlib.suppress(MeshError):
                self._scope.spawn(self._seek_loop(), "carry")
                self._seeking = True

    async def _seek_loop(self) -> None:
        while True:
            await asyncio.sleep(_REST_S)
            with contextlib.suppress(MeshError):
                now_ms = self._unix_ms()
                await self._commits.read(lambda store, now_ms=now_ms: store.tidy(now_ms))
                places: dict[NodeId, None] = {}
                for recipient in await self._commits.read(lambda store: store.carried_recipients(CARRIED_ALL_MAX)):
                    if (place := self._place_of(recipient)) is not None and len(places) < _SEEK_MAX:
                        places[place] = None
                for place in places:
                    self.hand_over(place)
                self._on_change(await self._commits.read(lambda store: store.carried_totals()))

    def on_up(self, node: NodeId) -> None:
        """Hear that a link to a node is up: there may be letters for it."""
        self.hand_over(node)

    def hand_over(self, node: NodeId) -> None:
        """Give a node what is kept for its agents, and tell it which of its own letters arrived."""
        if node in self._handing:
            self._handing[node] = True
        elif self.keeps:
            with contextlib.suppress(MeshError):
                self._scope.spawn(self._hand(node), "hand-mail")
                self._handing[node] = False

    def on_changed(self, did: str) -> None:
        """Hear that an agent appeared or moved: there may be letters for it."""
        if self.keeps:
            place = self._place_of(public_key_of(did))
            if place is not None and self._links.is_connected(place):
                self.hand_over(place)

    async def _hand(self, node: NodeId) -> None:
        try:
            depositor = public_key_of(node)
            told = await self._commits.read(lambda store: store.receipts_for(depositor, v1.CARRIED_MAX))
            if told:
                reply = await self._ask(node, v1.CarryOpen(v=v1.WIRE_VERSION, verb="receipts", receipts=told))
                if reply is not None:
                    heard = reply.taken
                    await self._commits.read(lambda store: store.drop_receipts(heard))
            for recipient in await self._commits.read(lambda store: store.carried_recipients(CARRIED_ALL_MAX)):
                if self._place_of(recipient) == node:
                    while await self._hand_some(node, recipient):
                        pass
            self._on_change(await self._commits.read(lambda store: store.carried_totals()))
        except MeshError as error:
            _log.info("mail for node %s was not handed over: %s", node, error)
        finally:
            if self._handing.pop(node, False):
                self.hand_over(node)

    async def _hand_some(self, node: NodeId, recipient: bytes) -> bool:
        """Give a node letters for one of its agents; say whether to go on."""
        rows = await self._commits.read(lambda store: store.carried_for(recipient, v1.CARRIED_MAX))
        letters: list[v1.Carried] = []
        size = 0
        for row in rows:
            size += len(row.body)
            if letters and size > v1.CARRY_BYTES_MAX:
                break
            letters.append(v1.Carried(row.mark, row.recipient, row.expires_ms, row.body))
        if not letters:
            return False
        reply = await self._ask(node, v1.CarryOpen(v=v1.WIRE_VERSION, verb="hand", letters=letters))
        if reply is None:
            return False
        given = {letter.mark for letter in letters}
        receipts = {
            mark: receipt
            for mark, receipt in reply.receipts
            if mark in given and len(receipt) == SIGNATURE_BYTES and _holds(recipient, mark, receipt)
        }
        done = [*receipts, *(mark for mark in reply.refused if mark in given)]
        gone = await self._commits.read(lambda store: store.drop_carried(done, receipts))
        for depositor in dict.fromkeys(row.depositor for row in gone):
            sender = NodeId(did_of(depositor))
            if self._links.is_connected(sender):
                self.hand_over(sender)
        return bool(gone)

    # At the recipient

    async def _take(self, letters: Sequence[v1.Carried]) -> v1.CarryReply:
        """Open letters for agents here, keep what they say, and sign for them."""
        from agentmesh.identity.sealed import unseal

        reply = v1.CarryReply()
        now_ms = self._unix_ms()
        for letter in letters:
            key = self._key_of(letter.recipient) if len(letter.recipient) == 32 else None
            if key is None:
                continue  # it may come back to this node, or its node may be another one by then
            try:
                opened = unseal(
                    letter.sealed,
                    recipient=key.did,
                    keys=self._agreement_keys(letter.recipient),
                    now=now_ms // 1000,
                )
                message = decode(opened.body)
            except MeshError as error:
                _log.info("a letter that was carried does not open: %s", error)
                reply.refused.append(letter.mark)
                continue
            is_forged = did_of(message.sender) != opened.sender or message.recipient != letter.recipient
            if is_forged or self._refusal_of(opened.sender) is not None or self._arrivals.is_stale(message, now_ms):
                reply.refused.append(letter.mark)
                continue
            if self._arrivals.is_full(message.recipient):
                continue  # the carrier keeps it until there is room
            await self._arrivals.keep([(message, opened.body)], encrypted=True)
            mark = mark_of(message.sender, message.recipient, message.id)
            reply.receipts.append((mark, key.sign(_RECEIPT + mark)))
        return reply


def _holds(recipient: bytes, mark: bytes, receipt: bytes) -> bool:
    try:
        verify(recipient, _RECEIPT + mark, receipt)
    except PeerError:
        return False
    return True
