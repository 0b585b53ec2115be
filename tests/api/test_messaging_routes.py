"""Routes of messages, topics, state and locks where they do more than pass on: CloudEvents, streams, waits, refusals."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from agentmesh.errors import MeshError, Unauthorized
from agentmesh.net.tasks import TaskScope
from agentmesh.sdk.types import OrdersView
from agentmesh.wire.state_views import LockView
from tests.api.messaging_doubles import FakeLocks, FakeMail, FakeState, FakeTopics
from tests.api.node_double import FakeBackend
from tests.api.serving import TOKEN, Served, serving


def backend() -> Any:
    one: Any = FakeBackend()
    one.mail, one.topics, one.state, one.locks = FakeMail(), FakeTopics(), FakeState(), FakeLocks()
    return one


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is in the doubles
            await asyncio.sleep(0.005)


class Stream:
    """A request on a connection of its own, read as it comes, and left when the test likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, served: Served, target: str, **headers: str) -> Stream:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        lines = [f"GET {target} HTTP/1.1", f"Host: 127.0.0.1:{served.port}", f"Authorization: Bearer {TOKEN}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
        return cls(reader, writer)

    async def until(self, text: str) -> str:
        """Read until a text has come; return all of it."""
        async with asyncio.timeout(10):
            return (await self.reader.readuntil(text.encode())).decode()

    def leave(self) -> None:
        self.writer.transport.abort()


# -- CloudEvents ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "subject", "carried"),
    [
        ({"subject": "a.b", "data": {"n": 1}}, "a.b", (None, {"n": 1}, None, "")),
        ({"data": "hi", "datacontenttype": "text/plain"}, "build.done", ("hi", None, None, "text/plain")),
        ({"data": "hi"}, "build.done", (None, "hi", None, "")),
        ({"data_base64": "AP8=", "datacontenttype": "image/png"}, "build.done", (None, None, "AP8=", "image/png")),
        ({}, "build.done", ("", None, None, "")),
        (
            {"retain": True, "sender": "amy", "otherext": 1, "time": "2026-11-22T00:00:00Z"},
            "build.done",
            (None, None, None, ""),
        ),
    ],
)
async def test_a_cloudevent_is_published_as_it_was_and_once(
    fields: dict[str, Any], subject: str, carried: tuple[Any, ...]
) -> None:
    async with serving(backend()) as served:
        body = json.dumps({"specversion": "1.0", "id": "7", "source": "/ci", "type": "build.done", **fields}).encode()
        header = {"Content-Type": "application/cloudevents+json"}
        first, again = [(await served.ask("POST", "/api/v1/cloudevents", body, header)).json() for _ in range(2)]
        assert first["message_id"] == again["message_id"]
        name, request = served.backend.topics.asked[0][1:]
        assert name == subject
        assert (request.text, request.data, request.data_base64, request.content_type) == carried
        assert request.headers == {"ce-type": "build.done", "ce-source": "/ci"}
        assert (request.retain, request.sender) == (fields.get("retain", False), fields.get("sender", ""))


@pytest.mark.parametrize(
    "body",
    [
        {"specversion": "0.3", "id": "1", "source": "s", "type": "t"},
        {"id": "", "source": "s", "type": "t"},
        {"id": "1", "source": "s", "type": "t" * 1_100},
        {"id": "1", "source": "s"},
    ],
)
async def test_what_is_no_cloudevent_is_refused(body: dict[str, Any]) -> None:
    async with serving(backend()) as served:
        answer = await served.ask("POST", "/api/v1/cloudevents", json.dumps(body).encode())
        assert answer.problem().status in (400, 422)
        assert served.backend.topics.log == []


# -- streams ----------------------------------------------------------------------------------------------------------


async def test_a_durable_topic_goes_on_after_the_last_event_that_came() -> None:
    async with serving(backend()) as served:
        for n in range(3):
            await served.ask("POST", "/api/v1/topics/a.b", b'{"text":"event %d"}' % n)
        stream = await Stream.open(served, "/api/v1/topics/events?subjects=a.*&topic=log", Last_Event_ID="2")
        said = await stream.until("event 2")
        assert "id: 3\nevent: topic\n" in said
        assert "event 1" not in said
        stream.leave()
        await until(lambda: served.backend.topics.followers == 0)


async def test_a_space_is_watched_by_whoever_accepts_a_stream() -> None:
    async with serving(backend()) as served:
        await served.ask("POST", "/api/v1/state/team/votes", b'{"op":"increment"}')
        listed = (await served.ask("GET", "/api/v1/state/team?prefix=v")).json()
        assert [one["key"] for one in listed["keys"]] == ["votes"]
        stream = await Stream.open(served, "/api/v1/state/team?initial=true", Accept="text/event-stream")
        assert "event: state" in await stream.until('"value":1')
        await until(lambda: served.backend.state.watchers == 1)
        await served.ask("POST", "/api/v1/state/team/votes", b'{"op":"increment"}')
        await stream.until('"value":2')
        stream.leave()
        await until(lambda: served.backend.state.watchers == 0)


async def test_a_subscription_that_is_refused_is_no_stream() -> None:
    async with serving(backend()) as served:
        answer = await served.ask("GET", "/api/v1/topics/events?subjects=a&topic=missing")
        assert (answer.problem().status, served.backend.topics.followers) == (404, 0)
        for target in ("?subjects=", "?subjects=a&start=soon", "?subjects=" + ",".join(["a"] * 65)):
            assert (await served.ask("GET", f"/api/v1/topics/events{target}")).problem().status == 422


