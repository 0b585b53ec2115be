"""From an error to what a person sees: three lines on stderr (or one JSON object with ``--json``) and an exit code.

The codes are those of ``errors.ERROR_TABLE``; ``MEANINGS`` is what ``agentmesh cheat`` and docs/reference/cli.md print.
"""

from __future__ import annotations

from agentmesh import errors
from agentmesh.errors import MeshError, UsageError, row_of

#: Every exit code with its meaning; published and frozen.
MEANINGS: tuple[tuple[int, str], ...] = (
    (errors.EXIT_OK, "done"),
    (errors.EXIT_BUG, "a fault here: a bug, a full or damaged store, or a peer that broke the protocol"),
    (errors.EXIT_USAGE, "wrong usage, setting or moment"),
    (errors.EXIT_AUTH, "not trusted or not authorised"),
    (errors.EXIT_UNREACHABLE, "daemon or peer cannot be reached"),
    (errors.EXIT_AGENT_FAILED, "the called agent failed or was canceled"),
    (errors.EXIT_NOT_FOUND, "no such agent, run or record"),
    (errors.EXIT_TIMEOUT, "no answer in time"),
    (errors.EXIT_REFUSED, "refused by budget, rate or kill switch"),
    (errors.EXIT_WAITING, "waiting for approval"),
    (errors.EXIT_INTERRUPTED, "interrupted with Ctrl-C"),
)


def exit_code(error: MeshError) -> int:
    """Return the exit code of an error. A wish for input is not a failure of the agent."""
    return row_of(error).exit


def from_click(error: Exception) -> MeshError | None:
    """Turn an error of the argument parser into ours; None if it is none of the parser's.

    The parser's classes are private to Typer, so they are told by what they can do.
    """
    message = getattr(error, "format_message", None)
    if message is None or not isinstance(getattr(error, "exit_code", None), int):
        return None
    context = getattr(error, "ctx", None)
    path = str(getattr(context, "command_path", "") or "agentmesh")
    near = list(getattr(error, "possibilities", None) or [])
    detail = str(message()).replace("\n", " ").strip().rstrip(".")
    return UsageError(
        detail[:1].lower() + detail[1:], hint=f"{path} --help", extra={"did_you_mean": near} if near else {}
    )


def bug(error: BaseException) -> MeshError:
    """Wrap an unexpected exception, so that it is reported like every other error."""
    return MeshError(
        f"unexpected {type(error).__name__}: {error}"[:1000],
        code="bug",
        why="this is a fault in AgentMesh, not in what you did",
        hint="agentmesh doctor --json   and the same command with -vv, for a bug report",
    )
