"""The node as a credential sees it that does not open everything: each thing it may not touch is refused here, in one place."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from agentmesh.api.backend import Backend, Call, View
from agentmesh.api.scopes import ANONYMOUS, Rights
from agentmesh.errors import AgentNotFound, RunNotFound
from agentmesh.sdk.types import (
    AgentDetail,
    AgentView,
    CallRequest,
    CancelResult,
    DiscoverRequest,
    DiscoverView,
    NetView,
    OrdersView,
    PeerView,
    ReceiptChecks,
    ReceiptView,
    RegisterRequest,
    RunList,
    StatsView,
    StatusView,
    Stored,
    TopologyView,
    TraceRows,
    TraceView,
    TrustList,
    TrustView,
)
from agentmesh.wire.event import EventV1
from agentmesh.wire.rows import RowQuery, RunQuery


def view_of(node: Backend, rights: Rights) -> View:
    """Return the node as these rights allow to see and use it. Raises Unauthorized: their tenant is gone."""
    if rights is ANONYMOUS:
        return Anonymous(node, rights)
    view: View = node.for_tenant(rights.tenant) if rights.tenant else node
    return view if rights.agents is None and "register" in rights.scopes else Limited(view, rights)


class Limited:
    """A ``View`` cut to what some rights allow. Made for each request: it keeps nothing.

    Args:
        node: What it stands for.
        rights: Whose view it is. Scopes of routes were checked before; here it is about which agents.
    """

    __slots__ = ("_node", "_rights")

    def __init__(self, node: View, rights: Rights) -> None:
        self._node, self._rights = node, rights

    async def call(self, request: CallRequest) -> Call:
        """Start a call to an agent that may be called.

        Raises:
            Unauthorized: it may not (code "refused.scope"), or the call names an agent that it comes from. Nothing was started.
            MeshError: as for ``Backend.call``.
        """
        if request.from_agent or request.hops:
            self._rights.require("register")
        if not self._rights.may_call(request.to.partition("@")[0], request.to):
            # The reference may be an id where the scope has a name, or the other way round.
            await self._node.look_for(request.to)
            for one in self._node.agent(request.to).replicas or [self._node.agent(request.to).agent]:
                self._rights.require_call(one.name, one.agent_id)
        return await self._node.call(request)

    async def cancel(self, task_id: str) -> CancelResult:
        """Ask a running task to stop, if it is one of an agent that may be called. Raises as ``call``."""
        if self._rights.agents is not None:
            for event in await self._node.task_events(task_id):
                if event.agent:
                    self._rights.require_call(event.agent, event.agent_id or "")
        return await self._node.cancel(task_id)

    # What is not cut

    def status(self) -> StatusView:
        """See ``Backend``."""
        return self._node.status()

    def agents(self, name: str = "", include_unhealthy: bool = True) -> list[AgentView]:
        """See ``Backend``."""
        return self._node.agents(name, include_unhealthy)

    def agent(self, ref: str) -> AgentDetail:
        """See ``Backend``."""
        return self._node.agent(ref)

    async def register(self, request: RegisterRequest) -> list[AgentView]:
        """See ``Backend``."""
        return await self._node.register(request)

    async def deregister(self, ref: str) -> AgentView:
        """See ``Backend``."""
        return await self._node.deregister(ref)

    async def renew(self, agent_id: str) -> bool:
        """See ``Backend``."""
        return await self._node.renew(agent_id)

    async def trace(self, ref: str, after: int = 0, remote: bool = True) -> TraceView:
        """See ``Backend``."""
        return await self._node.trace(ref, after, remote)

    async def rows(self, ref: str, query: RowQuery, remote: bool = True) -> TraceRows:
        """See ``Backend``."""
        return await self._node.rows(ref, query, remote)

    async def event(self, seq: int) -> EventV1:
        """See ``Backend``."""
        return await self._node.event(seq)

    async def receipts(self, ref: str) -> list[ReceiptView]:
        """See ``Backend``."""
        return await self._node.receipts(ref)

    async def receipt_checks(self, ref: str) -> ReceiptChecks:
        """See ``View``."""
        return await self._node.receipt_checks(ref)

    def trust_list(self, limit: int, start: int = 0, tier: str = "", query: str = "") -> TrustList:
        """See ``View``."""
        return self._node.trust_list(limit, start, tier, query)

    def trust_in(self, ref: str) -> TrustView:
        """See ``View``."""
        return self._node.trust_in(ref)

    async def runs(self, query: RunQuery) -> RunList:
        """See ``Backend``."""
        return await self._node.runs(query)

    async def ingest(self, events: list[EventV1]) -> Stored:
        """See ``Backend``."""
        return await self._node.ingest(events)

    def follow(self, after_seq: int, run_id: str | None = None) -> AsyncIterator[EventV1]:
        """See ``Backend``."""
        return self._node.follow(after_seq, run_id)

    async def task_events(self, task_id: str) -> list[EventV1]:
        """See ``Backend``."""
        return await self._node.task_events(task_id)

    def orders_view(self) -> OrdersView:
        """See ``Backend``."""
        return self._node.orders_view()

    def peers(self) -> list[PeerView]:
        """See ``Backend``."""
        return self._node.peers()

    async def look_for(self, ref: str) -> None:
        """See ``Backend``."""
        await self._node.look_for(ref)

    async def discover(self, request: DiscoverRequest) -> DiscoverView:
        """See ``Backend``."""
        return await self._node.discover(request)

    def watch_discover(self, request: DiscoverRequest, *, watch: bool = False) -> AsyncGenerator[DiscoverView]:
        """See ``Backend``."""
        return self._node.watch_discover(request, watch=watch)

    async def net(self) -> NetView:
        """See ``Backend``."""
        return await self._node.net()

    async def topology(self, window_s: int, source: str, zone: str) -> TopologyView:
        """See ``Backend``."""
        return await self._node.topology(window_s, source, zone)

    async def stats(self) -> StatsView:
        """See ``Backend``."""
        return await self._node.stats()

    async def add_seeds(self, seeds: list[str]) -> None:
        """See ``Backend``."""
        await self._node.add_seeds(seeds)


class OfCaller(Limited):
    """The node as whoever signed a call token may ask about what it began itself: nothing from the log, which tells all."""

    __slots__ = ("_caller", "_whole")

    def __init__(self, node: Backend, rights: Rights, caller: str) -> None:
        super().__init__(node, rights)
        self._whole, self._caller = node, caller

    async def cancel(self, task_id: str) -> CancelResult:
        """Ask a call of its own to stop."""
        return self._whole.cancel_of(self._caller, task_id)

    async def task_events(self, task_id: str) -> list[EventV1]:
        """Return nothing: ids of tasks in the log are of anybody."""
        return []


class Anonymous(Limited):
    """The node as a program without any credential sees it: nothing of a tenant that is not announced to the mesh."""

    __slots__ = ("_whole",)

    def __init__(self, node: Backend, rights: Rights) -> None:
        super().__init__(node, rights)
        self._whole = node

    async def call(self, request: CallRequest) -> Call:
        """Start a call. Raises as ``Backend.call``; an agent of a tenant is not found as the one that calls."""
        if request.from_agent and self._whole.tenant_of("", request.from_agent):
            raise AgentNotFound.near(request.from_agent, ())
        if request.task_id and self._whole.tenant_of(request.task_id):
            raise RunNotFound(f"no task {request.task_id[:64]!r}")
        return await super().call(request)

    async def cancel(self, task_id: str) -> CancelResult:
        """Ask a running task to stop, unless it is a tenant's. Raises RunNotFound."""
        if self._whole.tenant_of(task_id):
            raise RunNotFound(f"no task {task_id[:64]!r} was started at this node")
        return await super().cancel(task_id)

    async def task_events(self, task_id: str) -> list[EventV1]:
        """Return the events of a task; none of a tenant's."""
        return [] if self._whole.tenant_of(task_id) else await super().task_events(task_id)
