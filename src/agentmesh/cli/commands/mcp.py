"""``agentmesh mcp serve``: a thin process between an MCP client (stdio) and the daemon.

Stdout belongs to the MCP protocol: nothing here may print to it.
"""

from __future__ import annotations

from typing import Any

from agentmesh.cli.output import Output
from agentmesh.cli.verb import built, group, new_app, verb
from agentmesh.errors import ConfigError


def serve(out: Output) -> int:
    """Serve discover, describe, call and trace to an MCP client over stdio.

    \b
    claude mcp add agentmesh -- agentmesh mcp serve

    The daemon need not run yet; a tool that needs it says so.
    """
    import importlib.util
    import os

    from agentmesh.cli.connect import home_of

    if importlib.util.find_spec("mcp") is None:
        raise ConfigError(
            "the mcp package is not installed",
            code="mcp.missing",
            why="AgentMesh was installed without its extra 'mcp'",
            hint="pip install 'agentmeshd[mcp]'",
        )
    os.environ["AGENTMESH_HOME"] = str(home_of(out))
    from agentmesh.adapters.mcp_server import main

    return main()


def build() -> Any:
    """Return the group."""
    app = new_app(help="Serve the mesh to an MCP client.", context_settings={"help_option_names": ["-h", "--help"]})
    app.callback(invoke_without_command=True, help="Serve the mesh to an MCP client: 'agentmesh mcp serve'.")(group())
    app.command("serve")(verb(serve, own_timeout=True))
    return built(app)
