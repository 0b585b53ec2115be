"""Shared state and locks in the async client: ``mesh.state("votes")``, ``mesh.lock("nightly")`` (docs/howto/shared-state.md)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from types import TracebackType
from typing import Any, Unpack

from agentmesh.errors import Closed, MeshError, StateError
from agentmesh.net.tasks import TaskScope
from agentmesh.sdk import message_requests as wanted
from agentmesh.sdk.carrier import Carrier
from agentmesh.sdk.message_requests import LockOptions, Patience, decode_state
from agentmesh.sdk.state_ops import Hold, SpacePlace, items, members, number, words
from agentmesh.wire.state_views import (
    LevelName,
    LockList,
    LockRequest,
    LockView,
    SpaceList,
    StateEntry,
    StateKeys,
    StateOp,
    StateType,
    StateView,
)


class Space:
    """A named space of keys that many agents read and write; what one ``Space`` wrote or saw, it sees from then on.

        votes = mesh.state("votes")
        await votes.counter("yes").add(1)
        print(await votes.get("yes"))

    ``level`` of each operation is that of the space unless it is given: "local" never waits, "causal" sees what this ``Space``
    has seen, "quorum" is on two of three machines, "linearizable" is that of the engine. One that cannot be given is an
    error.
    """

    def __init__(self, mesh: Carrier, space: str, level: LevelName, agent: str) -> None:
        self._mesh, self._place = mesh, SpacePlace(space, level, agent)

    @property
    def name(self) -> str:
        """Name of the space."""
        return self._place.space

    @property
    def token(self) -> str:
        """What this ``Space`` has seen; another one that is given it sees no less."""
        return self._place.token

    @token.setter
    def token(self, token: str) -> None:
        self._place.token = token

    async def read(self, key: str, *, level: LevelName | None = None) -> StateView:
        """Return a key with all that is known of it: siblings, version, holders.

        Raises:
            NoRoute: the level cannot be given now. StateError: nor ever, here. Timeout: not in time.
        """
        return self._place.seen(await self._mesh._send(self._place.get(key, level)))  # pyright: ignore[reportPrivateUsage]

    async def get(self, key: str, default: Any = None, *, level: LevelName | None = None) -> Any:
        """Return the value of a key, or the default where there is none. Raises as ``read``."""
        view = await self.read(key, level=level)
        return view.value if view.exists else default

    async def change(self, key: str, op: StateOp, *, level: LevelName | None = None, **fields: Any) -> StateView:
        """Do one operation; ``fields`` are those of ``StateChange``.

        Raises:
            StateError: another type (code "state.type") or revision (code "state.conflict"). Nothing changed.
            NoRoute: the level cannot be given; nothing changed. Timeout: it may or may not have been done.
        """
        request = self._place.change(key, op, level, **fields)
        return self._place.seen(await self._mesh._send(request))  # pyright: ignore[reportPrivateUsage]

    async def set(
        self,
        key: str,
        value: Any,
        *,
        level: LevelName | None = None,
        type: StateType = "register",
        expect: int | None = None,
    ) -> StateView:
        """Set a key; concurrent values are kept side by side (type "register") or the later one wins (type "lww").

        Args:
            key, value: What; JSON of at most 64 KiB.
            level: See ``Space``.
            type: Of a key that is made by this.
            expect: At "linearizable": the revision that must be the current one; 0 = there must be none.

        Raises:
            StateError, NoRoute, Timeout, LimitError: as ``change``.
        """
        return await self.change(
            key, "set", level=level, type="" if level == "linearizable" else type, value=value, expect=expect
        )

    async def resolve(self, key: str, value: Any) -> StateView:
        """Settle a register that has siblings by one value. Raises as ``change``."""
        return await self.change(key, "resolve", value=value)

    async def delete(self, key: str, *, level: LevelName | None = None, expect: int | None = None) -> StateView:
        """Delete a key. Raises as ``change``."""
        return await self.change(key, "delete", level=level, expect=expect)

    async def increment(self, key: str, by: int = 1, *, level: LevelName | None = None) -> int:
        """Add to a counter and return it; every addition of everybody counts. Raises as ``change``."""
        return number(await self.change(key, "increment", level=level, by=by))

    async def add(self, key: str, value: Any, *, level: LevelName | None = None) -> list[Any]:
        """Add to a set and return it. Raises as ``change``."""
        return items(await self.change(key, "add", level=level, value=value))

    async def discard(self, key: str, value: Any, *, level: LevelName | None = None) -> list[Any]:
        """Take out of a set and return it. Raises as ``change``."""
        return items(await self.change(key, "discard", level=level, value=value))

    def counter(self, key: str) -> Counter:
        """Return a counter of this space."""
        return Counter(self, key)

    def members(self, key: str) -> Members:
        """Return a set of this space."""
        return Members(self, key)

    def map(self, key: str) -> Map:
        """Return a map of this space."""
        return Map(self, key)

    def list(self, key: str) -> Sequence:
        """Return a list of this space."""
        return Sequence(self, key)

    def text(self, key: str) -> Text:
        """Return a text of this space that many can edit."""
        return Text(self, key)

    async def history(self, key: str) -> list[StateEntry]:
        """Return what was done to a key, newest first."""
        return (await self._mesh._send(wanted.state_history(self.name, key))).entries  # pyright: ignore[reportPrivateUsage]

    async def keys(self, prefix: str = "", *, limit: int = 1000) -> StateKeys:
        """Return the keys that begin so, in order, with their values."""
        return await self._mesh._send(wanted.keys(self.name, prefix, limit))  # pyright: ignore[reportPrivateUsage]

    async def watch(
        self, prefix: str = "", *, initial: bool = True, retry_for_s: float = 60.0
    ) -> AsyncGenerator[StateView]:
        """Yield keys that begin so as they change, without end; a slow reader sees the latest of each only.

        Args:
            prefix: Of the keys.
            initial: First every key as it is. After a restart of the daemon that is done in any case, so that nothing is missed.
            retry_for_s: Give up after so many seconds without a daemon.
        """
        patience = Patience(retry_for_s)
        while True:
            request = wanted.watch_state(self.name, prefix, initial=initial)
            try:
                async with self._mesh._streaming(request) as frames:  # pyright: ignore[reportPrivateUsage]
                    initial = True
                    async for frame in frames:
                        view = decode_state(frame)
                        patience.answered()
                        yield self._place.seen(view)
                raise Closed("the daemon ended the stream", code="daemon.closed", hint="agentmesh status")
            except MeshError as error:
                await asyncio.sleep(patience.next_delay_s(error))


class Key:
    """One key of a space."""

    def __init__(self, space: Space, key: str) -> None:
        self._space, self.key = space, key


class Counter(Key):
    """A counter: additions of all add up, whatever their order."""

    async def add(self, by: int = 1, *, level: LevelName | None = None) -> int:
        """Add and return what it is then. Raises as ``Space.change``."""
        return await self._space.increment(self.key, by, level=level)

    async def value(self, *, level: LevelName | None = None) -> int:
        """Return it; 0 where there is none yet. Raises as ``Space.read``."""
        return number(await self._space.read(self.key, level=level))


class Members(Key):
    """A set: what one adds while another removes it stays."""

    async def add(self, value: Any) -> list[Any]:
        """Add and return all. Raises as ``Space.change``."""
        return await self._space.add(self.key, value)

    async def discard(self, value: Any) -> list[Any]:
        """Take out and return the rest. Raises as ``Space.change``."""
        return await self._space.discard(self.key, value)

    async def value(self) -> list[Any]:
        """Return all. Raises as ``Space.read``."""
        return items(await self._space.read(self.key))


class Map(Key):
    """A map: of each field the later write wins."""

    async def put(self, field: str, value: Any) -> dict[str, Any]:
        """Set a field and return all. Raises as ``Space.change``."""
        return members(await self._space.change(self.key, "put", field=field, value=value))

    async def remove(self, field: str) -> dict[str, Any]:
        """Remove a field and return the rest. Raises as ``Space.change``."""
        return members(await self._space.change(self.key, "remove", type="map", field=field))

    async def value(self) -> dict[str, Any]:
        """Return all. Raises as ``Space.read``."""
        return members(await self._space.read(self.key))


class Sequence(Key):
    """A list that many insert into and cut from at once."""

    async def insert(self, value: Any, at: int = -1) -> list[Any]:
        """Insert at a place (-1 = the end) and return all. Raises as ``Space.change``."""
        return items(await self._space.change(self.key, "insert", type="list", value=value, at=at))

    async def cut(self, at: int, count: int = 1) -> list[Any]:
        """Cut items out and return the rest. Raises as ``Space.change``."""
        return items(await self._space.change(self.key, "cut", type="list", at=at, count=count))

    async def value(self) -> list[Any]:
        """Return all. Raises as ``Space.read``."""
        return items(await self._space.read(self.key))


class Text(Key):
    """A text that many edit at once."""

    async def insert(self, value: str, at: int = -1) -> str:
        """Insert at a place (-1 = the end) and return all. Raises as ``Space.change``."""
        return words(await self._space.change(self.key, "insert", type="text", value=value, at=at))

    async def cut(self, at: int, count: int) -> str:
        """Cut characters out and return the rest. Raises as ``Space.change``."""
        return words(await self._space.change(self.key, "cut", type="text", at=at, count=count))

    async def value(self) -> str:
        """Return all. Raises as ``Space.read``."""
        return words(await self._space.read(self.key))


class Lock:
    """A lock while it is held; it is renewed by itself.

        async with mesh.lock("nightly") as lock:
            await store.write(report, fencing_token=lock.token)

    Holding it is not enough: a program may sleep past its end without noticing. Whatever the lock protects must refuse a
    ``token`` that is lower than one it has seen.
    """

    def __init__(self, mesh: Carrier, name: str, options: LockOptions) -> None:
        self._mesh, self._hold = mesh, Hold(name, LockRequest(**options))
        self._scope: TaskScope | None = None
        self._lost: MeshError | None = None

    @property
    def name(self) -> str:
        """Name of the lock."""
        return self._hold.name

    @property
    def token(self) -> int:
        """Fencing token: it rises with each new holder."""
        return self._hold.view.token

    @property
    def holder(self) -> str:
        """Who holds it, as the lock knows us."""
        return self._hold.view.holder

    @property
    def lost(self) -> bool:
        """Whether another may hold it by now."""
        return self._lost is not None

    async def acquire(self) -> Lock:
        """Take it and begin to renew it.

        Raises:
            Busy: another one has it (code "lock.held").
            NoRoute, Timeout: the engine does not answer.
        """
        if self._scope is not None:
            raise StateError(f"the lock {self.name!r} is held already", code="lock.twice")
        self._lost = None
        self._hold.view = await self._mesh._send(self._hold.acquire())  # pyright: ignore[reportPrivateUsage]
        self._scope = TaskScope("lock", tasks_max=1)
        self._scope.spawn(self._keep(time.monotonic()), self.name)
        return self

    async def release(self) -> None:
        """Give it back. Raises StateError (code "lock.lost"): it was lost, and what was done may have been done twice."""
        scope, self._scope = self._scope, None
        if scope is None:
            return
        await scope.aclose()
        if self._lost is not None:
            raise self._lost
        await self._mesh._send(self._hold.release())  # pyright: ignore[reportPrivateUsage]

    async def __aenter__(self) -> Lock:
        """Take it. Raises as ``acquire``."""
        return await self.acquire()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back. Raises as ``release``, unless the body failed already."""
        try:
            await self.release()
        except MeshError:
            if error is None:
                raise

    async def _keep(self, taken_s: float) -> None:
        """Renew until the lock is lost: refused, or not renewed within its time."""
        ttl_s = self._hold.asked.ttl_s
        while self._lost is None:
            await asyncio.sleep(self._hold.renew_after_s)
            asked_s = time.monotonic()
            try:
                self._hold.view = await self._mesh._send(self._hold.renew())  # pyright: ignore[reportPrivateUsage]
                taken_s = asked_s
            except StateError as error:
                self._lost = error
            except MeshError as error:
                if time.monotonic() - taken_s >= ttl_s:
                    self._lost = StateError(
                        f"the lock {self.name!r} could not be renewed in time", code="lock.lost", why=error.detail
                    )


