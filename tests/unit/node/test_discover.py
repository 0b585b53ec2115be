"""Discovery of a node: text, trust and health make one order, others are asked and not believed, and nothing starts unasked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.core.brain import BrainConfig
from agentmesh.core.directory.config import DirectoryConfig
from agentmesh.core.search.rank import Weights
from agentmesh.errors import Closed, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.node.door import Happening, Invocation
from agentmesh.node.search import discover as discovery
from agentmesh.node.search.asking import words_of
from agentmesh.node.search.wanted import Wanted, read_request, weights_of
from agentmesh.wire import v1
from agentmesh.wire.access import TenantRequest
from agentmesh.wire.search_views import DiscoverFilters, DiscoverRequest, DiscoverView, WeightsView
from agentmesh.wire.views import CallRequest, RegisterRequest
from tests.support.meaning import Indexes
from tests.support.records import record
from tests.unit.node.world import Member, ScriptedAgent, until, world

LAWYER = "Reviews tenancy agreements and finds void clauses."
COOK = "Suggests recipes from what is in the fridge."
NEED = "check a rental contract"
#: Directories that compare nothing again, so that what is lost stays lost.
STILL = {"sync_s": 3_600.0, "sync_fast_s": 3_600.0, "sync_hot_s": 0.0, "sync_fresh_s": 3_600.0}


@pytest.fixture
def indexes(monkeypatch: pytest.MonkeyPatch) -> Indexes:
    """Nodes made from now on open doubles of the index."""
    made = Indexes()
    monkeypatch.setattr(discovery, "open_client", made.opener)
    monkeypatch.setattr(discovery, "WATCH_GAP_S", 0.01)
    return made


async def answer(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("message", {"role": "agent", "parts": [{"text": "served"}]})
    yield Happening("status", {"state": "completed"})


async def serve(member: Member, name: str, description: str, to: Any = None, **options: Any) -> ScriptedAgent:
    """Register a scripted agent that says this of itself, at the node or as a tenant's."""
    agent = ScriptedAgent(name, answer)
    url = f"http://{name}-{len(member.kit.agents)}/"
    member.kit.agents[url.removeprefix("http://").strip("/")] = agent
    await (to or member.node).register(RegisterRequest(url=url, door="sdk", description=description, **options))
    return agent


def request(query: str = "", **options: Any) -> DiscoverRequest:
    filters = {name: options.pop(name) for name in list(options) if name in DiscoverFilters.__struct_fields__}
    return DiscoverRequest(query=query, filters=DiscoverFilters(**filters), **{"time_ms": 2_000, **options})


def names(view: DiscoverView) -> list[str]:
    return [hit.agent.name for hit in view.hits]


async def test_a_need_in_other_words_finds_who_answers_it_with_the_parts_of_the_score(
    tmp_path: Path, indexes: Indexes
) -> None:
    async with world(tmp_path, 1) as (one,):
        await serve(one, "lawyer", LAWYER)
        await serve(one, "cook", COOK)
        view = await one.node.discover(request(NEED))
        assert names(view) == ["lawyer"]
        score = view.hits[0].score
        assert score.total == pytest.approx(0.7 * score.text + 0.2 * score.trust + 0.1 * score.health, abs=1e-3)
        assert score.trust == score.health == 1.0
        assert view.hits[0].matched == LAWYER
        assert (view.embedder, view.notes, view.asked.asked) == ("fake-1", [], 0)


async def test_who_is_called_as_the_query_says_fits_it_whatever_the_name_means(
    tmp_path: Path, indexes: Indexes
) -> None:
    async with world(tmp_path, 1) as (one,):
        await serve(one, "lease", COOK)
        await serve(one, "lawyer", "All about the lease.")
        view = await one.node.discover(request("lease"))
        assert {hit.agent.name: hit.score.text for hit in view.hits} == {"lease": 1.0, "lawyer": 1.0}
        assert (await one.node.discover(request("lease", tag="none"))).hits == []


