"""Calls that leave: own policy keeps them in, for whom it says, and says so (docs/reference/policy.md §3)."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmesh.errors import ConfigError, Unauthorized, UsageError
from agentmesh.node.policy import policy as module
from agentmesh.node.policy.files import Source
from agentmesh.node.policy.lists import read_lists
from agentmesh.store.audit_read import select
from tests.unit.node.test_policy_calls import write
from tests.unit.node.test_two_nodes import ask, echo, knows
from tests.unit.node.world import Member, until, world


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.0)


def id_of(member: Member, name: str) -> str:
    return next(v.agent_id for v in member.node.agents() if v.name == name)


async def refused(member: Member, to: str, **more: object) -> Unauthorized:
    with pytest.raises(Unauthorized) as error:
        await ask(member, to, **more)
    assert error.value.code == "policy.out"
    return error.value


@pytest.mark.parametrize("by", ["agent", "node", "organisation", "tag", "claimed"])
async def test_nobody_here_calls_whom_the_list_names_however_it_names_it(tmp_path: Path, by: str) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("casino", echo)
        await a.serve("planner", echo)
        await until(lambda: knows(a, "casino"))
        assert await ask(a, "casino") == "hi"
        who = {
            "agent": id_of(a, "casino"),
            "node": b.node.node_id,
            "organisation": "organisation:rival",
            "tag": "tag:gambling",
            "claimed": "tag:test",  # what its own card says counts against it
        }[by]
        groups = f'[organisations.rival]\nkeys = ["{b.node.node_id}"]\n[tags.gambling]\nkeys = ["{b.node.node_id}"]\n'
        write(
            tmp_path, "n0", "lists.toml", f'{groups}[out]\ndeny = [{{ who = "{who}", why = "not with our money" }}]\n'
        )
        assert (await refused(a, "casino")).why == "not with our money"
        await refused(a, "casino", from_agent="planner")
        assert len(agent.calls) == 1
        view = await a.node.explain_policy("planner", "casino", "", "")
        assert (view.allowed, view.ground, view.rule, view.code) == (False, "out", who, "policy.out")
        assert view.source.startswith("lists.toml:")
        assert [one.who for one in (await a.node.policy_view()).out_deny] == [who]
        records = [r.data for r in select(a.node.audit.log.directory) if r.data["decision"] == "refused"]
        assert [(r["action"], r["code"]) for r in records] == [("call.out", "policy.out")] * 2


async def test_a_confined_agent_calls_only_agents_of_its_own_node(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("far", echo)
        await a.serve("near", echo)
        await a.serve("clerk", echo)
        await a.serve("planner", echo)
        await until(lambda: knows(a, "far"))
        write(tmp_path, "n0", "lists.toml", f'[out]\nconfined = ["{id_of(a, "clerk")}"]\n')
        await refused(a, "far", from_agent="clerk")
        assert await ask(a, "near", from_agent="clerk") == "hi"
        assert await ask(a, "far", from_agent="planner") == "hi"
        assert await ask(a, "far") == "hi"
        assert [one.who for one in (await a.node.policy_view()).out_confined] == [id_of(a, "clerk")]
        write(tmp_path, "n0", "lists.toml", f'[out]\nconfined = ["{a.node.node_id}"]\n')
        await refused(a, "far", from_agent="planner")
        await refused(a, "far")


async def test_a_replica_that_is_not_named_is_called_in_place_of_one_that_is(tmp_path: Path) -> None:
    async with world(tmp_path, 3) as (a, b, c):
        bad, good = await b.serve("echo", echo), await c.serve("echo", echo)
        await until(lambda: knows(a, "echo", 2))
        write(tmp_path, "n0", "lists.toml", f'[out]\ndeny = ["{b.node.node_id}"]\n')
        for _ in range(4):
            assert await ask(a, "echo") == "hi"
        assert (len(bad.calls), len(good.calls)) == (0, 4)


async def test_explain_answers_for_elsewhere_only_if_something_here_keeps_the_call_in(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("far", echo)
        await until(lambda: knows(a, "far"))
        write(tmp_path, "n0", "lists.toml", '[out]\ndeny = ["tag:gambling"]\n')
        with pytest.raises(UsageError) as error:
            await a.node.explain_policy("@", "far", "", "")
        assert error.value.code == "policy.elsewhere"
        assert "nothing here keeps the call from leaving" in str(error.value.why)


async def test_while_the_files_make_no_sense_agents_call_nobody_elsewhere(tmp_path: Path) -> None:
    write_home = tmp_path / "n0"
    write_home.mkdir()
    write(tmp_path, "n0", "lists.toml", "[out\n")
    async with world(tmp_path, 2) as (a, b):
        await b.serve("far", echo)
        await a.serve("planner", echo)
        await until(lambda: knows(a, "far"))
        await refused(a, "far", from_agent="planner")
        assert await ask(a, "far") == "hi", "the person at the node may"


@pytest.mark.parametrize(
    "text",
    ['[out]\nallow = ["tag:x"]', '[out]\ndeny = ["organisation:nobody"]', '[out]\nconfined = ["organisation:own"]'],
)
def test_what_cannot_be_meant_is_an_error_with_its_line(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_lists(Source("lists.toml", text))
    assert "lists.toml" in str(error.value)
