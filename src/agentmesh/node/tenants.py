"""The tenants of this node: what each may have, what it uses now, and the directory as it sees it."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from agentmesh.errors import Busy, LimitError, RecordNotFound, Unauthorized, UsageError
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import is_name
from agentmesh.node.call import Call
from agentmesh.node.registry import LocalAgent, Owner, Registry
from agentmesh.node.resolve import Directory
from agentmesh.node.views import LeasedEntry
from agentmesh.store.tenants import Tenant, TenantStore

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?", re.ASCII)
_SHARE_MAX = 256
_DAY_S = 86_400


@dataclass(slots=True)
class Use:
    """What a tenant uses now; nothing of it outlives the process.

    Attributes:
        calls: Its calls that ran when it last began one.
        allowance: Calls that may begin at once.
        at_s: Monotonic time when ``allowance`` was right.
        day, events_bytes: Bytes of events that it stored on that day since 1970.
    """

    allowance: float
    at_s: float
    calls: list[Call] = field(default_factory=list[Call])
    day: int = 0
    events_bytes: int = 0

    def running(self) -> int:
        """Return how many of its calls run."""
        self.calls = [call for call in self.calls if not call.done]
        return len(self.calls)


class Tenants:
    """Keep tenants and hold them to their quotas.

    Args:
        store: Where they are kept.
        clock: Monotonic seconds.
        now: Unix seconds.
    """

    def __init__(
        self, store: TenantStore, *, clock: Callable[[], float] = time.monotonic, now: Callable[[], float] = time.time
    ) -> None:
        self.store, self._clock, self._now = store, clock, now
        self._by_name = {tenant.name: tenant for tenant in store.all()}
        self._uses: dict[str, Use] = {}

    def all(self) -> list[Tenant]:
        """Return every tenant, by name."""
        return [self._by_name[name] for name in sorted(self._by_name)]

    def get(self, name: str) -> Tenant:
        """Return a tenant. Raises Unauthorized (code "refused.tenant"): whoever belongs to one that is gone may do nothing."""
        tenant = self._by_name.get(name)
        if tenant is None:
            raise Unauthorized(
                f"there is no tenant {name[:80]!r} on this node", code="refused.tenant", hint="agentmesh tenants list"
            )
        return tenant

    def save(self, tenant: Tenant) -> None:
        """Make or change a tenant.

        Raises:
            UsageError: its name or a quota makes no sense (code "tenants.invalid"). Nothing changed.
            LimitError, StoreError: as ``TenantStore.save``. Nothing changed.
        """
        if not _NAME.fullmatch(tenant.name):
            raise UsageError(
                f"{tenant.name[:80]!r} can't be the name of a tenant",
                code="tenants.invalid",
                why="names have 1 to 40 small letters, digits and inner '-'",
            )
        if len(tenant.share) > _SHARE_MAX or not all(
            is_name(one) or one.startswith("did:key:") for one in tenant.share
        ):
            raise UsageError(
                f"what is shared is named by at most {_SHARE_MAX} names or ids of agents", code="tenants.invalid"
            )
        counts = (tenant.calls_at_once, tenant.agents_max)
        if not all(1 <= count <= 1_000_000 for count in counts) or not 0.01 <= tenant.calls_per_s <= 1e6:
            raise UsageError("a quota is out of range", code="tenants.invalid", why="0.01 or 1 to a million")
        if not 0 <= tenant.events_bytes_per_day <= 2**50:
            raise UsageError("a quota is out of range", code="tenants.invalid", why="0 to 2^50 bytes")
        self.store.save(tenant)
        self._by_name[tenant.name] = tenant

    def remove(self, name: str) -> Tenant:
        """Forget a tenant. Raises RecordNotFound, StoreError; nothing changed."""
        if name not in self._by_name or not self.store.remove(name):
            raise RecordNotFound(
                f"no tenant is named {name[:80]!r}", code="tenants.unknown", hint="agentmesh tenants list"
            )
        self._uses.pop(name, None)
        return self._by_name.pop(name)

    def use(self, tenant: Tenant) -> Use:
        """Return what a tenant uses."""
        use = self._uses.get(tenant.name)
        if use is None:
            use = self._uses[tenant.name] = Use(max(1.0, tenant.calls_per_s), self._clock())
        return use

    def admit_call(self, tenant: Tenant) -> Use:
        """Take what one call needs; whoever begins it adds it to ``calls``.

        Raises:
            Busy: a quota is used up (code "refused.busy.tenant"). Nothing was taken.
        """
        use, now_s, burst = self.use(tenant), self._clock(), max(1.0, tenant.calls_per_s)
        if len(use.calls) >= tenant.calls_at_once and use.running() >= tenant.calls_at_once:
            raise _busy(f"tenant {tenant.name} has {tenant.calls_at_once} calls running", 1.0)
        use.allowance = min(burst, use.allowance + (now_s - use.at_s) * tenant.calls_per_s)
        use.at_s = now_s
        if use.allowance < 1.0:
            wait_s = (1.0 - use.allowance) / tenant.calls_per_s
            raise _busy(f"tenant {tenant.name} begins at most {tenant.calls_per_s:g} calls a second", wait_s)
        use.allowance -= 1.0
        return use

    def admit_events(self, tenant: Tenant, size_bytes: int) -> None:
        """Take the bytes of events that are stored. Raises LimitError (code "tenants.events"); nothing was taken."""
        use, today = self.use(tenant), int(self._now() // _DAY_S)
        if use.day != today:
            use.day, use.events_bytes = today, 0
        if use.events_bytes + size_bytes > tenant.events_bytes_per_day:
            raise LimitError(
                f"tenant {tenant.name} stores at most {tenant.events_bytes_per_day} bytes of events a day",
                code="tenants.events",
                hint="the day ends at 00:00 UTC",
            )
        use.events_bytes += size_bytes

    def owner_of_agents(self, tenant: Tenant) -> Owner:
        """Return in whose name, and how, agents of a tenant are registered."""
        return Owner(tenant.name, not tenant.publish, tenant.agents_max)


def _busy(detail: str, retry_after_s: float) -> Busy:
    return Busy(detail, code="refused.busy.tenant", retry_after_s=round(retry_after_s, 3))


class OwnEntry:
    """An agent of a tenant as an entry of its directory."""

    __slots__ = ("_agent",)

    def __init__(self, agent: LocalAgent) -> None:
        self._agent = agent

    @property
    def manifest(self) -> Manifest:
        """The verified manifest."""
        return self._agent.manifest

    @property
    def healthy(self) -> bool | None:
        """The last check; None before the first."""
        return None if self._agent.health is None else self._agent.health.status == "healthy"

    @property
    def local(self) -> bool:
        """Always: a tenant's agents are beside this node."""
        return True

    def lease_left_s(self, now_s: float) -> float:
        """Return infinity: it is here until it is withdrawn."""
        return math.inf


