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
from agentmesh.core.directory.messages import AgentGone, RecordRefused, RenewalDue, SeqBehind
from agentmesh.core.exchange.messages import ClockSkew, DialWanted, PeerSilent, StoreContact
from agentmesh.core.machine import PeerMisbehaved
from agentmesh.core.messages import (
    AddressHint,
    Leaving,
    LocalGone,
    LocalRecord,
    LocalStatus,
    PeerDown,
    PeerUp,
    Received,
    Source,
    WallClock,
)
from agentmesh.errors import MeshError, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import AgentId, NodeId, node_id, short
from agentmesh.net.addresses import format_seed, parse_seed
from agentmesh.net.base import Contact, Stream, Transport
from agentmesh.net.tasks import TaskScope
from agentmesh.node.call import Call
from agentmesh.node.calls import Calls
from agentmesh.node.config import NodeConfig
from agentmesh.node.driver import Driver
from agentmesh.node.incoming import Incoming
from agentmesh.node.links import Links, Peer
from agentmesh.node.record import RunClocks
from agentmesh.node.registry import DoorKit, Registry
from agentmesh.node.remote import Remote
from agentmesh.node.resolve import find
from agentmesh.node.traces import Traces
from agentmesh.node.views import agent_view, matching, peer_view
from agentmesh.store.eventlog import EventLog
from agentmesh.store.state import StateStore
from agentmesh.wire import v1
from agentmesh.wire.event import EventV1, check
from agentmesh.wire.views import (
    AgentDetail,
    AgentView,
    CallRequest,
    CancelResult,
    PeerView,
    RegisterRequest,
    RunView,
    StatusView,
    Stored,
    TraceView,
)

_log = logging.getLogger("agentmesh.node")

_CLOCK_READ_S = 20.0
_SEEDS_MAX = 1_000
_INGEST_MAX = 10_000
_WARNINGS_MAX = 100


