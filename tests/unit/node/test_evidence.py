"""What a node shows of what it goes by: trust in every agent, who called whom, and receipts that it checked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest

from agentmesh.errors import RunNotFound
from agentmesh.ids import AgentId
from agentmesh.node.evidence import histogram
from agentmesh.node.receipt_check import checks_of
from agentmesh.store.audit_survey import Wanted
from agentmesh.wire import v1
from agentmesh.wire.rows import RunQuery
from agentmesh.wire.trust_views import TrustRow
from agentmesh.wire.views import CallRequest
from tests.unit.node.test_two_nodes import echo, fail, knows
from tests.unit.node.world import Member, until, world


def id_of(member: Member, name: str) -> AgentId:
    return AgentId(member.node.agent(name).agent.agent_id)


async def call(member: Member, to: str, **more: str) -> None:
    running = await member.node.call(CallRequest(to=to, text="a secret question", **more))
    await asyncio.gather(running.reply(), return_exceptions=True)


async def test_each_call_is_a_row_at_both_ends_with_names_token_and_receipt(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await b.serve("bad", fail)
        await until(lambda: knows(a, "echo") and knows(a, "bad"))
        await call(a, "echo", purpose="to test")
        await call(a, "bad")
        await a.node.note_change("other", "fence")
        there = await b.node.audit_rows(Wanted(action="call"), 10, 2**53)
        here = await a.node.audit_rows(Wanted(action="call"), 10, 2**53)
        assert [row.outcome for row in there.rows] == [row.outcome for row in here.rows] == ["failed", "completed"]
        served, sent = there.rows[1], here.rows[1]
        assert (served.token, sent.token) == ("verified", "own")
        assert (served.caller, served.caller_name) == (a.node.node_id, a.node.config.name)
        assert (served.callee, served.callee_name, sent.callee_name) == (id_of(a, "echo"), "echo", "echo")
        assert (sent.node, sent.node_name) == (b.node.node_id, b.node.config.name)
        assert served.purpose == "to test"
        assert (served.receipt, served.kept, sent.kept) == (sent.receipt, True, True)
        assert served.receipt
        assert served.run == sent.run
        await until(lambda: b.node.audit_log().size > served.seq)
        again = await b.node.audit_rows(Wanted(caller=a.node.node_id, result="failed"), 10, 2**53)
        assert [(row.callee_name, row.signed) for row in again.rows] == [("bad", True)]
        text = b"".join([piece async for piece in b.node.audit_export(Wanted(action="call"))])
        assert [json.loads(line)["data"]["outcome"] for line in text.splitlines()] == ["completed", "failed"]
        assert b"secret" not in text


async def test_a_call_whose_token_does_not_hold_says_that_its_caller_is_a_claim(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        peer = a.node.links.peer(b.node.node_id)
        assert peer is not None
        stream = await peer.link.open_stream()
        forged = v1.CallOpen(
            v=1, run_id="r" * 32, task_id="t" * 32, agent_id=id_of(a, "echo"), caller="did:key:zVip", parts=[]
        )
        await stream.send(v1.encode(forged))
        assert await stream.recv() is not None
        await b.node.note_change("other", "fence")
        (row,) = (await b.node.audit_rows(Wanted(action="call"), 10, 2**53)).rows
        assert (row.token, row.decision, row.caller, row.claimed) == (
            "claimed",
            "refused",
            a.node.node_id,
            "did:key:zVip",
        )
        assert (await b.node.audit_rows(Wanted(caller="did:key:zVip"), 10, 2**53)).matching == 1


async def test_every_known_agent_is_in_the_list_of_trust_and_in_one_bar(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await a.serve("own", echo)
        await b.serve("far", echo)
        await until(lambda: knows(a, "far") and knows(a, "own"))
        for _ in range(3):
            await call(a, "far")
        whole = a.node.trust_list(100)
        assert [(row.name, row.tier, row.receipts) for row in whole.agents] == [("far", "medium", 3), ("own", "own", 0)]
        assert whole.agents[0].score == a.node.trust_in("far").score
        assert (whole.count, whole.matching, sum(bar.count for bar in whole.histogram)) == (2, 2, 2)
        assert (whole.histogram[-1].count, whole.histogram[-1].own) == (1, 1)
        assert (whole.tiers["own"], whole.tiers["medium"], sum(whole.tiers.values())) == (1, 1, 2)
        part = a.node.trust_list(1, start=1)
        assert ([row.name for row in part.agents], part.count, part.digest) == (["own"], 2, whole.digest)
        assert [row.name for row in a.node.trust_list(9, tier="medium").agents] == ["far"]
        assert a.node.trust_list(9, query="FAR").matching == 1
        assert a.node.trust_list(9, query="nobody").agents == []
        await a.node.report_abuse("far", "it lies")
        assert a.node.trust_list(9).digest != whole.digest


@pytest.mark.parametrize(("score", "bar"), [(0.0, 0), (0.09, 0), (0.1, 1), (0.999, 9), (1.0, 9), (1.7, 9), (-0.2, 0)])
def test_a_score_at_an_edge_is_in_one_bar(score: float, bar: int) -> None:
    bars = histogram([TrustRow(agent_id="a", name="a", score=score)])
    assert [at for at, one in enumerate(bars) if one.count] == [bar]


async def test_receipts_are_checked_anew_and_one_that_was_changed_says_what_does_not_hold(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        for _ in range(2):
            await call(a, "echo")
        runs = (await a.node.runs(RunQuery(limit=1))).runs
        (one,) = (await a.node.receipt_checks(runs[0].run_id)).receipts
        assert (one.verified, one.why, one.callee_name) == (True, "", "echo")
        assert (one.receipt_claims["outcome"], one.token_claims["aud"]) == ("completed", one.callee)
        with pytest.raises(RunNotFound):
            await a.node.receipt_checks("feedfeed")
        kept = await a.node.receipts(runs[0].run_id)
        whole = a.node._call_store.latest()
        good = [msgspec.convert(each._asdict(), type(kept[0])) for each in reversed(whole)]
        assert checks_of(good, lambda _: "").linked
        changes = [
            {"receipt": good[1].receipt},
            {"receipt": good[0].receipt[:-4] + "AAAA"},
            {"token": good[1].token},
            {"callee": "did:key:zOther"},
            {"receipt": "x"},
            {"receipt": ".*.", "token": "\ud800"},
        ]
        for change in changes:
            (bad,) = checks_of([msgspec.structs.replace(good[0], **change)], lambda _: "").receipts
            assert not bad.verified
            assert bad.why
