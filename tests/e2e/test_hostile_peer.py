"""A peer that speaks the transport honestly and everything above it with malice, against a real daemon.

After each attack the daemon answers, an honest call succeeds, and nothing hostile stands in the directory.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import secrets
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgspec
import pytest

from agentmesh.core.directory.messages import Line, Listing, Records, Want
from agentmesh.core.overlay.messages import Here, Join, Shuffle
from agentmesh.core.plumtree.messages import Gossip
from agentmesh.core.swim.messages import Ping
from agentmesh.errors import MeshError
from agentmesh.identity.jws import b64url, unb64url
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import build_card, sign_card
from agentmesh.identity.node_record import node_body, sign_node_record
from agentmesh.identity.token import CallClaims, digest_of, sign_call_token
from agentmesh.net.addresses import parse_seed
from agentmesh.net.base import Link, Stream
from agentmesh.net.iroh import IrohTransport
from agentmesh.wire import v1
from tests.support.daemons import ECHO, Daemon, Mesh, script, sees_agent, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def victim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("victim")
    mesh = Mesh(root)
    file = root / "echo_agent.py"
    file.write_text(ECHO, "utf-8")
    try:
        daemon = mesh.node("victim", transports=("iroh",))
        with script([sys.executable, str(file)], daemon.env):
            wait_until(lambda: sees_agent(daemon, "echo"), "the agent of the victim")
            yield daemon
    finally:
        mesh.aclose()


@contextlib.asynccontextmanager
async def attacker(victim: Daemon, seed: int = 66) -> AsyncIterator[tuple[KeyPair, Link]]:
    key = KeyPair.generate(bytes([seed]) * 32)
    transport = IrohTransport(key, "127.0.0.1:0")
    await transport.open()
    try:
        contact = parse_seed(victim.seed())
        yield key, await transport.dial(contact.node_id, contact.addresses[0])
    finally:
        await transport.aclose()


async def greet(link: Link) -> Stream:
    control = await link.open_stream()
    await control.send(v1.encode(v1.Hello(v=v1.WIRE_VERSION, name="mallory", clock_ms=int(time.time() * 1000))))
    assert await control.recv()
    return control


def card_of(key: KeyPair, node: str, name: str = "evil", **changes: Any) -> dict[str, Any]:
    now = int(time.time())
    fields: dict[str, Any] = {
        "agent_key_did": key.did,
        "node_id": node,
        "name": name,
        "description": "Bad.",
        "version": "1",
        "skills": [{"id": "s", "name": "s", "description": "s", "tags": ["t"]}],
        "input_modes": ["text/plain"],
        "output_modes": ["text/plain"],
        "seq": 1,
        "iat": now,
        "exp": now + 3600,
        **changes,
    }
    return build_card(**fields)


def lives_on(victim: Daemon) -> None:
    reply = victim.post("/api/v1/calls", {"to": "echo", "text": "still here"})
    assert reply["text"] == "still here"
    assert {a["name"] for a in victim.get("/api/v1/agents")["agents"]} == {"echo"}


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"\x00" * 100,
        b"\xff" * 5000,
        b"\x81" * 3000,
        b"\x91" * 100_000,
        b"GET / HTTP/1.1\r\n\r\n",
        v1.encode(Ping(1, 1, 0, 0)),
        v1.encode(v1.Hello(v=99, name="from the future")),
        v1.encode(v1.Hello(v=1, name="x" * 2_000_000)),
    ],
    ids=["empty", "zeros", "ones", "maps", "deep", "http", "no-hello", "version", "2MB-name"],
)
async def test_a_greeting_that_is_none_closes_the_link_and_nothing_else(victim: Daemon, first: bytes) -> None:
    async with attacker(victim) as (_, link):
        control = await link.open_stream()
        await control.send(first)
        async with asyncio.timeout(15):
            await link.wait_closed()
    await asyncio.to_thread(lives_on, victim)


async def test_forged_broken_and_oversized_records_are_dropped(victim: Daemon) -> None:
    owner, other = KeyPair.generate(b"\x07" * 32), KeyPair.generate(b"\x08" * 32)
    async with attacker(victim) as (key, link):
        control = await greet(link)
        good = sign_card(owner, card_of(owner, key.did))
        forged = {**good, "name": "echo"}
        stolen = {**card_of(owner, key.did), "signatures": sign_card(other, card_of(other, key.did))["signatures"]}
        floats = {**good, "price": 1.5}
        deep: Any = "x"
        for _ in range(200):
            deep = [deep]
        hostile = [
            msgspec.json.encode(forged),
            msgspec.json.encode(stolen),
            msgspec.json.encode(floats),
            msgspec.json.encode({**good, "extra": deep}),
            msgspec.json.encode(card_of(owner, key.did)),
            b'{"name":"a","name":"b"}',
            b"{" * 5000,
            b"\xff\xfe",
            msgspec.json.encode({**good, "description": "y" * 200_000}),
        ]
        for raw in hostile:
            await control.send(v1.encode(Records(records=[raw])))
            await control.send(v1.encode(Gossip(kind="agent", hops=1, payload=raw)))
        await control.send(v1.encode(Listing(prefixes=["zz"], lines=[Line(9, b"short", -5, -1)])))
        await control.send(v1.encode(Want(positions=[b"x" * 10_000])))
        await control.send(v1.encode(Shuffle(records=[b"nonsense"] * 100, ttl=1000)))
        await control.send(v1.encode(Join(record=msgspec.json.encode(good))))
        with contextlib.suppress(MeshError):
            await control.send(b"\x00" * (2 * 1024 * 1024))
        async with asyncio.timeout(15):
            await link.wait_closed()
    await asyncio.to_thread(lives_on, victim)


async def test_a_stranger_may_use_a_name_but_never_takes_the_calls_of_ones_own_agent(victim: Daemon) -> None:
    owner = KeyPair.generate(b"\x09" * 32)
    async with attacker(victim) as (key, link):
        control = await greet(link)
        raw = msgspec.json.encode(sign_card(owner, card_of(owner, key.did, "echo")))
        body = node_body(seq=1, iat=int(time.time()), wire=v1.WIRE_VERSION, addresses=("iroh:127.0.0.1:9",))
        await control.send(v1.encode(Join(record=sign_node_record(key, body))))
        async with asyncio.timeout(15):
            while len((await asyncio.to_thread(victim.get, "/api/v1/agents"))["agents"]) < 2:
                # Who answers as a neighbour should is one, and may broadcast.
                await control.send(v1.encode(Here(record=sign_node_record(key, body))))
                await control.send(v1.encode(Gossip(kind="agent", hops=1, payload=raw)))
        for _ in range(5):
            reply = await asyncio.to_thread(victim.post, "/api/v1/calls", {"to": "echo", "text": "mine"})
            assert (reply["text"], reply["node_id"]) == ("mine", victim.node_id)


@pytest.mark.parametrize(
    "message",
    [
        b"\xc1",
        b"\x00" * 20,
        v1.encode(v1.CallOpen(v=1, task_id="", run_id="r", agent_id="a", parts=[{"text": "x"}])),
        v1.encode(v1.CallOpen(v=1, task_id="t", run_id="r" * 500, agent_id="a", parts=[{"text": "x"}])),
        v1.encode(v1.CallOpen(v=1, task_id="t", run_id="r", agent_id="nobody", parts=[{"text": "x"}])),
        v1.encode(v1.CallOpen(v=1, task_id="t", run_id="r", agent_id="a", parts=[])),
        v1.encode(v1.CallOpen(v=1, task_id="t", run_id="r", agent_id="a", parts=[{}], deadline_ms=-1)),
        v1.encode(v1.CallOpen(v=1, task_id="t", run_id="r", agent_id="a", parts=[{}], hops=["h"] * 1000)),
        v1.encode(v1.CallOpen(v=7, task_id="t", run_id="r", agent_id="a", parts=[{}])),
        v1.encode(v1.TraceQuery(v=1, run_id="x" * 100_000)),
        v1.encode(v1.TraceQuery(v=1, run_id="../../etc/passwd")),
    ],
)
async def test_a_malformed_request_gets_a_refusal_or_a_reset_and_costs_nothing(victim: Daemon, message: bytes) -> None:
    async with attacker(victim) as (_, link):
        await greet(link)
        stream = await link.open_stream()
        await stream.send(message)
        await stream.finish()
        async with asyncio.timeout(10):
            try:
                answer = await stream.recv()
            except MeshError:
                answer = None
        if answer is not None:
            assert b"rejected" in answer or b"trace_events" in answer
    await asyncio.to_thread(lives_on, victim)


async def test_a_thousand_streams_that_say_nothing_do_not_keep_others_from_calling(victim: Daemon) -> None:
    async with attacker(victim) as (_, link):
        await greet(link)
        streams: list[Stream] = []
        with contextlib.suppress(MeshError):
            for _ in range(1500):
                streams.append(await link.open_stream())
                await streams[-1].send(b"")
        await asyncio.to_thread(lives_on, victim)
    await asyncio.to_thread(lives_on, victim)


async def test_a_flood_of_control_messages_is_throttled(victim: Daemon) -> None:
    async with attacker(victim) as (_, link):
        control = await greet(link)
        with contextlib.suppress(MeshError):
            for nonce in range(5_000):
                await control.send(v1.encode(Ping(nonce, 1, 0, 0)))
        await asyncio.to_thread(lives_on, victim)


# Calls and their tokens


def agent_of(victim: Daemon) -> str:
    agents = victim.get("/api/v1/agents")["agents"]
    return next(a["agent_id"] for a in agents if a["node_id"] == victim.node_id)


def opening(victim: Daemon, key: KeyPair, sign_with: KeyPair | None = None, **changes: Any) -> v1.CallOpen:
    """Return a call with a token as an honest node would make it, but for the claims that are changed."""
    now, task = int(time.time()), f"task-{secrets.token_hex(8)}"
    message = v1.CallOpen(
        v=1, task_id=task, run_id=f"run-{task}", agent_id=agent_of(victim), parts=[{"text": "once"}], caller=key.did
    )
    claims: dict[str, Any] = {
        "jti": secrets.token_hex(16),
        "htm": "CALL",
        "htu": f"mesh:{victim.node_id}/{key.did}",
        "iat": now,
        "exp": now + 60,
        "aud": message.agent_id,
        "purpose": "mischief",
        "skill": "",
        "digest": digest_of(message.parts, None, None),
        "idem": task,
        "trace_id": message.run_id,
        **changes,
    }
    message.token = sign_call_token(sign_with or key, CallClaims(**claims))
    return message


async def outcome(link: Link, message: v1.CallOpen) -> v1.CallEnd:
    """Send a call and return how it ended."""
    stream = await link.open_stream()
    await stream.send(v1.encode(message))
    async with asyncio.timeout(10):
        while (payload := await stream.recv()) is not None:
            reply = v1.decode_call_reply(payload)
            if isinstance(reply, v1.CallEnd):
                return reply
    raise AssertionError("the stream ended without an outcome")


async def test_a_stranger_with_an_honest_token_is_served(victim: Daemon) -> None:
    async with attacker(victim) as (key, link):
        await greet(link)
        assert (await outcome(link, opening(victim, key))).state == "completed"


async def test_the_same_call_sent_twice_runs_once_and_its_token_serves_no_other_task(victim: Daemon) -> None:
    async with attacker(victim) as (key, link):
        await greet(link)
        message = opening(victim, key)
        assert (await outcome(link, message)).state == "completed"
        again = await outcome(link, message)
        assert (again.state, (again.error or {})["code"]) == ("rejected", "token.replayed")
        message.task_id = "another"
        other = await outcome(link, message)
        assert (other.state, (other.error or {})["code"]) == ("rejected", "token.replayed")


async def test_a_token_that_was_used_just_before_the_node_was_killed_is_refused_after_it(victim: Daemon) -> None:
    async with attacker(victim) as (key, link):
        await greet(link)
        served = opening(victim, key)
        assert (await outcome(link, served)).state == "completed"
    victim.kill()
    victim.open()
    await asyncio.to_thread(wait_until, lambda: sees_agent(victim, "echo"), "the agent of the victim again")
    async with attacker(victim) as (_, link):
        await greet(link)
        end = await outcome(link, served)
        assert (end.state, (end.error or {})["code"]) == ("rejected", "token.replayed")


OTHER = KeyPair.generate(b"\x77" * 32)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"iat": int(time.time()) - 200, "exp": int(time.time()) - 140}, "token.expired"),
        ({"iat": int(time.time()) + 4_000, "exp": int(time.time()) + 4_050}, "token.not_yet_valid"),
        ({"aud": OTHER.did}, "token.audience"),
        ({"htm": "POST"}, "token.method"),
        ({"htu": "https://victim.example/a2a"}, "token.address"),
        ({"digest": digest_of([{"text": "another body"}], None, None)}, "token.digest"),
        ({"idem": "another-task"}, "token.task"),
        ({"hops": (OTHER.did,)}, "token.hops"),
        ({"sign_with": OTHER}, "token.caller"),
    ],
)
async def test_a_token_that_is_wrong_in_one_thing_is_refused_and_nothing_runs(
    victim: Daemon, changes: dict[str, Any], code: str
) -> None:
    async with attacker(victim) as (key, link):
        await greet(link)
        message = opening(victim, key, **changes)
        end = await outcome(link, message)
        assert (end.state, (end.error or {})["code"], end.events) == ("rejected", code, [])
    status, _ = await asyncio.to_thread(victim.ask, "GET", f"/api/v1/runs/{message.run_id}/events", None)
    assert status == 404


async def test_a_token_of_another_connection_is_worth_nothing(victim: Daemon) -> None:
    async with attacker(victim, 66) as (owner, link), attacker(victim, 67) as (thief, stolen_by):
        await greet(link)
        await greet(stolen_by)
        message = opening(victim, owner)
        end = await outcome(stolen_by, message)
        assert (end.error or {})["code"] == "token.address"
        message.caller = thief.did
        assert (await outcome(stolen_by, message)).state == "rejected"
        message.caller = owner.did
        assert (await outcome(link, message)).state == "completed", "the thief did not use it up"


@pytest.mark.parametrize("alg", ["none", "HS256", "ES256", "EdDSA", ""])
async def test_a_forged_token_is_refused_whatever_algorithm_it_names(victim: Daemon, alg: str) -> None:
    async with attacker(victim) as (key, link):
        await greet(link)
        message = opening(victim, key)
        protected, payload, signature = message.token.split(".")
        header = json.loads(unb64url(protected)) | {"alg": alg}
        forged = b64url(json.dumps(header).encode())
        message.token = f"{forged}.{payload}.{signature if alg != 'none' else ''}"
        end = await outcome(link, message)
        assert (end.state, end.events) == ("rejected", [])


async def test_a_call_that_comes_back_to_its_callee_is_refused_before_work(victim: Daemon) -> None:
    async with attacker(victim) as (key, link):
        await greet(link)
        hops = (OTHER.did, agent_of(victim))
        message = opening(victim, key, hops=hops)
        message.hops = list(hops)
        end = await outcome(link, message)
        assert (end.state, (end.error or {})["code"]) == ("rejected", "refused.loop")


async def test_a_call_without_a_token_is_refused(victim: Daemon) -> None:
    async with attacker(victim) as (key, link):
        await greet(link)
        message = opening(victim, key)
        message.token = ""
        end = await outcome(link, message)
        assert (end.state, (end.error or {})["code"]) == ("rejected", "token.missing")


def test_bytes_on_the_udp_port_that_are_no_quic_disturb_nobody(victim: Daemon) -> None:
    host, _, port = victim.seed().rpartition("@")[2].rpartition(":")
    rng = random.Random(5)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gun:
        for _ in range(500):
            gun.sendto(rng.randbytes(rng.randrange(1, 1400)), (host, int(port)))
    lives_on(victim)
