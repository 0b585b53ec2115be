"""From a name to the replicas that may be called, best first. Pure choice, no I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from agentmesh.core.balance.balance import Replica
from agentmesh.errors import AgentNotFound, NoRoute, UsageError
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import public_key_of, short


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
    replica: Replica


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


def id_of(ref: str, directory: Directory, node_name: Callable[[str], str]) -> str:
    """Return the did:key of the one agent that a reference names; an id need not be known here.

    Raises:
        AgentNotFound: nothing matches; carries near names.
        UsageError: several agents match (code "agent.ambiguous").
        DecodeError: it is no id.
    """
    if ref.startswith("did:"):
        public_key_of(ref)
        return ref
    ids = {entry.manifest.agent_id for entry in find(ref, directory, node_name)}
    if len(ids) > 1:
        raise UsageError(
            f"{len(ids)} agents are called {ref[:80]!r}",
            code="agent.ambiguous",
            hint="name it as name@node, or by its id:   agentmesh discover",
        )
    return ids.pop()


def offered(found: list[Entry]) -> list[Entry]:
    """Return the replicas that may be called: healthy ones, and an unsigned stranger only when no signed one has the name.

    Args:
        found: Replicas of one name, in any order.

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
    return healthy


def candidate_of(entry: Entry, *, distance: int, quiet: bool, weight: int, trust: float) -> Candidate:
    """Describe a replica to the balance: an agent of one's own always comes before a stranger that uses the same name, and what
    another registry told of, here or elsewhere, comes after both: who can write there must not take over a name of the mesh.

    Args:
        entry: The replica.
        distance: How far its node is (``node.routes``).
        quiet: Whether its node let a call go unanswered a moment ago.
        weight: Its share of calls.
        trust: 0 … 1; whatever else is said of a stranger counts as 0.
    """
    manifest = entry.manifest
    kind = 2 if "origin" in manifest.params or not (entry.local or manifest.signed) else 0 if entry.local else 1
    trusted = 1.0 if entry.local else trust if 0.0 <= trust <= 1.0 else 0.0
    return Candidate(
        entry,
        Replica(manifest.agent_id, kind, quiet and not entry.local, distance, weight, trusted),
    )