async def test_who_is_dead_is_never_a_hit_but_told_as_a_near_miss(tmp_path: Path, indexes: Indexes) -> None:
    async with world(tmp_path, 1, health_interval_s=0.05) as (one,):
        lawyer = await serve(one, "lawyer", LAWYER)
        await serve(one, "clerk", "Files tenancy papers.")
        lawyer.alive = False
        await until(lambda: one.node.agent("lawyer").agent.status == "unhealthy")
        view = await one.node.discover(request(NEED))
        assert names(view) == ["clerk"]
        (miss,) = view.near
        assert (miss.agent.name, miss.missed) == ("lawyer", ["health"])
        assert miss.why == "would be first, but its health check fails: connection refused"
        # A list without words still shows it, as what it is.
        assert names(await one.node.discover(request())) == ["clerk", "lawyer"]
        assert names(await one.node.discover(request(health="healthy"))) == ["clerk"]


async def test_filters_of_index_and_daemon_make_near_misses_that_say_why(tmp_path: Path, indexes: Indexes) -> None:
    async with world(tmp_path, 2) as (one, other):
        await serve(one, "lawyer", LAWYER, params={"models": ["m-large"], "context_window": 8000})
        await serve(other, "stranger", LAWYER)
        await until(lambda: len(one.node.agents()) == 2)

        async def why(**filters: Any) -> dict[str, str]:
            view = await one.node.discover(request(NEED, scope="local", **filters))
            return {miss.agent.name: miss.why for miss in view.near}

        assert await why(model="M-") == {"stranger": "would be second, but it does not say that it runs on M-"}
        assert await why(context_window_min=9_000) == {
            "lawyer": "would be first, but it does not say that its context window has 9000 tokens",
            "stranger": "would be first, but it does not say that its context window has 9000 tokens",
        }
        assert await why(node="n0") == {"stranger": "would be second, but it lives at n1"}
        assert await why(trust_tier="high") == {
            "stranger": "would be second, but its trust is unknown, and at least high is asked for"
        }
        assert (await why(price_max="0.05"))["lawyer"].endswith(
            "it does not say that a call costs at most 0.05 US dollars"
        )


async def test_a_list_by_filters_alone_starts_no_search(tmp_path: Path, indexes: Indexes) -> None:
    async with world(tmp_path, 2) as (one, other):
        await serve(one, "lawyer", LAWYER, params={"models": ["m-large"]})
        await serve(other, "cook", COOK)
        await until(lambda: len(one.node.agents()) == 2)
        assert names(await one.node.discover(request())) == ["cook", "lawyer"]
        assert names(await one.node.discover(request(model="m-large"))) == ["lawyer"]
        assert names(await one.node.discover(request(node="n1", tag="test"))) == ["cook"]
        assert names(await one.node.discover(request(tag="none"))) == []
        assert indexes.opened == []


@pytest.mark.parametrize("failure", ["it dies", "it hangs", "it does not open"])
async def test_words_alone_decide_when_the_index_does_not_answer(
    tmp_path: Path, indexes: Indexes, monkeypatch: pytest.MonkeyPatch, failure: str
) -> None:
    monkeypatch.setattr(discovery, "_PATIENCE_S", 0.02)
    monkeypatch.setattr(discovery, "_PATIENCE_MIN_S", 0.02)
    async with world(tmp_path, 1) as (one,):
        await serve(one, "lawyer", LAWYER)
        await serve(one, "cook", COOK)
        await one.node.discover(request("warm up"))
        index = indexes.opened[0]
        if failure == "it hangs":
            index.hold = asyncio.Event()
        elif failure == "it dies":
            index.failure = Closed("the search process ended", code="search.died")
        else:

            def refuse(*_: Any) -> Any:
                raise Closed("the search process cannot be started", code="search.died")

            one.node._discovery._index = None  # pyright: ignore[reportPrivateUsage]
            one.node._discovery._open_index = refuse  # pyright: ignore[reportPrivateUsage]
        view = await one.node.discover(request("tenancy agreements, a lawyer"))
        assert names(view) == ["lawyer"]
        assert view.embedder == ""
        assert "words alone decided" in view.notes[0]
        assert names(await one.node.discover(request("tenancy", tag="none"))) == []


