"""``agentmesh discover [QUERY]``: the agents of the mesh, or those that meet a need, with the parts of their scores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, Styled, clip
from agentmesh.cli.verb import single
from agentmesh.errors import UsageError

if TYPE_CHECKING:
    from agentmesh.wire.search_views import DiscoverHit, DiscoverView, ScoreView, WeightsView
    from agentmesh.wire.views import AgentView

TRUST: dict[str, Styled] = {
    "own": ("●●● own", "ok"),
    "signed": ("●●○ signed", "ok"),
    "low": ("●○○ low", "warn"),
}
_STATUS_STYLE = {"healthy": "ok", "unhealthy": "fail", "unknown": "dim", "gone": "dim"}
_SKILLS_SHOWN = 4
_MATCHED_CHARS = 100
#: Cells of the bar of a score; each part has a sign of its own.
_BAR_CELLS = 10
_BAR = (("text", "█"), ("trust", "▓"), ("health", "░"))
_LISTED_MAX = 1_000

_TIERS = ("low", "unknown", "medium", "high", "own")


def discover(
    out: Output,
    query: Annotated[str, typer.Argument(help="What is needed, in your words; more than one need is fine.")] = "",
    query_: Annotated[str, typer.Option("--query", help="The same as a flag.")] = "",
    top_k: Annotated[int, typer.Option("--top-k", "-k", help="Show so many.", min=1, max=_LISTED_MAX)] = 10,
    protocol: Annotated[str, typer.Option("--protocol", help="It speaks this: mesh, a2a, mcp, http.")] = "",
    tag: Annotated[str, typer.Option("--tag", help="It has this tag.")] = "",
    skill: Annotated[str, typer.Option("--skill", help="It has a skill of this id.")] = "",
    model: Annotated[
        str, typer.Option("--model", help="It says that it runs on this model, or one that begins so.")
    ] = "",
    context_window: Annotated[int, typer.Option("--context-window", help="It takes at least so many tokens.")] = 0,
    price: Annotated[str, typer.Option("--price", help="A call costs at most so many US dollars, such as 0.05.")] = "",
    budget: Annotated[str, typer.Option("--budget", help="What is left to spend; the smaller of both holds.")] = "",
    trust: Annotated[str, typer.Option("--trust", help="At least: low, unknown, medium, high or own.")] = "",
    healthy: Annotated[bool, typer.Option("--healthy", help="Leave out agents that cannot be called now.")] = False,
    location: Annotated[str, typer.Option("--location", help="It is at this place, or one that begins so.")] = "",
    organisation: Annotated[str, typer.Option("--organisation", help="This organisation vouches for it.")] = "",
    node: Annotated[str, typer.Option("--node", help="It lives at this node: name or id.")] = "",
    weights: Annotated[str, typer.Option("--weights", help="Mix of the score: text,trust,health as 0.7,0.2,0.1.")] = "",
    local: Annotated[bool, typer.Option("--local", help="Ask no other node.")] = False,
    explain: Annotated[
        bool, typer.Option("--explain", help="Show the parts of each score, and who is no answer and why.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Go on: show the list each time that it changes.")] = False,
    near: Annotated[int, typer.Option("--near", help="Show so many near misses.", min=0, max=100)] = 3,
) -> None:
    """List the agents of the mesh, or those that match a question.

    \b
    agentmesh discover
    agentmesh discover "check a German rental contract" --explain
    agentmesh discover "summarise meetings" --tag audio --trust medium -k 3
    """
    from agentmesh.cli.connect import connect

    if query and query_ and query != query_:
        raise UsageError("two queries are given", code="discover.query", hint='agentmesh discover "…"')
    query = query or query_
    if trust and trust not in _TIERS:
        raise UsageError(
            f"{trust[:40]!r} is no tier of trust", code="discover.trust", hint="--trust " + " | ".join(_TIERS)
        )
    filters: dict[str, Any] = {
        "protocol": protocol,
        "tag": tag,
        "skill": skill,
        "model": model,
        "context_window_min": context_window,
        "price_max": price,
        "budget": budget,
        "trust_tier": trust,
        "health": "healthy" if healthy else "",
        "location": location,
        "organisation": organisation,
        "node": node,
    }
    options = {name: value for name, value in filters.items() if value}
    plain = not query.strip() and set(options) <= {"health"} and not watch and not explain
    if plain:
        _list_all(out, healthy=healthy)
        return
    options |= {
        "limit": top_k if query.strip() else _LISTED_MAX,
        "near": near,
        "scope": "local" if local else "mesh",
        "weights": _mix(weights),
    }
    with connect(out) as mesh:
        if not watch:
            _show(out, query, mesh.search(query, **options), explain=explain)
            return
        for view in mesh.watch_search(query, **options):
            _show(out, query, view, explain=explain)


def _mix(text: str) -> list[float] | None:
    if not text:
        return None
    from agentmesh.core.search.rank import Weights

    try:
        numbers = [float(one) for one in text.split(",")]
    except ValueError:
        numbers = []
    return list(Weights(*numbers if len(numbers) == 3 else (-1.0,)).scaled())


def _list_all(out: Output, *, healthy: bool) -> None:
    """List the directory by name."""
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        agents = [agent for agent in mesh.discover() if not healthy or agent.status == "healthy"]
    if out.json:
        from agentmesh.cli.commands.up import as_dict

        out.data({"agents": [as_dict(agent) for agent in agents]})
        return
    if not agents:
        out.note(i18n.t("no agents yet"))
        out.next("agentmesh register URL    or    agentmesh demo")
        return
    show_agents(out, agents)
    _next(out, agents)


def _show(out: Output, query: str, view: DiscoverView, *, explain: bool) -> None:
    if out.json:
        out.data(as_json(view))
        return
    weighty = explain or not view.hits or not view.embedder
    for note in view.notes:
        out.note(("! ", "warn" if weighty else "dim"), (note, "plain" if weighty else "dim"))
    if view.hits:
        head = ["NAME", "SKILL", "SCORE", "TRUST", "WHERE", "STATUS"]
        out.table(head, [_hit_row(hit, view.weights if query.strip() else None) for hit in view.hits])
    else:
        what = repr(clip(query, 60)) if query.strip() else i18n.t("these filters")
        out.note(i18n.t("no agent matches {query}", query=what))
    if explain:
        explained(out, view)
    elif view.near and not view.hits:
        _near(out, view)
    _say_rest(out, view)
    if view.hits:
        _next(out, [hit.agent for hit in view.hits])
    else:
        out.next("agentmesh discover")


def explained(out: Output, view: DiscoverView) -> None:
    """Print the parts of each score, what matched, and who is no answer and why."""
    mix = view.weights
    formula = f"{mix.text:.2f}·text + {mix.trust:.2f}·trust + {mix.health:.2f}·health"
    by = i18n.t("meaning by {embedder}", embedder=view.embedder) if view.embedder else i18n.t("words alone")
    out.line("")
    out.line(("score = " + formula, "head"), f"   {by}")
    if len(view.needs) > 1:
        out.line(i18n.t("needs:"), " " + " | ".join(clip(need, 60) for need in view.needs))
    for hit in view.hits:
        words = f"(words {hit.score.lexical:.2f}, meaning {hit.score.vector:.2f})"
        out.line((hit.agent.name, "name"), f"  {sum_of(hit.score, view.weights)}   {words}")
        if hit.matched:
            out.line(f"    {clip(hit.matched, _MATCHED_CHARS)}", (f"   [{hit.source}]", "dim"))
    _near(out, view)


def _near(out: Output, view: DiscoverView) -> None:
    if not view.near:
        return
    out.line("")
    out.line((i18n.t("near misses"), "head"))
    for miss in view.near:
        out.line(("✗ ", "fail"), (miss.agent.name, "name"), f"  {miss.why}")


def sum_of(score: ScoreView, mix: WeightsView) -> str:
    """Return a score as the sum of its parts: text, trust, health."""
    parts = f"{mix.text:.2f}·{score.text:.2f} + {mix.trust:.2f}·{score.trust:.2f} + {mix.health:.2f}·{score.health:.2f}"
    return f"{score.total:.2f} = {parts}"


def bar(score: ScoreView, weights: WeightsView) -> str:
    """Return the bar of a score: as long as the score, a sign for each of its parts."""
    made, reached = "", 0.0
    for name, sign in _BAR:
        reached += getattr(weights, name) * getattr(score, name)
        made += sign * max(0, round(reached * _BAR_CELLS) - len(made))
    return made


def _hit_row(hit: DiscoverHit, weights: WeightsView | None) -> list[Styled]:
    agent = hit.agent
    skills = [hit.matched_skill] if hit.matched_skill else [skill.id for skill in agent.skills]
    here = agent.trust == "own" or agent.path == "local"
    return [
        (agent.name, "name"),
        clip(",".join(skills), 32),
        f"{hit.score.total:.2f} {bar(hit.score, weights)}" if weights is not None else "-",
        _trust(agent),
        clip((i18n.t("this node") if here else agent.node_name) or agent.node_id[-6:], 24),
        (agent.status, _STATUS_STYLE.get(agent.status, "plain")),
    ]


def _say_rest(out: Output, view: DiscoverView) -> None:
    """Say how many more there are, and how asking others went."""
    words: list[str] = []
    if view.total > len(view.hits):
        words.append(i18n.t("{count} more; --top-k shows them", count=view.total - len(view.hits)))
    asked = view.asked
    if asked.asked:
        words.append(
            i18n.t("{answered} of {asked} questions to the mesh answered", answered=asked.answered, asked=asked.asked)
        )
    words.append(f"{view.took_ms:.0f} ms")
    out.note((" · ".join(words), "dim"))


def as_json(view: DiscoverView) -> dict[str, Any]:
    """Return an answer as JSON-ready members: each agent with its score beside its own members."""
    from agentmesh.cli.commands.up import as_dict

    whole = as_dict(view)
    agents = [{**hit.pop("agent"), **hit} for hit in whole.pop("hits")]
    return {"agents": agents, **whole}


def _next(out: Output, agents: Sequence[AgentView]) -> None:
    first = next((a for a in agents if a.status == "healthy"), None)
    if first is not None:
        out.next(f'agentmesh run --to {first.name} "…"')


def show_agents(out: Output, agents: Sequence[AgentView]) -> None:
    """Print agents as a table; low trust and bad health are shown as such."""
    out.table(["NAME", "SKILL", "TRUST", "WHERE", "PATH", "STATUS"], [_row(agent) for agent in agents])


def _row(agent: AgentView) -> list[Styled]:
    skills = [skill.id for skill in agent.skills]
    shown = ",".join(skills[:_SKILLS_SHOWN]) + (
        f",+{len(skills) - _SKILLS_SHOWN}" if len(skills) > _SKILLS_SHOWN else ""
    )
    here = agent.trust == "own" or agent.path == "local"
    state = agent.status + (f": {clip(agent.detail, 60)}" if agent.detail and agent.status != "healthy" else "")
    return [
        (agent.name, "name"),
        clip(shown, 40),
        _trust(agent),
        clip(("this node" if here else agent.node_name) or agent.node_id[-6:], 24),
        agent.path,
        (state, _STATUS_STYLE.get(agent.status, "plain")),
    ]


def _trust(agent: AgentView) -> Styled:
    """Return who vouches for the manifest, and for agents of others what this node thinks of their conduct, if it met them."""
    vouched = TRUST.get(agent.trust, agent.trust)
    if agent.trust_tier in ("own", "unknown") or isinstance(vouched, str):
        return vouched
    text, style = vouched
    return f"{text} {agent.trust_tier}", "warn" if agent.trust_tier == "low" else style


def build() -> Any:
    """Return the command."""
    return single(discover)
