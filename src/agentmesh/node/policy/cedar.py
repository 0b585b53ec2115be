"""Policies in the Cedar language, evaluated by its own engine (adr/0007). The engine is imported with the first policy file.

Each statement of a file is read by itself, so that an error names its line, and keeps a name of ours: its ``@id``, or
``file:line``. Facts reach the engine as entities and values, never as text of the language. Whatever cannot be evaluated
refuses the call: Cedar would skip such a policy, which is the wrong way round for a ``forbid``.

Not taken: templates (there is nobody to link them), and a schema of one's own (the facts are ours, so their shape is too).
"""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple, cast

import msgspec

from agentmesh.errors import ConfigError, MeshError
from agentmesh.identity.budget import BUDGET_KEYS
from agentmesh.ids import public_key_of
from agentmesh.node.policy.facts import OWN, Facts, Party
from agentmesh.node.policy.files import Source, bad_file

POLICIES_MAX = 1_000
#: Most characters of one policy that are not inside quotes, and deepest nesting of its brackets: the engine's parser is
#: recursive, and a text that nests some thousand times would take the daemon down (adr/0007).
CODE_CHARS_MAX = 4_096
DEPTH_MAX = 32
POLICY_CHARS_MAX = 64 * 1024
_ID_CHARS_MAX = 128
#: Comment, quoted text, space, a bracket or semicolon, anything else; a quote alone is one that is not closed.
_TOKEN = re.compile(r"""//[^\n]*|"(?:\\.|[^"\\])*"|\s+|[;()\[\]{}]|"|[^\s;()\[\]{}"/]+|/""", re.DOTALL)
_REASON_CHARS_MAX = 200

SCHEMA = """\
// What a policy may speak of. One action, "call"; who calls is the principal, the agent that is called the resource.
entity Organisation;
entity Tag;
entity Node;

// What a caller says of itself. Use it to refuse, never to permit: anybody may say anything.
type Claimed = { name: String, tags: Set<String> };

// Caller::"did:key:…" is the calling agent, or its node where a person calls.
entity Caller in [Node, Organisation, Tag] = { claimed: Claimed };

// Agent::"did:key:…" is an agent at this node.
entity Agent in [Node, Organisation, Tag] = { name: String };

type Budget = { calls?: Long, tokens?: Long, usd_micros?: Long, wall_ms?: Long };

action call appliesTo {
  principal: Caller,
  resource: Agent,
  context: {
    skill: String,              // "" if it is left to the agent
    purpose: String,            // in the caller's words
    trust: Long,                // 0 to 100
    tier: String,
    same_organisation: Bool,
    delegated: Bool,            // a grant came with the call
    on_behalf_of?: String,      // whom that grant is for, as its maker says
    hops: Long,                 // agents in the chain before this call
    budget: Budget,             // what the caller allows the call to use
  }
};
"""
_CONTEXT = ("skill", "purpose", "trust", "tier", "same_organisation", "delegated", "on_behalf_of", "hops", "budget")


class Row(NamedTuple):
    """One policy as people see it."""

    id: str
    effect: str
    source: str
    reason: str


class Verdict(NamedTuple):
    """What the policies say of one call.

    Attributes:
        decision: "permit", "forbid", or "none" if no policy speaks of it; "broken" if one could not be evaluated.
        rows: The policies that say so.
        why: Why it is broken.
    """

    decision: str
    rows: tuple[Row, ...]
    why: str = ""