async def test_the_weights_of_a_call_decide_between_fit_and_trust(tmp_path: Path, indexes: Indexes) -> None:
    async with world(tmp_path, 2) as (one, other):
        await serve(one, "own-clerk", "Files rental papers.")
        await serve(other, "stranger", LAWYER)
        await until(lambda: len(one.node.agents()) == 2)
        by_text = await one.node.discover(request(NEED, scope="local"))
        by_trust = await one.node.discover(request(NEED, scope="local", weights=WeightsView(text=0, trust=1, health=0)))
        assert names(by_text) == ["stranger", "own-clerk"]
        assert names(by_trust) == ["own-clerk", "stranger"]
        assert by_trust.weights == WeightsView(text=0, trust=1, health=0)


async def test_an_unsigned_stranger_is_no_answer_beside_a_signed_agent_of_its_name(
    tmp_path: Path, indexes: Indexes
) -> None:
    async with world(
        tmp_path,
        2,
        require_signed_registration=False,
        brain=BrainConfig(directory=DirectoryConfig(require_signed=False)),
    ) as (one, other):
        await serve(other, "lawyer", LAWYER, unsigned=True)
        await until(lambda: len(one.node.agents()) == 1)
        assert names(await one.node.discover(request(NEED, scope="local"))) == ["lawyer"]
        await serve(one, "lawyer", LAWYER)
        view = await one.node.discover(request(NEED, scope="local"))
        assert [hit.agent.trust for hit in view.hits] == ["own"]
        assert [(miss.missed, miss.agent.trust) for miss in view.near] == [(["signature"], "low")]


async def test_a_tenant_finds_its_own_agents_and_nobody_else_does(tmp_path: Path, indexes: Indexes) -> None:
    async with world(tmp_path, 2) as (one, other):
        one.node.save_tenant(TenantRequest(name="acme"))
        one.node.save_tenant(TenantRequest(name="other"))
        acme = one.node.for_tenant("acme")
        await serve(one, "secret-lawyer", LAWYER, acme)
        await serve(one, "cook", COOK)
        assert names(await acme.discover(request(NEED))) == ["secret-lawyer"]
        assert names(await acme.discover(request())) == ["secret-lawyer"]
        assert names(await one.node.for_tenant("other").discover(request(NEED))) == []
        assert names(await one.node.discover(request(NEED))) == []
        view = await other.node.discover(request(NEED))
        assert (names(view), view.asked.answered) == ([], view.asked.asked)
        assert one.node.node_id in [peer.node_id for peer in other.node.peers()]


async def forgetful(tmp_path: Path, members: list[Member]) -> None:
    """Let n2 bring agents, and n0 hold only its own."""
    one, _, three = members
    await serve(one, "cook", COOK)
    await serve(three, "lawyer", LAWYER)
    await until(lambda: all(len(member.node.agents()) == 2 for member in members))
    table = one.node._brain.directory.table  # pyright: ignore[reportPrivateUsage]
    table.remove(table.named("lawyer")[0])
    assert [view.name for view in one.node.agents()] == ["cook"]


async def test_an_agent_that_only_others_know_is_found_in_other_words_and_called(
    tmp_path: Path, indexes: Indexes
) -> None:
    async with world(tmp_path, 3, brain=BrainConfig(directory=DirectoryConfig(**STILL))) as members:
        one = members[0]
        await forgetful(tmp_path, members)
        assert names(await one.node.discover(request(NEED, scope="local"))) == []
        snapshots = [view async for view in one.node.watch_discover(request(NEED))]
        assert names(snapshots[0]) == []
        last = snapshots[-1]
        assert (names(last), last.hits[0].source, last.asked.done) == (["lawyer"], "peer", True)
        reply = await (await one.node.call(CallRequest(to="lawyer", text="x"))).reply()
        assert reply.text == "served"


