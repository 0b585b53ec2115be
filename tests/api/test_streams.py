"""Event streams over real sockets: frames, resume, heartbeat, slow and vanished clients, the end of the daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from agentmesh.api import sse
from agentmesh.errors import AgentFailed, RunNotFound
from tests.api.node_double import RUN, FakeBackend, FakeCall, event
from tests.api.serving import TOKEN, Served, ask_app, build, serving


class Reader:
    """A bare client that reads frames as they come."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.head = b""
        self._text = b""

    async def open(self) -> Reader:
        self.head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), 10)
        return self

    async def frame(self) -> dict[str, str]:
        """Return the next frame; raises EOFError at the end of the stream."""
        while b"\n\n" not in self._text:
            size = int(await asyncio.wait_for(self.reader.readline(), 10), 16)
            chunk = await self.reader.readexactly(size + 2)
            if size == 0:
                raise EOFError
            self._text += chunk[:-2]
        frame, _, self._text = self._text.partition(b"\n\n")
        pairs = (line.partition(": ") for line in frame.decode().split("\n"))
        return {name: value for name, _, value in pairs}

    async def event(self) -> tuple[str, dict[str, object]]:
        """Return (event, data) of the next frame that has data."""
        while True:
            frame = await self.frame()
            if "data" in frame:
                return frame["event"], json.loads(frame["data"])


@contextlib.asynccontextmanager
async def stream(served: Served, request: str, body: bytes = b"", headers: str = "") -> AsyncIterator[Reader]:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port, limit=2**17)
    writer.write(
        f"{request} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n".encode()
        + body
    )
    try:
        yield await Reader(reader, writer).open()
    finally:
        writer.close()


CALL = b'{"to":"echo","text":"hi","stream":true,"task_id":"t1"}'


async def test_a_streamed_call_gives_its_events_in_order_and_last_the_reply() -> None:
    async with serving() as served, stream(served, "POST /api/v1/calls", CALL) as client:
        assert b"content-type: text/event-stream" in client.head.lower()
        frames = [await client.frame() for _ in range(4)]
        assert [f["event"] for f in frames] == ["status", "message", "status", "reply"]
        assert [f.get("id") for f in frames] == ["1", "2", "3", None]
        assert json.loads(frames[1]["data"])["payload"] == {"role": "agent", "parts": [{"text": "m2"}]}
        assert json.loads(frames[3]["data"])["text"] == "echo: hi"
        with pytest.raises(EOFError):
            await client.frame()
        async with asyncio.timeout(5):
            await served.backend.calls[0].closed.wait()


async def test_a_streamed_call_that_fails_ends_with_its_problem() -> None:
    backend = FakeBackend()
    backend.call_failure = AgentFailed("boom")
    async with serving(backend) as served, stream(served, "POST /api/v1/calls", CALL) as client:
        for _ in range(3):
            await client.event()
        kind, problem = await client.event()
        assert (kind, problem["type"], problem["detail"]) == ("problem", "/problems/agent_failed", "boom")
        assert problem["extra"] == {"run_id": RUN, "task_id": "t1"}


async def test_a_bug_in_the_middle_of_a_stream_is_told_without_its_internals() -> None:
    backend = FakeBackend()
    backend.call_failure = ZeroDivisionError("secret detail")
    async with serving(backend) as served, stream(served, "POST /api/v1/calls", CALL) as client:
        for _ in range(3):
            await client.event()
        kind, problem = await client.event()
        assert (kind, problem["code"]) == ("problem", "internal")
        assert "secret" not in str(problem)


async def test_a_call_that_cannot_start_is_a_plain_problem_not_a_stream() -> None:
    async with serving() as served:
        answer = await served.ask("POST", "/api/v1/calls", b'{"to":"nobody","text":"x","stream":true}')
        assert answer.problem().status == 404


async def test_the_call_is_canceled_when_the_client_of_its_stream_goes_away() -> None:
    backend = FakeBackend()

    def hang(call: FakeCall) -> None:
        call.hangs = True

    backend.prepare = hang
    async with serving(backend) as served:
        async with stream(served, "POST /api/v1/calls", CALL) as client:
            await client.event()
            assert not backend.calls[0].closed.is_set()
        await asyncio.wait_for(backend.calls[0].closed.wait(), 10)
        assert (await served.ask("GET", "/health")).status == 200
        assert len(served.app.streams) == 0


