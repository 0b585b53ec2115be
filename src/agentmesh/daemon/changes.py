"""What changed in the settings since the last start, for the audit log."""

from __future__ import annotations

import logging
from typing import Any, cast

import agentmesh
from agentmesh.daemon.knob_table import show_value, table
from agentmesh.daemon.knobs import Settings
from agentmesh.errors import MeshError
from agentmesh.node.audit import Audit
from agentmesh.store.state import StateStore

_log = logging.getLogger("agentmesh.daemon")
_KEPT = "settings"


async def note_settings(settings: Settings, state: StateStore, audit: Audit) -> None:
    """Record each setting that is not as it was at the last start, and the version of the program; at the first start what is
    not default. Never raises: what cannot be recorded now is recorded at the next start."""
    now = {row.key: show_value(getattr(settings, row.key)) for row in table()} | {"version": agentmesh.__version__}
    try:
        kept: Any = state.get(_KEPT)
        default = {row.key: show_value(row.default) for row in table()}
        was = cast("dict[str, Any]", kept) if isinstance(kept, dict) else default
        changed = {
            key: {"was": str(was.get(key, "")), "now": value} for key, value in now.items() if was.get(key) != value
        }
        if changed:
            await audit.note("config", "settings", changed=changed)
            state.set(_KEPT, now)
    except MeshError as error:
        _log.error("changed settings cannot be recorded: %s", error)
