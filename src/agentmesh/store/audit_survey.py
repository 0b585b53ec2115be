"""Look through an audit log from its newest end: who called whom, by filters, page by page.

Reads files only, as ``audit_read`` does. A log may be large, so one look goes back over a bounded number of records and says how
far it came; the next one goes on there. Nothing is left out without being counted.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agentmesh.errors import DecodeError
from agentmesh.identity.audit_record import AuditRecord, read_record
from agentmesh.store.audit_files import lines_of, segment_path, segments_of

#: Records that one look goes back over: about half a second of a thread, for records of 1 KB on one of two cores.
LOOKED_MAX = 50_000


class _Data(msgspec.Struct, kw_only=True):
    """What filters look at, of whatever type it is; the rest of a record is not made into objects."""

    action: Any = ""
    decision: Any = ""
    agent: Any = ""
    claimed: Any = ""
    resource: Any = ""
    name: Any = ""
    outcome: Any = ""
    code: Any = ""
    txn: Any = ""
    task: Any = ""


class _Glance(msgspec.Struct):
    time: str
    data: _Data


_glance = msgspec.json.Decoder(_Glance).decode


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which records fit; "" = all.

    Attributes:
        action: "call" for calls both ways, or another action.
        caller: did:key of who asked, or who is said to have; or the beginning of it.
        callee: did:key of who was asked, or the beginning of it; or the agent's name.
        agent: did:key or name of either side.
        result: What was decided ("allowed", "refused"), the outcome, or the code of an error.
        run, task: Id or its beginning.
        since, until: RFC 3339 time or its beginning, UTC: not before, and before.
    """

    action: str = ""
    caller: str = ""
    callee: str = ""
    agent: str = ""
    result: str = ""
    run: str = ""
    task: str = ""
    since: str = ""
    until: str = ""

    def fits(self, time: str, data: dict[str, Any]) -> bool:
        """Say whether a record of this time and data is wanted."""
        return self.takes(time, _Data(**{name: data.get(name, "") for name in _Data.__struct_fields__}))

    def takes(self, time: str, data: _Data) -> bool:
        """As ``fits``."""
        if (self.since and time < self.since) or (self.until and time >= self.until):
            return False
        if self.action and data.action != self.action and not str(data.action).startswith(self.action + "."):
            return False
        if self.caller and not _begins(self.caller, data.agent, data.claimed):
            return False
        if self.callee and data.name != self.callee and not _begins(self.callee, data.resource):
            return False
        if self.agent and self.agent not in (data.agent, data.resource, data.name):
            return False
        if self.result and self.result not in (data.decision, data.outcome, data.code):
            return False
        if self.run and not _begins(self.run, data.txn):
            return False
        return not self.task or _begins(self.task, data.task)


def _begins(wanted: str, *texts: Any) -> bool:
    return any(isinstance(text, str) and text.startswith(wanted) for text in texts)


class Look(NamedTuple):
    """What one look found.

    Attributes:
        records: The newest that fit, newest first.
        matching: How many fit among those looked at.
        digest: Over those, as they are hashed: two readers with the same one saw the same records.
        begin, end: What was looked at: records from ``begin`` to before ``end``.
        next: Where the next page ends (its ``before``); None when nothing older is left.
    """

    records: list[AuditRecord]
    matching: int
    digest: str
    begin: int
    end: int
    next: int | None


def look_back(
    directory: Path, wanted: Wanted, *, limit: int, before: int = 2**53, looked_max: int = LOOKED_MAX
) -> Look:
    """Return the newest records that fit, of those before a number.

    Args:
        directory: Of the log.
        wanted: Which.
        limit: At most so many are returned; all that fit are counted.
        before: Number of the first that is not looked at.
        looked_max: Records to look at.

    Raises:
        OSError: it cannot be read.
    """
    total = hashlib.sha256()
    records: list[AuditRecord] = []
    matching, begin, end, next_ = 0, 0, 0, None
    looked = 0
    for seq, raw in _backwards(directory, before):
        if not looked:
            end = seq + 1
        if looked == looked_max:
            break
        looked, begin = looked + 1, seq
        if not _fits(raw, wanted):
            continue
        if len(records) < limit:
            try:
                records.append(read_record(raw))
            except DecodeError:
                continue  # ``audit_check`` names it
            next_ = seq
        matching += 1
        total.update(hashlib.sha256(raw).digest())
    if matching <= len(records):
        next_ = begin or None
    text = total.hexdigest()
    return Look(records, matching, f"{text[:4]}-{text[4:8]}", begin, end, next_)


def _fits(raw: bytes, wanted: Wanted) -> bool:
    try:
        record = _glance(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return wanted.takes(record.time, record.data)


def _backwards(directory: Path, before: int) -> Iterator[tuple[int, bytes]]:
    for first in reversed(segments_of(directory)):
        if first >= before:
            continue
        lines = list(lines_of(segment_path(directory, first)))
        for number in range(len(lines) - 1, -1, -1):
            if first + number < before:
                yield first + number, lines[number]


def pieces(directory: Path, wanted: Wanted, *, end: int = 2**53, piece_bytes: int = 256 * 1024) -> Iterator[bytes]:
    """Yield the records that fit, oldest first, exactly as they are hashed, each with a newline; many together.

    Raises:
        OSError: it cannot be read.
    """
    held: list[bytes] = []
    size = 0
    for first in segments_of(directory):
        if first >= end:
            break
        for number, raw in enumerate(lines_of(segment_path(directory, first)), first):
            if number >= end:
                break
            if _fits(raw, wanted):
                held += (raw, b"\n")
                size += len(raw) + 1
                if size >= piece_bytes:
                    yield b"".join(held)
                    held, size = [], 0
        # Also after a segment with nothing in it: whoever asks in a thread gets the loop back between two.
        yield b"".join(held)
        held, size = [], 0
