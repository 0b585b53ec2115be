"""Consumer groups in the tables of ``sqlite_topics``: who has which record, until when. Called in the writer's thread."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from agentmesh.engines.base import Lease, Record
from agentmesh.errors import LimitError

#: Consumer groups of one topic.
GROUPS_MAX = 256
#: Records handed out and not done, of one group: a group whose members never finish stops taking more.
LEASES_MAX = 10_000


class Rows(Protocol):
    """What it asks of a file of tables (``store.database.Database``)."""

    def write(self, sql: str, *values: Any, durable: bool = False) -> int:
        """Run one statement."""
        ...

    def read(self, sql: str, *values: Any) -> list[Any]:
        """Return all rows of a query."""
        ...

    def transaction(self, *, durable: bool = False) -> AbstractContextManager[None]:
        """Run what is written within as one."""
        ...

    def close(self) -> None:
        """Close."""
        ...


def lease(
    rows: Rows, id_: int, group: str, member: str, *, limit: int, wait_ms: int, now_ms: int
) -> tuple[list[Lease], int | None]:
    """Hand out what is due again, then what is new.

    Args:
        rows: The file.
        id_: Of the topic.
        group, member: Who takes.
        limit: How much at most.
        wait_ms: How long it is theirs.
        now_ms: The wall clock.

    Returns:
        What was handed out; and if nothing was, when something is due again (None: nothing is out).

    Raises:
        LimitError: too many groups (code "topic.groups_full"). StoreError. Nothing was handed out.
    """
    bounds = rows.read("SELECT first, next FROM topics WHERE id = ?", id_)
    if not bounds:
        return [], None
    first, next_ = bounds[0]
    state = rows.read("SELECT next FROM groups WHERE topic = ? AND name = ?", id_, group)
    at = max(first, state[0][0]) if state else first
    # A lease whose end lies further ahead than it ever could was given before the clock was set back.
    due = rows.read(
        "SELECT offset, tries FROM leases WHERE topic = ? AND grp = ? AND (due <= ? OR due > ? + wait) "
        "ORDER BY offset LIMIT ?",
        id_,
        group,
        now_ms,
        now_ms + 1_000,
        limit,
    )
    taken: list[tuple[int, int]] = [(offset, tries + 1) for offset, tries in due]
    if state and at >= next_ and not taken:
        soonest = rows.read("SELECT min(due) FROM leases WHERE topic = ? AND grp = ?", id_, group)[0][0]
        return [], soonest
    held = rows.read("SELECT count(*) FROM leases WHERE topic = ? AND grp = ?", id_, group)[0][0]
    fresh = max(0, min(limit - len(taken), next_ - at, LEASES_MAX - held))
    taken += [(at + more, 1) for more in range(fresh)]
    leases: list[Lease] = []
    with rows.transaction():
        if not state and rows.read("SELECT count(*) FROM groups WHERE topic = ?", id_)[0][0] >= GROUPS_MAX:
            raise LimitError(f"{GROUPS_MAX} consumer groups take from this topic", code="topic.groups_full")
        rows.write("INSERT OR REPLACE INTO groups VALUES(?, ?, ?)", id_, group, at + fresh)
        for offset, tries in taken:
            found = rows.read(
                "SELECT offset, ts, subject, body FROM records WHERE topic = ? AND offset = ?", id_, offset
            )
            if not found:
                continue
            token = f"{offset}.{secrets.token_hex(8)}"
            rows.write(
                "INSERT OR REPLACE INTO leases VALUES(?, ?, ?, ?, ?, ?, ?, ?)",
                id_,
                group,
                offset,
                member,
                token,
                tries,
                now_ms + wait_ms,
                wait_ms,
            )
            leases.append(Lease(Record(*found[0]), token, tries))
    return leases, None


def ack(rows: Rows, id_: int, group: str, tokens: Sequence[str]) -> int:
    """Forget leases that are done; return how many there were. Raises StoreError."""
    with rows.transaction():
        return sum(
            rows.write(
                "DELETE FROM leases WHERE topic = ? AND grp = ? AND offset = ? AND token = ?",
                id_,
                group,
                _offset_of(token),
                token,
            )
            for token in tokens
            if token
        )


def nack(rows: Rows, id_: int, group: str, tokens: Sequence[str], due_ms: int, delay_ms: int) -> int:
    """Make leases due at another time, until when they can be acknowledged; return how many there were. Raises StoreError."""
    with rows.transaction():
        return sum(
            rows.write(
                "UPDATE leases SET due = ?, wait = max(wait, ?) "
                "WHERE topic = ? AND grp = ? AND offset = ? AND token = ?",
                due_ms,
                delay_ms,
                id_,
                group,
                _offset_of(token),
                token,
            )
            for token in tokens
            if token
        )


def _offset_of(token: str) -> int:
    digits = token.partition(".")[0]
    return int(digits) if digits.isdecimal() and len(digits) <= 18 else -1
