"""The part of a node that remembers: events, runs, receipts and the audit log."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from agentmesh.errors import MeshError, RunNotFound, UsageError
from agentmesh.identity.audit_record import AuditRecord
from agentmesh.node.parts import Parts
from agentmesh.store import audit_read
from agentmesh.store.audit_survey import Wanted
from agentmesh.wire.audit_views import AuditPeerView, AuditProof, AuditRecords, AuditView
from agentmesh.wire.console_views import TraceRows
from agentmesh.wire.event import EventV1, check
from agentmesh.wire.proof_views import ReceiptView
from agentmesh.wire.rows import RowQuery, RunQuery
from agentmesh.wire.views import RunList, RunView, Stored, TraceView

_INGEST_MAX = 10_000
_REF_CHARS_MIN = 4


class HistoryHost(Parts):
    """What ``Node`` tells of what happened; nothing but ``Node`` inherits it."""

    async def task_events(self, task_id: str) -> list[EventV1]:
        """Return the events of a task known here, in order; [] when none is."""
        return await self._log.task_events(task_id)

    async def trace(self, ref: str, after: int = 0, remote: bool = True) -> TraceView:
        """Return a run in order (see ``Traces.view``)."""
        view = await self._traces.view(ref, after=after, remote=remote)
        view.receipts = self._call_store.count_of_run(view.run_id)
        return view

    async def rows(self, ref: str, query: RowQuery, remote: bool = True) -> TraceRows:
        """Return a run as rows without payloads (see ``Traces.rows``)."""
        rows = await self._traces.rows(ref, query, remote=remote)
        rows.receipts = self._call_store.count_of_run(rows.run_id)
        return rows

    async def event(self, seq: int) -> EventV1:
        """Return one event whole, by its position in this node's log. Raises RecordNotFound."""
        return await self._log.event_at(seq)

    async def receipts(self, ref: str) -> list[ReceiptView]:
        """Return the receipts kept here of a run or task, oldest first.

        Raises:
            RunNotFound: no receipt of it is kept here.
            UsageError: the prefix is too short or fits more than one run.
        """
        with contextlib.suppress(RunNotFound):
            ref = await self._log.resolve(ref)
        kept = self._call_store.of_call(ref) if len(ref) >= _REF_CHARS_MIN else []
        if not kept:
            raise RunNotFound(
                f"no receipt of {ref[:64]!r} is kept here",
                why="calls that reached no agent, and agents that keep their key to themselves, leave none",
                hint="agentmesh trace last",
            )
        return [ReceiptView(**one._asdict()) for one in kept]

    async def runs(self, query: RunQuery) -> RunList:
        """Return runs that fit, newest first."""
        page = await self._log.runs(query)
        views = [RunView(**row._asdict()) for row in page.rows]
        return RunList(runs=views, total=page.total, next=page.next)

    async def ingest(self, events: list[EventV1]) -> Stored:
        """Store events of programs beside this node; answered after they are on disk.

        Raises:
            UsageError: too many, or one is malformed. Nothing was stored.
            StoreError: they could not be stored; none was acknowledged.
        """
        if len(events) > _INGEST_MAX:
            raise UsageError(f"{len(events)} events at once, at most {_INGEST_MAX} are taken", code="events.too_many")
        for event in events:
            try:
                check(event)
            except MeshError as error:
                raise UsageError(str(error), code=error.code) from error
            if not event.node_id:
                event.node_id = self.node_id
        return Stored(stored=len(events), last_seq=await self._log.append_durable(events, copies=True))

    def follow(self, after_seq: int, run_id: str | None = None) -> AsyncIterator[EventV1]:
        """Yield the log from ``after_seq``, then live."""
        return self._log.follow(after_seq, run_id)

    def audit_log(self) -> AuditView:
        """Return the state of this node's audit log, and what it knows of those of others."""
        head, refusal = self.audit.log.head, self.audit.log.refusal
        return AuditView(
            node_id=self.node_id,
            size=0 if head is None else head.size,
            checkpoint="" if head is None else head.text,
            refusal="" if refusal is None else str(refusal),
            peers=[
                AuditPeerView(
                    node_id=pin.node,
                    node_name=self.name_of(pin.node),
                    size=pin.size,
                    checkpoint=pin.checkpoint,
                    seen=pin.seen,
                    forked=pin.forked,
                    other=pin.other,
                )
                for pin in self._audit_peers.pins()
            ],
        )

    async def audit_records(self, after: int, limit: int, run: str, agent: str) -> AuditRecords:
        """Return audit records, oldest first (see ``audit_read.select``)."""
        wanted = Wanted(run=run, agent=agent)

        def read() -> AuditRecords:
            found: list[AuditRecord] = []
            for record in audit_read.select(self.audit.log.directory, start=after, wanted=wanted):
                if len(found) == limit:
                    return AuditRecords(records=[audit_read.whole(one) for one in found], next=record.seq)
                found.append(record)
            return AuditRecords(records=[audit_read.whole(one) for one in found])

        return await asyncio.to_thread(read)

    async def note_change(self, action: str, resource: str, **members: Any) -> None:
        """Write into the audit log that something around this node changed (see ``Audit.note``). Raises StoreError."""
        await self.audit.note(action, resource, **members)

    async def audit_proof(self, ref: str) -> AuditProof:
        """Return the proof that a record is in the log (see ``audit_read.prove``)."""
        return await asyncio.to_thread(audit_read.prove, self.audit.log.directory, ref, node=self.node_id)
