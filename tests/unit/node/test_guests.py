"""Agents that another registry told of: beside this node like its own, and yet never in the way of these."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentmesh.errors import ReadOnly, StateError
from agentmesh.node.door import Happening, Invocation
from agentmesh.wire.views import CallRequest, RegisterRequest
from tests.unit.node.world import Member, ScriptedAgent, until, world

LOOPBACK = 0
ORIGIN = "etcd://127.0.0.1:2379/agents/a"


async def play(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("message", {"role": "agent", "parts": [{"text": f"{call.agent_name} heard"}]})
    yield Happening("status", {"state": "completed"})


def guest(member: Member, name: str, at: str = "") -> str:
    """Put an agent behind a URL without registering it."""
    at = at or name
    member.kit.agents[at] = ScriptedAgent(name, play)
    return f"http://{at}/"


async def test_a_guest_is_called_like_any_other_and_shows_where_it_came_from(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as members:
        near, far = members
        [agent_id] = await near.node.take_in(RegisterRequest(url=guest(near, "calc")), ORIGIN, LOOPBACK)
        view = near.node.agent(agent_id).agent
        assert (view.origin, view.trust, view.status) == (ORIGIN, "signed", "healthy")
        await until(lambda: any(a.name == "calc" for a in far.node.agents()))
        assert far.node.agent("calc").agent.origin == "etcd", "others learn the kind, not the address"
        call = await far.node.call(CallRequest(to="calc", text="1+1"))
        assert (await call.reply()).text == "calc heard"
        await near.node.let_go(ORIGIN)
        await until(lambda: not far.node.agents())


async def test_a_guest_is_not_kept_over_a_restart_and_no_other_agents_key_is_its(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as members:
        near = members[0]
        [guest_id] = await near.node.take_in(RegisterRequest(url=guest(near, "calc")), ORIGIN, LOOPBACK)
        assert near.node._state.registrations() == {}
        again = await near.node.take_in(RegisterRequest(url=guest(near, "calc")), ORIGIN, LOOPBACK)
        assert again == [guest_id], "the same entry is the same agent"
        await near.node.let_go(ORIGIN)
        [other_id] = await near.node.take_in(RegisterRequest(url=guest(near, "calc")), ORIGIN + "2", LOOPBACK)
        [own] = await near.node.register(RegisterRequest(url=guest(near, "calc", "mine")))
        assert len({guest_id, other_id, own.agent_id}) == 3


async def test_a_guest_never_takes_the_name_of_another_agent_and_gives_way_to_an_own_one(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as members:
        near = members[0]
        await near.node.register(RegisterRequest(url=guest(near, "calc", "mine")))
        with pytest.raises(StateError) as caught:
            await near.node.take_in(RegisterRequest(url=guest(near, "CALC", "theirs")), ORIGIN, LOOPBACK)
        assert caught.value.code == "register.taken"
        await near.node.take_in(RegisterRequest(url=guest(near, "echo", "first")), ORIGIN, LOOPBACK)
        with pytest.raises(StateError):
            await near.node.take_in(RegisterRequest(url=guest(near, "echo", "second")), ORIGIN + "2", LOOPBACK)
        changes: list[int] = []
        near.node.registry.on_change.append(lambda: changes.append(1))
        await near.node.register(RegisterRequest(url=guest(near, "echo", "third")))
        assert [(a.name, a.origin) for a in near.node.agents()] == [("calc", ""), ("echo", "")]
        assert changes, "its bridge hears of it"


async def test_calls_of_a_name_go_to_the_mesh_before_they_go_to_a_guest(tmp_path: Path) -> None:
    """Who can write to the registry must not take over the name of an agent elsewhere in the mesh."""
    async with world(tmp_path, 2) as members:
        near, far = members
        real = await far.serve("calc", play)
        await until(lambda: near.node.agents())
        await near.node.take_in(RegisterRequest(url=guest(near, "calc")), ORIGIN, LOOPBACK)
        for _ in range(5):
            call = await near.node.call(CallRequest(to="calc", text="1+1"))
            await call.reply()
        assert len(real.calls) == 5
        assert not near.kit.agents["calc"].calls


async def test_a_guest_is_trusted_like_a_stranger_and_earns_it(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as members:
        near = members[0]
        [own] = await near.node.register(RegisterRequest(url=guest(near, "own")))
        [agent_id] = await near.node.take_in(RegisterRequest(url=guest(near, "calc")), ORIGIN, LOOPBACK)
        assert (own.trust_tier, near.node.agent("calc").agent.trust_tier) == ("own", "unknown")
        before = near.node.trust_in(agent_id).score
        assert before < 1.0
        assert (await near.node.report_abuse("calc", "it lies")).score < before


async def test_the_key_of_a_guest_goes_with_its_entry_and_stays_over_a_restart(tmp_path: Path) -> None:
    """Whoever writes to the registry could fill the disk otherwise."""
    async with world(tmp_path, 1) as members:
        near = members[0]
        for number in range(5):
            await near.node.take_in(RegisterRequest(url=guest(near, "calc")), f"{ORIGIN}{number}", LOOPBACK)
            await near.node.let_go(f"{ORIGIN}{number}")
        keys = tmp_path / "n0" / "keys" / "bridges"
        assert list(keys.iterdir()) == []
        await near.node.take_in(RegisterRequest(url=guest(near, "calc")), ORIGIN, LOOPBACK)
        await near.node.registry.withdraw_ephemeral()
        assert len(list(keys.iterdir())) == 1


async def test_the_kill_switch_lets_guests_go_but_takes_none_in(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as members:
        near = members[0]
        await near.node.take_in(RegisterRequest(url=guest(near, "calc")), ORIGIN, LOOPBACK)
        near.node.switch.damage = "cannot be read"
        with pytest.raises(ReadOnly):
            await near.node.take_in(RegisterRequest(url=guest(near, "echo")), ORIGIN + "2", LOOPBACK)
        await near.node.let_go(ORIGIN)
        assert near.node.agents() == []
