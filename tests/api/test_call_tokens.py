"""Call tokens at the doors for calls: the HTTP API and A2A, before a real node (docs/spec/tokens.md §8)."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from a2a.client import ClientConfig, create_client
from a2a.helpers.proto_helpers import get_artifact_text, new_text_message
from a2a.types.a2a_pb2 import Role, SendMessageRequest, TaskState
from google.protobuf.json_format import MessageToDict

from agentmesh.api.a2a import A2AEdge
from agentmesh.identity.budget import Budget
from agentmesh.identity.claims import hash_of
from agentmesh.identity.grant import sign_grant
from agentmesh.identity.grant_claims import GrantClaims
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import EXT
from agentmesh.identity.order import Stop
from agentmesh.identity.receipt import check_receipt, read_receipt
from agentmesh.identity.token import CallClaims, digest_of, read_kept_token, sign_call_token
from agentmesh.node.door import Happening, Invocation
from agentmesh.store import audit_read
from tests.api.serving import TOKEN, serving
from tests.support.records import key
from tests.unit.node.test_killswitch import OPERATOR, order
from tests.unit.node.test_two_nodes import echo, fail, hang
from tests.unit.node.world import Member, ScriptedAgent, until, world

CALLER = key(31)
A2A_HEADERS = {"a2a-version": "1.0"}


@dataclass
class House:
    """One node with an agent, its API on a socket, and a program with a key of its own."""

    member: Member
    url: str
    http: httpx.AsyncClient
    agent: ScriptedAgent
    agent_id: str

    @property
    def a2a_url(self) -> str:
        return f"{self.url}/a2a/{self.agent.name}"

    def token(self, parts: list[dict[str, Any]], *, to: str, pair: KeyPair = CALLER, **over: Any) -> str:
        now = int(time.time())
        claims: dict[str, Any] = {
            "jti": os.urandom(16).hex(),
            "htm": "POST",
            "htu": to,
            "iat": now,
            "exp": now + 60,
            "aud": self.agent_id,
            "purpose": "to test",
            "skill": "",
            "digest": digest_of(parts, None, None),
            "idem": os.urandom(16).hex(),
            "trace_id": os.urandom(16).hex(),
        }
        return sign_call_token(pair, CallClaims(**{**claims, **over}))

    async def call(
        self, token: str, text: str = "hello", headers: dict[str, str] | None = None, **body: Any
    ) -> httpx.Response:
        given = {"to": self.agent.name, "text": text, **body}
        return await self.http.post("/api/v1/calls", json=given, headers={"DPoP": token, **(headers or {})})

    async def send(self, token: str, text: str = "hello", *, message_id: str, **message: Any) -> httpx.Response:
        said = {"messageId": message_id, "role": "ROLE_USER", "parts": [{"text": text}], **message}
        rpc = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": said}}
        return await self.http.post(f"/a2a/{self.agent.name}", json=rpc, headers={"DPoP": token, **A2A_HEADERS})

    def of_calls(self, text: str = "hello", **over: Any) -> str:
        return self.token([{"text": text}], to=f"{self.url}/api/v1/calls", **over)

    def of_a2a(self, text: str = "hello", **over: Any) -> str:
        return self.token([{"text": text}], to=self.a2a_url, **over)

    async def audit(self) -> list[dict[str, Any]]:
        await self.member.node.audit.log.settle()
        return [r.data for r in audit_read.select(self.member.node.audit.log.directory, start=0) if r.action == "call"]


@asynccontextmanager
async def house(tmp_path: Path, script: Any = echo, **config: Any) -> AsyncIterator[House]:
    async with world(tmp_path, 1, **config) as (member,):
        agent = await member.serve("echo", script)
        edge = A2AEdge(member.node, port_of=lambda: 1)
        options = {"extra_routes": edge.routes(), "a2a_open": config.get("a2a_open", True)}
        async with (
            serving(member.node, **options) as served,
            httpx.AsyncClient(base_url=served.url, timeout=20) as http,
        ):  # type: ignore[arg-type]
            yield House(member, served.url, http, agent, member.node.agents()[0].agent_id)
            await edge.aclose()


def reason_of(answer: httpx.Response) -> str:
    """Return the code of a refusal, in whatever shape the door tells it."""
    body = answer.json()
    if "error" in body:
        return str(body["error"]["data"][0]["metadata"]["code"])
    return str(body["code"])


async def test_a_program_calls_with_its_own_key_and_nothing_else_and_gets_a_receipt_for_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        token = h.of_calls(budget=Budget(tokens=7))
        answer = await h.call(token)
        assert (answer.status_code, answer.json()["text"]) == (200, "hello")
        receipt = read_receipt(answer.headers["agentmesh-receipt"])
        check_receipt(receipt, read_kept_token(token), res_digest=None)
        assert (receipt.issuer, receipt.claims.aud, receipt.claims.outcome) == (h.agent_id, CALLER.did, "completed")
        (seen,) = h.agent.calls
        assert (seen.caller, seen.budget.tokens) == (CALLER.did, 7)
        (record,) = await h.audit()
        assert (record["agent"], record["decision"], record.get("node", "")) == (CALLER.did, "allowed", "")
        trace = await h.member.node.trace(answer.json()["run_id"])
        assert [e.payload.get("state") for e in trace.events] == ["submitted", "working", None, "completed"]


async def test_the_official_a2a_client_calls_with_a_token_that_is_signed_over_its_message(tmp_path: Path) -> None:
    async with house(tmp_path) as h:

        async def sign(request: httpx.Request) -> None:
            if request.method != "POST":
                return
            message = json.loads(request.content)["params"]["message"]
            request.headers["DPoP"] = h.token(message["parts"], to=h.a2a_url, idem=message["messageId"])

        async with httpx.AsyncClient(timeout=20, event_hooks={"request": [sign]}) as http:
            client = await create_client(h.a2a_url, ClientConfig(streaming=False, httpx_client=http))
            message = new_text_message("hello", role=Role.ROLE_USER)
            (answer,) = [r async for r in client.send_message(SendMessageRequest(message=message))]
            task = answer.task
            assert task.status.state == TaskState.TASK_STATE_COMPLETED
            assert [get_artifact_text(a) for a in task.artifacts] == ["hello"]
            about = MessageToDict(task.metadata)[EXT]
            receipt = read_receipt(about["receipt"])
            assert (receipt.claims.aud, receipt.claims.task_id) == (CALLER.did, message.message_id)
            streaming = await create_client(h.a2a_url, ClientConfig(streaming=True, httpx_client=http))
            message = new_text_message("again", role=Role.ROLE_USER)
            updates = [r async for r in streaming.send_message(SendMessageRequest(message=message))]
            last = updates[-1].status_update
            assert read_receipt(MessageToDict(last.metadata)[EXT]["receipt"]).claims.outcome == "completed"
        assert [call.caller for call in h.agent.calls] == [CALLER.did] * 2


WRONG: dict[str, dict[str, Any]] = {
    "token.audience": {"aud": key(32).did},
    "token.expired": {"iat": 1_700_000_000, "exp": 1_700_000_060},
    "token.not_yet_valid": {"iat": 4_000_000_000, "exp": 4_000_000_060},
    "token.digest": {"digest": digest_of([{"text": "something else"}], None, None)},
    "token.address": {"htu": "http://127.0.0.1:1/elsewhere"},
    "token.method": {"htm": "CALL"},
    "grant.missing": {"ath": hash_of("a grant that is not there")},
}


@pytest.mark.parametrize("code", WRONG)
async def test_a_wrong_token_is_a_refusal_at_every_door_and_never_a_call_of_nobody(tmp_path: Path, code: str) -> None:
    async with house(tmp_path) as h:
        answers = [
            await h.call(h.of_calls(**WRONG[code])),
            await h.send(h.of_a2a(**{"idem": "m-1", **WRONG[code]}), message_id="m-1"),
            await h.call(h.of_calls(**WRONG[code]), headers={"Authorization": f"Bearer {TOKEN}"}),
        ]
        if code == "grant.missing":  # found once the token holds: a lawful no of the agent, with a receipt
            assert [answers[0].status_code, answers[2].status_code] == [401, 401]
            assert answers[1].json()["result"]["task"]["status"]["state"] == "TASK_STATE_REJECTED"
        else:
            assert [(a.status_code, reason_of(a)) for a in answers] == [(401, code)] * 3
            assert answers[0].headers["www-authenticate"].startswith("DPoP")
            assert [(r["decision"], r["code"]) for r in await h.audit()] == [("refused", code)] * 3
        assert h.agent.calls == []


async def test_what_is_no_token_at_all_is_refused_too(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        good = h.of_a2a(idem="m-1")
        forged = good[:-8] + ("A" * 8 if good[-8:] != "A" * 8 else "B" * 8)
        for token, code in (("x", "jws.malformed"), ("", "jws.malformed"), (forged, "signature.invalid")):
            answer = await h.send(token, message_id="m-1")
            assert (answer.status_code, reason_of(answer)) == (401, code), token
        assert (await h.send("a" * 7000, message_id="m-1")).json()["code"] == "token.too_large"
        twice = [("DPoP", good), ("DPoP", good)]
        assert (await h.http.post("/a2a/echo", json={}, headers=twice)).json()["code"] == "token.several"
        assert (await h.send(good, message_id="m-1")).json()["result"]["task"]["status"][
            "state"
        ] == "TASK_STATE_COMPLETED"


async def test_a_token_is_good_for_one_call_and_its_idempotency_key_for_one_run(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        for call, sign in ((h.call, h.of_calls), (h.send, h.of_a2a)):
            h.agent.calls.clear()
            idem = os.urandom(16).hex()
            trace_id = idem[::-1]
            more: dict[str, Any] = {"message_id": idem} if call == h.send else {}
            token = sign(idem=idem, trace_id=trace_id)
            assert (await call(token, **more)).status_code == 200
            again = await call(token, **more)
            assert (again.status_code, reason_of(again)) == (401, "token.replayed")
            retried = await call(sign(idem=idem, trace_id=trace_id), **more)
            assert retried.status_code == 200
            assert "hello" in retried.text
            assert len(h.agent.calls) == 1


async def test_a_token_names_task_run_chain_and_caller_and_the_request_may_not_say_otherwise(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        for body, code in (
            ({"task_id": "another"}, "token.task"),
            ({"run_id": "another"}, "token.task"),
            ({"hops": [key(33).did]}, "token.hops"),
            ({"from_agent": "echo"}, "token.caller"),
        ):
            answer = await h.call(h.of_calls(), **body)
            assert (answer.status_code, reason_of(answer)) == (401, code)
        answer = await h.send(h.of_a2a(idem="m-1"), message_id="m-2")
        assert (answer.status_code, reason_of(answer)) == (401, "token.task")
        looped = await h.call(h.of_calls(hops=(h.agent_id, CALLER.did)))
        assert (looped.status_code, reason_of(looped)) == (508, "token.loop")
        assert h.agent.calls == []


async def test_policy_judges_the_key_that_signed_and_the_refusal_has_a_receipt(tmp_path: Path) -> None:
    async with house(tmp_path, policy="closed") as h:
        refused = await h.call(h.of_calls())
        assert (refused.status_code, reason_of(refused)) == (403, "policy.denied")
        receipt = read_receipt(refused.headers["agentmesh-receipt"])
        assert (receipt.claims.outcome, receipt.claims.aud) == ("rejected", CALLER.did)
        # Without a token the same program speaks as the person at this node, who may call.
        anonymous = await h.http.post(
            "/a2a/echo",
            json={"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": {
                "messageId": "m", "role": "ROLE_USER", "parts": [{"text": "hello"}]}}},
            headers=A2A_HEADERS,
        )  # fmt: skip
        assert anonymous.json()["result"]["task"]["status"]["state"] == "TASK_STATE_COMPLETED"
        rejected = await h.send(h.of_a2a(idem="m-3"), message_id="m-3")
        task = rejected.json()["result"]["task"]
        assert task["status"]["state"] == "TASK_STATE_REJECTED"
        assert read_receipt(task["metadata"][EXT]["receipt"]).claims.outcome == "rejected"
        assert len(h.agent.calls) == 1


async def test_a_grant_comes_in_the_authorization_header_and_opens_a_closed_agent(tmp_path: Path) -> None:
    async with house(tmp_path, policy="closed") as h:
        now = int(time.time())
        grant = sign_grant(
            h.member.key,
            GrantClaims(
                sub="alice", client_id=CALLER.did, aud=(h.agent_id,), iat=now, exp=now + 60, jti="grant-0123456789",
                scopes=("call.*",), limits=(), depth=0, depth_max=None, par_hash=None,
            ),
        )  # fmt: skip
        header = {"Authorization": f"DPoP {grant}"}
        answer = await h.call(h.of_calls(ath=hash_of(grant)), headers=header)
        assert answer.status_code == 200, answer.text
        assert read_receipt(answer.headers["agentmesh-receipt"]).claims.grant == hash_of(grant)
        stolen = h.of_calls(ath=hash_of(grant), pair=key(34))
        answer = await h.call(stolen, headers=header)
        assert answer.status_code in (401, 403)
        assert reason_of(answer).startswith("grant.")
        assert len(h.agent.calls) == 1


async def test_a_token_opens_one_call_and_no_other_route_and_no_other_method(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        token = h.of_calls()
        for method, path in (("GET", "/api/v1/agents"), ("POST", "/api/v1/shutdown"), ("GET", "/api/v1/status")):
            answer = await h.http.request(method, path, headers={"DPoP": token})
            assert (answer.status_code, answer.json()["code"]) == (401, "refused.token"), path
        rpc = {"jsonrpc": "2.0", "id": 1, "method": "GetExtendedAgentCard", "params": {}}
        answer = await h.http.post("/a2a/echo", json=rpc, headers={"DPoP": h.of_a2a(), **A2A_HEADERS})
        assert (answer.status_code, reason_of(answer)) == (401, "token.no_call")


async def test_the_tasks_of_a_caller_with_a_token_are_its_own(tmp_path: Path) -> None:
    async def ask_more(call: Invocation) -> AsyncIterator[Happening]:
        yield Happening("status", {"state": "input-required"})

    async with house(tmp_path, ask_more) as h:
        first = (await h.send(h.of_a2a(idem="m-1"), message_id="m-1")).json()["result"]["task"]
        parts, context = [{"text": "hello"}], first["contextId"]
        more: dict[str, Any] = {"taskId": first["id"], "contextId": context}
        digest = digest_of(parts, None, context)
        other = h.token(parts, to=h.a2a_url, idem="m-2", digest=digest, pair=key(35))
        stranger = await h.send(other, message_id="m-2", **more)
        assert "error" in stranger.json()
        own = h.token(parts, to=h.a2a_url, idem="m-3", digest=digest)
        assert (await h.send(own, message_id="m-3", **more)).json()["result"]["task"]["id"] == first["id"]


async def test_a_task_is_read_and_canceled_with_tokens_of_the_key_that_began_it_and_by_nobody_else(
    tmp_path: Path,
) -> None:
    async with house(tmp_path, hang) as h:

        async def about(method: str, params: dict[str, Any], pair: KeyPair | None, **over: Any) -> dict[str, Any]:
            headers = dict(A2A_HEADERS)
            if pair is not None:
                digest = digest_of([{"data": params}], method, None)
                headers["DPoP"] = h.of_a2a(pair=pair, **{"digest": digest, "skill": method, **over})
            rpc = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            return (await h.http.post("/a2a/echo", json=rpc, headers=headers)).json()

        message = {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": "hello"}]}
        params = {"message": message, "configuration": {"returnImmediately": True}}
        rpc = {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": params}
        headers = {"DPoP": h.of_a2a(idem="m-1"), **A2A_HEADERS}
        task = (await h.http.post("/a2a/echo", json=rpc, headers=headers)).json()["result"]["task"]
        await until(lambda: len(h.agent.calls) == 1)
        for pair in (None, key(36)):
            for method in ("GetTask", "CancelTask"):
                assert "error" in await about(method, {"id": task["id"]}, pair)
        assert "error" in await about("GetTask", {"id": "m-1"}, CALLER), "ids of the log are of anybody"
        wrong = await about("CancelTask", {"id": task["id"]}, CALLER, digest=digest_of([], "CancelTask", None))
        assert wrong["error"]["data"][0]["metadata"]["code"] == "token.digest"
        assert (await about("GetTask", {"id": task["id"]}, CALLER))["result"]["status"]["state"] == "TASK_STATE_WORKING"
        assert len((await about("ListTasks", {}, CALLER))["result"]["tasks"]) == 1
        ended = await about("CancelTask", {"id": task["id"]}, CALLER)
        assert ended["result"]["status"]["state"] == "TASK_STATE_CANCELED"
        assert h.agent.canceled == ["m-1"]


async def test_the_failure_of_an_agent_is_told_with_its_receipt(tmp_path: Path) -> None:
    async with house(tmp_path, fail) as h:
        answer = await h.call(h.of_calls())
        assert answer.status_code == 502
        assert read_receipt(answer.headers["agentmesh-receipt"]).claims.outcome == "failed"


async def test_a_stop_of_the_node_ends_calls_with_tokens_too_and_lets_none_begin(tmp_path: Path) -> None:
    async with house(tmp_path, hang, operators=(OPERATOR.did,)) as h:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(h.call(h.of_calls()))
            await until(lambda: len(h.agent.calls) == 1)
            await h.member.node.take_order(order(Stop("drill")))
        answer = waiting.result()
        assert (answer.status_code, reason_of(answer)) == (503, "refused.read_only")
        later = await h.call(h.of_calls())
        assert (later.status_code, reason_of(later)) == (503, "refused.read_only")
        assert len(h.agent.calls) == 1


async def test_a_token_is_checked_only_by_the_node_of_its_agent(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        agent = await b.serve("far", echo)
        await until(lambda: any(v.name == "far" for v in a.node.agents()))
        edge = A2AEdge(a.node, port_of=lambda: 1)
        async with (
            serving(a.node, extra_routes=edge.routes()) as served,  # type: ignore[arg-type]
            httpx.AsyncClient(base_url=served.url, timeout=20) as http,
        ):
            h = House(a, served.url, http, agent, b.node.agents()[0].agent_id)
            answer = await h.call(h.of_calls())
            assert (answer.status_code, reason_of(answer)) == (401, "token.here")
        assert agent.calls == []