class TenantDirectory:
    """The directory as one tenant sees it: its own agents, and what the operator shares with it (``node.resolve.Directory``).

    Args:
        tenant: Whose.
        registry: The agents beside this node.
        mesh: The directory of the node.
    """

    def __init__(self, tenant: Tenant, registry: Registry, mesh: Directory) -> None:
        self._tenant, self._registry, self._mesh = tenant, registry, mesh
        self._shared = frozenset(one if one.startswith("did:") else one.casefold() for one in tenant.share)

    def own(self) -> list[LocalAgent]:
        """Return its own agents."""
        return [agent for agent in self._registry.agents() if agent.saved.tenant == self._tenant.name]

    def owns(self, agent_id: str) -> bool:
        """Say whether an agent is its own."""
        agent = self._registry.get(agent_id)
        return agent is not None and agent.saved.tenant == self._tenant.name

    def shares(self, name: str) -> bool:
        """Say whether an agent of that name or id is shared with it."""
        return name in self._shared or name.casefold() in self._shared

    def entries(self) -> Sequence[LeasedEntry]:
        """Return every agent that it sees."""
        return [*(OwnEntry(agent) for agent in self.own()), *self._offered(self._mesh.entries())]

    def entry(self, agent_id: str) -> LeasedEntry | None:
        """Return the agent of that id, if it sees it."""
        agent = self._registry.get(agent_id)
        if agent is not None and agent.saved.tenant == self._tenant.name:
            return OwnEntry(agent)
        entry = self._mesh.entry(agent_id)
        return next(iter(self._offered([entry])), None) if entry is not None else None

    def by_name(self, name: str) -> Sequence[LeasedEntry]:
        """Return the agents of exactly that name that it sees; its own hide what is shared under the same name."""
        own = [OwnEntry(agent) for agent in self.own() if agent.manifest.name == name]
        return own or self._offered(self._mesh.by_name(name))

    def _offered(self, entries: Sequence[object]) -> list[LeasedEntry]:
        found: list[LeasedEntry] = []
        for entry in entries:
            one: LeasedEntry = entry  # pyright: ignore[reportAssignmentType]
            manifest = one.manifest
            if manifest.agent_id not in self._shared and manifest.name.casefold() not in self._shared:
                continue
            local = self._registry.get(manifest.agent_id)
            if local is None or not local.saved.tenant:
                found.append(one)
        return found
