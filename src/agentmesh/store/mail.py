"""Messages on disk: what waits to go out, what came in, what was given up, what is carried for others (docs/spec/mail.md §4).

One SQLite file that only the mail thread of the daemon touches (``node.mail.commits``). What a batch adds to the outbox and the
inbox is on disk when ``commit`` returns, by one fsync for all of it; what it takes away may come back after the machine loses
power, never after the process dies, and coming back is harmless: ids are remembered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from agentmesh.store.database import Database

#: States of the outbox, as numbers on disk; the words are ``MessageState``.
QUEUED, CARRIED, DELIVERED, READ, EXPIRED, DEAD = range(6)
STATES = ("queued", "carried", "delivered", "read", "expired", "dead")
#: Rows of what ended that are kept, and for how long: a week.
ENDED_MAX = 100_000
DEAD_MAX = 10_000
#: Their bytes; the list is trimmed by age, and whenever so much was added.
DEAD_BYTES_MAX = 256 * 1024 * 1024
_TRIM_BYTES, _DEAD_COST = 16 * 1024 * 1024, 4_096
KEEP_MS = 7 * 86_400_000
#: Ids that are remembered so that nothing comes twice; the oldest go first. About 60 bytes each.
SEEN_MAX = 2_000_000

_SCHEMA = """
CREATE TABLE outbox(
  tag INTEGER PRIMARY KEY, id BLOB NOT NULL, asked TEXT NOT NULL, recipient BLOB NOT NULL, body BLOB NOT NULL,
  state INTEGER NOT NULL, reason TEXT NOT NULL,
  sent_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL, tries INTEGER NOT NULL);
CREATE INDEX outbox_id ON outbox(id);
CREATE TABLE inbox(
  cursor INTEGER PRIMARY KEY, agent BLOB NOT NULL, body BLOB NOT NULL, received_ms INTEGER NOT NULL, encrypted INTEGER NOT NULL,
  tries INTEGER NOT NULL);
CREATE TABLE seen(n INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, until_ms INTEGER NOT NULL);
CREATE TABLE dead(
  n INTEGER PRIMARY KEY AUTOINCREMENT, side INTEGER NOT NULL, id BLOB NOT NULL, body BLOB NOT NULL, asked TEXT NOT NULL,
  reason TEXT NOT NULL, ended_ms INTEGER NOT NULL);
CREATE INDEX dead_id ON dead(id);
CREATE TABLE carried(
  n INTEGER PRIMARY KEY AUTOINCREMENT, mark BLOB NOT NULL UNIQUE, node BLOB NOT NULL, recipient BLOB NOT NULL,
  depositor BLOB NOT NULL, body BLOB NOT NULL, expires_ms INTEGER NOT NULL);
