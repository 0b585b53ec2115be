"""Every other node that this one knows, as people see it."""

from __future__ import annotations

from collections.abc import Callable

from agentmesh.core.brain import Brain
from agentmesh.node.links import Links
from agentmesh.node.mesh import Mesh
from agentmesh.node.standing import standings
from agentmesh.node.views import Standing, in_order, peer_view
from agentmesh.wire.net_views import PeerView


def known_peers(brain: Brain, links: Links, mesh: Mesh, name_of: Callable[[str], str]) -> list[PeerView]:
    """Return every node known: zone mates, long links, other links, then the rest."""
    agents: dict[str, int] = {}
    for entry in brain.entries():
        agents[entry.manifest.node_id] = agents.get(entry.manifest.node_id, 0) + 1
    known = {c.node_id: c.addresses for c in brain.contacts() if not c.heard}
    standing = standings(brain)
    known.update({n: brain.addresses_of(n) for n, s in standing.items() if s.watched and n not in known})
    known.update({p.link.peer: (p.link.remote_address,) for p in links.peers()})
    views = [
        peer_view(
            node,
            addresses,
            peer=links.peer(node),
            attempt=links.attempts.get(node),
            name=name_of(node),
            source=mesh.sources.get(node, "peer"),
            agents=agents.get(node, 0),
            standing=standing.get(node, Standing()),
            now_s=mesh.now_s,
        )
        for node, addresses in known.items()
    ]
    return in_order(views)
