"""Routes of shared state: read, change, history, watch (docs/spec/state.md)."""

from __future__ import annotations

from typing import cast, get_args

from agentmesh.api.owned import refuse_stopped, state_of
from agentmesh.api.sse import item_frame, stream_of_items
from agentmesh.api.table import Ask, EventStream, Param, RouteRow
from agentmesh.errors import Full, LimitError, NoRoute, ReadOnly, StateError, Timeout, UsageError
from agentmesh.wire.message_limits import STATE_BODY_BYTES_MAX
from agentmesh.wire.state_views import LevelName, SpaceList, StateChange, StateHistory, StateKeys, StateView

_LEVELS: tuple[str, ...] = get_args(LevelName)


async def list_spaces(ask: Ask) -> SpaceList:
    """Answer ``GET /api/v1/state``."""
    return await state_of(ask).spaces()


async def list_state(ask: Ask) -> StateKeys | EventStream:
    """Answer ``GET /api/v1/state/{space}``: its keys, or the stream of their changes."""
    state, space, query = state_of(ask), ask.named("space"), ask.query
    if ask.streams:
        return await stream_of_items(state.watch(space, query["prefix"], initial=query["initial"]), _change_frame)
    return await state.keys(space, query["prefix"], query["limit"])


async def get_state(ask: Ask) -> StateView:
    """Answer ``GET /api/v1/state/{space}/{key}``."""
    level: str = ask.query["level"]
    if level not in _LEVELS:
        raise UsageError(f"'level' is one of {', '.join(_LEVELS)}", code="state.level")
    return await state_of(ask).get(
        ask.named("space"), ask.named("key"), level=cast("LevelName", level), token=ask.query["token"]
    )


async def change_state(ask: Ask) -> StateView:
    """Answer ``POST /api/v1/state/{space}/{key}``."""
    state = state_of(ask)
    refuse_stopped(ask)
    return await state.change(ask.named("space"), ask.named("key"), ask.body)


async def show_state_history(ask: Ask) -> StateHistory:
    """Answer ``GET /api/v1/state/{space}/{key}/history``."""
    return await state_of(ask).history(ask.named("space"), ask.named("key"))


def _change_frame(view: StateView) -> bytes:
    return item_frame("state", view)


_SPACE = {"space": "Name of the space."}
_KEY = {**_SPACE, "key": "Key in it."}

ROWS = (
    RouteRow(
        "GET",
        "/api/v1/state",
        list_spaces,
        "List the spaces of which this node has a replica, and the highest level that can be given",
        SpaceList,
        scope="read",
    ),
    RouteRow(
        "GET",
        "/api/v1/state/{space}",
        list_state,
        "List keys of a space, or watch them",
        StateKeys,
        errors=(UsageError,),
        params=(
            Param("prefix", "string", "", "Only keys that begin so.", chars_max=512),
            Param("limit", "integer", 1000, "At most so many.", low=1, high=10_000),
            Param("initial", "boolean", False, "Watching: first every key as it is."),
        ),
        path_params=_SPACE,
        stream="accepted",
        description=(
            "With Accept: text/event-stream the changes come as server-sent events: event = state, data = StateView. A slow "
            "watcher sees the latest value of each key only."
        ),
        scope="state",
    ),
    RouteRow(
        "GET",
        "/api/v1/state/{space}/{key}",
        get_state,
        "Read a key",
        StateView,
        errors=(UsageError, NoRoute, StateError, Timeout),
        params=(
            Param(
                "level", "string", "local", "local, causal, quorum or linearizable: what must be true of the answer."
            ),
            Param(
                "token", "string", "", "Causal token of an earlier answer: see at least what that saw.", chars_max=4096
            ),
        ),
        path_params=_KEY,
        scope="state",
    ),
    RouteRow(
        "POST",
        "/api/v1/state/{space}/{key}",
        change_state,
        "Change a key: one operation",
        StateView,
        StateChange,
        (UsageError, NoRoute, StateError, Timeout, LimitError, Full, ReadOnly),
        path_params=_KEY,
        body_bytes_max=STATE_BODY_BYTES_MAX,
        scope="state",
    ),
    RouteRow(
        "GET",
        "/api/v1/state/{space}/{key}/history",
        show_state_history,
        "Show what was done to a key, newest first",
        StateHistory,
        errors=(UsageError,),
        path_params=_KEY,
        scope="state",
    ),
)
