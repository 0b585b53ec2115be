"""Watching each other's audit logs: nodes that are linked show their newest checkpoint, and that it continues the one before.

Whoever rewrites the end of its own log, or puts yesterday's copy back, must then explain it to everybody who saw the newer one.
The question carries the asked node's own last signature, so a node whose log was rolled back learns of it as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable

from agentmesh.codec.merkle import check_consistency
from agentmesh.errors import Closed, MeshError, PeerError, SignatureError
from agentmesh.identity.checkpoint import Checkpoint, read_checkpoint
from agentmesh.ids import NodeId
from agentmesh.net.base import Stream
from agentmesh.net.tasks import TaskScope
from agentmesh.node.links import Links, Peer
from agentmesh.store.audit import AuditLog
from agentmesh.store.audit_pins import AuditPins, Pin
from agentmesh.wire import v1

_log = logging.getLogger("agentmesh.audit")

#: How often each linked node is asked, seconds, and by how much that varies.
INTERVAL_S, _JITTER = 600.0, 0.5
#: A new link is asked after about this long, so that links made for one question are left alone, seconds.
SOON_S = 1.0
_ANSWER_S = 5.0
_LOOK_S = 0.5
_TOLD_MAX = 16


class AuditPeers:
    """Ask linked nodes for their checkpoints, and show ours.

    Args:
        log: This node's.
        pins: What was seen before.
        links: To peers.
        on_misbehaved: Called with (peer, code, detail).
        rng: Spreads the questions.
        soon_s: How old a link must be.
    """

    def __init__(
        self,
        log: AuditLog,
        pins: AuditPins,
        links: Links,
        *,
        on_misbehaved: Callable[[NodeId, str, str], None],
        rng: random.Random,
        soon_s: float = SOON_S,
    ) -> None:
        self._log, self._pins, self._links = log, pins, links
        self._on_misbehaved, self._rng, self._soon_s = on_misbehaved, rng, soon_s
        self._scope = TaskScope("audit-peers")
        #: Monotonic time of the next question to each linked node.
        self._due_s: dict[NodeId, float] = {}
        self._asking: set[NodeId] = set()
        self._rolled_back: dict[NodeId, int] = {}
        self._forked: dict[str, str] = {pin.node: pin.forked for pin in pins.all(_TOLD_MAX) if pin.forked}

    def open(self) -> None:
        """Begin to ask."""
        self._scope.spawn(self._ask_all(), "ask")

    def warnings(self, name_of: Callable[[str], str]) -> list[str]:
        """What people should know: logs that broke with their past, ours among them."""
        said = [
            f"the audit log of node {name_of(node)} broke with its past: {why}" for node, why in self._forked.items()
        ]
        said += [
            f"node {name_of(node)} holds our signature on {size} audit records, and this log does not continue it: "
            "it is an old copy, or was cut; next: put the newest copy back"
            for node, size in self._rolled_back.items()
        ]
        return said

    def pins(self) -> list[Pin]:
        """Return what is remembered of other nodes. Raises StoreError."""
        return self._pins.all()

    async def serve(self, peer: NodeId, stream: Stream, query: v1.AuditQuery) -> None:
        """Answer an AuditQuery. Raises Closed."""
        head = self._log.head
        reply = v1.AuditReply(checkpoint="" if head is None else head.text)
        if head is not None and query.pinned:
            pinned = read_checkpoint(query.pinned, node=head.node_id)
            if pinned.size <= head.size and self._log.root_at(pinned.size) == pinned.root:
                reply.proof = self._log.consistency(pinned.size, head.size)
                self._rolled_back.pop(peer, None)
            elif len(self._rolled_back) < _TOLD_MAX and peer not in self._rolled_back:
                self._rolled_back[peer] = pinned.size
                _log.error("this audit log does not continue the %d records that we signed before", pinned.size)
        await stream.send(v1.encode(reply))
        await stream.finish()

    async def _ask_all(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            now_s = time.monotonic()
            linked = {peer.link.peer: peer for peer in self._links.peers()}
            self._due_s = {node: due_s for node, due_s in self._due_s.items() if node in linked}
            for node, peer in linked.items():
                due_s = self._due_s.setdefault(node, peer.since_s + self._soon_s)
                if due_s <= now_s and node not in self._asking:
                    self._due_s[node] = now_s + INTERVAL_S * (1 + self._rng.uniform(-_JITTER, _JITTER))
                    self._scope.spawn(self.ask(peer), "ask-one", quiet=True)

    async def ask(self, peer: Peer) -> None:
        """Ask one linked node and compare with what it showed before. Never raises."""
        node = peer.link.peer
        if node in self._asking:
            return
        self._asking.add(node)
        try:
            pin = self._pins.get(node)
            pinned = None if pin is None else read_checkpoint(pin.checkpoint, node=node)
            async with asyncio.timeout(_ANSWER_S):
                stream = await peer.link.open_stream()
                try:
                    await stream.send(
                        v1.encode(v1.AuditQuery(v=v1.WIRE_VERSION, pinned="" if pin is None else pin.checkpoint))
                    )
                    payload = await stream.recv()
                finally:
                    stream.reset(0)
            if payload is not None:
                self._compare(node, pinned, v1.decode_audit_reply(payload))
        except (Closed, TimeoutError):
            pass
        except PeerError as error:
            self._on_misbehaved(node, error.code, str(error))
        except MeshError as error:
            _log.warning("the audit log of a peer cannot be compared: %s", error)
        finally:
            self._asking.discard(node)

    def _compare(self, node: NodeId, pinned: Checkpoint | None, reply: v1.AuditReply) -> None:
        """Keep a checkpoint that continues the one before; hold it against the node if it does not. Raises MeshError."""
        if not reply.checkpoint:
            return  # Its own log is damaged: it serves no calls, and says so to its people.
        new = read_checkpoint(reply.checkpoint, node=node)
        now = int(time.time())
        why = "" if pinned is None else _break_of(pinned, new, reply.proof)
        if pinned is None or not why:
            self._pins.put(Pin(node, new.size, new.text, now))
            self._forked.pop(node, None)
            return
        known = self._forked.get(node)
        self._pins.put(Pin(node, pinned.size, pinned.text, now, why, new.text))
        if known is None:
            if len(self._forked) < _TOLD_MAX:
                self._forked[node] = why
            self._on_misbehaved(node, "audit.forked", why)

    async def aclose(self) -> None:
        """Stop asking. Idempotent."""
        await self._scope.aclose()
        with contextlib.suppress(MeshError):
            self._pins.close()


def _break_of(old: Checkpoint, new: Checkpoint, proof: list[bytes]) -> str:
    """Return how a checkpoint breaks with an older one, "" if it continues it."""
    if new.size < old.size:
        return f"it had {old.size} records and now shows {new.size}"
    try:
        check_consistency(old.size, new.size, old.root, new.root, proof)
    except SignatureError:
        return f"its {new.size} records do not begin with the {old.size} that it showed before"
    return ""
