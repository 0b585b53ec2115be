"""Shared state and locks in the blocking client; what each method does is said in ``sdk.state``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Unpack

from agentmesh.errors import Closed, MeshError
from agentmesh.sdk import message_requests as wanted
from agentmesh.sdk.message_requests import LockOptions, Patience, decode_state
from agentmesh.sdk.state_ops import Hold, SpacePlace, items, number
from agentmesh.sdk.sync_messaging import SyncCarrier
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


class SyncSpace:
    """As ``sdk.state.Space``, blocking; other types than counter and set are written with ``change``."""

    def __init__(self, mesh: SyncCarrier, space: str, level: LevelName, agent: str) -> None:
        self._mesh, self._place = mesh, SpacePlace(space, level, agent)

    @property
    def name(self) -> str:
        """Name of the space."""
        return self._place.space

    def read(self, key: str, *, level: LevelName | None = None) -> StateView:
        """Return a key with all that is known of it. Raises as ``Space.read``."""
        return self._place.seen(self._mesh._send(self._place.get(key, level)))  # pyright: ignore[reportPrivateUsage]

    def get(self, key: str, default: Any = None, *, level: LevelName | None = None) -> Any:
        """Return the value of a key, or the default where there is none. Raises as ``Space.read``."""
        view = self.read(key, level=level)
        return view.value if view.exists else default

    def change(self, key: str, op: StateOp, *, level: LevelName | None = None, **fields: Any) -> StateView:
        """Do one operation; ``fields`` are those of ``StateChange``. Raises as ``Space.change``."""
        request = self._place.change(key, op, level, **fields)
        return self._place.seen(self._mesh._send(request))  # pyright: ignore[reportPrivateUsage]

    def set(
        self,
        key: str,
        value: Any,
        *,
        level: LevelName | None = None,
        type: StateType | None = None,
        expect: int | None = None,
    ) -> StateView:
        """Set a key. Arguments and errors as ``Space.set``."""
        return self.change(key, "set", level=level, type=type or "", value=value, expect=expect)

    def delete(self, key: str, *, level: LevelName | None = None, expect: int | None = None) -> StateView:
        """Delete a key. Raises as ``Space.change``."""
        return self.change(key, "delete", level=level, expect=expect)

    def increment(self, key: str, by: int = 1, *, level: LevelName | None = None) -> int:
        """Add to a counter and return it. Raises as ``Space.change``."""
        return number(self.change(key, "increment", level=level, by=by))

    def add(self, key: str, value: Any, *, level: LevelName | None = None) -> list[Any]:
        """Add to a set and return it. Raises as ``Space.change``."""
        return items(self.change(key, "add", level=level, value=value))

    def discard(self, key: str, value: Any, *, level: LevelName | None = None) -> list[Any]:
        """Take out of a set and return it. Raises as ``Space.change``."""
        return items(self.change(key, "discard", level=level, value=value))

    def history(self, key: str) -> list[StateEntry]:
        """Return what was done to a key, newest first."""
        return self._mesh._send(wanted.state_history(self.name, key)).entries  # pyright: ignore[reportPrivateUsage]

    def keys(self, prefix: str = "", *, limit: int = 1000) -> StateKeys:
        """Return the keys that begin so, in order, with their values."""
        return self._mesh._send(wanted.keys(self.name, prefix, limit))  # pyright: ignore[reportPrivateUsage]

    def watch(self, prefix: str = "", *, initial: bool = True, retry_for_s: float = 60.0) -> Iterator[StateView]:
        """Yield keys that begin so as they change, without end. As ``Space.watch``."""
        patience = Patience(retry_for_s)
        while True:
            request = wanted.watch_state(self.name, prefix, initial=initial)
            try:
                with self._mesh._streaming(request) as frames:  # pyright: ignore[reportPrivateUsage]
                    initial = True
                    for frame in frames:
                        view = decode_state(frame)
                        patience.answered()
                        yield self._place.seen(view)
                raise Closed("the daemon ended the stream", code="daemon.closed", hint="agentmesh status")
            except MeshError as error:
                time.sleep(patience.next_delay_s(error))


class SyncLock:
    """A lock while it is held; nothing renews it by itself: call ``renew`` before ``ttl_s`` is over.

    with mesh.lock("nightly", ttl_s=600) as lock: ...
    """

    def __init__(self, mesh: SyncCarrier, name: str, options: LockOptions) -> None:
        self._mesh, self._hold = mesh, Hold(name, LockRequest(**options))

    @property
    def view(self) -> LockView:
        """The lock as it was taken or renewed last."""
        return self._hold.view

    @property
    def token(self) -> int:
        """Fencing token: it rises with each new holder."""
        return self._hold.view.token

    @property
    def renew_after_s(self) -> float:
        """How long after it was taken or renewed it is to be renewed."""
        return self._hold.renew_after_s

    def acquire(self) -> SyncLock:
        """Take it. Raises as ``Lock.acquire``."""
        self._hold.view = self._mesh._send(self._hold.acquire())  # pyright: ignore[reportPrivateUsage]
        return self

    def renew(self) -> None:
        """Keep it for another ``ttl_s``. Raises StateError (code "lock.lost"): another may hold it by now."""
        self._hold.view = self._mesh._send(self._hold.renew())  # pyright: ignore[reportPrivateUsage]

    def release(self) -> None:
        """Give it back. Raises StateError (code "lock.lost")."""
        self._mesh._send(self._hold.release())  # pyright: ignore[reportPrivateUsage]

    def __enter__(self) -> SyncLock:
        """Take it. Raises as ``acquire``."""
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back. Raises as ``release``, unless the body failed already."""
        try:
            self.release()
        except MeshError:
            if error is None:
                raise


class SyncSharedState(SyncCarrier):
    """The part of ``SyncMesh`` for shared state and locks. Arguments and errors as in ``Mesh``."""

    def state(self, space: str, *, level: LevelName = "local", agent: str = "") -> SyncSpace:
        """Return a space of shared state; it is made by the first write."""
        return SyncSpace(self, space, level, agent)

    def spaces(self) -> SpaceList:
        """Return the spaces of which the node has a replica, and the highest level that it can give."""
        return self._send(wanted.spaces())

    def lock(self, name: str, **options: Unpack[LockOptions]) -> SyncLock:
        """Return a lock, to be held with ``with``."""
        return SyncLock(self, name, options)

    def locks(self, prefix: str = "") -> LockList:
        """Return the locks that are held."""
        return self._send(wanted.locks(prefix))

    def show_lock(self, name: str) -> LockView:
        """Return a lock, held or not."""
        return self._send(wanted.show_lock(name))

    def release_lock(self, name: str, holder: str) -> LockView:
        """Give a lock back that was taken elsewhere."""
        return self._send(wanted.release(name, holder))
