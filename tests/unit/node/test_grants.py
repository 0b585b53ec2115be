"""Calls that carry grants, between whole nodes (docs/spec/tokens.md §7.5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import MeshError, Unauthorized
from agentmesh.identity.claims import hash_of
from agentmesh.identity.grant import scope_of
from agentmesh.identity.receipt import read_receipt
from agentmesh.ids import AgentId
from agentmesh.wire.proof_views import GrantRequest, GrantView
from agentmesh.wire.views import CallRequest
from tests.unit.node.test_receipts import kept, proven
from tests.unit.node.test_two_nodes import echo, knows
from tests.unit.node.world import Member, until, world


def id_of(member: Member, name: str) -> AgentId:
    agent = member.node.registry.by_name(name)
    assert agent is not None
    return AgentId(agent.manifest.agent_id)


async def granted(at: Member, to: str, audience: str, **over: Any) -> GrantView:
    return await at.node.grant(GrantRequest(**{"to": to, "audience": [audience], "scopes": ["call.*"], **over}))


async def ask(caller: Member, chain: list[str], **over: Any) -> Any:
    call = await caller.node.call(CallRequest(**{"to": "echo", "text": "hello", "grants": chain, **over}))
    return await call.reply()


async def test_a_call_with_a_grant_is_served_and_its_receipt_names_the_grant(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await a.serve("planner", echo)
        await until(lambda: knows(a, "echo") and knows(b, "planner"))
        made = await granted(b, "planner", "echo", principal="finance")
        reply = await ask(a, made.chain, from_agent="planner")
        assert reply.text == "hello"
        assert read_receipt(reply.receipt).claims.grant == hash_of(made.chain[-1])
        assert (made.root, made.holder, made.principal) == (b.node.node_id, id_of(a, "planner"), "finance")


async def test_what_a_grant_does_not_allow_is_refused_before_work(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("echo", echo)
        await b.serve("other", echo)
        await a.serve("planner", echo)
        await until(lambda: knows(a, "echo") and knows(a, "other") and knows(b, "planner"))
        good = (await granted(b, "planner", "echo")).chain
        cases: list[tuple[str, list[str], dict[str, Any]]] = [
            ("grant.holder", good, {}),  # the person at a, not planner
            ("grant.audience", (await granted(b, "planner", "other")).chain, {"from_agent": "planner"}),
            ("grant.root", (await granted(a, "planner", "echo")).chain, {"from_agent": "planner"}),
            (
                "grant.scope",
                (await granted(b, "planner", "echo", scopes=["call.sum"])).chain,
                {"from_agent": "planner"},
            ),
            (
                "grant.scope",
                (await granted(b, "planner", "echo", scopes=["call.sum"])).chain,
                {"from_agent": "planner", "skill": "s"},
            ),
            ("grant.budget", (await granted(b, "planner", "echo", max={"tokens": 5})).chain, {"from_agent": "planner"}),
            ("signature.invalid", [f"{good[0][:-4]}AAAA"], {"from_agent": "planner"}),
        ]
        for code, chain, over in cases:
            with pytest.raises(MeshError) as error:
                await ask(a, chain, **over)
            assert error.value.code == code, code
        assert agent.calls == []
        assert {proven(one).claims.outcome for one in kept(a)} == {"rejected"}


async def test_a_grant_is_passed_on_narrower_and_never_wider(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await a.serve("planner", echo)
        await a.serve("worker", echo)
        await until(lambda: knows(a, "echo") and knows(b, "planner") and knows(b, "worker"))
        first = await granted(b, "planner", "echo", max_subtree={"calls": 10}, depth_max=1, life_s=100)
        second = await granted(
            a, "worker", "echo", maker="planner", parents=first.chain, scopes=["call.s"], life_s=9_000
        )
        assert second.limits == {"calls.max_subtree": 10}, "bounds of the parent are repeated"
        assert second.exp <= first.exp
        assert (await ask(a, second.chain, from_agent="worker", skill="s")).text == "hello"
        for wider in (
            {"scopes": ["crm.*"]},
            {"max_subtree": {"calls": 11}},
            {"audience": ["echo", "planner"]},
            {"depth_max": 5},
            {"principal": "somebody-else"},
        ):
            with pytest.raises(Unauthorized) as error:
                await a.node.grant(
                    GrantRequest(
                        **{
                            "to": "worker",
                            "audience": ["echo"],
                            "scopes": ["call.s"],
                            "maker": "planner",
                            "parents": first.chain,
                            **wider,
                        }  # type: ignore[arg-type]
                    )
                )
            assert error.value.code in ("grant.widened", "grant.broken", "grant.depth")
        with pytest.raises(Unauthorized, match="broken"):
            await granted(a, "worker", "echo", parents=first.chain)  # not by its holder
        with pytest.raises(Unauthorized, match="depth"):
            await granted(a, "planner", "echo", maker="worker", parents=second.chain, scopes=["call.s"])


@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({"scopes": ["call.*", "no scope at all"]}, "grant.malformed"),
        ({"life_s": 0}, "grant.life"),
        ({"life_s": 90_000}, "grant.life"),
        ({"max": {"tokens": -1}}, "token.budget"),
        ({"max": {"tokens": 10**30}}, "token.budget"),
        ({"max": {"hope": 1}}, "token.budget_key"),
        ({"depth_max": 9}, "claims.malformed"),
        ({"to": "nobody"}, "not_found.agent"),
        ({"to": "did:key:zzz"}, ""),
        ({"audience": []}, "grant.malformed"),
        ({"maker": "stranger"}, "not_found.agent"),
        ({"parents": ["x.y.z"]}, ""),
        ({"parents": ["x"] * 8}, "grant.chain"),
    ],
)
async def test_nothing_is_granted_that_would_be_refused_elsewhere(
    tmp_path: Path, over: dict[str, Any], code: str
) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        with pytest.raises(MeshError) as error:
            await a.node.grant(GrantRequest(**{"to": "echo", "audience": ["echo"], "scopes": ["call.*"], **over}))  # type: ignore[arg-type]
        assert not code or error.value.code == code


def test_the_scope_of_a_call_names_its_skill() -> None:
    assert [scope_of(skill) for skill in (None, "", "sum", "sum.all", "Sum", "any thing", "*", "a.*")] == [
        "call.*", "call.*", "call.sum", "call.sum.all", "call:Sum", "call:any thing", "call:*", "call:a.*",
    ]  # fmt: skip
