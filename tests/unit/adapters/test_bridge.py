"""One bridge at work, on a registry and a node of the test's own making: what is taken in, refused, tried again, sent out."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

import pytest

from agentmesh.adapters.bridges import bridge as bridge_module
from agentmesh.adapters.bridges import outgoing
from agentmesh.adapters.bridges.base import Alive, Change, Gone, Listed, Listing, Posting, Put
from agentmesh.adapters.bridges.bridge import Bridge
from agentmesh.adapters.bridges.spec import read_spec
from agentmesh.adapters.reach import Reach
from agentmesh.errors import MeshError, NoRoute, StateError, UsageError

HERE = "http://127.0.0.1:9000/"


def entry(url: str = HERE, **more: Any) -> bytes:
    return json.dumps({"url": url, **more}).encode()


class FakeForeign:
    """A registry whose entries the test sets; it can be down, and forgets what was published when told to."""

    def __init__(self) -> None:
        self.entries: dict[str, bytes | None] = {}
        self.queue: asyncio.Queue[Change | MeshError] = asyncio.Queue()
        self.error: MeshError | None = None
        self.listings = 0
        self.published: list[list[str]] = []
        self.kept = True
        self.withdrawn = False

    async def watch(self, *, fresh: bool) -> AsyncGenerator[Change]:
        if self.error is not None:
            raise self.error
        if fresh or not self.listings:
            self.listings += 1
            yield Listing()
            for key, value in list(self.entries.items()):
                yield Put(key, value)
            yield Listed()
        yield Alive()
        while True:
            change = await self.queue.get()
            if isinstance(change, MeshError):
                raise change
            yield change

    def put(self, key: str, value: bytes | None) -> None:
        self.entries[key] = value
        self.queue.put_nowait(Put(key, value))

    def delete(self, key: str) -> None:
        del self.entries[key]
        self.queue.put_nowait(Gone(key))

    async def publish(self, postings: Sequence[Posting], origin: str, *, fresh: bool = False) -> None:
        if self.error is not None:
            raise self.error
        self.published.append([one.name for one in postings])

    async def keep(self) -> bool:
        return self.kept

    async def withdraw(self) -> None:
        self.withdrawn = True

    async def aclose(self) -> None:
        """Nothing is held."""


class FakeHost:
    """A node that registers what it is told, unless the test says that a URL fails."""

    node_id = "did:key:zNode"
    port = 6374

    def __init__(self) -> None:
        self.agents: dict[str, str] = {}
        self.failing: dict[str, MeshError] = {}
        self.tries: list[str] = []
        self.mine: list[Posting] = []
        self.slow: asyncio.Event | None = None
        self.on_change: Callable[[], None] = lambda: None

    def own(self, edge: str) -> list[Posting]:
        return self.mine

    async def take_in(self, url: str, door: str, name: str, origin: str, least: Reach) -> list[str]:
        self.tries.append(url)
        if self.slow is not None:
            await self.slow.wait()
        if url in self.failing:
            raise self.failing[url]
        agent_id = f"did:key:{origin}:{name}"
        self.agents[agent_id] = origin
        self.on_change()
        return [agent_id]

    async def let_go(self, origin: str, keep: Sequence[str] = ()) -> None:
        for agent_id in [a for a, o in self.agents.items() if o == origin and a not in keep]:
            del self.agents[agent_id]
        self.on_change()

    def has(self, agent_id: str) -> bool:
        return agent_id in self.agents


class World:
    def __init__(self, options: str = "") -> None:
        self.foreign, self.host = FakeForeign(), FakeHost()
        spec = read_spec(f"etcd://127.0.0.1:2379/agents{options}")
        self.bridge = Bridge(spec, self.foreign, self.host, random.Random(1))
        self.host.on_change = self.bridge.note_change

    def origins(self) -> list[str]:
        return sorted(origin.rpartition("/")[2] for origin in self.host.agents.values())

    def reasons(self) -> dict[str, str]:
        return {one.key: one.code for one in self.bridge.view().refusals}

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(60):
            while not holds():  # noqa: ASYNC110 what is waited for is far from here
                await asyncio.sleep(0.002)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what waits seconds wait milliseconds."""
    for name in ("_BACKOFF_MIN_S", "_BACKOFF_MAX_S", "_RETRY_MIN_S", "_RETRY_MAX_S", "_RELIST_S", "_GATHER_S"):
        monkeypatch.setattr(bridge_module, name, 0.01)
    monkeypatch.setattr(outgoing, "_GATHER_S", 0.01)
    monkeypatch.setattr(outgoing, "TTL_S", 0.06)