class Node:
    """A running node. Made by the composition root (``daemon/app.py``), used by the API.

    Args:
        key: The node's key.
        config: Limits and intervals.
        brain_config: Settings of the machines.
        transports: Ways to other nodes, preferred first.
        kit: Doors to agents.
        log, state: Stores, open; the node does not close them.
        keys_dir: Where agent keys live.
        home: Home directory, for ``status``.
        http_port: Returns the API's port.
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
        *,
        keys_dir: Path,
        home: Path,
        http_port: Callable[[], int],
    ) -> None:
        self.node_id: NodeId = node_id(key.public)
        self.config = config
        self._log, self._state, self._home, self._http_port = log, state, home, http_port
        self._started_s = time.monotonic()
        self._scope = TaskScope("node")
        self._brain = Brain(self.node_id, brain_config, random.Random(os.urandom(16)))  # noqa: S311 jitter, not secrets
        self._driver = Driver(self._brain, send=self._send, store=self._store, emit=self._emit)
        self._sources: dict[NodeId, Source] = {}
        self._names: dict[str, str] = {}
        self._refused: dict[tuple[NodeId, str], RecordRefused] = {}
        self._skews: dict[NodeId, float] = {}
        self.discovery: list[str] = []
        self.warnings: list[str] = []
        self.links = Links(
            self.node_id,
            config,
            transports,
            hello=self._hello,
            on_up=self._on_up,
            on_down=self._on_down,
            on_control=lambda peer, message: self._driver.feed(Received(peer, message)),
            on_request=self._on_request,
            on_misbehaved=self._note_misbehaviour,
        )
        self.registry = Registry(
            self.node_id,
            config,
            kit,
            state,
            keys_dir,
            on_record=self._on_record,
            on_health=lambda agent, healthy: self._driver.feed(LocalStatus(agent, healthy)),
            on_gone=lambda agent: self._driver.feed(LocalGone(agent)),
        )
        clocks = RunClocks()
        self._incoming = Incoming(self.node_id, config, self.registry, log, self._scope, clocks)
        remote = Remote(
            config,
            self.links,
            log,
            contact_of=self._contact_of,
            name_of=self.name_of,
            on_misbehaved=self._note_misbehaviour,
        )
        self._calls = Calls(
            self.node_id,
            config,
            self.registry,
            remote,
            log,
            self._scope,
            clocks,
            directory=self._brain,
            name_of=self.name_of,
        )
        self._traces = Traces(self.node_id, config, log, self.links, name_of=self.name_of)

    async def open(self, seeds: Sequence[str] = ()) -> None:
        """Listen, bring back agents and contacts, dial the seeds.

        Raises:
            NoRoute: no transport could be opened.
            UsageError: a seed is malformed.
        """
        self._driver.feed(WallClock(time.time()))
        await self.links.open()
        for contact in self._state.contacts():
            self._hint(NodeId(contact.node_id), tuple(contact.addresses), "stored")
        await self.registry.open()
        await self.add_seeds(list(seeds))
        self._scope.spawn(self._clock_loop(), "clock")

    async def _clock_loop(self) -> None:
        while True:
            await asyncio.sleep(_CLOCK_READ_S)
            self._driver.feed(WallClock(time.time()))

    # What the brain asks for

    def _send(self, to: NodeId, message: Any) -> None:
        self.links.send(to, message)

    def _store(self, record: Any) -> None:
        if isinstance(record, StoreContact):
            self._state.save_contact(record.node_id, record.addresses, source="link", last_seen=int(time.time()))

    def _emit(self, event: Any) -> None:
        match event:
            case DialWanted():
                self.links.dial(Contact(event.node_id, event.addresses))
            case PeerMisbehaved():
                self._note_misbehaviour(event.peer, event.code, event.detail)
            case RecordRefused():
                self._note_refusal(event)
            case PeerSilent():
                self.links.drop(event.peer, "silent")
            case ClockSkew():
                self._skews[event.peer] = event.skew_s
            case RenewalDue():
                self.registry.resign(event.agent_id)
            case SeqBehind() if event.elsewhere:
                self._warn(f"agent {event.name!r} lives on another node with the same key; one of the two must go")
            case SeqBehind():
                self.registry.resign(event.agent_id, event.seq + 1)
            case AgentGone():
                _log.info("agent %s left the directory (%s)", event.name, event.why)
            case _:
                pass

    def _warn(self, text: str) -> None:
        if text not in self.warnings and len(self.warnings) < _WARNINGS_MAX:
            self.warnings.append(text)
            _log.warning("%s", text)

    def _note_refusal(self, refused: RecordRefused) -> None:
        """Remember why a peer's agents are not shown, once per peer and reason; the oldest reason makes room."""
        while len(self._refused) >= _WARNINGS_MAX:
            del self._refused[next(iter(self._refused))]
        self._refused[refused.peer, refused.code] = refused

    def _note_misbehaviour(self, peer: NodeId, code: str, detail: str) -> None:
        _log.warning("peer %s misbehaved: %s (%s)", short(peer), detail, code)

    # What the world tells the brain

    def _hello(self) -> v1.Hello:
        return v1.Hello(
            v=v1.WIRE_VERSION,
            version=self.config.version,
            name=self.config.name,
            addresses=self.links.addresses[:8],
            clock_ms=int(time.time() * 1000),
        )

    def _on_up(self, peer: Peer) -> None:
        node = peer.link.peer
        if len(self._names) > 10_000:
            self._names.clear()
        self._names[node] = "".join(c for c in peer.hello.name[:64] if c.isprintable())
        named = tuple(a[:256] for a in peer.hello.addresses[:8])
        if peer.link.dialed:
            self._driver.feed(PeerUp(node, (peer.link.remote_address, *named), "link"))
        else:
            self._sources.setdefault(node, "link")
            self._driver.feed(PeerUp(node, named, "peer"))

    def _on_down(self, peer: NodeId) -> None:
        self._skews.pop(peer, None)
        self._driver.feed(PeerDown(peer))

    async def _on_request(self, peer: Peer, stream: Stream, message: v1.RequestMessage) -> None:
        if isinstance(message, v1.CallOpen):
            await self._incoming.serve(peer, stream, message)
        else:
            await self._traces.serve(peer, stream, message)

    def _on_record(self, manifest: Manifest) -> None:
        self._driver.feed(LocalRecord(manifest))

    def _hint(self, node: NodeId, addresses: tuple[str, ...], source: Source) -> None:
        if node != self.node_id and addresses:
            if len(self._sources) < 10_000:
                self._sources.setdefault(node, source)
            self._driver.feed(AddressHint(node, addresses, source))

    def on_mdns(self, node: NodeId, addresses: list[str]) -> None:
        """Take an address heard on the LAN: a hint, never trust."""
        self._hint(node, tuple(addresses), "mdns")

    def _contact_of(self, node: NodeId) -> Contact:
        return Contact(node, self._brain.addresses_of(node))

    # What people see

    def name_of(self, node: str) -> str:
        """Return the name of a node for people: its own claim, or the short id."""
        if node == self.node_id:
            return self.config.name
        return self._names.get(node) or short(node)

    def status(self) -> StatusView:
        """Return the state of this node."""
        addresses = self.links.addresses
        return StatusView(
            node_id=self.node_id,
            node_name=self.config.name,
            pid=os.getpid(),
            port=self._http_port(),
            version=self.config.version,
            uptime_s=round(time.monotonic() - self._started_s, 3),
            rss_bytes=_rss_bytes(),
            peers=sum(1 for _ in self.links.peers()),
            agents=len(self._brain.entries()),
            agents_local=len(self.registry.agents()),
            addresses=addresses,
            seed=format_seed(self.node_id, addresses[0]) if addresses else "",
            home=str(self._home),
            discovery=list(self.discovery),
            transports=[t.scheme for t in self.links.transports],
            require_signed_registration=self.config.require_signed_registration,
            events=self._log.count,
            last_seq=self._log.last_seq,
            warnings=self._warnings(),
        )

    def _warnings(self) -> list[str]:
        warnings = [
            *self.warnings,
            *self._log.report.sentences,
            *self._state.report,
            *self.links.warnings,
            *self.registry.warnings,
        ]
        for peer, skew_s in self._skews.items():
            if skew_s and self.links.is_connected(peer):
                warnings.append(
                    f"the clock of node {self.name_of(peer)} is {skew_s:+.0f} s from ours; "
                    "its agents may be refused until one of the two clocks is set right"
                )
        for refused in self._refused.values():
            if self.links.is_connected(refused.peer):
                warnings.append(
                    f"an agent of node {self.name_of(refused.peer)} was refused ({refused.code}): {refused.detail}"
                )
        return warnings

    def _view(self, entry: Any) -> AgentView:
        return agent_view(
            entry,
            registry=self.registry,
            links=self.links,
            node_name=self.name_of(entry.manifest.node_id),
            now_s=self._driver.now_s,
        )

    def agents(self, query: str = "", name: str = "", include_unhealthy: bool = True) -> list[AgentView]:
        """Return the agents that match: best match first with a query, by name without."""
        views = [self._view(e) for e in self._brain.entries()]
        if not include_unhealthy:
            views = [v for v in views if v.status == "healthy"]
        if name:
            wanted = find(name, self._brain, self.name_of)
            ids = {e.manifest.agent_id for e in wanted}
            views = [v for v in views if v.agent_id in ids]
        return matching(views, query)

    def agent(self, ref: str) -> AgentDetail:
        """Return one agent with its card and the replicas of its name. Raises AgentNotFound."""
        found = find(ref, self._brain, self.name_of)
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
        entries = {e.manifest.agent_id: e for e in self._brain.entries()}
        return [self._view(entries[AgentId(i)]) for i in ids if i in entries]

    # What people do

    async def register(self, request: RegisterRequest) -> list[AgentView]:
        """Register the agents behind a URL (see ``Registry.register``)."""
        agents = await self.registry.register(request)
        return self._local_views([a.manifest.agent_id for a in agents])

    async def deregister(self, ref: str) -> AgentView:
        """Withdraw a local agent and return its last view. Raises AgentNotFound."""
        agent = self.registry.require(ref, [a.manifest.name for a in self.registry.agents()])
        view = self._local_views([agent.manifest.agent_id])[0]
        await self.registry.deregister(agent)
        view.status = "gone"
        return view

    async def renew(self, agent_id: str) -> bool:
        """Keep an ephemeral agent alive; False if it must register again."""
        return self.registry.renew(agent_id)

    async def call(self, request: CallRequest) -> Call:
        """Start a call (see ``Calls.start``)."""
        return self._calls.start(request)

    async def cancel(self, task_id: str) -> CancelResult:
        """Ask a running task to stop. Raises RunNotFound."""
        return CancelResult(task_id=task_id, canceled=self._calls.cancel(task_id))

    async def task_events(self, task_id: str) -> list[EventV1]:
        """Return the events of a task known here, in order; [] when none is."""
        return await self._log.task_events(task_id)

    async def trace(self, ref: str, after: int = 0, remote: bool = True) -> TraceView:
        """Return a run in order (see ``Traces.view``)."""
        return await self._traces.view(ref, after=after, remote=remote)

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
        """Return every node known: connected ones first, then by name."""
        agents: dict[str, int] = {}
        for entry in self._brain.entries():
            agents[entry.manifest.node_id] = agents.get(entry.manifest.node_id, 0) + 1
        known = {c.node_id: c.addresses for c in self._brain.contacts()}
        known.update({p.link.peer: (p.link.remote_address,) for p in self.links.peers()})
        views = [
            peer_view(
                node,
                addresses,
                peer=self.links.peer(node),
                attempt=self.links.attempts.get(node),
                name=self.name_of(node),
                source=self._sources.get(node, "peer"),
                agents=agents.get(node, 0),
            )
            for node, addresses in known.items()
        ]
        return sorted(views, key=lambda v: (not v.connected, v.node_name, v.node_id))

    async def add_seeds(self, seeds: list[str]) -> None:
        """Learn addresses of nodes from a person or a file and dial them.

        Raises:
            UsageError: too many, or one is malformed. None was taken.
        """
        if len(seeds) > _SEEDS_MAX:
            raise UsageError(f"{len(seeds)} seeds, at most {_SEEDS_MAX} are taken", code="seed.too_many")
        for contact in [parse_seed(seed) for seed in seeds]:
            self._hint(contact.node_id, contact.addresses, "static")

    async def aclose(self) -> None:
        """Leave: finish or cancel calls, tell peers, close links. Idempotent."""
        await self._calls.aclose()
        await self.registry.withdraw_ephemeral()
        self._driver.feed(Leaving("shutting down"))
        await asyncio.sleep(0)
        await self.links.aclose()
        self._driver.close()
        await self.registry.aclose()
        await self._scope.aclose()


def _rss_bytes() -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        return int(Path("/proc/self/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
