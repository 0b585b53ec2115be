"""Write docs/reference/cli.md and configuration.md from the command tree and the settings table; ``--check`` only says if
they are fresh.
"""

from __future__ import annotations

import inspect
import sys
from pathlib import Path
from typing import Any

import typer

from agentmesh.cli.exits import MEANINGS
from agentmesh.cli.tree import DAEMON_VERBS, VERBS, VerbRow, agentmesh_tree, agentmeshd_tree
from agentmesh.cli.verb import GLOBALS
from agentmesh.daemon.knob_table import show_value, table

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"

CLI_HEAD = """\
# Command line

Written by `python tools/cli_pages.py` from the commands themselves; do not edit.

`agentmesh` is for people, `agentmeshd` for service managers. Data goes to stdout; hints, progress and errors go to stderr, so
a pipe sees only data. Off a terminal there is no colour and no progress; `NO_COLOR`, `FORCE_COLOR` and `TERM=dumb` are obeyed.

A command that needs the daemon offers to start it when a person is there to ask; a script gets `error[daemon.unreachable]` and
exit code 4. Runs and tasks are named by their id, by a unique prefix of at least four digits (`run_7f3a`), or by `last`,
`last~1` and so on. Agents are named `NAME`, `NAME@NODE` or by id.

An error is three lines: `error[CODE] what`, `why: …`, `next: COMMAND`. With `--json` it is one object on stderr:
`{"error": {"code", "message", "why", "hint", …}}`. Codes do not change between versions; see [errors](errors.md).

## Global flags

They mean the same on every command, and may stand before or after the verb.

| flag | meaning |
|---|---|
"""

CLI_SHAPES = """
## JSON shapes

Fields are only ever added.

| command | shape |
|---|---|
| `agentmesh status --json` | `node_id, node_name, pid, port, version, uptime_s, rss_bytes, peers, agents, seed, zone, …` |
| `agentmesh discover --json` | `{"agents": [{agent_id, name, node_id, skills, status, trust, path, …}]}` |
| `agentmesh run --json` | `run_id, task_id, state, text, agent_id, node_id, ms, path, …` |
| `agentmesh run --json --stream` | one event per line, then `{"reply": …}` |
| `agentmesh trace --json` | `run_id, count, digest, events, nodes, missing_nodes, complete` |
| `agentmesh trace -f --json` | one event per line |
| `agentmesh peers --json` | `{"peers": [{node_id, node_name, connected, path, rtt_ms, zone, role, state, suspect_s, …}]}` |
| `agentmesh net --json` | `nodes, edges, clustering, path_length, tail_exponent, zones, complete, map: [{node_id, …}], …` |
| `agentmesh topology --json` | `count, digest, machines: […], agents: […], edges: [{caller, callee, calls, …}], …` |
| `agentmesh demo --json` | `ok, nodes, agents, calls: [{to, input, output, ms, path, run_id}], trace: {run_id, count, digest}` |
| `agentmesh doctor --json` | `{"ok", "versions", "checks": [{check, state, text, next}]}` |
"""

CONFIG_HEAD = """\
# Settings

Written by `python tools/cli_pages.py` from `src/agentmesh/daemon/knobs.py`; do not edit.

Each value comes from the first of these that has it; `agentmesh config explain` shows which one that was:

1. a flag of `agentmeshd start`
2. the environment, `AGENTMESH_…`
3. `[profile.NAME]` in `config.toml`, when `--profile NAME` or `AGENTMESH_PROFILE` names it
4. `config.toml` in the home directory
5. the default

`agentmesh config set KEY VALUE` writes `config.toml`, with `--profile NAME` into that profile. Lists are separated by commas in
the environment and on the command line. A key that is unknown or has a wrong value is refused when the node starts, with its
line and near names. `bootstrap.json` in the home directory, `{"seeds": ["did:key:…@host:port"]}` or just the list, adds seeds
to `seeds`.

```toml
# config.toml
name = "anna"
seeds = ["did:key:z6Mk…@192.0.2.7:6374"]

[profile.cafe]
mdns = false
```
"""


def kind_of(default: Any, *, many: bool) -> str:
    """Return how a setting's type is called in the page."""
    if many:
        return "list"
    names = {bool: "on or off", int: "whole number", float: "number"}
    return names.get(type(default), "text")