async def test_agents_follow_their_entries_in_and_out() -> None:
    world = World()
    world.foreign.entries = {"a": entry(), "b": entry(name="bee")}
    world.bridge.open()
    await world.until(lambda: world.origins() == ["a", "b"])
    assert world.bridge.view().incoming == "up"
    world.foreign.put("b", entry(name="wasp"))
    await world.until(lambda: any(agent.endswith(":wasp") for agent in world.host.agents))
    await world.until(lambda: not any(agent.endswith(":bee") for agent in world.host.agents))
    world.foreign.delete("a")
    await world.until(lambda: world.origins() == ["b"])
    assert world.bridge.view().taken == 1
    await world.bridge.aclose()
    assert world.host.agents == {}
    assert world.foreign.withdrawn


async def test_what_a_hostile_entry_says_is_refused_with_its_reason_and_leaves_the_others_alone() -> None:
    world = World()
    world.foreign.entries = {
        "garbage": b"\xff\xfe",
        "huge": None,
        "no-url": b"{}",
        "door": entry(door="sdk"),
        "name": entry(name="../etc"),
        "scheme": entry("file:///etc/passwd"),
        "credentials": entry("http://user:pass@127.0.0.1:9000/"),
        "metadata": entry("http://169.254.169.254/latest"),
        "own-node": entry("http://127.0.0.1:6374/a2a/calc"),
        "good": entry(),
    }
    world.bridge.open()
    await world.until(lambda: world.origins() == ["good"] and len(world.reasons()) == 9)
    assert world.reasons() == {
        "garbage": "bridge.bad_entry",
        "huge": "bridge.entry_too_large",
        "no-url": "bridge.bad_entry",
        "door": "bridge.bad_entry",
        "name": "bridge.bad_entry",
        "scheme": "agent.bad_url",
        "credentials": "agent.bad_url",
        "metadata": "link.inward",
        "own-node": "link.own_node",
    }
    assert world.host.tries == [HERE], "nothing of what was refused was asked"
    world.foreign.put("scheme", entry("http://127.0.0.1:9001/"))
    await world.until(lambda: world.origins() == ["good", "scheme"])
    world.foreign.put("good", b"[]")
    await world.until(lambda: world.origins() == ["scheme"])
    await world.bridge.aclose()


async def test_what_a_mesh_node_wrote_is_never_taken_in() -> None:
    world = World()
    world.foreign.entries = {
        "own": entry(origin="did:key:zNode"),
        "other": entry(origin="did:key:zOther"),
        "a": entry(),
    }
    world.bridge.open()
    await world.until(lambda: world.origins() == ["a"])
    assert world.bridge.view().mesh == 2
    world.foreign.put("a", entry(origin="did:key:zOther"))
    await world.until(lambda: world.origins() == [] and world.bridge.view().mesh == 3)
    await world.bridge.aclose()


