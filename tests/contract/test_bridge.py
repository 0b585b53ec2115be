"""The suite that every foreign registry passes: a real etcd, and Consul as its HTTP API is documented (``support/consul``)."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from agentmesh.adapters.bridges.base import Alive, Change, Foreign, Gone, Listed, Listing, Posting, Put
from agentmesh.adapters.bridges.bridges import open_foreign
from agentmesh.adapters.bridges.entry import read_entry
from agentmesh.adapters.bridges.spec import read_spec
from agentmesh.errors import ConfigError, DecodeError, MeshError, Unauthorized, Unreached
from agentmesh.net.tasks import TaskScope
from tests.support import consul, etcd

NODE = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"


class World:
    """One registry as another program sees it."""

    def __init__(self, kind: str, root: Path) -> None:
        self.kind = kind
        self.root = root
        self.etcd = etcd.Etcd(root) if kind == "etcd" else None
        self.consul = consul.Consul() if kind == "consul" else None
        self.port = self.etcd.port if self.etcd else self.consul.port  # pyright: ignore[reportOptionalMemberAccess]

    def foreign(self, options: str = "") -> Foreign:
        prefix = "agents" if self.etcd else ""
        return open_foreign(read_spec(f"{self.kind}://127.0.0.1:{self.port}/{prefix}{options}"))

    def put(self, key: str, url: str) -> None:
        if self.etcd:
            self.etcd.put(f"agents/{key}", json.dumps({"url": url}))
        else:
            assert self.consul
            self.consul.put(key, {"url": url})

    def delete(self, key: str) -> None:
        if self.etcd:
            self.etcd.delete(f"agents/{key}")
        else:
            assert self.consul
            self.consul.delete(key)

    def entries(self) -> dict[str, Any]:
        """Return what stands there: url by key."""
        if self.etcd:
            return {k.removeprefix("agents/"): json.loads(v)["url"] for k, v in self.etcd.all("agents/").items()}
        assert self.consul
        return {key: one["Meta"]["url"] for key, one in self.consul.services.items()}

    def forget_us(self) -> None:
        """Let what this node published run out."""
        if self.etcd:
            found = self.etcd.ask("/v3/lease/leases", {})
            for lease in found.get("leases", []):
                self.etcd.ask("/v3/lease/revoke", {"ID": lease["ID"]})
        else:
            assert self.consul
            self.consul.pass_time(200)

    def kill(self) -> None:
        (self.etcd or self.consul).kill()  # pyright: ignore[reportOptionalMemberAccess]

    def start(self) -> None:
        (self.etcd or self.consul).start()  # pyright: ignore[reportOptionalMemberAccess]


@pytest.fixture(params=["etcd", "consul"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    if request.param == "etcd" and etcd.why_not():
        pytest.skip(etcd.why_not())
    found = World(request.param, tmp_path)
    yield found
    found.kill()


def posting(name: str, healthy: bool = True) -> Posting:
    url = f"http://127.0.0.1:6374/a2a/{name}"
    return Posting(f"did:key:z{name}", name, f"{name} does it", url, {"name": name}, healthy)


class Watch:
    """What one watch has told so far: the entries, as a bridge would hold them."""

    def __init__(self, foreign: Foreign, *, fresh: bool = True, before: dict[str, str] | None = None) -> None:
        self.there = dict(before or {})
        self.changes: list[Change] = []
        self.error: MeshError | None = None
        self._unlisted: set[str] = set()
        self._news = asyncio.Event()
        self._scope = TaskScope("watch")
        self._task = self._scope.spawn(self._run(foreign, fresh))

    async def _run(self, foreign: Foreign, fresh: bool) -> None:
        try:
            async with aclosing(foreign.watch(fresh=fresh)) as changes:
                async for change in changes:
                    self._take(change)
                    self._news.set()
        except MeshError as error:
            self.error = error
        finally:
            asyncio.get_running_loop().call_soon(self._news.set)  # once the task is done

    def _take(self, change: Change) -> None:
        self.changes.append(change)
        match change:
            case Listing():
                self._unlisted = set(self.there)
            case Listed():
                for key in self._unlisted:
                    del self.there[key]
                self._unlisted = set()
            case Put(key, value):
                self._unlisted.discard(key)
                try:
                    self.there[key] = read_entry(value).url
                except DecodeError as error:
                    self.there[key] = error.code
            case Gone(key):
                self.there.pop(key, None)
            case Alive():
                pass

    @property
    def ended(self) -> bool:
        return self._task.done()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(30):
            while not holds():
                self._news.clear()
                await self._news.wait()

    async def aclose(self) -> None:
        await self._scope.aclose()


def names(there: dict[str, str]) -> dict[str, str]:
    """Leave out what a kind puts before a key."""
    return {key.rpartition("/")[2]: url for key, url in there.items()}


async def test_what_is_there_is_told_first_and_then_what_changes(world: World) -> None:
    world.put("a", "http://one.example/")
    foreign = world.foreign()
    watch = Watch(foreign)
    await watch.until(lambda: Listed() in watch.changes)
    assert names(watch.there) == {"a": "http://one.example/"}
    await asyncio.to_thread(world.put, "b", "http://two.example/")
    await watch.until(lambda: "b" in names(watch.there))
    await asyncio.to_thread(world.put, "a", "http://three.example/")
    await watch.until(lambda: names(watch.there).get("a") == "http://three.example/")
    await asyncio.to_thread(world.delete, "b")
    await watch.until(lambda: "b" not in names(watch.there))
    await watch.aclose()
    await foreign.aclose()


async def test_what_is_published_stands_there_and_exactly_that(world: World) -> None:
    foreign = world.foreign()
    await foreign.publish([posting("calc"), posting("echo")], NODE)
    assert sorted(world.entries().values()) == ["http://127.0.0.1:6374/a2a/calc", "http://127.0.0.1:6374/a2a/echo"]
    watch = Watch(foreign)
    await watch.until(lambda: Listed() in watch.changes)
    told = [read_entry(change.value) for change in watch.changes if isinstance(change, Put)]
    assert {entry.origin for entry in told} == {NODE}, "a mesh knows its own entries"
    await foreign.publish([posting("echo")], NODE)
    assert list(world.entries().values()) == ["http://127.0.0.1:6374/a2a/echo"]
    [key] = world.entries()
    await asyncio.to_thread(world.delete, key)  # somebody meddled with it
    await foreign.publish([posting("echo")], NODE)
    await foreign.publish([posting("echo")], NODE, fresh=True)
    assert list(world.entries()) == [key]
    await foreign.withdraw()
    assert world.entries() == {}
    await watch.aclose()
    await foreign.aclose()


async def test_entries_that_ran_out_are_noticed_and_published_again(world: World) -> None:
    foreign = world.foreign()
    assert await foreign.keep(), "with nothing published, nothing is lost"
    await foreign.publish([posting("calc")], NODE)
    assert await foreign.keep()
    world.forget_us()
    assert world.entries() == {}
    assert not await foreign.keep()
    await foreign.publish([posting("calc")], NODE)
    assert len(world.entries()) == 1
    await foreign.aclose()


async def test_what_changed_while_nobody_watched_is_told_at_the_next_watch(world: World) -> None:
    world.put("goes", "http://goes.example/")
    world.put("changes", "http://one.example/")
    foreign = world.foreign()
    first = Watch(foreign)
    await first.until(lambda: Listed() in first.changes)
    await first.aclose()
    world.delete("goes")
    world.put("changes", "http://two.example/")
    world.put("comes", "http://comes.example/")
    again = Watch(foreign, fresh=False, before=first.there)
    wanted = {"changes": "http://two.example/", "comes": "http://comes.example/"}
    await again.until(lambda: names(again.there) == wanted)
    await again.aclose()
    await foreign.aclose()


async def test_a_registry_that_dies_in_a_watch_is_told_and_a_later_watch_goes_on(world: World) -> None:
    world.put("a", "http://one.example/")
    foreign = world.foreign()
    first = Watch(foreign)
    await first.until(lambda: Listed() in first.changes)
    await asyncio.to_thread(world.kill)
    await first.until(lambda: first.error is not None)
    assert isinstance(first.error, Unreached)
    assert first.error.code == "bridge.unreachable"
    with pytest.raises(Unreached):
        await foreign.publish([posting("calc")], NODE)
    await asyncio.to_thread(world.start)
    await asyncio.to_thread(world.put, "b", "http://two.example/")
    again = Watch(foreign, fresh=False, before=first.there)
    await again.until(lambda: set(names(again.there)) == {"a", "b"})
    await foreign.publish([posting("calc")], NODE)
    await again.until(lambda: len(again.there) == 3)
    await again.aclose()
    await foreign.aclose()


async def test_garbage_in_the_registry_is_told_as_it_is_and_read_as_no_agent(world: World) -> None:
    if world.etcd:
        for key, value in {
            "binary": b"\xff\0\xfe",
            "json": b"[1, 2",
            "list": b"[]",
            "empty": b"",
            "big": b"x" * 70_000,
        }.items():
            world.etcd.put(f"agents/{key}", value)
        world.etcd.put(b"agents/\xff\xfe".decode("latin-1"), json.dumps({"url": "http://odd.example/"}))
    else:
        assert world.consul
        world.consul.put("no-url", {}, Port=0)
        world.consul.put("odd", {"url": "http://odd.example/", "door": "shell"})
        world.consul.put("no-agent", {"url": "http://db.example/"}, tags=("db",))
    foreign = world.foreign()
    watch = Watch(foreign)
    await watch.until(lambda: Listed() in watch.changes)
    codes = {key.rpartition("/")[2]: said for key, said in watch.there.items()}
    if world.etcd:
        assert codes["big"] == "bridge.entry_too_large"
        assert {codes[key] for key in ("binary", "json", "list", "empty")} == {"bridge.bad_entry"}
    else:
        assert codes == {"no-url": "http://127.0.0.1:80", "odd": "bridge.bad_entry"}
    await watch.aclose()
    await foreign.aclose()


async def test_ten_thousand_entries_are_listed(world: World) -> None:
    count = 10_000
    if world.etcd:
        world.etcd.put_many({f"agents/n{i:05}": json.dumps({"url": f"http://a{i}.example/"}) for i in range(count)})
    else:
        assert world.consul
        for i in range(count):
            world.consul.services[f"n{i:05}"] = {
                "ID": f"n{i:05}", "Name": f"service-{i % 20}", "Tags": ["a2a"], "Meta": {"url": f"http://a{i}.example/"},
            }  # fmt: skip
    foreign = world.foreign()
    watch = Watch(foreign)
    await watch.until(lambda: Listed() in watch.changes)
    assert len(watch.there) == count
    assert set(watch.there.values()) == {f"http://a{i}.example/" for i in range(count)}
    await watch.aclose()
    await foreign.aclose()


def page(*keys: str, more: bool = False) -> bytes:
    kvs = [{"key": etcd.b64(f"agents/{key}"), "value": "e30="} for key in keys]
    return json.dumps({"header": {"revision": "7"}, "kvs": kvs, "more": more}).encode()


@pytest.mark.parametrize("kind", ["etcd", "consul"])
@pytest.mark.parametrize(
    "body",
    [
        b"", b"null", b"[]", b"{}", b"<html>", b"\xff", b"[" * 50_000, b'"text"', b'{"header": {"revision": -1}}', b'{"kvs": 3}',
        b'{"header": {"revision": "9"}, "kvs": [{"key": "*no base64*"}]}', page("a", "b", more=True),
    ],
)  # fmt: skip
async def test_a_registry_that_answers_nonsense_is_named_so_and_never_followed_for_ever(kind: str, body: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readline():
            length = 0
            while line := (await reader.readline()).strip().lower():
                if line.startswith(b"content-length:"):
                    length = int(line.partition(b":")[2])
            await reader.readexactly(length)
            assert head
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    foreign = open_foreign(read_spec(f"{kind}://127.0.0.1:{port}/{'agents' if kind == 'etcd' else ''}"))
    watch = Watch(foreign)
    await watch.until(lambda: watch.error is not None)
    assert isinstance(watch.error, (DecodeError, Unreached))
    with contextlib.suppress(MeshError):
        await foreign.publish([posting("calc")], NODE)
        await foreign.keep()
        await foreign.withdraw()
    await foreign.aclose()
    server.close()


# -- what only one kind has -------------------------------------------------------------------------------------------


@pytest.fixture
def real_etcd(tmp_path: Path) -> Iterator[World]:
    if etcd.why_not():
        pytest.skip(etcd.why_not())
    found = World("etcd", tmp_path)
    yield found
    found.kill()


async def test_after_a_compaction_everything_is_listed_anew(real_etcd: World) -> None:
    world = real_etcd
    assert world.etcd
    world.put("goes", "http://goes.example/")
    foreign = world.foreign()
    first = Watch(foreign)
    await first.until(lambda: Listed() in first.changes)
    await first.aclose()
    world.delete("goes")
    revision = world.etcd.put("agents/comes", json.dumps({"url": "http://comes.example/"}))
    world.etcd.compact(revision)
    lost = Watch(foreign, fresh=False, before=first.there)
    await lost.until(lambda: lost.ended)
    assert lost.error is None, "the watch ends, since it has to begin anew"
    again = Watch(foreign, fresh=False, before=lost.there)
    await again.until(lambda: names(again.there) == {"comes": "http://comes.example/"})
    assert Listing() in again.changes
    await again.aclose()
    await foreign.aclose()


async def test_an_etcd_that_lost_its_data_is_listed_anew(real_etcd: World, tmp_path: Path) -> None:
    world = real_etcd
    assert world.etcd
    for number in range(5):
        world.put(f"old-{number}", "http://old.example/")
    foreign = world.foreign()
    first = Watch(foreign)
    await first.until(lambda: Listed() in first.changes)
    await first.aclose()
    world.kill()
    (tmp_path / "data").rename(tmp_path / "lost")
    world.start()
    world.put("new", "http://new.example/")
    lost = Watch(foreign, fresh=False, before=first.there)
    await lost.until(lambda: lost.ended)
    again = Watch(foreign, fresh=False, before=lost.there)
    await again.until(lambda: names(again.there) == {"new": "http://new.example/"})
    await again.aclose()
    await foreign.aclose()


async def test_etcd_with_users_takes_the_secret_and_refuses_without(real_etcd: World, tmp_path: Path) -> None:
    world = real_etcd
    assert world.etcd
    world.etcd.ask("/v3/auth/user/add", {"name": "root", "password": "over:there"})
    world.etcd.ask("/v3/auth/user/grant", {"user": "root", "role": "root"})
    world.etcd.ask("/v3/auth/enable", {})
    secret = tmp_path / "etcd.secret"
    secret.write_text("root:over:there\n", "ascii")
    secret.chmod(0o600)
    with_secret, without = world.foreign(f"?secret={secret}"), world.foreign()
    await with_secret.publish([posting("calc")], NODE)
    watch = Watch(with_secret)
    await watch.until(lambda: "zcalc" in {key.rpartition(":")[2] for key in watch.there})
    with pytest.raises((Unauthorized, DecodeError)):
        await without.publish([posting("echo")], NODE)
    secret.write_text("root:wrong\n", "ascii")
    wrong = world.foreign(f"?secret={secret}")
    with pytest.raises((Unauthorized, DecodeError)):
        await wrong.publish([posting("echo")], NODE)
    secret.chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        await world.foreign(f"?secret={secret}").publish([posting("echo")], NODE)
    assert caught.value.code == "config.bridge_secret"
    await watch.aclose()
    for foreign in (with_secret, without, wrong):
        await foreign.aclose()


async def test_consul_takes_the_token_and_shows_which_agents_are_not_well(tmp_path: Path) -> None:
    world = World("consul", tmp_path)
    assert world.consul
    world.consul.token = "a-token"
    secret = tmp_path / "consul.secret"
    secret.write_text("a-token", "ascii")
    secret.chmod(0o600)
    with pytest.raises(Unauthorized):
        await world.foreign().publish([posting("calc")], NODE)
    foreign = world.foreign(f"?secret={secret}")
    await foreign.publish([posting("calc"), posting("echo", healthy=False)], NODE)
    assert {one["service"]: one["status"] for one in world.consul.checks.values()} == {
        "agentmesh-zcalc": "passing",
        "agentmesh-zecho": "critical",
    }
    registered = [path for path in world.consul.requests if path.endswith("/register")]
    await foreign.publish([posting("calc"), posting("echo")], NODE)
    assert [path for path in world.consul.requests if path.endswith("/register")] == registered, "nothing is sent twice"
    assert {one["status"] for one in world.consul.checks.values()} == {"passing"}
    await foreign.aclose()
    world.kill()