class Engine:
    """A set of policies, ready to decide.

    Args:
        sources: Files of policies, in their order.
        organisations: Names that they may use.

    Raises:
        ConfigError: a file is wrong (code "policy.file"), or the engine is not installed ("policy.engine"). Nothing is kept.
    """

    def __init__(self, sources: Sequence[Source], organisations: Collection[str]) -> None:
        self._cedar = _load_engine(sources[0].name if sources else "")
        self._schema = self._cedar.Schema.from_str(SCHEMA)
        policies: dict[str, Any] = {}
        self._rows: dict[str, Row] = {}
        for source in sources:
            for line, text in statements(source):
                if len(policies) >= POLICIES_MAX:
                    raise bad_file(source.name, f"more than {POLICIES_MAX} policies", line=line)
                row, policy = self._read(source.name, line, text, organisations)
                if row.id == row.source:  # the second of one line is file:line.2
                    same = sum(other.source == row.source for other in self._rows.values())
                    row = row._replace(id=f"{row.id}.{same + 1}") if same else row
                if (other := self._rows.get(row.id)) is not None:
                    raise bad_file(
                        source.name, f'@id("{row.id}") is used twice', line=line, why=f"also in {other.source}"
                    )
                self._rows[row.id], policies[row.id] = row, policy
        whole: dict[str, Any] = {"staticPolicies": policies, "templates": {}, "templateLinks": []}
        self._policies = self._cedar.PolicySet.from_json_str(json.dumps(whole))
        #: Members of the context on which a decision may depend.
        self.reads: frozenset[str] = frozenset(_reads(list(policies.values())))

    @property
    def rows(self) -> list[Row]:
        """Every policy, in the order of the files."""
        return list(self._rows.values())

    def decide(self, facts: Facts, caller: Party, callee: Party, *, callee_name: str, trust: int, tier: str) -> Verdict:
        """Ask the policies about one call; never raises for what a caller says."""
        try:
            entities = msgspec.json.encode([_caller_entity(caller), _agent_entity(callee, callee_name)]).decode()
            context = msgspec.json.encode(_context(facts, caller, callee, trust, tier)).decode()
        except UnicodeEncodeError:  # half a surrogate pair, which no proper JSON has
            return Verdict("broken", (), "the call holds text that is no Unicode")
        request = {
            "principal": {"type": "Caller", "id": caller.key},
            "action": {"type": "Action", "id": "call"},
            "resource": {"type": "Agent", "id": callee.key},
            "context": context,
        }
        try:
            said = self._cedar.is_authorized(request, self._policies, entities, self._schema)
        except ValueError as error:
            return Verdict("broken", (), str(error)[:300])
        errors: list[str] = said.diagnostics.errors
        decision = said.decision.name
        if errors or decision == "NoDecision":
            return Verdict("broken", (), "; ".join(errors)[:300])
        rows = tuple(self._rows[reason] for reason in said.diagnostics.reasons)
        return Verdict(("permit" if decision == "Allow" else "forbid") if rows else "none", rows)

    def _read(self, name: str, line: int, text: str, organisations: Collection[str]) -> tuple[Row, Any]:
        """Check one policy and return it with its own JSON form. Raises ConfigError."""
        try:
            parsed: Any = json.loads(self._cedar.policies_to_json_str(text))
        except ValueError as error:
            raise bad_file(name, "is no policy", line=line, why=str(error)) from error
        except RecursionError as error:
            raise bad_file(name, "the policy nests too deep", line=line) from error
        found: dict[str, Any] = parsed["staticPolicies"]
        if parsed["templates"] or len(found) != 1:
            why = "there is nobody to link it" if parsed["templates"] else "it is not one permit or forbid"
            raise bad_file(name, "is a template" if parsed["templates"] else "is no policy", line=line, why=why)
        policy = next(iter(found.values()))
        checked = self._cedar.validate_policies(text, self._schema)
        if not checked.validation_passed:
            why = "; ".join(error.error.replace("for policy `policy0`, ", "") for error in checked.errors)[:500]
            raise bad_file(
                name, "speaks of what there is not", line=line, why=why, hint="agentmesh policy show --schema"
            )
        _check_names(name, line, policy, organisations)
        annotations: dict[str, str | None] = policy.get("annotations", {})
        own, reason = annotations.get("id") or f"{name}:{line}", annotations.get("reason") or ""
        for what, value, longest in (("id", own, _ID_CHARS_MAX), ("reason", reason, _REASON_CHARS_MAX)):
            if len(value) > longest or not value.isprintable():
                raise bad_file(name, f"@{what} is one line of at most {longest} characters", line=line)
        return Row(own, policy["effect"], f"{name}:{line}", reason), policy


