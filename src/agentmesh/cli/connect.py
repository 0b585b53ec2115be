"""Reach the daemon of the chosen home; offer to start it when a person is there to ask."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agentmesh.cli import i18n
from agentmesh.cli.output import Output
from agentmesh.daemon import lock
from agentmesh.daemon.home import Home
from agentmesh.errors import NoRoute

if TYPE_CHECKING:
    from agentmesh.daemon.launch import Started
    from agentmesh.sdk.sync import SyncMesh

_STARTING_WAIT_S = 20.0


def home_of(out: Output) -> Home:
    """Return the home that the flags and the environment choose; refuse one from a newer version.

    Raises:
        ConfigError, Full: it cannot be used.
    """
    from agentmesh.daemon.home import find_home

    home, _ = find_home(out.home)
    home.check()
    return home


def connect(out: Output) -> SyncMesh:
    """Return a client of the running daemon.

    Raises:
        NoRoute: code "daemon.unreachable": none runs, and nobody wanted to start it.
    """
    from agentmesh.sdk.sync import SyncMesh

    home = home_of(out)
    ensure_running(out, home)
    return SyncMesh(home=home.path)


def ensure_running(out: Output, home: Home) -> None:
    """Return when the home's daemon answers; wait if it is starting, offer to start it if it is not."""
    if lock.running(home) is not None:
        return
    if lock.is_held(home):
        from agentmesh.daemon.launch import wait_ready

        wait_ready(home, out.timeout_s or _STARTING_WAIT_S, waiting=out.waiting(i18n.t("waiting for the daemon")))
        return
    if out.autostart and out.confirm(i18n.t("the daemon is not running. Start it now?")):
        start_daemon(out)
        return
    raise NoRoute(
        "the daemon is not running",
        code="daemon.unreachable",
        why=f"no process holds {home.lock}",
        hint="agentmesh up",
    )


def start_daemon(out: Output, given: dict[str, Any] | None = None) -> Started:
    """Start the daemon in the background with the given flags, showing the wait.

    Raises:
        ConfigError, StateError, Timeout, Full: as ``daemon.launch.start``.
    """
    from agentmesh.daemon import launch
    from agentmesh.daemon.settings import load

    flags = {**(given or {}), **({"home": out.home} if out.home else {})}
    settings = load(flags, profile=out.profile or None).settings
    started = launch.start(
        settings,
        flags,
        profile=out.profile,
        timeout_s=out.timeout_s or _STARTING_WAIT_S,
        waiting=out.waiting(i18n.t("starting the daemon")),
    )
    if settings.port and started.run.port != settings.port and not started.already:
        out.note(
            ("! ", "warn"),
            i18n.t("port {port} is taken by another program", port=settings.port) + f" → {started.run.port}",
        )
    return started


def agent_names(incomplete: str) -> list[str]:
    """Complete agent names from the running daemon; [] at once when none runs. For shell completion: never raises."""
    from agentmesh.daemon.home import find_home
    from agentmesh.errors import MeshError

    try:
        home, _ = find_home()
        if lock.running(home) is None:
            return []
        from agentmesh.sdk.sync import SyncMesh

        with SyncMesh(home=home.path) as mesh:
            return sorted({a.name for a in mesh.discover() if a.name.startswith(incomplete)})
    except (MeshError, OSError):
        return []


def run_ids(incomplete: str) -> list[str]:
    """Complete run references: last, and the newest runs. For shell completion: never raises."""
    from agentmesh.daemon.home import find_home
    from agentmesh.errors import MeshError

    found = ["last"]
    try:
        home, _ = find_home()
        if lock.running(home) is not None:
            from agentmesh.sdk.sync import SyncMesh

            with SyncMesh(home=home.path) as mesh:
                found += [short_run(run.run_id) for run in mesh.runs(limit=10)]
    except (MeshError, OSError):
        pass
    return [ref for ref in found if ref.startswith(incomplete)]


def short_run(run_id: str) -> str:
    """Return the form of a run id for people: ``run_`` and its first 8 digits; the daemon accepts any unique prefix."""
    return f"run_{run_id[:8]}"
