"""The command tree as a table: one row per verb. A verb's module loads only when the verb is called or its help is asked for.

The overview of ``agentmesh --help`` and shell completion of verbs come from the table alone.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from typing import Any, NamedTuple

import typer
import typer.core

from agentmesh.cli import i18n
from agentmesh.cli.verb import built, group, new_app
from agentmesh.errors import UsageError


class VerbRow(NamedTuple):
    """One verb: its name, where it is in the overview, what it does, and the module that has ``build()``."""

    name: str
    panel: str
    help: str
    module: str = ""


_NODE, _AGENTS, _CALLS, _TOGETHER, _HELP = "This node", "Agents", "Calls", "Messages and shared state", "Help"

VERBS: tuple[VerbRow, ...] = (
    VerbRow("up", _NODE, "Start this machine's node in the background; nothing happens if it runs."),
    VerbRow("serve", _NODE, "Run this machine's node in the foreground, with settings as flags.", "daemon_start"),
    VerbRow("down", _NODE, "Stop it."),
    VerbRow("status", _NODE, "Show whether it runs, where, and what it knows."),
    VerbRow("peers", _NODE, "List the other nodes; 'peers add SEED' connects to one."),
    VerbRow("net", _NODE, "Show the shape of the mesh: clustering, paths, degrees, zones."),
    VerbRow("topology", _NODE, "Show machines, agents and who called whom; --stats for figures."),
    VerbRow("logs", _NODE, "Show the daemon's log."),
    VerbRow("identity", _NODE, "Certify, rotate and revoke node keys under a root key."),
    VerbRow("config", _NODE, "Show, explain and change settings."),
    VerbRow("models", _NODE, "Local models for search by meaning: list, install, remove."),
    VerbRow("keys", _NODE, "API keys for programs: make, list, revoke."),
    VerbRow("console", _NODE, "Open the web console in the browser, logged in."),
    VerbRow("killswitch", _NODE, "Stop every node that obeys this operator, and let them go on."),
    VerbRow("operator", _NODE, "Make and show the key whose orders nodes obey; publish lists and revoke keys with it."),
    VerbRow("federation", _NODE, "Show the seeds that this node pulls from and the partners that see its agents."),
    VerbRow("org", _NODE, "Organisations: make their keys, vouch for nodes and agents, join, revoke."),
    VerbRow("tenants", _NODE, "Tenants: who else lives on this node."),
    VerbRow("discover", _AGENTS, "List the agents of the mesh, or those that match a question."),
    VerbRow("show", _AGENTS, "Show one agent: card, skills, replicas."),
    VerbRow("trust", _AGENTS, "Show how far this node trusts agents and nodes; report abuse."),
    VerbRow("register", _AGENTS, "Bring an agent that already runs into the mesh."),
    VerbRow("deregister", _AGENTS, "Take an agent out of the mesh."),
    VerbRow("import", _AGENTS, "Bring in the agents of an agent card, an AI Catalog or an MCP registry.", "import_"),
    VerbRow("bridge", _AGENTS, "Join this node to etcd or Consul: agents there come here, those here go there."),
    VerbRow("dev", _AGENTS, "Serve the agents of a Python file and reload it on change."),
    VerbRow("mcp", _AGENTS, "Serve the mesh to an MCP client."),
    VerbRow("run", _CALLS, "Call an agent and stream its answer."),
    VerbRow("trace", _CALLS, "Show what happened in a run, on every node."),
    VerbRow("receipt", _CALLS, "Show and verify what callees signed of a call."),
    VerbRow("audit", _CALLS, "Show, verify, export and prove what this node wrote down."),
    VerbRow("policy", _CALLS, "Show, explain and check who may call what."),
    VerbRow("grant", _CALLS, "Let an agent act in your name, within bounds."),
    VerbRow("send", _TOGETHER, "Send a message; it is kept until it is delivered."),
    VerbRow("inbox", _TOGETHER, "Read what came for an agent here; --dead for what was given up."),
    VerbRow("group", _TOGETHER, "Groups of agents: who gets a message together."),
    VerbRow("pub", _TOGETHER, "Publish to all who follow a subject."),
    VerbRow("sub", _TOGETHER, "Follow what is published."),
    VerbRow("topic", _TOGETHER, "Durable topics: make, list, remove; who may use which."),
    VerbRow("state", _TOGETHER, "Read and change state that agents share."),
    VerbRow("lock", _TOGETHER, "Hold a lock while a command runs: agentmesh lock NAME -- COMMAND."),
    VerbRow("demo", _HELP, "Try it: two nodes and three toy agents on this machine, no API key."),
    VerbRow("doctor", _HELP, "Check this installation; each finding names the next command."),
    VerbRow("cheat", _HELP, "Print a one-page cheat sheet."),
    VerbRow("version", _HELP, "Show versions."),
)

DAEMON_VERBS: tuple[VerbRow, ...] = (
    VerbRow("start", _NODE, "Run the node in the foreground; with -b in the background.", "daemon_start"),
    VerbRow("stop", _NODE, "Stop the node.", "down"),
    VerbRow("status", _NODE, "Show whether it runs, where, and what it knows.", "status"),
)


class LazyGroup(typer.core.TyperGroup):
    """A group whose commands are rows of a table until they are needed."""

    rows: tuple[VerbRow, ...] = VERBS

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the verbs in table order."""
        return [row.name for row in self.rows]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Load one verb's module and build its command; None if there is no such verb."""
        row = next((row for row in self.rows if row.name == cmd_name), None)
        if row is None:
            return None
        if cmd_name not in self.commands:
            module = importlib.import_module(f"agentmesh.cli.commands.{row.module or row.name}")
            command = module.build()
            command.name = cmd_name
            self.commands[cmd_name] = command
        return self.commands[cmd_name]

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb, or say which ones are near. Raises UsageError."""
        if args and args[0] not in (names := self.list_commands(ctx)) and not args[0].startswith("-"):
            near = difflib.get_close_matches(args[0][:100], names, n=3, cutoff=0.5)
            program = ctx.command_path
            raise UsageError(
                f"unknown command {args[0][:100]!r}",
                code="usage.command",
                why=i18n.t("did you mean {names}?", names=", ".join(near)) if near else None,
                hint=f"{program} {near[0]}" if near else f"{program} --help",
                extra={"did_you_mean": near},
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the overview from the table, without loading a single verb."""
        for panel in dict.fromkeys(row.panel for row in self.rows):
            with formatter.section(i18n.t(panel)):
                formatter.write_dl([(row.name, i18n.t(row.help)) for row in self.rows if row.panel == panel])


class DaemonGroup(LazyGroup):
    """The three verbs of ``agentmeshd``."""

    rows = DAEMON_VERBS


_EPILOG = "Every command takes --json, -q, -v, --home, --timeout, --yes, --lang; see COMMAND --help."


def agentmesh_tree() -> Any:
    """Return the tree of ``agentmesh``."""
    return _tree(
        LazyGroup,
        """AgentMesh: agents on your machines find, prove, call and trace each other.

        \b
        agentmesh demo                       two nodes, three toy agents, no API key
        agentmesh run --to calc "1+1"        call an agent and see its answer
        """,
    )


def agentmeshd_tree() -> Any:
    """Return the tree of ``agentmeshd``."""
    return _tree(
        DaemonGroup,
        """The AgentMesh daemon, for service managers; people use 'agentmesh up'.

        \b
        agentmeshd start                     in the foreground, logs to stderr
        agentmeshd start -b --port 7000      in the background, on another port
        """,
    )


def _tree(kind: type[LazyGroup], text: str) -> Any:
    app = new_app(cls=kind, add_completion=True, context_settings={"help_option_names": ["-h", "--help"]})
    app.callback(invoke_without_command=True, help=inspect.cleandoc(text), epilog=_EPILOG)(group())
    return built(app)
