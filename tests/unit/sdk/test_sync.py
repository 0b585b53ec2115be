"""The blocking client against a real server in a thread."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

from agentmesh.errors import (
    ERROR_TABLE,
    AgentNotFound,
    MeshError,
    NoRoute,
    RunNotFound,
    StateError,
    Timeout,
    Unauthorized,
)
from agentmesh.sdk import requests
from agentmesh.sdk.sync import SyncMesh
from agentmesh.wire.event import digest
from tests.api.node_double import AGENT, RUN, FakeBackend, FakeCall, event
from tests.api.serving import TOKEN, serving_in_thread


def hang(call: FakeCall) -> None:
    call.hangs = True


def test_every_method_asks_its_route() -> None:
    with serving_in_thread() as served, SyncMesh(url=served.url, token=TOKEN) as mesh:
        reply = mesh.call("echo", "hi", task_id="t1", metadata={"k": 1})
        assert (str(reply), reply.run_id, reply.task_id) == ("echo: hi", RUN, "t1")
        assert mesh.call("echo", data=[1]).data == [[1]]
        assert [a.name for a in mesh.discover("ec")] == ["echo"]
        assert mesh.agent("echo").agent.agent_id == AGENT
        assert [a.name for a in mesh.register("http://127.0.0.1:9", name="nine")] == ["nine"]
        assert mesh.deregister("nine").name == "nine"
        assert mesh.cancel("t1").task_id == "t1"
        assert mesh.health().status == "ok"
        assert mesh.status().port == 6374
        assert mesh.runs(1)[0].count == 3
        assert mesh.peers()[0].connected
        assert mesh.net().nodes == 1
        assert mesh.add_seeds(["s"])
        assert mesh.store_events([event(1), event(2)]).last_seq == 2
        assert mesh.trace("last").digest == digest(served.backend.log)
        mesh.shutdown()
    assert served.shutdowns == ["now"]


@pytest.mark.parametrize("error_type", ERROR_TABLE, ids=lambda t: t.__name__)
def test_every_error_arrives_as_the_class_it_was_raised_with(error_type: type[MeshError]) -> None:
    backend = FakeBackend()
    backend.call_failure = error_type("no", hint="h")
    with serving_in_thread(backend=backend) as served, SyncMesh(url=served.url, token=TOKEN) as mesh:
        with pytest.raises(error_type) as caught:
            mesh.call("echo", "x")
        assert (caught.value.detail, caught.value.hint, caught.value.extra["run_id"]) == ("no", "h", RUN)
        with pytest.raises(error_type):
            list(mesh.stream("echo", "x"))


def test_a_stream_is_iterated_and_then_has_the_reply() -> None:
    with serving_in_thread() as served, SyncMesh(url=served.url, token=TOKEN) as mesh:
        stream = mesh.stream("echo", "hi")
        with pytest.raises(StateError):
            _ = stream.reply
        assert [e.kind for e in stream] == ["status", "message", "status"]
        assert str(stream.reply) == "echo: hi"
        with pytest.raises(StateError):
            list(stream)


def test_closing_a_stream_early_cancels_the_call() -> None:
    backend = FakeBackend()
    backend.prepare = hang
    with serving_in_thread(backend=backend) as served, SyncMesh(url=served.url, token=TOKEN) as mesh:
        with mesh.stream("echo", "hi") as stream:
            assert next(iter(stream)).kind == "status"
        # The server notices that the connection is closed while it answers the next question.
        for _ in range(200):
            if backend.calls[0].closed.is_set():
                break
            mesh.health()
        assert backend.calls[0].closed.is_set()


def test_ctrl_c_cancels_the_remote_task(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = FakeBackend()

    with serving_in_thread(backend=backend) as served, SyncMesh(url=served.url, token=TOKEN) as mesh:
        real = mesh._send

        def interrupted(request: requests.Request[object]) -> object:
            answer = real(request)
            if request.path == "/api/v1/calls":
                raise KeyboardInterrupt
            return answer

        monkeypatch.setattr(mesh, "_send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            mesh.call("echo", "hi")
        assert backend.asked[-1] == ("cancel", backend.calls[0].task_id)


def test_following_reads_what_is_there_and_resumes() -> None:
    backend = FakeBackend()
    backend.log = [event(n) for n in range(1, 6)]
    with serving_in_thread(backend=backend) as served, SyncMesh(url=served.url, token=TOKEN) as mesh:
        assert [e.seq for e in itertools.islice(mesh.follow(after=0), 5)] == [1, 2, 3, 4, 5]
        assert [e.seq for e in itertools.islice(mesh.follow(after=3), 2)] == [4, 5]
        assert next(iter(mesh.follow("last"))).seq == 1
        with pytest.raises(RunNotFound):
            next(iter(mesh.follow("ffff")))


def test_following_finds_a_daemon_that_came_back_on_another_port(tmp_path: Path) -> None:
    (tmp_path / "api.token").write_text(TOKEN)
    backend = FakeBackend()
    backend.log = [event(1)]
    mesh = SyncMesh(home=tmp_path)
    with serving_in_thread(backend=backend) as served:
        (tmp_path / "daemon.json").write_text(f'{{"port":{served.port}}}')
        following = iter(mesh.follow(after=0))
        assert next(following).seq == 1
    backend = FakeBackend()
    backend.log = [event(1), event(2)]
    with serving_in_thread(backend=backend) as served:
        (tmp_path / "daemon.json").write_text(f'{{"port":{served.port}}}')
        assert next(following).seq == 2
        following.close()


def test_no_daemon_is_told_with_the_next_step(tmp_path: Path) -> None:
    with serving_in_thread() as served:
        url = served.url
    with pytest.raises(NoRoute) as caught:
        SyncMesh(url=url, token=TOKEN).status()
    assert (caught.value.code, caught.value.hint) == ("daemon.unreachable", "agentmesh up")
    with pytest.raises(NoRoute):
        next(iter(SyncMesh(url=url, token=TOKEN).follow()))
    with pytest.raises(NoRoute) as caught:
        SyncMesh(home=tmp_path).status()
    assert caught.value.hint == "agentmesh up"


def test_a_wrong_token_and_an_unknown_agent_are_told() -> None:
    with serving_in_thread() as served:
        with pytest.raises(Unauthorized):
            SyncMesh(url=served.url, token="wrong").status()
        with pytest.raises(AgentNotFound):
            SyncMesh(url=served.url, token=TOKEN).agent("ehco")


def test_a_daemon_that_does_not_answer_is_a_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "CALL_MARGIN_S", 0.1)
    backend = FakeBackend()
    backend.prepare = hang
    with serving_in_thread(backend=backend) as served, pytest.raises(Timeout):
        SyncMesh(url=served.url, token=TOKEN).call("echo", "x", timeout_s=0.1)


@pytest.mark.parametrize("url", ["https://127.0.0.1:1", "nonsense", "http://", "http://127.0.0.1:99999"])
def test_an_address_that_is_none_is_a_usage_error(url: str) -> None:
    with pytest.raises(MeshError) as caught:
        SyncMesh(url=url, token="t").status()
    assert caught.value.code == "usage.url"


def test_importing_the_client_loads_neither_asyncio_nor_aiohttp() -> None:
    code = "import sys, agentmesh.sdk.sync; print({'asyncio', 'aiohttp', 'starlette'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"
