"""The composition root: makes every part of a running daemon, puts them together, and takes them apart in order.

Nothing is decided here. What is heavy (TLS, WebSocket, mDNS, A2A) is imported only when a setting or a request asks for
it: the idle daemon must fit 50 MB.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import agentmesh
from agentmesh.adapters.base import Adapter, Discovered
from agentmesh.adapters.reach import Reach
from agentmesh.api.a2a import A2AEdge
from agentmesh.api.access import Access
from agentmesh.api.app import Api, create_app
from agentmesh.api.console.sessions import Sessions
from agentmesh.api.issuers import Issuers
from agentmesh.api.metrics import MetricsEdge
from agentmesh.core.brain import BrainConfig
from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.trust.config import TrustConfig
from agentmesh.daemon.bridging import Bridging
from agentmesh.daemon.capacity import capacity_tier
from agentmesh.daemon.changes import note_settings
from agentmesh.daemon.engines import Engines, open_engines
from agentmesh.daemon.exporting import open_spans
from agentmesh.daemon.home import Home, default_home, write_atomic
from agentmesh.daemon.http import Server, make_partner_server, make_server
from agentmesh.daemon.knobs import Settings
from agentmesh.daemon.launch import bind_loopback
from agentmesh.daemon.lock import RunFile, write_runfile
from agentmesh.daemon.memory import keep_small
from agentmesh.daemon.settings import Loaded, discover_weights, parse_listen, trust_weights
from agentmesh.daemon.signals import Stop
from agentmesh.errors import ConfigError, MeshError, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import node_id
from agentmesh.net.base import Transport
from agentmesh.net.tasks import TaskScope
from agentmesh.node.admission import Admission, CredentialFiles
from agentmesh.node.config import NodeConfig
from agentmesh.node.door import Door
from agentmesh.node.federation.federation import FederationKit
from agentmesh.node.node import Node
from agentmesh.node.registry import ANYWHERE
from agentmesh.node.spans import SpanKit
from agentmesh.obs.log import setup_logging
from agentmesh.store.audit import AuditLog
from agentmesh.store.base import EventLogConfig
from agentmesh.store.calls import CallStore
from agentmesh.store.eventlog import EventLog
from agentmesh.store.federation import FederationStore
from agentmesh.store.keyfile import load_key, load_or_create_key, load_or_create_token
from agentmesh.store.keys import KeyStore
from agentmesh.store.ledger import Ledger
from agentmesh.store.sessions import SessionStore
from agentmesh.store.state import StateStore
from agentmesh.store.tenants import TenantStore
from agentmesh.store.trust import TrustStore

if TYPE_CHECKING:
    from agentmesh.net.tlsca import CaNetwork
    from agentmesh.wire.config_views import ConfigView

_log = logging.getLogger("agentmesh.daemon")

_PORTS_TRIED_MAX = 100


class Kit:
    """All doors of this installation (``node.registry.DoorKit``)."""

    def __init__(self) -> None:
        self._adapters: dict[Reach, dict[str, Adapter]] = {}

    def _doors(self, least: int) -> dict[str, Adapter]:
        """Return the doors whose connections lead no further inside than that; made when they are first asked for."""
        from agentmesh.adapters.registry import default_adapters

        reach = Reach(least)
        if reach not in self._adapters:
            self._adapters[reach] = default_adapters(reach)
        return self._adapters[reach]

    async def find(self, url: str, door: str, least: int = ANYWHERE) -> tuple[str, Sequence[Discovered]]:
        """Ask a URL which agents are behind it, through one door or whichever fits."""
        from agentmesh.adapters.registry import detect

        doors = self._doors(least)
        if door == "auto":
            adapter, found = await detect(url, doors)
            return adapter.name, found
        adapter = doors.get(door)
        if adapter is None:
            raise UsageError(f"no door {door!r}; there are {', '.join(doors)}", code="agent.no_door")
        return door, await adapter.discover(url)

    def open(self, door: str, target: dict[str, Any]) -> Door:
        """Return the door to one agent."""
        adapter = self._doors(target.get("least", ANYWHERE)).get(door)
        if adapter is None:
            raise UsageError(f"no door {door!r} in this installation", code="agent.no_door")
        return adapter.open(target)

    async def aclose(self) -> None:
        """Free every adapter."""
        for doors in self._adapters.values():
            for adapter in doors.values():
                await adapter.aclose()


async def serve(loaded: Loaded, profile: str | None = None) -> int:
    """Run one node until it is asked to stop; the caller holds the home's lock.

    Args:
        loaded: The settings, and where each comes from.
        profile: The profile that was asked for by a flag.

    Returns:
        The exit code.

    Raises:
        ConfigError, StateError, StoreError, NoRoute: the daemon could not start; what was begun was undone.
    """
    settings = loaded.settings
    home = settings.paths
    setup_logging(level=settings.log_level, file=home.log, stderr=not _is_stderr(home.log))
    stop = Stop()
    stop.install()
    async with contextlib.AsyncExitStack() as stack:
        key = load_or_create_key(home.node_key)
        token = load_or_create_token(home.api_token)
        sockets, port = bind_loopback(settings.port, strict=settings.port_strict)
        for one in sockets:
            stack.callback(one.close)
        log = await EventLog.open(home.events, key.did, EventLogConfig(events_bytes_max=settings.events_bytes_max))
        stack.push_async_callback(log.aclose)
        state = StateStore.open(home.state)
        stack.callback(state.close)
        calls = CallStore.open(home.calls)
        stack.callback(calls.close)
        keys = KeyStore.open(home.keys)
        stack.callback(keys.close)
        tenants = TenantStore.open(home.tenants)
        stack.callback(tenants.close)
        access = Access(token, keys, issuers=Issuers(home.issuers), sessions=_sessions(home, stack))
        ledger = Ledger.open(home.ledger)
        stack.callback(ledger.close)
        ca = _ca_network(settings)
        audit = AuditLog.open(home.audit, key)
        stack.push_async_callback(audit.aclose)
        trust = TrustStore.open(home.trust)
        stack.callback(trust.close)
        federation = _federation(settings, home, stack)
        spans, unexported = open_spans(settings, key.did, stack)
        engines = await open_engines(settings, key.did, stack)
        node = _node(
            settings, home, key, log, state, calls, ledger, audit, trust, tenants, port, ca, federation, spans, engines
        )
        node.mesh.watches.append(engines.warnings)
        if unexported:
            node.mesh.warn(unexported)
        stop.on_hup.append(node.mesh.review)
        if ca is not None:
            stop.on_hup.append(ca.refresh)
        stack.push_async_callback(node.aclose)
        await node.open(settings.seeds)
        await note_settings(settings, state, node.audit)
        edge = A2AEdge(node, port_of=lambda: port)
        bridging = Bridging(node, settings, lambda: port)
        stack.push_async_callback(bridging.aclose)
        app = create_app(
            node,
            access=access,
            registries=bridging,
            config_of=lambda: _config_view(loaded, profile),
            port_of=lambda: port,
            on_shutdown=lambda: stop.request("POST /api/v1/shutdown"),
            extra_routes=[*edge.routes(), *MetricsEdge(node.measure).routes()],
            a2a_open=settings.a2a_open,
            metrics_open=settings.metrics_open,
            home_named="" if home.path == default_home() else str(home.path),
        )
        node.measures.append(lambda readings: readings.set("agentmesh_streams_open", len(app.streams), "sse"))
        scope = TaskScope("daemon")
        stack.push_async_callback(scope.aclose)
        scope.spawn(keep_small(), "memory")
        await _mdns(settings, node, stack)
        server = make_server(app)
        serving = scope.spawn(server.serve(sockets=sockets), "http")
        bridging.open()
        _listen_for_partners(settings, node, stack, scope)
        write_runfile(
            home,
            RunFile(
                pid=node.status().pid,
                port=port,
                node_id=node.node_id,
                version=agentmesh.__version__,
                started=time.time(),
                name=settings.name,
            ),
        )
        _log.info("node %s listens on http://127.0.0.1:%d, mesh %s", node.node_id, port, node.links.addresses)
        await _until_stopped(stop, app, edge, server, serving)
    _log.info("stopped (%s)", stop.reason)
    return 0


def _config_view(loaded: Loaded, profile: str | None) -> ConfigView:
    from agentmesh.daemon.explain import running

    return running(loaded, profile)()


def _is_stderr(log: Path) -> bool:
    """Say whether stderr already goes to the log file, as it does in a daemon started in the background."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(sys.stderr.fileno()), log.stat())
    return False


