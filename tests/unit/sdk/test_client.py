"""The async client against a real server: what it asks, what it returns, what it raises."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import (
    ERROR_TABLE,
    AgentFailed,
    AgentNotFound,
    Busy,
    Closed,
    DecodeError,
    LimitError,
    MeshError,
    NoRoute,
    RunNotFound,
    StateError,
    Timeout,
    Unauthorized,
    UsageError,
)
from agentmesh.sdk import client as client_module
from agentmesh.sdk import context, requests
from agentmesh.sdk.client import Mesh
from agentmesh.sdk.types import CallRequest
from agentmesh.wire.event import EventV1, digest
from tests.api.node_double import AGENT, RUN, FakeBackend, event
from tests.api.serving import TOKEN, Served, serving


@contextlib.asynccontextmanager
async def meshed(backend: FakeBackend | None = None, **options: Any) -> AsyncIterator[tuple[Mesh, Served]]:
    async with serving(backend, **options) as served, Mesh(url=served.url, token=TOKEN) as mesh:
        yield mesh, served


def sent_call(served: Served) -> CallRequest:
    """Return the last call that reached the node."""
    return [asked[1] for asked in served.backend.asked if asked[0] == "call"][-1]


def hang(backend: FakeBackend) -> None:
    backend.prepare = lambda call: setattr(call, "hangs", True)


async def test_a_call_returns_a_reply_that_reads_as_its_text() -> None:
    async with meshed() as (mesh, served):
        reply = await mesh.call("echo", "hi", skill="s", timeout_s=5, context_id="c", task_id="t1", metadata={"k": 1})
        assert (str(reply), reply.state, reply.run_id, reply.task_id) == ("echo: hi", "completed", RUN, "t1")
        request = sent_call(served)
        assert (request.skill, request.timeout_s, request.context_id, request.metadata) == ("s", 5, "c", {"k": 1})
        assert not request.stream


async def test_data_and_parts_arrive_as_they_were_given() -> None:
    async with meshed() as (mesh, served):
        assert (await mesh.call("echo", data={"a": [1, 2.5, None, "é"]})).data == [{"a": [1, 2.5, None, "é"]}]
        await mesh.call("echo", parts=[{"text": "a"}, {"data": 1}])
        assert sent_call(served).parts == [{"text": "a"}, {"data": 1}]


async def test_every_task_id_is_chosen_here_so_that_it_can_be_canceled() -> None:
    async with meshed() as (mesh, served):
        await mesh.call("echo", "a")
        first = sent_call(served).task_id
        await mesh.call("echo", "b")
        second = sent_call(served).task_id
        assert len({first, second, None, ""}) == 4


async def test_a_call_made_inside_an_agent_is_part_of_its_run_and_raises_its_time() -> None:
    async with meshed() as (mesh, served):
        inside = context.CallContext(
            run_id="r9", task_id="t9", agent_name="calc", agent_id=AGENT, hops=["h1"], lamport=3, traceparent="00-x"
        )
        token = context.enter(inside)
        try:
            await mesh.call("echo", "hi")
        finally:
            context.leave(token)
        request = sent_call(served)
        assert (request.run_id, request.parent_task_id, request.lamport) == ("r9", "t9", 3)
        assert (request.hops, request.from_agent, request.traceparent) == (["h1"], AGENT, "00-x")
        assert inside.lamport == 7
        await mesh.call("echo", "outside")
        assert sent_call(served).run_id is None


@pytest.mark.parametrize("error_type", ERROR_TABLE, ids=lambda t: t.__name__)
async def test_every_error_arrives_as_the_class_it_was_raised_with(error_type: type[MeshError]) -> None:
    backend = FakeBackend()
    backend.call_failure = error_type("no", why="w", hint="h")
    async with meshed(backend) as (mesh, _):
        with pytest.raises(error_type) as caught:
            await mesh.call("echo", "x")
        assert (caught.value.detail, caught.value.why, caught.value.hint) == ("no", "w", "h")
        assert caught.value.extra["run_id"] == RUN
        with pytest.raises(error_type):
            async for _ in mesh.stream("echo", "x"):
                pass


async def test_busy_keeps_when_to_try_again() -> None:
    backend = FakeBackend()
    backend.call_failure = Busy("full", retry_after_s=7)
    async with meshed(backend) as (mesh, _):
        with pytest.raises(Busy) as caught:
            await mesh.call("echo", "x")
        assert caught.value.retry_after_s == 7


async def test_a_stream_yields_the_events_and_then_has_the_reply() -> None:
    async with meshed() as (mesh, _):
        stream = mesh.stream("echo", "hi")
        with pytest.raises(StateError):
            _ = stream.reply
        kinds = [event.kind async for event in stream]
        assert kinds == ["status", "message", "status"]
        assert str(stream.reply) == "echo: hi"
        assert stream.reply.task_id == stream.task_id
        with pytest.raises(StateError):
            async for _ in stream:
                pass


async def test_leaving_a_stream_early_cancels_the_call() -> None:
    backend = FakeBackend()
    hang(backend)
    async with meshed(backend) as (mesh, _):
        async with mesh.stream("echo", "hi") as stream:
            async for _ in stream:
                break
        await asyncio.wait_for(backend.calls[0].closed.wait(), 10)


async def test_a_stream_that_is_only_dropped_cancels_the_call_too() -> None:
    backend = FakeBackend()
    hang(backend)
    async with meshed(backend) as (mesh, _):

        async def peek() -> EventV1:
            async for one in mesh.stream("echo", "hi"):
                return one
            raise AssertionError

        await peek()
        gc.collect()
        await asyncio.wait_for(backend.calls[0].closed.wait(), 10)


async def test_cancelling_the_awaiting_task_cancels_the_remote_one() -> None:
    backend = FakeBackend()
    hang(backend)
    async with meshed(backend) as (mesh, _), asyncio.TaskGroup() as group:
        task = group.create_task(mesh.call("echo", "hi"))
        await asyncio.wait_for(backend.call_started.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ("cancel", backend.calls[0].task_id) in backend.asked
        assert backend.calls[0].ended.is_set()


async def test_a_timeout_around_a_call_cancels_the_remote_task() -> None:
    backend = FakeBackend()
    hang(backend)
    async with meshed(backend) as (mesh, _):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await mesh.call("echo", "hi")
        assert ("cancel", backend.calls[0].task_id) in backend.asked


async def test_every_other_method_asks_its_route() -> None:
    async with meshed() as (mesh, served):
        assert [a.name for a in await mesh.discover()] == ["echo"]
        assert await mesh.discover("zzz") == []
        assert (await mesh.agent("echo")).agent.agent_id == AGENT
        registered = await mesh.register("http://127.0.0.1:9", name="nine", door="http", params={"qps_budget": 1})
        assert [a.name for a in registered] == ["nine"]
        assert served.backend.asked[-1][1].params == {"qps_budget": 1}
        assert (await mesh.deregister("nine")).name == "nine"
        await mesh.call("echo", "x", task_id="t1")
        assert (await mesh.cancel("t1")).task_id == "t1"
        assert [r.count for r in await mesh.runs(1)] == [3]
        assert (await mesh.status()).node_id
        assert [p.connected for p in await mesh.peers()] == [True]
        assert await mesh.add_seeds(["s"])
        assert served.backend.asked[-2:] == [("add_seeds", ["s"]), ("peers",)]
        assert (await mesh.net()).map[0].answered
        assert (await mesh.store_events([event(1), event(2)])).stored == 2
        trace = await mesh.trace("last", after=1)
        assert (trace.count, [e.seq for e in trace.events]) == (2, [2])
        assert trace.digest == digest(served.backend.log)
        await mesh.shutdown()
    assert served.shutdowns == ["now"]


@pytest.mark.parametrize("ref", ["did:key:z6Mk", "a/b", "echo@node 1", "é", "a?b=c#d", "%2e%2e", "..%2f"])
async def test_a_reference_reaches_the_node_as_it_was_written(ref: str) -> None:
    async with meshed() as (mesh, served):
        with pytest.raises(MeshError):
            await mesh.agent(ref)
        if "/" not in ref:
            assert served.backend.asked == [("look_for", ref), ("agent", ref)]


@pytest.mark.parametrize("ref", ["", ".", ".."])
async def test_a_reference_that_would_change_the_path_is_refused_here(ref: str) -> None:
    async with meshed() as (mesh, served):
        with pytest.raises(UsageError):
            await mesh.deregister(ref)
        assert served.backend.asked == []


async def test_not_found_carries_near_names() -> None:
    async with meshed() as (mesh, _):
        with pytest.raises(AgentNotFound) as caught:
            await mesh.call("ehco", "x")
        assert caught.value.extra["did_you_mean"] == ["echo"]
        with pytest.raises(RunNotFound):
            await mesh.trace("ffff")


async def test_what_is_no_json_or_too_large_is_refused_before_it_is_sent() -> None:
    async with meshed() as (mesh, served):
        with pytest.raises(UsageError):
            await mesh.call("echo", data=object())
        with pytest.raises(LimitError):
            await mesh.call("echo", "x" * (requests.CALL_BYTES_MAX + 1))
        assert served.backend.asked == []


async def test_a_wrong_token_is_unauthorized() -> None:
    async with serving() as served, Mesh(url=served.url, token="wrong") as mesh:
        with pytest.raises(Unauthorized) as caught:
            await mesh.status()
        assert caught.value.code == "refused.token"
        with pytest.raises(Unauthorized):
            async for _ in mesh.follow():
                pass


async def test_no_daemon_is_told_with_the_next_step() -> None:
    async with serving() as served:
        url = served.url
    async with Mesh(url=url, token=TOKEN) as mesh:
        for attempt in (
            mesh.status(),
            mesh.call("echo", "x"),
            anext(aiter(mesh.stream("echo", "x"))),
            anext(mesh.follow()),
        ):
            with pytest.raises(NoRoute) as caught:
                await attempt
            assert (caught.value.code, caught.value.hint) == ("daemon.unreachable", "agentmesh up")


async def test_the_home_directory_names_the_daemon_and_a_moved_daemon_is_found_again(tmp_path: Path) -> None:
    (tmp_path / "api.token").write_text(TOKEN)
    async with Mesh(home=tmp_path) as mesh:
        with pytest.raises(NoRoute):
            await mesh.status()
        for _ in range(2):
            async with serving() as served:
                (tmp_path / "daemon.json").write_text(f'{{"pid":1,"port":{served.port}}}')
                assert (await mesh.status()).port == 6374


@contextlib.asynccontextmanager
async def odd_server(answer: bytes) -> AsyncIterator[str]:
    """Serve the same bytes to whoever connects, then close."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


