"""Routes of locks, leases and leaders (docs/spec/engines.md)."""

from __future__ import annotations

from agentmesh.api.owned import locks_of, refuse_stopped
from agentmesh.api.table import Ask, Param, RouteRow
from agentmesh.api.waiting import unless_gone
from agentmesh.errors import Busy, NoRoute, ReadOnly, StateError, Timeout, UsageError
from agentmesh.wire.state_views import LockList, LockRequest, LockView


async def list_locks(ask: Ask) -> LockList:
    """Answer ``GET /api/v1/locks``."""
    return await locks_of(ask).list_locks(ask.query["prefix"])


async def show_lock(ask: Ask) -> LockView:
    """Answer ``GET /api/v1/locks/{name}``."""
    return await locks_of(ask).show(ask.named("name"))


async def acquire_lock(ask: Ask) -> LockView:
    """Answer ``POST /api/v1/locks/{name}``."""
    request: LockRequest = ask.body
    locks, name = locks_of(ask), ask.named("name")
    if not request.renew:
        refuse_stopped(ask)
    acquiring = locks.acquire(name, request)

    async def undo(lock: LockView) -> None:
        if not request.renew:
            await locks.release(name, lock.holder)

    return await (unless_gone(ask, acquiring, undo) if request.wait_s > 0 else acquiring)


async def release_lock(ask: Ask) -> LockView:
    """Answer ``DELETE /api/v1/locks/{name}``."""
    return await locks_of(ask).release(ask.named("name"), ask.query["holder"])


_NAME = {"name": "Name of the lock."}

ROWS = (
    RouteRow(
        "GET",
        "/api/v1/locks",
        list_locks,
        "List locks that are held",
        LockList,
        errors=(NoRoute, Timeout),
        params=(Param("prefix", "string", "", "Only names that begin so.", chars_max=512),),
        scope="state",
    ),
    RouteRow(
        "GET",
        "/api/v1/locks/{name}",
        show_lock,
        "Show a lock, held or not",
        LockView,
        errors=(UsageError, NoRoute, Timeout),
        path_params=_NAME,
        scope="state",
    ),
    RouteRow(
        "POST",
        "/api/v1/locks/{name}",
        acquire_lock,
        "Take or renew a lock; the answer has its fencing token",
        LockView,
        LockRequest,
        (Busy, StateError, NoRoute, Timeout, ReadOnly),
        path_params=_NAME,
        scope="state",
    ),
    RouteRow(
        "DELETE",
        "/api/v1/locks/{name}",
        release_lock,
        "Give a lock back",
        LockView,
        errors=(UsageError, StateError, NoRoute, Timeout),
        params=(Param("holder", "string", "", "Who holds it, as it was taken.", chars_max=256),),
        path_params=_NAME,
        scope="state",
    ),
)
