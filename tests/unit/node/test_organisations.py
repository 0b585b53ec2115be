"""Organisations at work: agents carry the chain, policy and lists see it, and revoking the organisation revokes its agents."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import MeshError, Unauthorized
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.order import Revoke, Stop, sign_order
from agentmesh.identity.voucher import sign_voucher
from agentmesh.ids import node_id
from agentmesh.node.door import Happening, Invocation
from agentmesh.wire.views import CallRequest
from tests.unit.node.world import Member, until, world

ORG, OPERATOR = KeyPair(b"\x21" * 32), KeyPair(b"\x22" * 32)


async def echo(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("message", {"role": "agent", "parts": [{"text": "heard"}]})
    yield Happening("status", {"state": "completed"})


def vouch(home: Path, node: str, org: KeyPair = ORG, *, life_s: int = 30 * 86_400) -> None:
    file = home / "identity" / "organisation.jwt"
    file.parent.mkdir(parents=True, exist_ok=True)
    raw = sign_voucher(org, node, "node", id=f"v{time.time_ns()}", iat=int(time.time()) - 5, life_s=life_s)
    file.write_text(f"{raw}\n", "ascii")


def home_of(member: Member) -> Path:
    return Path(member.node.status().home)


def join(member: Member, org: KeyPair = ORG) -> None:
    vouch(home_of(member), member.node.node_id, org)
    member.node.mesh.review()


async def ask(member: Member, name: str) -> str:
    call = await member.node.call(CallRequest(to=name, text="hi"))
    return (await call.reply()).text or ""


def organisation_at(member: Member, name: str) -> str:
    return next((a.organisation for a in member.node.agents() if a.name == name), "")


def revoked(keys: tuple[str, ...], key: KeyPair = ORG) -> str:
    now = time.time()
    return sign_order(key, Revoke(keys), seq=int(now * 1000), iat=int(now), jti=f"j{time.time_ns()}")


async def test_a_node_that_joins_has_its_agents_show_the_organisation_everywhere(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: any(v.name == "echo" for v in a.node.agents()))
        assert organisation_at(a, "echo") == ""
        join(b)
        await until(lambda: organisation_at(a, "echo") == ORG.did)
        assert organisation_at(b, "echo") == ORG.did
        (home_of(b) / "identity" / "organisation.jwt").write_text("", "ascii")
        b.node.mesh.review()
        await until(lambda: organisation_at(a, "echo") == "")


async def test_a_tenants_agents_are_not_vouched_for_by_the_organisation_of_the_machine(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        join(a)
        await a.serve("echo", echo)
        agent = a.node.registry.by_name("echo")
        assert agent is not None
        assert agent.manifest.params["organisation"]["id"] == ORG.did
        agent.saved.tenant = "guests"
        a.node.registry.resign(agent.manifest.agent_id)
        assert "organisation" not in agent.manifest.params


async def test_the_key_of_an_organisation_in_the_lists_makes_all_its_members_that(tmp_path: Path) -> None:
    async with world(tmp_path, 2, policy="closed") as (a, b):
        await b.serve("echo", echo)
        await until(lambda: any(v.name == "echo" for v in a.node.agents()))
        with pytest.raises(MeshError):
            await ask(a, "echo")
        join(a)
        lists = home_of(b) / "policies" / "lists.toml"
        lists.parent.mkdir(exist_ok=True)
        lists.write_text(f'allow = ["organisation:acme"]\n[organisations.acme]\nkeys = ["{ORG.did}"]\n', "utf-8")
        lists.chmod(0o600)
        b.node.policy.refresh()

        async def passes() -> bool:
            try:
                return await ask(a, "echo") == "heard"
            except MeshError:
                return False

        for _ in range(200):
            if await passes():
                break
            b.node.policy.refresh()
        assert await passes()
        lists.write_text(f'deny = ["organisation:acme"]\n[organisations.acme]\nkeys = ["{ORG.did}"]\n', "utf-8")
        b.node.policy.refresh()
        with pytest.raises(Unauthorized):
            await ask(a, "echo")


async def test_two_nodes_of_one_organisation_are_at_home_with_each_other_in_closed_mode(tmp_path: Path) -> None:
    async with world(tmp_path, 2, policy="closed") as (a, b):
        await b.serve("echo", echo)
        await until(lambda: any(v.name == "echo" for v in a.node.agents()))
        join(a)
        join(b)
        await until(lambda: b.node.organisations.of_node(a.node.node_id) == ORG.did)
        assert await ask(a, "echo") == "heard"


@pytest.mark.parametrize("by", ["organisation", "operator"])
async def test_revoking_an_organisation_revokes_its_agents_wherever_the_order_reaches(tmp_path: Path, by: str) -> None:
    config: dict[str, Any] = {"operators": (OPERATOR.did,)} if by == "operator" else {}
    async with world(tmp_path, 3, **config) as (a, b, c):
        join(b)
        await b.serve("echo", echo)
        await c.serve("other", echo)
        for member in (a, c):
            await until(lambda member=member: organisation_at(member, "echo") == ORG.did)
            await until(lambda member=member: member.node.organisations.of_node(b.node.node_id) == ORG.did)
        assert await ask(a, "echo") == "heard"
        order = revoked((ORG.did,), OPERATOR if by == "operator" else ORG)
        await c.node.take_order(order)  # at a node that is not of the organisation
        await until(lambda: all(v.name != "echo" for v in a.node.agents()))
        with pytest.raises(Unauthorized) as refused:
            await ask(a, "echo")
        assert refused.value.code == "refused.organisation"
        with pytest.raises(MeshError):
            await ask(b, "other")  # calls from it are refused as well
        assert await ask(a, "other") == "heard"


async def test_an_organisation_takes_back_its_word_for_one_node_and_commands_nothing_else(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        join(b)
        await b.serve("echo", echo)
        await until(lambda: organisation_at(a, "echo") == ORG.did)
        now = time.time()
        stop = sign_order(ORG, Stop("no"), seq=int(now * 1000), iat=int(now), jti="stop")
        with pytest.raises(Unauthorized):
            await a.node.take_order(stop)
        # It cannot revoke strangers, only its own.
        await a.node.take_order(revoked((a.node.node_id, KeyPair(b"\x31" * 32).did)))
        assert a.node.orders.refusal_of(a.node.node_id) is None
        assert await ask(a, "echo") == "heard"
        await a.node.take_order(revoked((b.node.node_id,)))
        with pytest.raises(Unauthorized):
            await ask(a, "echo")


async def test_a_revocation_by_an_organisation_is_still_in_force_after_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        join(a)
        await a.node.take_order(revoked((ORG.did,)))
        assert a.node.orders.any_revoked
    (tmp_path / "n0" / "identity" / "organisation.jwt").unlink(missing_ok=True)
    async with world(tmp_path, 1) as (a,):
        assert a.node.orders.any_revoked
        assert a.node.orders_view().operators == []


async def test_a_forged_claim_is_held_against_a_node_only_if_it_brought_it_itself(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        told: list[str] = []
        before = a.node.mesh.note_misbehaviour
        a.node.border._on_forged = lambda node, code, detail: (told.append(node), before(node, code, detail))  # type: ignore[func-returns-value]
        raw = sign_voucher(ORG, b.node.node_id, "node", id="x", iat=int(time.time()), life_s=3600)
        head, body, signature = raw.split(".")
        a.node.border.greeted(node_id(b.key.public), f"{head}.{body}.{signature[:-4]}AAAA")
        assert told == [b.node.node_id]
        assert a.node.organisations.of_node(b.node.node_id) == ""
