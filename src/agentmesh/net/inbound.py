"""What the transports share: the gate for unproven connections, the handshake over a pipe, and the set of live links."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from agentmesh.errors import Busy, Closed, DecodeError, MeshError, NoRoute, SignatureError, StateError, Timeout
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.net.handshake import (
    HANDSHAKE_TIMEOUT_S,
    NONCE_BYTES,
    PREAUTH_BYTES_MAX,
    Handshake,
    Role,
)
from agentmesh.net.mux import MuxLink, Pipe
from agentmesh.net.tasks import TaskScope

_log = logging.getLogger("agentmesh.net")

#: Most connections at once that have not proven a key.
UNPROVEN_MAX = 64
#: Most proven inbound links that wait to be accepted.
BACKLOG_MAX = 128
#: Most live links of one transport; each has two tasks here and an idle cost of a few KB.
LINKS_MAX = 4096


async def prove(
    pipe: Pipe, role: Role, key: KeyPair, *, binding: bytes = b"", expected: NodeId | None = None
) -> tuple[NodeId, bytes]:
    """Run the handshake over a pipe; the caller sets the deadline and closes the pipe on failure.

    Returns:
        The peer's proven id, and bytes that came behind the handshake.

    Raises:
        SignatureError, DecodeError, VersionError: see ``Handshake.receive``.
        Closed: the peer hung up.
    """
    handshake = Handshake(role, key, secrets.token_bytes(NONCE_BYTES), binding=binding, expected=expected)
    received = 0
    if first := handshake.start():
        await pipe.write(first)
    while not handshake.is_done:
        data = await pipe.read()
        if not data:
            raise Closed("the peer hung up in the handshake", code="unreached.closed.handshake")
        received += len(data)
        try:
            answer = handshake.receive(data)
            if not handshake.is_done and received > PREAUTH_BYTES_MAX:
                raise DecodeError("more bytes than any handshake has", code="handshake.malformed")
        except MeshError as error:
            with suppress(OSError, MeshError):
                await pipe.write(handshake.refusal(error))
            raise
        if answer:
            await pipe.write(answer)
    return handshake.peer, handshake.rest


class Inbound:
    """Live links of one transport and the queue of those nobody accepted yet.

    Args:
        name: The scheme, for logs.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.scope = TaskScope(f"transport:{name}", tasks_max=4 * (UNPROVEN_MAX + BACKLOG_MAX) + 2 * LINKS_MAX)
        self.links: set[MuxLink] = set()
        #: Handshakes that failed and connections turned away, since the start.
        self.refused = 0
        self.unproven = 0
        self._queue: asyncio.Queue[MuxLink | None] = asyncio.Queue(BACKLOG_MAX + 1)
        self._closed = False

    @property
    def is_closed(self) -> bool:
        """True after ``aclose``."""
        return self._closed

    def enter(self) -> bool:
        """Count one more unproven connection; False, and counted as refused, if there are too many."""
        if self._closed or self.unproven >= UNPROVEN_MAX:
            self.refused += 1
            return False
        self.unproven += 1
        return True

    def leave(self) -> None:
        """Count one unproven connection less: proven or gone."""
        self.unproven -= 1

    def keep(self, link: MuxLink) -> MuxLink:
        """Hold a link until it closes, so that ``aclose`` finds it."""
        self.links.add(link)
        self.scope.spawn(self._forget_when_closed(link), "watch")
        return link

    def offer(self, link: MuxLink) -> None:
        """Queue an inbound link for ``accept``; one too many is closed."""
        self.keep(link)
        if self._queue.qsize() >= BACKLOG_MAX or len(self.links) > LINKS_MAX:
            self.refused += 1
            self.scope.spawn(link.aclose("the node is overloaded"), "refuse")
            return
        self._queue.put_nowait(link)

    def note_refused(self, remote: str, error: BaseException) -> None:
        """Count and log a connection that did not make it."""
        self.refused += 1
        _log.info("%s: connection from %s refused: %s", self.name, remote, error)

    async def accept(self) -> MuxLink:
        """Wait for the next inbound link that is still open. Raises Closed."""
        while not self._closed:
            link = await self._queue.get()
            if link is None:
                break
            if not link.is_closed:
                return link
        if not self._queue.full():
            self._queue.put_nowait(None)  # For the next one who waits.
        raise Closed(f"the {self.name} transport is closed", code="unreached.closed.transport")

    async def aclose(self) -> None:
        """Close every link and stop every task. Idempotent."""
        if self._closed:
            return
        self._closed = True
        with suppress(asyncio.QueueFull):
            self._queue.put_nowait(None)
        links = list(self.links)
        if links:
            await asyncio.gather(*(link.aclose("the node shuts down") for link in links))
        await self.scope.aclose()
        self.links.clear()

    async def _forget_when_closed(self, link: MuxLink) -> None:
        await link.wait_closed()
        await link.aclose()
        self.links.discard(link)


async def admit(
    inbound: Inbound,
    pipe: Pipe,
    key: KeyPair,
    remote: str,
    make_link: Callable[[NodeId, bytes], MuxLink],
    binding: bytes,
) -> MuxLink | None:
    """Prove a client and offer its link; on failure, also of ``make_link``, close the pipe, count, log, and return None."""
    try:
        async with asyncio.timeout(HANDSHAKE_TIMEOUT_S):
            link = make_link(*await prove(pipe, "server", key, binding=binding))
    except (OSError, MeshError) as error:  # TimeoutError is an OSError.
        inbound.note_refused(remote, error)
        await pipe.aclose()
        return None
    except asyncio.CancelledError:
        await pipe.aclose()
        raise
    inbound.offer(link)
    return link


def raise_dial_error(
    error: OSError | MeshError, address: str, timeout_s: float, *, connected: bool = False
) -> NoReturn:
    """Turn what went wrong while dialling, or after the peer took the connection, into an error of ``Transport.dial``."""
    if isinstance(error, TimeoutError):
        if connected:
            raise Timeout(
                f"{address} did not finish the handshake within {timeout_s:g} s",
                code="unreached.timeout.handshake",
                why="that machine or this one is overloaded, or it is no AgentMesh node",
            ) from error
        raise Timeout(f"{address} did not answer within {timeout_s:g} s", code="unreached.timeout.dial") from error
    if isinstance(error, SignatureError | DecodeError | NoRoute | Timeout):
        raise error
    if isinstance(error, Closed) and error.code == "unreached.closed.handshake":
        raise NoRoute(f"{address} hung up", code="unreached.no_route.hung_up", why=error.detail) from error
    if isinstance(error, MeshError) and not isinstance(error, Closed):
        raise error
    raise NoRoute(f"nothing answers at {address}", code="unreached.no_route.dial", why=str(error)[:200]) from error


def check_dialable(inbound: Inbound, key: KeyPair, peer: NodeId, closed: bool) -> None:
    """Refuse to dial oneself, with a transport that is not open, or one link too many. Raises NoRoute, StateError, Busy."""
    if len(inbound.links) >= LINKS_MAX:
        raise Busy(f"{LINKS_MAX} links are open on this transport", code="refused.busy.links", retry_after_s=10.0)
    if closed:
        raise StateError("the transport is not open", code="state.closed")
    if peer == key.did:
        raise NoRoute("that is this node itself", code="unreached.no_route.self")