async def test_an_agent_that_does_not_answer_yet_is_tried_again_and_one_that_cannot_be_is_not() -> None:
    world = World()
    bad = "http://127.0.0.1:9002/"
    world.host.failing = {HERE: NoRoute("nothing answers"), bad: UsageError("no name", code="register.bad_name")}
    world.foreign.entries = {"a": entry(), "bad": entry(bad)}
    world.bridge.open()
    await world.until(lambda: world.host.tries.count(HERE) > 2 and "bad" in world.reasons())
    assert world.reasons()["a"] == "unreached.no_route"
    del world.host.failing[HERE]
    await world.until(lambda: world.origins() == ["a"])
    assert world.host.tries.count(bad) == 1
    assert "a" not in world.reasons()
    await world.bridge.aclose()


async def test_an_agent_that_was_withdrawn_here_comes_back_only_if_it_can() -> None:
    world = World()
    world.foreign.entries = {"a": entry()}
    world.bridge.open()
    await world.until(lambda: world.origins() == ["a"])
    world.host.failing = {HERE: StateError("the name is taken", code="register.taken")}
    world.host.agents.clear()  # the operator registered an agent of that name
    world.host.on_change()
    await world.until(lambda: world.reasons() == {"a": "register.taken"})
    world.host.failing.clear()
    await world.until(lambda: world.origins() == ["a"])
    await world.bridge.aclose()


async def test_another_instance_takes_over_the_name_when_the_first_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_RETRY_MIN_S", "_RETRY_MAX_S"):
        monkeypatch.setattr(bridge_module, name, 1_000)
    world = World()
    second = "http://127.0.0.1:9001/"
    world.foreign.entries = {"a": entry(), "b": entry(second)}
    world.host.failing[second] = StateError("the name is taken", code="register.taken")
    world.bridge.open()
    await world.until(lambda: world.origins() == ["a"] and world.reasons() == {"b": "register.taken"})
    del world.host.failing[second]
    world.foreign.delete("a")
    await world.until(lambda: world.origins() == ["b"])
    await world.bridge.aclose()


async def test_entries_beyond_the_most_are_left_out_and_come_in_when_others_go() -> None:
    world = World("?max=2")
    world.foreign.entries = {key: entry() for key in "abcd"}
    world.bridge.open()
    await world.until(lambda: world.origins() == ["a", "b"] and world.bridge.view().left_out == 2)
    world.foreign.delete("a")
    await world.until(lambda: world.origins() == ["b", "c"])
    assert world.bridge.view().left_out == 1
    await world.bridge.aclose()


async def test_refused_entries_do_not_keep_others_out_nor_are_they_tried_at_every_listing() -> None:
    world = World("?max=3")
    world.foreign.entries = {f"bad-{i:02}": entry("http://169.254.169.254/") for i in range(20)} | {"good": entry()}
    world.bridge.open()
    await world.until(lambda: world.origins() == ["good"])
    await world.until(lambda: world.bridge.view().refused == 20 and world.bridge.view().left_out == 0)
    assert world.foreign.listings < 20
    await world.bridge.aclose()


async def test_ten_thousand_entries_cost_no_more_registrations_than_there_is_room_for() -> None:
    world = World("?max=1000&way=in")
    world.foreign.entries = {f"n{i}": entry(f"http://127.0.0.1:{10_000 + i}/") for i in range(10_000)}
    world.bridge.open()
    await world.until(lambda: len(world.host.agents) == 1000)
    view = world.bridge.view()
    assert (view.taken, view.left_out, view.refused) == (1000, 9000, 0)
    assert len(world.host.tries) == 1000
    await world.bridge.aclose()


async def test_an_entry_that_changes_all_the_time_is_settled_one_registration_at_a_time() -> None:
    world = World()
    world.host.slow = asyncio.Event()
    world.bridge.open()
    world.foreign.put("a", entry(name="first"))
    await world.until(lambda: world.host.tries)
    for number in range(500):
        world.foreign.put("a", entry(name=f"n{number}"))
    await world.until(world.foreign.queue.empty)
    assert len(world.host.tries) == 1
    world.host.slow.set()
    await world.until(lambda: list(world.host.agents) == ["did:key:etcd://127.0.0.1:2379/agents/a:n499"])
    assert len(world.host.tries) == 2
    await world.bridge.aclose()


