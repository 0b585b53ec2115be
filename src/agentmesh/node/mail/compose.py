"""The mail of one node, put together from its parts (``node.Node``)."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

from agentmesh.errors import MeshError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId, did_of
from agentmesh.node.killswitch import KillSwitch
from agentmesh.node.mail.broadcasts import EVERYBODY, Broadcasts
from agentmesh.node.mail.groups import SCOPE, Groups
from agentmesh.node.mail.host import MailDesk
from agentmesh.node.mail.mailroom import Mailroom
from agentmesh.node.mail.rings import Rings
from agentmesh.node.mesh import Mesh
from agentmesh.node.registry import Registry
from agentmesh.node.sights import Sights

#: The store, in the node's home.
MAIL_FILE = "mail.sqlite"
GROUPS_FILE = "groups.sqlite"


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
            return NodeId(entry.manifest.node_id)
        return NodeId(did) if is_node(NodeId(did)) else None

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
        on_misbehaved=mesh.note_misbehaviour,
    )
    desk = MailDesk(key, room, registry, sights, name_of_node=name_of, look_for=look_for, is_node=is_node)
    rings = Rings(home / GROUPS_FILE, key.did, lambda public: registry.get(did_of(public)) is not None, os.urandom)
    desk.members = groups = Groups(desk, key, key_of, rings)
    desk.many[SCOPE] = groups.send
    desk.many[EVERYBODY] = Broadcasts(desk, sights).send
    return desk
