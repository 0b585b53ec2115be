"""The shapes of bridges to other registries, and of imports, in the HTTP API (see ``views``, whose rules hold here too)."""

from __future__ import annotations

from typing import Literal

import msgspec

from agentmesh.wire.views import AgentView

BridgeState = Literal["off", "connecting", "up", "down"]


class RefusedEntry(msgspec.Struct, kw_only=True):
    """What was not taken in.

    Attributes:
        key: Which entry.
        code: As in ``MeshError``.
        reason: For people.
    """

    key: str
    code: str
    reason: str


class BridgeView(msgspec.Struct, kw_only=True):
    """One bridge.

    Attributes:
        name: Its URL without the query; what ``bridge remove`` takes.
        url: Its URL as it was given.
        kind: "etcd" or "consul".
        way: "in", "out" or "both".
        incoming, outgoing: How either way is; "off" if nothing crosses that way.
        since: Unix seconds since when the later of both is so.
        error: Why it is down, "" if it is not.
        taken: Entries whose agents are registered here.
        waiting: Entries that are about to be.
        left_out: Entries beyond the bridge's ``max``.
        mesh: Entries that a node of a mesh wrote; they are never taken in.
        refused: Entries that were not taken in.
        refusals: The first hundred of these, with the reason.
        posted: Names of the agents beside this node that stand there.
    """

    name: str
    url: str
    kind: str
    way: str
    incoming: BridgeState = "off"
    outgoing: BridgeState = "off"
    since: float = 0.0
    error: str = ""
    taken: int = 0
    waiting: int = 0
    left_out: int = 0
    mesh: int = 0
    refused: int = 0
    refusals: list[RefusedEntry] = []
    posted: list[str] = []


class BridgeList(msgspec.Struct, kw_only=True):
    """``GET /api/v1/bridges``: every bridge of this node, in the order in which they were added."""

    bridges: list[BridgeView]


class BridgeRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/bridges`` and ``DELETE /api/v1/bridges``.

    Attributes:
        url: ``etcd://host:port/prefix`` or ``consul://host:port/``, with its options as query.
    """

    url: str


class BridgeChange(msgspec.Struct, kw_only=True):
    """What adding or removing a bridge did.

    Attributes:
        bridge: The bridge, as it is now or was last.
        kept: Whether config.toml says so too; False if the environment or a flag decides, and a restart undoes it.
    """

    bridge: BridgeView
    kept: bool = True


class ImportRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/import``.

    Attributes:
        url: Of an agent card, an AI Catalog or an MCP registry.
        kind: Which of these; "auto" looks.
        dry_run: Look only, register nothing.
    """

    url: str
    kind: Literal["auto", "a2a", "catalog", "mcp-registry"] = "auto"
    dry_run: bool = False


class ImportView(msgspec.Struct, kw_only=True):
    """What an import found.

    Attributes:
        kind: What the URL held.
        agents: Registered here.
        found: Names that would be registered, of a dry run.
        refused: What was not, and why; at most a thousand.
    """

    kind: str
    agents: list[AgentView] = []
    found: list[str] = []
    refused: list[RefusedEntry] = []
