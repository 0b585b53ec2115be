"""Shared state between whole nodes of one process: real links, stores and replicas."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from agentmesh.core.dht.machine import Dht
from agentmesh.core.state.placement import space_key
from agentmesh.core.state.types import siblings
from agentmesh.errors import Full, MeshError, NoRoute, StateError, UsageError
from agentmesh.net.tasks import TaskScope
from agentmesh.node.state.shared import SharedState
from agentmesh.wire.state_views import StateChange, StateView
from tests.unit.node.world import Member, until, world


def states(members: list[Member]) -> list[SharedState]:
    return [member.node.state for member in members]


def replica(member: Member) -> Any:
    spaces = member.node.state._spaces
    assert spaces is not None
    return spaces.replicas


async def shows(state: SharedState, key: str, wanted: Any, space: str = "team") -> StateView:
    """Wait until a node shows a value at level local."""
    async with aclosing(state.watch(space, key, initial=True)) as changes, asyncio.timeout(10):
        async for view in changes:
            if view.key == key and view.value == wanted:
                return view
    raise AssertionError("a watch ended")


async def together(members: list[Member]) -> None:
    """Let all nodes use the space and know its holders."""
    for member in members:
        await member.node.state.change("team", "start", StateChange(op="increment"))
    for member in members:
        await shows(member.node.state, "start", len(members))
    await until(lambda: all(replica(m).machine.spaces["team"].placement is not None for m in members))


async def _next(changes: AsyncGenerator[StateView, None]) -> StateView:
    return await anext(changes)


async def test_what_one_node_writes_the_others_read_watch_and_find_in_the_history(tmp_path: Path):
    async with world(tmp_path, 3) as members:
        a, b, c = states(members)
        await together(members)
        scope = TaskScope("test")
        async with aclosing(b.watch("team", "plan/", initial=False)) as changes:
            following = scope.spawn(_next(changes))
            await asyncio.sleep(0)
            view = await a.change("team", "plan/next", StateChange(value={"step": 1}))
            assert (view.exists, view.type, view.writer) == (True, "register", members[0].node.node_id)
            seen = await asyncio.wait_for(following, 5)
            assert (seen.key, seen.value) == ("plan/next", {"step": 1})
        await shows(c, "plan/next", {"step": 1})
        entries = (await c.history("team", "plan/next")).entries
        assert [(entry.op, entry.writer, entry.fate) for entry in entries] == [
            ("set", members[0].node.node_id, "stands")
        ]
        assert [view.key for view in (await c.keys("team", "plan/", 10)).keys] == ["plan/next"]
        (space,) = (await c.spaces()).spaces
        assert (space.space, space.keys, len(space.holders)) == ("team", 2, 3)


async def test_levels_give_what_they_promise_or_say_why_not(tmp_path: Path):
    async with world(tmp_path, 3) as members:
        a, b, _ = states(members)
        await together(members)
        written = await a.change("team", "n", StateChange(op="increment", by=5, level="quorum"))
        assert written.acked >= 2
        assert len(written.holders) == 3
        assert (await b.get("team", "n", level="quorum", token="")).value == 5
        assert (await b.get("team", "n", level="causal", token=written.token)).value == 5
        with pytest.raises(StateError) as refused:
            await a.change("team", "x", StateChange(value=1, level="linearizable"))
        assert refused.value.code == "state.no_engine"
        assert "--critical" in (refused.value.hint or "")
        for bad in ("?", written.token[:-4], "AAAA"):
            with pytest.raises(UsageError) as malformed:
                await b.get("team", "n", level="causal", token=bad)
            assert malformed.value.code == "state.token"
        with pytest.raises(UsageError):
            await b.change("team", "n", StateChange(op="increment", expect=3))


async def test_metrics_tell_what_is_held_and_how_operations_ended(tmp_path: Path):
    async with world(tmp_path, 1) as members:
        (a,) = states(members)
        await a.change("team", "x", StateChange(value=1))
        with pytest.raises(NoRoute):
            await a.get("team", "x", level="quorum", token="")
        values = (await members[0].node.measure()).values
        ended = values["agentmesh_state_operations_total"]
        assert (ended["local", "done"], ended["quorum", "refused"]) == (1, 1)
        assert values["agentmesh_state_keys"][()] == 1


async def test_a_node_alone_has_linearizable_keys_in_spaces_of_its_own(tmp_path: Path):
    async with world(tmp_path, 1) as members:
        (a,) = states(members)
        first = await a.change("local.work", "owner", StateChange(value="me", level="linearizable", expect=0))
        assert first.revision > 0
        with pytest.raises(StateError) as conflict:
            await a.change("local.work", "owner", StateChange(value="you", level="linearizable", expect=0))
        assert conflict.value.code == "state.conflict"
        many = [a.change("local.work", "n", StateChange(op="increment", level="linearizable")) for _ in range(20)]
        await asyncio.gather(*many)
        assert (await a.get("local.work", "n", level="linearizable", token="")).value == 20
        with pytest.raises(StateError) as mixed:
            await a.change("local.work", "owner", StateChange(value=1))
        assert mixed.value.code == "state.level"
        await a.change("local.work", "plain", StateChange(value=1))
        with pytest.raises(StateError) as mixed:
            await a.get("local.work", "plain", level="linearizable", token="")
        assert mixed.value.code == "state.level"


async def test_a_node_that_is_cut_off_goes_on_and_all_agree_after_the_heal(tmp_path: Path):
    async with world(tmp_path, 4) as members:
        await together(members)
        holders = replica(members[0]).machine.spaces["team"].holders
        cut = next(m for m in members if m.node.node_id in holders)
        rest = [m for m in members if m is not cut]
        seeds = [m.seed for m in rest]
        real = cut.node.links.connect

        async def no_route(contact: Any) -> Any:
            raise NoRoute("cut")

        for member in members:
            for other in members:
                if (member is cut) is not (other is cut):
                    member.node.links._refusal_of = _refuse(member, cut)
        cut.node.links.connect = no_route  # type: ignore[method-assign]
        for member in rest:
            cut.node.links.drop(member.node.node_id, "cut")
        await until(lambda: not replica(cut).machine.ground.up)
        await cut.node.state.change("team", "who", StateChange(value="alone"))
        await rest[0].node.state.change("team", "who", StateChange(value="together", level="quorum"))
        began = asyncio.get_running_loop().time()
        with pytest.raises(NoRoute) as refused:
            await cut.node.state.change("team", "who", StateChange(value="never", level="quorum"))
        assert refused.value.code == "state.no_quorum"
        assert asyncio.get_running_loop().time() - began < 2.5
        for member in members:
            member.node.links._refusal_of = lambda _: None
        cut.node.links.connect = real  # type: ignore[method-assign]
        await cut.node.add_seeds(seeds)
        for member in members:
            keys = replica(member).machine.spaces["team"].keys
            await until(lambda keys=keys: "who" in keys and len(siblings(keys["who"].cell)) == 2, 15)
        view = await cut.node.state.change("team", "who", StateChange(op="resolve", value="both"))
        assert view.siblings == []
        await shows(rest[0].node.state, "who", "both")


def _refuse(member: Member, cut: Member) -> Any:
    def refusal_of(did: str) -> MeshError | None:
        return NoRoute("cut") if member is cut or did == cut.node.node_id else None

    return refusal_of


async def test_everything_is_back_after_a_restart(tmp_path: Path):
    async with world(tmp_path, 3) as members:
        await together(members)
        await members[1].node.state.change("team", "kept", StateChange(value="x", level="quorum"))
    async with world(tmp_path, 3) as members:
        view = await members[1].node.state.get("team", "kept", level="local", token="")
        assert view.value == "x"
        await members[1].node.state.change("team", "kept", StateChange(value="y", level="quorum"))
        await shows(members[2].node.state, "kept", "y")
        assert (await members[2].node.state.history("team", "kept")).entries[-1].value == "x"


async def test_a_slow_watcher_sees_the_latest_only(tmp_path: Path):
    async with world(tmp_path, 1) as members:
        (a,) = states(members)
        scope = TaskScope("test")
        async with aclosing(a.watch("team", "", initial=True)) as changes:
            following = scope.spawn(_next(changes))
            await asyncio.sleep(0)
            for number in range(500):
                await a.change("team", f"k{number % 2}", StateChange(value=number))
            first = await asyncio.wait_for(following, 5)
            second = await asyncio.wait_for(anext(changes), 5)
            assert {first.key: first.value, second.key: second.value} == {"k0": 498, "k1": 499}


async def test_a_full_disk_is_an_error_and_the_write_is_neither_shown_nor_sent(tmp_path: Path):
    async with world(tmp_path, 2) as members:
        a, b = states(members)
        await together(members)
        store = replica(members[0])._store
        keep, failing = store.keep, True

        def full(rows: Any) -> None:
            if failing:
                raise Full("no space left")
            keep(rows)

        store.keep = full
        with pytest.raises(Full):
            await a.change("team", "a", StateChange(value=1))
        assert not (await a.get("team", "a", level="local", token="")).exists
        failing = False
        await a.change("team", "a", StateChange(value=2))
        await shows(b, "a", 2)
        assert (await a.get("team", "start", level="local", token="")).value == 2


async def test_a_node_that_never_shares_anything_loads_and_writes_nothing_of_it(tmp_path: Path):
    async with world(tmp_path, 1) as members:
        assert members[0].node.state._spaces is None
        assert not (tmp_path / "n0" / "spaces.sqlite").exists()
        script = (
            "import sys, agentmesh.node.node; print([m for m in sys.modules if 'core.state' in m or 'wire.state' == m])"
        )
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
        printed, _ = await process.communicate()
        loaded = eval(printed)
        assert loaded == []


async def test_in_a_mesh_that_is_not_known_whole_the_dht_says_who_holds_a_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(Dht, "size_estimate", lambda _: 500)
    async with world(tmp_path, 4) as members:
        (a, *_) = states(members)
        first = await a.change("team", "x", StateChange(value=1))
        assert first.exists
        await until(lambda: replica(members[0]).machine.spaces["team"].placement is not None, 15)
        holders = replica(members[0]).machine.spaces["team"].holders
        assert len(holders) == 3
        key = space_key("team")
        await until(lambda: any(m.node.mesh.brain.dht.held(key) for m in members), 15)
        outside = next(m for m in members if m.node.node_id not in holders)
        found = await outside.node.mesh.providers(key)
        assert found
        assert not found.keys() - {*holders}
        await outside.node.state.get("team", "x", level="local", token="")
        await shows(outside.node.state, "x", 1)
        assert replica(outside).machine.spaces["team"].holders == holders
