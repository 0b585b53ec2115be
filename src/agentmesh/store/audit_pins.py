"""What this node remembers of other nodes' audit logs: the newest checkpoint of each, and which of them broke with their past."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from agentmesh.store.database import Database

#: Nodes remembered; the one not seen for longest makes room, unless it is known to have forked.
PINS_MAX = 10_000
_VERSION = 1
_SCHEMA = """
CREATE TABLE pins(
  node TEXT PRIMARY KEY, size INTEGER NOT NULL, checkpoint TEXT NOT NULL, seen INTEGER NOT NULL,
  forked TEXT NOT NULL, other TEXT NOT NULL);
"""


class Pin(NamedTuple):
    """One node's log as it was last seen to continue.

    Attributes:
        node: did:key.
        size: Records in the checkpoint.
        checkpoint: Signed note.
        seen: Unix second of the last answer.
        forked: What is wrong with what it showed since; "" if nothing.
        other: The checkpoint that does not continue this one; with it, proof by the node's own signatures.
    """

    node: str
    size: int
    checkpoint: str
    seen: int
    forked: str = ""
    other: str = ""


class AuditPins:
    """Open with ``AuditPins.open(path)``; calls must not overlap."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._count = int(db.read("SELECT count(*) FROM pins")[0][0])

    @classmethod
    def open(cls, path: Path) -> AuditPins:
        """Open or make the file. Raises ConfigError, Corrupt, Full (``store.database.Database``)."""
        damaged = f"move it away; what other nodes showed before is then forgotten:   mv {path} {path}.damaged"
        return cls(Database(path, _SCHEMA, _VERSION, name="audit_pins", damaged=damaged))

    def get(self, node: str) -> Pin | None:
        """Return what is remembered of a node. Raises StoreError."""
        rows = self._db.read("SELECT node,size,checkpoint,seen,forked,other FROM pins WHERE node=?", node)
        return Pin(*rows[0]) if rows else None

    def put(self, pin: Pin) -> None:
        """Remember it. Raises StoreError."""
        if self.get(pin.node) is None:
            if self._count >= PINS_MAX:
                self._count -= self._db.write(
                    "DELETE FROM pins WHERE node=(SELECT node FROM pins ORDER BY forked<>'', seen LIMIT 1)"
                )
            self._count += 1
        self._db.write("INSERT OR REPLACE INTO pins VALUES (?,?,?,?,?,?)", *pin)

    def all(self, limit: int = 1_000) -> list[Pin]:
        """Return the pins, those that forked first, then the newest. Raises StoreError."""
        rows = self._db.read(
            "SELECT node,size,checkpoint,seen,forked,other FROM pins ORDER BY forked='', seen DESC LIMIT ?", limit
        )
        return [Pin(*row) for row in rows]

    def close(self) -> None:
        """Close. Idempotent."""
        self._db.close()
