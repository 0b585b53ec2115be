"""One node: the parts of this room put together behind the methods that the HTTP API offers.

The node decides little itself. The brain (sans-IO) keeps the directory and says whom to dial; the registry keeps the
agents beside us; calls and traces carry the work; the event log remembers. Everything runs on one event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

from agentmesh.core.brain import Brain, BrainConfig
from agentmesh.core.trust.config import TrustConfig
from agentmesh.errors import AgentNotFound, MeshError, Refused, RunNotFound, UsageError
from agentmesh.identity.audit_record import AuditRecord
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import AgentId, NodeId, capability_key, dht_key, is_name, node_id, public_key_of, short
from agentmesh.net.addresses import format_seed, parse_seed
from agentmesh.net.base import Stream, Transport
from agentmesh.net.tasks import TaskScope
from agentmesh.node.admission import Admission
from agentmesh.node.assemble import assemble
from agentmesh.node.audit import Audit
from agentmesh.node.audit_peers import AuditPeers
from agentmesh.node.call import Call
from agentmesh.node.config import NodeConfig
from agentmesh.node.grants import Grants
from agentmesh.node.guard import Guard
from agentmesh.node.guardfile import GuardFile
from agentmesh.node.hearsay import Hearsay
from agentmesh.node.killswitch import KillSwitch
from agentmesh.node.links import Links, Peer
from agentmesh.node.mesh import Callbacks, Mesh
from agentmesh.node.orders import orders_at
from agentmesh.node.peers import known_peers
from agentmesh.node.policy.check import PolicyCheck
from agentmesh.node.policy.explain import Explainer
from agentmesh.node.policy.policy import Policy
from agentmesh.node.proof import Proofs
from agentmesh.node.registry import OPERATOR, DoorKit, Owner, Registry
from agentmesh.node.resolve import Directory, find, id_of
from agentmesh.node.standing import site_of, survey_at
from agentmesh.node.tenancy import TenantHost
from agentmesh.node.traces import Traces
from agentmesh.node.trust import Trust
from agentmesh.node.views import agent_view, cut_off_view, matching
from agentmesh.obs.resident import rss_bytes
from agentmesh.store import audit_read
from agentmesh.store.audit import AuditLog
from agentmesh.store.audit_pins import AuditPins
from agentmesh.store.calls import CallStore
from agentmesh.store.eventlog import EventLog
from agentmesh.store.ledger import Ledger
from agentmesh.store.state import StateStore
from agentmesh.store.tenants import TenantStore
from agentmesh.store.trust import TrustStore
from agentmesh.wire import v1
from agentmesh.wire.audit_views import AuditPeerView, AuditProof, AuditRecords, AuditView
from agentmesh.wire.event import EventV1, check
from agentmesh.wire.net_views import NetView, PeerView
from agentmesh.wire.order_views import OrdersView, OrderTaken
from agentmesh.wire.policy import PolicyView, RulingView
from agentmesh.wire.proof_views import GrantRequest, GrantView, ReceiptView
from agentmesh.wire.trust_views import TrustView
from agentmesh.wire.views import (
    AgentDetail,
    AgentView,
    CallRequest,
    CancelResult,
    RegisterRequest,
    RunView,
    StatusView,
    Stored,
    TraceView,
)

_log = logging.getLogger("agentmesh.node")

_SEEDS_MAX = 1_000
_INGEST_MAX = 10_000
_REF_CHARS_MIN = 4


class Node(TenantHost):
    """A running node. Made by the composition root (``daemon/app.py``), used by the API.

    Args:
        key: The node's key.
        config: Limits and intervals.
        brain_config: Settings of the machines.
        transports: Ways to other nodes, preferred first.
        udp_listen: ``host:port`` for datagrams; "" = none.
        kit: Doors to agents.
        log, state, call_store, ledger, audit_log, trust_store, tenant_store: Stores, open; the node does not close them.
            Without the last there are no tenants.
        keys_dir: Where agent keys live.
        home: Home directory, for ``status``.
        http_port: Returns the API's port.
        trust_config: Weights and half-life of evidence; defaults if left out.
    """

    def __init__(
        self,
        key: KeyPair,
        config: NodeConfig,
        brain_config: BrainConfig,
        transports: Sequence[Transport],
        kit: DoorKit,
        log: EventLog,
        state: StateStore,
        call_store: CallStore,
        ledger: Ledger,
        audit_log: AuditLog,
        *,
        keys_dir: Path,
        home: Path,
        http_port: Callable[[], int],
        trust_store: TrustStore,
        trust_config: TrustConfig | None = None,
        udp_listen: str = "",
        admission: Admission | None = None,
        tenant_store: TenantStore | None = None,
    ) -> None:
        self.node_id: NodeId = node_id(key.public)
        self.config = config
        self._log, self._state, self._home, self._http_port = log, state, home, http_port
        self._call_store = call_store
        self.audit = Audit(self.node_id, audit_log)
        TenantHost.__init__(self, tenant_store)
        self._started_s = time.monotonic()
        self._scope = TaskScope("node")
        self.discovery: list[str] = []
        self.mesh: Mesh = Mesh(
            key,
            config,
            brain_config,
            transports,
            udp_listen,
            state,
            Callbacks(
                on_request=self._on_request,
                on_resign=lambda agent, seq: self.registry.resign(agent, seq),
                on_up=lambda peer: self._hearsay.on_up(peer),
                on_misbehaved=lambda peer, code, detail: self.trust.note_misbehaviour(peer, code, detail),
                on_dead=lambda node: self.trust.note_dead(node),
            ),
            admission,
        )
        self.links: Links = self.mesh.links
        self._brain: Brain = self.mesh.brain
        self.switch = KillSwitch()
        self.orders = orders_at(home, self.mesh, self.switch, self.audit)
        self.trust: Trust = Trust(
            self.node_id,
            trust_config or TrustConfig(),
            config.trust_roots,
            trust_store,
            directory=self._brain,
            cut_off=self._brain.cut_off,
            name_of=self.name_of,
        )
        self.registry = Registry(
            self.node_id,
            config,
            kit,
            state,
            keys_dir,
            on_record=self._on_record,
            on_health=self.mesh.local_health,
            on_gone=self._on_gone,
        )
        self.policy = Policy(
            self.node_id, home / "policies", config.policy, self._manifest_of, self.name_of, trust=self.trust
        )
        self._grants = Grants(key, self.registry, config.grant_roots, lambda ref: id_of(ref, self._brain, self.name_of))
        self.policy.on_change = lambda was, now: self.audit.note_soon("policy", "policies", was=was, version=now)
        self._guard = Guard(config, self.registry, ledger, GuardFile(home / "guard.toml"))
        self._incoming, self._calls = assemble(
            Proofs(key, config, self.registry, call_store),
            config,
            self.registry,
            self._grants,
            self.mesh,
            call_store,
            log,
            self._scope,
            self.orders,
            self.switch,
            checks=(PolicyCheck(self.policy), self._guard, self.audit),  # audit last: what it notes as begun, begins
            recorders=(self.audit, self.trust),
            outward=self.audit,
            trust=self.trust,
            name_of=self.name_of,
            site_of=lambda node: site_of(self._brain, node),
        )
        self._hearsay = Hearsay(key, self.trust, trust_store, self.links, on_misbehaved=self.mesh.note_misbehaviour)
        self._survey = survey_at(self.mesh, self.switch)
        self._audit_peers = self._watching(audit_log)
        self._traces = Traces(self.node_id, config, log, self.links, name_of=self.name_of)

    async def open(self, seeds: Sequence[str] = ()) -> None:
        """Listen, bring back agents and contacts, dial the seeds.

        Raises:
            NoRoute: no transport could be opened.
            UsageError: a seed is malformed.
        """
        self.policy.refresh()
        self.orders.open(self.policy.lists)
        self.trust.open()
        self._hearsay.open()
        await self.mesh.open()
        await self.registry.open()
        self._audit_peers.open()
        await self.add_seeds(list(seeds))

    async def _on_request(self, peer: Peer, stream: Stream, message: v1.RequestMessage) -> None:
        self.mesh.admission.check(peer.link.peer)
        if isinstance(message, v1.CallOpen):
            await self._incoming.serve(peer, stream, message)
        elif isinstance(message, v1.NetQuery):
            await self._survey.serve(stream)
        elif isinstance(message, v1.AuditQuery):
            await self._audit_peers.serve(peer.link.peer, stream, message)
        elif isinstance(message, v1.TrustQuery):
            await self._hearsay.serve(peer, stream)
        else:
            await self._traces.serve(peer, stream, message)

    def _watching(self, log: AuditLog) -> AuditPeers:
        return AuditPeers(
            log,
            AuditPins.open(log.directory / "peers.sqlite"),
            self.links,
            on_misbehaved=self.mesh.note_misbehaviour,
            rng=random.Random(os.urandom(16)),  # noqa: S311 jitter, not secrets
        )

    def _on_record(self, manifest: Manifest) -> None:
        self.mesh.local_record(manifest)
        if manifest.tombstone:
            self.audit.note_soon("withdraw", manifest.agent_id, name=manifest.name)

    def _on_gone(self, agent_id: AgentId) -> None:
        self.mesh.local_gone(agent_id)
        self.audit.note_soon("withdraw", agent_id)

    def on_mdns(self, node: NodeId, addresses: list[str]) -> None:
        """Take an address heard on the LAN: a hint, never trust."""
        self.mesh.hint(node, tuple(addresses), "mdns")

    # What people see

    def name_of(self, node: str) -> str:
        """Return the name of a node for people: its own claim, or the short id."""
        if node == self.node_id:
            return self.config.name
        if (name := self.mesh.names.get(node)) is not None:
            return name or short(node)
        record = self._brain.overlay.record_of(NodeId(node))
        return (record.name if record is not None else "") or short(node)

    def status(self) -> StatusView:
        """Return the state of this node."""
        addresses, brain = self.links.addresses, self._brain
        _, _, members = brain.overlay.zone()
        return StatusView(
            node_id=self.node_id,
            node_name=self.config.name,
            pid=os.getpid(),
            port=self._http_port(),
            version=self.config.version,
            uptime_s=round(time.monotonic() - self._started_s, 3),
            rss_bytes=rss_bytes(),
            peers=sum(1 for _ in self.links.peers()),
            agents=len(self._brain.entries()),
            agents_local=len(self.registry.agents()),
            addresses=addresses,
            seed=format_seed(self.node_id, addresses[0]) if addresses else "",
            zone=brain.overlay.zone_name,
            site=self.config.site,
            capacity=self.config.capacity,
            members=len(members),
            long_links=len(brain.overlay.long_links()),
            network_size=brain.dht.size_estimate(),
            cut_off=cut_off_view(brain.cut_off(), now_s=self.mesh.now_s, unix_s=time.time()),
            udp=self.mesh.udp_view(),
            home=str(self._home),
            discovery=list(self.discovery),
            transports=[t.scheme for t in self.links.transports],
            require_signed_registration=self.config.require_signed_registration,
            read_only=self.switch.is_on,
            events=self._log.count,
            last_seq=self._log.last_seq,
            warnings=self._warnings(),
        )

    def _warnings(self) -> list[str]:
        warnings = [
            *self.orders.warnings(),
            *self.mesh.warnings,
            *self._log.report.sentences,
            *self._state.report,
            *self.links.warnings,
            *self.registry.warnings,
            *self._guard.warnings,
            *self.audit.warnings,
            *self._audit_peers.warnings(self.name_of),
            *self.policy.warnings(connected=any(True for _ in self.links.peers())),
        ]
        warnings += self.mesh.peer_warnings(self.name_of)
        return warnings

    def _view(self, entry: Any) -> AgentView:
        return agent_view(
            entry,
            registry=self.registry,
            links=self.links,
            verdict=self.trust.verdict(entry.manifest.agent_id),
            node_name=self.name_of(entry.manifest.node_id),
            now_s=self.mesh.now_s,
        )

    @property
    def directory(self) -> Directory:
        """The agents that this node knows, those of tenants that only they know left out."""
        return self._brain

    def agents(
        self, query: str = "", name: str = "", include_unhealthy: bool = True, directory: Directory | None = None
    ) -> list[AgentView]:
        """Return the agents that match, of those that the caller sees: best match first with a query, by name without."""
        directory = directory or self._brain
        views = [self._view(e) for e in directory.entries()]
        if not include_unhealthy:
            views = [v for v in views if v.status == "healthy"]
        if name:
            wanted = find(name, directory, self.name_of)
            ids = {e.manifest.agent_id for e in wanted}
            views = [v for v in views if v.agent_id in ids]
        return matching(views, query)

    async def look_for(self, ref: str) -> None:
        """Look in the whole mesh for an agent that the directory does not hold: by id, or by name."""
        with contextlib.suppress(AgentNotFound):
            find(ref, self._brain, self.name_of)
            return
        name = ref.partition("@")[0]
        if ref.startswith("did:"):
            with contextlib.suppress(MeshError):
                await self.mesh.find(dht_key(public_key_of(ref)), agents_max=1)
        elif is_name(name):
            await self.mesh.find(capability_key(name))

    async def search(self, query: str) -> int:
        """Look in the whole mesh for agents with exactly this name, skill or tag; return how many are known now."""
        return await self.mesh.find(capability_key(query[:256]))

    def agent(self, ref: str, directory: Directory | None = None) -> AgentDetail:
        """Return one agent with its card and the replicas of its name, of those that the caller sees. Raises AgentNotFound."""
        found = find(ref, directory or self._brain, self.name_of)
        views = [self._view(e) for e in found]
        order = {"own": 0, "signed": 1, "low": 2}
        ranked = sorted(zip(views, found, strict=True), key=lambda vf: (order[vf[0].trust], vf[0].status != "healthy"))
        first, entry = ranked[0]
        return AgentDetail(
            agent=first,
            card=entry.manifest.card,
            replicas=[v for v, _ in ranked],
            a2a_url=f"http://127.0.0.1:{self._http_port()}/a2a/{first.name}/",
        )

    def _local_views(self, ids: Sequence[str]) -> list[AgentView]:
        entries: list[Any] = [self._brain.entry(i) or self.private_entry(i) for i in map(AgentId, ids)]
        return [self._view(entry) for entry in entries if entry is not None]

    def _manifest_of(self, agent_id: str) -> Manifest | None:
        entry = self._brain.entry(agent_id)
        return entry.manifest if entry is not None else None

    async def policy_view(self) -> PolicyView:
        """Return who may call what here (see ``Explainer.view``)."""
        return self._explainer().view()

    async def explain_policy(self, caller: str, callee: str, skill: str, purpose: str) -> RulingView:
        """Say whether a call would pass, and why (see ``Explainer.explain``)."""
        return self._explainer().explain(caller, callee, skill, purpose)

    def _explainer(self) -> Explainer:
        brain = self._brain
        return Explainer(self.node_id, self.policy, brain, self.name_of, lambda: [c.node_id for c in brain.contacts()])

    # What people do

    async def register(self, request: RegisterRequest, owner: Owner = OPERATOR) -> list[AgentView]:
        """Register the agents behind a URL (see ``Registry.register``). Raises ReadOnly."""
        self.switch.refuse()
        agents = await self.registry.register(request, owner)
        for agent in agents:
            manifest = agent.manifest
            await self.audit.note("register", manifest.agent_id, name=manifest.name, version=manifest.version)
        return self._local_views([a.manifest.agent_id for a in agents])

    async def deregister(self, ref: str) -> AgentView:
        """Withdraw a local agent and return its last view. Raises AgentNotFound, ReadOnly."""
        self.switch.refuse()
        agent = self.registry.require(ref, [a.manifest.name for a in self.registry.agents()])
        view = self._local_views([agent.manifest.agent_id])[0]
        await self.registry.deregister(agent)
        await self.audit.log.settle()
        view.status = "gone"
        return view

    async def renew(self, agent_id: str) -> bool:
        """Keep an ephemeral agent alive; False if it must register again."""
        return self.registry.renew(agent_id)

    async def call(self, request: CallRequest) -> Call:
        """Start a call (see ``Calls.start``); an agent that is not in the directory is looked for in the mesh first."""
        if not self.switch.is_on:
            await self.look_for(request.to)
        return await self.start_call(request, self._brain)

    async def start_call(self, request: CallRequest, directory: Directory) -> Call:
        """Start a call to an agent of a directory (see ``Calls.start``); a refusal is in the audit log when it is raised."""
        try:
            return self._calls.start(request, directory)
        except Refused as refused:
            await self.audit.refused(request, refused)
            raise

    async def cancel(self, task_id: str) -> CancelResult:
        """Ask a running task to stop. Raises RunNotFound."""
        return CancelResult(task_id=task_id, canceled=self._calls.cancel(task_id))

    async def task_events(self, task_id: str) -> list[EventV1]:
        """Return the events of a task known here, in order; [] when none is."""
        return await self._log.task_events(task_id)

    async def trace(self, ref: str, after: int = 0, remote: bool = True) -> TraceView:
        """Return a run in order (see ``Traces.view``)."""
        view = await self._traces.view(ref, after=after, remote=remote)
        view.receipts = self._call_store.count_of_run(view.run_id)
        return view

    def grant(self, request: GrantRequest) -> GrantView:
        """Make a grant (see ``Grants.make``). Raises ReadOnly."""
        self.switch.refuse()
        return self._grants.make(request)

    async def receipts(self, ref: str) -> list[ReceiptView]:
        """Return the receipts kept here of a run or task, oldest first.

        Raises:
            RunNotFound: no receipt of it is kept here.
            UsageError: the prefix is too short or fits more than one run.
        """
        with contextlib.suppress(RunNotFound):
            ref = (await self._traces.view(ref, after=0, remote=False)).run_id
        kept = self._call_store.of_call(ref) if len(ref) >= _REF_CHARS_MIN else []
        if not kept:
            raise RunNotFound(
                f"no receipt of {ref[:64]!r} is kept here",
                why="calls that reached no agent, and agents that keep their key to themselves, leave none",
                hint="agentmesh trace last",
            )
        return [ReceiptView(**one._asdict()) for one in kept]

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

        def read() -> AuditRecords:
            found: list[AuditRecord] = []
            for record in audit_read.select(self.audit.log.directory, start=after, run=run, agent=agent):
                if len(found) == limit:
                    return AuditRecords(records=[audit_read.whole(one) for one in found], next=record.seq)
                found.append(record)
            return AuditRecords(records=[audit_read.whole(one) for one in found])

        return await asyncio.to_thread(read)

    async def audit_proof(self, ref: str) -> AuditProof:
        """Return the proof that a record is in the log (see ``audit_read.prove``)."""
        return await asyncio.to_thread(audit_read.prove, self.audit.log.directory, ref, node=self.node_id)

    def trust_in(self, ref: str) -> TrustView:
        """Return what this node thinks of an agent or node, and why (see ``Trust.show``)."""
        return self.trust.show(ref)

    async def report_abuse(self, ref: str, reason: str) -> TrustView:
        """Hold a person's report against an agent or node (see ``Trust.report``), and write that down."""
        view = self.trust.report(ref, reason)
        await self.audit.note("other", view.subject, what="abuse_report", name=view.name)
        return view

    async def runs(self, limit: int) -> list[RunView]:
        """Return the newest runs first."""
        return [
            RunView(
                run_id=r.run_id,
                first_ts=r.first_ts,
                last_ts=r.last_ts,
                count=r.count,
                agent=r.agent or "",
                state=r.state or "",
            )
            for r in await self._log.runs(limit)
        ]

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

    def peers(self) -> list[PeerView]:
        """Return every node known: zone mates, long links, other links, then the rest."""
        return known_peers(self._brain, self.links, self.mesh, self.name_of)

    async def net(self) -> NetView:
        """Ask node after node for its neighbours and return the shape of the mesh."""
        return await self._survey.net()

    async def add_seeds(self, seeds: list[str]) -> None:
        """Learn addresses of nodes from a person or a file and dial them.

        Raises:
            UsageError: too many, or one is malformed. None was taken.
        """
        if len(seeds) > _SEEDS_MAX:
            raise UsageError(f"{len(seeds)} seeds, at most {_SEEDS_MAX} are taken", code="seed.too_many")
        for contact in [parse_seed(seed) for seed in seeds]:
            self.mesh.hint(contact.node_id, contact.addresses, "static")

    async def take_order(self, raw: str) -> OrderTaken:
        """Obey and spread an order that an operator hands over (see ``Orders.submit``)."""
        return self.orders.submit(raw)

    def orders_view(self) -> OrdersView:
        """Return the orders in force here."""
        return self.orders.view()

    async def aclose(self) -> None:
        """Leave: finish or cancel calls, tell peers, close links. Idempotent."""
        await self._survey.aclose()
        await self._audit_peers.aclose()
        await self._hearsay.aclose()
        await self._calls.aclose()
        await self.registry.withdraw_ephemeral()
        await self.mesh.aclose()
        await self.registry.aclose()
        await self.trust.aclose()
        await self._scope.aclose()
