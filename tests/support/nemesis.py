"""Clients that write and read a few keys of a real cluster while its servers are killed, paused and cut off."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

from agentmesh.engines.base import CriticalStore
from agentmesh.errors import MeshError, StateError, Timeout
from agentmesh.net.tasks import TaskScope
from agentmesh.sim.histories.linear import Call
from tests.support.servers import EtcdServers, NatsServers, Relay, Servers

#: Calls of one client on keys of one generation; then it goes to fresh keys, so that few calls of unknown outcome pile up on one.
_GENERATION = 40
_KEYS = 3


class Cluster:
    """Three servers whose way to each other leads through relays.

    Args:
        kind: "nats" or "etcd".
        root: Directory for their files.
    """

    def __init__(self, kind: str, root: Path) -> None:
        self.servers: Servers = NatsServers(root, 3) if kind == "nats" else EtcdServers(root, 3)
        self._relays: dict[int, list[Relay]] = {0: [], 1: [], 2: []}

    async def open(self) -> None:
        """Start relays and servers."""
        servers = self.servers
        if isinstance(servers, NatsServers):
            for (i, j), port in list(servers.ways.items()):
                relay = Relay(port)
                await relay.open()
                servers.ways[i, j] = relay.port
                self._relays[i].append(relay)
                self._relays[j].append(relay)
        elif isinstance(servers, EtcdServers):
            # Every member knows another by one address, so a cut is of what others send to one, not of what it sends to them.
            for i, port in enumerate(list(servers.peers)):
                relay = Relay(port)
                await relay.open()
                servers.known[i] = relay.port
                self._relays[i].append(relay)
        await asyncio.to_thread(servers.start)

    def cut(self, number: int) -> None:
        """Cut one server off from the others; clients still reach it."""
        for relay in self._relays[number]:
            relay.cut()

    def heal(self) -> None:
        """End every cut."""
        for relays in self._relays.values():
            for relay in relays:
                relay.heal()

    async def aclose(self) -> None:
        """Stop everything."""
        await asyncio.to_thread(self.servers.stop)
        for relays in self._relays.values():
            for relay in relays:
                await relay.aclose()


class Traffic:
    """Clients and what they heard.

    Args:
        make: Makes a client.
        seed: Of what they do.
    """

    def __init__(self, make: Callable[[], CriticalStore], seed: int) -> None:
        self.history: list[Call] = []
        self.refused = 0
        self._make, self._seed = make, seed
        self._is_over = False

    async def run(self, clients: int, during: Awaitable[None]) -> None:
        """Let clients work for as long as something else takes."""
        scope = TaskScope("traffic")
        stores = [self._make() for _ in range(clients)]
        tasks = [scope.spawn(self._client(f"c{i}", store), f"c{i}") for i, store in enumerate(stores)]
        try:
            await during
            self._is_over = True
            await asyncio.gather(*tasks)
        finally:
            await scope.aclose()
            for store in stores:
                await store.aclose()

    async def _client(self, name: str, store: CriticalStore) -> None:
        rng = random.Random(f"{self._seed} {name}")
        count = 0
        known: dict[str, int] = {}
        while not self._is_over:
            count += 1
            key = f"g{count // _GENERATION}/{rng.randrange(_KEYS)}"
            known = known if count % _GENERATION else {}
            await self._one(name, store, key, rng, known, count)
            await asyncio.sleep(rng.random() * 0.02)

    async def _one(
        self, name: str, store: CriticalStore, key: str, rng: random.Random, known: dict[str, int], count: int
    ) -> None:
        now = asyncio.get_running_loop().time
        verb = rng.choice(("get", "get", "put", "put", "put", "delete"))
        expect = known.get(key, 0)
        value = f"{name}.{count}"
        start = now()
        try:
            if verb == "get":
                found = await store.get(key)
                known[key] = found.revision if found else 0
                self._add(
                    Call(
                        name,
                        "get",
                        key,
                        start,
                        now(),
                        value=found.value.decode() if found else None,
                        revision=known[key],
                    )
                )
            elif verb == "put":
                known[key] = await store.put(key, value.encode(), expect=expect)
                self._add(Call(name, "put", key, start, now(), value=value, revision=known[key], expect=expect))
            else:
                there = await store.delete(key, expect=expect)
                known[key] = 0
                self._add(Call(name, "delete", key, start, now(), expect=expect, found=there))
        except StateError as error:
            _expect(error, "state.conflict")
            known.pop(key, None)
            self._add(
                Call(name, "put" if verb == "put" else "delete", key, start, now(), "conflict", value, expect=expect)
            )
        except Timeout as error:
            _expect(error, "engine.unknown_outcome" if verb != "get" else "nothing: a read has no unknown outcome")
            known.pop(key, None)
            self._add(
                Call(name, "put" if verb == "put" else "delete", key, start, now(), "unknown", value, expect=expect)
            )
        except MeshError as error:
            _expect(error, "engine.unreachable")
            self.refused += 1

    def _add(self, call: Call) -> None:
        self.history.append(call)


def _expect(error: MeshError, code: str) -> None:
    if error.code != code:
        raise AssertionError(f"{error.code}, not {code}") from error


async def trouble(cluster: Cluster, rng: random.Random, rounds: int, lasts_s: float) -> None:
    """Kill, pause and cut off one server after the other, and let it recover each time."""
    servers = cluster.servers
    for number in range(rounds):
        victim, how = rng.randrange(3), ("pause", "cut", "kill")[number % 3]
        if how == "kill":
            await asyncio.to_thread(servers.kill, victim)
        elif how == "pause":
            servers.pause(victim)
        else:
            cluster.cut(victim)
        await asyncio.sleep(lasts_s)
        if how == "kill":
            await asyncio.to_thread(servers.start, victim)
        elif how == "pause":
            servers.resume(victim)
        else:
            cluster.heal()
        await asyncio.sleep(lasts_s / 3)


async def depose(cluster: Cluster, leader: int, lasts_s: float) -> None:
    """Cut the leader off for longer than the others need to elect another one, while clients still reach it."""
    await asyncio.sleep(1)
    cluster.cut(leader)
    await asyncio.sleep(lasts_s)
    cluster.heal()
    await asyncio.sleep(2)
