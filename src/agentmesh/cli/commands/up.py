"""``agentmesh up``: start this machine's node in the background; idempotent, takes no settings (they live in config)."""

from __future__ import annotations

from typing import Any

from agentmesh.cli import i18n
from agentmesh.cli.output import Output
from agentmesh.cli.verb import single


def up(out: Output) -> None:
    """Start this machine's node in the background.

    \b
    agentmesh up
    agentmesh up --json

    Does nothing when it runs already. It takes no settings: 'agentmesh config set' keeps them.
    """
    show_started(out, {})


def show_started(out: Output, given: dict[str, Any]) -> None:
    """Start the daemon with the given flags and print what came of it."""
    from agentmesh.cli.connect import home_of, start_daemon
    from agentmesh.ids import short

    started = start_daemon(out, given)
    run = started.run
    home = home_of(out)
    if out.json:
        from agentmesh.cli.connect import connect

        with connect(out) as mesh:
            out.data({**as_dict(mesh.status()), "already_running": started.already})
        return
    identity = i18n.t("created" if started.created else "loaded")
    out.check("ok", "identity", f"{identity}  {short(run.node_id)}   {i18n.t('key in {path}', path=home.node_key)}")
    state = i18n.t("already running" if started.already else "running")
    out.check("ok", "daemon", f"{state}  pid {run.pid} · http://127.0.0.1:{run.port} · {_openness(out, given)}")
    out.next("agentmesh demo", i18n.t("try it with three toy agents, no API key"))


def as_dict(value: Any) -> dict[str, Any]:
    """Return an API shape as JSON-ready members."""
    import msgspec

    return msgspec.to_builtins(value)


def _openness(out: Output, given: dict[str, Any]) -> str:
    from agentmesh.daemon.settings import load

    flags = {**given, **({"home": out.home} if out.home else {})}
    settings = load(flags, profile=out.profile or None).settings
    lan = i18n.t("LAN discovery on" if settings.mdns else "LAN discovery off")
    return f"{lan} · {i18n.t('HTTP on this machine only')}"


def build() -> Any:
    """Return the command."""
    return single(up, own_timeout=True)
