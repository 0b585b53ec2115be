"""``agentmesh down`` and ``agentmeshd stop``: end the daemon of this home, and only that."""

from __future__ import annotations

from typing import Any

from agentmesh.cli import i18n
from agentmesh.cli.output import Output
from agentmesh.cli.verb import single

_GRACE_S = 15.0


def down(out: Output) -> None:
    """Stop this machine's node.

    \b
    agentmesh down
    agentmesh down --timeout 60      give running calls a minute to end

    Nothing happens when it does not run. After the grace (15 s, or --timeout) it is killed, and you are told.
    """
    from agentmesh.cli.connect import home_of
    from agentmesh.daemon import launch

    grace_s = out.timeout_s or _GRACE_S

    def on_kill(pid: int) -> None:
        text = "process {pid} did not end within {seconds} s and is killed"
        out.note(("! ", "warn"), i18n.t(text, pid=pid, seconds=f"{grace_s:g}"))

    stopped = launch.stop(
        home_of(out), grace_s=grace_s, on_kill=on_kill, waiting=out.waiting(i18n.t("stopping the daemon"))
    )
    if out.json:
        out.data({"stopped": stopped.pid is not None, "pid": stopped.pid, "killed": stopped.killed})
    elif stopped.pid is None:
        out.check("ok", "daemon", i18n.t("not running"))
    else:
        out.check("ok", "daemon", f"{i18n.t('stopped')}  pid {stopped.pid} · {stopped.seconds:.1f} s")


def build() -> Any:
    """Return the command."""
    return single(down, own_timeout=True)
