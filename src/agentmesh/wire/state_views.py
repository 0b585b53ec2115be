"""The shapes of shared state and locks in the HTTP API (docs/spec/state.md); as in ``wire.views``."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

LevelName = Literal["local", "causal", "quorum", "linearizable"]
#: register: concurrent writes are kept side by side · lww: the later one wins, the other stays in the history ·
#: the rest merge.
StateType = Literal["register", "lww", "map", "counter", "set", "list", "text"]
StateOp = Literal["set", "delete", "put", "remove", "add", "discard", "increment", "insert", "cut", "resolve"]


class StateChange(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/state/{space}/{key}``: one operation on one key.

    Attributes:
        op: register, lww: "set", "delete", "resolve" (a register's siblings by one value) · map: "put", "remove"
            (``field``) ·
            counter: "increment" (``by``, negative to lower it) · set: "add", "discard" · list, text: "insert" at ``at``,
                "cut" from ``at`` on
            ``count`` items or characters.
        type: Of the key when it is made; "" = by the operation. Another type than the key has is an error.
        value: JSON of at most 64 KiB.
        field: Of a map.
        by, at, count: See ``op``.
        level: What must be true before this is answered.
        token: Causal token of the session (``StateView.token``); "" for none.
        expect: LINEARIZABLE only: the revision that must be the current one; 0 = the key must not exist; null = whatever.
        agent: In whose name; "" = the node.
    """

    op: StateOp = "set"
    type: StateType | Literal[""] = ""
    value: Any = None
    field: str = ""
    by: int = 1
    at: int = -1
    count: int = 1
    level: LevelName = "local"
    token: str = ""
    expect: int | None = None
    agent: str = ""


class Sibling(msgspec.Struct, kw_only=True):
    """One of several values that were written concurrently: value, who wrote it (node id), and when (unix µs, hybrid
    clock).
    """

    value: Any
    writer: str
    ts: int


class StateView(msgspec.Struct, kw_only=True):
    """A key and its value.

    Attributes:
        space, key, type: Which.
        value: Of a register with siblings, the one written last by the hybrid clock.
        exists: False for a key that is not there or was deleted; ``value`` is null then.
        siblings: Values written concurrently, newest first, this one included; empty when there is one.
        version: Version vector, node id (short form) → counter.
        token: Hand it to the next read or write to see at least what this one saw.
        revision: Of a LINEARIZABLE key in its engine; 0 for others.
        level: At which it was read or written.
        holders: Node ids that keep a replica; ``acked``: how many of them had it when this was answered.
        ts, writer: Of the newest write.
    """

    space: str
    key: str
    type: StateType | Literal[""] = ""
    value: Any = None
    exists: bool = True
    siblings: list[Sibling] = []
    version: dict[str, int] = {}
    token: str = ""
    revision: int = 0
    level: LevelName = "local"
    holders: list[str] = []
    acked: int = 0
    ts: int = 0
    writer: str = ""


class StateEntry(msgspec.Struct, kw_only=True):
    """One line of a key's history: what was done, by whom, when (unix µs), and whether it stands, was merged, or lost
    against another.
    """

    op: str
    writer: str
    ts: int
    value: Any = None
    fate: Literal["stands", "merged", "superseded"] = "stands"


class StateHistory(msgspec.Struct, kw_only=True):
    """``GET /api/v1/state/{space}/{key}/history``, newest first; at most 100 are kept of each key."""

    space: str
    key: str
    entries: list[StateEntry]


class SpaceView(msgspec.Struct, kw_only=True):
    """A space: name, keys and bytes here, who holds replicas, and whether it is the engine's (LINEARIZABLE keys are
    apart).
    """

    space: str
    keys: int = 0
    bytes: int = 0
    holders: list[str] = []
    siblings: int = 0


class SpaceList(msgspec.Struct, kw_only=True):
    """``GET /api/v1/state``: all spaces, and the highest level that can be given here, with the engine that gives it."""

    spaces: list[SpaceView]
    level_max: LevelName = "linearizable"
    engine: str = ""


class StateKeys(msgspec.Struct, kw_only=True):
    """``GET /api/v1/state/{space}``: its keys in order."""

    space: str
    keys: list[StateView]
    total: int = 0


class LockRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/locks/{name}``.

    Attributes:
        holder: Who asks: a name that tells two askers apart; "" = made up, see ``LockView.holder``.
        ttl_s: It ends after so long unless it is renewed; 1 … 3600.
        wait_s: How long to wait for it; 0 = not at all.
        renew: Only keep what is held already.
        agent: In whose name; "" = the node.
    """

    holder: str = ""
    ttl_s: float = 30.0
    wait_s: float = 0.0
    renew: bool = False
    agent: str = ""


class LockView(msgspec.Struct, kw_only=True):
    """A lock, which is also how a leader is elected: who holds it leads.

    Attributes:
        name, holder, node_id: Which, and who has it.
        token: Fencing token: rises with each new holder. Give it to whatever the lock protects, which refuses lower ones.
        held: False when nobody has it.
        ttl_s: Left, as this node judges; 0 when not held.
        engine: Where it lives.
    """

    name: str
    holder: str = ""
    node_id: str = ""
    token: int = 0
    held: bool = False
    ttl_s: float = 0.0
    engine: str = ""


class LockList(msgspec.Struct, kw_only=True):
    """``GET /api/v1/locks``."""

    locks: list[LockView]
    engine: str = ""
