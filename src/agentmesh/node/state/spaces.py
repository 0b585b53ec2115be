"""What programs ask of shared state at this node (``api.messaging.State``): read, change, watch, list."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Callable
from typing import Any, cast

import msgspec

from agentmesh.core.state.causality import VECTOR_BYTES_MAX, VersionVector
from agentmesh.core.state.clock import us_of
from agentmesh.core.state.inputs import Done, LocalRead, LocalWrite, Use
from agentmesh.core.state.levels import ConsistencyLevel
from agentmesh.core.state.messages import check_names, is_local
from agentmesh.core.state.ops import Op
from agentmesh.core.state.space import Held, Space
from agentmesh.core.state.types import context, exists, fate, newest, shown, siblings, value
from agentmesh.errors import DecodeError, LimitError, MeshError, StateError, UsageError
from agentmesh.ids import NodeId, did_of, short
from agentmesh.node.state.linear import Linear
from agentmesh.node.state.replicas import Replicas
from agentmesh.obs.meters import Counts
from agentmesh.wire.state_views import (
    LevelName,
    Sibling,
    SpaceList,
    SpaceView,
    StateChange,
    StateEntry,
    StateHistory,
    StateKeys,
    StateType,
    StateView,
)

_LEVELS = {level.word: level for level in ConsistencyLevel}
#: What says that a write may or may not have been done.
_UNKNOWN = ("state.unknown_outcome", "engine.unknown_outcome")
_WATCHERS_MAX = 1_024
_LINEAR_KEYS_MAX = 10_000
_TOKEN_CHARS_MAX = VECTOR_BYTES_MAX * 4 // 3 + 16
_TOKEN_MARK_BYTES = 4


class _Watcher:
    """One who watches a prefix: keys that changed since it looked, each once."""

    __slots__ = ("changed", "prefix", "space", "wake")

    def __init__(self, space: str, prefix: str) -> None:
        self.space, self.prefix = space, prefix
        self.changed: dict[str, None] = {}
        self.wake = asyncio.Event()


class Spaces:
    """Serve programs from the replicas of this node, and from the engine.

    Args:
        node_id: This node.
        open_replicas: Makes the replicas, given whom to tell of changed keys.
        linear: Keys at level LINEARIZABLE.
        mesh_size: Returns how many nodes are there, this one included.
    """

    def __init__(
        self,
        node_id: NodeId,
        open_replicas: Callable[[Callable[[str, str], None]], Replicas],
        linear: Linear,
        mesh_size: Callable[[], int],
    ) -> None:
        self._node_id, self._linear, self._mesh_size = node_id, linear, mesh_size
        self._watchers: dict[_Watcher, None] = {}
        self._tokens: dict[str, tuple[VersionVector, str]] = {}
        self._linear_keys: dict[tuple[str, str], None] = {}
        #: How operations ended, by level and outcome.
        self.ended = Counts(2, series_max=12)
        self.replicas = open_replicas(self._on_changed)

    # Read and change

    async def get(self, space: str, key: str, *, level: LevelName, token: str) -> StateView:
        """Read a key (see ``api.messaging.State.get``)."""
        try:
            view = await self._get(space, key, level, token)
        except MeshError as error:
            self._count(level, error)
            raise
        self._count(level, None)
        return view

    async def change(self, space: str, key: str, change: StateChange) -> StateView:
        """Do one operation (see ``api.messaging.State.change``)."""
        try:
            view = await self._change(space, key, change)
        except MeshError as error:
            self._count(change.level, error)
            raise
        self._count(change.level, None)
        return view

    def _count(self, level: str, error: MeshError | None) -> None:
        unknown = error is not None and error.code in _UNKNOWN
        outcome = "done" if error is None else "unknown" if unknown else "refused"
        self.ended.add((level if level in _LEVELS else "local", outcome))

    async def _get(self, space: str, key: str, level: LevelName, token: str) -> StateView:
        check_names(space, key)
        if level == "linearizable":
            self._check_world(space, key, linear=True)
            return await self._linear.get(space, key)
        self._check_world(space, key, linear=False)
        vector = read_token(space, token)
        done = await self._do(lambda ref: LocalRead(ref, space, key, _level(level), vector))
        return self._view(space, key, level, done, vector)

    async def _change(self, space: str, key: str, change: StateChange) -> StateView:
        check_names(space, key)
        if change.level == "linearizable":
            self._check_world(space, key, linear=True)
            view = await self._linear.change(space, key, change)
            self._linear_keys.pop((space, key), None)
            if view.exists:
                self._linear_keys[space, key] = None
                while len(self._linear_keys) > _LINEAR_KEYS_MAX:
                    del self._linear_keys[next(iter(self._linear_keys))]
            return view
        if change.expect is not None:
            raise UsageError(
                "'expect' is for level linearizable: elsewhere there is no one revision", code="state.expect"
            )
        self._check_world(space, key, linear=False)
        vector = read_token(space, change.token)
        op = Op(
            op=change.op,
            type=change.type,
            value=change.value,
            field=change.field,
            by=change.by,
            at=change.at,
            count=change.count,
        )
        done = await self._do(lambda ref: LocalWrite(ref, space, key, op, _level(change.level), vector))
        return self._view(space, key, change.level, done, vector)

    async def _do(self, make: Callable[[int], LocalRead | LocalWrite]) -> Done:
        done = self.replicas.do(make)
        if not isinstance(done, Done):
            waiting = done
            try:
                done = await waiting
            except asyncio.CancelledError:
                self.replicas.abandon(waiting)
                raise
        if done.error is not None:
            raise done.error
        return done

    def _check_world(self, space: str, key: str, *, linear: bool) -> None:
        """Refuse to mix levels: a key lives in the engine or in replicas, as far as this node knows."""
        if linear:
            held = self._held(space, key)
            if held is not None and exists(held.cell):
                raise StateError(
                    f"key {key!r} of space {space!r} is kept in replicas, not in the engine",
                    code="state.level",
                    hint="read and write it at level quorum or below, or use another key",
                )
        elif (space, key) in self._linear_keys:
            raise StateError(
                f"key {key!r} of space {space!r} is kept in the engine, not in replicas",
                code="state.level",
                hint="read and write it at level linearizable, or use another key",
            )

    def _held(self, space: str, key: str) -> Held | None:
        found = self.replicas.space(space)
        return None if found is None else found.keys.get(key)

    # Views

    def _view(
        self, space: str, key: str, level: LevelName, done: Done | None = None, vector: VersionVector | None = None
    ) -> StateView:
        found = self.replicas.space(space)
        view = StateView(space=space, key=key, exists=False, level=level)
        if found is None:
            return view
        view.holders = list(found.holders) or [self._node_id]
        view.acked = 0 if done is None else done.acked
        held = found.keys.get(key)
        view.token = self._token(found, vector, held)
        if held is None or held.cell is None:
            return view
        cell = held.cell
        view.type = cast("StateType", shown(cell))
        view.exists = bool(view.type)
        view.version = {self._short(found, writer): n for writer, n in context(cell).items()}
        if view.exists:
            view.value = value(cell)
            view.siblings = [
                Sibling(value=one.value, writer=self._writer(found, one.dot.writer), ts=us_of(one.stamp))
                for one in siblings(cell)
            ]
        last = newest(cell)
        if last is not None:
            view.ts, view.writer = us_of(last[0]), self._writer(found, last[1].writer)
        return view

    def _writer(self, space: Space, writer: bytes) -> str:
        public = space.publics.get(writer)
        return writer.hex() if public is None else did_of(public)

    def _short(self, space: Space, writer: bytes) -> str:
        public = space.publics.get(writer)
        return writer.hex()[:10] if public is None else short(did_of(public))

    def _token(self, space: Space, vector: VersionVector | None, held: Held | None) -> str:
        seen = space.seen
        if held is not None and not all(seen.covers(write.dot) for write in held.writes.values()):
            # A write of the key came before others of its writer: who has read it must not miss it elsewhere.
            vector = held.top().join(vector or VersionVector())
        if vector is not None and not seen.descends(vector):
            return make_token(space.name, seen.join(vector))
        kept = self._tokens.get(space.name)
        if kept is None or kept[0] is not seen:
            kept = self._tokens[space.name] = (seen, make_token(space.name, seen))
        return kept[1]

    async def history(self, space: str, key: str) -> StateHistory:
        """Return what was done to a key (see ``api.messaging.State.history``)."""
        check_names(space, key)
        found, held = self.replicas.space(space), self._held(space, key)
        if found is None or held is None:
            return StateHistory(space=space, key=key, entries=[])
        pasts = sorted(held.past, key=lambda past: (past.stamp, past.dot), reverse=True)
        return StateHistory(
            space=space,
            key=key,
            entries=[
                StateEntry(
                    op=past.op,
                    writer=self._writer(found, past.writer),
                    ts=us_of(past.stamp),
                    value=_shown_value(past.value, past.field),
                    fate=fate(held.cell, past),
                )
                for past in pasts
            ],
        )

    async def watch(self, space: str, prefix: str, *, initial: bool) -> AsyncGenerator[StateView, None]:
        """Yield keys that begin so as they change (see ``api.messaging.State.watch``)."""
        check_names(space)
        if len(self._watchers) >= _WATCHERS_MAX:
            raise LimitError(f"{_WATCHERS_MAX} watch shared state at this node already", code="state.watchers")
        self.replicas.feed(Use(space))
        watcher = _Watcher(space, prefix)
        self._watchers[watcher] = None
        try:
            found = self.replicas.space(space)
            if initial and found is not None:
                watcher.changed = dict.fromkeys(sorted(key for key in found.keys if key.startswith(prefix)))
            while True:
                while watcher.changed:
                    key = next(iter(watcher.changed))
                    del watcher.changed[key]
                    yield self._view(space, key, "local")
                watcher.wake.clear()
                await watcher.wake.wait()
        finally:
            del self._watchers[watcher]

    def _on_changed(self, space: str, key: str) -> None:
        for watcher in self._watchers:
            if watcher.space == space and key.startswith(watcher.prefix):
                watcher.changed[key] = None
                watcher.wake.set()

    async def spaces(self) -> SpaceList:
        """Return the spaces of which this node has a replica."""
        views = [
            SpaceView(
                space=name,
                keys=sum(exists(held.cell) for held in space.keys.values()),
                bytes=space.bytes,
                holders=list(space.holders) or [self._node_id],
                siblings=sum(bool(siblings(held.cell)) for held in space.keys.values()),
            )
            for name, space in sorted(self.replicas.machine.spaces.items())
        ]
        quorum: LevelName = "quorum" if self._mesh_size() >= self.replicas.machine.config.holders else "causal"
        return SpaceList(
            spaces=views,
            level_max="linearizable" if self._linear.is_shared else quorum,
            engine=self._linear.engine,
        )

    async def keys(self, space: str, prefix: str, limit: int) -> StateKeys:
        """Return keys of a space, in order."""
        check_names(space)
        self.replicas.feed(Use(space))
        found = self.replicas.space(space)
        if found is None:
            return StateKeys(space=space, keys=[])
        names = sorted(key for key, held in found.keys.items() if key.startswith(prefix) and exists(held.cell))
        return StateKeys(
            space=space, keys=[self._view(space, key, "local") for key in names[: max(0, limit)]], total=len(names)
        )

    async def aclose(self) -> None:
        """Stop. Idempotent."""
        await self.replicas.aclose()


def _level(word: str) -> ConsistencyLevel:
    try:
        return _LEVELS[word]
    except KeyError:
        raise UsageError(f"no level {word[:20]!r}; there are {', '.join(_LEVELS)}", code="state.level") from None


def _shown_value(raw: bytes, field: str) -> Any:
    if not raw:
        return None if not field else {field: None}
    with contextlib.suppress(msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        found = msgspec.json.decode(raw)
        return {field: found} if field else found
    return None


def _mark(space: str) -> bytes:
    return hashlib.sha256(space.encode()).digest()[:_TOKEN_MARK_BYTES]


def make_token(space: str, seen: VersionVector) -> str:
    """Return the causal token of a session that has seen so much of a space."""
    return base64.urlsafe_b64encode(_mark(space) + seen.encode()).decode().rstrip("=")


def read_token(space: str, token: str) -> VersionVector | None:
    """Read what ``make_token`` made; None for "".

    Raises:
        UsageError: it is none, or of another space (code "state.token").
    """
    if not token or is_local(space):
        return None
    try:
        if len(token) > _TOKEN_CHARS_MAX:
            raise ValueError("it is too long")
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        if raw[:_TOKEN_MARK_BYTES] != _mark(space):
            raise ValueError("it is of another space")
        return VersionVector.decode(raw[_TOKEN_MARK_BYTES:])
    except (ValueError, binascii.Error, DecodeError) as error:
        raise UsageError(
            "not a token of this space",
            code="state.token",
            why=str(getattr(error, "why", "") or error)[:200],
            hint="use the token of the last answer about this space as it came, or none",
        ) from None