def statements(source: Source) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each statement of a file: it ends at the first semicolon outside of quotes and comments.

    Raises:
        ConfigError: a statement is too long or nests too deep, or the file ends in the middle of one (code "policy.file").
    """
    text, name = source.text, source.name
    start, first, line, depth, code = 0, 0, 1, 0, 0
    for token in _TOKEN.finditer(text):
        word = token[0]
        if not word.isspace() and not word.startswith("//"):
            if not first:
                start, first = token.start(), line
            if word == '"':
                raise bad_file(name, "a quote is not closed", line=line)
            code += 2 if word.startswith('"') else len(word)
            depth += (word in "([{") - (word in ")]}")
            if code > CODE_CHARS_MAX or depth > DEPTH_MAX or token.end() - start > POLICY_CHARS_MAX:
                raise bad_file(
                    name,
                    "the policy is too long or nests too deep",
                    line=first,
                    why=f"at most {CODE_CHARS_MAX} characters outside of quotes and {DEPTH_MAX} levels are read",
                    hint="write several policies, or put keys into an organisation or tag of lists.toml",
                )
            if word == ";":
                yield first, text[start : token.end()]
                first, depth, code = 0, 0, 0
        line += word.count("\n")
    if first:
        raise bad_file(name, "the last policy does not end in a semicolon", line=first)


def _load_engine(name: str) -> Any:
    try:
        return importlib.import_module("cedarpy")
    except ImportError as error:
        raise ConfigError(
            f"{name}: the policy engine is not installed",
            code="policy.engine",
            why=str(error),
            hint="pip install 'agentmeshd[policy]'",
            extra={"file": name, "line": 0},
        ) from error


def _check_names(name: str, line: int, policy: Any, organisations: Collection[str]) -> None:
    """Refuse what could never match: a rule that is silently dead is worse than none."""
    for kind, one in _entities(policy):
        if kind in ("Caller", "Agent", "Node"):
            try:
                public_key_of(one)
            except MeshError as error:
                raise bad_file(name, f'{kind}::"{one[:80]}" can match nobody', line=line, why=str(error)) from error
        elif kind == "Organisation" and one not in organisations:
            raise bad_file(
                name,
                f'Organisation::"{one[:80]}" is not known',
                line=line,
                why=f"lists.toml names {', '.join(sorted(organisations))[:300]}",
                hint=f"add [organisations.{one[:64]}] with its keys to lists.toml",
            )


def _entities(node: Any) -> Iterator[tuple[str, str]]:
    """Yield (type, id) of every entity that a policy names."""
    if isinstance(node, dict):
        members = cast("dict[str, Any]", node)
        kind, one = members.get("type"), members.get("id")
        if len(members) == 2 and isinstance(kind, str) and isinstance(one, str):
            yield kind, one
            return
        for value in members.values():
            yield from _entities(value)
    elif isinstance(node, list):
        for value in cast("list[Any]", node):
            yield from _entities(value)


def _reads(node: Any) -> Iterator[str]:
    """Yield the members of the context that policies look at; all of them if one looks at the context as a whole."""
    if isinstance(node, list):
        for value in cast("list[Any]", node):
            yield from _reads(value)
    elif isinstance(node, dict):
        members = cast("dict[str, Any]", node)
        if members == {"Var": "context"}:
            yield from _CONTEXT
        for key, value in members.items():
            if key in (".", "has") and isinstance(value, dict) and value.get("left") == {"Var": "context"}:  # pyright: ignore
                yield str(value["attr"])  # pyright: ignore[reportUnknownArgumentType]
            else:
                yield from _reads(value)


def _uid(kind: str, one: str) -> dict[str, str]:
    return {"type": kind, "id": one}


def _parents(party: Party) -> list[dict[str, str]]:
    organisations = dict.fromkeys((party.organisation, OWN if party.home else ""))
    return [
        *([_uid("Node", party.node)] if party.node else []),
        *(_uid("Organisation", name) for name in organisations if name),
        *(_uid("Tag", tag) for tag in party.tags),
    ]


def _caller_entity(caller: Party) -> dict[str, Any]:
    claimed = {"name": caller.claimed_name, "tags": caller.claimed_tags}
    return {"uid": _uid("Caller", caller.key), "attrs": {"claimed": claimed}, "parents": _parents(caller)}


def _agent_entity(callee: Party, name: str) -> dict[str, Any]:
    return {"uid": _uid("Agent", callee.key), "attrs": {"name": name}, "parents": _parents(callee)}


def _context(facts: Facts, caller: Party, callee: Party, trust: int, tier: str) -> dict[str, Any]:
    budget = {key: value for key in BUDGET_KEYS if (value := getattr(facts.budget, key)) is not None}
    behalf = {"on_behalf_of": facts.principal} if facts.principal else {}
    return {
        "skill": facts.skill,
        "purpose": facts.purpose,
        "trust": trust,
        "tier": tier,
        "same_organisation": is_same(caller, callee),
        "delegated": bool(facts.root),
        "hops": facts.hops,
        "budget": budget,
        **behalf,
    }


def is_same(caller: Party, callee: Party) -> bool:
    """Say whether both sides belong to one organisation."""
    return (caller.home and callee.home) or (caller.organisation != "" and caller.organisation == callee.organisation)
