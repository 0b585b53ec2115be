"""Which engine a URL means. The modules of others are loaded when one is made; the default is SQLite."""

from __future__ import annotations

from pathlib import Path

from agentmesh.engines.base import CriticalStore
from agentmesh.engines.place import read_place


def choose_critical(url: str, default: Path, *, is_synced: bool = False) -> CriticalStore:
    """Return the engine of critical state; it connects with its first use.

    Args:
        url: See ``place``; "" = SQLite.
        default: SQLite's file when the URL names none.
        is_synced: NATS servers are run by nodes of this mesh, and so sync every write.

    Raises:
        ConfigError: the URL is malformed (code "engine.url").
    """
    place = read_place(url or "sqlite:")
    if place.scheme == "nats":
        from agentmesh.engines.nats import NatsCritical

        return NatsCritical(place, is_synced=is_synced)
    if place.scheme.startswith("etcd"):
        from agentmesh.engines.etcd import EtcdCritical

        return EtcdCritical(place)
    from agentmesh.engines.sqlite import SqliteCritical

    return SqliteCritical(Path(place.path).expanduser() if place.path else default)
