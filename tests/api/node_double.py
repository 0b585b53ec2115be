"""A backend double for the HTTP API: a tiny node in memory that does what the test asks of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from agentmesh.errors import (
    AgentCanceled,
    AgentNotFound,
    MeshError,
    RecordNotFound,
    RunNotFound,
    SignatureError,
    Unauthorized,
)
from agentmesh.sdk.types import (
    AgentDetail,
    AgentView,
    AuditProof,
    AuditRecords,
    AuditRow,
    AuditRows,
    AuditView,
    CallRequest,
    CancelResult,
    DiscoverHit,
    DiscoverRequest,
    DiscoverView,
    EdgeView,
    FederationView,
    GrantRequest,
    GrantView,
    KillSwitchRequest,
    MachineView,
    MinuteView,
    NetNodeView,
    NetView,
    OrdersView,
    OrderTaken,
    OrderView,
    PeerView,
    ReceiptCheck,
    ReceiptChecks,
    ReceiptView,
    RegisterRequest,
    Reply,
    RunList,
    RunView,
    ScoreView,
    StatsView,
    StatusView,
    Stored,
    TenantRequest,
    TenantView,
    TopologyView,
    TraceRows,
    TraceView,
    TrustBin,
    TrustList,
    TrustRow,
    TrustView,
)
from agentmesh.store.audit_survey import Wanted
from agentmesh.store.runrows import rows_of
from agentmesh.wire.console_views import Marks
from agentmesh.wire.event import EventV1, digest, order_key
from agentmesh.wire.policy import PartyView, PolicyView, RulingView
from agentmesh.wire.rows import RowQuery, RunQuery
from tests.api.locks_double import LocksDouble
from tests.api.mail_double import MailDouble
from tests.api.state_double import StateDouble
from tests.api.topics_double import FakeTopics

NODE = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"
AGENT = "did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG"
RUN = "a" * 32


def event(seq: int, kind: Any = "message", *, run_id: str = RUN, task_id: str = "t" * 32, **payload: Any) -> EventV1:
    """Make one event whose id follows from its seq."""
    return EventV1(
        id=f"{seq:032x}",
        ts=1_700_000_000_000_000 + seq,
        kind=kind,
        run_id=run_id,
        task_id=task_id,
        node_id=NODE,
        agent="echo",
        lamport=seq,
        payload=payload or {"role": "agent", "parts": [{"text": f"m{seq}"}]},
        seq=seq,
    )


class FakeCall:
    """A call whose events and outcome the test decides."""

    def __init__(self, request: CallRequest, events: list[EventV1], outcome: Reply | MeshError | BaseException) -> None:
        self.run_id = request.run_id or RUN
        self.task_id = request.task_id or "t" * 32
        self.events = events
        self.outcome = outcome
        #: When set, the call hangs after its events until it is closed or canceled.
        self.hangs = False
        self.closed = asyncio.Event()
        self.ended = asyncio.Event()

    async def __aiter__(self) -> AsyncIterator[EventV1]:
        for one in self.events:
            yield one
        if self.hangs:
            await self.ended.wait()

    async def reply(self) -> Reply:
        if self.hangs:
            await self.ended.wait()
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    async def aclose(self) -> None:
        self.closed.set()
        self.ended.set()


class FakeBackend:
    """Implements ``api.backend.Backend`` and records what it was asked."""

    def __init__(self) -> None:
        self.locks = LocksDouble()
        self.mail = MailDouble()
        self.state = StateDouble()
        self.asked: list[tuple[Any, ...]] = []
        self.failure: BaseException | None = None
        self.log: list[EventV1] = []
        self.grown = asyncio.Condition()
        self.calls: list[FakeCall] = []
        self.prepare: Callable[[FakeCall], None] = lambda call: None
        self.call_failure: BaseException | None = None
        self.call_started = asyncio.Event()
        self.followers = 0
        self.seen = Marks(0)
        self.breaks_off = False
        self.tenants: dict[str, FakeBackend] = {}
        self.owners: dict[str, str] = {}
        self.noted: list[tuple[str, str, dict[str, Any]]] = []
        self.topics = FakeTopics(self._ask)
        self.known = {"echo": AgentView(agent_id=AGENT, name="echo", node_id=NODE, status="healthy", trust="own")}

    def _ask(self, *what: Any) -> None:
        self.asked.append(what)
        if self.failure is not None:
            raise self.failure

    def status(self) -> StatusView:
        self._ask("status")
        return StatusView(
            node_id=NODE, node_name="n", pid=1, port=1, version="0", uptime_s=1.0, rss_bytes=1, peers=0,
            agents=len(self.known), events=len(self.log),
            last_seq=len(self.log),
        )  # fmt: skip

    def agents(self, name: str = "", include_unhealthy: bool = True) -> list[AgentView]:
        self._ask("agents", name, include_unhealthy)
        return [a for a in self.known.values() if name in ("", a.name)]

    async def discover(self, request: DiscoverRequest) -> DiscoverView:
        self._ask("discover", request)
        return self._answer(request)

    async def watch_discover(self, request: DiscoverRequest, *, watch: bool = False) -> AsyncGenerator[DiscoverView]:
        self._ask("watch_discover", request, watch)
        self.followers += 1
        try:
            yield self._answer(request)
            while watch:
                async with self.grown:
                    await self.grown.wait()
                yield self._answer(request)
        finally:
            self.followers -= 1

    def _answer(self, request: DiscoverRequest) -> DiscoverView:
        score = ScoreView(total=0.8, text=0.7, trust=1.0, health=1.0)
        found = [agent for agent in self.known.values() if request.query in agent.name]
        return DiscoverView(hits=[DiscoverHit(agent=agent, score=score) for agent in found], total=len(found))

    def agent(self, ref: str) -> AgentDetail:
        self._ask("agent", ref)
        if ref not in self.known:
            raise AgentNotFound.near(ref, self.known)
        return AgentDetail(agent=self.known[ref], card={"name": ref})

    async def register(self, request: RegisterRequest) -> list[AgentView]:
        self._ask("register", request)
        name = request.name or "new"
        self.known[name] = AgentView(agent_id=AGENT, name=name, node_id=NODE, door=request.door)
        return [self.known[name]]

    async def deregister(self, ref: str) -> AgentView:
        self._ask("deregister", ref)
        if ref not in self.known:
            raise AgentNotFound.near(ref, self.known)
        return self.known.pop(ref)

    async def policy_view(self) -> PolicyView:
        self._ask("policy_view")
        return PolicyView(mode="open", setting="auto", directory="policies")

    async def explain_policy(self, caller: str, callee: str, skill: str, purpose: str) -> RulingView:
        self._ask("explain_policy", caller, callee, skill, purpose)
        party = PartyView(key=AGENT, name=callee, node_id=NODE, organisation="own", home=True)
        return RulingView(allowed=True, ground="default", rule="open", caller=party, callee=party, mode="open")

    async def renew(self, agent_id: str) -> bool:
        self._ask("renew", agent_id)
        return any(a.agent_id == agent_id for a in self.known.values())

    async def call(self, request: CallRequest) -> FakeCall:
        self._ask("call", request)
        if request.to not in self.known:
            raise AgentNotFound.near(request.to, self.known)
        text = f"echo: {request.text}" if request.text is not None else ""
        call = FakeCall(
            request, [], Reply(run_id="", task_id="", state="completed", text=text, agent="echo", lamport=7)
        )
        reply = call.outcome
        assert isinstance(reply, Reply)
        reply.run_id, reply.task_id = call.run_id, call.task_id
        if request.data is not None:
            reply.data = [request.data]
        call.events = [
            event(1, "status", run_id=call.run_id, task_id=call.task_id, state="working"),
            event(2, run_id=call.run_id, task_id=call.task_id),
            event(3, "status", run_id=call.run_id, task_id=call.task_id, state="completed"),
        ]
        if self.call_failure is not None:
            call.outcome = self.call_failure
        self.prepare(call)
        self.calls.append(call)
        self.call_started.set()
        return call

    async def cancel(self, task_id: str) -> CancelResult:
        self._ask("cancel", task_id)
        for call in self.calls:
            if call.task_id == task_id:
                running = call.hangs and not call.ended.is_set()
                call.outcome = AgentCanceled("the task was canceled")
                call.ended.set()
                return CancelResult(task_id=task_id, canceled=running)
        raise RunNotFound(f"no task {task_id}")

    def trust_in(self, ref: str) -> TrustView:
        self._ask("trust_in", ref)
        if ref not in self.known:
            raise AgentNotFound.near(ref, self.known)
        return TrustView(subject=AGENT, name=ref, node_id=NODE, score=0.4, tier="medium")

    async def report_abuse(self, ref: str, reason: str) -> TrustView:
        self._ask("report_abuse", ref, reason)
        return TrustView(subject=AGENT, name=ref, node_id=NODE, tier="low")

    async def receipts(self, ref: str) -> list[ReceiptView]:
        if ref != "last":
            raise RunNotFound(f"no receipt of {ref!r}")
        return [ReceiptView(hash="h", task_id="t", run_id="r", callee="b", caller="a", receipt="x.y.z", token="u.v.w")]

    async def receipt_checks(self, ref: str) -> ReceiptChecks:
        self._ask("receipt_checks", ref)
        one = ReceiptCheck(
            hash="h", task_id="t", run_id="r", callee="b", caller="a", verified=True, receipt_claims={"a": 1}
        )
        return ReceiptChecks(receipts=[one], linked=True)

    def trust_list(self, limit: int, start: int = 0, tier: str = "", query: str = "") -> TrustList:
        self._ask("trust_list", limit, start, tier, query)
        rows = [TrustRow(agent_id=AGENT, name="echo", score=0.4, tier="medium")]
        return TrustList(
            agents=rows, count=1, digest="d", matching=1, histogram=[TrustBin(low=0, high=1)], tiers={"own": 0}
        )

    async def audit_rows(self, wanted: Wanted, limit: int, before: int) -> AuditRows:
        self._ask("audit_rows", wanted, limit, before)
        row = AuditRow(seq=0, time="2026", action="call", decision="allowed", caller=AGENT, token="verified")
        return AuditRows(rows=[row], matching=1, digest="d", begin=0, end=1)

    async def audit_export(self, wanted: Wanted) -> AsyncIterator[bytes]:
        self._ask("audit_export", wanted)
        for number in range(3):
            yield b'{"id":"%d"}\n' % number
            if self.breaks_off:
                raise OSError("the disk is gone")

    def audit_log(self) -> AuditView:
        return AuditView(node_id=NODE, size=1, checkpoint="x")

    async def audit_records(self, after: int, limit: int, run: str, agent: str) -> AuditRecords:
        self._ask("audit_records", after, limit, run, agent)
        return AuditRecords(records=[{"id": "0"}], next=1)

    async def audit_proof(self, ref: str) -> AuditProof:
        if ref != "last":
            raise RecordNotFound(f"no record of {ref!r}")
        return AuditProof(record="{}", index=0, size=1, hashes=[], checkpoint="x")

    async def note_change(self, action: str, resource: str, **members: Any) -> None:
        self.noted.append((action, resource, members))

    async def grant(self, request: GrantRequest) -> GrantView:
        self._ask("grant", request)
        return GrantView(
            chain=["x.y.z"], root="r", maker="m", holder=request.to, principal="p", audience=request.audience,
            scopes=request.scopes, exp=1,
        )  # fmt: skip

    async def trace(self, ref: str, after: int = 0, remote: bool = True) -> TraceView:
        self._ask("trace", ref, after, remote)
        events = sorted((e for e in self.log if ref == "last" or e.run_id.startswith(ref)), key=order_key)
        if not events:
            raise RunNotFound(f"no run {ref}")
        shown = [e for e in events if e.seq > after]
        return TraceView(run_id=events[-1].run_id, count=len(events), digest=digest(events), events=shown)

    async def rows(self, ref: str, query: RowQuery, remote: bool = True) -> TraceRows:
        self._ask("rows", ref, query, remote)
        view = await self.trace(ref, 0, remote)
        return rows_of(view.run_id, view.events, query, lambda event: 1)

    async def event(self, seq: int) -> EventV1:
        self._ask("event", seq)
        if not 0 < seq <= len(self.log):
            raise RecordNotFound(f"no event {seq}")
        return self.log[seq - 1]

    async def runs(self, query: RunQuery) -> RunList:
        self._ask("runs", query)
        return RunList(runs=[RunView(run_id=RUN, first_ts=1, last_ts=2, count=3)], total=1)

    async def ingest(self, events: list[EventV1]) -> Stored:
        self._ask("ingest", len(events))
        await self.append(*events)
        return Stored(stored=len(events), last_seq=len(self.log))

    async def append(self, *events: EventV1) -> None:
        """Number the events, add them to the log and wake every follower."""
        for one in events:
            one.seq = len(self.log) + 1
            self.log.append(one)
        async with self.grown:
            self.grown.notify_all()

    def marks(self) -> Marks:
        self._ask("marks")
        return self.seen._replace(seq=len(self.log))

    async def follow(self, after_seq: int, run_id: str | None = None) -> AsyncIterator[EventV1]:
        self._ask("follow", after_seq, run_id)
        self.followers += 1
        try:
            position = after_seq
            while True:
                while position < len(self.log):
                    one = self.log[position]
                    position += 1
                    if run_id is None or one.run_id == run_id:
                        yield one
                async with self.grown:
                    while position >= len(self.log):
                        await self.grown.wait()
        finally:
            self.followers -= 1
            async with self.grown:
                self.grown.notify_all()

    async def task_events(self, task_id: str) -> list[EventV1]:
        self._ask("task_events", task_id)
        return [e for e in self.log if e.task_id == task_id]

    async def take_order(self, raw: str) -> OrderTaken:
        self._ask("take_order", raw)
        if raw == "forged":
            raise SignatureError("an order that nobody signed")
        return OrderTaken(order=OrderView(operator="o", kind="switch", event="stop", seq=1, iat=1, jti="j", order=raw))

    async def kill_switch(self, request: KillSwitchRequest, by: str) -> OrderTaken:
        self._ask("kill_switch", request, by)
        event = "stop" if request.on else "resume"
        return OrderTaken(order=OrderView(operator="o", kind="switch", event=event, seq=2, iat=1, jti="k"))

    def federation_view(self) -> FederationView:
        self._ask("federation_view")
        return FederationView(organisation="did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK")

    def orders_view(self) -> OrdersView:
        self._ask("orders_view")
        return OrdersView(node_id=NODE, operators=["o"])

    def for_tenant(self, name: str) -> FakeBackend:
        self._ask("for_tenant", name)
        if name not in self.tenants:
            raise Unauthorized("no tenant", code="refused.tenant")
        return self.tenants[name]

    def tenant_of(self, task_id: str, agent_id: str = "") -> str:
        return self.owners.get(task_id or agent_id, "")

    def tenant_views(self) -> list[TenantView]:
        self._ask("tenant_views")
        return [TenantView(name=name) for name in self.tenants]

    def save_tenant(self, tenant: TenantRequest) -> TenantView:
        self._ask("save_tenant", tenant.name)
        self.tenants[tenant.name] = FakeBackend()
        return TenantView(name=tenant.name)

    async def remove_tenant(self, name: str) -> TenantView:
        self._ask("remove_tenant", name)
        if name not in self.tenants:
            raise RecordNotFound(f"no tenant {name}")
        del self.tenants[name]
        return TenantView(name=name)

    def peers(self) -> list[PeerView]:
        self._ask("peers")
        return [PeerView(node_id=NODE, connected=True)]

    async def look_for(self, ref: str) -> None:
        self._ask("look_for", ref)

    async def net(self) -> NetView:
        self._ask("net")
        return NetView(nodes=1, edges=0, map=[NetNodeView(node_id=NODE)])

    async def topology(self, window_s: int, source: str, zone: str) -> TopologyView:
        self._ask("topology", window_s, source, zone)
        edge = EdgeView(
            caller=NODE, caller_kind="you", caller_name="n", caller_node=NODE, callee=AGENT, callee_name="echo",
            callee_node=NODE, calls=3, p50_ms=1.5,
        )  # fmt: skip
        return TopologyView(
            node_id=NODE, window_s=window_s, covered_s=60.0, count=2, digest="0000-0000",
            machines=[MachineView(node_id=NODE, name="n", own=True)], edges=[edge], calls=3,
        )  # fmt: skip

    async def stats(self) -> StatsView:
        self._ask("stats")
        return StatsView(agents=1, agents_local=1, machines=1, machines_alive=1, hour=MinuteView(calls=1))

    async def add_seeds(self, seeds: list[str]) -> None:
        self._ask("add_seeds", seeds)
