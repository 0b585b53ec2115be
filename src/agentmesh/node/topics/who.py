"""By which ids and names the rules of topics know somebody, and with which key an agent here publishes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from agentmesh.errors import AgentNotFound, Unauthorized, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.node.registry import LocalAgent, Registry
from agentmesh.node.resolve import Directory


class Belonging(Protocol):
    """Whose agents and nodes are (``node.organisations``)."""

    def of_agent(self, agent: str) -> str:
        """Return the organisation of an agent, "" for none."""
        ...

    def of_node(self, node: str) -> str:
        """Return the organisation of a node, "" for none."""
        ...


class Party(NamedTuple):
    """Somebody beside this node: its did:key, and its key if it is kept here."""

    did: str
    key: KeyPair | None


class Who:
    """Say who somebody is.

    Args:
        key: This node's.
        registry: Agents beside it.
        directory: All agents known.
        belonging: Says to which organisation somebody belongs.
        is_node: Says whether a did:key is that of a node that is known.
    """

    def __init__(
        self,
        key: KeyPair,
        registry: Registry,
        directory: Callable[[], Directory],
        belonging: Belonging,
        is_node: Callable[[str], bool],
    ) -> None:
        self._key, self._registry, self._directory, self._belonging = key, registry, directory, belonging
        self._is_node = is_node

    def local(self, ref: str) -> Party:
        """Return an agent of the operator's beside this node, by name or id; "" is the node itself.

        Raises:
            AgentNotFound: there is none.
        """
        if not ref or ref == self._key.did:
            return Party(self._key.did, self._key)
        agent = self._registry.get(ref) if ref.startswith("did:") else self._registry.by_name(ref)
        if agent is None:
            raise AgentNotFound.near(ref, (one.manifest.name for one in self._registry.agents()))
        return Party(agent.manifest.agent_id, agent.key)

    def signer(self, ref: str) -> tuple[Party, KeyPair]:
        """Return who publishes, and with which key.

        Raises:
            AgentNotFound: no such agent here.
            Unauthorized: the agent keeps its key itself (code "topic.no_key").
        """
        party = self.local(ref)
        if party.key is None:
            raise Unauthorized(
                f"agent {ref[:80]!r} keeps its key itself, so this node cannot sign in its name",
                code="topic.no_key",
                hint="publish in the name of the node: leave the sender out",
            )
        return party, party.key

    def names(self, did: str) -> frozenset[str]:
        """Return the ids and names of an agent or node of any origin.

        A name, and the node behind which an agent says that it lives, are claims: they count only beside this node.
        """
        organisation = self._belonging.of_node(did) or self._belonging.of_agent(did)
        names = [did]
        local: LocalAgent | None = self._registry.get(did)
        if local is not None:
            names += (local.manifest.name, self._key.did)
        if organisation:
            names.append(f"org:{organisation}")
        return frozenset(names)

    def node_of(self, did: str) -> str:
        """Return the node behind which an agent lives, as far as is known; a key that is no agent's is its own node."""
        entry = self._directory().entry(did)
        return did if entry is None else entry.manifest.node_id

    def is_agent_elsewhere(self, did: str) -> bool:
        """Say whether a did:key is that of an agent beside another node, or of one that is not known yet."""
        return did != self._key.did and self._registry.get(did) is None and not self._is_node(did)

    def asker(self, node: str, agent: str) -> frozenset[str]:
        """Return who asks over a link: a node, or an agent of which it is known to be the node.

        Raises:
            UsageError: it speaks for an agent that is not known to be its own (code "topic.asker").
        """
        if not agent or agent == node:
            return self.names(node)
        if self.node_of(agent) != node:
            raise UsageError(
                "the node asks in the name of an agent that is not known to be its own", code="topic.asker"
            )
        return self.names(agent) | {node}  # both say so: the agent in its manifest, the node by its link
