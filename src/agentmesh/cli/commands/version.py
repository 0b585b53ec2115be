"""``agentmesh version``: versions of AgentMesh, Python and the parts a bug report needs."""

from __future__ import annotations

from typing import Any

from agentmesh.cli.output import Output
from agentmesh.cli.verb import single

PARTS = ("iroh", "msgspec", "starlette", "uvicorn", "a2a-sdk", "mcp")


def version(out: Output) -> None:
    """Show versions.

    \b
    agentmesh version
    agentmesh version --json
    """
    found = versions()
    if out.json:
        out.data(found)
        return
    out.line(f"agentmesh {found['version']}")
    if out.verbose:
        for name, shown in found.items():
            if name != "version":
                out.line(f"  {name} {shown or '-'}")


def versions() -> dict[str, str | None]:
    """Return version, Python, platform and the installed version of each part; None where it is not installed."""
    import importlib.metadata
    import platform

    from agentmesh import __version__

    out: dict[str, str | None] = {
        "version": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
    }
    for part in PARTS:
        try:
            out[part] = importlib.metadata.version(part)
        except importlib.metadata.PackageNotFoundError:
            out[part] = None
    return out


def build() -> Any:
    """Return the command."""
    return single(version)