OK = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n%s"


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", Closed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{", Closed),
        (b"SSH-2.0-OpenSSH\r\n\r\n", Closed),
        (OK % (b"text/html", 6, b"<html>"), DecodeError),
        (OK % (b"application/json", 2, b"[]"), DecodeError),
        (OK % (b"application/json", 2, b"\xff\xff"), DecodeError),
        (b"HTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\nnope", DecodeError),
        (b"HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", DecodeError),
    ],
)
async def test_an_answer_that_is_none_of_ours_is_told_as_such(answer: bytes, error: type[MeshError]) -> None:
    async with odd_server(answer) as url, Mesh(url=url, token="t") as mesh:
        with pytest.raises(error):
            await mesh.status()


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", Closed),
        (b"event: message\ndata: {}\n\n", DecodeError),
        (b"event: reply\ndata: []\n\n", DecodeError),
        (b"event: problem\ndata: nonsense\n\n", DecodeError),
    ],
)
async def test_a_stream_that_is_none_of_ours_is_told_as_such(body: bytes, error: type[MeshError]) -> None:
    async with odd_server(OK % (b"text/event-stream", len(body), body)) as url, Mesh(url=url, token="t") as mesh:
        with pytest.raises(error):
            async for _ in mesh.stream("echo", "x"):
                pass


