"""What a decision is about, and what it says. Pure values; nothing in them is ever text of the engine's language."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from agentmesh.core.budget.gate import PRIORITY_MAX
from agentmesh.identity.budget import UNBOUNDED, Budget
from agentmesh.identity.manifest import Manifest

#: The organisation of whoever runs this node.
OWN = "own"

#: What a ruling rests on, in the order in which they are asked (docs/reference/policy.md §1).
Ground = Literal["broken", "deny", "forbid", "allow", "grey", "permit", "default", "out"]


class Facts(NamedTuple):
    """One call as policy sees it. All of it is proven by token and link, except what says so.

    Attributes:
        caller: did:key that signed the token: the calling agent's, or its node's.
        node: did:key of the node whose link carried it; "" if unknown (explaining only).
        says: did:key of the agent that the call names as its caller; a claim of ``node`` unless it is ``caller``.
        callee: did:key of the agent that is called.
        skill, purpose: In the caller's words; "" if it gave none.
        root, principal: did:key of who made the first grant of the chain that came with it, and whom that is for, in the maker's
            words; "" without one.
        hops: Agents in the chain before this call.
        budget: What it may use at most.
    """

    caller: str
    node: str
    says: str
    callee: str
    skill: str = ""
    purpose: str = ""
    root: str = ""
    principal: str = ""
    hops: int = 0
    budget: Budget = UNBOUNDED


@dataclass(frozen=True, slots=True)
class Party:
    """What is known of one side.

    Attributes:
        key: did:key that stands for it.
        node: did:key of its node; "" if unknown.
        organisation: As the operator named it; "" for a stranger.
        home: Whether that is the organisation of this node.
        names: Every did:key that a refusal may name, proven or not.
        tags: Given by the operator, or by an agent of his own organisation to itself; folded.
        claimed_name, claimed_tags: What it says of itself. They can count against it, never for it.
    """

    key: str
    node: str
    organisation: str
    home: bool
    names: tuple[str, ...]
    tags: tuple[str, ...]
    claimed_name: str = ""
    claimed_tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ruling:
    """A decision.

    Attributes:
        allowed: Whether the call may pass.
        ground: What it rests on.
        rule: The policy, entry or default, for the operator.
        source: Where that stands: ``file:line``, or who published it.
        reason: What may be told to the caller; "" if the rule gives none.
        trust: True if more trust would change it.
        priority_max: Highest priority the call may have.
    """

    allowed: bool
    ground: Ground
    rule: str
    source: str = ""
    reason: str = ""
    trust: bool = False
    priority_max: int = PRIORITY_MAX


class TrustOf(Protocol):
    """How far an agent or node is trusted (docs/spec/trust.md)."""

    def score(self, who: str, /) -> float:
        """Return 0 … 1."""
        ...

    def tier(self, who: str, /) -> str:
        """Return the name of its tier."""
        ...


class ManifestOf(Protocol):
    """Look up a verified manifest of the directory."""

    def __call__(self, agent_id: str) -> Manifest | None: ...


class NoTrust:
    """Knows nobody: what a node without evidence thinks of everybody."""

    def score(self, who: str, /) -> float:
        """Return 0."""
        return 0.0

    def tier(self, who: str, /) -> str:
        """Return "unknown"."""
        return "unknown"


class BelongingOf(Protocol):
    """Which organisation vouches for somebody (``node.organisations``); all are did:keys, "" for none."""

    @property
    def own(self) -> str:
        """The one of this node."""
        ...

    def of_agent(self, agent: str, /) -> str:
        """The one of an agent, by its manifest."""
        ...

    def of_node(self, node: str, /) -> str:
        """The one of a node, by what it showed."""
        ...

    def is_abroad(self, node: str, /) -> bool:
        """Say whether a node is of another mesh, linked for calls only."""
        ...


class NobodyBelongs:
    """Knows of no organisation."""

    own = ""

    def of_agent(self, agent: str, /) -> str:
        """Return ""."""
        return ""

    def of_node(self, node: str, /) -> str:
        """Return ""."""
        return ""

    def is_abroad(self, node: str, /) -> bool:
        """Return False."""
        return False
