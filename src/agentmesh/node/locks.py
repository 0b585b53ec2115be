"""Locks, leases and leaders: ``core.locks`` driven against the engine of critical state (docs/spec/engines.md §4).

Those that wait for one lock at this node stand in a queue of which only the first contends, so each gets its turn here; between
nodes, whoever writes first wins.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from collections import deque
from contextlib import aclosing
from pathlib import Path

from agentmesh.core.locks import HOLDER_CHARS_MAX, TTL_MS_MAX, Contender, Keep, Lease, Seen, Take, write_lease
from agentmesh.engines.base import CriticalStore
from agentmesh.errors import Busy, LimitError, MeshError, StateError, Timeout, UsageError
from agentmesh.ids import NodeId
from agentmesh.wire.state_views import LockList, LockRequest, LockView

PREFIX = "lock/"
CRITICAL_FILE = "critical.sqlite"
NAME_CHARS_MAX = 128
WAIT_S_MAX = 3600.0
WAITERS_MAX = 1024
LISTED_MAX = 200
#: A wait looks anew after so long, in case a watch went silent.
_LOOK_S = 5.0
_AT_ONCE = 16
_NAME = re.compile(r"[A-Za-z0-9_./-]+")


class Locks:
    """The locks of this node's engine (``api.messaging.Locks``).

    Args:
        node_id: Ours.
        critical: Where they are; opened by the first use.

    Attributes:
        waiting: How many wait for a lock here now.
    """

    def __init__(self, node_id: NodeId, critical: CriticalStore) -> None:
        self._node = node_id
        self._critical = critical
        self._contender = Contender()
        self._queues: dict[str, deque[asyncio.Event]] = {}
        self.waiting = 0

    @property
    def engine(self) -> str:
        """Where they are."""
        return self._critical.url

    async def acquire(self, name: str, request: LockRequest) -> LockView:
        """Take or renew a lock; see ``api.messaging.Locks``.

        Raises:
            UsageError, LimitError: name, holder or times make no sense. Nothing was done.
            Busy: another one has it (code "lock.held"), or too many wait at this node (code "lock.waiters").
            StateError: renewing what is not held (code "lock.lost").
            NoRoute, Timeout, ConfigError, StoreError: the engine's.
        """
        _check(name, request)
        holder = request.holder or f"{request.agent or 'node'}-{uuid.uuid4().hex[:12]}"
        until = time.monotonic() + request.wait_s
        if not request.wait_s or request.renew:
            return await self._contend(name, holder, request, until)
        if self.waiting >= WAITERS_MAX:
            raise Busy(f"{WAITERS_MAX} wait for locks at this node already", code="lock.waiters")
        queue = self._queues.setdefault(name, deque())
        turn = asyncio.Event()
        queue.append(turn)
        self.waiting += 1
        try:
            if queue[0] is not turn:
                try:
                    async with asyncio.timeout_at(asyncio.get_running_loop().time() + request.wait_s):
                        await turn.wait()
                except TimeoutError:
                    # A lock may have become free, or ours, whatever those before us wait for.
                    until = 0.0
            return await self._contend(name, holder, request, until)
        finally:
            self.waiting -= 1
            queue.remove(turn)
            if queue:
                queue[0].set()
            else:
                self._queues.pop(name, None)

    async def _contend(self, name: str, holder: str, request: LockRequest, until: float) -> LockView:
        # What is ours as far as we know is written at once: the write itself finds out whether that is still true.
        seen = self._contender.known(name)
        if seen is None or (seen.lease.holder, seen.lease.node) != (holder, self._node):
            seen = await self._look(name)
        while True:
            now = time.monotonic()
            step = self._contender.judge(seen, holder, self._node, now)
            if request.renew and not isinstance(step, Keep):
                raise _lost(name, holder, seen)
            if isinstance(step, Take | Keep):
                token = step.token if isinstance(step, Keep) else 0
                lease = Lease(holder, self._node, max(1, round(request.ttl_s * 1000)), token)
                written = await self._write(name, lease, step.expect)
                if written is not None:
                    return self._view(name, written, time.monotonic())
                self._contender.forget(name)
                seen = await self._look(name)
                continue
            if now >= until:
                raise Busy(
                    f"{step.seen.lease.holder!r} has the lock {name!r}",
                    code="lock.held",
                    retry_after_s=min(3600.0, max(0.1, step.seen.until_s - now)),
                    hint="wait for it with wait_s, or come back when it has ended",
                    extra={"holder": step.seen.lease.holder, "node": step.seen.lease.node},
                )
            await self._changed(name, step.seen.revision, min(until, step.seen.until_s) - now)
            seen = await self._look(name)

    async def _write(self, name: str, lease: Lease, expect: int) -> Seen | None:
        """Write a lease; None: somebody else wrote first."""
        raw, sent_s = write_lease(lease), time.monotonic()
        try:
            revision = await self._critical.put(PREFIX + name, raw, expect=expect)
        except StateError as error:
            if error.code != "state.conflict":
                raise
            return None
        except Timeout:
            self._contender.forget(name)
            raise
        return self._contender.see(name, raw, revision, sent_s)

    async def _look(self, name: str) -> Seen | None:
        found = await self._critical.get(PREFIX + name)
        value, revision = found or (None, 0)
        return self._contender.see(name, value, revision, time.monotonic())

    async def _changed(self, name: str, after: int, wait_s: float) -> None:
        """Wait until a lock changed, at most so long."""
        try:
            async with (
                asyncio.timeout(max(0.0, min(wait_s, _LOOK_S))),
                aclosing(self._critical.watch(PREFIX + name, after)) as changes,
            ):
                async for change in changes:
                    if change.key == PREFIX + name:
                        return
        except TimeoutError:
            return

    async def release(self, name: str, holder: str) -> LockView:
        """Give a lock back; see ``api.messaging.Locks``."""
        _check_name(name)
        seen = self._contender.known(name)
        if seen is None or (seen.lease.holder, seen.lease.node) != (holder, self._node):
            seen = await self._look(name)
        while True:
            if seen is None or (seen.lease.holder, seen.lease.node) != (holder, self._node):
                raise _lost(name, holder, seen)
            try:
                await self._critical.delete(PREFIX + name, expect=seen.revision)
            except StateError as error:
                if error.code != "state.conflict":
                    raise
                self._contender.forget(name)
                seen = await self._look(name)
                continue
            except Timeout:
                self._contender.forget(name)
                raise
            self._contender.forget(name)
            return LockView(name=name, engine=self.engine)

    async def show(self, name: str) -> LockView:
        """Return a lock, held or not."""
        _check_name(name)
        return self._view(name, await self._look(name), time.monotonic())

    async def list_locks(self, prefix: str) -> LockList:
        """Return locks that are held, by name, at most ``LISTED_MAX``."""
        if prefix:
            _check_name(prefix)
        keys = await self._critical.keys(PREFIX + prefix, LISTED_MAX)
        found: list[LockView] = []
        for start in range(0, len(keys), _AT_ONCE):
            names = [key.removeprefix(PREFIX) for key in keys[start : start + _AT_ONCE]]
            seen = await asyncio.gather(*(self._look(name) for name in names), return_exceptions=True)
            for name, one in zip(names, seen, strict=True):
                if isinstance(one, BaseException):
                    raise one
                found.append(self._view(name, one, time.monotonic()))
        return LockList(locks=[one for one in found if one.held], engine=self.engine)

    def _view(self, name: str, seen: Seen | None, now_s: float) -> LockView:
        if seen is None or now_s >= seen.until_s:
            return LockView(name=name, engine=self.engine)
        return LockView(
            name=name,
            holder=seen.lease.holder,
            node_id=seen.lease.node,
            token=seen.token,
            held=True,
            ttl_s=round(seen.until_s - now_s, 3),
            engine=self.engine,
        )


def locks_at(node_id: NodeId, home: Path, critical: CriticalStore | None) -> tuple[CriticalStore, Locks]:
    """Return the engine of critical state, SQLite in the home unless another one is given, and the locks in it."""
    if critical is None:
        from agentmesh.engines.sqlite import SqliteCritical

        critical = SqliteCritical(home / CRITICAL_FILE)
    return critical, Locks(node_id, critical)


def _check_name(name: str) -> None:
    if len(name) > NAME_CHARS_MAX:
        raise LimitError(f"a name of {len(name)} characters, at most {NAME_CHARS_MAX}", code="lock.name")
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name[:100]!r} is no name of a lock", code="lock.name", hint="use letters, digits, and _ - . /"
        )


def _check(name: str, request: LockRequest) -> None:
    """Refuse what makes no sense. Raises UsageError, LimitError. Nothing was done."""
    _check_name(name)
    if (
        len(request.holder) > HOLDER_CHARS_MAX
        or len(request.agent) > HOLDER_CHARS_MAX - 16
        or not request.holder.isprintable()
    ):
        raise UsageError(f"a holder is text of at most {HOLDER_CHARS_MAX} characters", code="lock.holder")
    if not 1 <= request.ttl_s <= TTL_MS_MAX / 1000:
        raise UsageError(f"ttl_s = {request.ttl_s}", code="lock.ttl", hint="it is 1 to 3600 seconds")
    if not 0 <= request.wait_s <= WAIT_S_MAX:
        raise UsageError(f"wait_s = {request.wait_s}", code="lock.wait", hint="it is 0 to 3600 seconds")
    if request.renew and not request.holder:
        raise UsageError("renewing needs the holder that it was taken by", code="lock.holder")


def _lost(name: str, holder: str, seen: Seen | None) -> MeshError:
    now = "nobody has it" if seen is None else f"{seen.lease.holder!r} has it"
    return StateError(
        f"the lock {name!r} is not held by {holder[:HOLDER_CHARS_MAX]!r} at this node",
        code="lock.lost",
        why=now,
        hint="stop what it protected, and take it anew",
        extra={} if seen is None else {"holder": seen.lease.holder},
    )
