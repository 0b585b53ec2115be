"""One call over a link, from its opening to its outcome; and which nodes have lately left a call unanswered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import msgspec

from agentmesh.errors import Closed, DecodeError, LimitError, MeshError, PeerError, Timeout, from_wire
from agentmesh.ids import NodeId, short
from agentmesh.net.base import Contact, Stream
from agentmesh.node.attempt import Attempt, Untouched
from agentmesh.node.config import NodeConfig
from agentmesh.node.links import Links, Peer
from agentmesh.node.proof import Proofs, Witness
from agentmesh.store.eventlog import EventLog
from agentmesh.wire import v1
from agentmesh.wire.event import EventV1, check

_CANCEL_GRACE_S = 2.0
#: How long a node that did not accept a call is asked last. A little more than a transport takes to give up a dead peer.
_SILENT_FOR_S = 20.0
_SILENT_MAX = 10_000
_event_decoder = msgspec.msgpack.Decoder(EventV1)


class Remote:
    """Carry calls to other nodes.

    Args:
        config: Limits.
        links: To peers.
        log: Keeps copies of the events that come back.
        proofs: Signs the call token.
        contact_of: Returns where a node might be reached.
        name_of: Node id → name for people.
        on_misbehaved: Called with (peer, code, detail).
    """

    def __init__(
        self,
        config: NodeConfig,
        links: Links,
        log: EventLog,
        proofs: Proofs,
        *,
        contact_of: Callable[[NodeId], Contact],
        name_of: Callable[[str], str],
        on_misbehaved: Callable[[NodeId, str, str], None],
    ) -> None:
        self._config, self._links, self._log, self._proofs = config, links, log, proofs
        self._contact_of, self._name_of, self._on_misbehaved = contact_of, name_of, on_misbehaved
        self._silent_since_s: dict[str, float] = {}

    def is_quiet(self, node_id: str) -> bool:
        """Say whether a node has just let a call or a question go unanswered, and was not heard since."""
        noted_s = self._silent_since_s.get(node_id)
        if noted_s is None:
            return False
        peer = self._links.peer(node_id)
        came_back = peer is not None and peer.since_s > noted_s
        return not came_back and time.monotonic() - noted_s < _SILENT_FOR_S

    def note_silence(self, node_id: NodeId) -> None:
        """Ask other replicas first for a while: a dead node looks linked until the transport gives it up."""
        self._silent_since_s.pop(node_id, None)
        while len(self._silent_since_s) >= _SILENT_MAX:
            del self._silent_since_s[next(iter(self._silent_since_s))]
        self._silent_since_s[node_id] = time.monotonic()

    async def carry(self, attempt: Attempt, *, is_last: bool) -> MeshError | None:
        """Carry one call to the node beside its agent and take what comes back.

        Args:
            attempt: The opening; takes the events.
            is_last: No other replica is left: wait for this one as long as the call may take.

        Returns:
            The error that the callee's node reports, or None.

        Raises:
            Untouched: nothing says that work began there; a replica may be tried.
            Closed: the link broke after the call was taken; the outcome is unknown.
            DecodeError, LimitError: the peer broke the protocol, or sent too much.
            UsageError, LimitError: the call cannot be described in a token. Nothing was sent.
        """
        node_id = NodeId(attempt.candidate.entry.manifest.node_id)
        try:
            peer = await self._links.connect(self._contact_of(node_id))
        except MeshError as error:
            raise Untouched(error) from error
        attempt.path, attempt.transport = peer.link.path, peer.link.scheme
        story = Witness(self._proofs.sign(attempt.message, node_id, attempt.budget))
        try:
            stream = await peer.link.open_stream()
        except MeshError as error:
            raise Untouched(error) from error
        peer.calls += 1
        try:
            return await self._converse(attempt, peer, stream, story, is_last=is_last)
        finally:
            peer.calls -= 1

    async def _converse(
        self, attempt: Attempt, peer: Peer, stream: Stream, story: Witness, *, is_last: bool
    ) -> MeshError | None:
        accepted = False
        try:
            await stream.send(v1.encode(attempt.message))
            while True:
                if accepted or is_last:
                    payload = await stream.recv()
                else:
                    async with asyncio.timeout(self._config.accept_timeout_s):
                        payload = await stream.recv()
                if payload is None:
                    raise Closed("the callee's node ended the call without an outcome")
                reply = v1.decode_call_reply(payload)
                self._silent_since_s.pop(peer.link.peer, None)
                self._take(attempt, peer, reply, story)
                if isinstance(reply, v1.CallEvent):
                    accepted = True
                else:
                    self._accept(attempt, peer, reply, story)
                    await stream.finish()  # A stream ends when both sides have said so; links allow only so many.
                    return self._outcome(attempt, reply)
        except (Closed, TimeoutError) as error:
            stream.reset(0)
            if isinstance(error, TimeoutError):
                self.note_silence(peer.link.peer)
                error = Timeout(f"node {short(peer.link.peer)} did not accept the call", code="unreached.not_accepted")
            if not accepted:
                raise Untouched(error) from error
            raise Closed(
                f"the link to node {self._name_of(peer.link.peer)} broke during the call",
                why=f"{error}; whether the agent finished is unknown",
                hint=f"agentmesh trace {attempt.message.run_id[:12]}   once the node is back",
            ) from error
        except (asyncio.CancelledError, LimitError):
            await self._cancel(attempt, peer, stream, story)
            raise
        except DecodeError as error:
            stream.reset(3)
            self._on_misbehaved(peer.link.peer, error.code, str(error))
            raise

    def _outcome(self, attempt: Attempt, end: v1.CallEnd) -> MeshError | None:
        if end.error is None:
            if not attempt.state:
                raise DecodeError("the callee's node ended the call without a terminal event", code="call.no_end")
            return None
        return attempt.unless_untouched(from_wire(end.error))

    def _accept(self, attempt: Attempt, peer: Peer, end: v1.CallEnd, story: Witness) -> None:
        """Keep the receipt of an outcome; one that does not fit is held against the peer, the outcome stays as it is."""
        if end.receipt:
            try:
                self._proofs.accept(end.receipt, attempt.message, story)
                attempt.receipt = end.receipt
            except PeerError as error:
                self._on_misbehaved(peer.link.peer, error.code, str(error))

    def _take(self, attempt: Attempt, peer: Peer, reply: v1.CallReply, story: Witness) -> None:
        """Check, keep and pass on events of the callee's node; it may only tell what happened there, in this task."""
        for raw in reply.events:
            try:
                event = check(_event_decoder.decode(raw))
            except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
                raise DecodeError(f"not an event: {error}", code="event.malformed") from error
            if event.node_id != peer.link.peer or not _is_of(attempt.message, event):
                raise DecodeError("the peer sent an event of another node, task or run", code="event.foreign")
            story.add(event)
            event.seq = 0
            if attempt.add(event, len(raw)):
                self._log.append_copy(event)

    async def _cancel(self, attempt: Attempt, peer: Peer, stream: Stream, story: Witness) -> None:
        """Tell the callee to stop and collect what it still says, for a moment."""
        try:
            async with asyncio.timeout(_CANCEL_GRACE_S):
                await stream.send(v1.encode(v1.CallCancel(reason="canceled by the caller")))
                while (payload := await stream.recv()) is not None:
                    reply = v1.decode_call_reply(payload)
                    self._take(attempt, peer, reply, story)
                    if isinstance(reply, v1.CallEnd):
                        self._accept(attempt, peer, reply, story)
                        break
        except (MeshError, TimeoutError):
            pass
        stream.reset(0)


def _is_of(message: v1.CallOpen, event: EventV1) -> bool:
    return event.task_id == message.task_id and event.run_id == message.run_id
