"""The node's part in the network: the brain on its driver, links and datagrams, and what has to be signed for it.

The machines hold no key and do no I/O. Here their wishes come true: messages go out on the path that fits, dials are made,
records are signed and fed back, contacts are kept for the next start. Nothing here decides about the network.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from agentmesh.core.brain import Brain, BrainConfig
from agentmesh.core.contacts.messages import ClockSkew, CutOff, DialWanted, ForgetContact, HangUp, StoreContact
from agentmesh.core.directory.messages import AgentChanged, AgentGone, RecordRefused, RenewalDue, SeqBehind
from agentmesh.core.machine import PeerMisbehaved
from agentmesh.core.messages import (
    AddressHint,
    Leaving,
    LocalGone,
    LocalNode,
    LocalRecord,
    LocalStatus,
    MemberDead,
    NodeRecordWanted,
    PeerDown,
    PeerUp,
    Provide,
    ProvidersWanted,
    Received,
    SignatureWanted,
    Signed,
    Source,
    Suggested,
    WallClock,
)
from agentmesh.core.orders.messages import LocalOrder, Obey, OrderHeard
from agentmesh.errors import MeshError
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest
from agentmesh.identity.node_record import ADDRESSES_MAX, node_body, read_node_record, sign_node_record
from agentmesh.identity.order import Order
from agentmesh.identity.provider import sign_provider
from agentmesh.identity.statement import sign_statement
from agentmesh.ids import AgentId, Key, NodeId, node_id, short
from agentmesh.net.base import Contact, Stream, Transport
from agentmesh.net.tasks import TaskScope
from agentmesh.net.udp import Told, UdpSocket
from agentmesh.node.admission import Admission
from agentmesh.node.config import NodeConfig
from agentmesh.node.driver import Driver
from agentmesh.node.finds import Finds
from agentmesh.node.links import Links, Peer
from agentmesh.node.paths import Paths
from agentmesh.obs.meters import Counts
from agentmesh.store.state import StateStore
from agentmesh.wire import v1
from agentmesh.wire.net_views import UdpView

_log = logging.getLogger("agentmesh.mesh")

_CLOCK_READ_S = 20.0
#: How soon a changed or ended credential and a revoked id count: two looks at files and one at each link cost 50 µs.
_REVIEW_S = 2.0
_WARNINGS_MAX = 100
_NAMES_MAX = 10_000
#: A node record is signed afresh when less than this part of its life is left.
_RENEW_AT = 0.5
_RECORD_LIFE_S = 86_400
_UDP_ADDRESSES_MAX = 3


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the rest of the node wants to hear from the network.

    Attributes:
        on_request: Coroutine run for every request stream with its first message.
        on_resign: An agent's manifest must be signed afresh, with a seq of at least the given one (0 = any).
        on_up: A link to a peer is up.
        on_misbehaved: A peer broke the protocol: (peer, code, detail).
        on_dead: A node that was watched does not answer any longer.
        on_changed: An agent appeared, or its record or health changed, or it left.
        on_withdrawn: An agent was withdrawn by its owner, and does not come back.
    """

    on_request: Callable[[Peer, Stream, v1.RequestMessage], Coroutine[Any, Any, None]]
    on_resign: Callable[[AgentId, int], None]
    on_up: Callable[[Peer], None]
    on_misbehaved: Callable[[NodeId, str, str], None]
    on_dead: Callable[[NodeId], None]
    on_changed: Callable[[AgentId], None] = lambda _: None
    on_withdrawn: Callable[[AgentId], None] = lambda _: None


class Obedience(Protocol):
    """What operators' orders change at this node (``node.orders``)."""

    def heard(self, order: Order) -> None:
        """Take a new order of an operator that this node obeys."""
        ...

    def refusal_of(self, did: str) -> MeshError | None:
        """Return why a key may not be linked with or heard; None if it may."""
        ...


class Borders(Protocol):
    """Says to whom this node belongs, and who is of another mesh (``node.borders``)."""

    def shown(self) -> str:
        """Return the voucher to greet with; "" if this node has none."""
        ...

    def greeted(self, node: NodeId, voucher: str, /) -> None:
        """Take the voucher that a node showed. Raises MeshError: it is forged, and there will be no link."""
        ...

    def is_abroad(self, node: NodeId, voucher: str, /) -> bool:
        """Say whether a node is of another mesh: nothing but calls goes between it and this one."""
        ...

    def addresses_of(self, node: NodeId, /) -> tuple[str, ...]:
        """Return where a node of another mesh may be reached."""
        ...


