"""``agentmesh federation status``: the seeds that this node pulls from, and the partners that see its agents."""

from __future__ import annotations

from typing import Any

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, Styled, age, clip, printable
from agentmesh.cli.verb import built, group, new_app, verb

_OPTIONS = {"help_option_names": ["-h", "--help"]}
_NAMES_SHOWN = 60


def status(out: Output) -> None:
    """Show each seed with its lag, its agents and what was refused of it, and each partner with what it sees.

    \b
    agentmesh federation status
    agentmesh federation status --json
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        view = mesh.federation()
    if out.json:
        out.data(view)
        return
    out.line("organisation  ", view.organisation or "-")
    out.line("listens at    ", view.listen or "-")
    if view.problem:
        out.note((printable(view.problem), "warn"))
    if not view.seeds and not view.partners:
        out.note(i18n.t("no federation: federation.toml names nobody, and no seed is set"))
        return
    if view.seeds:
        out.line("")
        rows: list[list[Styled]] = [
            [
                seed.url,
                (i18n.t("never") if seed.lag_s is None else age(seed.lag_s), "plain" if not seed.error else "warn"),
                str(seed.entries),
                str(sum(one.count for one in seed.refused)),
                clip(printable(seed.error), 72),
            ]
            for seed in view.seeds
        ]
        out.table(["SEED", "PULLED", "AGENTS", "REFUSED", "PROBLEM"], rows)
        for seed in view.seeds:
            for one in seed.refused:
                out.line(f"  {one.count} × {one.code}  ", clip(printable(one.detail), 96))
    if view.partners:
        out.line("")
        out.table(
            ["PARTNER", "PULLED", "BEHIND", "SEES", ""],
            [
                [
                    (printable(one.name), "name"),
                    i18n.t("never") if one.pulled_s is None else age(one.pulled_s),
                    str(one.behind),
                    str(one.count),
                    clip(printable(", ".join(one.agents) or one.hint), _NAMES_SHOWN),
                ]
                for one in view.partners
            ],
        )


def build() -> Any:
    """Return the group."""
    app = new_app(context_settings=_OPTIONS)
    app.callback(
        invoke_without_command=True,
        help="Show the seeds that this node pulls from and the partners that see its agents.",
    )(group(status))
    app.command("status", context_settings=_OPTIONS)(verb(status))
    return built(app)
