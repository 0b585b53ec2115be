"""The console's door against a dumb model: what ticks tell, and what no request of whatever shape may do."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.api.console import judge
from agentmesh.api.console.sessions import Sessions
from agentmesh.api.console.ticks import RUNS_NAMED_MAX, Ticker
from agentmesh.errors import Unauthorized
from agentmesh.wire.console_views import Marks, Tick
from tests.api.node_double import FakeBackend
from tests.api.serving import SessionsKept

#: (what happens, with what): an event of a run, a client that takes its next frame, one that comes back with its position.
_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("events"), st.integers(0, 400), st.integers(1, 300)),
        st.tuples(st.just("take"), st.integers(0, 3), st.just(0)),
        st.tuples(st.just("return"), st.integers(0, 3), st.integers(-3, 3)),
    ),
    max_size=40,
)


class _Client:
    """What one client knows: its last position, and which runs it was told to look at since it last knew all."""

    def __init__(self) -> None:
        self.seq: int | None = None
        self.marks: Marks | None = None


@given(_STEPS)
@settings(deadline=None)
def test_no_client_misses_a_run_that_has_news_however_it_reads_and_comes_back(steps: list[tuple[Any, ...]]) -> None:
    """After each frame, a client knows of every run with an event since its last one, or was told to ask for everything."""

    async def play() -> None:
        ticker = Ticker(FakeBackend())  # type: ignore[arg-type]
        log: list[str] = []
        clients = [_Client() for _ in range(4)]

        def beat() -> None:
            if ticker._seq != ticker._marks.seq:
                ticker._marks = ticker._marks._replace(seq=ticker._seq)
                ticker._frames.clear()

        def took(client: _Client, frame: bytes, after: int | None) -> None:
            tick = msgspec.json.decode(frame.partition(b"data: ")[2], type=Tick)
            assert tick.seq == len(log)
            if not tick.resync:
                assert after is not None
                missed = log[after : tick.seq]
                assert tick.events == len(missed)
                assert set(tick.runs) == set(missed)
                newest_last = list(dict.fromkeys(reversed(missed)))[::-1]
                assert tick.runs == newest_last
                assert len(tick.runs) <= RUNS_NAMED_MAX
                assert ("runs" in tick.changed) == bool(missed)
            client.seq, client.marks = tick.seq, ticker._marks

        for what, which, more in steps:
            if what == "events":
                for number in range(more):
                    log.append(f"{(which + number * 7) % 2000:032x}")
                    ticker._note(log[-1], len(log))
                beat()
            elif what == "take" and clients[which].marks is not None:
                since = clients[which].marks
                if since != ticker._marks:
                    took(clients[which], ticker._since(since), since.seq)
            else:
                known = clients[which].seq
                after = None if known is None else known + more
                frame = ticker._frame(ticker._tick(after, ()))
                took(clients[which], frame, after)

    asyncio.run(play())


_NAMES = st.sampled_from([b"cookie", b"origin", b"sec-fetch-site", b"x-agentmesh-page", b"authorization", b"x"])
_VALUES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"",
            b"null",
            b"http://127.0.0.1:6374",
            b"same-origin",
            b"none",
            b"agentmesh_6374=",
            b"agentmesh_6374=a; agentmesh_6374",
        ]
    ),
)


@given(
    st.sampled_from(["GET", "HEAD", "POST", "DELETE", "OPTIONS"]),
    st.sampled_from(["/api/v1/status", judge.STREAM_PATH]),
    st.lists(st.tuples(_NAMES, _VALUES), max_size=8),
    st.booleans(),
    st.booleans(),
)
@settings(deadline=None)
def test_whatever_headers_come_the_judge_opens_only_with_the_cookie_and_its_page_and_never_falls_over(
    method: str, path: str, headers: list[tuple[bytes, bytes]], has_cookie: bool, has_page: bool
) -> None:
    sessions = Sessions(SessionsKept)
    entered = sessions.enter(sessions.code())
    given = list(headers)
    if has_cookie:
        given.append((b"cookie", f"agentmesh_6374={entered.cookie}".encode()))
    if has_page:
        given.append((b"x-agentmesh-page", entered.page.encode()))
    rights, refusal = None, ""
    try:
        rights = judge.rights_by_cookie(sessions, "agentmesh_6374", method, path, b"127.0.0.1:6374", given)
    except Unauthorized as error:
        refusal = error.code
    assert refusal in ("", "refused.origin", "console.session", "console.page")
    if rights is not None:
        assert has_cookie
        assert has_page or (path, method) == (judge.STREAM_PATH, "GET")
        assert all(value.lower() == b"http://127.0.0.1:6374" for name, value in given if name == b"origin")
        assert all(value in (b"same-origin", b"none") for name, value in given if name == b"sec-fetch-site")
