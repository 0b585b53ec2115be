"""The WebSocket: who may open one, what its frames do, and that a client that leaves or does not read harms nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from agentmesh.api.access import Access
from agentmesh.wire.access import KeyRequest
from tests.api.messaging_doubles import FakeLocks, FakeMail, FakeState, FakeTopics
from tests.api.node_double import FakeBackend
from tests.api.serving import TOKEN, Served, Shelf, serving


def backend() -> Any:
    one: Any = FakeBackend()
    one.mail, one.topics, one.state, one.locks = FakeMail(), FakeTopics(), FakeState(), FakeLocks()
    return one


def opened(served: Served, token: str = TOKEN, path: str = "/api/v1/ws", **headers: str) -> Any:
    url = f"ws://127.0.0.1:{served.port}{path}"
    given = {**({"Authorization": f"Bearer {token}"} if token else {}), **headers}
    return connect(url, additional_headers=given, proxy=None)


@contextlib.asynccontextmanager
async def socket(one: Any = None) -> AsyncIterator[tuple[ClientConnection, Any]]:
    async with serving(one or backend()) as served, opened(served) as ws:
        yield ws, served.backend


async def say(ws: ClientConnection, **frame: Any) -> None:
    await ws.send(json.dumps(frame))


async def hear(ws: ClientConnection) -> Any:
    async with asyncio.timeout(10):
        return json.loads(await ws.recv())


async def asked(ws: ClientConnection, **frame: Any) -> Any:
    await say(ws, **frame)
    return await hear(ws)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is in the doubles
            await asyncio.sleep(0.005)


@pytest.mark.parametrize(
    ("token", "path", "headers", "status", "code"),
    [
        ("", "/api/v1/ws", {}, 401, "refused.token"),
        ("wrong", "/api/v1/ws", {}, 401, "refused.token"),
        (TOKEN, "/api/v1/ws", {"Origin": "https://evil.example"}, 403, "refused.origin"),
        (TOKEN, "/api/v1/ws?key=amk_x", {}, 401, "refused.query"),
        (TOKEN, "/api/v1/other", {}, 404, "http.not_found"),
        ("", "/api/v1/ws", {"Cookie": "agentmesh_console_6374=x"}, 401, "refused.token"),
    ],
)
async def test_a_socket_is_opened_to_those_only_who_may_use_the_api(
    token: str, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    async with serving(backend()) as served:
        with pytest.raises(InvalidStatus) as caught:
            async with opened(served, token, path, **headers):
                pass
        answer = caught.value.response
        assert (answer.status_code, json.loads(answer.body or b"{}")["code"]) == (status, code)


async def test_a_key_needs_the_scope_and_its_end_closes_the_socket() -> None:
    access = Access(TOKEN, Shelf())
    may_not = access.add_key(KeyRequest(name="ro", scopes=["read"])).secret
    may = access.add_key(KeyRequest(name="chat", scopes=["message"])).secret
    async with serving(backend(), access=access) as served:
        with pytest.raises(InvalidStatus) as caught:
            async with opened(served, may_not):
                pass
        assert caught.value.response.status_code == 403
        async with opened(served, may) as ws:
            assert "ok" in await asked(ws, id=1, op="publish", items=[{"subject": "a", "text": "x"}])
            access.revoke_key("chat")
            with pytest.raises(ConnectionClosed) as closed:
                await hear(ws)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1008


async def test_batches_are_sent_and_published_and_answered_one_by_one() -> None:
    async with socket() as (ws, node):
        answer = await asked(ws, id=1, op="send", messages=[{"to": "bob", "text": "a"}, {"to": "nobody", "text": "b"}])
        assert answer["id"] == 1
        assert answer["ok"][0]["state"] == "delivered"
        assert answer["ok"][1]["problem"]["status"] == 404
        answer = await asked(ws, id=2, op="publish", items=[{"subject": "a.b", "data": [1]}] * 3)
        assert [one["offset"] for one in answer["ok"]] == [1, 2, 3]
        assert len(node.topics.log) == 3


async def test_an_inbox_is_followed_within_its_window_and_acknowledged() -> None:
    async with socket() as (ws, node):
        assert (await asked(ws, id=7, op="inbox", agent="bob", window=2)) == {"id": 7, "ok": None}
        await asked(ws, id=8, op="send", messages=[{"to": "bob", "text": str(n)} for n in range(3)])
        heard: list[Any] = []
        # The frames of the inbox and the answer to the batch may come in any order.
        while sum(len(one.get("messages", [])) for one in heard) < 2:
            heard.append(await hear(ws))
        got = [m for one in heard for m in one.get("messages", [])]
        assert [m["data"] for m in got] == ["0", "1"]
        assert len(node.mail.leased) == 2, "the third waits for its place in the window"
        await say(ws, id=9, op="ack", agent="bob", message_ids=[m["message_id"] for m in got])
        frames = [await hear(ws), await hear(ws)]
        third = next(one for one in frames if one.get("on") == 7)
        assert [m["data"] for m in third["messages"]] == ["2"]
    await until(lambda: len(node.mail.given_back) == 1)
    assert len(node.mail.done) == 2


async def test_topics_are_followed_and_left() -> None:
    async with socket() as (ws, node):
        assert (await asked(ws, id=1, op="subscribe", subjects=["a.*"]))["ok"] is None
        await until(lambda: node.topics.followers == 1)
        await say(ws, id=2, op="publish", items=[{"subject": "a.b", "text": "x"}])
        frames = [await hear(ws), await hear(ws)]
        event = next(one["event"] for one in frames if one.get("on") == 1)
        assert (event["subject"], event["data"], event["specversion"]) == ("a.b", "x", "1.0")
        assert (await asked(ws, id=3, op="stop", on=1))["ok"] is None
        await until(lambda: node.topics.followers == 0)
        assert (await asked(ws, id=4, op="stop", on=1))["problem"]["code"] == "ws.unknown"
        ended = [await asked(ws, id=5, op="subscribe", subjects=["a"], topic="missing"), await hear(ws)]
        assert next(one for one in ended if one.get("on") == 5)["problem"]["status"] == 404


async def test_work_of_a_group_is_acknowledged() -> None:
    async with socket() as (ws, node):
        await asked(ws, id=1, op="done", topic="jobs", group="g", leases=["l1"], back=True)
        assert node.topics.acked == [("jobs", "g", ("l1",), True)]


@pytest.mark.parametrize(
    "frame",
    [
        "nonsense",
        "[]",
        '{"op":"dance","id":1}',
        '{"op":"send","id":1,"messages":[]}',
        '{"op":"inbox","id":1,"window":0}',
        '{"op":"subscribe","id":1}',
        '{"op":"ack","id":1,"message_ids":[1]}',
        "[" * 5000,
    ],
)
async def test_frames_that_make_no_sense_are_answered_and_the_socket_lives(frame: str) -> None:
    async with socket() as (ws, _):
        await ws.send(frame)
        assert "problem" in await hear(ws)
        assert "ok" in await asked(ws, id=2, op="publish", items=[{"subject": "a", "text": "x"}])


async def test_an_id_is_used_once_and_a_socket_follows_so_many() -> None:
    async with socket() as (ws, _):
        for n in range(64):
            assert "ok" in await asked(ws, id=n, op="subscribe", subjects=["a"])
        assert (await asked(ws, id=3, op="subscribe", subjects=["a"]))["problem"]["code"] == "ws.id"
        assert (await asked(ws, id=99, op="subscribe", subjects=["a"]))["problem"]["code"] == "ws.follows"


async def test_a_client_that_does_not_read_holds_up_nobody_else() -> None:
    one = backend()
    big = "x" * 100_000
    async with serving(one) as served, opened(served) as slow, opened(served) as quick:
        await say(slow, id=1, op="subscribe", subjects=["a"])
        slow.transport.pause_reading()
        await asked(quick, id=1, op="subscribe", subjects=["a"])
        await until(lambda: one.topics.followers == 2)
        for n in range(100):
            await say(quick, id=n + 2, op="publish", items=[{"subject": "a", "text": big}])
        events = 0
        while events < 100:
            events += "event" in await hear(quick)
        slow.transport.resume_reading()
        for _ in range(101):
            await hear(slow)


async def test_sockets_end_with_the_daemon() -> None:
    async with serving(backend()) as served, opened(served) as ws:
        await asked(ws, id=1, op="subscribe", subjects=["a"])
        served.app.end_streams()
        with pytest.raises(ConnectionClosed) as closed:
            await hear(ws)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1001
        await until(lambda: served.backend.topics.followers == 0)
