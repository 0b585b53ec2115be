"""Receipts of real calls between whole nodes: every outcome, both sides, and what does not fit (docs/spec/tokens.md §7)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentmesh.errors import AgentCanceled, AgentFailed, Busy, Full, MeshError
from agentmesh.identity.receipt import Receipt, check_links, check_receipt, read_receipt
from agentmesh.identity.token import read_kept_token
from agentmesh.node.door import Happening, Invocation
from agentmesh.node.proof import Witness
from agentmesh.store.calls import CallStore
from agentmesh.store.receipt_journal import KeptReceipt
from agentmesh.wire.views import CallRequest
from tests.unit.node.test_two_nodes import DONE, echo, fail, hang, knows, say
from tests.unit.node.world import Member, until, world


async def ask_money(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("status", {"state": "input-required"})


def kept(member: Member) -> list[KeptReceipt]:
    """Return what a node holds."""
    return list(member.node._call_store.export())


def proven(one: KeptReceipt) -> Receipt:
    """Verify a receipt with nothing but its own text and that of its token."""
    receipt = read_receipt(one.receipt)
    check_receipt(receipt, read_kept_token(one.token), res_digest=None)
    return receipt


async def test_both_sides_keep_the_same_receipt_of_every_outcome_and_each_verifies_offline(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        for name, script in (("echo", echo), ("bad", fail), ("slow", hang), ("poor", ask_money)):
            await b.serve(name, script)
        await until(lambda: all(knows(a, name) for name in ("echo", "bad", "slow", "poor")))
        reply = await (await a.node.call(CallRequest(to="echo", text="hello"))).reply()
        assert proven(kept(a)[0]).hash == read_receipt(reply.receipt).hash
        with pytest.raises(AgentFailed):
            await (await a.node.call(CallRequest(to="bad", text="hello"))).reply()
        call = await a.node.call(CallRequest(to="slow", text="hello"))
        await until(lambda: any(e.kind == "message" for e in call.events))
        call.cancel()
        with pytest.raises(AgentCanceled):
            await call.reply()
        assert (await (await a.node.call(CallRequest(to="poor", text="hello"))).reply()).state == "input-required"
        there, here = kept(b), kept(a)
        assert there == here
        receipts = [proven(one) for one in here]
        assert [r.claims.outcome for r in receipts] == ["completed", "failed", "canceled", "input-required"]
        assert receipts[1].claims.problem == "/problems/agent_failed"
        assert {r.claims.aud for r in receipts} == {a.node.node_id}


async def test_a_refusal_leaves_a_receipt_too(tmp_path: Path) -> None:
    async with world(tmp_path, 2, agent_concurrency_max=1, agent_queue_wait_s=0.2) as (a, b):
        await b.serve("slow", hang)
        await until(lambda: knows(a, "slow"))
        first = await a.node.call(CallRequest(to="slow", text="hello"))
        await until(lambda: any(e.kind == "message" for e in first.events))
        with pytest.raises(Busy):
            await (await a.node.call(CallRequest(to="slow", text="hello"))).reply()
        (refused,) = (proven(one) for one in kept(a))
        assert (refused.claims.outcome, refused.claims.problem) == ("rejected", "/problems/busy")


async def test_receipts_of_one_callee_for_one_caller_are_linked_also_across_a_restart(tmp_path: Path) -> None:
    kits = None
    for _ in range(2):
        async with world(tmp_path, 2, kits=kits or ()) as (a, b):
            if kits is None:
                kits = (a.kit, b.kit)
                await b.serve("echo", echo)
            await until(lambda: knows(a, "echo"))
            for n in range(3):
                await (await a.node.call(CallRequest(to="echo", text=str(n)))).reply()
    store = CallStore.open(tmp_path / "n0" / "calls.sqlite")
    receipts = [proven(one) for one in store.export()]
    store.close()
    assert len(receipts) == 6
    check_links(receipts, from_start=True)


async def test_a_call_that_stays_at_its_node_has_a_receipt_as_well(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        reply = await (await a.node.call(CallRequest(to="echo", text="hello"))).reply()
        assert read_receipt(reply.receipt).claims.outcome == "completed"
        assert len(kept(a)) == 1


async def test_a_receipt_for_another_answer_is_not_kept_and_held_against_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        honest, lies = Witness.digest.fget, ["sha-256=:" + "A" * 43 + "=:"]
        assert honest is not None
        # The callee signs first, over another answer than it gave; the caller then looks at what came.
        monkeypatch.setattr(Witness, "digest", property(lambda self: lies.pop() if lies else honest(self)))
        blamed: list[str] = []
        monkeypatch.setattr(a.node._calls._remote, "_on_misbehaved", lambda peer, code, detail: blamed.append(code))
        reply = await (await a.node.call(CallRequest(to="echo", text="hello"))).reply()
        assert (reply.text, reply.receipt) == ("hello", "")
        assert blamed == ["receipt.answer"]
        assert kept(a) == []


async def test_what_has_no_canonical_form_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        call = await a.node.call(CallRequest(to="echo", data={"n": 2**60}))
        with pytest.raises(MeshError) as error:
            await call.reply()
        assert error.value.code.startswith("canonical")
        assert agent.calls == []


async def test_an_answer_of_numbers_that_json_readers_disagree_on_still_has_a_receipt(tmp_path: Path) -> None:
    async def large(call: Invocation) -> AsyncIterator[Happening]:
        yield Happening("message", {"role": "agent", "parts": [{"data": {"n": 2**60, "x": 0.1}}]})
        yield say("done")
        yield DONE

    async with world(tmp_path, 2) as (a, b):
        await b.serve("large", large)
        await until(lambda: knows(a, "large"))
        async with asyncio.timeout(10):
            reply = await (await a.node.call(CallRequest(to="large", text="hello"))).reply()
        assert reply.receipt


async def test_work_that_is_done_is_told_although_its_receipt_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(receipt: KeptReceipt) -> None:
        raise Full("no space left on device", code="store.full")

    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        for name in ("a", "b"):
            monkeypatch.setattr((a if name == "a" else b).node._calls._proofs._store, "keep", full)
            reply = await (await a.node.call(CallRequest(to="echo", text=name))).reply()
            assert (reply.text, bool(reply.receipt)) == (name, name == "a")
            assert "no space left" in caplog.text
            caplog.clear()
