"""``agentmesh mcp serve``: the mesh as MCP tools for any MCP client, over stdio, in a process of its own.

The process is thin: it holds no state of the mesh and talks to the daemon through ``sdk.client.Mesh``. Standard output
belongs to the protocol; logs go to standard error. The ``mcp`` package is an extra and is imported only here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from importlib.util import find_spec

import msgspec

from agentmesh.errors import EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, UsageError
from agentmesh.sdk import context
from agentmesh.sdk.context import CallContext

#: Set by whoever starts an agent framework to serve a call: the call as JSON, so that what the framework's MCP tools do
#: belongs to the same run and loops are seen.
CONTEXT_VARIABLE = "AGENTMESH_CALL_CONTEXT"
_CONTEXT_BYTES_MAX = 64 * 1024


def main() -> int:
    """Serve until standard input closes.

    Returns:
        The exit code: 2 when the ``mcp`` package is missing or the call context makes no sense.
    """
    if find_spec("mcp") is None:
        sys.stderr.write(
            "error: the mcp package is not installed (mcp.missing)\n"
            "why: AgentMesh was installed without its extra 'mcp'\n"
            "next: pip install 'agentmeshd[mcp]'\n"
        )
        return EXIT_USAGE
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    try:
        context.enter(read_context(os.environ.get(CONTEXT_VARIABLE, "")))
    except UsageError as error:
        sys.stderr.write(f"error: {error.detail} ({error.code})\nnext: unset {CONTEXT_VARIABLE}\n")
        return EXIT_USAGE
    from agentmesh.adapters.mcp_tools import serve

    try:
        asyncio.run(serve())
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return EXIT_OK


def read_context(text: str) -> CallContext | None:
    """Return the call that this process serves, or None for an empty text.

    Raises:
        UsageError: it is no call context.
    """
    if not text:
        return None
    if len(text) > _CONTEXT_BYTES_MAX:
        raise UsageError(f"{CONTEXT_VARIABLE} is larger than {_CONTEXT_BYTES_MAX} bytes", code="mcp.context")
    try:
        return msgspec.json.decode(text, type=CallContext)
    except (msgspec.DecodeError, RecursionError) as error:
        raise UsageError(f"{CONTEXT_VARIABLE} is no call context: {error}", code="mcp.context") from error


if __name__ == "__main__":
    raise SystemExit(main())
