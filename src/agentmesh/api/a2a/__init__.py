"""A2A at the edge: every agent of the mesh as an A2A 1.0 endpoint of the node beside the client.

    edge.py      routes, size caps, leniency, errors; loads the rest at the first A2A request
    cards.py     the agent card as this node serves it
    requests.py  the a2a-sdk request handler: send, stream, get, list, cancel, subscribe
    executor.py  runs one call through the node and folds its events into the A2A task
    tasks.py     the A2A tasks of this node: bounded, followable, listable
    parts.py     A2A parts and metadata between JSON and protobuf

Only ``edge`` and ``cards`` are loaded with the daemon. The others import a2a-sdk, which costs tens of megabytes; the idle
daemon must not pay for them (architecture §2).
"""

from __future__ import annotations

from agentmesh.api.a2a.edge import A2AEdge, a2a_routes

__all__ = ["A2AEdge", "a2a_routes"]
