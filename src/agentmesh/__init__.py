"""AgentMesh: a decentralised mesh in which LLM agents find, prove, call and trace each other.

Floors (imports go down only; ``tests/test_floors.py`` holds the wall):

    8  cli        7  daemon      6  api, adapters      5  node, sdk
    4  net, store, engines, obs, sim, embed            3  wire
    2  core       1  codec, identity                   0  errors, ids

The public names below load on first use, so that ``agentmesh --version`` never pays for a network stack.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from agentmesh.errors import MeshError
    from agentmesh.sdk.agent import Agent, Context, agent, run
    from agentmesh.sdk.client import Mesh
    from agentmesh.sdk.messaging import Message
    from agentmesh.sdk.network import AgentMessage, AgentNetwork, DistributedState
    from agentmesh.sdk.sync import SyncMesh
    from agentmesh.sdk.topics import Event
    from agentmesh.wire.event import EventV1
    from agentmesh.wire.net_views import PeerView
    from agentmesh.wire.views import AgentView, Reply, StatusView, TraceView

_HOMES = {
    "Agent": "agentmesh.sdk.agent",
    "AgentMessage": "agentmesh.sdk.network",
    "AgentNetwork": "agentmesh.sdk.network",
    "AgentView": "agentmesh.wire.views",
    "Context": "agentmesh.sdk.agent",
    "DistributedState": "agentmesh.sdk.network",
    "Event": "agentmesh.sdk.topics",
    "EventV1": "agentmesh.wire.event",
    "Mesh": "agentmesh.sdk.client",
    "MeshError": "agentmesh.errors",
    "Message": "agentmesh.sdk.messaging",
    "PeerView": "agentmesh.wire.net_views",
    "Reply": "agentmesh.wire.views",
    "StatusView": "agentmesh.wire.views",
    "SyncMesh": "agentmesh.sdk.sync",
    "TraceView": "agentmesh.wire.views",
    "agent": "agentmesh.sdk.agent",
    "run": "agentmesh.sdk.agent",
}

__all__ = [
    "Agent",
    "AgentMessage",
    "AgentNetwork",
    "AgentView",
    "Context",
    "DistributedState",
    "Event",
    "EventV1",
    "Mesh",
    "MeshError",
    "Message",
    "PeerView",
    "Reply",
    "StatusView",
    "SyncMesh",
    "TraceView",
    "__version__",
    "agent",
    "run",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its room on first use (PEP 562)."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'agentmesh' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
