"""Whole nodes of several organisations, federated in one process: who sees and calls whom, what is passed on, what is low."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from agentmesh.api import problems
from agentmesh.errors import AgentNotFound, MeshError, NoRoute, Unauthorized
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.voucher import sign_voucher
from agentmesh.node.door import Happening, Invocation
from agentmesh.node.federation.federation import FederationKit
from agentmesh.node.federation.imports import Answer
from agentmesh.store.federation import FederationStore
from agentmesh.wire.federation import PROOF_HEADER
from agentmesh.wire.views import CallRequest
from tests.unit.node.world import Member, until, world

ORGS = [KeyPair(bytes([0x41 + n]) * 32) for n in range(3)]


async def echo(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("message", {"role": "agent", "parts": [{"text": "heard"}]})
    yield Happening("status", {"state": "completed"})


class Web:
    """The listeners of all nodes, by origin."""

    def __init__(self) -> None:
        self.members: list[Member] = []

    async def fetch(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, *, timeout_s: float, bytes_max: int
    ) -> Answer:
        parts = urlsplit(url)
        number = (parts.port or 0) - 7_000
        if not 0 <= number < len(self.members):
            raise NoRoute("nobody listens there")
        federation = self.members[number].node.federation
        assert federation is not None
        query: dict[str, Any] = dict(parse_qsl(parts.query))
        query["limit"] = int(query.get("limit", "0"))
        try:
            if method == "POST":
                raw, proof = federation.desk.push(headers["DPoP"], body or b"")
            else:
                raw, proof = federation.desk.pull(headers["DPoP"], **query)
        except MeshError as error:
            problem = problems.problem_of(error)
            return Answer(problem.status, {}, problems.encode_problem(problem))
        return Answer(200, {PROOF_HEADER: proof}, raw)


def origin(number: int) -> str:
    return f"http://127.0.0.1:{7_000 + number}"


@asynccontextmanager
async def meshes(
    tmp_path: Path, count: int, seeds: dict[int, tuple[str, ...]], **kit: Any
) -> AsyncIterator[list[Member]]:
    """Start nodes that are strangers to each other, each of an organisation of its own."""
    web = Web()

    def federate(number: int, home: Path) -> FederationKit:
        folder = home / "identity"
        folder.mkdir(exist_ok=True)
        node = KeyPair.generate(bytes([number + 1]) * 32)
        raw = sign_voucher(ORGS[number], node.did, "node", id="v", iat=int(time.time()) - 5, life_s=86_400)
        (folder / "organisation.jwt").write_text(f"{raw}\n", "ascii")
        store = FederationStore.open(home / "federation.sqlite")
        return FederationKit(store, web.fetch, seeds.get(number, ()), interval_s=0.1, **kit)

    async with world(tmp_path, count, join=False, federate=federate, policy="open") as members:
        web.members = members
        for number, member in enumerate(members):
            assert member.node.federation is not None
            member.node.federation.desk.origin = origin(number)
            member.node.federation.desk._opened -= 5
        yield members


def share(member: Member, text: str) -> None:
    """Write the rules of a node and have them read."""
    file = Path(member.node.status().home) / "federation.toml"
    file.write_text(text, "utf-8")
    file.chmod(0o600)
    assert member.node.federation is not None
    member.node.federation.refresh()
    assert member.node.federation.view().problem == ""


def permit(member: Member, *orgs: KeyPair) -> None:
    """Let organisations call by policy."""
    folder = Path(member.node.status().home) / "policies"
    folder.mkdir(exist_ok=True)
    names = [f"org{n}" for n in range(len(orgs))]
    text = f"allow = {[f'organisation:{name}' for name in names]}\n".replace("'", '"')
    text += "".join(f'[organisations.{name}]\nkeys = ["{org.did}"]\n' for name, org in zip(names, orgs, strict=True))
    (folder / "lists.toml").write_text(text, "utf-8")
    (folder / "lists.toml").chmod(0o600)
    member.node.policy.refresh()
    assert member.node.policy.error is None


def partner(org: KeyPair, *agents: str, name: str = "p", more: str = "") -> str:
    listed = ", ".join(f'"{agent}"' for agent in agents)
    return f'[partners.{name}]\nkey = "{org.did}"\nagents = [{listed}]\n{more}\n'


def names(member: Member) -> list[str]:
    return sorted(view.name for view in member.node.agents())


def id_of(member: Member, name: str) -> str:
    return next(view.agent_id for view in member.node.agents() if view.name == name)


async def ask(member: Member, to: str) -> str:
    return (await (await member.node.call(CallRequest(to=to, text="hi"))).reply()).text or ""


async def test_a_call_from_abroad_needs_the_export_list_and_the_policy_of_the_callee(tmp_path: Path) -> None:
    async with meshes(tmp_path, 2, {0: (origin(1),)}) as (a, b):
        await b.serve("calc", echo)
        await b.serve("payroll", echo)
        share(b, partner(ORGS[0], "calc"))
        await until(lambda: names(a) == ["calc"])
        view = a.node.agents()[0]
        assert (view.organisation, view.node_id, view.path) == (ORGS[1].did, b.node.node_id, "unreached")
        # The policy of B is open, and still nobody from abroad calls without a rule.
        with pytest.raises(Unauthorized):
            await ask(a, "calc")
        permit(b, ORGS[0])
        assert await ask(a, "calc") == "heard"
        peer = a.node.links.peer(b.node.node_id)
        assert peer is not None
        assert peer.calls_only
        # Who knows the id of the other one learns that nobody has it.
        hidden = id_of(b, "payroll")
        with pytest.raises(AgentNotFound):
            await ask(a, hidden)
        assert b.node.federation is not None
        share(b, partner(ORGS[0], "other"))
        await until(lambda: names(a) == [])
        with pytest.raises(AgentNotFound):
            await ask(a, view.agent_id)
        # Both meshes are what they were.
        assert a.node.peers() == b.node.peers() == []
        assert a.node.status().peers == b.node.status().peers == 0


async def test_what_is_federated_is_passed_on_only_by_flag_and_id_and_not_further(tmp_path: Path) -> None:
    async with meshes(tmp_path, 3, {1: (origin(0),), 2: (origin(1),)}) as (b, a, c):
        await b.serve("calc", echo)
        await a.serve("own", echo)
        calc = id_of(b, "calc")
        allow = f'[seeds.a]\nurl = "{origin(1)}"\nallow = ["{ORGS[0].did}"]\n'
        share(c, allow)
        share(b, partner(ORGS[1], "calc"))
        share(a, partner(ORGS[2], "own", "calc", calc))
        await until(lambda: names(a) == ["calc", "own"] and names(c) == ["own"])
        # B lets it be passed on; A's list names it by id.
        share(b, partner(ORGS[1], "calc", more="reshare = true"))
        share(a, partner(ORGS[2], "own", "calc", calc))
        await until(lambda: names(c) == ["calc", "own"], timeout_s=10)
        # By name alone it is not, and without ``allow`` C does not take it.
        share(a, partner(ORGS[2], "own", "calc"))
        await until(lambda: names(c) == ["own"], timeout_s=10)
        share(a, partner(ORGS[2], calc))
        share(c, f'[seeds.a]\nurl = "{origin(1)}"\n')
        assert c.node.federation is not None
        await until(lambda: "federation.foreign" in str(c.node.federation.view()), timeout_s=10)  # type: ignore[union-attr]
        assert names(c) == []


async def test_what_comes_back_from_a_partner_changes_nothing_about_this_node(tmp_path: Path) -> None:
    async with meshes(tmp_path, 2, {0: (origin(1),), 1: (origin(0),)}) as (b, a):
        agent = await b.serve("calc", echo)
        calc = id_of(b, "calc")
        share(
            b,
            partner(ORGS[1], "calc", more="reshare = true")
            + f'[seeds.a]\nurl = "{origin(1)}"\nallow = ["{ORGS[0].did}"]\n',
        )
        await until(lambda: names(a) == ["calc"])
        theirs = a.node.federation
        assert theirs is not None
        # A lies: it passes B's agent back to B, though a list for the agent's own organisation never does.
        theirs.may_show = lambda manifest, one: True  # type: ignore[method-assign]
        share(a, partner(ORGS[0], calc))
        assert b.node.federation is not None
        await until(lambda: b.node.federation.imports.entry(calc) is not None)  # type: ignore[union-attr]
        assert b.node.federation.addresses_of(b.node.node_id)
        assert not b.node.border.is_abroad(b.node.node_id)
        assert names(b) == ["calc"]
        assert await ask(b, "calc") == "heard"
        assert len(agent.calls) == 1


async def test_an_agent_of_the_mesh_hides_a_federated_one_of_its_name(tmp_path: Path) -> None:
    async with meshes(tmp_path, 2, {0: (origin(1),)}) as (a, b):
        mine, theirs = await a.serve("calc", echo), await b.serve("calc", echo)
        share(b, partner(ORGS[0], "*"))
        permit(b, ORGS[0])
        await until(lambda: names(a) == ["calc", "calc"])
        for _ in range(5):
            assert await ask(a, "calc") == "heard"
        assert (len(mine.calls), len(theirs.calls)) == (5, 0)
        assert await ask(a, id_of(b, "calc")) == "heard"
        assert len(theirs.calls) == 1


@pytest.mark.parametrize("low", ["mark", "drop"])
async def test_a_federated_agent_below_the_threshold_is_marked_or_dropped(tmp_path: Path, low: str) -> None:
    async with meshes(tmp_path, 2, {0: (origin(1),)}, trust_min=0.99, low=low) as (a, b):
        await b.serve("calc", echo)
        share(b, partner(ORGS[0], "*"))
        assert a.node.federation is not None
        await until(lambda: a.node.federation.view().seeds[0].held == 1)  # type: ignore[union-attr]
        if low == "mark":
            assert [(view.name, view.trust) for view in a.node.agents()] == [("calc", "low")]
        else:
            assert names(a) == []


async def test_a_hint_to_a_partner_brings_a_change_at_once(tmp_path: Path) -> None:
    async with meshes(tmp_path, 2, {0: (f"{ORGS[1].did}@{origin(1)}",)}) as (a, b):
        assert a.node.federation is not None
        a.node.federation.imports.machine.config = type(a.node.federation.imports.machine.config)(interval_s=3_600.0)
        share(b, partner(ORGS[0], "*", more=f'hint = "{origin(0)}"'))
        await b.serve("calc", echo)
        await until(lambda: names(a) == ["calc"])
        await b.serve("more", echo)
        await until(lambda: names(a) == ["calc", "more"])
        assert b.node.federation is not None
        assert b.node.federation.view().partners[0].hint == ""


async def test_a_node_that_becomes_a_partner_is_greeted_again_for_calls_only(tmp_path: Path) -> None:
    async with meshes(tmp_path, 2, {}) as (a, b):
        await a.node.add_seeds([b.seed])
        await until(lambda: a.node.status().peers == b.node.status().peers == 1)
        share(b, partner(ORGS[0], "calc"))
        await until(lambda: b.node.status().peers == 0)
        await until(lambda: a.node.status().peers == 0)