async def test_nobody_is_asked_where_the_operator_or_the_query_says_so(tmp_path: Path, indexes: Indexes) -> None:
    async with world(tmp_path, 2, discover_asks=False) as (one, other):
        await serve(other, "lawyer", LAWYER)
        await until(lambda: len(one.node.agents()) == 1)
        assert (await one.node.discover(request(NEED))).asked.asked == 0
        assert len(indexes.opened) == 1  # the other node looked for nothing


async def test_a_node_of_another_mesh_is_never_told_a_query(tmp_path: Path, indexes: Indexes) -> None:
    async with world(tmp_path, 3) as (one, near, abroad):
        for peer in one.node.links.peers():
            peer.calls_only = peer.link.peer == abroad.node.node_id
        asking = one.node._discovery._asking  # pyright: ignore[reportPrivateUsage]
        view = await one.node.discover(request(NEED))
        assert view.asked.failed == 0
        assert len(indexes.opened) == 2  # this node's and its neighbour's
        assert asking._whom() == [near.node.node_id]  # pyright: ignore[reportPrivateUsage]


async def test_a_query_of_a_peer_brings_signed_records_that_it_does_not_know(tmp_path: Path, indexes: Indexes) -> None:
    async with world(tmp_path, 2) as (one, other):
        await serve(one, "lawyer", LAWYER)
        await serve(one, "clerk", "Files tenancy papers.")
        ill = await serve(one, "ill-lawyer", LAWYER)
        ill.alive = False
        await one.node.registry._check(one.node.registry.by_name("ill-lawyer"))  # type: ignore  # pyright: ignore
        link = next(peer.link for peer in other.node.links.peers())

        async def ask(**fields: Any) -> v1.SearchReply:
            stream = await link.open_stream()
            await stream.send(v1.encode(v1.SearchQuery(v=1, text=NEED, **fields)))
            payload = await stream.recv()
            assert payload is not None
            return v1.decode_search_reply(payload)

        entry = one.node._brain.by_name("lawyer")[0]  # pyright: ignore[reportPrivateUsage]
        clerk = one.node._brain.by_name("clerk")[0]  # pyright: ignore[reportPrivateUsage]
        assert (await ask()).records == [entry.manifest.raw, clerk.manifest.raw]
        assert (await ask(limit=1)).records == [entry.manifest.raw]
        assert (await ask(known=[entry.mark])).records == [clerk.manifest.raw]
        assert (await ask(limit=1, known=[entry.mark])).records == [clerk.manifest.raw]


async def test_a_peer_that_asks_too_much_is_refused_as_busy_and_misuse_is_charged(
    tmp_path: Path, indexes: Indexes
) -> None:
    async with world(tmp_path, 2) as (one, other):
        await serve(one, "lawyer", LAWYER)
        link = next(peer.link for peer in other.node.links.peers())

        async def ask(query: v1.SearchQuery) -> str | None:
            stream = await link.open_stream()
            await stream.send(v1.encode(query))
            try:
                payload = await stream.recv()
            except Closed:
                return None
            return None if payload is None else v1.decode_search_reply(payload).refused

        said = [await ask(v1.SearchQuery(v=1, text=NEED)) for _ in range(40)]
        assert said[0] == ""
        assert "refused.busy" in said
        assert len(indexes.opened[0].queries) <= said.count("")
        charged = len(one.node.trust.show(other.node.node_id).events)
        for query in (
            v1.SearchQuery(v=1, text="x" * 1_001),
            v1.SearchQuery(v=1, text=NEED, limit=33),
            v1.SearchQuery(v=1, text=NEED, known=list(range(65))),
        ):
            assert await ask(query) is None
        assert len(one.node.trust.show(other.node.node_id).events) > charged


