"""What the machines of the brain know of each node, gathered for people and for surveys."""

from __future__ import annotations

import os
import random
import time

from agentmesh.core.brain import Brain
from agentmesh.identity.node_record import read_node_record
from agentmesh.ids import NodeId
from agentmesh.node.killswitch import KillSwitch
from agentmesh.node.mesh import Mesh
from agentmesh.node.survey import Place, Survey
from agentmesh.node.views import Standing, zone_name


def standings(brain: Brain) -> dict[NodeId, Standing]:
    """Return how every node stands that the overlay or SWIM knows."""
    site, depth, members = brain.overlay.zone()
    long_links = dict.fromkeys(brain.overlay.long_links())
    mates = dict.fromkeys(members)
    watched = {view.node: view for view in brain.swim.members()}
    lost = dict.fromkeys(brain.contacts_machine.lost())
    found: dict[NodeId, Standing] = {}
    for node in dict.fromkeys((*watched, *mates, *long_links, *lost, *(c.node_id for c in brain.contacts()))):
        if node == brain.node_id:
            continue
        view = watched.get(node)
        record = brain.overlay.record_of(node)
        # Of other zones only the part is known that all zones as deep as ours share.
        zone = zone_name(record.site, depth, record.key) if record is not None and record.site == site else ""
        found[node] = Standing(
            record=record,
            zone=zone if node in mates else "",
            role="long" if node in long_links and node not in mates else "zone" if node in mates else "known",
            watched=view is not None,
            suspect_since_s=view.since_s if view is not None and view.state == "suspect" else None,
            dead=node in lost,
            rtt_s=view.rtt_s if view is not None else None,
        )
    return found


def site_of(brain: Brain, node: NodeId) -> str:
    """Return the site that a node says it is at; "" if it says none, or nothing is known of it."""
    record = brain.overlay.record_of(node)
    return "" if record is None else record.site


def place_of(brain: Brain) -> Place:
    """Return where this node stands: what it answers to a survey."""
    _, depth, _ = brain.overlay.zone()
    return Place(brain.record, depth, [(node, brain.addresses_of(node)) for node in brain.overlay.neighbours()])


def survey_at(mesh: Mesh, switch: KillSwitch) -> Survey:
    """Return the survey of a node: it tells where the node stands and which stops hold there, and asks others."""
    return Survey(
        mesh.node_id,
        mesh.links,
        place=lambda: place_of(mesh.brain)._replace(stops=[order.jti for order in switch.stops()]),
        read=lambda raw: read_node_record(raw, now=int(time.time())),
        on_misbehaved=mesh.note_misbehaviour,
        rng=random.Random(os.urandom(16)),  # noqa: S311 samples, not secrets
    )
