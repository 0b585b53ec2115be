"""RQ3's surface on one class, with nodes that it starts itself: join, register, send, broadcast, share, leave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentmesh import AgentMessage, AgentNetwork, DistributedState
from agentmesh.daemon import launch
from agentmesh.daemon.home import Home
from agentmesh.daemon.lock import running
from agentmesh.errors import AgentNotFound, StateError

pytestmark = pytest.mark.e2e

#: What a test must not do: fixed ports, multicast.
SETTINGS = {"PORT": "0", "LISTEN": "127.0.0.1:0", "LISTEN_UDP": "127.0.0.1:0", "MDNS": "false"}


@contextlib.asynccontextmanager
async def network(home: Path) -> AsyncIterator[AgentNetwork]:
    """Give a network whose node is gone afterwards, whatever happens."""
    try:
        async with AgentNetwork(home) as one:
            yield one
    finally:
        await asyncio.to_thread(launch.stop, Home(home), grace_s=5)


async def eventually(ask: Any, wanted: Any) -> Any:
    """Ask until the answer is as wanted; errors of agents that are not known yet count as other answers."""
    async with asyncio.timeout(30):
        while True:
            with contextlib.suppress(AgentNotFound):
                answer = await ask()
                if wanted(answer):
                    return answer
            await asyncio.sleep(0.05)


async def test_two_networks_join_talk_share_and_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SETTINGS.items():
        monkeypatch.setenv(f"AGENTMESH_{name}", value)
    async with network(tmp_path / "a") as a, network(tmp_path / "b") as b:
        seed = (await a.join_network()).seed
        assert seed
        assert (await b.join_network([seed])).node_id
        amy = await a.register_agent("amy", ["plan", "review"])
        bob = await b.register_agent("bob", ["code"])
        detail = await eventually(lambda: b.mesh.agent("amy"), lambda detail: detail.agent.agent_id == amy.agent_id)
        assert {"plan", "review"} <= {skill.id for skill in detail.agent.skills}
        question = AgentMessage(to_agent="bob", payload={"step": 1}, message_type="query", priority="high", ttl_s=60)
        sent = await eventually(lambda: a.send_message(question), lambda view: view.message_id)
        async for message in b.messages(wait_s=20):
            assert (message.id, message.data, message.kind) == (sent.message_id, {"step": 1}, "query")
            assert (message.sender, message.view.encrypted) == (amy.agent_id, True)
            await b.mesh.reply(message, "done")
            break
        async for message in a.messages(wait_s=20):
            assert (message.text, message.kind, message.sender) == ("done", "response", bob.agent_id)
            break
        await b.broadcast_message("all hands")
        async for message in a.messages(wait_s=20):
            assert (message.text, message.kind, message.view.scope) == ("all hands", "broadcast", "*")
            break
        written = await a.sync_state(DistributedState(state_id="plan", data={"by": "amy"}))
        assert (written.version, written.data) == (1, {"by": "amy"})
        read = await eventually(
            lambda: b.sync_state(DistributedState(state_id="plan")), lambda state: state.data == {"by": "amy"}
        )
        assert read.vector_clock == written.vector_clock
        await b.leave_network()
        assert running(Home(tmp_path / "b")) is None or await gone(tmp_path / "b")
        with pytest.raises(StateError):
            await b.broadcast_message("too late")


async def gone(home: Path) -> bool:
    """Wait until a node that was told to stop has stopped."""
    async with asyncio.timeout(30):
        while running(Home(home)) is not None:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.05)
    return True
