"""From a name to the replicas that may be called, best first. Pure choice, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from agentmesh.errors import AgentNotFound, NoRoute
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import short


class Entry(Protocol):
    """A directory entry as the brain shows it."""

    @property
    def manifest(self) -> Manifest:
        """The verified manifest."""
        ...

    @property
    def healthy(self) -> bool | None:
        """The owner's last check; None before the first."""
        ...

    @property
    def local(self) -> bool:
        """True if the agent lives behind this node."""
        ...


class Directory(Protocol):
    """The directory as the brain shows it."""

    def entries(self) -> Sequence[Entry]:
        """Return every living agent."""
        ...

    def entry(self, agent_id: str) -> Entry | None:
        """Return the living agent of that id."""
        ...

    def by_name(self, name: str) -> Sequence[Entry]:
        """Return the living agents of exactly that name."""
        ...


class Candidate(NamedTuple):
    """One replica to try."""

    entry: Entry
    connected: bool


def matches_node(entry: Entry, node: str, node_name: Callable[[str], str]) -> bool:
    """Say whether ``node`` (name, did:key, short id or a prefix of at least 4 characters) names the entry's node."""
    node_id = entry.manifest.node_id
    if node == node_id or node.casefold() == node_name(node_id).casefold() or node == short(node_id):
        return True
    body = node_id.removeprefix("did:key:z6Mk")
    wanted = node.removeprefix("did:key:").removeprefix("z6Mk")
    return len(wanted) >= 4 and body.startswith(wanted)


def find(ref: str, directory: Directory, node_name: Callable[[str], str]) -> list[Entry]:
    """Return every entry that a reference names: an agent id, a name, or ``name@node``.

    A name is looked up as it is written; only when nobody bears it so are letter cases ignored.

    Raises:
        AgentNotFound: nothing matches; carries near names.
    """
    found: list[Entry]
    if ref.startswith("did:"):
        entry = directory.entry(ref)
        found = [entry] if entry is not None else []
    else:
        name, _, node = ref.partition("@")
        found = list(directory.by_name(name))
        if not found:
            found = [e for e in directory.entries() if e.manifest.name.casefold() == name.casefold()]
        if node:
            found = [e for e in found if matches_node(e, node, node_name)]
    if not found:
        raise AgentNotFound.near(ref, (e.manifest.name for e in directory.entries()))
    return found


def pick_order(
    found: list[Entry],
    *,
    is_connected: Callable[[str], bool],
    load_of: Callable[[str], tuple[int, float]],
) -> list[Candidate]:
    """Order replicas for one call: own before signed before unsigned, connected before not, then least load.

    An agent of one's own always comes before a stranger that uses the same name, and an unsigned one is only ever used
    when no signed one carries the name.

    Args:
        found: Replicas of one name, in any order.
        is_connected: Whether a link to a node id is up.
        load_of: (calls running, second criterion: the smaller the better) of a replica, by agent id.

    Raises:
        NoRoute: every replica is unhealthy (code "agent.unhealthy").
    """
    healthy = [e for e in found if e.healthy is not False]
    if not healthy:
        name = found[0].manifest.name
        raise NoRoute(
            f"agent {name!r} is registered but does not answer its health check",
            code="agent.unhealthy",
            why="every replica of that name is unhealthy",
            hint=f"agentmesh show {name}   tells why; start the agent again",
        )
    if any(e.manifest.signed for e in healthy):
        healthy = [e for e in healthy if e.manifest.signed or e.local]

    def key(candidate: Candidate) -> tuple[bool, bool, bool, int, float, str]:
        entry = candidate.entry
        load, second = load_of(entry.manifest.agent_id)
        return (
            not entry.local,
            not entry.manifest.signed,
            not candidate.connected,
            load,
            second,
            entry.manifest.agent_id,
        )

    return sorted((Candidate(e, e.local or is_connected(e.manifest.node_id)) for e in healthy), key=key)
