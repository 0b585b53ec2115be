"""What the HTTP API asks of the node beside it.

``node.Node`` is the real one; tests put a double in its place. Everything here runs on the daemon's one event loop, so a
method without ``async`` must return at once (it reads memory, never a disk or a socket).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Protocol

from agentmesh.api.messaging import Locks, Mail, State, Topics
from agentmesh.node.presented import Presented
from agentmesh.sdk.types import (
    AgentDetail,
    AgentView,
    AuditProof,
    AuditRecords,
    AuditRows,
    AuditView,
    BridgeChange,
    BridgeView,
    CallRequest,
    CancelResult,
    DiscoverRequest,
    DiscoverView,
    FederationView,
    GrantRequest,
    GrantView,
    ImportRequest,
    ImportView,
    KillSwitchRequest,
    NetView,
    OrdersView,
    OrderTaken,
    PeerView,
    ReceiptChecks,
    ReceiptView,
    RegisterRequest,
    Reply,
    RunList,
    StatsView,
    StatusView,
    Stored,
    TenantRequest,
    TenantView,
    TopologyView,
    TraceRows,
    TraceView,
    TrustList,
    TrustView,
)
from agentmesh.store.audit_survey import Wanted
from agentmesh.wire.console_views import Marks
from agentmesh.wire.event import EventV1
from agentmesh.wire.policy import PolicyView, RulingView
from agentmesh.wire.rows import RowQuery, RunQuery


class Call(Protocol):
    """One call under way. Iterate it for its events, or ask for its reply; both may be done, in any order."""

    @property
    def run_id(self) -> str:
        """The run it belongs to."""
        ...

    @property
    def task_id(self) -> str:
        """The task; known before the agent answers."""
        ...

    def __aiter__(self) -> AsyncIterator[EventV1]:
        """Yield every event of this task as it happens; ends after the terminal one. Never raises for a failed call."""
        ...

    async def reply(self) -> Reply:
        """Wait for the outcome.

        Raises:
            AgentFailed: the agent failed or was canceled (AgentCanceled); the text is its own.
            Timeout: the deadline passed.
            NoRoute, Closed: no replica could be reached, or the link broke mid-call.
            Refused: the other side said a lawful no.
        """
        ...

    async def aclose(self) -> None:
        """Give the call up: cancel it if it still runs. Idempotent; harmless after the end."""
        ...


class View(Protocol):
    """The node as somebody sees and uses it: the operator, or one tenant."""

    def status(self) -> StatusView:
        """Return the state of this node. ``port`` and ``pid`` may be overwritten by the API."""
        ...

    def agents(self, name: str = "", include_unhealthy: bool = True) -> list[AgentView]:
        """Return all agents, or those of one name, by name."""
        ...

    def agent(self, ref: str) -> AgentDetail:
        """Return one agent by name, ``name@node`` or id.

        Raises:
            AgentNotFound: no such agent; carries near names.
        """
        ...

    async def register(self, request: RegisterRequest) -> list[AgentView]:
        """Register the agents behind a URL, replacing what was registered under it.

        Raises:
            UsageError: the URL or the request makes no sense. No state changed.
            Unauthorized: unsigned while signatures are required. No state changed.
            SignatureError: the given card does not verify. No state changed.
            NoRoute, Timeout, AgentFailed: nothing usable answers at the URL. No state changed.
            StoreError: it could not be saved; it is not registered.
        """
        ...

    async def deregister(self, ref: str) -> AgentView:
        """Withdraw a local agent by name or id and return its last view.

        Raises:
            AgentNotFound: no such agent on this node.
        """
        ...

    async def renew(self, agent_id: str) -> bool:
        """Keep an ephemeral agent alive. False means unknown: register again."""
        ...

    async def call(self, request: CallRequest) -> Call:
        """Start a call and return once it is admitted.

        Raises:
            AgentNotFound, NoRoute, Refused, UsageError, LimitError: it never started.
        """
        ...

    async def cancel(self, task_id: str) -> CancelResult:
        """Ask a running task to stop.

        Raises:
            RunNotFound: no such task here.
        """
        ...

    async def trace(self, ref: str, after: int = 0, remote: bool = True) -> TraceView:
        """Return a run in order.

        Args:
            ref: Run or task id, a unique prefix, "last" or "last~N".
            after: Leave out events whose local ``seq`` is not larger.
            remote: Also ask the other nodes that took part.

        Raises:
            RunNotFound: no run matches.
            UsageError: the prefix fits more than one run.
        """
        ...

    async def rows(self, ref: str, query: RowQuery, remote: bool = True) -> TraceRows:
        """Return a run as rows without payloads; ``ref`` and ``remote`` as for ``trace``.

        Raises:
            RunNotFound: no run matches.
            UsageError: the prefix fits more than one run.
        """
        ...

    async def event(self, seq: int) -> EventV1:
        """Return one event whole, by its position in this node's log.

        Raises:
            RecordNotFound: there is none, or it is somebody else's.
        """
        ...

    async def receipts(self, ref: str) -> list[ReceiptView]:
        """Return the receipts kept here of a run or task, oldest first.

        Args:
            ref: As for ``trace``; a task or run that only its receipts remember is found too.

        Raises:
            RunNotFound: no receipt of it is kept here.
            UsageError: the prefix is too short or fits more than one run.
        """
        ...

    def trust_in(self, ref: str) -> TrustView:
        """Return what this node thinks of an agent or node, and why; reads a small database.

        Raises:
            AgentNotFound: no such agent, and no node's id.
            StoreError: what is kept of it cannot be read.
        """
        ...

    async def receipt_checks(self, ref: str) -> ReceiptChecks:
        """Return the receipts of a run or task with what this node finds when it checks them. Raises as ``receipts``."""
        ...

    def trust_list(self, limit: int, start: int = 0, tier: str = "", query: str = "") -> TrustList:
        """Return what this node thinks of every agent, the least trusted first; reads a small database.

        Args:
            limit, start: Pass over so many of those that fit, return so many.
            tier: Only this one; "" = all.
            query: Only agents with this in name, id or node's name.

        Raises:
            StoreError: receipts cannot be counted.
        """
        ...

    async def runs(self, query: RunQuery) -> RunList:
        """Return runs that fit, newest first."""
        ...

    async def ingest(self, events: list[EventV1]) -> Stored:
        """Store events and return after they are on disk.

        Raises:
            StoreError: nothing was acknowledged.
        """
        ...

    def follow(self, after_seq: int, run_id: str | None = None) -> AsyncIterator[EventV1]:
        """Yield the log from after ``after_seq``, then live, without loss; of one run only when ``run_id`` is given."""
        ...

    async def task_events(self, task_id: str) -> list[EventV1]:
        """Return the events of one task in order; empty when it is unknown."""
        ...

    def orders_view(self) -> OrdersView:
        """Return the orders in force at this node."""
        ...

    def peers(self) -> list[PeerView]:
        """Return every known node."""
        ...

    async def look_for(self, ref: str) -> None:
        """Look in the whole mesh for an agent, by id or name, unless it is known here; it is then in the directory."""
        ...

    async def discover(self, request: DiscoverRequest) -> DiscoverView:
        """Return the agents that meet a need, with the parts of their scores.

        Raises:
            UsageError: the request makes no sense (codes "discover.*"). Nothing was asked.
        """
        ...

    def watch_discover(self, request: DiscoverRequest, *, watch: bool = False) -> AsyncGenerator[DiscoverView]:
        """Yield the answer each time that it changes: until nobody is waited for any more, or with ``watch`` without end.

        Raises:
            UsageError: the request makes no sense (codes "discover.*"). Nothing was asked.
        """
        ...

    async def net(self) -> NetView:
        """Ask node after node for its neighbours and return the shape of the mesh."""
        ...

    async def topology(self, window_s: int, source: str, zone: str) -> TopologyView:
        """Return machines, agents and who called whom.

        Args:
            window_s: Calls of so many seconds, rounded up to whole minutes.
            source: Only machines that were found so, and this one; "" = all.
            zone: Only machines of this zone, and this one; "" = all.

        Raises:
            UsageError: the window is out of range.
        """
        ...

    async def stats(self) -> StatsView:
        """Return the node in figures."""
        ...

    async def add_seeds(self, seeds: list[str]) -> None:
        """Add static seeds and begin to dial them.

        Raises:
            ConfigError, UsageError: a seed cannot be read. None was added.
        """
        ...


class Admitted(Protocol):
    """A call whose token holds; nothing has begun."""

    @property
    def caller(self) -> str:
        """did:key of whoever signed the token."""
        ...

    @property
    def digest(self) -> str:
        """Digest of the body that was signed."""
        ...

    async def start(self) -> Call:
        """Begin the call, at most once.

        Raises:
            StoreError: the event log does not take events. Nothing was started.
        """
        ...


class Backend(View, Protocol):
    """The node as the operator sees it."""

    @property
    def locks(self) -> Locks:
        """Locks, leases and leaders."""
        ...

    @property
    def mail(self) -> Mail:
        """Messages between agents."""
        ...

    @property
    def topics(self) -> Topics:
        """Publish and subscribe."""
        ...

    @property
    def state(self) -> State:
        """Shared state."""
        ...

    async def admit(self, presented: Presented, request: CallRequest) -> Admitted:
        """Check the call token that a program brings with a call, and use it up.

        Raises:
            Unauthorized: it does not hold; the code says why.
            LoopDetected: the chain is too long, or comes back to the callee.
            AgentNotFound, UsageError, LimitError: the request itself is at fault.
            Busy, StoreError: the token cannot be remembered.
        """
        ...

    def marks(self) -> Marks:
        """Return how far the log is, and how often agents, peers, orders and trust have changed. Costs microseconds."""
        ...

    def federation_view(self) -> FederationView:
        """Return how federation stands: seeds and partners."""
        ...

    def audit_log(self) -> AuditView:
        """Return the state of this node's audit log, and what it knows of those of others."""
        ...

    async def audit_records(self, after: int, limit: int, run: str, agent: str) -> AuditRecords:
        """Return audit records, oldest first.

        Args:
            after: Number of the first.
            limit: At most so many are returned.
            run: Only of this run or task (id or its beginning); "" = all.
            agent: Only with this agent on either side (did:key or name); "" = all.
        """
        ...

    async def audit_rows(self, wanted: Wanted, limit: int, before: int) -> AuditRows:
        """Return audit records as lines of who called whom, newest first, of those numbered below ``before``."""
        ...

    def audit_export(self, wanted: Wanted) -> AsyncIterator[bytes]:
        """Yield the records that fit, oldest first, one per line as they are hashed; whole lines, many at a time."""
        ...

    async def audit_proof(self, ref: str) -> AuditProof:
        """Return the proof that a record is in the log.

        Args:
            ref: Its number; or the id of a task or run, or its beginning; or "last".

        Raises:
            RecordNotFound: there is none.
            Corrupt, SignatureError: the log is not what was signed.
        """
        ...

    async def prove(self, presented: Presented, ref: str, parts: list[dict[str, Any]], skill: str) -> str:
        """Check and use up the call token of a request about calls that began before; return who signed it.

        Args:
            presented: The token, and how it came.
            ref: The agent that the request is about.
            parts, skill: What was signed: the request's parameters as one data part, and its method.

        Raises:
            Unauthorized, LoopDetected, AgentNotFound, LimitError, Busy, StoreError: as for ``admit``.
        """
        ...

    def cancel_of(self, caller: str, task_id: str) -> CancelResult:
        """Ask a call to stop that was begun with a token of this caller; of others nothing is known."""
        ...

    async def note_change(self, action: str, resource: str, **members: Any) -> None:
        """Write into the audit log that something around the node changed; it is on disk when this returns.

        Raises:
            StoreError: it is not; it is tried again while the node lives.
        """
        ...

    async def grant(self, request: GrantRequest) -> GrantView:
        """Sign a grant with a key of this node.

        Raises:
            StoreError: it could not be written down, and is not told.
            UsageError, AgentNotFound, Unauthorized, DecodeError, SignatureError, ReplayError: nothing was signed or kept.
        """
        ...

    async def policy_view(self) -> PolicyView:
        """Return who may call what at this node; the files are looked at first."""
        ...

    async def explain_policy(self, caller: str, callee: str, skill: str, purpose: str) -> RulingView:
        """Say whether a call would pass now, and why.

        Raises:
            AgentNotFound: no such agent or node is known.
            UsageError: a name fits several agents, or the callee is at another node.
        """
        ...

    async def report_abuse(self, ref: str, reason: str) -> TrustView:
        """Hold a person's report against an agent or node, and return what that makes.

        Raises:
            AgentNotFound: no such agent, and no node's id. No state changed.
            UsageError: it is this node itself or its agent. No state changed.
            StoreError: it was taken and could not be written yet.
        """
        ...

    def for_tenant(self, name: str) -> View:
        """Return the node as one tenant sees and uses it.

        Raises:
            Unauthorized: there is no such tenant (code "refused.tenant").
        """
        ...

    def tenant_of(self, task_id: str, agent_id: str = "") -> str:
        """Return the tenant that started a task, or whose agent it is; "" for the operator's and for what is unknown."""
        ...

    def tenant_views(self) -> list[TenantView]:
        """Return every tenant with what it uses, by name."""
        ...

    async def take_order(self, raw: str) -> OrderTaken:
        """Obey an order of an operator and have it spread.

        Raises:
            DecodeError, SignatureError, Unauthorized, ReplayError: it does not hold, or not here. No state changed.
        """
        ...

    async def kill_switch(self, request: KillSwitchRequest, by: str) -> OrderTaken:
        """Sign a stop or its end with the operator's key of this node's home, obey it and have it spread.

        Args:
            request: What is wanted.
            by: Who asks, for the audit log.

        Raises:
            RecordNotFound, ConfigError, UsageError, Unauthorized, ReplayError: no key, or not this one. No state changed.
        """
        ...

    def save_tenant(self, tenant: TenantRequest) -> TenantView:
        """Make or change a tenant.

        Raises:
            UsageError: its name or a quota makes no sense. Nothing changed.
            LimitError, StoreError: it could not be kept. Nothing changed.
        """
        ...

    async def remove_tenant(self, name: str) -> TenantView:
        """Forget a tenant, end its calls and withdraw its agents.

        Raises:
            RecordNotFound: there is none of that name. Nothing changed.
        """
        ...


class Registries(Protocol):
    """The other registries that this daemon is joined to."""

    def bridges(self) -> list[BridgeView]:
        """Show every bridge, in the order in which they were added."""
        ...

    async def add_bridge(self, url: str) -> BridgeChange:
        """Open a bridge and keep it over restarts.

        Raises:
            ConfigError: the URL is none of a bridge. StateError: one leads there already. LimitError: too many. Nothing
                changed.
            Full: config.toml cannot be written; the bridge is open until the daemon stops.
        """
        ...

    async def remove_bridge(self, url: str) -> BridgeChange:
        """Close a bridge, by its URL or that without the query.

        Raises:
            RecordNotFound: there is none. Nothing changed.
            Full: config.toml cannot be written; the bridge comes back at the next start.
        """
        ...

    async def import_from(self, request: ImportRequest) -> ImportView:
        """Register the agents that a URL leads to: that of a card, an AI Catalog or an MCP registry.

        Raises:
            UsageError: no usable URL. NoRoute, Closed, Timeout: nothing answers there. DecodeError: it holds nothing of that
                kind. LimitError: too much of it. ReadOnly: the kill switch is on. Nothing changed.
        """
        ...