async def test_a_peer_is_refused_rather_than_answered_by_words_alone(
    tmp_path: Path, indexes: Indexes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_PATIENCE_S", 0.02)
    async with world(tmp_path, 2) as (one, other):
        await serve(one, "lawyer", LAWYER)
        await one.node.discover(request(NEED, scope="local"))
        indexes.opened[0].hold = asyncio.Event()
        stream = await next(peer.link for peer in other.node.links.peers()).open_stream()
        await stream.send(v1.encode(v1.SearchQuery(v=1, text="tenancy agreements")))
        payload = await stream.recv()
        assert payload is not None
        assert v1.decode_search_reply(payload) == v1.SearchReply(refused="discover.starting")


FOREIGN = KeyPair.generate(b"f" * 32)


def lies(one: Member, other: Member) -> dict[str, list[bytes]]:
    """Return answers that nobody honest gives."""
    now = int(__import__("time").time())
    good = record(FOREIGN, other.node.node_id, iat=now, exp=now + 600, now=now, name="good", description=LAWYER)
    forged = good.raw.replace(b"Reviews", b"Invents")
    assert forged != good.raw
    claims_us = record(FOREIGN, one.node.node_id, iat=now, exp=now + 600, now=now, name="ours", description=LAWYER)
    unsigned = record(FOREIGN, other.node.node_id, signed=False, iat=now, exp=now + 600, now=now, description=LAWYER)
    return {
        "forged": [forged, good.raw],
        "ten thousand": [good.raw] * 10_000,
        "no json": [b"\xff\x00", good.raw],
        "lives at the asker": [claims_us.raw],
        "unsigned": [unsigned.raw],
    }


@pytest.mark.parametrize("lie", ["forged", "ten thousand", "no json", "lives at the asker", "unsigned", "no message"])
async def test_hostile_answers_admit_nothing(
    tmp_path: Path, indexes: Indexes, monkeypatch: pytest.MonkeyPatch, lie: str
) -> None:
    async with world(tmp_path, 2) as (one, other):
        await serve(one, "cook", COOK)

        async def serve_lie(peer: Any, stream: Any, query: Any) -> None:
            payload = b"\x00" * 10 if lie == "no message" else v1.encode(v1.SearchReply(records=lies(one, other)[lie]))
            await stream.send(payload)
            await stream.finish()

        monkeypatch.setattr(other.node._discovery, "serve", serve_lie)  # pyright: ignore[reportPrivateUsage]
        view = await one.node.discover(request(NEED))
        assert names(view) == []
        assert [entry.name for entry in one.node.agents()] == ["cook"]
        blamed = {"forged", "ten thousand", "no json", "no message"}
        assert bool(one.node.trust.show(other.node.node_id).events) == (lie in blamed)


async def test_watching_shows_an_agent_that_comes_and_one_that_goes(tmp_path: Path, indexes: Indexes) -> None:
    async with world(tmp_path, 1) as (one,):
        await serve(one, "cook", COOK)
        watching = one.node.watch_discover(request(NEED), watch=True)
        assert names(await anext(watching)) == []
        waiting = asyncio.ensure_future(anext(watching))  # noqa: TID251 a test's own task
        await serve(one, "lawyer", LAWYER)
        async with asyncio.timeout(5):
            assert names(await waiting) == ["lawyer"]
        await one.node.deregister("lawyer")
        async with asyncio.timeout(5):
            assert names(await anext(watching)) == []
        await watching.aclose()


async def test_a_watched_list_follows_what_tells_nobody_too(
    tmp_path: Path, indexes: Indexes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "WATCH_IDLE_S", 0.02)
    async with world(tmp_path, 2) as (one, other):
        await serve(other, "lawyer", LAWYER)
        await until(lambda: len(one.node.agents()) == 1)
        watching = one.node.watch_discover(request(NEED, scope="local"), watch=True)
        before = (await anext(watching)).hits[0].score
        await one.node.report_abuse("lawyer", "sends spam")
        async with asyncio.timeout(5):
            after = (await anext(watching)).hits[0].score
        await watching.aclose()
        assert after.trust < before.trust


async def test_changes_are_told_to_the_index_only_once_there_is_one(tmp_path: Path, indexes: Indexes) -> None:
    async with world(tmp_path, 1) as (one,):
        await serve(one, "cook", COOK)
        await one.node.discover(request("food"))
        await serve(one, "lawyer", LAWYER)
        (index,) = indexes.opened
        assert one.node.agent("lawyer").agent.agent_id in index.told
        assert one.node.agent("cook").agent.agent_id not in index.told
    assert index.closed


BAD = {
    "control characters": ({"query": "\x00\x01binary"}, "discover.query"),
    "no hits": ({"limit": 0}, "discover.limit"),
    "too many hits": ({"limit": 1_001}, "discover.limit"),
    "too many near misses": ({"near": 101}, "discover.near"),
    "too long a wait": ({"time_ms": 30_001}, "discover.time"),
    "a wait of less than nothing": ({"time_ms": -1}, "discover.time"),
    "negative weights": ({"weights": WeightsView(text=-1)}, "discover.weights"),
    "no weights": ({"weights": WeightsView(text=0, trust=0, health=0)}, "discover.weights"),
    "weights that are no numbers": ({"weights": WeightsView(text=float("nan"))}, "discover.weights"),
    "a price in words": ({"filters": DiscoverFilters(price_max="cheap")}, "discover.price"),
    "a negative price": ({"filters": DiscoverFilters(budget="-1")}, "discover.price"),
    "a price with more after it": ({"filters": DiscoverFilters(price_max="1,calls=3")}, "discover.price"),
    "a negative window": ({"filters": DiscoverFilters(context_window_min=-1)}, "discover.context_window"),
    "a long tag": ({"filters": DiscoverFilters(tag="x" * 257)}, "discover.filter"),
}


@pytest.mark.parametrize("case", BAD)
async def test_what_makes_no_sense_is_refused_with_its_own_code(case: str) -> None:
    fields, code = BAD[case]
    with pytest.raises(UsageError) as error:
        read_request(DiscoverRequest(**fields), Weights())
    assert error.value.code == code


def test_a_long_query_is_cut_and_the_answer_says_so() -> None:
    wanted = read_request(DiscoverRequest(query="x" * 1_000_000), Weights())
    assert len(wanted.query) == 1_000
    assert "first 1000 characters" in wanted.notes[0]


def test_price_and_budget_together_bound_by_the_smaller() -> None:
    filters = DiscoverFilters(price_max="0.05", budget="0.02")
    assert read_request(DiscoverRequest(filters=filters), Weights()).filters.price_micros_max == 20_000


@pytest.mark.parametrize("text", ["", "1", "1,2", "a,b,c", "1,2,3,4", "-1,1,1", "0,0,0", "nan,1,1"])
def test_weights_that_are_no_mix_are_refused(text: str) -> None:
    with pytest.raises(UsageError) as error:
        weights_of(text)
    assert error.value.code == "discover.weights"


def read_or_code(request: DiscoverRequest) -> Wanted | str:
    try:
        return read_request(request, Weights())
    except UsageError as error:
        return error.code


@given(
    st.text(max_size=50),
    st.integers(-5, 2_000),
    st.integers(-5, 200),
    st.integers(-5, 40_000),
    st.tuples(*[st.floats(-1, 10) | st.just(float("inf"))] * 3),
    st.text(max_size=10),
)
def test_a_request_is_refused_or_means_something(
    query: str, limit: int, near: int, time_ms: int, mix: tuple[float, float, float], price: str
) -> None:
    weights = WeightsView(text=mix[0], trust=mix[1], health=mix[2])
    given_ = DiscoverRequest(
        query=query, limit=limit, near=near, time_ms=time_ms, weights=weights, filters=DiscoverFilters(price_max=price)
    )
    wanted = read_or_code(given_)
    if isinstance(wanted, str):
        assert wanted.startswith("discover.")
        return
    assert sum(wanted.weights) == pytest.approx(1)
    assert 1 <= wanted.limit <= 1_000
    assert wanted.filters.price_micros_max is None or wanted.filters.price_micros_max >= 0


def test_the_words_for_the_dht_are_the_whole_query_and_then_its_longest_words() -> None:
    assert words_of("a German rental contract") == ["a German rental contract", "contract", "German", "rental"]
    assert words_of("") == []
    assert len(words_of("x" * 300)) == 1
