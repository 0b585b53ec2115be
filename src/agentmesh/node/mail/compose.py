"""The mail of one node, put together from its parts (``node.Node``)."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from agentmesh.errors import MeshError
from agentmesh.identity.agreement import Agreement
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId, dht_key, did_of, public_key_of
from agentmesh.node.killswitch import KillSwitch
from agentmesh.node.mail.acquaintances import Acquaintances, agreement_in
from agentmesh.node.mail.broadcasts import EVERYBODY, Broadcasts
from agentmesh.node.mail.groups import SCOPE, Groups
from agentmesh.node.mail.host import MailDesk
from agentmesh.node.mail.mailroom import Mailroom
from agentmesh.node.mail.rings import Rings
from agentmesh.node.mesh import Mesh
from agentmesh.node.registry import Registry
from agentmesh.node.sights import Sights

#: Nodes near an agent's key that are asked to carry its mail, until enough of them do.
NEAR_MAX = 8
#: The store, in the node's home.
MAIL_FILE = "mail.sqlite"
GROUPS_FILE = "groups.sqlite"
ACQUAINTANCES_FILE = "acquaintances.sqlite"


def mail_at(
    home: Path,
    key: KeyPair,
    mesh: Mesh,
    registry: Registry,
    sights: Sights,
    switch: KillSwitch,
    *,
    refusal_of: Callable[[str], MeshError | None],
    any_refused: Callable[[], bool],
    is_abroad: Callable[[str], bool],
    name_of: Callable[[str], str],
    look_for: Callable[[str], Awaitable[None]],
) -> MailDesk:
    """Return the mail of a node. Nothing is opened, loaded or begun before the first message.

    Args:
        home: Home of the node.
        key: Its key.
        mesh, registry, sights, switch: Its parts.
        refusal_of: Why a node or agent may do nothing here.
        any_refused: Whether that can be at all.
        is_abroad: Whether a node is of another mesh.
        name_of: Name of a node for people.
        look_for: Looks in the mesh for an agent that the directory does not hold.
    """
    own = NodeId(key.did)
    acquaintances = Acquaintances(home / ACQUAINTANCES_FILE)

    def key_of(public: bytes) -> KeyPair | None:
        if public == key.public:
            return key
        agent = registry.get(did_of(public))
        return None if agent is None else agent.key

    def is_node(node: NodeId) -> bool:
        return bool(mesh.contact_of(node).addresses) or mesh.links.is_connected(node)

    def place_of(public: bytes) -> NodeId | None:
        did = did_of(public)
        if did == own or registry.get(did) is not None:
            return own
        entry = sights.entry(did)
        if entry is not None:
            acquaintances.note(public, entry.manifest)
            return NodeId(entry.manifest.node_id)
        return NodeId(did) if is_node(NodeId(did)) else acquaintances.place(public)

    def agreement_of(public: bytes) -> Agreement | None:
        entry = sights.entry(did_of(public))
        return acquaintances.agreement(public) if entry is None else agreement_in(entry.manifest)

    def near(public: bytes) -> list[NodeId]:
        """Return the nodes that keep what concerns an agent: both ends must come to the same ones."""
        place = int.from_bytes(dht_key(public), "big")
        known = {peer.link.peer: None for peer in mesh.links.peers()}
        for contact in mesh.brain.dht.roster.table.nearest(place, NEAR_MAX):
            known[contact.place.node] = None
        return sorted(known, key=lambda node: int.from_bytes(dht_key(public_key_of(node)), "big") ^ place)[:NEAR_MAX]

    room = Mailroom(
        key,
        mesh.links,
        home / MAIL_FILE,
        contact_of=mesh.contact_of,
        key_of=key_of,
        place_of=place_of,
        refusal_of=refusal_of,
        any_refused=any_refused,
        refuse=switch.refuse,
        is_abroad=is_abroad,
        agreement_of=agreement_of,
        agreement_keys=lambda public: registry.agreement_keys(did_of(public)),
        near=near,
        on_misbehaved=mesh.note_misbehaviour,
    )
    desk = MailDesk(
        key, room, registry, sights, name_of_node=name_of, look_for=look_for, is_node=is_node, away=acquaintances
    )
    rings = Rings(home / GROUPS_FILE, key.did, lambda public: registry.get(did_of(public)) is not None, os.urandom)
    desk.members = groups = Groups(desk, key, key_of, rings)
    desk.many[SCOPE] = groups.send
    desk.many[EVERYBODY] = Broadcasts(desk, sights).send
    return desk