async def _until_stopped(stop: Stop, app: Api, edge: A2AEdge, server: Server, serving: asyncio.Task[None]) -> None:
    """Wait for the wish to stop or for the server's own end, then let running requests finish."""
    scope = TaskScope("stop")
    waiting = scope.spawn(stop.wait(), "stop")
    await asyncio.wait({waiting, serving}, return_when=asyncio.FIRST_COMPLETED)
    await scope.aclose()
    app.end_streams()
    await edge.aclose()
    server.should_exit = True
    await serving


def _sessions(home: Home, stack: contextlib.AsyncExitStack) -> Sessions:
    """Return who is logged in to the console; their file is opened with the first of them."""

    def open_shelf() -> SessionStore:
        store = SessionStore.open(home.sessions)
        stack.callback(store.close)
        return store

    return Sessions(open_shelf)


def _ca_network(settings: Settings) -> CaNetwork | None:
    """Return the network whose CA admits nodes, if one is set. Raises ConfigError."""
    if not settings.tls_ca:
        return None
    from agentmesh.net.tlsca import CaFiles, CaNetwork

    cert = Path(settings.tls_cert)
    return CaNetwork(CaFiles(Path(settings.tls_ca), cert, Path(settings.tls_key) if settings.tls_key else cert))


def _node(
    settings: Settings,
    home: Home,
    key: KeyPair,
    log: EventLog,
    state: StateStore,
    calls: CallStore,
    ledger: Ledger,
    audit: AuditLog,
    trust: TrustStore,
    tenants: TenantStore,
    port: int,
    ca: CaNetwork | None,
    federation: FederationKit,
    spans: SpanKit | None,
    engines: Engines,
) -> Node:
    config = NodeConfig(
        name=settings.name,
        version=agentmesh.__version__,
        require_signed_registration=settings.require_signed_registration,
        health_interval_s=settings.health_interval_s,
        call_timeout_s=settings.call_timeout_s,
        balance=settings.balance,
        agent_concurrency_max=settings.agent_concurrency_max,
        agent_queue_max=settings.agent_queue_max,
        agent_queue_wait_s=settings.agent_queue_wait_s,
        links_max=settings.links_max,
        grant_roots=settings.grant_roots,
        site=settings.site,
        operators=settings.operators,
        capacity=capacity_tier(settings.capacity),
        policy=settings.policy,
        trust_roots=settings.trust_roots,
        discover_asks=settings.discover_ask != "off",
        discover_weights=discover_weights(settings.discover_weights),
        embedder=settings.embedder,
        embedder_model=settings.embedder_model,
        embedder_key_file=settings.embedder_key_file,
        models_dir=settings.models_dir,
        log_calls=settings.log_calls,
        trace_share=settings.otel_sample,
    )
    brain = BrainConfig(
        directory=DirectoryConfig(
            require_signed=settings.require_signed_registration,
            lease_gone_s=settings.lease_gone_s,
        ),
    )
    taken: set[int] = set()
    transports = [_transport(scheme, settings, home, key, taken, ca) for scheme in settings.transports]
    # A datagram is signed by a node's key but shows neither certificate nor credential.
    is_guarded = (ca is not None and settings.tls_ca_only) or settings.require_credentials_of
    has_udp = settings.listen_udp and not is_guarded
    node = Node(
        key,
        config,
        brain,
        transports,
        Kit(),
        log,
        state,
        calls,
        ledger,
        audit,
        keys_dir=home.agent_keys,
        home=home.path,
        http_port=lambda: port,
        tenant_store=tenants,
        udp_listen=_free(settings.listen_udp, socket.SOCK_DGRAM, taken) if has_udp else "",
        admission=Admission(
            node_id(key.public),
            CredentialFiles(home.credential, home.revoked),
            settings.require_credentials_of,
            load_key(Path(settings.root_key)) if settings.root_key else None,
            lambda raw: write_atomic(home.credential, f"{raw}\n".encode()),
        ),
        federation=federation,
        spans=spans,
        critical=engines.critical,
        bus=engines.bus,
        trust_store=trust,
        trust_config=TrustConfig(
            weights=trust_weights(settings.trust_weights), half_life_s=settings.trust_half_life_d * 86_400
        ),
    )
    if ca is not None:
        node.mesh.watches.append(ca.warnings)
    node.discovery = ["static", "gossip", "dht"]
    return node


