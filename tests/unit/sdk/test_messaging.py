"""Messages, topics, shared state and locks in the async client, over the real HTTP API and doubles of what is behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import AgentNotFound, Busy, LimitError, RecordNotFound, StateError, UsageError
from agentmesh.net.tasks import TaskScope
from agentmesh.sdk.client import Mesh
from agentmesh.wire.message_views import MessageView, PublishRequest
from tests.api.messaging_doubles import FakeLocks, FakeMail, FakeState, FakeTopics
from tests.api.node_double import FakeBackend
from tests.api.serving import TOKEN, serving


def backend() -> FakeBackend:
    one = FakeBackend()
    one.mail, one.topics, one.state, one.locks = FakeMail(), FakeTopics(), FakeState(), FakeLocks()
    return one


@contextlib.asynccontextmanager
async def meshed(one: FakeBackend | None = None, **options: Any) -> AsyncIterator[tuple[Mesh, Any]]:
    async with serving(one or backend(), **options) as served, Mesh(url=served.url, token=TOKEN) as mesh:
        yield mesh, served.backend


async def step(readers: Any) -> Any:
    return await anext(readers)


async def until(condition: Any) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for is in the doubles
            await asyncio.sleep(0.005)


async def fail_at(text: str, reader: Any) -> None:
    async with reader as things:
        async for one in things:
            if one.text == text:
                raise ZeroDivisionError


async def fail_at_first(reader: Any) -> None:
    async with reader as things:
        async for _ in things:
            raise ZeroDivisionError


async def fail_in_a_client(url: str) -> None:
    async with Mesh(url=url, token=TOKEN) as mesh:
        await mesh.send("bob", "two")
        async for _ in mesh.inbox("bob"):
            raise ZeroDivisionError


# -- messages ---------------------------------------------------------------------------------------------------------


async def test_a_message_arrives_with_all_that_was_said_of_it_and_is_acknowledged_after_the_loop_body() -> None:
    async with meshed() as (mesh, node):
        sent = await mesh.send(
            "bob", "hi", sender="amy", kind="query", priority="high", conversation="c", delivery="effectively-once"
        )
        await mesh.send("bob", data={"n": 1}, sender="amy")
        await mesh.send("bob", b"\x00\xff", sender="amy")
        texts: list[Any] = []
        async for message in mesh.inbox("bob", wait_s=0):
            assert message.id not in node.mail.done, "acknowledged before its work was done"
            texts.append((message.text if message.data is not None else message.bytes, message.kind))
            if len(texts) == 1:
                assert (message.id, message.sender, message.conversation) == (sent.message_id, "amy", "c")
                assert message.view.priority == "high"
        assert texts == [("hi", "query"), ('{"n":1}', "command"), (b"\x00\xff", "command")]
        assert len(node.mail.done) == 3
        assert not node.mail.leased


async def test_a_repeated_send_carries_one_id_so_that_it_is_sent_once() -> None:
    async with meshed() as (mesh, node):
        first = await mesh.send("bob", "x", message_id="6f1f3c1d-7a11-4d6e-9c6a-5b0c5b626f0e")
        again = await mesh.send("bob", "x", message_id="6f1f3c1d-7a11-4d6e-9c6a-5b0c5b626f0e")
        assert first.message_id == again.message_id
        assert len(node.mail.boxes["bob"]) == 1


async def test_a_reply_goes_to_the_sender_in_its_conversation_and_in_the_receivers_name() -> None:
    async with meshed() as (mesh, node):
        await mesh.send("bob", "why?", sender="amy", conversation="c7", kind="query")
        async for message in mesh.inbox("bob", wait_s=0):
            await mesh.reply(message, "because")
        (answer,) = [m async for m in mesh.inbox("amy", wait_s=0)]
        assert (answer.text, answer.kind, answer.conversation, answer.sender) == ("because", "response", "c7", "bob")
        assert answer.reply_to == node.mail.done[0]


async def test_a_message_whose_work_failed_is_given_back() -> None:
    async with meshed() as (mesh, node):
        await mesh.send("bob", "one")
        await mesh.send("bob", "two")
        with pytest.raises(ZeroDivisionError):
            await fail_at_first(mesh.inbox("bob"))
        assert node.mail.done == []
        assert len(node.mail.given_back) == 2, "the one at work and the one that was fetched with it"
        assert [m.text async for m in mesh.inbox("bob", wait_s=0)] == ["one", "two"]


async def test_a_message_that_a_loop_was_left_at_is_settled_when_the_client_closes() -> None:
    one = backend()
    async with serving(one) as served:
        async with Mesh(url=served.url, token=TOKEN) as mesh:
            await mesh.send("bob", "one")
            async for message in mesh.inbox("bob"):
                assert message.text == "one"
                break
        assert len(one.mail.done) == 1
        with pytest.raises(ZeroDivisionError):
            await fail_in_a_client(served.url)
        assert len(one.mail.given_back) == 1


async def test_without_auto_ack_only_the_program_acknowledges() -> None:
    async with meshed() as (mesh, node):
        await mesh.send("bob", "one")
        await mesh.send("bob", "two")
        async for message in mesh.inbox("bob", wait_s=0, auto_ack=False):
            if message.text == "two":
                await message.ack()
                await message.ack()
        assert len(node.mail.done) == 1
        assert len(node.mail.leased) == 1


async def test_an_effectively_once_message_that_comes_again_is_not_seen_twice() -> None:
    async with meshed() as (mesh, node):
        view = MessageView(message_id="m1", sender="amy", recipient="bob", data="x", delivery="effectively-once")
        loose = MessageView(message_id="m2", sender="amy", recipient="bob", data="y")
        await node.mail.put("bob", view, view, loose, loose)
        assert [m.id async for m in mesh.inbox("bob", wait_s=0, limit=1)] == ["m1", "m2", "m2"]


async def test_an_inbox_waits_for_what_comes_and_a_client_that_leaves_leaves_nothing_leased() -> None:
    async with meshed() as (mesh, node):
        inbox = mesh.inbox("bob")
        coming = asyncio.get_running_loop().create_task(step(inbox))
        await until(lambda: node.mail.waiters == 1)
        await mesh.send("bob", "at last")
        assert (await coming).text == "at last"
        waiting = asyncio.get_running_loop().create_task(step(inbox))
        await until(lambda: node.mail.waiters == 1)
        waiting.cancel()
        await until(lambda: node.mail.waiters == 0)
        await mesh.send("bob", "nobody waits for this")
        assert not node.mail.leased
        assert [m.data for m in await mesh.peek("bob")] == ["nobody waits for this"]


class Wire:
    """Stands between a client and the daemon, can be cut, and is then somewhere else, as a daemon is that starts again."""

    def __init__(self, home: Path, port: int) -> None:
        self.home, self.port = home, port
        self.scope = TaskScope("wire")
        self.server: asyncio.Server | None = None
        self.writers: list[asyncio.StreamWriter] = []
        (home / "api.token").write_text(TOKEN)

    async def open(self) -> None:
        self.server = await asyncio.start_server(self.carry, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        (self.home / "daemon.json").write_text(json.dumps({"port": port}))

    async def cut(self) -> None:
        if self.server is not None:
            self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        self.writers += [writer, back]
        for source, sink in ((reader, back), (there, writer)):
            self.scope.spawn(self.pump(source, sink), quiet=True)

    async def pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await source.read(65536):
                sink.write(piece)
            sink.close()


@contextlib.asynccontextmanager
async def wired(home: Path, one: FakeBackend) -> AsyncIterator[tuple[Mesh, Wire]]:
    async with serving(one) as served:
        wire = Wire(home, served.port)
        await wire.open()
        try:
            async with Mesh(home=home) as mesh:
                yield mesh, wire
        finally:
            await wire.cut()
            await wire.scope.aclose()


async def test_an_inbox_goes_on_after_the_daemon_was_away(tmp_path: Path) -> None:
    one = backend()
    async with wired(tmp_path, one) as (mesh, wire):
        inbox = mesh.inbox("bob")
        await mesh.send("bob", "before")
        assert (await anext(inbox)).text == "before"
        coming = asyncio.get_running_loop().create_task(step(inbox))
        await until(lambda: one.mail.waiters == 1)
        await wire.cut()
        await until(lambda: one.mail.waiters == 0)
        await wire.open()
        await one.mail.put("bob", MessageView(message_id="m9", sender="amy", recipient="bob", data="after"))
        async with asyncio.timeout(20):
            assert (await coming).text == "after"


async def test_a_subscription_goes_on_after_the_daemon_was_away(tmp_path: Path) -> None:
    one = backend()
    async with wired(tmp_path, one) as (mesh, wire), mesh.subscribe("a", topic="log", start="all") as events:
        await mesh.publish("a", "before")
        assert (await anext(events)).text == "before"
        coming = asyncio.get_running_loop().create_task(step(events))
        await wire.cut()
        await until(lambda: one.topics.followers == 0)
        await one.topics.publish("a", PublishRequest(text="meanwhile"))
        await wire.open()
        async with asyncio.timeout(20):
            assert (await coming).text == "meanwhile"


async def test_what_makes_no_sense_is_refused_before_or_by_the_node() -> None:
    async with meshed() as (mesh, node):
        with pytest.raises(AgentNotFound):
            await mesh.send("nobody", "x")
        with pytest.raises(AgentNotFound):
            await anext(mesh.inbox("nobody"))
        with pytest.raises(UsageError):
            mesh.inbox("bob", lease_s=0)
        with pytest.raises(LimitError):
            await mesh.send("bob", "x" * 9_000_000)
        with pytest.raises(UsageError):
            await mesh.send("bob", data=object())
        node.mail.failure = Busy("full", code="mail.full", retry_after_s=3)
        with pytest.raises(Busy) as caught:
            await mesh.send("bob", "x")
        assert caught.value.code == "mail.full"


async def test_groups_figures_and_dead_letters() -> None:
    async with meshed() as (mesh, node):
        group = await mesh.set_group("team", ["a", "b"])
        assert (await mesh.set_group("team", ["a"])).epoch == group.epoch + 1
        assert [g.members for g in await mesh.groups()] == [["a"]]
        await mesh.remove_group("team")
        with pytest.raises(RecordNotFound):
            await mesh.remove_group("team")
        sent = await mesh.send("bob", "x")
        assert (await mesh.sent(sent.message_id)).state == "delivered"
        assert (await mesh.retry(sent.message_id)).message_id == sent.message_id
        assert (await mesh.mail()).sent == 1
        assert (await mesh.dead_letters(limit=7, start=2)).total == 0
        assert ("dead", 7, 2) in node.mail.asked


# -- topics -----------------------------------------------------------------------------------------------------------


async def test_a_subscriber_hears_what_is_published_from_when_it_entered() -> None:
    async with meshed() as (mesh, node):
        await mesh.publish("build.linux", "too early")
        async with mesh.subscribe("build.*", "deploy.>") as events:
            await mesh.publish("build.linux", "ok")
            await mesh.publish("other", "no")
            await mesh.publish("deploy.eu.1", data={"v": 2})
            heard = [(event.subject, event.data) async for event in take(events, 2)]
        assert heard == [("build.linux", "ok"), ("deploy.eu.1", {"v": 2})]
        await until(lambda: node.topics.followers == 0)


async def take(events: Any, count: int) -> AsyncIterator[Any]:
    for _ in range(count):
        yield await anext(events)


async def test_a_durable_topic_is_read_from_where_it_was_after_the_stream_broke() -> None:
    async with meshed() as (mesh, node):
        for n in range(3):
            await mesh.publish("a.b", str(n))
        async with mesh.subscribe("a.*", topic="log", start="all") as events:
            assert [event.text async for event in take(events, 2)] == ["0", "1"]
            await events._end_stream()  # pyright: ignore[reportPrivateUsage]
            await mesh.publish("a.b", "3")
            assert [(event.text, event.offset) async for event in take(events, 2)] == [("2", 3), ("3", 4)]
        offsets = [asked[1].offset for asked in node.topics.asked if asked[0] == "subscribe"]
        assert offsets == [0, 3]


async def test_work_of_a_group_is_acknowledged_when_it_is_done_and_given_back_when_it_fails() -> None:
    async with meshed() as (mesh, node):
        await mesh.publish("jobs.a", "1")
        await mesh.publish("jobs.a", "2")
        with pytest.raises(ZeroDivisionError):
            await fail_at("2", mesh.subscribe("jobs.*", topic="jobs", group="g", start="all"))
        assert node.topics.acked == [("jobs", "g", ("lease-1",), False), ("jobs", "g", ("lease-2",), True)]


async def test_a_subscription_that_cannot_be_is_refused_as_a_whole() -> None:
    async with meshed() as (mesh, node):
        with pytest.raises(RecordNotFound):
            async with mesh.subscribe("a", topic="missing"):
                pass
        with pytest.raises(UsageError):
            mesh.subscribe()
        with pytest.raises(UsageError):
            mesh.subscribe(*(f"a{n}" for n in range(65)))
        assert node.topics.followers == 0


async def test_durable_topics_rules_and_presence() -> None:
    async with meshed() as (mesh, node):
        made = await mesh.create_topic("jobs", ["jobs.>"], records_max=10)
        assert (made.name, node.topics.asked[-1][1].records_max) == ("jobs", 10)
        assert [topic.name for topic in (await mesh.topics()).topics] == ["jobs"]
        assert await mesh.remove_topic("jobs")
        assert not await mesh.remove_topic("jobs")
        assert [one.state for one in await mesh.presence()] == ["join"]


# -- state ------------------------------------------------------------------------------------------------------------


async def test_every_type_of_state_has_its_words() -> None:
    async with meshed() as (mesh, node):
        space = mesh.state("team", agent="amy")
        assert await space.counter("votes").add(2) == 2
        assert await space.increment("votes", -1) == 1
        assert await space.counter("votes").value() == 1
        assert await space.members("in").add("amy") == ["amy"]
        assert await space.members("in").discard("amy") == []
        assert await space.map("m").put("k", 1) == {"k": 1}
        assert await space.map("m").remove("k") == {}
        assert await space.list("l").insert("a") == ["a"]
        assert await space.list("l").insert("b", at=0) == ["b", "a"]
        assert await space.list("l").cut(0) == ["a"]
        assert await space.text("t").insert("hello") == "hello"
        assert await space.text("t").cut(0, 4) == "o"
        assert await space.text("none").value() == ""
        await space.set("r", {"x": 1})
        assert await space.get("r") == {"x": 1}
        assert await space.get("none", "default") == "default"
        await space.delete("r")
        assert await space.get("r") is None
        await space.set("plan/history", "in a name, a slash is a letter")
        assert await space.get("plan/history") == "in a name, a slash is a letter"
        assert [entry.op for entry in await space.history("plan/history")] == ["set"]
        assert await mesh.state("a.b", agent="amy").increment("c/d") == 1
        assert ("a.b", "c/d") in node.state.kept
        assert [entry.op for entry in await space.history("votes")] == ["increment", "increment"]
        assert (await space.keys("v")).total == 1
        assert all(asked[3].agent == "amy" for asked in node.state.asked if asked[0] == "change")
        with pytest.raises(StateError):
            await space.increment("t")


async def test_a_space_hands_on_what_it_has_seen_and_at_which_level() -> None:
    async with meshed() as (mesh, node):
        space = mesh.state("team", level="causal")
        await space.set("a", 1)
        await space.get("a")
        await space.set("b", 2, level="linearizable", expect=0)
        asked = node.state.asked
        assert asked[1] == ("get", "team", "a", "causal", "t1")
        change = asked[2][3]
        assert (change.token, change.level, change.expect, change.type) == ("t1", "linearizable", 0, "")


async def test_a_watcher_sees_keys_as_they_are_and_as_they_change() -> None:
    async with meshed() as (mesh, node):
        space = mesh.state("team")
        await space.increment("votes")
        watching = space.watch("vo")
        seen = [(await anext(watching)).value]
        await until(lambda: node.state.watchers == 1)
        await space.increment("votes", 4)
        seen.append((await anext(watching)).value)
        await watching.aclose()
        assert seen == [1, 5]
        await until(lambda: node.state.watchers == 0)


# -- locks ------------------------------------------------------------------------------------------------------------


async def test_a_lock_is_held_renewed_and_given_back() -> None:
    async with meshed() as (mesh, node):
        async with mesh.lock("nightly", ttl_s=1) as lock:
            assert (lock.token, lock.lost) == (1, False)
            with pytest.raises(Busy) as caught:
                await mesh.lock("nightly").acquire()
            assert caught.value.extra["holder"] == lock.holder
            async with asyncio.timeout(10):
                await node.locks.renewed.wait()
        assert node.locks.held == {}
        async with mesh.lock("team/nightly") as lock:
            assert lock.token == 2
            assert list(node.locks.held) == ["team/nightly"]


async def test_a_lock_that_was_lost_says_so_when_its_work_ends() -> None:
    async with meshed() as (mesh, node):
        lock = await mesh.lock("nightly", ttl_s=1).acquire()
        await node.locks.lose("nightly")
        await until(lambda: lock.lost)
        with pytest.raises(StateError) as caught:
            await lock.release()
        assert caught.value.code == "lock.lost"


async def test_whoever_waits_for_a_lock_and_leaves_does_not_get_it() -> None:
    async with meshed() as (mesh, node):
        async with mesh.lock("nightly"):
            waiting = asyncio.get_running_loop().create_task(mesh.lock("nightly", wait_s=30).acquire())
            await until(lambda: sum(one[0] == "acquire" for one in node.locks.asked) == 2)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await until(lambda: not node.locks.held)
        async with mesh.lock("nightly"):
            assert [one.name for one in (await mesh.locks()).locks] == ["nightly"]
            assert (await mesh.show_lock("nightly")).held
        assert not (await mesh.show_lock("nightly")).held
