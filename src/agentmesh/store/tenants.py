"""Tenants of one node, and which tasks each of them started: what decides who may see a run.

One small SQLite file, opened by the daemon and used from its loop. A task that is not noted here belongs to the operator, so a
tenant whose oldest tasks were forgotten sees less, never more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from agentmesh.errors import LimitError
from agentmesh.store.database import Database
from agentmesh.store.keys import refuse_open_file

#: Most tenants of one node.
TENANTS_MAX = 1_000
#: Tasks remembered; the oldest go.
TASKS_MAX = 500_000
_TRIM_EVERY = 1_000
_VERSION = 1
#: Owner of the tasks of a tenant that is gone: no tenant's name, so that nobody inherits them.
_NOBODY = "-"
_SCHEMA = """
CREATE TABLE tenants(name TEXT PRIMARY KEY, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE tasks(
  number INTEGER PRIMARY KEY AUTOINCREMENT, task_id TEXT NOT NULL UNIQUE, run_id TEXT NOT NULL, tenant TEXT NOT NULL);
CREATE INDEX tasks_run ON tasks(tenant, run_id);
"""


class Tenant(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator settled for one tenant.

    Attributes:
        name: Small letters, digits and ``-``.
        share: Names and ids of agents outside it that it sees and may call.
        publish: Whether its agents are announced to the mesh; else only it knows them.
        calls_at_once, calls_per_s: Most calls running, and begun per second on average.
        agents_max: Most agents registered.
        events_bytes_per_day: Most bytes of events stored per day (UTC).
    """

    name: str
    share: tuple[str, ...] = ()
    publish: bool = False
    calls_at_once: int = 64
    calls_per_s: float = 100.0
    agents_max: int = 100
    events_bytes_per_day: int = 1024**3


_decoder = msgspec.json.Decoder(Tenant)


class TenantStore:
    """Open with ``TenantStore.open(path)``; calls must not overlap."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._noted = 0

    @classmethod
    def open(cls, path: Path) -> TenantStore:
        """Open or make the file.

        Raises:
            ConfigError: "tenants.newer", "tenants.permissions". The file is as it was.
            Corrupt: damaged. The file is as it was.
            Full: it cannot be written.
        """
        refuse_open_file(path, "tenants")
        damaged = f"move it away and set the tenants anew (agentmesh tenants set):   mv {path} {path}.damaged"
        return cls(Database(path, _SCHEMA, _VERSION, name="tenants", damaged=damaged))

    def all(self) -> list[Tenant]:
        """Return every tenant, by name. Raises StoreError."""
        return [_decoder.decode(body) for (body,) in self._db.read("SELECT body FROM tenants ORDER BY name")]

    def save(self, tenant: Tenant) -> None:
        """Make or change a tenant durably. Raises LimitError, StoreError; nothing changed."""
        ((others,),) = self._db.read("SELECT count(*) FROM tenants WHERE name<>?", tenant.name)
        if int(others) >= TENANTS_MAX:
            raise LimitError(f"{TENANTS_MAX} tenants are kept on this node", code="tenants.full")
        self._db.write(
            "INSERT OR REPLACE INTO tenants VALUES (?,?)",
            tenant.name,
            msgspec.json.encode(tenant).decode(),
            durable=True,
        )

    def remove(self, name: str) -> bool:
        """Forget a tenant and whose its tasks were; False if there is none of that name. Raises StoreError."""
        self._db.write("UPDATE tasks SET tenant=? WHERE tenant=?", _NOBODY, name)
        return self._db.write("DELETE FROM tenants WHERE name=?", name, durable=True) > 0

    def note(self, tenant: str, task_id: str, run_id: str) -> None:
        """Remember who started a task; the same one again changes nothing. Raises StoreError."""
        self._db.write("INSERT OR IGNORE INTO tasks(task_id,run_id,tenant) VALUES (?,?,?)", task_id, run_id, tenant)
        self._noted += 1
        if self._noted % _TRIM_EVERY == 0:
            self._db.write("DELETE FROM tasks WHERE number<=(SELECT max(number) FROM tasks)-?", TASKS_MAX)

    def owner(self, task_id: str) -> str:
        """Return the tenant that started a task; "" for the operator's. Raises StoreError."""
        rows = self._db.read("SELECT tenant FROM tasks WHERE task_id=?", task_id)
        return str(rows[0][0]) if rows else ""

    def tasks(self, tenant: str, run_id: str) -> set[str]:
        """Return the tasks that a tenant started in a run. Raises StoreError."""
        rows = self._db.read("SELECT task_id FROM tasks WHERE tenant=? AND run_id=?", tenant, run_id)
        return {str(task) for (task,) in rows}

    def runs(self, tenant: str, limit: int, skip: int = 0) -> list[str]:
        """Return the runs in which a tenant started something, newest first. Raises StoreError."""
        rows: list[Any] = self._db.read(
            "SELECT run_id FROM tasks WHERE tenant=? GROUP BY run_id ORDER BY max(number) DESC LIMIT ? OFFSET ?",
            tenant, limit, skip,
        )  # fmt: skip
        return [str(run) for (run,) in rows]

    def runs_like(self, tenant: str, prefix: str) -> list[str]:
        """Return at most two runs of a tenant with an id, or a task's id, that begins so. Raises StoreError."""
        end = prefix + "\U0010ffff"
        rows = self._db.read(
            "SELECT DISTINCT run_id FROM tasks WHERE tenant=? "
            "AND ((run_id>=? AND run_id<?) OR (task_id>=? AND task_id<?)) LIMIT 2",
            tenant, prefix, end, prefix, end,
        )  # fmt: skip
        return [str(run) for (run,) in rows]

    def close(self) -> None:
        """Close; further calls raise StateError. Idempotent."""
        self._db.close()
