"""Policy at whole nodes: calls that are refused, what the caller hears, and what the operator sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentmesh.errors import AgentNotFound, TrustTooLow, Unauthorized, UsageError
from agentmesh.identity.receipt import read_receipt
from agentmesh.node.door import Happening, Invocation
from agentmesh.node.policy import policy as module
from agentmesh.wire.proof_views import GrantRequest
from agentmesh.wire.views import CallRequest
from tests.unit.node.test_two_nodes import DONE, ask, echo, knows
from tests.unit.node.world import Member, until, world


@pytest.fixture(autouse=True)
def _look_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_AGAIN_S", 0.0)


def write(tmp_path: Path, node: str, name: str, text: str) -> None:
    directory = tmp_path / node / "policies"
    directory.mkdir(exist_ok=True, mode=0o700)
    (directory / name).write_text(text)
    (directory / name).chmod(0o600)


async def test_a_stranger_is_refused_before_work_and_is_told_the_reason_but_not_the_rules(tmp_path: Path) -> None:
    async with world(tmp_path, 2, policy="auto") as (a, b):
        agent = await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        assert await ask(a, "echo") == "hi"
        assert any("no policy" in warning for warning in b.node.status().warnings)
        who = f'{{who = "{a.node.node_id}", why = "you flooded us"}}'
        write(tmp_path, "n1", "lists.toml", f'deny = [{who}, "tag:secret-project"]')
        with pytest.raises(Unauthorized) as error:
            await ask(a, "echo")
        assert (error.value.code, error.value.why) == ("policy.denied", "you flooded us")
        told = f"{error.value} {error.value.why} {error.value.hint} {error.value.extra}"
        assert "secret-project" not in told
        assert "lists.toml" not in told
        assert len(agent.calls) == 1
        receipts = await a.node.receipts("last")
        assert read_receipt(receipts[0].receipt).claims.problem == "/problems/unauthorized"
        assert not any("no policy" in warning for warning in b.node.status().warnings)
        assert await ask(b, "echo") == "hi", "the person at the node itself may call"


async def test_a_closed_node_says_no_to_strangers_and_a_policy_lets_one_skill_through(tmp_path: Path) -> None:
    async with world(tmp_path, 2, policy="closed") as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        with pytest.raises(Unauthorized) as error:
            await ask(a, "echo", skill="s")
        assert error.value.why == "the policy of its node does not let you call it"
        permit = f'permit(principal in Node::"{a.node.node_id}", action, resource) when {{ context.skill == "s" }};'
        write(tmp_path, "n1", "friends.cedar", permit)
        assert await ask(a, "echo", skill="s") == "hi"
        with pytest.raises(Unauthorized):
            await ask(a, "echo")


async def test_a_grey_caller_without_trust_is_told_that_trust_is_what_it_lacks(tmp_path: Path) -> None:
    async with world(tmp_path, 2, policy="auto") as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        write(tmp_path, "n1", "lists.toml", f'grey = ["{a.node.node_id}"]\ngrey_trust_min = 0.3')
        with pytest.raises(TrustTooLow) as error:
            await ask(a, "echo")
        assert error.value.code == "trust.low"
        write(tmp_path, "n1", "lists.toml", f'grey = ["{a.node.node_id}"]\ngrey_trust_min = 0.05')
        assert await ask(a, "echo") == "hi", "the score of a newcomer, as the node's own trust gives it"


async def test_an_agent_of_another_node_is_known_by_its_own_key(tmp_path: Path) -> None:
    async with world(tmp_path, 2, policy="auto") as (a, b):
        await b.serve("echo", echo)
        await a.serve("friend", echo)
        await a.serve("foe", echo)
        await until(lambda: knows(a, "echo") and knows(b, "friend") and knows(b, "foe"))
        friend = b.node.agent("friend").agent.agent_id
        write(tmp_path, "n1", "lists.toml", f'allow = ["{friend}"]')
        assert await ask(a, "echo", from_agent="friend") == "hi"
        for other in ("foe", ""):
            with pytest.raises(Unauthorized):
                await ask(a, "echo", from_agent=other)


async def test_a_grant_opens_a_closed_node_for_its_holder(tmp_path: Path) -> None:
    async with world(tmp_path, 2, policy="closed") as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        with pytest.raises(Unauthorized):
            await ask(a, "echo")
        for maker in ("", "echo"):  # the node, and the called agent itself
            request = GrantRequest(
                to=a.node.node_id, audience=["echo"], scopes=["call.*"], maker=maker, principal="finance"
            )
            assert await ask(a, "echo", grants=(await b.node.grant(request)).chain) == "hi"
        write(tmp_path, "n1", "lists.toml", f'deny = ["{a.node.node_id}"]')
        with pytest.raises(Unauthorized) as error:
            await ask(a, "echo", grants=(await b.node.grant(request)).chain)
        assert error.value.code == "policy.denied"


async def test_grey_callers_come_last_at_the_guard_and_the_audit_log_names_the_rule(tmp_path: Path) -> None:
    async with world(tmp_path, 3, policy="auto") as (grey, other, b):
        release = asyncio.Event()
        order: list[str] = []

        async def slow(call: Invocation) -> AsyncIterator[Happening]:
            order.append(call.parts[0]["text"])
            await release.wait()
            yield DONE

        await b.serve("slow", slow, concurrency_limit=1)
        await until(lambda: knows(grey, "slow") and knows(other, "slow"))
        write(tmp_path, "n2", "lists.toml", f'grey = ["{grey.node.node_id}"]\nallow = ["{other.node.node_id}"]')
        calls = [await grey.node.call(CallRequest(to="slow", text="first"))]
        await until(lambda: order == ["first"])
        calls.append(await grey.node.call(CallRequest(to="slow", text="grey", priority=9)))
        await until(lambda: b.node._incoming._callee.running == 2)
        calls.append(await other.node.call(CallRequest(to="slow", text="other", priority=0)))
        await until(lambda: b.node._incoming._callee.running == 3)
        release.set()
        for call in calls:
            await call.reply()
        assert order == ["first", "other", "grey"]
        records = (await b.node.audit_records(0, 100, "", "")).records
        rules = [one["data"]["risk"]["rule"] for one in records if "risk" in one["data"]]
        assert f"grey {grey.node.node_id}" in rules


async def told(member: Member, caller: str, callee: str, skill: str = "") -> tuple[bool, str, str]:
    view = await member.node.explain_policy(caller, callee, skill, "")
    return view.allowed, view.ground, view.rule


async def test_explain_names_the_rule_and_says_what_the_call_would_meet(tmp_path: Path) -> None:
    async with world(tmp_path, 2, policy="auto") as (a, b):
        await b.serve("echo", echo)
        await a.serve("friend", echo)
        await until(lambda: knows(a, "echo") and knows(b, "friend"))
        friend = b.node.agent("friend").agent.agent_id
        assert await told(b, "friend", "echo") == (True, "default", "open: whoever no rule names may call")
        write(tmp_path, "n1", "lists.toml", f'deny = [{{who = "{friend}", why = "too slow"}}]')
        view = await b.node.explain_policy("friend", "echo", "", "")
        assert (view.allowed, view.ground, view.rule, view.source) == (False, "deny", friend, "lists.toml:1")
        assert (view.code, view.told) == ("policy.denied", "too slow")
        assert (view.caller.name, view.caller.node_id, view.caller.home) == ("friend", a.node.node_id, False)
        assert (view.callee.name, view.callee.organisation, view.callee.home) == ("echo", "own", True)
        with pytest.raises(Unauthorized) as error:
            await ask(a, "echo", from_agent="friend")
        assert error.value.why == view.told
        assert (await told(b, "@n0", "echo"))[1] == "default"
        assert (await told(b, "", "echo"))[0]
        assert not (await told(b, "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", "echo"))[0]
        with pytest.raises(UsageError) as elsewhere:
            await told(a, "friend", "echo")
        assert elsewhere.value.code == "policy.elsewhere"
        for caller, callee in (("nobody", "echo"), ("@nowhere", "echo"), ("friend", "nothing")):
            with pytest.raises(AgentNotFound):
                await told(b, caller, callee)
        with pytest.raises(UsageError):
            await told(b, "did:key:z6Mkа", "echo")
        shown = await b.node.policy_view()
        assert (shown.mode, shown.files) == ("closed", ["lists.toml"])
        assert [(one.who, one.why) for one in shown.deny] == [(friend, "too slow")]