def _federation(settings: Settings, home: Home, stack: contextlib.AsyncExitStack) -> FederationKit:
    """Return what federation needs. Raises ConfigError, StoreError."""
    from agentmesh.adapters.fetch import PlainFetch

    fetch = PlainFetch(settings.federation_ca)
    stack.push_async_callback(fetch.aclose)
    store = FederationStore.open(home.federated)
    stack.callback(store.close)
    return FederationKit(
        store,
        fetch,
        settings.federation_seeds,
        settings.federation_interval_s,
        settings.federation_trust_min,
        settings.federation_low,
    )


def _listen_for_partners(settings: Settings, node: Node, stack: contextlib.AsyncExitStack, scope: TaskScope) -> None:
    """Open the listener for partners, if one is set. Raises ConfigError: its address or certificate cannot be used."""
    if not settings.federation_listen or node.federation is None:
        return
    from agentmesh.api.federation import FederationApp
    from agentmesh.identity.federation_proof import origin_of

    host, port = parse_listen(settings.federation_listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    stack.callback(listener.close)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(64)
        listener.setblocking(False)
        server = make_partner_server(
            FederationApp(node.federation.desk), settings.federation_cert, settings.federation_key
        )
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"cannot listen for partners at {settings.federation_listen}: {error}",
            code="federation.listen",
            hint="agentmesh config explain federation_listen",
        ) from error
    scheme = "https" if settings.federation_cert else "http"
    shown = f"[{host}]" if ":" in host else host
    url = settings.federation_url or f"{scheme}://{shown}:{listener.getsockname()[1]}"
    node.federation.desk.origin = origin_of(url)
    serving = scope.spawn(server.serve(sockets=[listener]), "partners")

    async def stop() -> None:
        server.should_exit = True
        await serving

    stack.push_async_callback(stop)
    _log.info("partners pull at %s", url)


