"""The agents that this node shows and calls: those of its mesh, and beside them those that partners federate with it.

An agent of the mesh hides federated ones of its name, so that nobody from outside can take over what a name means here; those
stay within reach by id. Whoever is revoked, itself or by its organisation, is in no list; who asks for it by name or id finds it,
and hears why it may not be called. ``node.resolve.Directory``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from agentmesh.errors import MeshError
from agentmesh.node.resolve import Directory
from agentmesh.node.views import LeasedEntry


class Abroad(Protocol):
    """The federated agents (``node.federation.imports``)."""

    def entries(self) -> Sequence[LeasedEntry]:
        """Return every federated agent that may be shown."""
        ...

    def entry(self, agent_id: str) -> LeasedEntry | None:
        """Return the federated agent of that id."""
        ...

    def by_name(self, name: str) -> Sequence[LeasedEntry]:
        """Return the federated agents of exactly that name, all of one partner."""
        ...


class Nothing:
    """A node without partners."""

    def entries(self) -> Sequence[LeasedEntry]:
        """Return []."""
        return []

    def entry(self, agent_id: str) -> LeasedEntry | None:
        """Return None."""
        return None

    def by_name(self, name: str) -> Sequence[LeasedEntry]:
        """Return []."""
        return []


class Sights:
    """See both.

    Args:
        mesh: The directory of the mesh.
        refusal_of: Why an id may do nothing here; None if it may.
        any_revoked: Whether that can be at all; asked first, since looking at each agent costs.
    """

    def __init__(
        self, mesh: Directory, refusal_of: Callable[[str], MeshError | None], any_revoked: Callable[[], bool]
    ) -> None:
        self._mesh, self._refusal_of, self._any_revoked = mesh, refusal_of, any_revoked
        self.abroad: Abroad = Nothing()

    def entries(self) -> Sequence[LeasedEntry]:
        """Return every agent that is not revoked: those of the mesh first."""
        mesh: list[LeasedEntry] = list(self._mesh.entries())  # pyright: ignore[reportAssignmentType] the brain's entries are
        others = [e for e in self.abroad.entries() if self._mesh.entry(e.manifest.agent_id) is None]
        return self._seen([*mesh, *others])

    def entry(self, agent_id: str) -> LeasedEntry | None:
        """Return the agent of that id."""
        entry: LeasedEntry | None = self._mesh.entry(agent_id)  # pyright: ignore[reportAssignmentType]
        if entry is None:
            entry = self.abroad.entry(agent_id)
        return entry

    def by_name(self, name: str) -> Sequence[LeasedEntry]:
        """Return the agents of exactly that name: of the mesh, or of one partner if the mesh has none."""
        mesh: list[LeasedEntry] = list(self._mesh.by_name(name))  # pyright: ignore[reportAssignmentType]
        return mesh or list(self.abroad.by_name(name))

    def _seen(self, entries: list[LeasedEntry]) -> list[LeasedEntry]:
        if not self._any_revoked():
            return entries
        refused = self._refusal_of
        return [e for e in entries if refused(e.manifest.agent_id) is None and refused(e.manifest.node_id) is None]