async def test_following_goes_on_after_the_last_event_id_without_loss_or_repetition() -> None:
    async with serving() as served:
        await served.backend.append(*(event(n) for n in range(1, 6)))
        seen: list[object] = []
        async with stream(served, "GET /api/v1/events/stream?after=0") as client:
            for _ in range(3):
                seen.append((await client.event())[1]["seq"])
        async with stream(served, "GET /api/v1/events/stream", headers="Last-Event-ID: 3\r\n") as client:
            for _ in range(2):
                seen.append((await client.event())[1]["seq"])
            await served.backend.append(event(6))
            seen.append((await client.event())[1]["seq"])
        assert seen == [1, 2, 3, 4, 5, 6]


async def test_the_header_goes_before_the_query_when_both_say_where_to_start() -> None:
    async with serving() as served:
        await served.backend.append(*(event(n) for n in range(1, 6)))
        async with stream(served, "GET /api/v1/events/stream?after=0", headers="Last-Event-ID: 4\r\n") as client:
            assert (await client.event())[1]["seq"] == 5


async def test_the_whole_log_is_followed_from_now_and_a_run_from_its_start() -> None:
    async with serving() as served:
        await served.backend.append(event(1), event(2, run_id="b" * 32))
        async with stream(served, "GET /api/v1/events/stream") as client:
            await client.frame()
            await served.backend.append(event(3))
            assert (await client.event())[1]["seq"] == 3
        for ref in ("b" * 32, "bbbb"):
            async with stream(served, f"GET /api/v1/events/stream?run={ref}") as client:
                assert (await client.event())[1]["seq"] == 2


async def test_a_position_of_another_log_means_from_now() -> None:
    async with serving() as served:
        await served.backend.append(event(1))
        async with stream(served, "GET /api/v1/events/stream", headers="Last-Event-ID: 999\r\n") as client:
            await client.frame()
            await served.backend.append(event(2))
            assert (await client.event())[1]["seq"] == 2


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        ("/api/v1/events/stream?run=nope", {}, 404),
        ("/api/v1/events/stream?after=x", {}, 422),
        ("/api/v1/events/stream", {"Last-Event-ID": "x"}, 422),
        ("/api/v1/events/stream", {"Last-Event-ID": "9" * 30}, 422),
    ],
)
async def test_a_stream_that_makes_no_sense_is_a_plain_problem(
    target: str, headers: dict[str, str], status: int
) -> None:
    async with serving() as served:
        assert (await served.ask("GET", target, headers=headers)).problem().status == status


async def test_the_follower_in_the_node_ends_with_its_client() -> None:
    async with serving() as served:
        async with stream(served, "GET /api/v1/events/stream?after=0") as client:
            await served.backend.append(event(1))
            await client.event()
            assert served.backend.followers == 1
        async with asyncio.timeout(10), served.backend.grown:
            await served.backend.grown.wait_for(lambda: served.backend.followers == 0)


async def test_an_idle_stream_shows_life() -> None:
    async with serving(heartbeat_s=0.05) as served, stream(served, "GET /api/v1/events/stream?after=0") as client:
        await client.frame()
        comment = await client.frame()
        assert list(comment) == [""]


async def test_a_slow_client_holds_back_only_its_own_stream() -> None:
    """The server asks the node for the next event only when the socket has taken the last one."""
    backend = FakeBackend()
    produced = 0

    async def endless(after_seq: int, run_id: str | None = None) -> AsyncIterator[object]:
        nonlocal produced
        for number in range(1, 2000):
            produced += 1
            yield event(number, text="x" * 100_000)

    backend.follow = endless
    async with serving(backend) as served, stream(served, "GET /api/v1/events/stream?after=0") as client:
        await client.frame()
        for _ in range(50):
            assert (await served.ask("GET", "/health")).status == 200
        assert 0 < produced < 200
        before = produced
        for _ in range(before + 20):
            await client.event()
        assert produced > before


async def test_a_client_that_takes_nothing_is_dropped_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "SEND_TIMEOUT_S", 0.2)
    backend = FakeBackend()
    closed = asyncio.Event()

    async def endless(after_seq: int, run_id: str | None = None) -> AsyncIterator[object]:
        try:
            while True:
                yield event(1, text="x" * 1_000_000)
        finally:
            closed.set()

    backend.follow = endless
    async with serving(backend) as served, stream(served, "GET /api/v1/events/stream?after=0"):
        await asyncio.wait_for(closed.wait(), 10)


