"""``agentmesh cheat``: one page with what people do most, and the exit codes."""

from __future__ import annotations

from typing import Any

from agentmesh.cli.exits import MEANINGS
from agentmesh.cli.output import Output
from agentmesh.cli.verb import single

SHEET: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "start",
        (
            ("agentmesh demo", "two nodes, three toy agents, no API key"),
            ("agentmesh up", "start this machine's node"),
            ("agentmesh status", "where it runs, its seed for other machines"),
            ("agentmesh down", "stop it"),
        ),
    ),
    (
        "connect",
        (
            ("agentmesh peers", "the other nodes; on one LAN they come by themselves"),
            ("agentmesh peers add SEED", "connect to a node by the seed its status shows"),
            ("agentmesh config set seeds SEED", "the same, kept for every start"),
            ("agentmesh net", "the shape of the mesh: zones, links, paths"),
        ),
    ),
    (
        "agents",
        (
            ("agentmesh discover", "every agent"),
            ('agentmesh discover "can do arithmetic"', "those that match"),
            ("agentmesh show NAME", "one agent: card, skills, replicas"),
            ("agentmesh register URL", "bring an A2A or HTTP agent in"),
            ("agentmesh deregister NAME", "take it out"),
            ("agentmesh dev hello.py", "serve your own functions, reload on save"),
        ),
    ),
    (
        "call",
        (
            ('agentmesh run --to NAME "text"', "call and stream the answer"),
            ("echo text | agentmesh run --to NAME -", "input from stdin"),
            ("agentmesh run --to NAME --data '{\"a\": 1}'", "structured input"),
            ("agentmesh trace last", "what happened, on every node"),
            ("agentmesh trace last -f", "while it happens"),
            ("agentmesh console run last", "the same in the browser"),
        ),
    ),
    (
        "together",
        (
            ('agentmesh send NAME "text"', "a message; it waits for whoever is away"),
            ("agentmesh inbox NAME -f", "what comes for an agent here"),
            ("agentmesh pub build.done ok", "publish to all who follow"),
            ("agentmesh sub 'build.>'", "follow"),
            ("agentmesh state set SPACE KEY VALUE", "share a value; get, increment, add, watch"),
            ("agentmesh lock NAME -- COMMAND", "one at a time"),
        ),
    ),
    (
        "trouble",
        (
            ("agentmesh doctor", "checks, each with the next command"),
            ("agentmesh logs -f", "the daemon's log"),
            ("agentmesh config explain", "every setting and where it comes from"),
        ),
    ),
)


def cheat(out: Output) -> None:
    """Print a one-page cheat sheet.

    \b
    agentmesh cheat
    """
    if out.json:
        commands = [{"command": c, "does": d, "topic": topic} for topic, rows in SHEET for c, d in rows]
        out.data({"commands": commands, "exit_codes": [{"code": c, "meaning": m} for c, m in MEANINGS]})
        return
    for topic, rows in SHEET:
        out.line((topic, "head"))
        for command, does in rows:
            out.line(f"  {command:<44}", (does, "dim"))
    out.line(("exit codes", "head"))
    for code, meaning in MEANINGS:
        out.line(f"  {code:<4}", (meaning, "dim"))


def build() -> Any:
    """Return the command."""
    return single(cheat)