class SharedState(Carrier):
    """The part of ``Mesh`` for shared state and locks."""

    def state(self, space: str, *, level: LevelName = "local", agent: str = "") -> Space:
        """Return a space of shared state; it is made by the first write.

        Args:
            space: Its name.
            level: Of operations that do not say otherwise; see ``Space``.
            agent: In whose name; "" = the node, or the agent that runs here.
        """
        return Space(self, space, level, agent)

    async def spaces(self) -> SpaceList:
        """Return the spaces of which the node has a replica, and the highest level that it can give."""
        return await self._send(wanted.spaces())

    def lock(self, name: str, **options: Unpack[LockOptions]) -> Lock:
        """Return a lock, to be held with ``async with``; the leader is who holds it.

        Args:
            name: Its name.
            options: As in ``LockOptions``: ``ttl_s`` (30), ``wait_s`` to wait for it (0 = not at all), ``holder``.
        """
        return Lock(self, name, options)

    async def locks(self, prefix: str = "") -> LockList:
        """Return the locks that are held."""
        return await self._send(wanted.locks(prefix))

    async def show_lock(self, name: str) -> LockView:
        """Return a lock, held or not."""
        return await self._send(wanted.show_lock(name))

    async def acquire_lock(self, name: str, request: LockRequest) -> LockView:
        """Take or renew a lock without keeping it: whoever asks renews and releases it. Raises as ``Lock.acquire``."""
        return await self._send(wanted.acquire(name, request))

    async def release_lock(self, name: str, holder: str) -> LockView:
        """Give a lock back that was taken elsewhere. Raises StateError (code "lock.lost")."""
        return await self._send(wanted.release(name, holder))
