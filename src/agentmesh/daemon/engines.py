"""What keeps state and topics for this node: opened here as the settings say, loaded only where one is set (adr/0009)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from agentmesh.daemon.knobs import Settings
from agentmesh.daemon.settings import parse_listen
from agentmesh.engines.base import CriticalStore, TopicStore
from agentmesh.errors import MeshError
from agentmesh.net.tasks import TaskScope

if TYPE_CHECKING:
    from agentmesh.engines.nats_server import NatsServer, ServerPlan

_log = logging.getLogger("agentmesh.engines")

#: Stands for the cluster that this node's own NATS server belongs to.
OWN = "nats:own"


class Engines(NamedTuple):
    """What the node is given; None = its default, SQLite in the home.

    Attributes:
        critical: Of locks and linearizable state.
        bus: Makes the store of durable topics.
        warnings: Returns what the operator should know.
    """

    critical: CriticalStore | None
    bus: Callable[[], TopicStore] | None
    warnings: Callable[[], list[str]]


async def open_engines(settings: Settings, node_id: str, stack: contextlib.AsyncExitStack) -> Engines:
    """Start this node's NATS server and make the engines, as the settings say; the stack stops them.

    An engine that does not answer is a warning: the daemon runs without it, and what needs it says so.

    Raises:
        ConfigError: a setting cannot be met. StoreError: files cannot be written.
    """
    found: list[str] = []
    server: NatsServer | None = None
    if not (settings.nats_server or settings.critical or settings.bus):
        return Engines(None, None, list)
    plan = plan_of(settings, node_id)
    if plan is not None:
        from agentmesh.engines.nats_server import NatsServer

        server = NatsServer(plan)
        await server.open()
        stack.push_async_callback(server.aclose)
    critical = _critical(settings, plan)
    scope = TaskScope("engines")
    stack.push_async_callback(scope.aclose)
    if critical is not None:
        scope.spawn(_greet(critical, found), "greet")
    bus = _bus(settings, plan)
    if bus is not None and settings.bus != settings.critical:
        scope.spawn(_greet(bus(), found, is_ours=True), "greet-bus")
    return Engines(critical, bus, lambda: [*(server.warnings if server is not None else ()), *found])


def plan_of(settings: Settings, node_id: str) -> ServerPlan | None:
    """Return what this node's own NATS server is to be; None if there is to be none. Raises ConfigError."""
    if not settings.nats_server:
        return None
    from pathlib import Path

    from agentmesh.engines.nats_server import ServerPlan

    host, port = parse_listen(settings.nats_server)
    directory = settings.paths.nats
    secret = Path(settings.nats_secret) if settings.nats_secret else directory / "secret"
    return ServerPlan(f"agentmesh-{node_id[-12:]}", host, port, tuple(settings.nats_cluster), directory, secret)


def _critical(settings: Settings, plan: ServerPlan | None) -> CriticalStore | None:
    if not settings.critical:
        return None
    if settings.critical == OWN and plan is not None:
        from agentmesh.engines.nats import NatsCritical

        return NatsCritical(plan.place(), is_synced=True)
    from agentmesh.engines.choose import choose_critical

    return choose_critical(settings.critical, settings.paths.critical)


def _bus(settings: Settings, plan: ServerPlan | None) -> Callable[[], TopicStore] | None:
    if not settings.bus:
        return None
    from agentmesh.engines.nats_topics import NatsTopics
    from agentmesh.engines.place import read_place

    place = plan.place() if settings.bus == OWN and plan is not None else read_place(settings.bus)
    return lambda: NatsTopics(place)


async def try_critical(settings: Settings, node_id: str) -> tuple[str, MeshError | None]:
    """Ask the engine that settings name once; return where it is, and what is wrong with it."""
    critical: CriticalStore | None = None
    try:
        critical = _critical(settings, plan_of(settings, node_id))
        if critical is None:
            return "sqlite:", None
        await critical.open()
        await critical.get("probe")
        return critical.url, None
    except MeshError as error:
        return settings.critical, error
    finally:
        if critical is not None:
            await critical.aclose()


async def _greet(engine: CriticalStore | TopicStore, found: list[str], *, is_ours: bool = False) -> None:
    """Try an engine until it answers, so that what is wrong with it is known before somebody needs it; then close it if ours."""
    pause_s, told = 2.0, ""
    while True:
        try:
            await engine.open()
            break
        except MeshError as error:
            text = f"{error.detail} ({error.code})" + (f"; {error.hint}" if error.hint else "")
            if text != told:
                _log.warning("%s", text)
                found[:] = [*(one for one in found if one != told), text]
                told = text
            if error.code != "engine.unreachable":
                return
        pause_s = min(10.0, pause_s * 1.5)
        await asyncio.sleep(pause_s)
    found[:] = [one for one in found if one != told]
    if is_ours:
        await engine.aclose()
