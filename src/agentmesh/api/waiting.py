"""Waits that end with the client: what a long poll was handed after its client had gone is given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from agentmesh.api.table import Ask
from agentmesh.errors import Closed, MeshError
from agentmesh.net.tasks import TaskScope

T = TypeVar("T")


async def unless_gone(ask: Ask, work: Coroutine[Any, Any, T], undo: Callable[[T], Awaitable[object]]) -> T:
    """Wait for the work, at most until the client goes away.

    Args:
        ask: The request.
        work: What is waited for; it is canceled when the client goes.
        undo: Gives back what the work had fetched already when the client went.

    Raises:
        Closed: the client went away (code "body.gone"), nothing is answered; or the daemon is stopping ("daemon.stopping").
        Busy: too many requests wait.
        MeshError: whatever the work raises.
    """
    if ask.gone is None:
        return await work
    scope = TaskScope("api-wait", tasks_max=2)
    doing = scope.spawn(work, "work", quiet=True)
    going = scope.spawn(_gone(ask.gone), "client", quiet=True)
    try:
        try:
            async with ask.waiting():
                await asyncio.wait({doing, going}, return_when=asyncio.FIRST_COMPLETED)
        except MeshError:
            await _undone(doing, undo)
            raise
        if not going.done():
            return await doing
        await _undone(doing, undo)
        raise Closed("the client went away", code="body.gone")
    finally:
        await scope.aclose()


async def _undone(doing: asyncio.Task[T], undo: Callable[[T], Awaitable[object]]) -> None:
    """Cancel the work, and give back what it had fetched at that very moment."""
    doing.cancel()
    await asyncio.wait({doing})
    if not doing.cancelled() and doing.exception() is None:
        await undo(doing.result())


async def _gone(gone: Callable[[], Awaitable[None]]) -> None:
    await gone()
