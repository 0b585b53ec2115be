"""Links to peers: dial, accept, greet, keep one per peer, hand over what arrives.

A link begins with a control stream that the dialler opens; both sides send ``Hello`` first, the dialler before the other.
Later streams are requests.
Two nodes that dial each other at once end with one link: the one dialled by the smaller id, unless the other link is
older than a moment, in which case its owner evidently lost it and the newer one wins.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentmesh.errors import (
    Closed,
    DecodeError,
    LimitError,
    MeshError,
    NoRoute,
    SignatureError,
    StateError,
    Timeout,
    Unauthorized,
)
from agentmesh.ids import NodeId, short
from agentmesh.net.base import Contact, Link, Stream, Traffic, Transport
from agentmesh.net.tasks import TaskScope
from agentmesh.node.config import NodeConfig
from agentmesh.node.window import DialWindow
from agentmesh.wire import v1

_log = logging.getLogger("agentmesh.links")

#: Two links to one peer younger than this were dialled at once; an older one is a leftover of a peer that came back.
_SIMULTANEOUS_S = 2.0
#: Control messages waiting for one slow peer; a peer that does not drain them is cut off.
_CONTROL_QUEUE_MAX = 1024
#: Requests running at once for one peer.
_REQUESTS_PER_PEER_MAX = 1024
_GOODBYE_S = 0.5
#: Messages that wait for a link which is being dialled: for so many nodes, so many each.
_WAITING_NODES_MAX = 64
_WAITING_EACH_MAX = 64
#: How long a link must have carried no request before it is given up, seconds.
_IDLE_S = 60.0


@dataclass(slots=True, eq=False)
class Peer:
    """A connected peer.

    Attributes:
        link, control: The link and its control stream.
        hello: What the peer said of itself; a claim, except for its key.
        skew_s: Its clock minus ours at greeting, seconds.
        since_s: Monotonic time of the greeting.
        outbox: Control messages on their way.
        requests: Requests of the peer being served now.
        calls: Our own calls that run over this link now.
        used_s: Monotonic time of the last request either way.
        calls_only: It is of another mesh: nothing but calls goes over the link, whichever side asked for that.
        told: How this node greeted it.
    """

    link: Link
    control: Stream
    hello: v1.Hello
    skew_s: float
    since_s: float
    outbox: asyncio.Queue[v1.AnyMessage] = field(default_factory=lambda: asyncio.Queue(_CONTROL_QUEUE_MAX))
    requests: int = 0
    calls: int = 0
    used_s: float = 0.0
    calls_only: bool = False
    told: v1.Hello | None = None


@dataclass(slots=True)
class Attempt:
    """The last try to reach a node, for ``agentmesh peers``."""

    address: str = ""
    error: str = ""


class Links:
    """Keep links to peers.

    Args:
        node_id: Own id.
        config: Limits.
        transports: In order of preference; those that cannot open are left out with a warning.
        hello: Makes the greeting.
        on_up, on_down: Called when a peer is greeted and when its last link is gone.
        on_control: Called with every control message.
        on_request: Coroutine run for every request stream with its first message.
        on_misbehaved: Called with (peer, code, detail) when a peer breaks the protocol.
        judge: Called with a peer and its greeting before it is served; raises MeshError to turn it away.
        refusal_of: Says why there may be no link with a node; None if there may.
        is_abroad: Says whether a node is of another mesh, given its greeting if it has greeted: its link carries calls only.
    """

    def __init__(
        self,
        node_id: NodeId,
        config: NodeConfig,
        transports: Sequence[Transport],
        *,
        hello: Callable[[], v1.Hello],
        on_up: Callable[[Peer], None],
        on_down: Callable[[NodeId], None],
        on_control: Callable[[NodeId, v1.ControlMessage], None],
        on_request: Callable[[Peer, Stream, v1.RequestMessage], Coroutine[Any, Any, None]],
        on_misbehaved: Callable[[NodeId, str, str], None],
        judge: Callable[[NodeId, v1.Hello], None] = lambda _peer, _hello: None,
        refusal_of: Callable[[str], MeshError | None] = lambda _: None,
        is_abroad: Callable[[NodeId, v1.Hello | None], bool] = lambda _peer, _hello: False,
    ) -> None:
        self._refusal_of, self._is_abroad = refusal_of, is_abroad
        self._node_id = node_id
        self._config = config
        self._wanted = list(transports)
        self._hello = hello
        self._on_up, self._on_down, self._on_control = on_up, on_down, on_control
        self._on_request, self._on_misbehaved, self._judge = on_request, on_misbehaved, judge
        self._scope = TaskScope("links")
        self._peers: dict[NodeId, Peer] = {}
        self._dialing: dict[NodeId, asyncio.Task[Peer]] = {}
        self._window = DialWindow()
        self._waiting: dict[NodeId, list[v1.AnyMessage]] = {}
        self.attempts: dict[NodeId, Attempt] = {}
        self.transports: list[Transport] = []
        self.warnings: list[str] = []
        #: What went over all links so far, by scheme; those that are gone too.
        self.traffic: dict[str, Traffic] = {}

    async def open(self) -> None:
        """Open every transport that can be opened and begin to accept.

        Raises:
            NoRoute: none could be opened.
        """
        last: MeshError | None = None
        for transport in self._wanted:
            try:
                await transport.open()
            except MeshError as error:
                last = error
                self.warnings.append(f"transport {transport.scheme}: {error}")
                _log.warning("transport %s not opened: %s", transport.scheme, error)
                continue
            self.transports.append(transport)
            self._scope.spawn(self._accept_loop(transport), f"accept-{transport.scheme}")
        if not self.transports:
            raise last or NoRoute("no transport is configured", code="transport.none")

    @property
    def addresses(self) -> list[str]:
        """Where this node can be dialled, over all transports."""
        return [address for transport in self.transports for address in transport.addresses]

    def peers(self) -> Iterable[Peer]:
        """Return the connected peers of this mesh."""
        return [peer for peer in self._peers.values() if not peer.calls_only]

    def abroad(self) -> Iterable[Peer]:
        """Return the connected nodes of other meshes, whose links carry calls only."""
        return [peer for peer in self._peers.values() if peer.calls_only]

    def peer(self, node_id: str) -> Peer | None:
        """Return the connected peer of that id, or None."""
        return self._peers.get(NodeId(node_id))

    def is_connected(self, node_id: str) -> bool:
        """Say whether a link to the node is up."""
        peer = self._peers.get(NodeId(node_id))
        return peer is not None and not peer.link.is_closed

    def send(self, to: NodeId, message: v1.AnyMessage) -> None:
        """Queue a control message; dropped when there is no link. A peer that does not drain its queue is cut off."""
        peer = self._peers.get(to)
        if peer is None or peer.calls_only:
            return
        try:
            peer.outbox.put_nowait(message)
        except asyncio.QueueFull:
            _log.warning("peer %s does not read its control stream, closing", short(to))
            self._scope.spawn(peer.link.aclose("control stream not read"), "close-slow")

    def send_after_dial(self, contact: Contact, message: v1.AnyMessage) -> None:
        """Dial a node and send it the message then; lost if no address answers or too much waits already."""
        node_id = contact.node_id
        waiting = self._waiting.get(node_id)
        if waiting is None:
            if len(self._waiting) >= _WAITING_NODES_MAX or not contact.addresses:
                return
            if node_id not in self._dialing and not self._dial_if_room(contact):
                return
            waiting = self._waiting[node_id] = []
        if len(waiting) < _WAITING_EACH_MAX:
            waiting.append(message)

    def dial(self, contact: Contact) -> None:
        """Try to connect in the background; one try per node at a time, and none while many others fail for overload."""
        if not self.is_connected(contact.node_id) and contact.node_id not in self._dialing:
            self._dial_if_room(contact)

    async def connect(self, contact: Contact) -> Peer:
        """Return the link to a node, dialling if there is none.

        Raises:
            NoRoute, Timeout, SignatureError: no address answered; the last reason is given.
        """
        peer = self._peers.get(contact.node_id)
        if peer is not None and not peer.link.is_closed:
            peer.used_s = time.monotonic()
            return peer
        task = self._dialing.get(contact.node_id) or self._dial_task(contact)
        if task is None:
            raise NoRoute(f"too many links are open ({self._config.links_max})", code="links.full")
        return await asyncio.shield(task)

    def _dial_if_room(self, contact: Contact) -> bool:
        return self._window.has_room(len(self._dialing)) and self._dial_task(contact) is not None

    def _dial_task(self, contact: Contact) -> asyncio.Task[Peer] | None:
        if contact.node_id == self._node_id or len(self._peers) + len(self._dialing) >= self._config.links_max:
            return None

        async def run() -> Peer:
            try:
                return await self._dial_all(contact)
            finally:
                self._dialing.pop(contact.node_id, None)
                self._waiting.pop(contact.node_id, None)

        task: asyncio.Task[Peer] = self._scope.spawn(run(), f"dial-{short(contact.node_id)}", quiet=True)
        self._dialing[contact.node_id] = task
        return task

    async def _dial_all(self, contact: Contact) -> Peer:
        attempt = self._note_attempt(contact.node_id)
        last: MeshError = NoRoute(
            f"no address is known for node {short(contact.node_id)}",
            hint="give one with --seed did:key:…@host:port",
        )
        for address in contact.addresses[:8]:
            scheme = address.partition(":")[0]
            for transport in self.transports:
                if transport.scheme != scheme:
                    continue
                attempt.address = address
                try:
                    link = await transport.dial(contact.node_id, address, self._config.dial_timeout_s)
                    self._window.note(None, time.monotonic())
                    peer = await self._greet(link, dialed=True)
                except MeshError as error:
                    self._window.note(error, time.monotonic())
                    last, attempt.error = error, str(error)
                    if isinstance(error, SignatureError):
                        self._on_misbehaved(contact.node_id, error.code, str(error))
                    continue
                attempt.error = ""
                return peer
        raise last

    def _note_attempt(self, node_id: NodeId) -> Attempt:
        if node_id not in self.attempts and len(self.attempts) >= 4 * self._config.links_max:
            self.attempts.pop(next(iter(self.attempts)))
        return self.attempts.setdefault(node_id, Attempt())

    async def _accept_loop(self, transport: Transport) -> None:
        while True:
            try:
                link = await transport.accept()
            except Closed:
                return
            if len(self._peers) >= self._config.links_max and link.peer not in self._peers:
                await link.aclose("too many links")
                continue
            with contextlib.suppress(MeshError):
                self._scope.spawn(self._greet_inbound(link), "greet")

    async def _greet_inbound(self, link: Link) -> None:
        try:
            await self._greet(link, dialed=False)
        except MeshError as error:
            _log.info("greeting with %s failed: %s", short(link.peer), error)

    async def _greet(self, link: Link, *, dialed: bool) -> Peer:
        link.tally(self.traffic.setdefault(link.scheme, Traffic()))
        try:
            async with asyncio.timeout(self._config.dial_timeout_s):
                if link.peer == self._node_id:
                    raise NoRoute("that address leads back to this node", code="link.self")
                if (refusal := self._refusal_of(link.peer)) is not None:
                    raise refusal
                control = await (link.open_stream() if dialed else link.accept_stream())
                ours = self._hello()
                if dialed:
                    ours.calls_only = self._is_abroad(link.peer, None)
                    await control.send(v1.encode(_discreet(ours)))
                first = await control.recv()
                if first is None:
                    raise Closed("the peer closed while greeting")
                hello = v1.decode_control(first)
                if not isinstance(hello, v1.Hello):
                    raise DecodeError("the peer did not greet first", code="wire.no_hello")
                if not dialed:
                    # Who is turned away hears that instead of a greeting: its dial has failed, and it waits before the next.
                    self._judge(link.peer, hello)
                    ours.calls_only = hello.calls_only or self._is_abroad(link.peer, hello)
                    await control.send(v1.encode(_discreet(ours)))
                v1.check_version(hello.v)
                if dialed:
                    self._judge(link.peer, hello)
                    ours.calls_only = ours.calls_only or hello.calls_only or self._is_abroad(link.peer, hello)
        except TimeoutError:
            await link.aclose("greeting timed out")
            raise Timeout(f"node {short(link.peer)} connected but did not greet") from None
        except MeshError as error:
            if isinstance(error, DecodeError):
                self._on_misbehaved(link.peer, error.code, str(error))
            await link.aclose(str(error))
            raise
        skew_s = hello.clock_ms / 1000 - time.time() if hello.clock_ms > 0 else 0.0
        peer = Peer(link, control, hello, skew_s, time.monotonic(), calls_only=ours.calls_only, told=ours)
        return await self._admit(peer)

    async def _admit(self, peer: Peer) -> Peer:
        node_id = peer.link.peer
        old = self._peers.get(node_id)
        if old is not None and not old.link.is_closed:
            smaller_dials = (node_id < self._node_id) != peer.link.dialed
            if peer.since_s - old.since_s < _SIMULTANEOUS_S and not smaller_dials:
                # The peer finds the same two links and keeps the same one, so this one may go at once.
                await peer.link.aclose("duplicate")
                return old
            self._peers.pop(node_id, None)
            if not old.calls_only:
                self._on_down(node_id)
            self._scope.spawn(old.link.aclose("replaced"), "close-replaced")
        self._peers[node_id] = peer
        self._scope.spawn(self._control_writer(peer), f"control-out-{short(node_id)}")
        self._scope.spawn(self._control_reader(peer), f"control-in-{short(node_id)}")
        self._scope.spawn(self._request_loop(peer), f"requests-{short(node_id)}")
        kind = ", calls only" if peer.calls_only else ""
        _log.info("link up: %s over %s (%s%s)", short(node_id), peer.link.scheme, peer.link.path, kind)
        if peer.calls_only:
            self._waiting.pop(node_id, None)
            return peer
        self._on_up(peer)
        for message in self._waiting.pop(node_id, []):
            self.send(node_id, message)
        return peer

    async def _control_writer(self, peer: Peer) -> None:
        with contextlib.suppress(Closed, StateError):  # a goodbye finishes the stream under a message that comes late
            while True:
                await peer.control.send(v1.encode(await peer.outbox.get()))

    async def _control_reader(self, peer: Peer) -> None:
        reason = "closed"
        try:
            while (payload := await peer.control.recv()) is not None:
                message = v1.decode_control(payload)
                if isinstance(message, v1.Bye):
                    reason = f"left: {message.reason[:200]}"
                    break
                if self._peers.get(peer.link.peer) is peer and not peer.calls_only:
                    self._on_control(peer.link.peer, message)
        except Closed as error:
            reason = str(error)
        except MeshError as error:
            reason = str(error)
            self._on_misbehaved(peer.link.peer, error.code, reason)
        finally:
            await self._drop(peer, reason)

    def drop(self, node_id: NodeId, reason: str) -> None:
        """Close the link to a peer, if there is one."""
        peer = self._peers.get(node_id)
        if peer is not None:
            self._scope.spawn(self._drop(peer, reason), "drop")

    def hang_up(self, node_id: NodeId) -> bool:
        """Close the link to a peer unless a request runs over it or ran a moment ago; say whether it is being closed."""
        peer = self._peers.get(node_id)
        if peer is None or peer.requests or peer.calls or time.monotonic() - peer.used_s < _IDLE_S:
            return False
        self.drop(node_id, "not needed")
        return True

    async def _drop(self, peer: Peer, reason: str) -> None:
        node_id = peer.link.peer
        if self._peers.get(node_id) is peer:
            del self._peers[node_id]
            _log.info("link down: %s (%s)", short(node_id), reason)
            if not peer.calls_only:
                self._on_down(node_id)
        await peer.link.aclose(reason)

    async def _request_loop(self, peer: Peer) -> None:
        with contextlib.suppress(Closed):
            while True:
                stream = await peer.link.accept_stream()
                if peer.requests >= _REQUESTS_PER_PEER_MAX:
                    stream.reset(1)
                    continue
                peer.requests += 1
                peer.used_s = time.monotonic()
                try:
                    self._scope.spawn(self._serve(peer, stream), "request")
                except MeshError:
                    peer.requests -= 1
                    stream.reset(1)

    async def _serve(self, peer: Peer, stream: Stream) -> None:
        try:
            # A peer that opens streams and says nothing only uses up its own share of them.
            first = await stream.recv()
            if first is None:
                return
            message = v1.decode_request(first)
            if peer.calls_only and not isinstance(message, v1.CallOpen):
                raise Unauthorized("this link carries calls only", code="link.calls_only")
            await self._on_request(peer, stream, message)
        except Closed:
            stream.reset(2)
        except (DecodeError, LimitError) as error:
            self._on_misbehaved(peer.link.peer, error.code, str(error))
            stream.reset(3)
        except MeshError as error:
            _log.info("request from %s refused: %s", short(peer.link.peer), error)
            stream.reset(4)
        finally:
            peer.requests -= 1

    async def aclose(self, reason: str = "shutting down") -> None:
        """Say goodbye to every peer and close all links and transports. Idempotent."""
        await asyncio.gather(*(self._goodbye(peer, reason) for peer in list(self._peers.values())))
        await asyncio.gather(*(transport.aclose() for transport in self.transports))
        self._peers.clear()
        await self._scope.aclose()

    @staticmethod
    async def _goodbye(peer: Peer, reason: str) -> None:
        with contextlib.suppress(MeshError, TimeoutError):
            async with asyncio.timeout(_GOODBYE_S):
                while not peer.outbox.empty():
                    await peer.control.send(v1.encode(peer.outbox.get_nowait()))
                await peer.control.send(v1.encode(v1.Bye(reason=reason)))
                await peer.control.finish()


def _discreet(hello: v1.Hello) -> v1.Hello:
    """Return a greeting without what only nodes of one mesh need to know of each other."""
    if hello.calls_only:
        hello.addresses = []
    return hello
