"""The node as one tenant sees and uses it. Nothing of another tenant, or of the operator, is told, changed or joined here.

A tenant sees its own agents and those that the operator shares with it, and the tasks that it started. Ids, prefixes and
``last`` are looked up among its own; what belongs to others is not found, like what does not exist.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING

from agentmesh.errors import AgentNotFound, MeshError, RecordNotFound, Refused, RunNotFound, Unauthorized, UsageError
from agentmesh.node.call import Call
from agentmesh.node.receipt_check import checks_of
from agentmesh.node.record import new_id
from agentmesh.node.resolve import find
from agentmesh.node.tenants import TenantDirectory, Tenants
from agentmesh.store.runrows import rows_of
from agentmesh.store.tenants import Tenant
from agentmesh.wire.console_views import TraceRows
from agentmesh.wire.event import EventV1, digest, encode_json, state_of
from agentmesh.wire.net_views import NetView, PeerView
from agentmesh.wire.order_views import OrdersView
from agentmesh.wire.proof_views import ReceiptChecks, ReceiptView
from agentmesh.wire.rows import RowQuery, RunQuery
from agentmesh.wire.search_views import DiscoverRequest, DiscoverView
from agentmesh.wire.topology_views import StatsView, TopologyView
from agentmesh.wire.trust_views import TrustList, TrustView
from agentmesh.wire.views import (
    AgentDetail,
    AgentView,
    CallRequest,
    CancelResult,
    RegisterRequest,
    RunList,
    RunView,
    StatusView,
    Stored,
    TraceView,
)

if TYPE_CHECKING:
    from agentmesh.node.node import Node

_PREFIX_CHARS_MIN = 4
_RUNS_MAX = 100
_LAST_MAX = 100_000


class TenantNode:
    """A ``Backend`` for one tenant. Made for each request: what lasts is in ``Tenants``.

    Args:
        node: The node.
        tenants: Quotas, and who started which task.
        tenant: Whose view.
    """

    def __init__(self, node: Node, tenants: Tenants, tenant: Tenant) -> None:
        self._node, self._tenants, self._tenant = node, tenants, tenant
        self._store = tenants.store
        self._directory = TenantDirectory(tenant, node.registry, node.directory)

    # Agents

    def agents(self, name: str = "", include_unhealthy: bool = True) -> list[AgentView]:
        """Return its agents and those shared with it, or those of one name."""
        return self._node.agents(name, include_unhealthy, directory=self._directory)

    def agent(self, ref: str) -> AgentDetail:
        """Return one agent that it sees. Raises AgentNotFound; near names are of agents that it sees."""
        return self._node.agent(ref, directory=self._directory)

    async def look_for(self, ref: str) -> None:
        """Look in the whole mesh for an agent that is shared with it; for no other."""
        if self._directory.shares(ref.partition("@")[0]):
            await self._node.look_for(ref)

    async def discover(self, request: DiscoverRequest) -> DiscoverView:
        """Return which of the agents that it sees meet a need; others are not asked. Raises UsageError."""
        return await self._node.discover(request, self._directory)

    def watch_discover(self, request: DiscoverRequest, *, watch: bool = False) -> AsyncGenerator[DiscoverView]:
        """Yield the answer each time that it changes. Raises UsageError."""
        return self._node.watch_discover(request, self._directory, watch=watch)

    async def register(self, request: RegisterRequest) -> list[AgentView]:
        """Register agents as its own (see ``Registry.register``). Raises LimitError over ``agents_max``."""
        return await self._node.register(request, self._tenants.owner_of_agents(self._tenant))

    async def deregister(self, ref: str) -> AgentView:
        """Withdraw one of its agents. Raises AgentNotFound."""
        for agent in self._directory.own():
            manifest = agent.manifest
            if ref == manifest.agent_id or ref.partition("@")[0].casefold() == manifest.name.casefold():
                return await self._node.deregister(manifest.agent_id)
        raise AgentNotFound.near(ref, (a.manifest.name for a in self._directory.own()))

    async def renew(self, agent_id: str) -> bool:
        """Keep one of its ephemeral agents alive."""
        return self._directory.owns(agent_id) and await self._node.renew(agent_id)

    # Calls

    async def call(self, request: CallRequest) -> Call:
        """Start a call to an agent that it sees.

        Raises:
            AgentNotFound: it sees no such agent, or the calling agent is not its own. Nothing was started.
            Busy: a quota is used up (code "refused.busy.tenant"). Nothing was started.
            Unauthorized: task or run are another's (code "refused.tenant"). Nothing was started.
            MeshError: as ``Calls.start``. Nothing was started.
        """
        await self.look_for(request.to)
        find(request.to, self._directory, self._node.name_of)
        if request.from_agent:
            request.from_agent = self._own_id(request.from_agent)
        task_id, run_id = request.task_id or new_id(), request.run_id or new_id()
        if request.task_id:
            await self._check_task(task_id)
        if request.run_id:
            await self._check_run(run_id)
        request.task_id, request.run_id = task_id, run_id
        try:
            use = self._tenants.admit_call(self._tenant)
        except Refused as refused:
            self._node.traffic.refused(refused)
            await self._node.audit.refused(request, refused)
            raise
        self._store.note(self._tenant.name, task_id, run_id)
        call = await self._node.start_call(request, self._directory)
        use.calls.append(call)
        return call

    def _own_id(self, ref: str) -> str:
        for agent in self._directory.own():
            if ref in (agent.manifest.agent_id, agent.manifest.name):
                return agent.manifest.agent_id
        raise AgentNotFound.near(ref, (a.manifest.name for a in self._directory.own()))

    async def _check_task(self, task_id: str) -> None:
        """Refuse the id of a task that somebody else started: its outcome would be told."""
        if self._store.owner(task_id) == self._tenant.name:
            return
        if self._store.owner(task_id) or self._node.knows_task(task_id) or await self._node.task_events(task_id):
            raise _not_yours("task")

    async def _check_run(self, run_id: str) -> None:
        """Refuse to join a run in which neither it nor an agent of its own takes part."""
        if self._store.tasks(self._tenant.name, run_id):
            return
        events = await self._node.run_events(run_id)
        if events and not any(event.agent_id and self._directory.owns(event.agent_id) for event in events):
            raise _not_yours("run")

    async def cancel(self, task_id: str) -> CancelResult:
        """Ask a task that it started to stop. Raises RunNotFound."""
        if self._store.owner(task_id) != self._tenant.name:
            raise RunNotFound(f"no task {task_id[:64]!r} was started at this node", hint="agentmesh trace last")
        return await self._node.cancel(task_id)

    # What happened

    async def task_events(self, task_id: str) -> list[EventV1]:
        """Return the events of a task that it started; [] for any other."""
        return await self._node.task_events(task_id) if self._store.owner(task_id) == self._tenant.name else []

    async def trace(self, ref: str, after: int = 0, remote: bool = True) -> TraceView:
        """Return what its own tasks did in a run (see ``Traces.view``). Raises RunNotFound, UsageError."""
        run_id = self._run_of(ref)
        view = await self._node.trace(run_id, 0, remote)
        tasks = self._store.tasks(self._tenant.name, run_id)
        events = [event for event in view.events if event.task_id in tasks]
        if not events:
            raise RunNotFound(f"no run {ref[:64]!r}", hint="agentmesh trace last")
        seen = {event.node_id for event in events}
        return TraceView(
            run_id=run_id,
            count=len(events),
            digest=digest(events),
            events=[event for event in events if event.seq > after] if after else events,
            nodes={node: name for node, name in view.nodes.items() if node in seen},
            missing_nodes=[node for node in view.missing_nodes if node in seen],
            complete=view.complete,
        )

    async def rows(self, ref: str, query: RowQuery, remote: bool = True) -> TraceRows:
        """Return the rows of its own tasks in a run (see ``Traces.rows``). Raises RunNotFound, UsageError."""
        view = await self.trace(ref, 0, remote)
        answer = rows_of(view.run_id, view.events, query, lambda event: len(encode_json(event)) + 1)
        answer.nodes, answer.missing_nodes, answer.complete = view.nodes, view.missing_nodes, view.complete
        return answer

    async def event(self, seq: int) -> EventV1:
        """Return one event of its own tasks. Raises RecordNotFound."""
        event = await self._node.event(seq)
        if not event.task_id or self._store.owner(event.task_id) != self._tenant.name:
            raise RecordNotFound(f"no event {seq} of yours in the log of this node")
        return event

    def _run_of(self, ref: str) -> str:
        """Return the one run of its own that a reference names. Raises RunNotFound, UsageError."""
        ref = ref.strip()
        if ref == "last" or ref.startswith("last~"):
            number = ref[5:] or "0"
            skip = int(number) if number.isascii() and number.isdigit() and len(number) <= 6 else _LAST_MAX
            found = self._store.runs(self._tenant.name, 1, min(skip, _LAST_MAX))
        else:
            ref = ref.removeprefix("run_").removeprefix("task_")
            if len(ref) < _PREFIX_CHARS_MIN:
                raise UsageError(f"a prefix has at least {_PREFIX_CHARS_MIN} characters", code="run.too_short")
            found = self._store.runs_like(self._tenant.name, ref)
        if len(found) > 1:
            raise UsageError(f"several runs begin with {ref[:64]!r}", code="run.ambiguous", hint="give more of the id")
        if not found:
            raise RunNotFound(f"no run {ref[:64]!r}", hint="agentmesh trace last")
        return found[0]

    async def receipts(self, ref: str) -> list[ReceiptView]:
        """Return the receipts of its own tasks in a run. Raises RunNotFound, UsageError."""
        run_id = self._run_of(ref)
        tasks = self._store.tasks(self._tenant.name, run_id)
        kept = [one for one in await self._node.receipts(run_id) if one.task_id in tasks]
        if not kept:
            raise RunNotFound(f"no receipt of {ref[:64]!r} is kept here", hint="agentmesh trace last")
        return kept

    async def receipt_checks(self, ref: str) -> ReceiptChecks:
        """Return the receipts of its own tasks in a run, each checked now. Raises as ``receipts``."""
        return await asyncio.to_thread(checks_of, await self.receipts(ref), lambda _: "")

    async def runs(self, query: RunQuery) -> RunList:
        """Return its newest runs that fit; ``total`` counts those of the 100 that are looked at for one answer at most."""
        ids = self._store.runs(self._tenant.name, _RUNS_MAX + 1, min(query.before, _LAST_MAX))
        views: list[RunView] = []
        looked = total = 0
        for run_id in ids[:_RUNS_MAX]:
            if len(views) < query.limit:
                looked += 1
            try:
                events = (await self.trace(run_id, 0, False)).events
            except MeshError:  # its events are gone, or too many to tell
                continue
            view = _view_of(run_id, events)
            if _fits(view, events, query):
                total += 1
                if len(views) < query.limit:
                    views.append(view)
        return RunList(runs=views, total=total, next=query.before + looked if looked < len(ids) else 0)

    async def ingest(self, events: list[EventV1]) -> Stored:
        """Store events of its own tasks, or of tasks that its own agents serve.

        Raises:
            Unauthorized: one is of another's task, or in the name of another's agent (code "refused.tenant"). None was stored.
            LimitError: ``events_bytes_per_day`` is used up. None was stored.
            UsageError, StoreError: as ``Node.ingest``.
        """
        known: dict[tuple[str | None, str], bool] = {}
        for event in events:
            if event.agent_id and not self._directory.owns(event.agent_id):
                raise _not_yours("agent")
            key = (event.task_id, event.run_id)
            if key not in known:
                known[key] = await self._may_tell_of(event)
            if not known[key]:
                raise _not_yours("task")
        self._tenants.admit_events(self._tenant, sum(len(encode_json(event)) for event in events))
        return await self._node.ingest(events)

    async def _may_tell_of(self, event: EventV1) -> bool:
        if not event.task_id:
            return False
        if self._store.owner(event.task_id) == self._tenant.name:
            return event.task_id in self._store.tasks(self._tenant.name, event.run_id)
        served = await self._node.task_events(event.task_id)
        return any(one.run_id == event.run_id and one.agent_id and self._directory.owns(one.agent_id) for one in served)

    async def follow(self, after_seq: int, run_id: str | None = None) -> AsyncIterator[EventV1]:
        """Yield the events of its own tasks from ``after_seq``, then live."""
        if run_id is not None:
            run_id = self._run_of(run_id)
        async for event in self._node.follow(after_seq, run_id):
            if event.task_id and self._store.owner(event.task_id) == self._tenant.name:
                yield event

    # The node

    def status(self) -> StatusView:
        """Return the state of the node without what is the operator's."""
        whole = self._node.status()
        return StatusView(
            node_id=whole.node_id,
            node_name=whole.node_name,
            pid=whole.pid,
            port=whole.port,
            version=whole.version,
            uptime_s=whole.uptime_s,
            rss_bytes=0,
            peers=0,
            agents=len(self._directory.entries()),
            agents_local=len(self._directory.own()),
            last_seq=whole.last_seq,
            read_only=whole.read_only,
        )

    def peers(self) -> list[PeerView]:
        """Refuse: other nodes are the operator's business."""
        raise self._operators()

    def orders_view(self) -> OrdersView:
        """Refuse: what operators ordered is theirs; ``status`` says whether the node is stopped."""
        raise self._operators()

    def trust_list(self, limit: int, start: int = 0, tier: str = "", query: str = "") -> TrustList:
        """Refuse: the evidence tells of calls of others."""
        raise self._operators()

    def trust_in(self, ref: str) -> TrustView:
        """Refuse: the evidence tells of calls of others."""
        raise self._operators()

    async def net(self) -> NetView:
        """Refuse: the mesh is the operator's business."""
        raise self._operators()

    async def topology(self, window_s: int, source: str, zone: str) -> TopologyView:
        """Refuse: who calls whom is the operator's business."""
        raise self._operators()

    async def stats(self) -> StatsView:
        """Refuse: the figures are of everybody's calls."""
        raise self._operators()

    async def add_seeds(self, seeds: list[str]) -> None:
        """Refuse: other nodes are the operator's business."""
        raise self._operators()

    def _operators(self) -> Unauthorized:
        return Unauthorized(
            f"tenant {self._tenant.name} may not do this",
            code="refused.tenant",
            why="nodes, the mesh and what is thought of others are the operator's",
        )


def _view_of(run_id: str, events: list[EventV1]) -> RunView:
    states = [state for event in events if event.kind == "status" and (state := state_of(event.payload))]
    return RunView(
        run_id=run_id,
        first_ts=min(event.ts for event in events),
        last_ts=max(event.ts for event in events),
        count=len(events),
        agent=next((event.agent for event in events if event.agent), ""),
        state=states[-1] if states else "",
        tasks=len({event.task_id for event in events}),
        agents=sorted({event.agent for event in events if event.agent}, key=str.casefold)[:8],
    )


def _fits(view: RunView, events: list[EventV1], query: RunQuery) -> bool:
    name = query.agent.casefold()
    return (
        (not query.states or view.state in query.states)
        and (not query.kinds or any(event.kind in query.kinds for event in events))
        and (not name or any(query.agent == e.agent_id or name == (e.agent or "").casefold() for e in events))
        and view.last_ts >= query.since
        and (not query.until or view.first_ts <= query.until)
    )


def _not_yours(what: str) -> Unauthorized:
    return Unauthorized(
        f"this {what} is not yours",
        code="refused.tenant",
        why=f"the id names a {what} that this tenant has no part in",
        hint="leave the id out to have one made",
    )
