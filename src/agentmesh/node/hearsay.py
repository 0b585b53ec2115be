"""What nodes tell each other of what they saw: signed statements, asked for over links (docs/spec/trust.md §6).

A neighbour is asked when a link to it comes up and every few minutes then. It answers with its own statement and a few that it
keeps of others. Whatever does not hold is dropped and held against whoever sent it: an honest node checks what it passes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import Callable

from agentmesh.core.trust.network import Said
from agentmesh.errors import DecodeError, MeshError, PeerError, ReplayError, SignatureError, StateError, StoreError
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.trust_statement import (
    EVIDENCE_MAX,
    ROWS_MAX,
    TrustRow,
    TrustStatement,
    read_trust_statement,
    sign_trust_statement,
)
from agentmesh.ids import NodeId
from agentmesh.net.base import Stream
from agentmesh.net.tasks import TaskScope
from agentmesh.node.links import Links, Peer
from agentmesh.node.trust import Trust
from agentmesh.store.trust import TrustStore
from agentmesh.wire import v1

_log = logging.getLogger("agentmesh.trust")

#: How often a neighbour is asked, seconds, and how much of that is left to chance, so that nodes do not ask in step.
ASK_S = 300.0
ASK_JITTER = 0.5
#: How long after a link came up its peer is asked at most; by chance within it.
_FIRST_S = 5.0
_ANSWER_S = 10.0
#: An own statement is signed anew at most so often, and a peer answered at most so often, seconds.
_SIGN_S = 30.0
_SERVE_S = 1.0
#: Rows of less evidence are not told: they are noise, and say who called whom.
_ROW_MIN = 0.05
_SEQ = "seq"


class Hearsay:
    """Ask neighbours for their statements and answer them.

    Args:
        key: The node's key.
        trust: The evidence, and where the words of others go.
        store: Keeps statements over restarts.
        links: To peers.
        on_misbehaved: Called with (peer, code, detail) for what does not hold.
        rng: For jitter; one of its own if left out.
        unix_s, mono_s: The clocks.
    """

    def __init__(
        self,
        key: KeyPair,
        trust: Trust,
        store: TrustStore,
        links: Links,
        *,
        on_misbehaved: Callable[[NodeId, str, str], None],
        rng: random.Random | None = None,
        unix_s: Callable[[], float] = time.time,
        mono_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._key, self._trust, self._store, self._links = key, trust, store, links
        self._on_misbehaved, self._unix_s, self._mono_s = on_misbehaved, unix_s, mono_s
        self._rng = rng or random.Random(os.urandom(16))  # noqa: S311 jitter, not secrets
        self._scope = TaskScope("hearsay", tasks_max=512)
        self._raws: dict[str, str] = {}
        self._own = ""
        self._own_rows: list[TrustRow] = []
        self._signed_s = 0.0
        self._seq = int(store.fact(_SEQ) or 0)
        self._served_s: dict[NodeId, float] = {}
        self._asking: dict[NodeId, None] = {}

    def open(self) -> None:
        """Take back the statements of earlier runs and begin to ask."""
        now = int(self._unix_s())
        for raw in self._store.statements(self._trust.opinions.config.issuers_max):
            try:
                self._keep(read_trust_statement(raw, now=now))
            except PeerError:
                continue  # expired, or of a version that allowed more
        self._scope.spawn(self._ask_loop(), "ask")

    # Answering

    async def serve(self, peer: Peer, stream: Stream) -> None:
        """Answer a TrustQuery."""
        node, now_s = peer.link.peer, self._mono_s()
        told: list[str] = []
        if now_s - self._served_s.get(node, -_SERVE_S) >= _SERVE_S:
            self._served_s.pop(node, None)
            while len(self._served_s) >= 1_000:
                del self._served_s[next(iter(self._served_s))]
            self._served_s[node] = now_s
            told = self.statements()
        await stream.send(v1.encode(v1.TrustReply(statements=told)))
        await stream.finish()

    def statements(self) -> list[str]:
        """Return what a peer is told: the own statement, if there is anything to say, then others', most trusted first."""
        told = [own] if (own := self._own_statement()) else []
        bytes_left = v1.CONTROL_BYTES_MAX // 2 - len(own)
        for issuer in self._trust.opinions.network.issuers():
            if len(told) >= v1.STATEMENTS_MAX or not self._trust.opinions.network.weight_of(issuer):
                break
            raw = self._raws[issuer]
            if len(raw) <= bytes_left:
                told.append(raw)
                bytes_left -= len(raw)
        return told

    def _own_statement(self) -> str:
        now_s = self._mono_s()
        if self._own_rows and now_s - self._signed_s < _SIGN_S:
            return self._own
        rows = self.rows()
        self._signed_s = now_s
        if rows == self._own_rows:
            return self._own
        unix_s = self._unix_s()
        seq = max(int(unix_s * 1000), self._seq + 1)
        try:
            self._store.save((), (), (), [(_SEQ, float(seq))])
        except StoreError as error:
            # One that is made again with the same seq after a restart would look like a replay.
            _log.error("no trust statement is given, since its number cannot be written: %s", error)
            return self._own
        self._seq, self._own_rows = seq, rows
        self._own = sign_trust_statement(self._key, rows, seq=seq, iat=int(unix_s)) if rows else ""
        return self._own

    def rows(self) -> list[TrustRow]:
        """Return this node's evidence as rows of a statement: the subjects of whom most is known."""
        ledger, now_s, unix_s = self._trust.opinions.ledger, self._trust.now_s, self._unix_s()
        rows: list[TrustRow] = []
        for subject, tally in ledger.heaviest(ROWS_MAX, now_s):
            sums = ledger.sums(subject, now_s)
            if sums.good + sums.bad >= _ROW_MIN and self._trust.node_id != tally.node:
                since = max(1, int(unix_s - max(0.0, now_s - tally.since_s)))
                good, bad = (min(EVIDENCE_MAX, round(one * 1_000)) for one in sums)
                rows.append(TrustRow(subject, tally.node, good, bad, since))
        return sorted(rows)

    # Asking

    def on_up(self, peer: Peer) -> None:
        """Ask a peer soon whose link came up."""
        node = peer.link.peer
        if node not in self._asking and len(self._asking) < self._scope.tasks_max // 2:
            with contextlib.suppress(StateError):  # the node shuts down
                self._scope.spawn(self._ask_later(node), "ask-first", quiet=True)
                self._asking[node] = None

    async def _ask_later(self, node: NodeId) -> None:
        try:
            await asyncio.sleep(self._rng.uniform(0.0, _FIRST_S))
            if await self.ask(node):
                await self._trust.weigh()
        finally:
            self._asking.pop(node, None)

    async def _ask_loop(self) -> None:
        while True:
            await self._trust.weigh()
            await asyncio.sleep(ASK_S * self._rng.uniform(1 - ASK_JITTER, 1 + ASK_JITTER))
            for issuer in self._trust.opinions.network.expire(self._trust.now_s):
                self._forget(issuer)
            for peer in list(self._links.peers()):
                await self.ask(peer.link.peer)

    async def ask(self, node: NodeId) -> bool:
        """Ask a neighbour and keep what it says; say whether anything was new. Silence is no fault."""
        peer = self._links.peer(node)
        if peer is None or peer.link.is_closed:
            return False
        try:
            async with asyncio.timeout(_ANSWER_S):
                stream = await peer.link.open_stream()
                try:
                    await stream.send(v1.encode(v1.TrustQuery(v=v1.WIRE_VERSION)))
                    payload = await stream.recv()
                finally:
                    stream.reset(0)
            return payload is not None and self.take(node, v1.decode_trust_reply(payload).statements)
        except DecodeError as error:
            self._on_misbehaved(node, error.code, str(error))
        except (MeshError, TimeoutError):
            pass
        return False

    def take(self, node: NodeId, raws: list[str]) -> bool:
        """Check and keep statements that a peer sent; say whether any was new.

        The first that does not hold is held against the peer and ends it. One that is out of date may be just that.
        """
        is_new, now = False, int(self._unix_s())
        if len(raws) > v1.STATEMENTS_MAX:
            self._on_misbehaved(node, "trust_statement.too_many", f"{len(raws)} statements in one answer")
            return False
        for raw in raws:
            if raw in (self._own, *self._raws.values()):
                continue
            try:
                statement = read_trust_statement(raw, now=now)
            except ReplayError:
                continue  # clocks differ, or it was on its way for long
            except (DecodeError, SignatureError) as error:
                self._on_misbehaved(node, error.code, error.detail)
                break
            kept = self._trust.opinions.network.seq_of(statement.issuer)
            if statement.issuer == node and statement.seq < kept:
                self._on_misbehaved(
                    node, "trust_statement.replayed", "an old statement of its own in place of a newer one"
                )
                break
            if statement.issuer == node and statement.seq == kept:
                self._on_misbehaved(node, "trust_statement.equivocation", "two statements under one seq")
                break
            if self._keep(statement):
                is_new = True
                self._store_it(statement)
        return is_new

    def _keep(self, statement: TrustStatement) -> bool:
        """Keep a verified statement if it is newer than what is kept and there is room."""
        trust, issuer = self._trust, statement.issuer
        # It counts as old as it says it is, whoever carried it for how long.
        made_s = trust.now_s - max(0.0, self._unix_s() - statement.iat)
        rows = [Said(r.subject, r.node, r.good / 1_000, r.bad / 1_000, r.since) for r in statement.rows]
        before = trust.opinions.network.issuers()
        if not trust.opinions.network.take(issuer, statement.seq, rows, made_s):
            return False
        self._raws[issuer] = statement.raw
        for gone in before:
            if not trust.opinions.network.seq_of(gone):
                self._forget(gone)
        return True

    def _store_it(self, statement: TrustStatement) -> None:
        try:
            self._store.save_statement(statement.issuer, statement.raw, statement.iat)
        except StoreError as error:
            _log.warning("a statement is not kept for the next start: %s", error)

    def _forget(self, issuer: str) -> None:
        self._raws.pop(issuer, None)
        try:
            self._store.drop_statement(issuer)
        except StoreError as error:
            _log.warning("a statement that is over stays stored: %s", error)

    async def aclose(self) -> None:
        """Stop asking. Idempotent."""
        await self._scope.aclose()
