"""What many clients at once hear from the SQLite engine, judged by the linearizability checker."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from time import monotonic

from agentmesh.engines.sqlite import SqliteCritical
from agentmesh.errors import StateError
from agentmesh.sim.histories.linear import Call, check

CLIENTS, CALLS, KEYS = 12, 40, 3


async def client(name: str, store: SqliteCritical, calls: list[Call]) -> None:
    chance = random.Random(name)
    known: dict[str, int] = {}
    for number in range(CALLS):
        key, start_s = f"key{chance.randrange(KEYS)}", monotonic()
        expect = None if chance.random() < 0.2 else known.get(key, 0)
        roll = chance.random()
        if roll < 0.4:
            found = await store.get(key)
            value, revision = found or (None, 0)
            known[key] = revision
            calls.append(Call(name, "get", key, start_s, monotonic(), "ok", value, revision))
            continue
        verb = "put" if roll < 0.85 else "delete"
        written = f"{name} {number}".encode() if verb == "put" else None
        try:
            if written is None:
                was_there = await store.delete(key, expect=expect)
                calls.append(Call(name, verb, key, start_s, monotonic(), "ok", None, 0, expect, was_there))
                known[key] = 0
            else:
                known[key] = await store.put(key, written, expect=expect)
                calls.append(Call(name, verb, key, start_s, monotonic(), "ok", written, known[key], expect))
        except StateError as error:
            assert error.code == "state.conflict"  # noqa: PT017
            known.pop(key, None)
            calls.append(Call(name, verb, key, start_s, monotonic(), "conflict", written, 0, expect))


async def test_clients_of_one_file_hear_what_one_copy_would_have_said(tmp_path: Path) -> None:
    store = SqliteCritical(tmp_path / "critical.sqlite")
    await store.open()
    calls: list[Call] = []
    try:
        await asyncio.gather(*(client(f"client {at}", store, calls) for at in range(CLIENTS)))
    finally:
        await store.aclose()
    assert len(calls) == CLIENTS * CALLS
    answers = {(call.verb, call.answer) for call in calls}
    assert answers >= {("put", "ok"), ("put", "conflict"), ("delete", "ok"), ("get", "ok")}
    assert [str(violation) for violation in check(calls)] == []
