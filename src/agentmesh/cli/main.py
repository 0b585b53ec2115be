"""The two entry points: ``agentmesh`` for people and ``agentmeshd`` for service managers.

This module imports nothing but sys at its top, so that ``--version`` costs little more than Python itself; the command tree
loads when it is needed, and each command module when it is called.
"""

from __future__ import annotations

import sys


def main(argv: list[str] | None = None) -> int:
    """Run ``agentmesh`` and return the exit code."""
    args = sys.argv[1:] if argv is None else argv
    if args in (["--version"], ["-V"], ["version"]):
        return _version("agentmesh")
    from agentmesh.cli.run import run_tree
    from agentmesh.cli.tree import agentmesh_tree

    return run_tree(agentmesh_tree, "agentmesh", args)


def daemon_main(argv: list[str] | None = None) -> int:
    """Run ``agentmeshd`` and return the exit code."""
    args = sys.argv[1:] if argv is None else argv
    if args in (["--version"], ["-V"]):
        return _version("agentmeshd")
    from agentmesh.cli.run import run_tree
    from agentmesh.cli.tree import agentmeshd_tree

    return run_tree(agentmeshd_tree, "agentmeshd", args)


def _version(program: str) -> int:
    from agentmesh import __version__

    print(f"{program} {__version__}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