async def test_streams_are_bounded() -> None:
    async with serving(streams_max=1) as served, stream(served, "GET /api/v1/events/stream?after=0") as client:
        await client.frame()
        refused = await served.ask("GET", "/api/v1/events/stream")
        assert (refused.status, refused.problem().code) == (429, "refused.busy.streams")
        assert "retry-after" in refused.headers
        refused = await served.ask("POST", "/api/v1/calls", CALL)
        assert refused.status == 429
        assert not served.backend.calls
        assert (await served.ask("POST", "/api/v1/calls", b'{"to":"echo","text":"x"}')).status == 200


async def test_streams_end_cleanly_when_the_daemon_stops_and_none_begins_again() -> None:
    async with serving() as served:
        async with stream(served, "GET /api/v1/events/stream?after=0") as client:
            await client.frame()
            served.app.end_streams()
            with pytest.raises(EOFError):
                await client.frame()
        assert (await served.ask("GET", "/api/v1/events/stream")).problem().code == "daemon.stopping"


async def test_a_streaming_call_is_given_up_when_the_daemon_stops() -> None:
    backend = FakeBackend()
    backend.prepare = lambda call: setattr(call, "hangs", True)
    async with serving(backend) as served, stream(served, "POST /api/v1/calls", CALL) as client:
        await client.event()
        served.app.end_streams()
        await asyncio.wait_for(backend.calls[0].closed.wait(), 10)


async def test_head_of_a_stream_ends_at_once() -> None:
    async with serving() as served:
        assert (await served.ask("HEAD", "/api/v1/events/stream")).status == 200
        assert served.backend.followers == 0


async def test_an_error_while_following_ends_the_stream_with_its_problem() -> None:
    backend = FakeBackend()

    async def broken(after_seq: int, run_id: str | None = None) -> AsyncIterator[object]:
        yield event(1)
        raise RunNotFound("gone")

    backend.follow = broken
    answer = await ask_app(build(backend), "GET", "/api/v1/events/stream")
    assert b"event: problem" in answer.body
    assert b"/problems/run_not_found" in answer.body


NEED = b'{"query":"ec"}'
ACCEPT = "Accept: text/event-stream\r\n"


async def test_a_need_is_answered_by_a_stream_where_accept_asks_for_one() -> None:
    async with serving() as served, stream(served, "POST /api/v1/discover", NEED, ACCEPT) as client:
        assert b"content-type: text/event-stream" in client.head.lower()
        kind, answer = await client.event()
        assert (kind, answer["total"]) == ("answer", 1)
        with pytest.raises(EOFError):
            await client.frame()


async def test_a_watched_need_goes_on_until_its_client_goes() -> None:
    async with serving() as served:
        async with stream(served, "POST /api/v1/discover?watch=true", NEED, ACCEPT) as client:
            await client.event()
            await served.backend.append(event(1))
            assert (await client.event())[0] == "answer"
        async with asyncio.timeout(5):
            while served.backend.followers:  # noqa: ASYNC110 the double has no event for it
                await asyncio.sleep(0.01)
        refused = await served.ask("POST", "/api/v1/discover?watch=true", NEED)
        assert refused.problem().code == "discover.watch"


async def read_all(served: Served, target: str) -> tuple[bytes, bool]:
    """Return head and body of a chunked answer, and whether it was ended cleanly."""
    reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
    try:
        head = f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
        writer.write(head.encode())
        text = b""
        while not text.endswith(b"0\r\n\r\n") and (more := await asyncio.wait_for(reader.read(65_536), 10)):
            text += more
        return text, text.endswith(b"0\r\n\r\n")
    finally:
        writer.close()


async def test_an_export_is_a_file_of_lines_and_one_that_breaks_off_is_never_ended_as_if_it_were_whole() -> None:
    async with serving() as served:
        text, is_whole = await read_all(served, "/api/v1/audit/export?result=refused")
        assert is_whole
        assert b"application/x-ndjson" in text
        assert b'attachment; filename="audit.ndjson"' in text
        assert text.count(b'{"id":') == 3
        ((_, wanted),) = [one for one in served.backend.asked if one[0] == "audit_export"]
        assert wanted.result == "refused"
        assert len(served.app.streams) == 0
        served.backend.breaks_off = True
        text, is_whole = await read_all(served, "/api/v1/audit/export")
        assert text.count(b'{"id":') == 1
        assert not is_whole
        assert len(served.app.streams) == 0
