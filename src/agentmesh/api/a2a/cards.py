"""The agent card as this node serves it: the agent's own card with its addresses replaced by this node's.

Readable by A2A 1.0 clients (``supportedInterfaces``) and by 0.3 clients (``url``, ``protocolVersion``,
``preferredTransport``, ``additionalInterfaces``). Our extension stays, so that a client can read the agent's id and the
node it lives behind. The signature is dropped, since it covers the addresses; the signed original is served beside it as
``manifest.json``.
"""

from __future__ import annotations

import re
from typing import Any, cast
from urllib.parse import quote

from agentmesh.sdk.types import AgentDetail

_LOOPBACK_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::[0-9]{1,5})?", re.IGNORECASE)
#: What is true of the agent's own endpoint but not of ours: signatures, credentials, and the older spelling of addresses.
_NOT_OURS = frozenset(
    {
        "signatures",
        "securitySchemes",
        "securityRequirements",
        "security",
        "url",
        "protocolVersion",
        "preferredTransport",
        "additionalInterfaces",
        "supportedInterfaces",
        "capabilities",
        "supportsAuthenticatedExtendedCard",
    }
)


def base_url(host_header: str, port: int, ref: str) -> str:
    """Return the endpoint of an agent, without a slash at its end.

    Args:
        host_header: ``Host`` of the request; kept if it names loopback, so that a forwarded port works too.
        port: This node's HTTP port, used otherwise.
        ref: The agent as the client wrote it, so that ``name@node`` stays pinned to that node.
    """
    host = host_header if _LOOPBACK_HOST.fullmatch(host_header) else f"127.0.0.1:{port}"
    return f"http://{host}/a2a/{quote(ref, safe='@')}"


def edge_card(detail: AgentDetail, url: str) -> dict[str, Any]:
    """Return the card to serve for an agent at ``url`` (JSON-ready, a new dict)."""
    agent = detail.agent
    card: dict[str, Any] = {name: value for name, value in detail.card.items() if name not in _NOT_OURS}
    skills = [skill for skill in _objects(card.get("skills")) if skill.get("id")]
    for skill in skills:
        skill.pop("securityRequirements", None)
        skill.pop("security", None)
    extensions = _objects(_object(detail.card.get("capabilities")).get("extensions"))
    card.update(
        name=card.get("name") or agent.name,
        description=card.get("description") or agent.description or agent.name,
        version=card.get("version") or agent.version or "0",
        capabilities={
            "streaming": True,
            "pushNotifications": False,
            **({"extensions": extensions} if extensions else {}),
        },
        defaultInputModes=card.get("defaultInputModes") or ["text/plain"],
        defaultOutputModes=card.get("defaultOutputModes") or ["text/plain"],
        skills=skills
        or [{"id": "call", "name": agent.name, "description": agent.description or agent.name, "tags": ["agent"]}],
        supportedInterfaces=[
            {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
            {"url": url, "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
            {"url": url, "protocolBinding": "JSONRPC", "protocolVersion": "0.3"},
        ],
        url=url,
        protocolVersion="0.3.0",
        preferredTransport="JSONRPC",
        additionalInterfaces=[{"url": url, "transport": "JSONRPC"}, {"url": url, "transport": "HTTP+JSON"}],
    )
    return card


def _object(value: object) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    """Return copies of the objects in a list; cards of other nodes may hold anything."""
    items = cast("list[object]", value) if isinstance(value, list) else []
    return [dict(cast("dict[str, Any]", item)) for item in items if isinstance(item, dict)]
