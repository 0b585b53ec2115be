"""Several whole nodes in one process: real brains, links, logs and stores; the in-memory transport; scripted agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentmesh.core.brain import BrainConfig
from agentmesh.engines.base import TopicStore
from agentmesh.errors import NoRoute
from agentmesh.identity.keys import KeyPair
from agentmesh.net.memory import MemoryHub, MemoryTransport
from agentmesh.node.admission import Admission
from agentmesh.node.config import NodeConfig
from agentmesh.node.door import Door, Happening, Health, Invocation
from agentmesh.node.federation.federation import FederationKit
from agentmesh.node.node import Node
from agentmesh.node.spans import SpanKit
from agentmesh.store.audit import AuditLog
from agentmesh.store.audit_files import AuditConfig
from agentmesh.store.calls import CallStore
from agentmesh.store.eventlog import EventLog
from agentmesh.store.ledger import Ledger
from agentmesh.store.state import StateStore
from agentmesh.store.tenants import TenantStore
from agentmesh.store.trust import TrustStore
from agentmesh.wire.views import RegisterRequest

Script = Callable[[Invocation], AsyncIterator[Happening]]


@dataclass
class FoundFake:
    """What the scripted kit finds."""

    name: str
    target: dict[str, Any]
    description: str = "A scripted agent."
    version: str = "1"
    skills: list[dict[str, Any]] = field(
        default_factory=lambda: [{"id": "s", "name": "S", "description": "Plays a script.", "tags": ["test"]}]
    )
    input_modes: list[str] = field(default_factory=lambda: ["text/plain"])
    output_modes: list[str] = field(default_factory=lambda: ["text/plain"])
    extra: dict[str, Any] = field(default_factory=dict)


class FakeDoor:
    """Plays the script of its agent and counts."""

    def __init__(self, agent: ScriptedAgent) -> None:
        self._agent = agent

    async def invoke(self, call: Invocation) -> AsyncIterator[Happening]:
        if not self._agent.alive:
            raise NoRoute("connection refused", code="agent.unreachable")
        self._agent.calls.append(call)
        ended = False
        try:
            async for happening in self._agent.script(call):
                yield happening
            ended = True
        finally:
            if not ended:
                self._agent.closed_early.set()

    async def cancel(self, task_id: str) -> None:
        self._agent.canceled.append(task_id)

    async def health(self) -> Health:
        return Health("healthy") if self._agent.alive else Health("unhealthy", "connection refused")

    async def aclose(self) -> None:
        return None


class ScriptedAgent:
    """An agent of the test: a script, and a diary."""

    def __init__(self, name: str, script: Script, **extra: Any) -> None:
        self.name = name
        self.script = script
        self.extra = extra
        self.alive = True
        self.calls: list[Invocation] = []
        self.canceled: list[str] = []
        self.closed_early = asyncio.Event()


class FakeKit:
    """Finds scripted agents under ``http://<name>/``."""

    def __init__(self) -> None:
        self.agents: dict[str, ScriptedAgent] = {}

    async def find(self, url: str, door: str, least: int = -1) -> tuple[str, Sequence[FoundFake]]:
        name = url.removeprefix("http://").strip("/")
        agent = self.agents.get(name)
        if agent is None or not agent.alive:
            raise NoRoute(f"nothing answers at {url}", code="agent.unreachable")
        return "sdk", [FoundFake(agent.name, {"url": url}, extra=agent.extra)]

    def open(self, door: str, target: dict[str, Any]) -> Door:
        return FakeDoor(self.agents[str(target["url"]).removeprefix("http://").strip("/")])

    async def aclose(self) -> None:
        return None


class Member:
    """One node of the world."""

    def __init__(self, node: Node, kit: FakeKit, log: EventLog, key: KeyPair) -> None:
        self.node, self.kit, self.log, self.key = node, kit, log, key

    @property
    def seed(self) -> str:
        return self.node.status().seed

    async def serve(self, name: str, script: Script, **extra: Any) -> ScriptedAgent:
        agent = ScriptedAgent(name, script, **extra)
        self.kit.agents[f"{name}-{len(self.kit.agents)}"] = agent
        await self.node.register(RegisterRequest(url=f"http://{name}-{len(self.kit.agents) - 1}/", door="sdk"))
        return agent


async def until(condition: Callable[[], Any], timeout_s: float = 5.0) -> None:
    """Wait until the condition holds; nodes run in this very loop, so giving way to it is enough."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 what is waited for has no event of its own
            await asyncio.sleep(0.005)


@asynccontextmanager
async def world(
    tmp_path: Path,
    count: int,
    *,
    join: bool = True,
    kits: Sequence[FakeKit] = (),
    admissions: Sequence[Admission] = (),
    federate: Callable[[int, Path], FederationKit] | None = None,
    brain: BrainConfig | None = None,
    spans: SpanKit | None = None,
    bus: Callable[[], TopicStore] | None = None,
    **config: Any,
) -> AsyncIterator[list[Member]]:
    """Start nodes n0, n1, …; with ``join``, all connected. The same ``tmp_path`` and ``kits`` again: a restart."""
    hub = MemoryHub()
    config = {"policy": "open", **config}  # chosen, so that no node warns that nobody has
    members: list[Member] = []
    async with AsyncExitStack() as stack:
        for i in range(count):
            key = KeyPair.generate(bytes([i + 1]) * 32)
            home = tmp_path / f"n{i}"
            home.mkdir(exist_ok=True)
            log = await EventLog.open(home / "events", key.did)
            stack.push_async_callback(log.aclose)
            state = StateStore.open(home / "state.sqlite")
            stack.callback(state.close)
            calls = CallStore.open(home / "calls.sqlite")
            stack.callback(calls.close)
            ledger = Ledger.open(home / "ledger.sqlite")
            stack.callback(ledger.close)
            audit = AuditLog.open(home / "audit", key, AuditConfig(reserve_bytes=1 << 16))
            stack.push_async_callback(audit.aclose)
            trust = TrustStore.open(home / "trust.sqlite")
            stack.callback(trust.close)
            tenants = TenantStore.open(home / "tenants.sqlite")
            stack.callback(tenants.close)
            kit = kits[i] if kits else FakeKit()
            node = Node(
                key,
                NodeConfig(name=f"n{i}", version="0", dial_timeout_s=2.0, **config),
                brain or BrainConfig(),
                [MemoryTransport(key, f"n{i}", hub)],
                kit,
                log,
                state,
                calls,
                ledger,
                audit,
                keys_dir=home / "keys",
                home=home,
                http_port=lambda: 1,
                admission=admissions[i] if admissions else None,
                trust_store=trust,
                tenant_store=tenants,
                federation=None if federate is None else federate(i, home),
                spans=spans,
                bus=bus,
            )
            await node.open()
            stack.push_async_callback(node.aclose)
            members.append(Member(node, kit, log, key))
        if join:
            for member in members[1:]:
                await member.node.add_seeds([members[0].seed])
            await until(lambda: all(sum(p.connected for p in m.node.peers()) == count - 1 for m in members))
        yield members
