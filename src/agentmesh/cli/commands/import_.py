"""``agentmesh import URL``: bring in the agents of an agent card, an AI Catalog or an MCP registry."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output, clip, printable
from agentmesh.cli.verb import single
from agentmesh.errors import EXIT_NOT_FOUND, UsageError

KINDS = ("auto", "a2a", "catalog", "mcp-registry")


def import_(
    out: Output,
    url: Annotated[str, typer.Argument(help="A document, or a site that has one at its well-known place.")],
    kind: Annotated[str, typer.Option("--kind", help="What is there: auto, a2a, catalog or mcp-registry.")] = "auto",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be brought in.")] = False,
) -> int | None:
    """Bring in the agents of an agent card, an AI Catalog or an MCP registry.

    \b
    agentmesh import https://agents.example.org
    agentmesh import https://agents.example.org/.well-known/ai-catalog.json --dry-run
    agentmesh import https://registry.example.org --kind mcp-registry

    Each is asked whether it is there, and registered as by 'agentmesh register'. Links never lead further into your network
    than the document itself is.
    """
    from agentmesh.cli.commands.discover import show_agents
    from agentmesh.cli.connect import connect

    if kind not in KINDS:
        raise UsageError(f"unknown kind {kind[:40]!r}", hint=f"--kind {' | '.join(KINDS)}")
    with connect(out) as mesh:
        found = mesh.import_agents(url, kind, dry_run=dry_run)
    code = None if found.agents or found.found else EXIT_NOT_FOUND
    if out.json:
        out.data(found)
        return code
    if found.agents:
        show_agents(out, found.agents)
    for line in found.found:
        out.line(printable(line))
    if not found.agents:
        out.note(i18n.t("nothing was registered"))
    if found.refused:
        out.note(("! ", "warn"), i18n.t("{count} could not be brought in", count=len(found.refused)))
        rows = [[clip(printable(r.key), 40), r.code, clip(printable(r.reason), 100)] for r in found.refused]
        out.table(["ENTRY", "CODE", "WHY"], rows)
    return code


def build() -> Any:
    """Return the command."""
    return single(import_)
