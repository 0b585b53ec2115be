"""What a node writes down: every call and refusal, on both sides, before its outcome is told; and who watches whose log."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import Corrupt, Full, MeshError, Refused, StoreError
from agentmesh.identity.audit_record import AuditRecord
from agentmesh.identity.checkpoint import sign_checkpoint
from agentmesh.identity.claims import hash_of
from agentmesh.identity.keys import KeyPair
from agentmesh.node.audit_peers import AuditPeers
from agentmesh.node.door import Happening, Invocation
from agentmesh.node.floods import EACH_MAX, Floods
from agentmesh.store.audit_check import check_log
from agentmesh.store.audit_read import select
from agentmesh.wire import v1
from agentmesh.wire.views import CallRequest
from tests.unit.node.test_two_nodes import DONE, echo, fail, hang, knows, say
from tests.unit.node.world import Member, until, world


def records(member: Member, action: str = "call") -> list[AuditRecord]:
    return [r for r in select(member.node.audit.log.directory) if r.action == action]


async def call(member: Member, to: str = "echo", **members: Any) -> Any:
    return await (await member.node.call(CallRequest(to=to, text="a secret question", **members))).reply()


async def test_a_call_stands_in_the_log_of_both_nodes_with_who_what_why_and_what_came_of_it(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        reply = await call(a, purpose="to test")
        (served,) = records(b)
        data = served.data
        assert (served.decision, data["outcome"], data["purpose"]) == ("allowed", "completed", "to test")
        assert (data["agent"], data["node"]) == (a.node.node_id, a.node.node_id)
        assert (data["resource"], data["name"]) == (reply.agent_id, "echo")
        assert (data["task"], data["txn"], data["receipt"]) == (reply.task_id, reply.run_id, hash_of(reply.receipt))
        assert "wall_ms" in data["budget"]["charged"]
        await a.node.audit.log.settle()
        (made,) = records(a, "call.out")
        assert (made.data["resource"], made.data["outcome"]) == (reply.agent_id, "completed")
        assert made.data["receipt"] == data["receipt"]
        assert records(a) == []
        assert len(agent.calls) == 1
        (registered,) = records(b, "register")
        assert registered.data["resource"] == reply.agent_id
    for name in ("n0", "n1"):
        assert check_log(tmp_path / name / "audit", node=None).findings == []
        for file in (tmp_path / name / "audit").iterdir():
            assert b"secret question" not in file.read_bytes(), "no prompt or answer is in any file of the log"


async def test_the_record_is_on_disk_when_the_caller_hears_the_answer(tmp_path: Path, monkeypatch: Any) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        seen: list[int] = []
        sent = v1.encode

        def encode(message: Any) -> bytes:
            if isinstance(message, v1.CallEnd):
                seen.append(len(records(b)))
            return sent(message)

        monkeypatch.setattr(v1, "encode", encode)
        for _ in range(3):
            await call(a)
    assert seen == [1, 2, 3]


async def test_refusals_failures_and_cancels_are_recorded_as_what_they_are(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("bad", fail)
        slow = await b.serve("slow", hang)
        busy = await b.serve("busy", hang, concurrency_limit=1)
        await until(lambda: all(knows(a, name) for name in ("bad", "slow", "busy")))
        with pytest.raises(MeshError):
            await call(a, "bad")
        running = await a.node.call(CallRequest(to="slow", text="x"))
        await until(lambda: slow.calls)
        running.cancel()
        with pytest.raises(MeshError):
            await running.reply()
        first = await a.node.call(CallRequest(to="busy", text="x"))
        await until(lambda: busy.calls)
        with pytest.raises(MeshError):
            await call(a, "busy")
        first.cancel()
        await until(lambda: len(records(b)) >= 4)
        told = {(r.data["name"], r.decision, r.data["outcome"], r.data.get("code")) for r in records(b)}
    assert ("bad", "allowed", "failed", "agent.failed") in told
    assert ("slow", "allowed", "canceled", None) in told or any(t[:3] == ("slow", "allowed", "canceled") for t in told)
    assert any(t[:3] == ("busy", "refused", "rejected") for t in told), told


async def test_a_call_whose_token_does_not_hold_is_recorded_under_the_node_that_sent_it(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        peer = a.node.links.peer(b.node.node_id)
        assert peer is not None
        stream = await peer.link.open_stream()
        await stream.send(
            v1.encode(
                v1.CallOpen(
                    v=1,
                    task_id="t",
                    run_id="r",
                    agent_id=b.node.registry.agents()[0].manifest.agent_id,
                    parts=[{"text": "x"}],
                    caller="did:key:zNobody\n{}\x1b[2J",
                    token="a.b.c",
                )
            )
        )
        answer = await stream.recv()
        assert answer is not None
        (record,) = records(b)
    assert (record.decision, record.data["agent"]) == ("refused", a.node.node_id)
    assert record.data["claimed"] == "did:key:zNobody\ufffd{}\ufffd[2J"
    assert record.data["code"].startswith(("jws.", "token.", "json."))


async def send_bad_token(a: Member, b: Member, token: str) -> None:
    peer = a.node.links.peer(b.node.node_id)
    assert peer is not None
    stream = await peer.link.open_stream()
    callee = b.node.registry.agents()[0].manifest.agent_id
    message = v1.CallOpen(v=1, task_id="t", run_id="r", agent_id=callee, parts=[{"text": "x"}], token=token)
    await stream.send(v1.encode(message))
    assert await stream.recv() is not None


async def test_a_flood_of_bad_tokens_is_one_record_with_its_count_and_none_of_it_is_lost(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        for i in range(EACH_MAX + 30):
            await send_bad_token(a, b, "a.b.c" if i % 3 else "no token at all")
        found = records(b)
        assert len(found) == EACH_MAX
        callee = b.node.registry.agents()[0].manifest.agent_id
    *one_by_one, flood = records(b)
    assert len(one_by_one) == EACH_MAX
    assert (flood.decision, flood.data["agent"], flood.data["count"]) == ("refused", a.node.node_id, 30)
    assert sum(flood.data["reasons"].values()) == 30
    assert len(flood.data["reasons"]) == 2
    assert flood.data["callees"] == [callee]


def test_each_minute_of_a_flood_is_recorded_and_so_is_what_the_table_has_no_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timers: list[Callable[[], None]] = []
    told: list[tuple[str, int]] = []
    began: list[str] = []

    class Later:
        def cancel(self) -> None:
            pass

    def later(_delay_s: float, run: Callable[[], None]) -> Later:
        timers.append(run)
        return Later()

    monkeypatch.setattr("agentmesh.node.floods.PEERS_MAX", 2)
    floods = Floods(lambda flood: began.append(flood.peer), lambda flood: told.append((flood.peer, flood.count)), later)
    assert sum(floods.note("a", f"code.{i}", "x") for i in range(EACH_MAX + 100)) == EACH_MAX
    assert began == ["a"]
    timers.pop(0)()
    assert told == [("a", 100)]
    assert sum(floods.note("a", "code", "x") for _ in range(EACH_MAX + 1)) == EACH_MAX
    for peer in ("b", "c"):  # there is room for two: what was counted of the first is recorded early
        assert floods.note(peer, "code", "x")
    assert told == [("a", 100), ("a", 1)]
    floods.close()
    floods.close()
    assert told == [("a", 100), ("a", 1)]


async def test_a_node_that_dies_in_a_flood_records_at_its_next_start_that_there_was_one(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        for _ in range(EACH_MAX + 5):
            await send_bad_token(a, b, "a.b.c")
        b.node.audit.close = lambda: None  # type: ignore[method-assign]  # it dies
    async with world(tmp_path, 2, kits=(a.kit, b.kit)) as (a, b):
        (flood,) = [r for r in records(b) if "reasons" in r.data]
        assert (flood.data["outcome"], flood.data["agent"]) == ("interrupted", a.node.node_id)


async def test_a_refusal_before_a_call_leaves_is_recorded_as_well(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        with pytest.raises(Refused):
            await call(a, hops=["did:key:x"] * 99)
        (record,) = records(a, "call.out")
    assert (record.decision, record.data["resource"], record.data["code"]) == ("refused", "echo", "refused.loop")


async def test_a_local_call_is_recorded_once_with_its_agents(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        await call(a)
        assert len(records(a)) == 1
        assert records(a, "call.out") == []


async def test_a_withdrawn_agent_is_recorded(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        await a.node.deregister("echo")
        (gone,) = records(a, "withdraw")
        assert gone.data["name"] == "echo"


async def test_what_would_undo_a_call_stands_in_its_record(tmp_path: Path) -> None:
    step = {"skill": "cancel_order", "arguments": {"order": "4711"}}

    async def orders(_: Invocation) -> AsyncIterator[Happening]:
        yield Happening("status", {"state": "working", "undo": step})
        yield Happening("artifact", {"artifact_id": "o", "parts": [{"text": "ok"}], "undo": {"skill": "x" * 9_000}})
        yield DONE

    async with world(tmp_path, 2) as (a, b):
        await b.serve("shop", orders)
        await until(lambda: knows(a, "shop"))
        await call(a, "shop")
        (record,) = records(b)
    kept, digest = record.data["remediation"]["undo"]
    assert kept == step
    assert set(digest) == {"skill", "sha256"}


# The floor: no call runs unrecorded


async def test_while_nothing_can_be_recorded_no_call_is_served_or_made(tmp_path: Path, monkeypatch: Any) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        full = Full("no space left", code="store.full")
        for member in (a, b):  # else the writer finds at its next try that all is well
            monkeypatch.setattr(member.node.audit.log, "_try_recover", lambda: None)
        monkeypatch.setattr(b.node.audit.log, "_failing", full)
        with pytest.raises(Full):
            await call(a)
        assert agent.calls == []
        monkeypatch.setattr(b.node.audit.log, "_failing", None)
        monkeypatch.setattr(a.node.audit.log, "_failing", full)
        with pytest.raises(Full):
            await call(a)
        assert agent.calls == []
        assert any("calls are refused" in text for text in a.node.status().warnings)
        monkeypatch.setattr(a.node.audit.log, "_failing", None)
        assert (await call(a)).text


@pytest.mark.parametrize("nodes", [1, 2])
async def test_an_answer_that_cannot_be_recorded_is_not_told(tmp_path: Path, monkeypatch: Any, nodes: int) -> None:
    async def answer(_: Invocation) -> AsyncIterator[Happening]:
        yield say("the answer")
        yield DONE

    async with world(tmp_path, nodes) as members:
        a, b = members[0], members[-1]
        await b.serve("echo", answer)
        await until(lambda: knows(a, "echo"))

        async def refuse(*_: Any) -> int:
            raise Full("no space left", code="store.full")

        monkeypatch.setattr(b.node.audit.log, "write", refuse)
        started = await a.node.call(CallRequest(to="echo", text="x"))
        with pytest.raises(StoreError):
            await started.reply()


async def test_a_log_that_was_rolled_back_or_cut_refuses_calls_and_says_so(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        await call(a)
    segment = tmp_path / "n0" / "audit" / "000000000000.jsonl"
    segment.write_bytes(segment.read_bytes().splitlines(keepends=True)[0])
    async with world(tmp_path, 1, kits=(a.kit,)) as (a,):
        with pytest.raises(Corrupt) as error:
            await call(a)
        assert error.value.code == "audit.history"
        assert any("does not match what was signed" in text for text in a.node.status().warnings)
        assert a.node.audit_log().refusal


# Watching each other


def watch(member: Member) -> AuditPeers:
    return member.node._audit_peers  # pyright: ignore[reportPrivateUsage]


async def ask(asker: Member, asked: Member) -> None:
    peer = asker.node.links.peer(asked.node.node_id)
    assert peer is not None
    await watch(asker).ask(peer)


async def test_linked_nodes_pin_each_others_checkpoints_and_see_them_grow(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        await b.node.audit.log.settle()
        await ask(a, b)
        before = a.node.audit_log().peers[0]
        await call(a)
        await until(lambda: b.node.audit.log.head is not None and b.node.audit.log.head.size > before.size)
        await ask(a, b)
        (after,) = a.node.audit_log().peers
        assert (after.node_id, after.size, after.forked) == (b.node.node_id, before.size + 1, "")
        assert a.node.status().warnings == []


async def test_new_links_are_asked_by_themselves(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await until(lambda: a.node.audit_log().peers and b.node.audit_log().peers, timeout_s=15)


async def test_a_node_that_puts_yesterdays_log_back_is_found_by_its_peers_and_told(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        kits = (a.kit, b.kit)
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        await call(a)
    files = {p: p.read_bytes() for p in (tmp_path / "n1" / "audit").iterdir() if p.suffix != ".sqlite"}
    async with world(tmp_path, 2, kits=kits) as (a, b):
        await until(lambda: knows(a, "echo"))
        await call(a)
        await until(lambda: b.node.audit.log.head is not None and b.node.audit.log.head.size >= 3)
        await ask(a, b)
        pinned = a.node.audit_log().peers[0].size
    for path, content in files.items():
        path.write_bytes(content)
    async with world(tmp_path, 2, kits=kits) as (a, b):
        assert b.node.audit.log.refusal is None, "by itself the copy is whole"
        await ask(a, b)
        (seen,) = a.node.audit_log().peers
        assert seen.size == pinned, "the newer one stays pinned"
        assert "now shows" in seen.forked
        assert seen.other
        assert any("broke with its past" in text for text in a.node.status().warnings)
        assert any("holds our signature" in text for text in b.node.status().warnings)
        # It goes on from the old copy: the same sizes again, with other records.
        await until(lambda: knows(a, "echo"))
        for _ in range(4):
            await call(a)
        await asyncio.sleep(0.1)
        await ask(a, b)
        assert "do not begin with" in a.node.audit_log().peers[0].forked or a.node.audit_log().peers[0].forked


@pytest.mark.parametrize("kind", ["other key", "garbage", "no proof"])
async def test_a_checkpoint_of_another_key_or_without_proof_is_held_against_the_peer(
    tmp_path: Path, monkeypatch: Any, kind: str
) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await ask(a, b)
        (before,) = a.node.audit_log().peers
        blamed: list[tuple[str, str]] = []
        monkeypatch.setattr(watch(a), "_on_misbehaved", lambda node, code, detail: blamed.append((node, code)))
        reply = {
            "other key": sign_checkpoint(KeyPair(bytes([9]) * 32), 50, bytes(32)).text,
            "garbage": "x\n" * 100,
            "no proof": sign_checkpoint(b.key, before.size + 5, bytes(32)).text,
        }[kind]

        async def lie(_peer: Any, stream: Any, _query: Any) -> None:
            await stream.send(v1.encode(v1.AuditReply(checkpoint=reply, proof=[b"x"] * 3)))
            await stream.finish()

        monkeypatch.setattr(watch(b), "serve", lie)
        await ask(a, b)
        (after,) = a.node.audit_log().peers
        assert blamed
        assert blamed[0][0] == b.node.node_id
        assert (after.size, after.checkpoint) == (before.size, before.checkpoint)
        assert bool(after.forked) == (kind == "no proof")


async def test_a_peer_that_shows_a_signature_that_is_not_ours_learns_nothing_and_changes_nothing(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, 2) as (a, b):
        peer = a.node.links.peer(b.node.node_id)
        assert peer is not None
        for pinned in (sign_checkpoint(a.key, 99, bytes(32)).text, "x", "y" * 5_000):
            stream = await peer.link.open_stream()
            await stream.send(v1.encode(v1.AuditQuery(v=1, pinned=pinned)))
            with pytest.raises(MeshError):
                assert await stream.recv() is not None
        assert not any("holds our signature" in text for text in b.node.status().warnings)


async def test_records_and_proofs_are_offered_over_the_api(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        for _ in range(3):
            await call(a)
        await until(lambda: a.node.audit_log().size == 4)
        page = await a.node.audit_records(1, 2, "", "echo")
        assert [r["data"]["seq"] for r in page.records] == [1, 2]
        assert page.next == 3
        last = await a.node.audit_records(3, 2, "", "")
        assert (len(last.records), last.next) == (1, None)
        proof = await a.node.audit_proof("last")
        assert json.loads(proof.record)["data"]["seq"] == 3
