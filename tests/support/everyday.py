"""A few nodes that message, publish, share state and lock while their daemons are killed, and the books that must balance after.

Everything goes through the SDK at real daemons. What a daemon *acknowledged* is written down; what was interrupted is repeated
with the same id. In the end the audit asks, id by id: was it read, or did its sender's node say that it expired or died?
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from agentmesh.errors import Busy, MeshError, RecordNotFound, Timeout, Unreached
from agentmesh.net.tasks import TaskScope
from agentmesh.sdk.client import Mesh as Client
from agentmesh.wire.message_views import DeliveryName
from tests.support.daemons import Daemon, Mesh, connected, wait_until

SPACE, COUNTER, TOPIC, LOCK = "everyday", "count", "everyday", "everyday"
_LEVELS: tuple[DeliveryName, ...] = ("at-least-once", "effectively-once")
#: How long an operation is tried again while its daemon is away.
_AWAY_S = 60.0
_GROUP = "workers"


@dataclass
class Books:
    """What was acknowledged to programs, and what they saw.

    Attributes:
        sent: Message id → (node, level, recipient, conversation, number in it).
        read: Message id → how often it was handed to the program that reads.
        order: (recipient, sender, conversation) → numbers in the order read.
        published: Publication id → offset.
        worked: Publication id → how often a member of the consumer group got it.
        counted: Increments that were acknowledged; ``doubtful`` are those of which the outcome is unknown.
        tokens: Fencing tokens, in the order in which locks were held.
        inside: How many hold the lock now; never more than one.
        trouble: Sentences about what must not be.
    """

    sent: dict[str, tuple[int, DeliveryName, str, str, int]] = field(
        default_factory=dict[str, tuple[int, DeliveryName, str, str, int]]
    )
    read: Counter[str] = field(default_factory=Counter[str])
    order: dict[tuple[str, str, str], list[int]] = field(default_factory=dict[tuple[str, str, str], list[int]])
    published: dict[str, int] = field(default_factory=dict[str, int])
    worked: Counter[str] = field(default_factory=Counter[str])
    counted: int = 0
    doubtful: int = 0
    tokens: list[int] = field(default_factory=list[int])
    trouble: list[str] = field(default_factory=list[str])
    kills: int = 0
    pauses: int = 0


class Everyday:
    """The nodes, their programs and their bad luck.

    Args:
        nodes: Running daemons, each linked to each.
        seed: Of the choices; those of the network are not ours.
    """

    def __init__(self, nodes: list[Daemon], seed: int) -> None:
        self.nodes, self.rng, self.books = nodes, random.Random(seed), Books()
        self._over = asyncio.Event()
        self._drained = asyncio.Event()
        self._clients = [Client(home=node.home.path) for node in nodes]

    async def run(self, run_s: float, *, chaos: bool = True) -> dict[str, Any]:
        """Let everybody work for ``run_s`` seconds, end the chaos, wait until nothing is under way, and audit.

        Returns:
            Figures by name; ``Books.trouble`` says what was wrong.
        """
        await self._clients[0].create_topic(TOPIC, [f"{TOPIC}.>"])
        readers = [self._read(node, name) for node in range(len(self.nodes)) for name in self.mailboxes(node)]
        readers += [self._work(node) for node in range(len(self.nodes))]
        writers: list[Coroutine[Any, Any, None]] = []
        for node in range(len(self.nodes)):
            writers += [self._write(node), self._publish(node), self._count(node), self._hold(node)]
        if chaos:
            writers.append(self._chaos())
        scope = TaskScope("everyday")
        reading = [scope.spawn(one, quiet=True) for one in readers]
        writing = [scope.spawn(one, quiet=True) for one in writers]
        try:
            await asyncio.wait([*writing, *reading], timeout=run_s, return_when=asyncio.FIRST_COMPLETED)
            self._over.set()
            await asyncio.gather(*writing)
            await self._settle(reading)
            return await self._audit()
        finally:
            self._drained.set()
            await scope.aclose()
            for client in self._clients:
                await client.aclose()

    def mailboxes(self, node: int) -> tuple[str, str]:
        """Return the names of the agents of a node."""
        return f"ann-{node}", f"bob-{node}"

    async def _again(self, ask: Callable[[], Awaitable[Any]]) -> Any:
        """Ask until a daemon that is being killed has answered."""
        until = time.monotonic() + _AWAY_S
        while True:
            try:
                return await ask()
            except (Unreached, Busy):
                if time.monotonic() > until:
                    raise
                await asyncio.sleep(0.1)

    # What programs do

    async def _write(self, node: int) -> None:
        client, rng, number = self._clients[node], self.rng, Counter[tuple[str, str, str]]()
        sender = self.mailboxes(node)[0]
        while not self._over.is_set():
            to = self.mailboxes(rng.randrange(len(self.nodes)))[1]
            level = rng.choice(_LEVELS)
            conversation = f"{node}-{rng.randrange(3)}-{level}"
            short = rng.random() < 0.05
            message_id = str(uuid.uuid4())
            key = (to, sender, "" if short else conversation)
            number[key] += 1
            text = f"{key[2]} {number[key]} {'x' * rng.randrange(200)}"
            await self._again(
                lambda to=to, text=text, key=key, message_id=message_id, level=level, short=short: client.send(
                    to,
                    text,
                    sender=sender,
                    conversation=key[2],
                    delivery=level,
                    message_id=message_id,
                    ttl_s=1.0 if short else 3600.0,
                )
            )
            self.books.sent[message_id] = (node, level, to, key[2], number[key])
            await asyncio.sleep(rng.random() * 0.05)

    async def _read(self, node: int, name: str) -> None:
        books = self.books
        while not self._drained.is_set():
            try:
                async for message in self._clients[node].inbox(name, retry_for_s=_AWAY_S, lease_s=10):
                    books.read[message.view.message_id] += 1
                    conversation, number = message.text.split(" ")[:2] if message.view.conversation else ("", "0")
                    if conversation and books.read[message.view.message_id] == 1:
                        key = (name, message.view.sender_name, conversation)
                        books.order.setdefault(key, []).append(int(number))
            except MeshError as error:
                books.trouble.append(f"the inbox of {name} ended: {error.code}: {error}")
                await asyncio.sleep(0.5)

    async def _publish(self, node: int) -> None:
        client, count = self._clients[node], 0
        while not self._over.is_set():
            count += 1
            message_id = str(uuid.uuid4())
            subject = f"{TOPIC}.node{node}"
            done = await self._again(
                lambda message_id=message_id, subject=subject, count=count: client.publish(
                    subject, str(count), message_id=message_id
                )
            )
            self.books.published[message_id] = done.offset
            if not done.offset:
                self.books.trouble.append(f"publication {message_id} was acknowledged without an offset")
            await asyncio.sleep(self.rng.random() * 0.2)

    async def _work(self, node: int) -> None:
        while not self._drained.is_set():
            try:
                following = self._clients[node].subscribe(
                    f"{TOPIC}.>", topic=TOPIC, group=_GROUP, member=f"m{node}", start="all", retry_for_s=_AWAY_S
                )
                async for event in following:
                    self.books.worked[event.view.id] += 1
            except MeshError as error:
                if not isinstance(error, Unreached):
                    self.books.trouble.append(f"the work of node {node} ended: {error.code}: {error}")
                await asyncio.sleep(0.5)

    async def _count(self, node: int) -> None:
        space = self._clients[node].state(SPACE)
        while not self._over.is_set():
            try:
                await space.increment(COUNTER, 1, level="quorum")
            except Timeout:
                self.books.doubtful += 1  # it may count or not, and must not count twice
            except Unreached as error:
                # Refused before it was done, or the daemon died over it.
                self.books.doubtful += error.code != "state.no_quorum"
            else:
                self.books.counted += 1
            await asyncio.sleep(self.rng.random() * 0.2)

    async def _hold(self, node: int) -> None:
        """Take a lock of one's own node again and again: the tokens of each node's lock only rise."""
        client, last = self._clients[node], 0
        while not self._over.is_set():
            try:
                async with client.lock(f"{LOCK}-{node}", ttl_s=2.0, wait_s=5.0) as lock:
                    if lock.token <= last:
                        self.books.trouble.append(f"fencing token {lock.token} after {last} at node {node}")
                    last = lock.token
                    self.books.tokens.append(last)
            except (MeshError, OSError):
                await asyncio.sleep(0.2)
            await asyncio.sleep(self.rng.random() * 0.3)

    # Bad luck

    async def _chaos(self) -> None:
        while not self._over.is_set():
            try:
                await asyncio.wait_for(self._over.wait(), 2.0 + self.rng.random() * 6.0)
            except TimeoutError:
                pass
            else:
                return
            node = self.rng.choice(self.nodes)
            if self.rng.random() < 0.7:
                await asyncio.to_thread(node.kill)
                self.books.kills += 1
                await asyncio.sleep(self.rng.random() * 2.0)
                await asyncio.to_thread(node.open)
            else:
                self.books.pauses += 1
                os.kill(node.pid, signal.SIGSTOP)
                await asyncio.sleep(self.rng.random() * 3.0)
                os.kill(node.pid, signal.SIGCONT)

    # The end

    async def _settle(self, reading: list[asyncio.Task[None]]) -> None:
        """Wait until nothing is under way: no message queued or unread, no publication without a worker."""
        until = time.monotonic() + 120.0
        while time.monotonic() < until:
            figures = [await self._again(client.mail) for client in self._clients]
            missing = [one for one in self.books.published if not self.books.worked[one]]
            if not missing and not any(one.queued or one.inbox for one in figures):
                self._drained.set()
                return
            assert not any(task.done() for task in reading)
            await asyncio.sleep(0.2)
        self.books.trouble.append("something is still under way two minutes after the end")

    async def _audit(self) -> dict[str, Any]:
        books, states = self.books, Counter[str]()
        for message_id, (node, level, to, _, _) in books.sent.items():
            times = books.read[message_id]
            if times:
                states["read"] += 1
                if times > 1 and level == "effectively-once":
                    books.trouble.append(f"{message_id} to {to} was handed out {times} times")
                continue
            try:
                state = (await self._clients[node].sent(message_id)).state
            except RecordNotFound:  # to an agent of the same node: after a restart only its inbox knows of it
                state = "forgotten"
            dead_here = {one.message.message_id for one in (await self._dead(to)).letters}
            states[state] += 1
            if state not in ("expired", "dead") and message_id not in dead_here:
                books.trouble.append(f"{message_id} ({level}) from node {node} to {to} is {state!r} and was never read")
        for key, numbers in books.order.items():
            if numbers != sorted(numbers):
                books.trouble.append(f"out of order in {key}: {numbers[:50]}")
        for node, client in enumerate(self._clients):
            mail = await client.mail()
            if mail.sent != mail.delivered + mail.expired + mail.dead + mail.queued:
                books.trouble.append(f"the books of node {node} do not balance: {mail}")
        offsets = [offset for offset in books.published.values() if offset]
        if len(set(offsets)) != len(offsets):
            books.trouble.append("two publications were given one offset")
        values = [await client.state(SPACE).get(COUNTER) for client in self._clients]
        if len(set(values)) != 1:
            books.trouble.append(f"the counter differs between nodes: {values}")
        if not books.counted <= values[0] <= books.counted + books.doubtful:
            books.trouble.append(f"the counter is {values[0]}; {books.counted} acknowledged, {books.doubtful} doubtful")
        return {
            "sent": len(books.sent),
            **{f"messages {state}": count for state, count in sorted(states.items())},
            "published": len(books.published),
            "handed to workers": sum(books.worked.values()),
            "counted": values[0],
            "counts acknowledged": books.counted,
            "counts doubtful": books.doubtful,
            "locks taken": len(books.tokens),
            "kills": books.kills,
            "pauses": books.pauses,
        }

    async def _dead(self, to: str) -> Any:
        node = int(to.rpartition("-")[2])
        return await self._clients[node].dead_letters(limit=1000)


def three_nodes(mesh: Mesh) -> list[Daemon]:
    """Start three linked daemons with two mailboxes each, all of which each node sees."""
    first = mesh.node("n0")
    nodes = [first, *(mesh.node(f"n{i}", seeds=(first.seed(),)) for i in (1, 2))]
    for one in nodes:
        for other in nodes:
            if one is not other:
                wait_until(lambda one=one, other=other: connected(one, other), f"{one.name} to see {other.name}")
    for i, node in enumerate(nodes):
        for name in (f"ann-{i}", f"bob-{i}"):
            node.post("/api/v1/agents", {"url": f"mailbox:{name}"})
    for node in nodes:
        node.stay()
    names = {f"{who}-{i}" for who in ("ann", "bob") for i in range(3)}
    for node in nodes:
        wait_until(
            lambda node=node: names <= {agent["name"] for agent in node.get("/api/v1/agents")["agents"]},
            f"{node.name} to know all mailboxes",
        )
    return nodes
