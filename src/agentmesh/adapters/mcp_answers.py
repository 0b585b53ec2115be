"""How MCP tools answer: a line that says whose words follow, the text, and the same as fields; errors that a model can act on."""

from __future__ import annotations

import contextlib

from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, TextContent
from pydantic import BaseModel

from agentmesh.errors import MeshError

#: Longest answer put before a model, in characters.
TEXT_MAX = 100_000


class mesh_errors(contextlib.AbstractContextManager[None]):
    """Turn an error of the mesh into a tool error that a model can act on: what, why, next."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, MeshError):
            lines = [f"{error.detail} ({error.code})"]
            lines += [f"why: {error.why}"] if error.why else []
            lines += [f"next: {error.hint}"] if error.hint else []
            raise ToolError("\n".join(lines)) from error


def result(answer: BaseModel, head: str, text: str, *, failed: bool = False) -> CallToolResult:
    """Return an answer: a line about it, its text for a model, and its fields."""
    blocks = [TextContent(type="text", text=f"[{head}]")]
    if text:
        blocks.append(TextContent(type="text", text=text))
    return CallToolResult(content=[*blocks], structured_content=answer.model_dump(mode="json"), is_error=failed)