CREATE INDEX carried_recipient ON carried(recipient);
CREATE TABLE receipts(mark BLOB PRIMARY KEY, depositor BLOB NOT NULL, receipt BLOB NOT NULL, expires_ms INTEGER NOT NULL);
CREATE TABLE tally(name TEXT PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID;
"""


#: Which of so many marks are known; what is left of the last round is filled with b"".
_MARKS = 256
_KNOWN = f"SELECT key FROM seen WHERE key IN ({','.join('?' * _MARKS)})"  # noqa: S608 nothing of it comes from outside


class OutRow(NamedTuple):
    """A message on its way: ``body`` is its wire form."""

    tag: int
    id: bytes
    asked: str
    recipient: bytes
    body: bytes
    state: int
    reason: str
    sent_ms: int
    expires_ms: int
    ended_ms: int
    tries: int


class InRow(NamedTuple):
    """A message that came for an agent here. ``mark`` is what it is remembered by; b"" = it may come again."""

    cursor: int
    agent: bytes
    body: bytes
    received_ms: int
    encrypted: int
    tries: int
    mark: bytes = b""
    until_ms: int = 0


class DeadRow(NamedTuple):
    """A message that was given up. ``side`` 0 = going out, 1 = at the inbox here."""

    side: int
    id: bytes
    body: bytes
    asked: str
    reason: str
    ended_ms: int


class CarriedRow(NamedTuple):
    """Sealed mail that is kept for an agent of another node."""

    mark: bytes
    node: bytes
    recipient: bytes
    depositor: bytes
    body: bytes
    expires_ms: int


class Ended(NamedTuple):
    """What became of a message of the outbox."""

    state: int
    reason: str
    ended_ms: int
    tries: int
    tag: int


@dataclass(slots=True)
class Batch:
    """What is written in one transaction.

    Attributes:
        out, came: New rows of outbox and inbox: safe from a power cut once committed.
        ended: Changes of outbox rows.
        taken: Cursors of inbox rows that are done.
        tries: (tries, cursor) of inbox rows that were handed out.
        dead: Rows for the list of dead letters.
        tally: Counts by name that replace those on disk.
    """

    out: list[OutRow] = field(default_factory=list[OutRow])
    came: list[InRow] = field(default_factory=list[InRow])
    ended: list[Ended] = field(default_factory=list[Ended])
    taken: list[tuple[int]] = field(default_factory=list[tuple[int]])
    tries: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    dead: list[DeadRow] = field(default_factory=list[DeadRow])
    tally: dict[str, int] = field(default_factory=dict[str, int])

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to write."""
        return not (self.out or self.came or self.ended or self.taken or self.tries or self.dead)


class MailStore:
    """Open with ``MailStore.open(path)``; calls must not overlap.

    All methods raise StoreError; what was to be written is then not written at all.
    """

    def __init__(self, database: Database) -> None:
        self._db = database
        self._dead_bytes = 0

    @classmethod
    def open(cls, path: Path) -> MailStore:
        """Open the file, making it if need be.

        Raises:
            ConfigError, StoreError: as ``Database``. The file is as it was.
        """
        return cls(
            Database(
                path,
                _SCHEMA,
                1,
                name="mail",
                damaged=f"messages that wait are in it; to go on without them:   mv {path} {path}.damaged",
            )
        )

    def close(self) -> None:
        """Close. Idempotent."""
        self._db.close()

    def commit(self, batch: Batch) -> list[int]:
        """Write a batch, all of it or nothing; return the cursors of ``came`` that had come before and were not kept."""
        db = self._db
        again: list[int] = []
        with db.transaction(durable=bool(batch.out or batch.came)):
            if batch.out:
                db.execute_many("INSERT INTO outbox VALUES(?,?,?,?,?,?,?,?,?,?,?)", batch.out)
            if batch.came:
                again = self._keep(batch.came)
            if batch.ended:
                db.execute_many(
                    "UPDATE outbox SET state=?, reason=?, ended_ms=?, tries=?, body=x'' WHERE tag=?", batch.ended
                )
            if batch.taken:
                db.execute_many("DELETE FROM inbox WHERE cursor=?", batch.taken)
            if batch.tries:
                db.execute_many("UPDATE inbox SET tries=? WHERE cursor=?", batch.tries)
            if batch.dead:
                db.execute_many("INSERT INTO dead(side,id,body,asked,reason,ended_ms) VALUES(?,?,?,?,?,?)", batch.dead)
                self._dead_bytes += sum(len(row.body) + _DEAD_COST for row in batch.dead)
                if self._dead_bytes >= _TRIM_BYTES:
                    self._trim_dead()
            if batch.tally:
                db.execute_many("INSERT OR REPLACE INTO tally VALUES(?,?)", list(batch.tally.items()))
        return again

    def _trim_dead(self) -> None:
        """Drop the oldest dead letters of each side beyond the bounds: what others send pushes out none of our own."""
        self._dead_bytes = 0
        for side in (0, 1):
            count = size = 0
            for n, length in self._db.read("SELECT n, length(body) FROM dead WHERE side=? ORDER BY n DESC", side):
                count, size = count + 1, size + length
                if count > DEAD_MAX or size > DEAD_BYTES_MAX:
                    self._db.write("DELETE FROM dead WHERE side=? AND n<=?", side, n)
                    break

    def _keep(self, rows: list[InRow]) -> list[int]:
        """Write rows of the inbox whose marks are new; return the cursors of the others."""
        db, marks = self._db, [row.mark for row in rows if row.mark]
        known: set[bytes] = set()
        for at in range(0, len(marks), _MARKS):
            some = marks[at : at + _MARKS]
            known.update(mark for (mark,) in db.read(_KNOWN, *some, *[b""] * (_MARKS - len(some))))
        again: list[int] = []
        fresh: list[InRow] = []
        for row in rows:
            if row.mark in known:
                again.append(row.cursor)
            else:
                fresh.append(row)
                if row.mark:
                    known.add(row.mark)  # once in a batch too
        db.execute_many(
            "INSERT INTO seen(key, until_ms) VALUES(?,?)", [(row.mark, row.until_ms) for row in fresh if row.mark]
        )
        db.execute_many("INSERT INTO inbox VALUES(?,?,?,?,?,?)", [row[:6] for row in fresh])
        return again

    def tally(self) -> dict[str, int]:
        """Return the counts that were kept."""
        return {name: int(count) for name, count in self._db.read("SELECT name, count FROM tally")}

    def waiting(self, limit: int) -> list[OutRow]:
        """Return what is still to be sent, oldest first."""
        rows = self._db.read("SELECT * FROM outbox WHERE state<=? ORDER BY tag LIMIT ?", CARRIED, limit)
        return [OutRow(*row) for row in rows]

    def arrived(self, limit: int) -> list[InRow]:
        """Return what waits in the inboxes, oldest first."""
        return [InRow(*row) for row in self._db.read("SELECT * FROM inbox ORDER BY cursor LIMIT ?", limit)]

    def highest(self) -> int:
        """Return a number that no tag and no cursor in the file exceeds."""
        ((high,),) = self._db.read(
            "SELECT max((SELECT ifnull(max(tag),0) FROM outbox), (SELECT ifnull(max(cursor),0) FROM inbox))"
        )
        return int(high)

    def sent(self, message_id: bytes) -> list[OutRow]:
        """Return the copies of one message, as they went out."""
        rows = self._db.read("SELECT * FROM outbox WHERE id=? ORDER BY tag LIMIT 10000", message_id)
        return [OutRow(*row) for row in rows]

    def outgoing(self, limit: int) -> list[OutRow]:
        """Return the newest of what waits or was sent."""
        return [OutRow(*row) for row in self._db.read("SELECT * FROM outbox ORDER BY tag DESC LIMIT ?", limit)]

    def dead(self, limit: int, start: int) -> tuple[list[tuple[int, DeadRow]], int]:
        """Return numbered dead letters, newest first, skipping ``start``, and how many there are."""
        rows = self._db.read(
            "SELECT n,side,id,body,asked,reason,ended_ms FROM dead ORDER BY n DESC LIMIT ? OFFSET ?", limit, start
        )
        ((count,),) = self._db.read("SELECT count(*) FROM dead")
        return [(row[0], DeadRow(*row[1:])) for row in rows], int(count)

    def dead_of(self, message_id: bytes) -> list[tuple[int, DeadRow]]:
        """Return the dead letters of one message that went out."""
        rows = self._db.read(
            "SELECT n,side,id,body,asked,reason,ended_ms FROM dead WHERE id=? AND side=0 ORDER BY n", message_id
        )
        return [(row[0], DeadRow(*row[1:])) for row in rows]

    def revive(self, numbers: Sequence[int]) -> None:
        """Take dead letters from their list: they were sent again."""
        with self._db.transaction():
            self._db.execute_many("DELETE FROM dead WHERE n=?", [(number,) for number in numbers])

    def note_carried(self, tags: Sequence[int]) -> None:
        """Note that messages that still wait are carried by a third node."""
        with self._db.transaction():
            self._db.execute_many(
                "UPDATE outbox SET state=? WHERE tag=? AND state=?", [(CARRIED, tag, QUEUED) for tag in tags]
            )

    # Mail of others

    def carry(self, row: CarriedRow) -> bool:
        """Keep sealed mail, on disk when this returns; say whether it is new."""
        changed = self._db.write(
            "INSERT OR IGNORE INTO carried(mark,node,recipient,depositor,body,expires_ms) VALUES(?,?,?,?,?,?)",
            *row,
            durable=True,
        )
        return bool(changed)

    def carried_load(self, depositor: bytes) -> tuple[int, int, int, int]:
        """Return how many and how many bytes are kept: of this depositor, and of all. Receipts that it has not taken count."""
        ((mine, bytes_mine),) = self._db.read(
            "SELECT count(*), ifnull(sum(length(body)),0) FROM carried WHERE depositor=?", depositor
        )
        ((count, size),) = self._db.read("SELECT count(*), ifnull(sum(length(body)),0) FROM carried")
        ((receipts,),) = self._db.read("SELECT count(*) FROM receipts WHERE depositor=?", depositor)
        return mine + receipts, bytes_mine, count, size

    def carried_for(self, recipient: bytes, limit: int) -> list[CarriedRow]:
        """Return what is kept for an agent, oldest first."""
        rows = self._db.read(
            "SELECT mark,node,recipient,depositor,body,expires_ms FROM carried WHERE recipient=? ORDER BY n LIMIT ?",
            recipient,
            limit,
        )
        return [CarriedRow(*row) for row in rows]

    def carried_recipients(self, limit: int) -> list[bytes]:
        """Return the agents for whom something is kept."""
        return [row[0] for row in self._db.read("SELECT DISTINCT recipient FROM carried LIMIT ?", limit)]

    def carried_totals(self) -> tuple[int, int]:
        """Return how many letters of others are kept, and their bytes."""
        ((count, size),) = self._db.read("SELECT count(*), ifnull(sum(length(body)),0) FROM carried")
        return int(count), int(size)

    def drop_carried(self, marks: Sequence[bytes], receipts: dict[bytes, bytes]) -> list[CarriedRow]:
        """Forget sealed mail that was handed over or refused; keep the receipts for those who left it. Return what was there."""
        gone: list[CarriedRow] = []
        with self._db.transaction():
            for mark in marks:
                rows = self._db.read(
                    "SELECT mark,node,recipient,depositor,body,expires_ms FROM carried WHERE mark=?", mark
                )
                gone.extend(CarriedRow(*row) for row in rows)
                self._db.write("DELETE FROM carried WHERE mark=?", mark)
            for row in gone:
                if row.mark in receipts:
                    self._db.write(
                        "INSERT OR REPLACE INTO receipts VALUES(?,?,?,?)",
                        row.mark,
                        row.depositor,
                        receipts[row.mark],
                        row.expires_ms,
                    )
        return gone

    def receipts_for(self, depositor: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Return (mark, receipt) of mail that a node left here and that was handed over."""
        return [
            (mark, receipt)
            for mark, receipt in self._db.read(
                "SELECT mark, receipt FROM receipts WHERE depositor=? LIMIT ?", depositor, limit
            )
        ]

    def drop_receipts(self, marks: Sequence[bytes]) -> None:
        """Forget receipts that were told."""
        with self._db.transaction():
            self._db.execute_many("DELETE FROM receipts WHERE mark=?", [(mark,) for mark in marks])

    def tidy(self, now_ms: int) -> None:
        """Drop what is past its time or beyond the bounds; called now and then."""
        db = self._db
        with db.transaction():
            db.write("DELETE FROM carried WHERE expires_ms<=?", now_ms)
            db.write("DELETE FROM receipts WHERE expires_ms<=?", now_ms)
            db.write("DELETE FROM seen WHERE until_ms<=?", now_ms)
            db.write("DELETE FROM seen WHERE n <= (SELECT max(n) FROM seen) - ?", SEEN_MAX)
            db.write("DELETE FROM dead WHERE ended_ms<=?", now_ms - KEEP_MS)
            self._trim_dead()
            db.write("DELETE FROM outbox WHERE state>=? AND ended_ms<=?", DELIVERED, now_ms - KEEP_MS)
            db.write(
                "DELETE FROM outbox WHERE state>=? AND tag <= ("
                "SELECT tag FROM outbox WHERE state>=? ORDER BY tag DESC LIMIT 1 OFFSET ?)",
                DELIVERED,
                DELIVERED,
                ENDED_MAX,
            )