async def test_an_answer_that_never_ends_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "ANSWER_BYTES_MAX", 1000)
    endless = b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 2000
    async with odd_server(endless) as url, Mesh(url=url, token="t") as mesh:
        with pytest.raises(LimitError):
            await mesh.status()


async def test_a_daemon_that_does_not_answer_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "CALL_MARGIN_S", 0.1)
    backend = FakeBackend()
    hang(backend)
    async with meshed(backend) as (mesh, _):
        with pytest.raises(Timeout) as caught:
            await mesh.call("echo", "x", timeout_s=0.1)
        assert caught.value.code == "daemon.timeout"
        backend.calls[0].ended.set()


async def test_following_survives_a_daemon_that_goes_and_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "api.token").write_text(TOKEN)
    backend = FakeBackend()
    seen: list[int] = []
    async with Mesh(home=tmp_path) as mesh:
        following: Any = None
        for start in (1, 3, 5):
            async with serving(backend) as served:
                (tmp_path / "daemon.json").write_text(f'{{"port":{served.port}}}')
                following = following or mesh.follow(after=0)
                await backend.append(event(start), event(start + 1))
                for _ in range(2):
                    seen.append((await asyncio.wait_for(anext(following), 10)).seq)
        await following.aclose()
    assert seen == [1, 2, 3, 4, 5, 6]
    assert [a[1] for a in backend.asked if a[0] == "follow"] == [0, 2, 4]


async def test_following_gives_up_when_the_daemon_stays_away() -> None:
    async with serving() as served:
        await served.backend.append(event(1))
        mesh = Mesh(url=served.url, token=TOKEN)
        following = mesh.follow(after=0, retry_for_s=0.3)
        await anext(following)
    with pytest.raises(NoRoute):
        await asyncio.wait_for(anext(following), 10)
    await mesh.aclose()


async def test_following_an_unknown_run_says_so() -> None:
    async with meshed() as (mesh, _):
        with pytest.raises(RunNotFound):
            await anext(mesh.follow("ffff"))


async def test_a_closed_mesh_says_so() -> None:
    async with serving() as served:
        mesh = Mesh(url=served.url, token=TOKEN)
        await mesh.status()
        await mesh.aclose()
        await mesh.aclose()
        with pytest.raises(StateError):
            await mesh.status()


async def test_many_calls_at_once_share_the_connections() -> None:
    async with meshed() as (mesh, served):
        replies = await asyncio.gather(*(mesh.call("echo", str(n)) for n in range(200)))
        assert [r.text for r in replies] == [f"echo: {n}" for n in range(200)]
        assert len(served.backend.calls) == 200


async def test_an_agent_failure_carries_the_agents_own_text() -> None:
    backend = FakeBackend()
    backend.call_failure = AgentFailed("division by zero")
    async with meshed(backend) as (mesh, _):
        with pytest.raises(AgentFailed, match="division by zero"):
            await mesh.call("echo", "1/0")


def test_the_module_does_not_load_aiohttp_until_it_is_used() -> None:
    assert "aiohttp" not in vars(client_module)
