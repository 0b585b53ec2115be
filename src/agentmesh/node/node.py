"""One node: the parts of this room put together behind the methods that the HTTP API offers.

The node decides little itself. The brain (sans-IO) keeps the directory and says whom to dial; the registry keeps the
agents beside us; calls and traces carry the work; the event log remembers. Everything runs on one event loop. Here the
parts are made and joined; what the node tells and does for people stands beside, by subject (``node.parts``).
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agentmesh.core.brain import Brain, BrainConfig
from agentmesh.core.trust.config import TrustConfig
from agentmesh.engines.base import CriticalStore, TopicStore
from agentmesh.errors import MeshError, Refused
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import AgentId, NodeId, node_id, public_key_of
from agentmesh.net.base import Stream, Transport
from agentmesh.net.tasks import TaskScope
from agentmesh.node.admission import Admission
from agentmesh.node.assemble import assemble
from agentmesh.node.audit import Audit
from agentmesh.node.audit_peers import AuditPeers
from agentmesh.node.borders import Border, check_claim
from agentmesh.node.call import Call
from agentmesh.node.callee import Check
from agentmesh.node.config import NodeConfig
from agentmesh.node.discovering import DiscoverHost
from agentmesh.node.evidence import EvidenceHost
from agentmesh.node.federation.federation import ClosedBorder, Federation, FederationKit
from agentmesh.node.grants import Grants
from agentmesh.node.guard import Guard
from agentmesh.node.guardfile import GuardFile
from agentmesh.node.hearsay import Hearsay
from agentmesh.node.history import HistoryHost
from agentmesh.node.killswitch import KillSwitch
from agentmesh.node.links import Links, Peer
from agentmesh.node.locks import locks_at
from agentmesh.node.mail.compose import mail_at
from agentmesh.node.mail.host import MailDesk
from agentmesh.node.measure import MeasureHost
from agentmesh.node.mesh import Callbacks, Mesh
from agentmesh.node.orders import orders_at
from agentmesh.node.organisations import ORGANISATION_FILE, Organisations
from agentmesh.node.policy.check import PolicyCheck
from agentmesh.node.policy.outward import Outward
from agentmesh.node.policy.policy import Policy
from agentmesh.node.presented import Admitted, Presented
from agentmesh.node.proof import Proofs
from agentmesh.node.registry import DoorKit, LocalAgent, Registry
from agentmesh.node.resolve import Directory, find, id_of
from agentmesh.node.rulings import RulingHost
from agentmesh.node.sights import Sights
from agentmesh.node.spans import SpanKit, Spans
from agentmesh.node.standing import site_of, survey_at
from agentmesh.node.state.shared import SharedState
from agentmesh.node.tenancy import TenantHost
from agentmesh.node.topics.compose import TopicParts
from agentmesh.node.topology import TopologyHost
from agentmesh.node.traces import Traces
from agentmesh.node.traffic import TrafficWatch
from agentmesh.node.trust import Trust
from agentmesh.obs.lag import watch_loop
from agentmesh.store.audit import AuditLog
from agentmesh.store.audit_pins import AuditPins
from agentmesh.store.calls import CallStore
from agentmesh.store.eventlog import EventLog
from agentmesh.store.ledger import Ledger
from agentmesh.store.state import StateStore
from agentmesh.store.tenants import TenantStore
from agentmesh.store.trust import TrustStore
from agentmesh.wire import v1
from agentmesh.wire.views import CallRequest, CancelResult


class Node(DiscoverHost, MeasureHost, TopologyHost, HistoryHost, EvidenceHost, RulingHost, TenantHost):
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
        federation: What federation needs; None: this node federates with nobody.
        spans: Where spans of calls go; None: nowhere.
        critical: The engine of locks and linearizable state; None: a SQLite file in the home. The node closes it.
        bus: Makes the store of durable topics that several nodes share; None: a SQLite file in the home.
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
        federation: FederationKit | None = None,
        spans: SpanKit | None = None,
        critical: CriticalStore | None = None,
        bus: Callable[[], TopicStore] | None = None,
    ) -> None:
        self.node_id: NodeId = node_id(key.public)
        self.config = config
        self._log, self._state, self._call_store = log, state, call_store
        self._home, self._http_port, self.bus = home, http_port, bus
        self.critical, self.locks = locks_at(self.node_id, home, critical)
        self.audit = Audit(self.node_id, audit_log)
        TenantHost.__init__(self, tenant_store)
        self._started_s, self._stamped = time.monotonic(), ""
        self._recalled = asyncio.Event()
        self._begin_measures(self.node_id, self._read_discovery)
        self._scope = TaskScope("node")
        self.discovery: list[str] = []
        self.mesh: Mesh = Mesh(key, config, brain_config, transports, udp_listen, state, self._callbacks(), admission)
        self.links: Links = self.mesh.links
        self._brain: Brain = self.mesh.brain
        self.switch = KillSwitch()
        self.orders = orders_at(home, self.mesh, self.switch, self.audit)
        self.state = SharedState(key, home, self.mesh, self.critical, self.switch.refuse)
        self.measures.append(self.state.read_measures)
        self._belong(key)
        self.trust: Trust = self._trusting(trust_store, trust_config or TrustConfig())
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
        self.registry.vouch = self.organisations.stamp
        self.policy = self._ruling()
        self._grants = Grants(key, self.registry, config.grant_roots, lambda ref: id_of(ref, self.sights, self.name_of))
        self.traffic = TrafficWatch(self.node_id, self.registry, self.links)
        self._guard = self._guarding(ledger)
        exporting = self._exporting(spans)
        self._incoming, self._calls, self._token_calls = assemble(
            self._proving(key, call_store),
            config,
            self.registry,
            self._grants,
            self.mesh,
            call_store,
            log,
            self._scope,
            self.orders,
            self.switch,
            checks=(*self._checks_of(key, federation), *exporting),
            recorders=(self.traffic, self.audit, self.trust),  # the first is told, come what may
            watchers=(self.figures, self.call_lines, *exporting),
            outward=self.audit,
            tries=self.traffic,
            trust=self.trust,
            name_of=self.name_of,
            site_of=lambda node: site_of(self._brain, node),
            tenant_of=self.tenant_of,
            may_leave=Outward(self.node_id, self.policy).refusal,
            directory=self.sights,
        )
        self.mail: MailDesk = self._mailing(home, key)
        self._hearsay = Hearsay(key, self.trust, trust_store, self.links, on_misbehaved=self.mesh.note_misbehaviour)
        self._ask_others(audit_log, key)

    def _speak(self, key: KeyPair) -> None:
        """Compose what agents tell each other beside calls."""
        self._topics = TopicParts(
            key,
            self._home,
            self.mesh,
            self.registry,
            self.switch,
            directory=lambda: self.sights,
            belonging=self.organisations,
            is_node=lambda did: did in self.mesh.names or self._is_ours(NodeId(did)),
            refusal_of=self.orders.refusal_of,
            note=self._note_rules,
            bus=self.bus,
        )
        self.topics = self._topics.topics
        self._topics.write_with(self.mail)
        self.measures.append(self._topics.read)

    async def _note_rules(self, file: str, what: str) -> None:
        await self.audit.note("config", file, change=what)

    def _guarding(self, ledger: Ledger) -> Guard:
        limits = GuardFile(self._home / "guard.toml", lambda: self.audit.note_soon("config", "guard.toml"))
        return Guard(self.config, self.registry, ledger, limits)

    def _proving(self, key: KeyPair, call_store: CallStore) -> Proofs:
        proofs = Proofs(key, self.config, self.registry, call_store)
        self._token_checks = proofs.checks
        return proofs

    def _trusting(self, store: TrustStore, config: TrustConfig) -> Trust:
        return Trust(
            self.node_id,
            config,
            self.config.trust_roots,
            store,
            directory=self.sights,
            cut_off=self._brain.cut_off,
            name_of=self.name_of,
        )

    def _mailing(self, home: Path, key: KeyPair) -> MailDesk:
        mail = mail_at(
            home,
            key,
            self.mesh,
            self.registry,
            self.sights,
            self.switch,
            refusal_of=self.orders.refusal_of,
            any_refused=lambda: self.orders.any_revoked,
            is_abroad=self._is_abroad,
            name_of=self.name_of,
            look_for=self.look_for,
        )
        self.measures.append(mail.room.read_measures)
        return mail

    def _exporting(self, kit: SpanKit | None) -> tuple[Spans, ...]:
        self._span_kit = kit
        return () if kit is None else (Spans(kit, self.node_id, self.way_to),)

    def _checks_of(self, key: KeyPair, federation: FederationKit | None) -> tuple[Check, ...]:
        """Return what may refuse a call at an agent here, in order; audit comes last of these: what it notes as begun, begins."""
        return self._federate(key, federation), PolicyCheck(self.policy), self._guard, self.audit, self.traffic

    async def open(self, seeds: Sequence[str] = ()) -> None:
        """Listen, bring back agents and contacts, dial the seeds.

        Raises:
            NoRoute: no transport could be opened.
            UsageError: a seed is malformed.
        """
        self.policy.refresh()
        self.orders.heed(self.organisations)
        self.orders.open(self.policy.lists)
        self._stamped = self.organisations.shown
        self.organisations.on_change = self._on_belonging
        self.mesh.reviews.append(self.organisations.refresh)
        self.trust.open()
        self._hearsay.open()
        self._scope.spawn(watch_loop(self.loop_lag), "loop-lag")
        self.state.open()
        await self.mesh.open()
        await self.registry.open()
        await self.mail.room.open()
        await self._topics.open()
        self._recalled.set()
        self._audit_peers.open()
        if self.federation is not None:
            self.federation.open()
            self.mesh.reviews.append(self.federation.refresh)
        await self.add_seeds(list(seeds))

    def _callbacks(self) -> Callbacks:
        return Callbacks(
            on_request=self._on_request,
            on_resign=lambda agent, seq: self.registry.resign(agent, seq),
            on_up=self._on_up,
            on_misbehaved=lambda peer, code, detail: self.trust.note_misbehaviour(peer, code, detail),
            on_dead=lambda node: self.trust.note_dead(node),
            on_changed=self._on_changed,
            on_withdrawn=lambda agent: self.mail.away.forget(public_key_of(agent)),
        )

    def _on_up(self, peer: Peer) -> None:
        self._hearsay.on_up(peer)
        self.mail.room.on_up(peer.link.peer)
        self._topics.on_up(peer)
        self.state.on_up(peer)

    def _ask_others(self, audit_log: AuditLog, key: KeyPair) -> None:
        """Compose what asks other nodes, and answers them."""
        self._speak(key)
        self._survey = survey_at(self.mesh, self.switch)
        self._audit_peers = self._watching(audit_log)
        self._traces = Traces(self.node_id, self.config, self._log, self.links, name_of=self.name_of)

    def _belong(self, key: KeyPair) -> None:
        """Compose what says who is whose, where this mesh ends, and which agents are shown."""
        self.organisations = Organisations(key, self._home / "identity" / ORGANISATION_FILE, self._manifest_of)
        self.border = Border(self.organisations, self._is_ours, self.mesh.note_misbehaviour)
        self.organisations.abroad = self._is_abroad
        self.mesh.belong_with(self.border)
        self.sights = Sights(self._brain, self.orders.refusal_of, lambda: self.orders.any_revoked)

    def _federate(self, key: KeyPair, kit: FederationKit | None) -> Check:
        """Compose federation, and return the check of calls from other meshes."""
        if kit is None:
            self.federation = None
            return ClosedBorder(self._is_abroad)
        self.federation = federation = Federation(
            key,
            kit,
            self._home / "federation.toml",
            self._brain,
            self.organisations,
            self.orders,
            self.trust,
            take_evidence=lambda node, raws: self._hearsay.take(node, raws),
            is_abroad=self._is_abroad,
            on_agent=lambda agent: self._note_agent(AgentId(agent)),
            on_border=self.mesh.sort_out,
        )
        self.border.partners = federation
        self.organisations.partners = federation.organisations
        self.sights.abroad = federation.imports
        return federation

    def _ruling(self) -> Policy:
        policy = Policy(
            self.node_id,
            self._home / "policies",
            self.config.policy,
            self._manifest_of,
            self.name_of,
            trust=self.trust,
            belonging=self.organisations,
        )
        policy.on_change = lambda was, now: self.audit.note_soon("policy", "policies", was=was, version=now)
        return policy

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
        elif isinstance(message, v1.SearchQuery):
            await self._discovery.serve(peer, stream, message)
        else:
            # Links come up before all that earlier runs kept is read. Who asks about it meanwhile must not hear that it is
            # not there, and what is brought must not be numbered as if nothing were.
            await self._recalled.wait()
            await self._serve_kept(peer, stream, message)

    async def _serve_kept(
        self,
        peer: Peer,
        stream: Stream,
        message: v1.MailOpen | v1.TopicQuery | v1.CarryOpen | v1.StateOpen | v1.TraceQuery,
    ) -> None:
        if isinstance(message, v1.MailOpen):
            await self.mail.room.serve(peer, stream)
        elif isinstance(message, v1.TopicQuery):
            await self._topics.serve(peer.link.peer, stream, message)
        elif isinstance(message, v1.CarryOpen):
            await self.mail.room.carriers.serve(peer, stream, message)
        elif isinstance(message, v1.StateOpen):
            await self.state.serve(peer, stream)
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
            self.mail.room.withdrawn(public_key_of(manifest.agent_id))
            self.audit.note_soon("withdraw", manifest.agent_id, name=manifest.name)

    def _on_gone(self, agent_id: AgentId) -> None:
        self.mesh.local_gone(agent_id)
        self.audit.note_soon("withdraw", agent_id)

    def _is_ours(self, node: NodeId) -> bool:
        """Say whether this mesh itself knows a node."""
        return bool(self._brain.addresses_of(node)) or self._brain.overlay.record_of(node) is not None

    def _is_abroad(self, node: str) -> bool:
        """Say whether a node is of another mesh, by what is known of it or by the link that is up."""
        peer = self.links.peer(node)
        return (peer is not None and peer.calls_only) or self.border.is_abroad(NodeId(node))

    def _on_changed(self, agent_id: AgentId) -> None:
        self._note_agent(agent_id)
        self.mail.room.on_changed(agent_id)
        if self.federation is not None:
            self.federation.changed(agent_id)
        entry = self._brain.entry(agent_id)
        if entry is not None and not entry.local:
            check_claim(self.organisations, entry.manifest, entry.via, self.mesh.note_misbehaviour)

    def _on_belonging(self) -> None:
        """Act on another voucher of this node, or on an organisation that is met for the first time."""
        self.orders.met()
        if self.organisations.shown != self._stamped:
            self._stamped = self.organisations.shown
            self.registry.resign_all()
            self.mesh.show_voucher()

    def on_mdns(self, node: NodeId, addresses: list[str]) -> None:
        """Take an address heard on the LAN: a hint, never trust."""
        self.mesh.hint(node, tuple(addresses), "mdns")

    async def call(self, request: CallRequest) -> Call:
        """Start a call (see ``Calls.start``); an agent that is not in the directory is looked for in the mesh first."""
        if not self.switch.is_on:
            await self.look_for(request.to)
        return await self.start_call(request, self.sights)

    async def start_call(self, request: CallRequest, directory: Directory) -> Call:
        """Start a call to an agent of a directory (see ``Calls.start``); a refusal is in the audit log when it is raised."""
        try:
            return self._calls.start(request, directory)
        except MeshError as error:
            self.figures.unstarted(error)
            self.call_lines.unstarted(request, error)
            if isinstance(error, Refused):
                self.traffic.refused(error)
                await self.audit.refused(request, error)
            raise

    async def admit(self, presented: Presented, request: CallRequest) -> Admitted:
        """Check a call that a program brings with a token of its own (see ``TokenCalls.admit``). Raises AgentNotFound too."""
        return await self._token_calls.admit(presented, request, self._beside(request.to))

    async def prove(self, presented: Presented, ref: str, parts: list[dict[str, Any]], skill: str) -> str:
        """Check the token of a request about earlier calls (see ``TokenCalls.prove``). Raises AgentNotFound too."""
        return await self._token_calls.prove(presented, self._beside(ref), parts, skill)

    def cancel_of(self, caller: str, task_id: str) -> CancelResult:
        """Ask a call to stop that was begun with a token of this caller; of others nothing is known."""
        return CancelResult(task_id=task_id, canceled=self._token_calls.cancel(caller, task_id))

    def _beside(self, ref: str) -> list[LocalAgent]:
        """Return the agents beside this node that a reference names. Raises AgentNotFound: it names none anywhere."""
        found = [self.registry.get(e.manifest.agent_id) for e in find(ref, self._brain, self.name_of)]
        return [agent for agent in found if agent is not None]

    async def cancel(self, task_id: str) -> CancelResult:
        """Ask a running task to stop. Raises RunNotFound."""
        return CancelResult(task_id=task_id, canceled=self._calls.cancel(task_id))

    async def aclose(self) -> None:
        """Leave: finish or cancel calls, tell peers, close links. Idempotent."""
        await self._end_discovery()
        if self.federation is not None:
            await self.federation.aclose()
        await self._survey.aclose()
        await self._topics.aclose()
        await self._audit_peers.aclose()
        await self._hearsay.aclose()
        await self._calls.aclose()
        await self.mail.aclose()
        await self.registry.withdraw_ephemeral()
        await self.state.aclose()
        await self.mesh.aclose()
        await self.registry.aclose()
        await self.critical.aclose()
        await self.trust.aclose()
        self.audit.close()
        await self._scope.aclose()
