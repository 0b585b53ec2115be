"""Where this node's mesh ends: to whom nodes belong, and which of them are of another mesh (docs/spec/federation.md §6).

A node is abroad if federation brought it and our own mesh does not know it, or if the organisation that vouches for it is a
partner's and not ours. Links with such nodes carry calls only, and their datagrams are dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from agentmesh.errors import MeshError
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import NodeId
from agentmesh.node.organisations import Organisations


class Partners(Protocol):
    """Who federates with this node (``node.federation``)."""

    def is_partner(self, organisation: str, node: str, /) -> bool:
        """Say whether an organisation or a single node is a partner, or a seed's."""
        ...

    def addresses_of(self, node: NodeId, /) -> tuple[str, ...]:
        """Return where a node may be reached that federation told of; () for others."""
        ...


class NoPartners:
    """A node that federates with nobody."""

    def is_partner(self, organisation: str, node: str, /) -> bool:
        """Return False."""
        return False

    def addresses_of(self, node: NodeId, /) -> tuple[str, ...]:
        """Return ()."""
        return ()


class Border:
    """Tell nodes apart.

    Args:
        organisations: Says to whom nodes belong.
        is_ours: Whether the mesh itself knows a node.
        on_forged: Called with (node, code, detail) when a node shows a voucher that is forged.
    """

    def __init__(
        self,
        organisations: Organisations,
        is_ours: Callable[[NodeId], bool],
        on_forged: Callable[[NodeId, str, str], None],
    ) -> None:
        self._organisations, self._is_ours, self._on_forged = organisations, is_ours, on_forged
        self.partners: Partners = NoPartners()

    def shown(self) -> str:
        """Return the voucher to greet with; "" if this node has none."""
        return self._organisations.shown

    def greeted(self, node: NodeId, voucher: str) -> None:
        """Take the voucher that a node showed; a forged one is held against it, and it belongs to nobody."""
        try:
            self._organisations.greeted(node, voucher)
        except MeshError as error:
            self._on_forged(node, error.code, f"a voucher that does not hold: {error.detail}")

    def addresses_of(self, node: NodeId) -> tuple[str, ...]:
        """Return where a node of another mesh may be reached."""
        return self.partners.addresses_of(node)

    def is_abroad(self, node: NodeId, voucher: str = "") -> bool:
        """Say whether a node is of another mesh."""
        if node == self._organisations.node_id:
            return False  # whoever tells of this node's own agents, and they may come back from a partner
        organisation = self._organisations.of_node(node)
        ours = organisation and organisation == self._organisations.own
        if not ours and self.partners.is_partner(organisation, node):
            return True
        return bool(self.partners.addresses_of(node)) and not self._is_ours(node)


def check_claim(
    organisations: Organisations, manifest: Manifest, via: str, on_forged: Callable[[NodeId, str, str], None]
) -> None:
    """Look at the organisation that a manifest claims; a forged claim is held against its node, if that brought it itself.

    Anybody can sign a manifest that names any node, so what others bring about a node is nothing that it has done.
    """
    try:
        organisations.look(manifest)
    except MeshError as error:
        if via == manifest.node_id and error.code.startswith("signature."):
            on_forged(manifest.node_id, error.code, f"agent {manifest.name!r} shows a forged organisation")
