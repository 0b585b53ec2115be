"""Keys at level LINEARIZABLE: values in the engine of critical state, nothing of them in replicas (docs/spec/state.md §10)."""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from typing import Any, NamedTuple

import msgspec

from agentmesh.core.state.messages import is_local
from agentmesh.core.state.ops import to_json
from agentmesh.engines.base import KEY_CHARS_MAX, CriticalStore, Versioned
from agentmesh.errors import Busy, Corrupt, LimitError, StateError, UsageError
from agentmesh.ids import NodeId
from agentmesh.wire.state_views import StateChange, StateView

PREFIX = "state/"
#: How often an increment is tried against other nodes that write the same key, and the longest rest between two tries.
_TRIES_MAX, _REST_S_MAX = 24, 0.1
_PLAIN = re.compile(r"[A-Za-z0-9_./-]+")


class _Value(msgspec.Struct, array_like=True):
    """What stands in the engine: type, JSON of the value, writer, unix microseconds."""

    type: str
    value: msgspec.Raw
    writer: str
    ts: int


class _Turn:
    """Who counts in one key at this node; the others wait."""

    __slots__ = ("lock", "users")

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users = 0


class Found(NamedTuple):
    """A value and its revision."""

    value: Any
    type: str
    writer: str
    ts: int
    revision: int


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(_Value)


class Linear:
    """Read and write through the engine.

    Args:
        node_id: This node.
        critical: The engine; opened by its first use.
    """

    def __init__(self, node_id: NodeId, critical: CriticalStore) -> None:
        self._node_id, self._critical = node_id, critical
        self._turns: dict[str, _Turn] = {}
        self._rng = random.Random(os.urandom(16))  # noqa: S311 rests between tries, not secrets

    @property
    def engine(self) -> str:
        """Where it is, without credentials."""
        return self._critical.url

    @property
    def is_shared(self) -> bool:
        """Whether other nodes may use the same engine; SQLite serves this one alone."""
        return not self._critical.url.startswith("sqlite:")

    def check(self, space: str) -> None:
        """Refuse what the engine cannot give.

        Raises:
            StateError: the space is shared with other nodes, and the engine is not (code "state.no_engine").
        """
        if not self.is_shared and not is_local(space):
            raise StateError(
                f"space {space!r} cannot be read or written at level linearizable here",
                code="state.no_engine",
                why="the engine is a SQLite file of this node; others would not see it",
                hint="agentmesh up --critical nats://HOST:4222   or use a space named local.… for this node alone",
            )

    async def get(self, space: str, key: str) -> StateView:
        """Return the current value. Raises StateError, NoRoute, Timeout as the engine does."""
        self.check(space)
        return self._view(space, key, _read(await self._critical.get(_key(space, key))))

    async def change(self, space: str, key: str, change: StateChange) -> StateView:
        """Set, delete or count, each as one step that nobody comes between.

        Raises:
            UsageError: the operation is of another type of key (code "state.op").
            StateError: another revision is there than ``expect`` (code "state.conflict"), or the engine is not shared.
            Busy: others write the key all the time (code "state.busy").
            LimitError, NoRoute, Timeout: as the engine does.
        """
        self.check(space)
        at = _key(space, key)
        if change.type not in ("", "register", "lww", "counter") or change.op not in (
            "set",
            "resolve",
            "delete",
            "increment",
        ):
            raise UsageError(
                f"{change.op!r} of a {change.type or 'key'} cannot be done at level linearizable",
                code="state.op",
                why="the engine keeps whole values: set, delete, increment",
                hint="use level quorum, or set the whole value with   --expect REVISION",
            )
        if change.op == "delete":
            await self._critical.delete(at, expect=change.expect)
            return self._view(space, key, None)
        if change.op == "increment":
            return await self._increment(space, key, at, change)
        return await self._put(space, key, at, "register", change.value, change.expect)

    async def _increment(self, space: str, key: str, at: str, change: StateChange) -> StateView:
        """Count by compare-and-set: those of this node one after the other, against those of others with a rest between tries."""
        turn = self._turns.setdefault(at, _Turn())
        turn.users += 1
        try:
            async with turn.lock:
                for tried in range(_TRIES_MAX):
                    try:
                        return await self._count_once(space, key, at, change)
                    except StateError as error:
                        if error.code != "state.conflict" or change.expect is not None:
                            raise
                    await asyncio.sleep(self._rng.uniform(0, min(_REST_S_MAX, 0.001 * 2**tried)))
        finally:
            turn.users -= 1
            if not turn.users:
                del self._turns[at]
        raise Busy(
            f"others write key {key!r} all the time; nothing was done",
            code="state.busy",
            hint="count in several keys, or at level quorum",
        )

    async def _count_once(self, space: str, key: str, at: str, change: StateChange) -> StateView:
        found = _read(await self._critical.get(at))
        if found is not None and (isinstance(found.value, bool) or not isinstance(found.value, int)):
            raise StateError(f"key {key!r} holds no number", code="state.type")
        revision = 0 if found is None else found.revision
        total = (0 if found is None else found.value) + change.by
        if abs(total) > 2**53:
            raise LimitError("a counter counts to 2^53 and no further", code="state.too_large")
        expect = revision if change.expect is None else change.expect
        return await self._put(space, key, at, "counter", total, expect)

    async def _put(self, space: str, key: str, at: str, kind: str, value: Any, expect: int | None) -> StateView:
        ts = time.time_ns() // 1000
        raw = _encode(_Value(kind, msgspec.Raw(to_json(value)), self._node_id, ts))
        revision = await self._critical.put(at, raw, expect=expect)
        return self._view(space, key, Found(value, kind, self._node_id, ts, revision))

    def _view(self, space: str, key: str, found: Found | None) -> StateView:
        view = StateView(space=space, key=key, level="linearizable", exists=found is not None)
        if found is not None:
            view.value, view.revision, view.writer, view.ts = found.value, found.revision, found.writer, found.ts
            view.type = "counter" if found.type == "counter" else "register"
        return view


def _key(space: str, key: str) -> str:
    at = f"{PREFIX}{space}/{key}"
    if len(at) > KEY_CHARS_MAX or not _PLAIN.fullmatch(at):
        raise UsageError(f"{key[:80]!r} can be no key of the engine", code="state.name")
    return at


def _read(found: Versioned | None) -> Found | None:
    if found is None:
        return None
    try:
        body = _decoder.decode(found.value)
        return Found(msgspec.json.decode(body.value), body.type, body.writer, body.ts, found.revision)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Corrupt(f"the engine holds something that is no value of ours: {error}") from error