# -- waits and refusals -----------------------------------------------------------------------------------------------


async def test_what_an_inbox_handed_to_a_client_that_had_gone_is_given_back() -> None:
    one = backend()
    handing = asyncio.Event()
    real = one.mail.inbox

    async def slow(*args: Any, **more: Any) -> Any:
        try:
            handing.set()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await real(*args, **more)  # it came at the very moment that the client went

    one.mail.inbox = slow
    async with serving(one) as served:
        await served.ask("POST", "/api/v1/messages", b'{"to":"bob","text":"x","message_id":"m1"}')
        stream = await Stream.open(served, "/api/v1/inbox/bob?wait_s=30")
        await handing.wait()
        stream.leave()
        await until(lambda: one.mail.given_back == ["m1"])


async def test_whoever_waits_is_told_at_once_that_the_daemon_stops() -> None:
    one = backend()
    async with serving(one) as served:
        scope = TaskScope("waiting")
        waiting = scope.spawn(served.ask("GET", "/api/v1/inbox/bob?wait_s=60"))
        await until(lambda: one.mail.waiters == 1)
        served.app.end_streams()
        assert (await waiting).problem().code == "daemon.stopping"
        assert (await served.ask("GET", "/api/v1/inbox/bob?wait_s=60")).problem().code == "daemon.stopping"
        assert (one.mail.waiters, one.mail.leased) == (0, {})


@pytest.mark.parametrize("code", ["topic.publish", "topic.subscribe", "topic.foreign", "group.owner"])
async def test_a_lawful_no_is_403_and_not_a_question_of_the_credential(code: str) -> None:
    one = backend()
    one.topics.failure = one.mail.failure = Unauthorized("the rules say no", code=code)
    async with serving(one) as served:
        answer = await served.ask("POST", "/api/v1/topics/a", b'{"text":"x"}')
        assert (answer.problem().status, answer.problem().code) == (403, code)


async def test_a_stopped_node_changes_no_state_and_gives_no_lock_but_keeps_those_that_are_held() -> None:
    one = backend()
    one.orders_view = lambda: OrdersView(node_id="n", read_only=True)
    async with serving(one) as served:
        one.locks.held["a"] = LockView(name="a", holder="amy", held=True, token=1)
        for target, body in (("state/team/a", b'{"op":"increment"}'), ("locks/b", b"{}")):
            problem = (await served.ask("POST", f"/api/v1/{target}", body)).problem()
            assert (problem.status, problem.code) == (503, "refused.read_only")
        assert one.state.asked == []
        assert (await served.ask("GET", "/api/v1/state/team/a")).status == 200
        assert (await served.ask("POST", "/api/v1/locks/a", b'{"holder":"amy","renew":true}')).status == 200
        assert (await served.ask("DELETE", "/api/v1/locks/a?holder=amy")).status == 200


async def test_a_write_of_which_nobody_knows_is_told_as_that() -> None:
    from agentmesh.errors import Timeout

    one = backend()
    one.state.failure = Timeout("it may have been written", code="state.unknown_outcome")
    async with serving(one) as served:
        answer = await served.ask("POST", "/api/v1/state/team/a", b'{"op":"set","value":1,"level":"quorum"}')
        assert (answer.problem().status, answer.problem().code) == (504, "state.unknown_outcome")


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("GET", "/api/v1/inbox/bob?wait_s=61", None),
        ("GET", "/api/v1/inbox/bob?lease_s=0", None),
        ("GET", "/api/v1/inbox/bob?limit=1001", None),
        ("POST", "/api/v1/inbox/bob/ack", b'{"message_ids":[]}'),
        ("POST", "/api/v1/inbox/bob/ack", json.dumps({"message_ids": ["m"] * 1001}).encode()),
        ("POST", "/api/v1/topics/jobs/groups/g/ack", b'{"leases":[]}'),
        ("GET", "/api/v1/state/team/a?level=utmost", None),
        ("POST", "/api/v1/messages", b'{"to":"bob","text":"x","nonsense":1}'),
        ("POST", "/api/v1/messages", b'{"to":"bob","text":"x","priority":"urgent"}'),
        ("PUT", "/api/v1/topics/rules", b'{"rules":[{"pattern":"a","publsh":["amy"]}]}'),
        ("POST", "/api/v1/state/team/a", b'{"op":"set","value":1,"levle":"quorum"}'),
        ("POST", "/api/v1/locks/a", b'{"ttl":5}'),
    ],
)
async def test_what_makes_no_sense_reaches_nobody(method: str, target: str, body: bytes | None) -> None:
    one = backend()
    async with serving(one) as served:
        assert (await served.ask(method, target, body)).problem().status == 422
        parts: list[Any] = [one.mail, one.topics, one.state]
        assert [part.asked for part in parts] == [[], [], []]


async def test_a_message_that_is_too_large_is_refused_before_it_is_read() -> None:
    one = backend()
    async with serving(one) as served:
        problem = (
            await served.ask("POST", "/api/v1/messages", b'{"to":"bob","text":"%s"}' % (b"x" * 9_000_000))
        ).problem()
        assert (problem.status, problem.code) == (413, "body.too_large")
        assert one.mail.asked == []


def test_the_codes_that_are_403_are_of_refusals() -> None:
    from agentmesh.api.problems import problem_of
    from agentmesh.api.scopes import FORBIDDEN

    errors: list[MeshError] = [Unauthorized("no", code=code) for code in FORBIDDEN]
    assert {problem_of(error).status for error in errors} == {403}
