"""The part of a node that shows what it goes by: trust in every agent, who called whom, and receipts that hold."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from agentmesh.identity.audit_record import AuditRecord
from agentmesh.ids import AgentId
from agentmesh.node.parts import Parts
from agentmesh.node.receipt_check import checks_of
from agentmesh.node.resolve import Entry
from agentmesh.store.audit_survey import Look, Wanted, look_back, pieces
from agentmesh.wire.audit_views import AuditRow, AuditRows, TokenState
from agentmesh.wire.proof_views import ReceiptChecks
from agentmesh.wire.trust_views import TrustBin, TrustList, TrustRow
from agentmesh.wire.views import TrustTier

if TYPE_CHECKING:
    from agentmesh.node.node import Node

#: Bars of the histogram of trust.
_BINS = 10
_TIERS: tuple[TrustTier, ...] = ("low", "unknown", "medium", "high", "own")


class EvidenceHost(Parts):
    """What ``Node`` shows of evidence; nothing but ``Node`` inherits it."""

    def trust_list(self, limit: int, start: int = 0, tier: str = "", query: str = "") -> TrustList:
        """Return what this node thinks of every agent it knows, the least trusted first.

        Args:
            limit, start: Pass over so many of those that fit, return so many.
            tier: Only this one; "" = all.
            query: Only agents with this in their name, id or node's name, in any letter case.

        Raises:
            StoreError: receipts cannot be counted.
        """
        config = self.trust.opinions.config
        # Of all agents only what list and histogram are made of: with thousands of them, whole views would hold up the loop.
        agents = sorted(
            map(self._weighed, self.sights.entries()), key=lambda one: (one.score, one.name.casefold(), one.agent_id)
        )
        wanted = query.casefold()
        fit = [one for one in agents if tier in ("", one.tier) and (not wanted or self._has(one, wanted))]
        shown = fit[start : start + limit]
        receipts = self._call_store.counts_of([one.agent_id for one in shown])
        for one in shown:
            one.node_name = self.name_of(one.node_id)
            one.receipts = receipts.get(one.agent_id, 0)
            manifest = self.sights.entry(AgentId(one.agent_id))
            one.organisation = "" if manifest is None else cast("Node", self).organisation_of(manifest.manifest)
        return TrustList(
            agents=shown,
            count=len(agents),
            digest=_digest(agents),
            matching=len(fit),
            histogram=histogram(agents),
            tiers={tier: sum(1 for one in agents if one.tier == tier) for tier in _TIERS},
            half_life_s=config.half_life_s,
            medium=config.medium,
            high=config.high,
        )

    def _weighed(self, entry: Entry) -> TrustRow:
        manifest = entry.manifest
        verdict = self.trust.verdict(manifest.agent_id)
        return TrustRow(
            agent_id=manifest.agent_id,
            name=manifest.name,
            node_id=manifest.node_id,
            score=round(verdict.score, 4),
            tier=verdict.tier,
        )

    def _has(self, one: TrustRow, wanted: str) -> bool:
        texts = (one.name, one.agent_id, self.name_of(one.node_id))
        return any(wanted in text.casefold() for text in texts)

    async def receipt_checks(self, ref: str) -> ReceiptChecks:
        """Return the receipts of a run or task, each checked now (see ``HistoryHost.receipts``)."""
        kept = await cast("Node", self).receipts(ref)
        names = {did: self._name_of_key(did) for one in kept for did in (one.caller, one.callee)}
        return await asyncio.to_thread(checks_of, kept, names.__getitem__)

    async def audit_rows(self, wanted: Wanted, limit: int, before: int) -> AuditRows:
        """Return audit records as lines of who called whom, newest first (see ``audit_survey.look_back``)."""
        log = self.audit.log
        head = log.head
        look: Look = await asyncio.to_thread(look_back, log.directory, wanted, limit=limit, before=before)
        signed = 0 if head is None else head.size
        hashes = [str(one.data["receipt"]) for one in look.records if "receipt" in one.data]
        kept = self._call_store.kept_of(hashes)
        return AuditRows(
            rows=[self._row(one, kept, signed) for one in look.records],
            matching=look.matching,
            digest=look.digest,
            begin=look.begin,
            end=look.end,
            next=look.next,
            signed=signed,
        )

    async def audit_export(self, wanted: Wanted) -> AsyncIterator[bytes]:
        """Yield the records that fit, oldest first, one per line exactly as they are hashed; many lines at a time."""
        found: Iterator[bytes] = pieces(self.audit.log.directory, wanted)
        while (piece := await asyncio.to_thread(next, found, None)) is not None:
            if piece:
                yield piece

    def _row(self, record: AuditRecord, kept: frozenset[str], signed: int) -> AuditRow:
        def text(name: str) -> str:
            value: Any = record.data.get(name)
            return value if isinstance(value, str) else ""

        count = record.data.get("count")
        caller, callee, node = text("agent"), text("resource"), text("node")
        return AuditRow(
            seq=record.seq,
            time=record.time,
            action=record.action,
            decision=record.decision,
            caller=caller,
            caller_name=self._name_of_key(caller),
            claimed=text("claimed"),
            callee=callee,
            callee_name=text("name") or self._name_of_key(callee),
            node=node,
            node_name=self._name_of_key(node),
            skill=text("skill"),
            purpose=text("purpose"),
            task=text("task"),
            run=text("txn"),
            outcome=text("outcome"),
            code=text("code"),
            token=_token_state(record),
            receipt=text("receipt"),
            kept=text("receipt") in kept,
            signed=record.seq < signed,
            count=count if isinstance(count, int) and count > 0 else 1,
        )

    def _name_of_key(self, did: str) -> str:
        """Return what people call the owner of a key: the agent or node; "" for nobody known."""
        if not did.startswith("did:"):
            return ""
        entry = self.sights.entry(AgentId(did))
        if entry is not None:
            return entry.manifest.name
        name = self.name_of(did)
        return "" if "…" in name else name


def _token_state(record: AuditRecord) -> TokenState:
    if record.action == "call.out":
        return "own"
    if record.action != "call":
        return ""
    return "verified" if "jti" in record.data else "claimed"


def histogram(agents: Iterable[TrustRow]) -> list[TrustBin]:
    """Return agents by score, in bars of equal width from 0 to 1; the last one takes 1 in."""
    bins = [TrustBin(low=at / _BINS, high=(at + 1) / _BINS) for at in range(_BINS)]
    for one in agents:
        bar = bins[min(_BINS - 1, max(0, int(one.score * _BINS)))]
        bar.count += 1
        bar.own += one.tier == "own"
    return bins


def _digest(agents: Iterable[TrustRow]) -> str:
    total = hashlib.sha256()
    for one in agents:
        # As people see the score: with more digits, two who look a second apart would differ, since evidence fades.
        total.update(f"{one.agent_id}\n{one.score:.2f}\n{one.tier}\n".encode())
    text = total.hexdigest()
    return f"{text[:4]}-{text[4:8]}"