def _transport(
    scheme: str, settings: Settings, home: Home, key: KeyPair, taken: set[int], ca: CaNetwork | None
) -> Transport:
    if scheme == "iroh":
        from agentmesh.net.iroh import IrohTransport

        return IrohTransport(key, _free(settings.listen, socket.SOCK_DGRAM, taken), relays=settings.relays)
    if scheme == "tls":
        from agentmesh.net.tls import TlsTransport

        return TlsTransport(key, _free(settings.listen_tls, socket.SOCK_STREAM, taken), cert_path=home.tls_pem, ca=ca)
    from agentmesh.net.ws import WsTransport

    return WsTransport(
        key,
        _free(settings.listen_ws, socket.SOCK_STREAM, taken),
        cert_path=home.tls_pem,
        public_url=settings.ws_public_url or None,
        ca=ca,
    )


def _free(listen: str, kind: socket.SocketKind, taken: set[int]) -> str:
    """Return the listen address with the first port that is free now, starting at the wanted one.

    Ports in ``taken`` are promised to other sockets of this node, which are not open yet; the result joins them.
    """
    host, port = parse_listen(listen)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    shown = f"[{host}]" if ":" in host else host
    for candidate in range(port, min(port + _PORTS_TRIED_MAX, 65536)) if port else ():
        if candidate in taken:
            continue
        with socket.socket(family, kind) as probe:
            try:
                probe.bind((host, candidate))
            except OSError:
                continue
        if candidate != port:
            _log.warning("mesh port %d is taken, using %d", port, candidate)
        taken.add(candidate)
        return f"{shown}:{candidate}"
    return f"{shown}:{port}"


async def _mdns(settings: Settings, node: Node, stack: contextlib.AsyncExitStack) -> None:
    """Announce ourselves on the LAN and listen for others; a network without multicast is a warning, no failure."""
    lan = [a for a in node.links.addresses if not a.partition(":")[2].startswith(("127.", "[::1]"))]
    if not settings.mdns or not lan:
        return
    from agentmesh.net.mdns import Mdns

    mdns = Mdns(node.node_id, settings.name, int(lan[0].rpartition(":")[2]), lan, node.on_mdns)
    try:
        await mdns.open()
    except MeshError as error:
        node.mesh.warn(f"mDNS is off: {error}")
        return
    stack.push_async_callback(mdns.aclose)
    node.discovery.insert(0, "mdns")