async def test_entries_that_change_all_the_time_do_not_set_the_pace_of_the_mesh(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each registration is told to the whole mesh, so after a first filling there are so many a second and no more."""
    monkeypatch.setattr(bridge_module, "_PACE", 0.001)
    world = World("?max=3")
    world.bridge.open()
    for number in range(20):
        world.foreign.put("a", entry(name=f"n{number}"))
        await world.until(
            lambda n=number: "a" in world.bridge._guests and world.bridge._guests["a"].entry.name == f"n{n}"
        )
        if number < 3:
            await world.until(lambda n=number: len(world.host.tries) == n + 1)
    assert len(world.host.tries) == 3
    assert world.bridge.view().waiting == 0
    await world.bridge.aclose()


async def test_what_vanishes_while_it_is_being_registered_does_not_stay() -> None:
    world = World()
    world.host.slow = asyncio.Event()
    world.bridge.open()
    world.foreign.put("a", entry())
    await world.until(lambda: world.host.tries)
    world.foreign.delete("a")
    await world.until(lambda: world.foreign.queue.empty())
    world.host.slow.set()
    await world.until(lambda: world.bridge.view().taken == 0 and not world.host.agents)
    await world.bridge.aclose()


async def test_a_registry_that_goes_down_keeps_its_agents_and_is_taken_up_again() -> None:
    world = World()
    world.foreign.entries = {"a": entry(), "b": entry()}
    world.bridge.open()
    await world.until(lambda: world.origins() == ["a", "b"])
    world.foreign.error = NoRoute("etcd does not answer", code="bridge.unreachable", why="connection refused")
    world.foreign.queue.put_nowait(world.foreign.error)
    await world.until(lambda: world.bridge.view().incoming == "down")
    assert world.bridge.view().error == "etcd does not answer: connection refused"
    assert world.origins() == ["a", "b"], "its entries did not vanish, only the view of them"
    world.foreign.error = None
    world.foreign.put("c", entry())
    await world.until(lambda: world.origins() == ["a", "b", "c"])
    assert world.foreign.listings == 1, "it goes on from where it was"
    assert world.bridge.view().incoming == "up"
    await world.bridge.aclose()


def posting(name: str) -> Posting:
    return Posting(f"did:key:z{name}", name, name, f"http://127.0.0.1:6374/a2a/{name}", {}, healthy=True)


async def test_own_agents_go_out_as_they_change_and_only_those_that_were_named() -> None:
    world = World("?agent=calc&agent=Echo")
    world.host.mine = [posting("calc"), posting("secret")]
    world.bridge.open()
    await world.until(lambda: world.foreign.published[-1:] == [["calc"]])
    world.host.mine.append(posting("echo"))
    world.host.on_change()
    await world.until(lambda: world.foreign.published[-1] == ["calc", "echo"])
    assert world.bridge.view().posted == ["calc", "echo"]
    world.foreign.kept = False
    before = len(world.foreign.published)
    await world.until(lambda: len(world.foreign.published) > before + 1)
    await world.bridge.aclose()


@pytest.mark.parametrize(("way", "incoming", "outgoing"), [("in", "up", "off"), ("out", "off", "up")])
async def test_a_bridge_of_one_way_does_nothing_the_other_way(way: str, incoming: str, outgoing: str) -> None:
    world = World(f"?way={way}")
    world.foreign.entries = {"a": entry()}
    world.host.mine = [posting("calc")]
    world.bridge.open()
    await world.until(lambda: (world.bridge.view().incoming, world.bridge.view().outgoing) == (incoming, outgoing))
    await world.until(lambda: way == "out" or world.origins() == ["a"])
    assert bool(world.foreign.published) == (way == "out")
    assert bool(world.host.agents) == (way == "in")
    await world.bridge.aclose()
