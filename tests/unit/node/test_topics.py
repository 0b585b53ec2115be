"""Publish and subscribe between whole nodes in one process."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import (
    AgentNotFound,
    Busy,
    LimitError,
    MeshError,
    NoRoute,
    RecordNotFound,
    StateError,
    Timeout,
    Unauthorized,
    UsageError,
)
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.publication import Publication, read_publication, sign_publication
from agentmesh.net.tasks import TaskScope
from agentmesh.node.topics.compose import TopicParts, sqlite_store
from agentmesh.wire.message_views import (
    CloudEventView,
    MessageRequest,
    PublishRequest,
    SubscribeRequest,
    TopicRequest,
    TopicRules,
)
from agentmesh.wire.topics import Append, Bounds, Read, Sums, Wanted
from tests.unit.node.test_two_nodes import echo
from tests.unit.node.world import Member, until, world


def parts_of(member: Member) -> TopicParts:
    return member.node._topics


class Follower:
    """One subscription, read in a task of its own."""

    def __init__(self, member: Member, request: SubscribeRequest) -> None:
        self.member, self.request = member, request
        self.events: list[CloudEventView] = []
        self.error: MeshError | None = None

    async def run(self) -> None:
        try:
            async for event in self.member.node.topics.subscribe(self.request):
                self.events.append(event)
        except MeshError as error:
            self.error = error

    @property
    def data(self) -> list[Any]:
        return [event.data for event in self.events]


@asynccontextmanager
async def following(member: Member, *subjects: str, **more: Any) -> AsyncIterator[Follower]:
    """Follow subjects; entered when the subscription stands."""
    follower = Follower(member, SubscribeRequest(subjects=list(subjects), **more))
    scope = TaskScope("follower")
    before = len(parts_of(member).fanout)
    scope.spawn(follower.run())
    await until(lambda: more.get("topic") or follower.error or len(parts_of(member).fanout) > before)
    try:
        yield follower
    finally:
        await scope.aclose()


async def nexts(source: AsyncGenerator[CloudEventView, None], count: int) -> list[CloudEventView]:
    async with asyncio.timeout(10):
        return [await anext(source) for _ in range(count)]


@asynccontextmanager
async def meshed(tmp_path: Path, count: int, **more: Any) -> AsyncIterator[list[Member]]:
    """Nodes that are neighbours in the overlay, so that a broadcast reaches each."""
    async with world(tmp_path, count, **more) as members:
        await until(lambda: all(len(m.node.mesh.brain.neighbours()) == count - 1 for m in members), 20)
        yield members


async def refused(error: type[MeshError], code: str, awaitable: Any) -> None:
    with pytest.raises(error) as met:
        await awaitable
    assert met.value.code == code


# Live


async def test_what_is_published_on_one_node_reaches_who_follows_on_all(tmp_path: Path) -> None:
    async with meshed(tmp_path, 3) as (a, b, c):
        assert len(parts_of(a).fanout) == 0
        async with following(a, "news.*") as at_a, following(b, "news.>") as at_b, following(c, "other") as at_c:
            view = await a.node.topics.publish("news.local", PublishRequest(data={"n": 1}))
            assert view.subscribers == 1
            await until(lambda: at_a.events and at_b.events)
            await a.node.topics.publish("other", PublishRequest(text="x"))
            await until(lambda: at_c.events)
            [event] = at_b.events
            assert event == at_a.events[0]
            assert (event.id, event.data, event.source) == (view.message_id, {"n": 1}, a.node.node_id)
            assert (event.datacontenttype, event.subject) == ("application/json", "news.local")
            assert at_c.data == ["x"]


async def test_an_agent_publishes_in_its_own_name(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, b):
        await a.serve("speaker", echo)
        speaker = a.node.agents("speaker")[0].agent_id
        async with following(b, "t") as follower:
            await a.node.topics.publish("t", PublishRequest(text="hi", sender="speaker"))
            await until(lambda: follower.events)
            assert follower.events[0].source == speaker
        await refused(
            AgentNotFound, "not_found.agent", a.node.topics.publish("t", PublishRequest(text="", sender="no"))
        )


async def test_a_subscriber_that_never_reads_slows_nobody_and_hears_what_it_lost(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as [a]:
        sleeper = a.node.topics.subscribe(SubscribeRequest(subjects=["t"]))
        first = TaskScope("first").spawn(nexts(sleeper, 1))
        await until(lambda: len(parts_of(a).fanout) == 1)
        async with following(a, "t") as reader:
            for i in range(1_500):
                await a.node.topics.publish("t", PublishRequest(data=i))
                if i % 100 == 0:
                    await until(lambda i=i: len(reader.events) == i + 1)
            await until(lambda: len(reader.events) == 1_500)
            assert reader.data == list(range(1_500))
            assert not any(event.lost for event in reader.events)
            assert [event.data for event in await first] == [0]
            got = await nexts(sleeper, 1_024)
            assert (got[0].lost, got[0].data) == (1_499 - 1_024, 1_499 - 1_023)
            assert [event.lost for event in got[1:]] == [0] * 1_023
            assert got[-1].data == 1_499
            assert parts_of(a).fanout.lost == 1_499 - 1_024
        await sleeper.aclose()
        assert len(parts_of(a).fanout) == 0


async def test_what_waits_for_a_sleeping_subscriber_is_bounded_in_bytes_too(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as [a]:
        fanout = parts_of(a).fanout
        sleeper = fanout.subscribe(["t"], frozenset())
        for _ in range(300):
            await a.node.topics.publish("t", PublishRequest(text="x" * 65_536))
        assert sleeper.waiting <= 8 * 1024 * 1024 // 65_536
        assert sleeper.lost + sleeper.waiting == 300


@pytest.mark.parametrize(
    ("subject", "request_", "error"),
    [
        ("a..b", PublishRequest(text="x"), UsageError),
        ("a.*", PublishRequest(text="x"), UsageError),
        ("$topics.x", PublishRequest(text="x"), UsageError),
        ("presence.x", PublishRequest(text="x"), UsageError),
        ("a", PublishRequest(), UsageError),
        ("a", PublishRequest(text="x", data=1), UsageError),
        ("a", PublishRequest(data_base64="%%"), UsageError),
        ("a", PublishRequest(text="x", message_id="7"), UsageError),
        ("a", PublishRequest(text="x" * 65_537), LimitError),
        ("a", PublishRequest(text="x", headers={str(i): "" for i in range(99)}), LimitError),
    ],
)
async def test_what_cannot_be_published_is_refused_and_nobody_hears_it(
    tmp_path: Path, subject: str, request_: PublishRequest, error: type[MeshError]
) -> None:
    async with world(tmp_path, 1) as [a]:
        everything = parts_of(a).fanout.subscribe([">", "$topics.>"], frozenset())
        with pytest.raises(error):
            await a.node.topics.publish(subject, request_)
        assert everything.waiting == 0


async def test_a_repeated_request_is_published_once(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as [a]:
        follower = parts_of(a).fanout.subscribe(["t"], frozenset())
        request = PublishRequest(text="x", message_id="12345678-1234-4234-8234-123456789abc")
        first = await a.node.topics.publish("t", request)
        assert await a.node.topics.publish("t", request) == first
        assert follower.waiting == 1


async def test_more_than_the_mesh_passes_on_is_refused_with_a_time_to_come_back(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, _):
        with pytest.raises(Busy) as met:
            await asyncio.gather(*(a.node.topics.publish("t", PublishRequest(text="x")) for _ in range(3_000)))
        assert met.value.code == "topic.rate"


# Retained values


async def test_the_last_value_is_given_to_who_comes_later_and_to_nodes_that_come_later(tmp_path: Path) -> None:
    async with world(tmp_path, 2, join=False) as (a, b):
        await a.node.topics.publish("temp.x", PublishRequest(data=1, retain=True))
        await a.node.topics.publish("temp.x", PublishRequest(data=2, retain=True))
        await a.node.topics.publish("temp.y", PublishRequest(data=3, retain=True))
        await a.node.topics.publish("temp.z", PublishRequest(data=4))
        async with following(a, "temp.*", start="last") as here:
            await until(lambda: len(here.events) == 2)
            assert {(e.subject, e.data, e.retained) for e in here.events} == {("temp.x", 2, True), ("temp.y", 3, True)}
        async with following(b, "temp.>") as there:
            await b.node.add_seeds([a.seed])
            await until(lambda: len(there.events) == 2, 20)
            assert {(e.subject, e.data, e.retained) for e in there.events} == {("temp.x", 2, True), ("temp.y", 3, True)}
        assert parts_of(b).retained.sums() == parts_of(a).retained.sums()


async def test_an_emptied_subject_has_no_last_value_and_none_comes_back(tmp_path: Path) -> None:
    async with world(tmp_path, 2, join=False) as (a, b):
        for member in (a, b):
            await member.node.topics.publish("t", PublishRequest(text=member.node.config.name, retain=True))
        await a.node.topics.publish("t", PublishRequest(retain=True))
        await b.node.add_seeds([a.seed])
        await until(lambda: parts_of(b).retained.sums() == parts_of(a).retained.sums(), 20)
        assert list(parts_of(b).retained.values()) == []
        async with following(b, "t", start="last") as there:
            await b.node.topics.publish("t", PublishRequest(text="new"))
            await until(lambda: there.events)
            assert there.data == ["new"]


async def test_the_last_value_outlives_a_restart(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as [a]:
        await a.node.topics.publish("t", PublishRequest(text="kept", retain=True))
    async with world(tmp_path, 1) as [a], following(a, "t", start="last") as follower:
        await until(lambda: follower.events)
        assert follower.data == ["kept"]


async def test_a_forged_or_unasked_retained_value_is_not_taken(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, b):
        parts = parts_of(a)
        one = Publication(b"i" * 16, b.key.public, 1_700_000_000_000, "t", b"x", retain=True)
        raw = sign_publication(b.key, one)
        with pytest.raises(MeshError):
            read_publication(raw[:-1] + b"y")
        assert parts.topics.take_retained(one, raw)
        assert not parts.topics.take_retained(one, raw)
        ahead = Publication(b"j" * 16, b.key.public, 2**52, "t", b"x", retain=True)
        assert not parts.topics.take_retained(ahead, sign_publication(b.key, ahead))
        with pytest.raises(UsageError):
            await parts_of(b).asking.ask(a.node.node_id, Sums(sums=b"short"))
        assert (await parts_of(b).asking.ask(a.node.node_id, Wanted(keys=b"x" * 7))).raws == []


# Rules


async def test_rules_of_a_node_decide_who_publishes_and_subscribes_there(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, b):
        await a.serve("boss", echo)
        boss = a.node.agents("boss")[0].agent_id
        await b.node.topics.set_rules(
            [TopicRules(pattern="ops.>", publish=[boss]), TopicRules(pattern="no", publish=[])]
        )
        await a.node.topics.set_rules([TopicRules(pattern="ops.>", publish=["boss"], subscribe=["*"])])
        await refused(Unauthorized, "topic.publish", b.node.topics.publish("ops.x", PublishRequest(text="b")))
        await refused(Unauthorized, "topic.publish", a.node.topics.publish("ops.x", PublishRequest(text="a")))
        async with following(b, "ops.>", "no", "yes") as follower:
            await a.node.topics.publish("no", PublishRequest(text="dropped", retain=True))
            await a.node.topics.publish("ops.x", PublishRequest(text="from boss", sender="boss"))
            await a.node.topics.publish("yes", PublishRequest(text="end"))
            await until(lambda: "end" in follower.data)
            assert follower.data == ["from boss", "end"]
        assert parts_of(b).topics.refused == 1
        assert len(parts_of(b).retained) == 0


async def test_a_subject_for_named_agents_is_never_broadcast(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, b):
        await a.serve("reader", echo)
        await a.node.topics.set_rules([TopicRules(pattern="secret.>", subscribe=["reader"])])
        async with following(a, "secret.x", agent="reader") as allowed, following(b, "secret.>", "end") as outside:
            await refused(
                Unauthorized,
                "topic.subscribe",
                anext(a.node.topics.subscribe(SubscribeRequest(subjects=["secret.x"]))),
            )
            everything = parts_of(a).fanout.subscribe([">"], frozenset({a.node.node_id}))
            await a.node.topics.publish("secret.x", PublishRequest(text="psst", retain=True))
            await a.node.topics.publish("end", PublishRequest(text="end"))
            await until(lambda: allowed.events and outside.events)
            assert allowed.data == ["psst"]
            assert outside.data == ["end"]
            assert everything.waiting == 1
        assert parts_of(a).retained.lines(bytes(512)) == b""
        stranger = KeyPair.generate(b"s" * 32).did
        await a.node.topics.set_rules([TopicRules(pattern="secret.>", subscribe=[stranger])])
        a.node.topics.letters = None  # as where there is no mailroom
        await refused(StateError, "topic.no_mail", a.node.topics.publish("secret.x", PublishRequest(text="x")))


async def test_a_rule_file_that_makes_no_sense_lets_nobody_in_at_the_start_and_changes_nothing_later(
    tmp_path: Path,
) -> None:
    home = tmp_path / "n0"
    home.mkdir()
    file = home / "topics.toml"
    file.write_text("rules = 7")
    async with world(tmp_path, 1) as [a]:
        await refused(Unauthorized, "topic.publish", a.node.topics.publish("t", PublishRequest(text="x")))
        assert any("topics.toml" in text for text in a.node.status().warnings)
        await a.node.topics.set_rules([TopicRules(pattern="t", publish=[])])
        await refused(Unauthorized, "topic.publish", a.node.topics.publish("t", PublishRequest(text="x")))
        await a.node.topics.publish("u", PublishRequest(text="x"))
        file.write_text('[[rules]]\npattern = ".."\n')
        a.node.mesh.review()
        await refused(Unauthorized, "topic.publish", a.node.topics.publish("t", PublishRequest(text="x")))
        file.unlink()
        a.node.mesh.review()
        await a.node.topics.publish("t", PublishRequest(text="x"))


# Durable topics


async def test_a_durable_topic_is_replayed_from_any_place_by_any_node(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, b):
        await a.node.topics.create(TopicRequest(name="jobs", subjects=["jobs.>"]))
        await until(lambda: parts_of(b).durable.keeper_of("jobs.x"), 20)
        views = [
            await member.node.topics.publish(f"jobs.{i}", PublishRequest(data=i))
            for i, member in enumerate([a, b, a, b])
        ]
        assert [(view.topic, view.offset) for view in views] == [("jobs", i) for i in (1, 2, 3, 4)]
        for member in (a, b):
            topics = member.node.topics
            for request, wanted in (
                (SubscribeRequest(subjects=[], topic="jobs", start="all"), [0, 1, 2, 3]),
                (SubscribeRequest(subjects=[], topic="jobs", offset=3), [2, 3]),
                (SubscribeRequest(subjects=[], topic="jobs", start="last"), [3]),
                (SubscribeRequest(subjects=[], topic="jobs", since=1.0), [0, 1, 2, 3]),
                (SubscribeRequest(subjects=["jobs.1", "jobs.3"], topic="jobs", start="all"), [1, 3]),
            ):
                source = topics.subscribe(request)
                got = await nexts(source, len(wanted))
                assert [event.data for event in got] == wanted
                assert [event.offset for event in got] == [n + 1 for n in wanted]
                await source.aclose()
        async with following(b, topic="jobs", start="all") as follower:
            await a.node.topics.publish("jobs.new", PublishRequest(data="new"))
            await until(lambda: len(follower.events) == 5)
            assert follower.data[-1] == "new"
        assert [view.name for view in (await b.node.topics.list_topics()).topics] == ["jobs"]


async def test_a_durable_topic_is_replayed_after_its_node_was_restarted(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as [a]:
        await a.node.topics.create(TopicRequest(name="log", subjects=["log"]))
        for i in range(3):
            await a.node.topics.publish("log", PublishRequest(data=i))
    async with world(tmp_path, 1) as [a]:
        source = a.node.topics.subscribe(SubscribeRequest(subjects=[], topic="log", start="all"))
        assert [event.data for event in await nexts(source, 3)] == [0, 1, 2]
        await source.aclose()
        assert (await a.node.topics.publish("log", PublishRequest(data=3))).offset == 4


async def test_who_asks_a_node_that_is_still_reading_what_it_kept_waits_until_it_has(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, b):
        await a.node.topics.create(TopicRequest(name="log", subjects=["log"]))
        await until(lambda: parts_of(b).durable.keeper_of("log"), 20)
        a.node._recalled.clear()  # as while it starts
        scope = TaskScope("early")
        early = scope.spawn(b.node.topics.publish("log", PublishRequest(data=1)))
        await until(lambda: any(peer.requests for peer in a.node.links.peers()))
        assert not early.done()
        a.node._recalled.set()
        assert (await early).offset == 1
        await scope.aclose()


async def test_a_member_that_dies_leaves_its_work_to_another_on_another_node(tmp_path: Path) -> None:
    async with meshed(tmp_path, 3) as (a, b, c):
        for member in (a, b, c):
            parts_of(member).following.ack_wait_s = 0.3
        await a.node.topics.create(TopicRequest(name="jobs", subjects=["jobs"]))
        await until(lambda: parts_of(c).durable.keeper_of("jobs") and parts_of(b).durable.keeper_of("jobs"), 20)
        for i in range(4):
            await a.node.topics.publish("jobs", PublishRequest(data=i))
        dying = b.node.topics.subscribe(SubscribeRequest(subjects=[], topic="jobs", group="g"))
        await nexts(dying, 1)  # has all four, and never says that it did one
        await b.node.aclose()
        done: list[int] = []
        async with asyncio.timeout(20):
            async for event in c.node.topics.subscribe(SubscribeRequest(subjects=[], topic="jobs", group="g")):
                assert event.lease
                view = await c.node.topics.acknowledge("jobs", "g", [event.lease], back=False)
                if view.done:
                    done.append(event.data)
                if len(done) == 4:
                    break
        assert sorted(done) == [0, 1, 2, 3]
        view = (await a.node.topics.list_topics()).topics[0]
        assert view.groups == {"g": 0}


async def test_work_given_back_goes_to_whoever_asks_next(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as [a]:
        topics = a.node.topics
        await topics.create(TopicRequest(name="jobs", subjects=["jobs"]))
        await topics.publish("jobs", PublishRequest(text="x"))
        one = topics.subscribe(SubscribeRequest(subjects=[], topic="jobs", group="g"))
        [event] = await nexts(one, 1)
        assert (await topics.acknowledge("jobs", "g", [event.lease], back=True)).done == 1
        await one.aclose()
        other = topics.subscribe(SubscribeRequest(subjects=[], topic="jobs", group="g"))
        assert [e.data for e in await nexts(other, 1)] == ["x"]
        await other.aclose()


async def test_a_name_and_subjects_belong_to_the_node_that_was_first_heard_to_have_them(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, b):
        await a.node.topics.create(TopicRequest(name="jobs", subjects=["jobs.>"]))
        await until(lambda: parts_of(b).durable.keeper_of("jobs.x"), 20)
        for name, subjects in (("jobs", ["else"]), ("more", ["jobs.x"])):
            await refused(StateError, "topic.overlap", b.node.topics.create(TopicRequest(name=name, subjects=subjects)))
        await refused(Unauthorized, "topic.foreign", b.node.topics.remove("jobs"))
        # A node that claims them all the same is not believed.
        thief, now_ms = KeyPair.generate(b"t" * 32), time.time_ns() // 1_000_000 + 60_000
        for number, (name, subjects) in enumerate([("jobs", "else"), ("all", ">"), ("mine", "jobs.x"), ("sys", "$x")]):
            payload = b'{"subjects":["%s"],"records_max":1,"bytes_max":1,"age_s_max":1}' % subjects.encode()
            claim = Publication(bytes([number]) * 16, thief.public, now_ms, f"$topics.{name}", payload, retain=True)
            assert not parts_of(b).topics.take_retained(claim, sign_publication(thief, claim))
        assert [known.spec.subjects for known in parts_of(b).durable.all()] == [("jobs.>",)]
        assert await a.node.topics.remove("jobs")
        await until(lambda: not parts_of(b).durable.all(), 20)
        assert (await a.node.topics.publish("jobs.x", PublishRequest(text="x"))).topic == ""


async def test_the_owner_of_a_topic_judges_what_others_bring(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, b):
        await a.node.topics.create(TopicRequest(name="jobs", subjects=["jobs.>"]))
        await a.node.topics.set_rules([TopicRules(pattern="jobs.boss", publish=[a.node.node_id])])
        stranger = KeyPair.generate(b"x" * 32)
        now_ms = time.time_ns() // 1_000_000

        def signed(key: KeyPair, subject: str, ts_ms: int) -> bytes:
            return sign_publication(key, Publication(random.randbytes(16), key.public, ts_ms, subject, b"x"))

        async def bring(raw: bytes) -> list[int]:
            reply = await parts_of(b).asking.ask(a.node.node_id, Append(topic="jobs", raws=[raw]))
            return reply.offsets

        assert await bring(signed(b.key, "jobs.x", now_ms)) == [1]
        assert await bring(signed(b.key, "jobs.x", now_ms - 3_600_000)) == [2]
        await refused(UsageError, "topic.subject", bring(signed(b.key, "else", now_ms)))
        await refused(UsageError, "topic.age", bring(signed(b.key, "jobs.x", now_ms - 8_000_000)))
        await refused(UsageError, "topic.age", bring(signed(stranger, "jobs.x", now_ms - 3_600_000)))
        await refused(Unauthorized, "topic.publish", bring(signed(b.key, "jobs.boss", now_ms)))
        with pytest.raises(MeshError):
            await bring(signed(b.key, "jobs.x", now_ms)[:-1] + b"y")
        with pytest.raises(RecordNotFound):
            await parts_of(b).asking.ask(a.node.node_id, Append(topic="none", raws=[]))
        assert (await parts_of(a).durable.store.bounds("jobs"))[1] == 3
        beyond = (1 << 64) - 1  # no number that a database has
        assert (await parts_of(b).asking.ask(a.node.node_id, Read(topic="jobs", offset=beyond))).records == []
        assert len((await parts_of(b).asking.ask(a.node.node_id, Bounds(topic="jobs", ts_ms=beyond))).offsets) == 3


async def test_a_topic_whose_node_is_gone_is_said_so_and_never_taken_for_kept(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, b):
        await a.node.topics.create(TopicRequest(name="jobs", subjects=["jobs.>"]))
        await until(lambda: parts_of(b).durable.keeper_of("jobs.x"), 20)
        await a.node.aclose()
        with pytest.raises((NoRoute, Timeout)):
            await b.node.topics.publish("jobs.x", PublishRequest(text="x"))
        with pytest.raises((NoRoute, Timeout)):
            await anext(b.node.topics.subscribe(SubscribeRequest(subjects=[], topic="jobs")))
        assert parts_of(b).topics.published == 0


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (SubscribeRequest(subjects=[]), UsageError),
        (SubscribeRequest(subjects=["a..b"]), UsageError),
        (SubscribeRequest(subjects=["a"], group="g"), UsageError),
        (SubscribeRequest(subjects=["a"], offset=3), UsageError),
        (SubscribeRequest(subjects=["a"], topic="none"), RecordNotFound),
        (SubscribeRequest(subjects=["a"], agent="nobody"), AgentNotFound),
        (SubscribeRequest(subjects=["a"] + [f"b{i}" for i in range(99)]), LimitError),
    ],
)
async def test_a_subscription_that_makes_no_sense_is_refused_on_its_first_step(
    tmp_path: Path, request_: SubscribeRequest, error: type[MeshError]
) -> None:
    async with world(tmp_path, 1) as [a]:
        with pytest.raises(error):
            await anext(a.node.topics.subscribe(request_))
        assert len(parts_of(a).fanout) == 0


# Presence


async def test_presence_tells_who_came_left_and_was_lost(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, b):
        async with following(a, "presence.>") as follower:
            await b.serve("guest", echo)
            await until(lambda: follower.events)
            guest = b.node.agents("guest")[0].agent_id
            event = follower.events[0]
            assert event.subject == f"presence.{guest.removeprefix('did:key:')}"
            assert (event.data["agent_id"], event.data["state"], event.data["name"]) == (guest, "join", "guest")
            async with following(a, "presence.*", start="last") as later:
                await until(lambda: later.events)
                assert later.events[0].retained
            await b.node.deregister("guest")
            await until(lambda: len(follower.events) == 2)
            assert follower.events[1].data["state"] == "leave"
        [seen] = await a.node.topics.presence()
        assert (seen.agent_id, seen.state, seen.node_id) == (guest, "leave", b.node.node_id)


async def test_a_node_that_never_publishes_opens_no_file_and_loads_no_store(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, b), following(a, "t"):
        await b.node.topics.publish("t", PublishRequest(text="x"))
        for member in (a, b):
            files = {path.name for path in (tmp_path / member.node.config.name).iterdir()}
            assert not files & {"topics.sqlite", "durable.sqlite", "topics.toml"}


async def test_what_is_for_a_named_agent_elsewhere_goes_to_it_alone_and_encrypted(tmp_path: Path) -> None:
    async with meshed(tmp_path, 3) as (a, b, c):
        await b.serve("reader", echo)
        reader = b.node.agents("reader")[0].agent_id
        await until(lambda: a.node.agents("reader"), 20)
        await a.node.topics.set_rules([TopicRules(pattern="secret.>", subscribe=[reader])])
        async with (
            following(b, "secret.>", agent="reader") as named,
            following(b, "secret.>", "end") as beside,
            following(c, "secret.>", "end") as elsewhere,
        ):
            view = await a.node.topics.publish("secret.x", PublishRequest(data={"pin": 1}))
            await until(lambda: named.events, 20)
            await a.node.topics.publish("end", PublishRequest(text="end"))
            await until(lambda: beside.events and elsewhere.events, 20)
            assert [(event.id, event.data, event.source) for event in named.events] == [
                (view.message_id, {"pin": 1}, a.node.node_id)
            ]
            assert beside.data == elsewhere.data == ["end"]
        assert (await b.node.mail.figures()).received == 1
        assert (await a.node.mail.figures()).sent == 1
        # Nobody can say in this way what only the mesh itself says.
        everything = parts_of(b).fanout.subscribe([">", "$topics.>"], frozenset({reader}))
        for number, subject in enumerate(("presence.x", "$topics.x", "a..b", "a.b")):
            forged = Publication(bytes([number]) * 16, a.key.public, time.time_ns() // 1_000_000, subject, b"{}")
            parts_of(b).topics.take_letter(forged, reader)
        assert everything.waiting == 1


async def test_a_message_to_a_topic_is_a_publication(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as [a], following(a, "news.>") as follower:
        sent = await a.node.mail.send(MessageRequest(to="topic:news.x", text="hi"))
        await until(lambda: follower.events)
        assert (follower.data, sent.state, sent.copies, follower.events[0].id) == (
            ["hi"],
            "delivered",
            1,
            sent.message_id,
        )


async def test_many_publishers_of_one_node_bring_their_records_to_the_keeper_together(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, b):
        await a.node.topics.create(TopicRequest(name="jobs", subjects=["jobs.>"]))
        await a.node.topics.set_rules([TopicRules(pattern="jobs.no", publish=[])])
        await until(lambda: parts_of(b).durable.keeper_of("jobs.x"), 20)
        asked = 0
        ask = parts_of(b).asking.ask

        async def counted(*given: Any, **more: Any) -> Any:
            nonlocal asked
            asked += 1
            return await ask(*given, **more)

        parts_of(b).asking.ask = counted  # type: ignore[method-assign]
        scope = TaskScope("publishers")
        tasks = [scope.spawn(b.node.topics.publish("jobs.x", PublishRequest(data=i))) for i in range(100)]
        bad = scope.spawn(b.node.topics.publish("jobs.no", PublishRequest(data="no")), quiet=True)
        tasks += [scope.spawn(b.node.topics.publish("jobs.x", PublishRequest(data=i))) for i in range(100, 103)]
        await asyncio.sleep(0)
        tasks.pop(50).cancel()
        views = await asyncio.gather(*tasks)
        await refused(Unauthorized, "topic.publish", bad)
        offsets = [view.offset for view in views]
        assert len(set(offsets)) == 102
        assert asked < 120
        kept = await parts_of(a).durable.store.read("jobs", 0, limit=1_000)
        assert {one.subject for one in kept} == {"jobs.x"}
        assert {read_publication(one.body).payload for one in kept} >= {b"%d" % i for i in range(103) if i != 50}
        assert (await b.node.topics.publish("jobs.x", PublishRequest(data="after"))).offset >= 103


async def test_nodes_on_one_bus_share_its_topics_and_the_work_of_their_groups(tmp_path: Path) -> None:
    shared = sqlite_store(tmp_path / "bus.sqlite")

    class OnBus:
        """The one store, as each node sees it: closing it is closing the way to it."""

        url = "nats://bus"

        def __getattr__(self, name: str) -> Any:
            return getattr(shared, name)

        async def open(self) -> None:
            await shared.open()

        async def aclose(self) -> None:
            return None

    async with meshed(tmp_path, 2, bus=lambda: OnBus()) as (a, b):
        view = await a.node.topics.create(TopicRequest(name="jobs", subjects=["jobs.>"]))
        assert (view.engine, view.node_id) == ("nats", "")
        await until(lambda: parts_of(b).durable.keeper_of("jobs.x"), 20)
        assert (await b.node.topics.publish("jobs.x", PublishRequest(data=1))).offset == 1
        assert (await a.node.topics.publish("jobs.x", PublishRequest(data=2))).offset == 2
        one = a.node.topics.subscribe(SubscribeRequest(subjects=[], topic="jobs", group="g"))
        [event, other] = await nexts(one, 2)
        assert [event.data, other.data] == [1, 2]
        assert (await b.node.topics.acknowledge("jobs", "g", [event.lease, other.lease], back=False)).done == 2
        await one.aclose()
        assert await b.node.topics.remove("jobs")
        await until(lambda: not parts_of(a).durable.all(), 20)
    await shared.aclose()


async def test_a_long_stretch_that_a_reader_may_not_see_is_passed_over_without_asking_on_and_on(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, b):
        await a.node.topics.create(TopicRequest(name="log", subjects=["log.>"]))
        await a.node.topics.set_rules([TopicRules(pattern="log.secret", subscribe=[a.node.node_id])])
        await until(lambda: parts_of(b).durable.keeper_of("log.x"), 20)
        for i in range(600):
            await a.node.topics.publish("log.secret", PublishRequest(data=i))
        asked = 0
        ask = parts_of(b).asking.ask

        async def counted(*given: Any, **more: Any) -> Any:
            nonlocal asked
            asked += 1
            return await ask(*given, **more)

        parts_of(b).asking.ask = counted  # type: ignore[method-assign]
        async with following(b, topic="log", start="all") as follower:
            await until(lambda: asked >= 2)
            await a.node.topics.publish("log.open", PublishRequest(data="open"))
            await until(lambda: follower.events)
            assert [(event.data, event.offset) for event in follower.events] == [("open", 601)]
        assert asked <= 4
        hidden = b.node.topics.subscribe(SubscribeRequest(subjects=["log.secret"], topic="log"))
        await b.node.topics.set_rules([TopicRules(pattern="log.secret", subscribe=[])])
        await refused(Unauthorized, "topic.subscribe", anext(hidden))


async def test_a_node_that_compares_without_end_is_refused(tmp_path: Path) -> None:
    async with meshed(tmp_path, 2) as (a, b):
        asking = parts_of(b).asking
        asks = [asking.ask(a.node.node_id, Sums(sums=bytes(512))) for _ in range(400)]
        met = [one for one in await asyncio.gather(*asks, return_exceptions=True) if isinstance(one, MeshError)]
        assert {error.code for error in met} == {"topic.rate"}


async def test_a_member_has_no_more_in_hand_than_it_acknowledges_and_gives_it_back_when_it_goes(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as [a]:
        topics = a.node.topics
        await topics.create(TopicRequest(name="jobs", subjects=["jobs"]))
        for i in range(40):
            await topics.publish("jobs", PublishRequest(data=i))
        async with following(a, topic="jobs", group="g") as hoarder:
            await until(lambda: len(hoarder.events) == 16)
            async with following(a, topic="jobs", group="g") as worker:
                await until(lambda: len(worker.events) == 16)
                lease = worker.events[0].lease
                assert (await topics.acknowledge("jobs", "g", [lease], back=False)).done == 1
                await until(lambda: len(worker.events) == 17)
            assert hoarder.data == list(range(16))
            assert worker.data == list(range(16, 33))
            # Gone in this very moment, it can still say what it did.
            late = worker.events[1].lease
            assert (await topics.acknowledge("jobs", "g", [late], back=False)).done == 1
        async with following(a, topic="jobs", group="g") as last:
            seen: list[int] = []
            while len(seen) < 38:
                await until(lambda: len(last.events) > len(seen), 20)
                event = last.events[len(seen)]
                await topics.acknowledge("jobs", "g", [event.lease], back=False)
                seen.append(event.data)
            assert sorted(seen) == [i for i in range(40) if i not in (16, 17)]
