"""The node as a credential sees it that does not open everything: each thing it may not touch is refused here, in one place."""

from __future__ import annotations

from collections.abc import AsyncIterator

from agentmesh.api.backend import Backend, Call
from agentmesh.api.scopes import Rights
from agentmesh.sdk.types import (
    AgentDetail,
    AgentView,
    AuditProof,
    AuditRecords,
    AuditView,
    CallRequest,
    CancelResult,
    GrantRequest,
    GrantView,
    NetView,
    OrdersView,
    OrderTaken,
    PeerView,
    PolicyView,
    ReceiptView,
    RegisterRequest,
    RulingView,
    RunView,
    StatusView,
    Stored,
    TraceView,
    TrustView,
)
from agentmesh.wire.event import EventV1


def view_of(node: Backend, rights: Rights) -> Backend:
    """Return the node as these rights allow to see and use it."""
    return node if rights.is_whole else Limited(node, rights)


class Limited:
    """A ``Backend`` cut to what some rights allow. Made for each request: it keeps nothing.

    Args:
        node: What it stands for.
        rights: Whose view it is. Scopes of routes were checked before; here it is about which agents.
    """

    __slots__ = ("_node", "_rights")

    def __init__(self, node: Backend, rights: Rights) -> None:
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

    def agents(self, query: str = "", name: str = "", include_unhealthy: bool = True) -> list[AgentView]:
        """See ``Backend``."""
        return self._node.agents(query, name, include_unhealthy)

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

    async def receipts(self, ref: str) -> list[ReceiptView]:
        """See ``Backend``."""
        return await self._node.receipts(ref)

    def audit_log(self) -> AuditView:
        """See ``Backend``; the operator's alone."""
        self._rights.require("admin")
        return self._node.audit_log()

    async def audit_records(self, after: int, limit: int, run: str, agent: str) -> AuditRecords:
        """See ``Backend``; the operator's alone."""
        self._rights.require("admin")
        return await self._node.audit_records(after, limit, run, agent)

    async def audit_proof(self, ref: str) -> AuditProof:
        """See ``Backend``; the operator's alone."""
        self._rights.require("admin")
        return await self._node.audit_proof(ref)

    def grant(self, request: GrantRequest) -> GrantView:
        """See ``Backend``; the operator's alone."""
        self._rights.require("admin")
        return self._node.grant(request)

    def trust_in(self, ref: str) -> TrustView:
        """See ``Backend``."""
        return self._node.trust_in(ref)

    async def report_abuse(self, ref: str, reason: str) -> TrustView:
        """See ``Backend``."""
        return await self._node.report_abuse(ref, reason)

    async def runs(self, limit: int) -> list[RunView]:
        """See ``Backend``."""
        return await self._node.runs(limit)

    async def ingest(self, events: list[EventV1]) -> Stored:
        """See ``Backend``."""
        return await self._node.ingest(events)

    def follow(self, after_seq: int, run_id: str | None = None) -> AsyncIterator[EventV1]:
        """See ``Backend``."""
        return self._node.follow(after_seq, run_id)

    async def task_events(self, task_id: str) -> list[EventV1]:
        """See ``Backend``."""
        return await self._node.task_events(task_id)

    async def take_order(self, raw: str) -> OrderTaken:
        """See ``Backend``."""
        return await self._node.take_order(raw)

    def orders_view(self) -> OrdersView:
        """See ``Backend``."""
        return self._node.orders_view()

    def peers(self) -> list[PeerView]:
        """See ``Backend``."""
        return self._node.peers()

    async def look_for(self, ref: str) -> None:
        """See ``Backend``."""
        await self._node.look_for(ref)

    async def search(self, query: str) -> int:
        """See ``Backend``."""
        return await self._node.search(query)

    async def policy_view(self) -> PolicyView:
        """See ``Backend``. The operator's alone. Raises Unauthorized."""
        self._rights.require("admin")
        return await self._node.policy_view()

    async def explain_policy(self, caller: str, callee: str, skill: str, purpose: str) -> RulingView:
        """See ``Backend``. The operator's alone. Raises Unauthorized."""
        self._rights.require("admin")
        return await self._node.explain_policy(caller, callee, skill, purpose)

    async def net(self) -> NetView:
        """See ``Backend``."""
        return await self._node.net()

    async def add_seeds(self, seeds: list[str]) -> None:
        """See ``Backend``."""
        await self._node.add_seeds(seeds)
