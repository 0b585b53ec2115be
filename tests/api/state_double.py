"""The shared state of the backend double, kept in memory: registers and counters of one node."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from agentmesh.errors import StateError
from agentmesh.wire.state_views import (
    LevelName,
    SpaceList,
    SpaceView,
    StateChange,
    StateEntry,
    StateHistory,
    StateKeys,
    StateView,
)

WRITER = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"


class StateDouble:
    """Implements ``api.messaging.State``."""

    def __init__(self) -> None:
        self.held: dict[tuple[str, str], StateView] = {}
        self.entries: dict[tuple[str, str], list[StateEntry]] = {}
        self.changes: list[StateChange] = []
        self.reads: list[tuple[str, str, str, str]] = []
        self._changed = asyncio.Condition()
        self._revision = 0

    async def get(self, space: str, key: str, *, level: LevelName, token: str) -> StateView:
        self.reads.append((space, key, level, token))
        return self.held.get((space, key)) or StateView(space=space, key=key, exists=False, level=level)

    async def change(self, space: str, key: str, change: StateChange) -> StateView:
        self.changes.append(change)
        old = self.held.get((space, key))
        if change.expect is not None and change.expect != (old.revision if old is not None else 0):
            raise StateError("another revision is there", code="state.conflict")
        self._revision += 1
        value = change.value
        if change.op == "increment":
            value = (old.value if old is not None else 0) + change.by
        view = self.held[space, key] = StateView(
            space=space,
            key=key,
            type="counter" if change.op == "increment" else change.type or "register",
            value=None if change.op == "delete" else value,
            exists=change.op != "delete",
            token=f"t{self._revision}",
            revision=self._revision if change.level == "linearizable" else 0,
            level=change.level,
            writer=WRITER,
            ts=self._revision,
        )
        entry = StateEntry(op=change.op, writer=WRITER, ts=self._revision, value=change.value)
        self.entries.setdefault((space, key), []).insert(0, entry)
        async with self._changed:
            self._changed.notify_all()
        return view

    async def history(self, space: str, key: str) -> StateHistory:
        return StateHistory(space=space, key=key, entries=self.entries.get((space, key), []))

    async def watch(self, space: str, prefix: str, *, initial: bool) -> AsyncGenerator[StateView, None]:
        told = {} if initial else dict(self.held)
        while True:
            for at, view in list(self.held.items()):
                if at[0] == space and at[1].startswith(prefix) and told.get(at) is not view:
                    told[at] = view
                    yield view
            async with self._changed:
                await self._changed.wait()

    async def spaces(self) -> SpaceList:
        names = dict.fromkeys(space for space, _ in self.held)
        return SpaceList(
            spaces=[SpaceView(space=name, keys=sum(at[0] == name for at in self.held)) for name in names],
            engine="sqlite:x",
        )

    async def keys(self, space: str, prefix: str, limit: int) -> StateKeys:
        found = [view for at, view in sorted(self.held.items()) if at[0] == space and at[1].startswith(prefix)]
        return StateKeys(space=space, keys=found[:limit], total=len(found))
