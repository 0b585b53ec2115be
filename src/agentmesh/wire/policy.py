"""What the HTTP API says of policy: what is in force, and why a call would or would not pass (docs/reference/policy.md)."""

from __future__ import annotations

import msgspec


class PartyView(msgspec.Struct, kw_only=True):
    """One side of a call, as policy sees it.

    Attributes:
        key: did:key of the agent, or of the node where a person calls.
        name: For people; a caller's name is what it calls itself.
        node_id: Its node; "" if unknown.
        organisation: As the operator of this node named it; "" for a stranger.
        home: Whether it belongs to whoever runs this node.
        tags: Given by the operator, or by an agent of his own to itself.
        claimed_tags: What it says of itself; counts against it only.
    """

    key: str
    name: str = ""
    node_id: str = ""
    organisation: str = ""
    home: bool = False
    tags: list[str] = []
    claimed_tags: list[str] = []


class RulingView(msgspec.Struct, kw_only=True):
    """``GET /api/v1/policy/explain``: whether a call would pass now, and why.

    Attributes:
        allowed: The answer.
        ground: What it rests on: "deny", "forbid", "allow", "grey", "permit", "default", "out" or "broken".
        rule: The policies, the entry or the default that decided.
        source: Where they stand: ``file:line``, or who published them.
        caller, callee: Both sides.
        skill, purpose: What was asked with it.
        trust, tier: How far the caller is trusted, 0 to 100, and the name of that.
        code: Code of the refusal; "" if it is allowed.
        told: What the caller would hear as the reason; "" if it is allowed.
        priority_max: Highest priority the call may have.
        mode: What holds where no rule speaks: "open", "closed", "strict", or "broken".
        version: Of the files in force; "" if there are none.
        warnings: What stands between the files and what is in force.
    """

    allowed: bool
    ground: str
    rule: str
    source: str = ""
    caller: PartyView
    callee: PartyView
    skill: str = ""
    purpose: str = ""
    trust: int = 0
    tier: str = ""
    code: str = ""
    told: str = ""
    priority_max: int = 9
    mode: str = ""
    version: str = ""
    warnings: list[str] = []


class EntryView(msgspec.Struct, kw_only=True):
    """One entry of a list: who, the reason that may be told to them, and where it stands."""

    who: str
    why: str = ""
    source: str = ""


class PolicyRow(msgspec.Struct, kw_only=True):
    """One Cedar policy: its id, "permit" or "forbid", where it stands, and its ``@reason``."""

    id: str
    effect: str
    source: str
    reason: str = ""


class IssuerView(msgspec.Struct, kw_only=True):
    """A published list in force: who signed it, its number, and how many entries it has."""

    issuer: str
    seq: int
    entries: int


class PolicyView(msgspec.Struct, kw_only=True):
    """``GET /api/v1/policy``: what is in force.

    Attributes:
        mode: What holds where no rule speaks: "open", "closed", "strict", or "broken" when nothing could be read.
        setting: The setting ``policy``.
        directory: Where the files are looked for.
        version, files: Hash and names of the files in force.
        organisations: Name → keys.
        tags: Tag → keys.
        deny, allow, grey: The lists, published ones included.
        grey_trust_min: Trust below which a grey caller is refused, 0 to 1.
        out_deny: Whom nobody at this node calls elsewhere.
        out_confined: Agents at this node that call nobody elsewhere.
        policies: Cedar policies.
        issuers: Published lists in force.
        warnings: What stands between the files and what is in force.
    """

    mode: str
    setting: str
    directory: str
    version: str = ""
    files: list[str] = []
    organisations: dict[str, list[str]] = {}
    tags: dict[str, list[str]] = {}
    deny: list[EntryView] = []
    allow: list[EntryView] = []
    grey: list[EntryView] = []
    grey_trust_min: float = 0.0
    out_deny: list[EntryView] = []
    out_confined: list[EntryView] = []
    policies: list[PolicyRow] = []
    issuers: list[IssuerView] = []
    warnings: list[str] = []
