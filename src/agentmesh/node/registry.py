"""Agents beside this node: registration, signed manifests, health checks, withdrawal (RQ0 §4.1, RQ2).

The node keeps each agent's key and signs its manifest; an agent that holds its own key brings a signed card instead.
A registration by URL survives restarts; an SDK agent's lasts as long as it renews or answers its health check.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec

from agentmesh.errors import AgentNotFound, LimitError, MeshError, NoRoute, SignatureError, StateError, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest, build_card, read_record, sign_card, sign_tombstone
from agentmesh.ids import AgentId, NodeId, is_name
from agentmesh.net.tasks import TaskScope
from agentmesh.node.agreements import Agreements
from agentmesh.node.config import NodeConfig
from agentmesh.node.door import Door, Health
from agentmesh.store.keyfile import load_or_create_key
from agentmesh.store.state import StateStore
from agentmesh.wire.views import RegisterRequest

_log = logging.getLogger("agentmesh.registry")

#: A tombstone outlives the manifests it replaces.
_TOMBSTONE_LIFE_S = 7 * 86_400
_CHECKS_AT_ONCE = 32
#: What a person named may be anywhere, also inside this machine.
ANYWHERE = -1


class FoundAgent(Protocol):
    """What a door found behind a URL (``adapters.base.Discovered``)."""

    @property
    def name(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def skills(self) -> list[dict[str, Any]]: ...
    @property
    def input_modes(self) -> list[str]: ...
    @property
    def output_modes(self) -> list[str]: ...
    @property
    def target(self) -> dict[str, Any]: ...
    @property
    def extra(self) -> dict[str, Any]: ...


class DoorKit(Protocol):
    """All doors of this installation; the composition root fills it with the adapters."""

    async def find(self, url: str, door: str, least: int = ANYWHERE) -> tuple[str, Sequence[FoundAgent]]:
        """Return (door name, agents) behind a URL; ``door`` "auto" tries them in order.

        Nothing is asked of what lies further inside the network than ``least`` says (``adapters.reach.Reach``).

        Raises:
            UsageError, NoRoute, DecodeError: as the adapters do.
        """
        ...

    def open(self, door: str, target: dict[str, Any]) -> Door:
        """Return the door to one agent; no I/O. A ``least`` in the target holds for all its connections."""
        ...

    async def aclose(self) -> None:
        """Free all doors."""
        ...


class Saved(msgspec.Struct, kw_only=True):
    """A registration as it is kept across restarts."""

    name: str
    url: str
    door: str
    target: dict[str, Any]
    description: str
    version: str
    skills: list[dict[str, Any]]
    input_modes: list[str]
    output_modes: list[str]
    params: dict[str, Any] = {}
    unsigned: bool = False
    card: dict[str, Any] | None = None
    tenant: str = ""
    private: bool = False
    origin: str = ""

    @property
    def key(self) -> str:
        """What it is kept under: names are unique per tenant."""
        return f"{self.tenant}/{self.name}" if self.tenant else self.name


class Owner(NamedTuple):
    """In whose name agents are registered.

    Attributes:
        tenant: Name of the tenant; "" = the operator.
        private: Not announced to the mesh; only the tenant knows them.
        agents_max: Most agents that it may have; 0 = only the node's own limit counts.
        origin: Entry of another registry that told of them; "" = they were registered here. Such agents are not kept across
            restarts, and give way when somebody registers an agent of that name here.
        least: How far inside the network they may be at most (``adapters.reach.Reach``); a stranger named where they are.
        displace: Whether they replace agents registered under their names at other URLs.
    """

    tenant: str = ""
    private: bool = False
    agents_max: int = 0
    origin: str = ""
    least: int = ANYWHERE
    displace: bool = True


OPERATOR = Owner()


@dataclass(slots=True, eq=False)
class LocalAgent:
    """An agent beside this node.

    Attributes:
        saved: What was registered.
        manifest: Its current manifest.
        door: How it is called.
        key: Its key, unless the agent keeps its own.
        ephemeral: Forgotten when its process goes.
        health: Last check, None before the first.
        active: Calls running.
        limit: Most calls at once.
        renewed_s: Monotonic time of the last renewal.
    """

    saved: Saved
    manifest: Manifest
    door: Door
    key: KeyPair | None
    ephemeral: bool
    limit: int
    renewed_s: float
    health: Health | None = None
    active: int = 0
    checked_s: float = 0.0


class Registry:
    """Register, check and withdraw the agents beside this node.

    Args:
        node_id: Own id, written into every manifest.
        config: Limits and intervals.
        kit: The doors.
        state: Keeps registrations and sequence numbers.
        keys_dir: Where agent keys live.
        on_record: Called with each new manifest or tombstone.
        on_health: Called with (agent id, healthy) after each check.
        on_gone: Called when an agent leaves without a tombstone.
    """

    def __init__(
        self,
        node_id: NodeId,
        config: NodeConfig,
        kit: DoorKit,
        state: StateStore,
        keys_dir: Path,
        *,
        on_record: Callable[[Manifest], None],
        on_health: Callable[[AgentId, bool], None],
        on_gone: Callable[[AgentId], None],
    ) -> None:
        self._node_id = node_id
        self._config = config
        self._kit = kit
        self._state = state
        self._keys_dir = keys_dir
        self._on_record, self._on_health, self._on_gone = on_record, on_health, on_gone
        #: Says, by id and seconds of life, which organisation vouches for an agent of the operator (``node.organisations``).
        self.vouch: Callable[[str, int], dict[str, Any] | None] = lambda _agent, _life_s: None
        self._agents: dict[AgentId, LocalAgent] = {}
        self._lock = asyncio.Lock()
        self._scope = TaskScope("registry")
        self._gate = asyncio.Semaphore(_CHECKS_AT_ONCE)
        self._checking: set[AgentId] = set()
        self.warnings: list[str] = []
        self._agreements = Agreements(self.warnings)
        #: Called when an agent came, changed, went, or turned healthy or unhealthy.
        self.on_change: list[Callable[[], None]] = []

    async def open(self) -> None:
        """Bring back kept registrations and begin health checks; one that cannot be read is left out, with a warning."""
        for name, raw in self._state.registrations().items():
            try:
                saved = msgspec.convert(raw, Saved)
                self._admit(saved, ephemeral=False)
            except (MeshError, msgspec.MsgspecError) as error:
                self.warnings.append(f"agent {name!r} was not brought back: {error}")
        self._scope.spawn(self._health_loop(), "health")

    def agents(self) -> list[LocalAgent]:
        """Return the local agents in order of registration."""
        return list(self._agents.values())

    def get(self, agent_id: str) -> LocalAgent | None:
        """Return a local agent by id."""
        return self._agents.get(AgentId(agent_id))

    def by_name(self, name: str, tenant: str = "") -> LocalAgent | None:
        """Return a local agent of one tenant ("" = of the operator) by name, ignoring case."""
        folded = name.casefold()
        return next(
            (a for a in self._agents.values() if a.manifest.name.casefold() == folded and a.saved.tenant == tenant),
            None,
        )

    async def register(self, request: RegisterRequest, owner: Owner = OPERATOR) -> list[LocalAgent]:
        """Register every agent behind a URL; one that was registered under the same name is replaced.

        Raises:
            UsageError: the URL, name or card is unusable. Nothing changed.
            SignatureError: unsigned while signatures are required, or a card that does not verify. Nothing changed.
            NoRoute, DecodeError: nothing, or no agent, answers there. Nothing changed.
            LimitError: too many local agents. Nothing changed.
            StateError: an agent of somebody else here has that id, or is announced under that name. Nothing changed.
        """
        if request.unsigned and self._config.require_signed_registration:
            raise SignatureError(
                "this node admits signed agents only",
                code="register.unsigned",
                why="require_signed_registration is on",
                hint="leave --unsigned out, or: agentmesh config set require_signed_registration false, then restart",
            )
        door, found = await self._kit.find(request.url, request.door, owner.least)
        if not found:
            raise NoRoute(f"no agent answers at {request.url}", code="agent.unreachable")
        if len(found) > 1 and (request.name or request.card):
            raise UsageError(
                f"{len(found)} agents are behind {request.url}; a name or card fits only one", code="register.many"
            )
        async with self._lock:
            saved = [self._saved(request, door, agent, owner) for agent in found]
            for one in saved:
                self._refuse_taken(one, displace=owner.displace)
            known = sum(1 for s in saved if self.by_name(s.name, s.tenant))
            if len(self._agents) + len(saved) - known > self._config.agents_max:
                raise LimitError(f"{self._config.agents_max} agents are registered on this node", code="register.full")
            theirs = sum(1 for a in self._agents.values() if a.saved.tenant == owner.tenant)
            if owner.agents_max and theirs + len(saved) - known > owner.agents_max:
                raise LimitError(f"tenant {owner.tenant} has at most {owner.agents_max} agents", code="register.full")
            agents = [self._admit(one, ephemeral=request.ephemeral) for one in saved]
            for agent in agents:
                if not agent.ephemeral and not owner.origin:
                    self._state.save_registration(agent.saved.key, msgspec.to_builtins(agent.saved))
        await asyncio.gather(*(self._check(agent) for agent in agents))
        return agents

    def _saved(self, request: RegisterRequest, door: str, found: FoundAgent, owner: Owner) -> Saved:
        name = request.name or (str(request.card["name"]) if request.card and request.card.get("name") else found.name)
        if not is_name(name):
            raise UsageError(
                f"{name[:80]!r} can't be an agent's name",
                code="register.bad_name",
                why="names have 1 to 64 letters, digits, '-', '_' or inner dots",
                hint=f"agentmesh register {request.url} --name a-plain-name",
            )
        return Saved(
            name=name,
            url=request.url,
            door=door,
            target={**found.target, **({"least": owner.least} if owner.least != ANYWHERE else {})},
            description=request.description or found.description,
            version=found.version,
            skills=found.skills,
            input_modes=found.input_modes,
            output_modes=found.output_modes,
            params={
                **found.extra,
                **request.params,
                **({"tenant": owner.tenant} if owner.tenant else {}),
                **({"origin": owner.origin.partition("://")[0]} if owner.origin else {}),
            },
            unsigned=request.unsigned,
            card=request.card,
            tenant=owner.tenant,
            private=owner.private,
            origin=owner.origin,
        )

    def _refuse_taken(self, saved: Saved, *, displace: bool) -> None:
        """Raise StateError if calls meant for an agent of somebody else here would come to this one."""
        for other in self._agents.values():
            same_name = other.manifest.name.casefold() == saved.name.casefold()
            if not same_name or saved.private or other.saved.private:
                continue
            is_other = other.saved.url != saved.url if not saved.origin else other.saved.origin != saved.origin
            if other.saved.tenant != saved.tenant or (is_other and not displace):
                raise _taken(f"the name {saved.name!r}")

    def _admit(self, saved: Saved, *, ephemeral: bool) -> LocalAgent:
        """Make and publish the manifest of a registration and put the agent in the table."""
        key = None
        if saved.card is None:
            key = load_or_create_key(self._key_file(saved))
        manifest = self._manifest(saved, key)
        same = self.get(manifest.agent_id)
        if same is not None and same.saved.tenant != saved.tenant:
            raise _taken("the id of this agent")
        door = self._kit.open(saved.door, saved.target)
        limit = manifest.params.get("concurrency_limit")
        agent = LocalAgent(
            saved=saved,
            manifest=manifest,
            door=door,
            key=key,
            ephemeral=ephemeral,
            limit=limit if isinstance(limit, int) and 0 < limit <= 1_000_000 else self._config.agent_concurrency_max,
            renewed_s=time.monotonic(),
        )
        old = self.by_name(saved.name, saved.tenant)
        if old is not None:
            agent.active = 0
            self._agents.pop(AgentId(old.manifest.agent_id), None)
            if old.manifest.agent_id != manifest.agent_id:
                self._bury(old)
            self._scope.spawn(old.door.aclose(), "close-door")
        self._agents[AgentId(manifest.agent_id)] = agent
        if not saved.private:
            self._on_record(manifest)
        self._changed()
        return agent

    def _changed(self) -> None:
        for tell in self.on_change:
            tell()

    def _key_file(self, saved: Saved) -> Path:
        """Return where the key of an agent lies: whoever has a name elsewhere must not come by the key it has here."""
        name = saved.name.casefold()
        if saved.origin:
            return self._keys_dir / "bridges" / f"{sha256(f'{saved.origin} {name}'.encode()).hexdigest()[:40]}.key"
        return (self._keys_dir / "tenants" / saved.tenant if saved.tenant else self._keys_dir) / f"{name}.key"

    def _agreement_file(self, saved: Saved) -> Path | None:
        """Return where its agreement keys lie: none for what nobody signs, and for agents that another registry told of."""
        return None if saved.unsigned or saved.origin or saved.card else self._key_file(saved).with_suffix(".x25519")

    def agreement_keys(self, agent_id: str) -> dict[str, bytes]:
        """Return the private keys by kid to which mail for a local agent may be sealed (``identity.sealed.unseal``)."""
        agent = self.get(agent_id)
        path = self._agreement_file(agent.saved) if agent else None
        return self._agreements.secrets(path) if path else {}

    def _manifest(self, saved: Saved, key: KeyPair | None) -> Manifest:
        now = int(time.time())
        if saved.card is not None:
            manifest = read_record(
                msgspec.json.encode(saved.card), now=now, require_signed=self._config.require_signed_registration
            )
            if manifest.tombstone or manifest.node_id != self._node_id:
                raise SignatureError(
                    "the card names another node than this one",
                    code="register.wrong_node",
                    hint="put this node's id (agentmesh status) into the card's node_id and sign it again",
                )
            return manifest
        assert key is not None
        # Tenants are others: the organisation of this machine does not vouch for their agents.
        vouched = None if saved.tenant else self.vouch(key.did, self._config.manifest_life_s)
        card = build_card(
            agent_key_did=key.did,
            node_id=self._node_id,
            name=saved.name,
            description=saved.description,
            version=saved.version,
            skills=saved.skills,
            input_modes=saved.input_modes,
            output_modes=saved.output_modes,
            seq=self._state.next_seq(key.did, int(time.time() * 1000)),
            iat=now,
            exp=now + self._config.manifest_life_s,
            params=self._agreements.named(
                {**saved.params, **({"organisation": vouched} if vouched else {})},
                self._agreement_file(saved),
                self._config.manifest_life_s,
            ),
            streaming=True,
        )
        if not saved.unsigned:
            card = sign_card(key, card)
        return read_record(msgspec.json.encode(card), now=now, require_signed=not saved.unsigned)

    async def deregister(self, agent: LocalAgent, *, returns: bool = False) -> None:
        """Withdraw an agent: forget the registration and publish a signed tombstone. Running calls go on.

        Args:
            returns: It comes back with this node; then the key of one that another registry told of is kept.
        """
        async with self._lock:
            self._agents.pop(AgentId(agent.manifest.agent_id), None)
            if not agent.saved.origin:
                self._state.delete_registration(agent.saved.key)
            self._bury(agent)
            if path := self._agreement_file(agent.saved):
                self._agreements.forget(path)
            if agent.saved.origin and not returns:
                with suppress(OSError):  # a key for each entry that ever was could fill the disk
                    self._key_file(agent.saved).unlink()
            self._changed()
        await agent.door.aclose()

    def _bury(self, agent: LocalAgent) -> None:
        manifest = agent.manifest
        if agent.saved.private:
            return
        if agent.key is None or not manifest.signed:
            # An agent that keeps its own key signs its own tombstone; without one its lease simply ends.
            self._on_gone(AgentId(manifest.agent_id))
            return
        now = int(time.time())
        seq = self._state.next_seq(agent.key.did, int(time.time() * 1000))
        raw = sign_tombstone(
            agent.key, node_id=self._node_id, name=manifest.name, seq=seq, iat=now, exp=now + _TOMBSTONE_LIFE_S
        )
        self._on_record(read_record(raw, now=now, require_signed=True))

    def renew(self, agent_id: str) -> bool:
        """Note that an ephemeral agent lives; False if it is not registered."""
        agent = self.get(agent_id)
        if agent is None:
            return False
        agent.renewed_s = time.monotonic()
        if agent.health is None or agent.health.status != "healthy":
            self.check_soon(agent)
        return True

    def check_soon(self, agent: LocalAgent) -> None:
        """Check an agent's health now, in the background (a call just failed to reach it)."""
        if AgentId(agent.manifest.agent_id) not in self._checking:
            self._scope.spawn(self._check(agent), "check")

    async def _health_loop(self) -> None:
        interval_s = self._config.health_interval_s
        while True:
            await asyncio.sleep(interval_s / 5)
            now_s = time.monotonic()
            for agent in self.agents():
                healthy = agent.health is not None and agent.health.status == "healthy"
                if now_s - agent.checked_s >= (interval_s if healthy else interval_s / 5) - 0.001:
                    self.check_soon(agent)

    def resign(self, agent_id: str, seq_min: int = 0) -> None:
        """Sign an agent's manifest again, with a seq of at least ``seq_min``: it nears its end, or the mesh knows a later one."""
        agent = self.get(agent_id)
        if agent is None:
            return
        if agent.key is None:
            self.warnings.append(
                f"the card of agent {agent.manifest.name!r} must be renewed by the agent, which holds its own key"
            )
            return
        if seq_min:
            self._state.next_seq(agent_id, seq_min)
        agent.manifest = self._manifest(agent.saved, agent.key)
        if not agent.saved.private:
            self._on_record(agent.manifest)

    def resign_all(self) -> None:
        """Sign the manifests of all agents again whose keys are here: another organisation vouches for them."""
        for agent in self.agents():
            if agent.key is not None:
                self.resign(agent.manifest.agent_id)

    async def _check(self, agent: LocalAgent) -> None:
        agent_id = AgentId(agent.manifest.agent_id)
        self._checking.add(agent_id)
        try:
            async with self._gate:
                health = await agent.door.health()
        finally:
            self._checking.discard(agent_id)
        agent.checked_s = time.monotonic()
        if self._agents.get(agent_id) is not agent:
            return
        is_news = agent.health is None or agent.health.status != health.status
        agent.health = health
        if is_news:
            _log.info("agent %s is %s %s", agent.manifest.name, health.status, health.detail)
            self._changed()
        if not agent.saved.private:
            self._on_health(agent_id, health.status == "healthy")
        elif agent.key is not None and agent.manifest.exp - time.time() < self._config.manifest_life_s / 2:
            self.resign(agent_id)  # nobody else asks for it
        lapsed = agent.checked_s - agent.renewed_s > self._config.ephemeral_lease_s
        if agent.ephemeral and lapsed and health.status != "healthy":
            _log.info("agent %s went away, withdrawing it", agent.manifest.name)
            await self.deregister(agent)

    def require(self, ref: str, names: Sequence[str]) -> LocalAgent:
        """Return the local agent of that name or id.

        Raises:
            AgentNotFound: none here; near names among ``names``.
        """
        agent = self.get(ref) if ref.startswith("did:") else self.by_name(ref.partition("@")[0])
        if agent is None:
            raise AgentNotFound.near(ref, names)
        return agent

    async def withdraw_ephemeral(self) -> None:
        """Withdraw the agents that come again by themselves once a node is back: by their processes, or over a bridge."""
        for agent in self.agents():
            if agent.ephemeral or agent.saved.origin:
                await self.deregister(agent, returns=True)

    async def aclose(self) -> None:
        """Stop checking and free every door; registrations stay kept. Idempotent."""
        await self._scope.aclose()
        for agent in self.agents():
            await agent.door.aclose()
        await self._kit.aclose()


def _taken(what: str) -> StateError:
    return StateError(
        f"{what} is taken on this node",
        code="register.taken",
        why="an agent of somebody else has it",
        hint="register it under another name:   agentmesh register URL --name NAME",
    )
