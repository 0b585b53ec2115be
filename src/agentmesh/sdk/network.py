"""``AgentNetwork``: the whole surface of RQ3 ("API design") on one class, for programs that want few words.

    async with AgentNetwork() as network:
        await network.join_network(["did:key:…@192.0.2.7:6374"])
        await network.register_agent("planner", ["plan", "review"])
        await network.send_message(AgentMessage(to_agent="worker", payload="start"))

Everything is done by ``Mesh``, which offers more; ``network.mesh`` is one.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from os import PathLike, fspath
from types import TracebackType
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from agentmesh.errors import MeshError, NoRoute, StateError, Timeout
from agentmesh.sdk.client import Mesh
from agentmesh.sdk.message_requests import SendOptions
from agentmesh.sdk.messaging import Inbox
from agentmesh.sdk.types import AgentView, StatusView
from agentmesh.wire.message_views import MessageKind, PriorityName, SentView
from agentmesh.wire.state_views import LevelName

#: Space of ``sync_state``; ``state_id`` is a key in it.
STATE_SPACE = "network"
START_TIMEOUT_S = 60.0
_SAID_BYTES_MAX = 2000


class AgentMessage(msgspec.Struct, kw_only=True):
    """A message (RQ3 "message structure").

    Attributes:
        to_agent: Name or id; None = all agents of the mesh.
        payload: Text, bytes, or what JSON can hold.
        from_agent: Agent of this node in whose name it is sent; "" = the one that this network registered, or the node.
        message_type: RQ3's MessageType.
        priority: RQ3's MessagePriority.
        ttl_s: Given up after so long; None = a day.
        message_id: UUID by which a repeated message is known; "" = a new one.
    """

    payload: Any = ""
    to_agent: str | None = None
    from_agent: str = ""
    message_type: MessageKind = "command"
    priority: PriorityName = "normal"
    ttl_s: float | None = None
    message_id: str = ""


class DistributedState(msgspec.Struct, kw_only=True):
    """A value that agents share (RQ3 "distributed state").

    Attributes:
        state_id: Key in the space "network".
        data: What JSON can hold; UNSET (the default) = only read.
        agent_id: Who wrote it last: node id; given: in whose name it is written.
        version: How many writes it has seen.
        vector_clock: Node id (short form) → how many of its writes.
        replicas: Node ids that hold it.
        consistency_level: RQ3's ConsistencyLevel: what must be true before the answer.
        conflicts: Values that were written at the same time, newest first; empty when there is one.
    """

    state_id: str
    data: Any = msgspec.UNSET
    agent_id: str = ""
    version: int = 0
    vector_clock: dict[str, int] = {}
    replicas: list[str] = []
    consistency_level: LevelName = "local"
    conflicts: list[Any] = []


class AgentNetwork:
    """Join the mesh, send and receive, share state, leave (RQ3 ``AgentNetworkManager``).

    Args:
        home: Home directory of the node; default ``$AGENTMESH_HOME``, else the platform's.
    """

    def __init__(self, home: str | PathLike[str] | None = None) -> None:
        self._home = None if home is None else fspath(home)
        self.mesh = Mesh(home=self._home)
        self._registered: list[AgentView] = []
        self._started = self._left = False

    async def __aenter__(self) -> AgentNetwork:
        """Return self; ``join_network`` joins."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave."""
        await self.leave_network()

    async def join_network(self, bootstrap_nodes: Sequence[str] = ()) -> StatusView:
        """Use the node beside this program, starting it if none runs, and connect it to others (RQ3 ``join_network``).

        Args:
            bootstrap_nodes: ``did:key:…@host:port`` each, as 'agentmesh status' shows them; on one LAN none is needed.

        Raises:
            ConfigError, UsageError: a bootstrap node cannot be read. None was added.
            StateError, Timeout: the node could not be started.
        """
        self._check()
        try:
            await self.mesh.status()
        except NoRoute:
            await self._start()
        if bootstrap_nodes:
            await self.mesh.add_seeds(list(bootstrap_nodes))
        return await self.mesh.status()

    async def register_agent(self, agent_id: str, capabilities: Sequence[str] = ()) -> AgentView:
        """Register an agent that sends and receives messages (RQ3 ``register_agent``).

        Args:
            agent_id: Its name; the node makes its key, and the id follows from that.
            capabilities: What others find it by.

        Raises:
            UsageError: the name or a capability makes no sense. StoreError. Nothing was registered.
        """
        self._check()
        query = urlencode([("skill", one) for one in capabilities], quote_via=quote)
        url = f"mailbox:{quote(agent_id, safe='')}" + (f"?{query}" if query else "")
        (view,) = await self.mesh.register(url, name=agent_id)
        self._registered.append(view)
        return view

    async def send_message(self, message: AgentMessage) -> SentView:
        """Send a message; it is kept until it is delivered or its time is over (RQ3 ``send_message``).

        Raises:
            As ``Mesh.send``.
        """
        self._check()
        options: SendOptions = {
            "sender": message.from_agent or self._me(),
            "kind": message.message_type,
            "priority": message.priority,
            "ttl_s": message.ttl_s,
            "message_id": message.message_id,
        }
        text = message.payload if isinstance(message.payload, str | bytes) else None
        if text is None:
            options["data"] = message.payload
        return await self.mesh.send("*" if message.to_agent is None else message.to_agent, text, **options)

    async def broadcast_message(self, payload: Any) -> SentView:
        """Send a message to all agents of the mesh (RQ3 ``broadcast_message``). Raises as ``send_message``."""
        return await self.send_message(AgentMessage(payload=payload, message_type="broadcast"))

    def messages(self, agent: str = "", *, wait_s: float | None = None) -> Inbox:
        """Return what comes for an agent, to be iterated; for the one that this network registered if none is named."""
        self._check()
        return self.mesh.inbox(agent or self._me(), wait_s=wait_s)

    async def sync_state(self, state: DistributedState) -> DistributedState:
        """Write a shared value and return it as it is then, or only read it (RQ3 ``sync_state``).

        Values written at the same time elsewhere are in ``conflicts``; writing again settles them.

        Raises:
            NoRoute: the level cannot be given now. StateError: nor ever, here. Timeout: it may or may not have been written.
        """
        self._check()
        level = state.consistency_level
        space = self.mesh.state(STATE_SPACE, level=level, agent=state.agent_id or self._me())
        if state.data is msgspec.UNSET:
            view = await space.read(state.state_id)
        else:
            view = await space.set(state.state_id, state.data, level=level)
        return DistributedState(
            state_id=view.key,
            data=view.value if view.exists else msgspec.UNSET,
            agent_id=view.writer,
            version=view.revision or sum(view.version.values()),
            vector_clock=view.version,
            replicas=view.holders,
            consistency_level=view.level,
            conflicts=[one.value for one in view.siblings],
        )

    async def leave_network(self) -> None:
        """Withdraw what was registered, and stop the node if this network started it (RQ3 ``leave_network``). Idempotent."""
        if self._left:
            return
        self._left = True
        try:
            for agent in self._registered:
                await self.mesh.deregister(agent.agent_id)
            if self._started:
                await self.mesh.shutdown()
        except MeshError:
            return  # the node has gone already, and with it all that was to be undone
        finally:
            await self.mesh.aclose()

    def _me(self) -> str:
        return self._registered[0].agent_id if self._registered else ""

    def _check(self) -> None:
        if self._left:
            raise StateError("this network was left", code="state.closed", hint="make another AgentNetwork")

    async def _start(self) -> None:
        """Start the node as 'agentmesh up' does. Raises StateError, Timeout."""
        home = ["--home", self._home] if self._home else []
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "agentmesh.cli.main", *home, "up", "--json"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                _, said = await process.communicate()
        except TimeoutError as error:
            process.kill()
            raise Timeout("the node did not start in time", code="daemon.start", hint="agentmesh doctor") from error
        if process.returncode:
            why = said[-_SAID_BYTES_MAX:].decode("utf-8", "replace").strip()
            raise StateError("the node could not be started", code="daemon.start", why=why, hint="agentmesh up")
        self._started = True