class NoBorders:
    """All nodes are of one mesh, and nobody vouches for any."""

    def shown(self) -> str:
        """Return ""."""
        return ""

    def greeted(self, node: NodeId, voucher: str, /) -> None:
        """Take nothing."""

    def is_abroad(self, node: NodeId, voucher: str, /) -> bool:
        """Return False."""
        return False

    def addresses_of(self, node: NodeId, /) -> tuple[str, ...]:
        """Return ()."""
        return ()


class Mesh:
    """Run the brain of one node.

    Args:
        key: The node's key; it signs what the machines want signed.
        config: Limits and intervals.
        brain_config: Knobs of the machines.
        transports: Ways to other nodes, preferred first.
        udp_listen: ``host:port`` for datagrams; "" = everything goes over links.
        state: Keeps contacts and the node's own sequence number.
        callbacks: Wishes of the rest of the node.
        admission: Judges peers by their credentials; None: anybody may come.
    """

    def __init__(
        self,
        key: KeyPair,
        config: NodeConfig,
        brain_config: BrainConfig,
        transports: Sequence[Transport],
        udp_listen: str,
        state: StateStore,
        callbacks: Callbacks,
        admission: Admission | None = None,
    ) -> None:
        self.node_id: NodeId = node_id(key.public)
        self.admission = admission or Admission(self.node_id)
        #: Asked for sentences to show in ``status``, each time.
        self.watches: list[Callable[[], list[str]]] = [self.admission.warnings]
        #: Run every few seconds: looks at files that may have changed.
        self.reviews: list[Callable[[], object]] = []
        self.config = config
        self._key, self._state, self._callbacks = key, state, callbacks
        self._scope = TaskScope("mesh")
        #: Who else wants to hear of events of the brain, by type; told before anything else is done.
        self.hears: dict[type, Callable[[Any], None]] = {}
        self._obedience: Obedience | None = None
        self._borders: Borders = NoBorders()
        self.brain = Brain(self.node_id, brain_config, random.Random(os.urandom(16)))  # noqa: S311 jitter, not secrets
        self._driver = Driver(self.brain, send=self._send, store=self._store, emit=self._emit)
        self.links = Links(
            self.node_id,
            config,
            transports,
            hello=self._hello,
            on_up=self._on_up,
            on_down=self._on_down,
            on_control=self._on_control,
            on_request=callbacks.on_request,
            on_misbehaved=self.note_misbehaviour,
            judge=self._judge,
            refusal_of=self._refusal_of,
            is_abroad=lambda peer, hello: self._borders.is_abroad(peer, "" if hello is None else hello.organisation),
        )
        self.udp: UdpSocket | None = None
        self._udp_listen = udp_listen
        self._paths: Paths = Paths(self.links, None, self.brain.addresses_of, lambda: self.now_s)
        self.sources: dict[NodeId, Source] = {}
        self.warnings: list[str] = []
        self.names: dict[str, str] = {}
        #: How often an agent came, changed or left, and what is known of peers changed; they only rise.
        self.agents_changed = self.peers_changed = 0
        self._refused: dict[tuple[NodeId, str], RecordRefused] = {}
        #: Records that were refused, and breaches of the protocol, by code.
        self.refusals, self.misbehaviour = Counts(1, series_max=100), Counts(1, series_max=100)
        self._skews: dict[NodeId, float] = {}
        self._sick: tuple[bytes, ...] = ()
        self._signed_addresses: tuple[str, ...] = ()
        self._signed_s = 0.0
        #: Gives the brain an input (``core.messages``), such as a broadcast to make.
        self.feed = self._driver.feed
        self._finds = Finds(self.feed)
        self.providers = self._finds.providers

    @property
    def now_s(self) -> float:
        """Monotonic seconds, the brain's clock."""
        return self._driver.now_s

    async def open(self) -> None:
        """Listen, sign this node's record and remember the contacts of earlier runs.

        Raises:
            NoRoute: no transport could be opened.
        """
        self._driver.feed(WallClock(time.time()))
        await self.links.open()
        await self._open_udp()
        self._sign_record(0, leaving=False)
        for contact in self._state.contacts():
            self.hint(NodeId(contact.node_id), tuple(contact.addresses), "stored")
        self._scope.spawn(self._clock_loop(), "clock")
        self._scope.spawn(self._review_loop(), "review")

    async def _open_udp(self) -> None:
        """Open the datagram socket; a machine that has none for us is a warning, no failure."""
        if not self._udp_listen:
            return
        udp = UdpSocket(
            self._key,
            self._udp_listen,
            on_message=self._on_datagram,
            on_notice=self._on_notice,
            on_bad=self.note_misbehaviour,
        )
        try:
            await udp.open()
        except MeshError as error:
            self.warn(f"no datagrams: {error}")
            return
        self.udp = udp
        self._paths = Paths(self.links, udp, self.brain.addresses_of, lambda: self.now_s)

    async def _clock_loop(self) -> None:
        while True:
            await asyncio.sleep(_CLOCK_READ_S)
            self._driver.feed(WallClock(time.time()))
            if self.addresses != self._signed_addresses or self.now_s - self._signed_s > _RECORD_LIFE_S * _RENEW_AT:
                self._sign_record(0, leaving=False)

    async def _review_loop(self) -> None:
        while True:
            await asyncio.sleep(_REVIEW_S)
            self.review()

    def review(self) -> None:
        """Look at changed credential files, show a renewed credential to every peer, and let go of those that lost theirs."""
        if self.admission.refresh():
            self.show_voucher()
        for look in self.reviews:
            look()
        for peer in (*self.links.peers(), *self.links.abroad()):
            try:
                self.admission.check(peer.link.peer)
            except MeshError as error:
                self.links.drop(peer.link.peer, str(error))
        self.admission.keep_only({peer.link.peer for peer in (*self.links.peers(), *self.links.abroad())})

    async def aclose(self) -> None:
        """Leave: tell neighbours, close links. Idempotent."""
        self._driver.feed(Leaving("shutting down"))
        await asyncio.sleep(0)
        self._driver.close()  # first: a timer or datagram now would ask for links that are closing
        await self.links.aclose()
        if self.udp is not None:
            await self.udp.aclose()
        await self._scope.aclose()

    # What the rest of the node says

    def local_record(self, manifest: Manifest) -> None:
        """Tell the mesh about an agent beside this node: a manifest or a tombstone."""
        self._driver.feed(LocalRecord(manifest))

    def local_health(self, agent_id: AgentId, healthy: bool) -> None:
        """Tell the mesh how an agent beside this node is."""
        self._driver.feed(LocalStatus(agent_id, healthy))

    def local_gone(self, agent_id: AgentId) -> None:
        """Tell the mesh that an agent beside this node is withdrawn without a tombstone."""
        self._driver.feed(LocalGone(agent_id))

    def obey_with(self, obedience: Obedience) -> None:
        """Tell orders of operators to this object from now on, and part from the keys that it refuses."""
        self._obedience = obedience

    def belong_with(self, borders: Borders) -> None:
        """Ask this object from now on to whom nodes belong."""
        self._borders = borders

    def show_voucher(self) -> None:
        """Greet every peer again: this node's credential or voucher is another one now."""
        for peer in self.links.peers():
            self.links.send(peer.link.peer, self._hello())

    def _judge(self, peer: NodeId, hello: v1.Hello) -> None:
        self.admission.admit(peer, hello.credential)
        self._borders.greeted(peer, hello.organisation)
        if (refusal := self._refusal_of(peer)) is not None:  # now that it is known to whom it belongs
            raise refusal

    def sort_out(self) -> None:
        """Close the links that would be greeted another way now: who is of another mesh has changed."""
        for peer in (*self.links.peers(), *self.links.abroad()):
            node = peer.link.peer
            abroad = self._borders.is_abroad(node, peer.hello.organisation) or peer.hello.calls_only
            if abroad is not peer.calls_only:
                self.links.drop(node, "it is on another side of the border now")

    def _refusal_of(self, did: str) -> MeshError | None:
        return None if self._obedience is None else self._obedience.refusal_of(did)

    def order(self, incoming: LocalOrder | Obey) -> None:
        """Tell the mesh about an order that this node took, or about whom it obeys; also before it is open."""
        self._driver.feed(WallClock(time.time()))
        self._driver.feed(incoming)

    def part_from(self, keys: Collection[str]) -> None:
        """Drop the links to nodes with these keys, which are revoked, and to those that belong to one of them."""
        for peer in (*self.links.peers(), *self.links.abroad()):
            if peer.link.peer in keys or self._refusal_of(peer.link.peer) is not None:
                self.links.drop(peer.link.peer, "its key is revoked")

    def hint(self, node: NodeId, addresses: tuple[str, ...], source: Source) -> None:
        """Take word of where a node might be: a hint, never trust."""
        if node != self.node_id and addresses:
            if len(self.sources) < _NAMES_MAX and node not in self.sources:
                self.sources[node] = source
                self.peers_changed += 1
            self._driver.feed(AddressHint(node, addresses, source))

    def contact_of(self, node: NodeId) -> Contact:
        """Return a node with the addresses known for it."""
        return Contact(node, self.brain.addresses_of(node) or self._borders.addresses_of(node))

    def suggested(self, peer: NodeId, records: Sequence[bytes], sought: int) -> None:
        """Hand the directory what a peer sent in answer to a search by text (``Suggested``); it verifies every record."""
        self._driver.feed(Suggested(peer, tuple(records), sought))

    async def find(
        self,
        key: Key,
        *,
        agents_max: int = 16,
        timeout_s: float = 3.0,
        on_found: Callable[[AgentId], None] = lambda _: None,
    ) -> int:
        """Look for agents under a key: here, at neighbours, in the DHT (see ``Finds.find``); return how many were found."""
        return await self._finds.find(key, agents_max, timeout_s, on_found)

    # What the brain asks for

    def _send(self, send: Any) -> None:
        self._paths.send(send)

    def _store(self, record: Any) -> None:
        if isinstance(record, StoreContact):
            self._state.save_contact(record.node_id, record.addresses, source="link", last_seen=int(time.time()))
        elif isinstance(record, ForgetContact):
            self._state.delete_contact(record.node_id)

    def _emit(self, event: Any) -> None:
        if (hear := self.hears.get(cast("type[Any]", type(event)))) is not None:
            hear(event)
        match event:
            case DialWanted():
                self.links.dial(Contact(event.node_id, event.addresses))
            case HangUp():
                self.links.hang_up(event.node_id)
            case NodeRecordWanted():
                self._on_record_wanted(event)
            case SignatureWanted():
                raw = sign_statement(self._key, event.context, event.body)
                self._driver.feed(Signed(event.context, raw))
            case ProvidersWanted():
                self._sign_providers(event)
            case PeerMisbehaved():
                self.note_misbehaviour(event.peer, event.code, event.detail)
            case RecordRefused():
                self._note_refusal(event)
            case MemberDead():
                _log.warning("node %s does not answer any longer", short(event.node))
                self.peers_changed += 1
                self.links.drop(event.node, "it does not answer")
                self._callbacks.on_dead(event.node)
            case CutOff():
                _log.warning("%d of %d known nodes are unreachable", event.lost, event.known)
            case ClockSkew():
                self._skews[event.peer] = event.skew_s
            case RenewalDue():
                self._callbacks.on_resign(event.agent_id, 0)
            case SeqBehind() if event.elsewhere:
                self.warn(f"agent {event.name!r} lives on another node with the same key; one of the two must go")
            case SeqBehind():
                self._callbacks.on_resign(event.agent_id, event.seq + 1)
            case OrderHeard():
                if self._obedience is not None:
                    self._obedience.heard(event.order)
            case AgentChanged() | AgentGone():
                self.agents_changed += 1
                self._callbacks.on_changed(event.agent_id)
                if isinstance(event, AgentGone):
                    _log.info("agent %s left the directory (%s)", event.name, event.why)
                    if event.why == "withdrawn":
                        self._callbacks.on_withdrawn(event.agent_id)
            case _:
                self._finds.hear(event)

    # Signing

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node can be reached, datagrams first; what its record says."""
        datagrams = self.udp.addresses[:_UDP_ADDRESSES_MAX] if self.udp is not None else ()
        return (*datagrams, *self.links.addresses)[:ADDRESSES_MAX]

    def _on_record_wanted(self, wanted: NodeRecordWanted) -> None:
        if wanted.sick is not None:
            self._sick = wanted.sick
        self._sign_record(wanted.seq_min, leaving=wanted.leaving)

    def _sign_record(self, seq_min: int, *, leaving: bool) -> None:
        """Sign what this node says of itself and tell the brain."""
        unix_s = time.time()
        self._signed_addresses, self._signed_s = self.addresses, self.now_s
        body = node_body(
            seq=self._state.next_seq(self.node_id, max(int(unix_s * 1000), seq_min + 1)),
            iat=int(unix_s),
            life_s=_RECORD_LIFE_S,
            wire=v1.WIRE_VERSION,
            addresses=self._signed_addresses,
            site=self.config.site,
            capacity=self.config.capacity,
            leaving=leaving,
            sick=self._sick,
            name="".join(c for c in self.config.name[:32] if c.isprintable()),
        )
        record = read_node_record(sign_node_record(self._key, body), now=int(unix_s))
        self._driver.feed(LocalNode(record))

    def _sign_providers(self, wanted: ProvidersWanted) -> None:
        unix_s = time.time()
        items = tuple(
            (
                key,
                sign_provider(
                    self._key,
                    key,
                    agent=wanted.agent_id,
                    seq=int(unix_s * 1000),
                    iat=int(unix_s),
                    addresses=self.addresses,
                ),
            )
            for key in wanted.keys
        )
        self._driver.feed(Provide(wanted.agent_id, items))

    # What the world tells the brain

    def _hello(self) -> v1.Hello:
        return v1.Hello(
            v=v1.WIRE_VERSION,
            version=self.config.version,
            name=self.config.name,
            addresses=list(self.addresses),
            clock_ms=int(time.time() * 1000),
            credential=self.admission.shown,
            organisation=self._borders.shown(),
        )

    def _on_control(self, peer: NodeId, message: v1.ControlMessage) -> None:
        if not isinstance(message, v1.Hello):
            self._driver.feed(Received(peer, message, by_link=True))
            return
        try:
            self._judge(peer, message)
        except MeshError as error:
            self.note_misbehaviour(peer, error.code, str(error))
            self.links.drop(peer, str(error))

    def _on_up(self, peer: Peer) -> None:
        node = peer.link.peer
        self.peers_changed += 1
        if len(self.names) > _NAMES_MAX:
            self.names.clear()
        self.names[node] = "".join(c for c in peer.hello.name[:64] if c.isprintable())
        named = tuple(a[:256] for a in peer.hello.addresses[:ADDRESSES_MAX])
        if peer.link.dialed:
            self._driver.feed(PeerUp(node, (peer.link.remote_address, *named), "link"))
        else:
            self.sources.setdefault(node, "link")
            self._driver.feed(PeerUp(node, named, "peer"))
        if peer.told is not None and (peer.told.credential, peer.told.organisation) != (
            self.admission.shown,
            self._borders.shown(),
        ):
            self.links.send(node, self._hello())  # it changed while this link was greeted
        self._callbacks.on_up(peer)

    def _on_down(self, peer: NodeId) -> None:
        self._skews.pop(peer, None)
        self.peers_changed += 1
        self._driver.feed(PeerDown(peer))

    def _on_datagram(self, sender: NodeId, message: v1.DatagramMessage, address: str) -> None:
        if self.admission.revoked(sender) or self._refusal_of(sender) is not None:
            return
        if self._borders.is_abroad(sender, ""):
            return
        self._paths.heard(sender, address)
        self._driver.feed(Received(sender, message))

    def _on_notice(self, told: Told) -> None:
        who = self.names.get(told.node) or short(told.node)
        if told.kind == "clock":
            self.warn(
                f"node {who} drops our datagrams: its clock is {told.ahead_s:+.0f} s from ours; set the wrong one"
            )
        else:
            self.warn(f"node {who} speaks datagram version {told.version}, this node another; upgrade the older one")

    # What people should know

    def udp_view(self) -> UdpView | None:
        """Return the datagram counters; None without a UDP port."""
        udp = self.udp
        if udp is None:
            return None
        dropped = {reason: count for reason, count in udp.drops.items() if count}
        return UdpView(
            address=udp.addresses[0] if udp.addresses else "", sent=udp.sent, received=udp.received, dropped=dropped
        )

    def warn(self, text: str) -> None:
        """Show a sentence in ``status`` and write it to the log, once."""
        if text not in self.warnings and len(self.warnings) < _WARNINGS_MAX:
            self.warnings.append(text)
            _log.warning("%s", text)

    def _note_refusal(self, refused: RecordRefused) -> None:
        """Remember why a peer's agents are not shown, once per peer and reason; the oldest reason makes room."""
        while len(self._refused) >= _WARNINGS_MAX:
            del self._refused[next(iter(self._refused))]
        self._refused[refused.peer, refused.code] = refused
        self.refusals.add((refused.code,))

    def note_misbehaviour(self, peer: NodeId, code: str, detail: str) -> None:
        """Write down that a peer broke the protocol, and hold it against the peer."""
        _log.warning("peer %s misbehaved: %s (%s)", short(peer), detail, code)
        self.misbehaviour.add((code,))
        self._callbacks.on_misbehaved(peer, code, detail)

    def peer_warnings(self, name_of: Callable[[str], str]) -> list[str]:
        """Return what ``watches`` say, and what is amiss with connected peers: clocks, and agents that were refused."""
        warnings = [sentence for watch in self.watches for sentence in watch()]
        for peer, skew_s in self._skews.items():
            if skew_s and self.links.is_connected(peer):
                warnings.append(
                    f"the clock of node {name_of(peer)} is {skew_s:+.0f} s from ours; "
                    "its agents may be refused until one of the two clocks is set right"
                )
        for refused in self._refused.values():
            if self.links.is_connected(refused.peer):
                warnings.append(
                    f"an agent of node {name_of(refused.peer)} was refused ({refused.code}): {refused.detail}"
                )
        return warnings
