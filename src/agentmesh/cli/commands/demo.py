"""``agentmesh demo``: the whole product in ten seconds, on this machine, without an API key."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.connect import short_run
from agentmesh.cli.output import Output
from agentmesh.cli.verb import single

if TYPE_CHECKING:
    from agentmesh.cli.demo import Demo, Outcome


def demo(
    out: Output,
    keep: Annotated[bool, typer.Option("--keep", help="Leave nodes and agents running, to play with.")] = False,
    stop: Annotated[str | None, typer.Option("--stop", help="Stop a kept demo, by its directory.")] = None,
) -> None:
    """Try it: two nodes and three toy agents on this machine, no API key.

    \b
    agentmesh demo
    agentmesh demo --keep

    Your own node, if one runs, is not touched; nothing is left behind.
    """
    from pathlib import Path

    from agentmesh.cli.demo import running, stop_kept

    if stop is not None:
        ended = stop_kept(Path(stop))
        if out.json:
            out.data({"stopped": ended})
        else:
            out.check("ok", "demo", f"{i18n.t('stopped')}  {ended}")
        return
    begin = time.monotonic()
    with running(out, keep=keep) as playing:
        outcome = playing.run()
        seconds = time.monotonic() - begin
        if out.json:
            out.data(_as_json(playing, outcome, seconds, keep=keep))
        else:
            _show(out, outcome, seconds)
    if keep:
        _say_how_to_go_on(out, playing)
    else:
        out.note((i18n.t("nothing is left behind"), "dim"))
        out.next("agentmesh up")


def _as_json(playing: Demo, outcome: Outcome, seconds: float, *, keep: bool) -> dict[str, Any]:
    from agentmesh.cli.commands.discover import as_json as found_as_dict
    from agentmesh.cli.commands.up import as_dict

    return {
        "ok": True,
        "seconds": round(seconds, 3),
        "nodes": [as_dict(node) for node in outcome.nodes],
        "agents": [as_dict(agent) for agent in outcome.agents],
        "found": [{"need": need, **found_as_dict(view)} for need, view in outcome.found],
        "calls": [
            {"to": to, "input": text, "output": r.text, "ms": r.ms, "path": r.path, "run_id": r.run_id}
            for to, text, r in outcome.calls
        ],
        "trace": {"run_id": outcome.trace.run_id, "count": outcome.trace.count, "digest": outcome.trace.digest},
        "dir": str(playing.root) if keep else None,
    }


def _show(out: Output, outcome: Outcome, seconds: float) -> None:
    from agentmesh.cli.commands.discover import show_agents, sum_of
    from agentmesh.cli.timeline import Timeline
    from agentmesh.ids import short

    for node in outcome.nodes:
        out.check("ok", node.node_name, f"{short(node.node_id)}  pid {node.pid} · http://127.0.0.1:{node.port}")
    out.line("")
    show_agents(out, outcome.agents)
    out.line("")
    for need, view in outcome.found:
        by = view.embedder or i18n.t("words alone")
        for hit in view.hits:
            out.check("ok", "discover", f"{need!r} → {hit.agent.name}   {sum_of(hit.score, view.weights)} · {by}")
        for note in view.notes if not view.hits else ():
            out.check("warn", "discover", f"{need!r}   {note}")
    out.line("")
    for to, text, reply in outcome.calls:
        out.check("ok", to, f"{text!r} → {reply.text!r}   {reply.ms:.0f} ms · {reply.path}")
    out.line("")
    out.line(("reviewer → calc → echo", "head"), f"   trace: {short_run(outcome.trace.run_id)}")
    Timeline(out).add(outcome.trace)
    summary = i18n.t("{count} events · digest {digest}", count=outcome.trace.count, digest=outcome.trace.digest)
    out.line((summary, "head"), f"   {seconds:.1f} s")


def _say_how_to_go_on(out: Output, playing: Demo) -> None:
    home = playing.homes["node-a"]
    out.next(f'agentmesh run --home {home} --to calc "6 * 7"')
    out.next(f"agentmesh trace last --home {home}")
    out.next(f"agentmesh console --home {home}")
    out.note(i18n.t("the nodes keep running; stop them with:"), f" agentmesh demo --stop {playing.root}")


def build() -> Any:
    """Return the command."""
    return single(demo, own_timeout=True)