def configuration() -> str:
    """Return the page about settings."""
    out = [CONFIG_HEAD]
    for row in table():
        default = "" if row.default is None else show_value(row.default)
        unit = f", {row.knob.unit}" if row.knob.unit else ""
        out.append(f"\n## `{row.key}`\n\n{row.knob.effect}\n\n")
        out.append(
            f"- {kind_of(row.default, many=row.many)}{unit}; default {f'`{default}`' if default else 'none'}: {row.knob.origin}\n"
        )
        out.append(f"- change it: {row.knob.when}\n")
        flag = f"{row.flag}` or `--no-{row.flag[2:]}" if isinstance(row.default, bool) else row.flag
        out.append(f"- flag `{flag}`, environment `{row.env}`\n")
    return "".join(out)


def cell(text: str) -> str:
    """Return a text that is safe inside a table."""
    return text.replace("|", "\\|").replace("\n", " ")


def flags_of(command: Any) -> list[tuple[str, str]]:
    """Return (name, meaning) of a command's own arguments and flags, without the global ones."""
    out: list[tuple[str, str]] = []
    for param in command.params:
        if param.name in GLOBALS or param.name in ("help", "install_completion", "show_completion"):
            continue
        if param.param_type_name == "argument":
            name = param.name.upper() + ("…" if param.nargs == -1 else "")
            name = name if param.required else f"[{name}]"
        else:
            name = ", ".join(sorted(param.opts, key=len)) + "".join(f" / {o}" for o in param.secondary_opts)
        out.append((name, param.help or ""))
    return out


def section(program: str, command: Any, level: str = "##") -> str:
    """Return one command: what it does, examples, its own flags, and the commands below it."""
    text = inspect.cleandoc(command.help or "").replace("\b\n", "\b")
    blocks = [block for block in text.split("\n\n") if block]
    out = [f"\n{level} {program}\n"]
    for block in blocks:
        if block.startswith("\b"):
            out.append("\n```text\n" + block[1:].strip("\n") + "\n```\n")
        else:
            out.append("\n" + " ".join(block.split()) + "\n")
    rows = flags_of(command)
    if rows:
        out.append("\n| argument or flag | meaning |\n|---|---|\n")
        out += [f"| `{cell(name)}` | {cell(meaning)} |\n" for name, meaning in rows]
    for name, below in getattr(command, "commands", {}).items():
        out.append(section(f"{program} {name}", below, level + "#"))
    return "".join(out)


def verbs(program: str, tree: Any, rows: tuple[VerbRow, ...]) -> str:
    """Return the sections of every verb of a program."""
    context = typer.Context(tree)
    return "".join(section(f"{program} {row.name}", tree.get_command(context, row.name)) for row in rows)


def cli() -> str:
    """Return the page about the command line."""
    tree = agentmesh_tree()
    known = {param.name: param for param in tree.params}
    out = [CLI_HEAD]
    for name in GLOBALS:
        param = known[name]
        out.append(f"| `{', '.join(sorted(param.opts, key=len))}` | {cell(param.help)} |\n")
    out.append(
        "\n`agentmesh --install-completion` sets up completion of verbs, flags, agents and runs for your shell.\n"
    )
    out.append("\n## Exit codes\n\nPublished and frozen.\n\n| code | meaning |\n|---|---|\n")
    out += [f"| {code} | {cell(meaning)} |\n" for code, meaning in MEANINGS]
    out += [CLI_SHAPES, verbs("agentmesh", tree, VERBS), verbs("agentmeshd", agentmeshd_tree(), DAEMON_VERBS)]
    return "".join(out)


PAGES = {"cli.md": cli, "configuration.md": configuration}


def main(args: list[str]) -> int:
    """Write the pages, or with ``--check`` say which are stale."""
    stale = 0
    for name, make in PAGES.items():
        path = REFERENCE / name
        text = make()
        if path.exists() and path.read_text("utf-8") == text:
            continue
        if args == ["--check"]:
            print(f"{path.relative_to(ROOT)} is stale; next: python tools/cli_pages.py")
            stale = 1
        else:
            path.write_text(text, "utf-8")
            print(f"wrote {path.relative_to(ROOT)}")
    return stale


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
