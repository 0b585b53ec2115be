"""The part of a node that keeps its tenants for the operator: make, change, list and remove them, and act as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec

from agentmesh.errors import ConfigError
from agentmesh.node.parts import Parts
from agentmesh.node.tenant import TenantNode
from agentmesh.node.tenants import Tenants
from agentmesh.store.tenants import Tenant, TenantStore
from agentmesh.wire.access import TenantRequest, TenantView

if TYPE_CHECKING:
    from agentmesh.node.node import Node
    from agentmesh.wire.event import EventV1


class TenantHost(Parts):
    """What ``Node`` does for tenants; nothing but ``Node`` inherits it.

    Args:
        store: Where tenants are kept; None = this node has none.
    """

    def __init__(self, store: TenantStore | None) -> None:
        self._tenants = None if store is None else Tenants(store)

    def _node(self) -> Node:
        return cast("Node", self)

    def knows_task(self, task_id: str) -> bool:
        """Say whether a task was started here a while ago at most."""
        return self._calls.get(task_id) is not None

    async def run_events(self, run_id: str) -> list[EventV1]:
        """Return the events of a run that are kept here, by its full id; [] when none is."""
        return await self._log.run_events(run_id)

    @property
    def tenants(self) -> Tenants:
        """The tenants. Raises ConfigError: this node keeps none."""
        if self._tenants is None:
            raise ConfigError("this node keeps no tenants", code="tenants.none")
        return self._tenants

    def for_tenant(self, name: str) -> TenantNode:
        """Return the node as one tenant sees and uses it. Raises Unauthorized (code "refused.tenant"): there is none."""
        return TenantNode(self._node(), self.tenants, self.tenants.get(name))

    def tenant_of(self, task_id: str, agent_id: str = "") -> str:
        """Return the tenant that started a task, or whose agent it is; "" for the operator's and for what is unknown."""
        agent = self.registry.get(agent_id) if agent_id else None
        if agent is not None:
            return agent.saved.tenant
        return self._tenants.store.owner(task_id) if self._tenants is not None and task_id else ""

    def tenant_views(self) -> list[TenantView]:
        """Return every tenant with what it uses, by name."""
        return [self._tenant_view(tenant) for tenant in self.tenants.all()]

    def save_tenant(self, tenant: TenantRequest) -> TenantView:
        """Make or change a tenant; its agents that run stay announced, or not, until they register again. Raises ReadOnly,
        UsageError, LimitError, StoreError; nothing changed."""
        self._node().switch.refuse()
        settled = Tenant(**msgspec.structs.asdict(tenant))
        self.tenants.save(settled)
        return self._tenant_view(settled)

    async def remove_tenant(self, name: str) -> TenantView:
        """Forget a tenant: end its calls and withdraw its agents. Raises RecordNotFound, StoreError; nothing changed."""
        use = self.tenants.use(self.tenants.get(name)) if name in {t.name for t in self.tenants.all()} else None
        tenant = self.tenants.remove(name)
        for call in use.calls if use is not None else ():
            call.cancel()
        for agent in self.registry.agents():
            if agent.saved.tenant == name:
                await self.registry.deregister(agent)
        return self._tenant_view(tenant)

    def _tenant_view(self, tenant: Tenant) -> TenantView:
        use = self.tenants.use(tenant)
        agents = sum(1 for agent in self.registry.agents() if agent.saved.tenant == tenant.name)
        view = msgspec.convert(msgspec.to_builtins(tenant), TenantView)
        view.agents, view.calls_running, view.events_bytes_today = agents, use.running(), use.events_bytes
        return view
