"""Why a call would pass or not, and what is in force: for the operator, who may see all of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from agentmesh.errors import AgentNotFound, DecodeError, UsageError
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import public_key_of, short
from agentmesh.node.policy.check import refusal
from agentmesh.node.policy.facts import Facts, Party
from agentmesh.node.policy.lists import Index
from agentmesh.node.policy.outward import Outward
from agentmesh.node.policy.policy import Policy
from agentmesh.node.resolve import Directory, find
from agentmesh.wire.policy import EntryView, IssuerView, PartyView, PolicyRow, PolicyView, RulingView

_TEXT_CHARS_MAX = 512


class Explainer:
    """Answer questions about a policy.

    Args:
        node_id: This node.
        policy: The policy.
        directory: The agents known here.
        name_of: Node id → name for people.
        nodes: Returns the ids of all nodes known here.
    """

    def __init__(
        self,
        node_id: str,
        policy: Policy,
        directory: Directory,
        name_of: Callable[[str], str],
        nodes: Callable[[], Iterable[str]],
    ) -> None:
        self._node_id, self._policy, self._directory = node_id, policy, directory
        self._name_of, self._nodes = name_of, nodes

    def explain(self, caller: str, callee: str, skill: str = "", purpose: str = "") -> RulingView:
        """Say whether a call would pass now, and why.

        Args:
            caller: Agent name, ``name@node`` or did:key; ``@node`` for the person at a node; "" for the one at this node.
            callee: An agent at this node; or at another one, to see whether a call from here may leave.
            skill, purpose: As the caller would give them.

        Raises:
            AgentNotFound: no such agent or node is known; a key that nobody here has heard of is a stranger, no error.
            UsageError: a name fits several agents, the callee is at another node, whose policy decides (codes
                "policy.ambiguous", "policy.elsewhere"), or a text is too long.
        """
        if len(skill) > _TEXT_CHARS_MAX or len(purpose) > _TEXT_CHARS_MAX:
            raise UsageError(f"skill and purpose have at most {_TEXT_CHARS_MAX} characters", code="policy.text")
        self._policy.refresh()
        called = self._one(callee)
        if called.node_id != self._node_id:
            if (leaving := self._leaving(caller, called, skill, purpose)) is not None:
                return leaving
            raise UsageError(
                f"agent {called.name!r} lives at node {self._name_of(called.node_id)}",
                code="policy.elsewhere",
                why="who may call it is decided there, by the policy of that node; nothing here keeps the call from leaving",
                hint=f"there: agentmesh policy explain CALLER {called.name}",
            )
        signer, node, says = self._caller(caller)
        facts = Facts(signer, node, says, called.agent_id, skill, purpose)
        calling = self._manifest(says)
        party, target = self._policy.caller(facts, calling), self._policy.callee(called.agent_id, called)
        ruling, trust = self._policy.judge(facts)
        refused = None if ruling.allowed else refusal(ruling, called.name)
        return RulingView(
            allowed=ruling.allowed,
            ground=ruling.ground,
            rule=ruling.rule,
            source=ruling.source,
            caller=_party(party, party.claimed_name or short(party.key)),
            callee=_party(target, called.name),
            skill=skill,
            purpose=purpose,
            trust=trust,
            tier=self._policy.trust.tier(party.key),
            code=refused.code if refused else "",
            told=(refused.why or "") if refused else "",
            priority_max=ruling.priority_max,
            mode=self._policy.mode,
            version=self._policy.version,
            warnings=self._policy.warnings(connected=False),
        )

    def _leaving(self, caller: str, called: Manifest, skill: str, purpose: str) -> RulingView | None:
        """Return why a call of somebody at this node may not leave; None if it may, or comes from elsewhere."""
        signer, node, says = self._caller(caller)
        if node != self._node_id:
            return None
        outward = Outward(self._node_id, self._policy)
        ruling, refused = outward.rule(says, called), outward.refusal(says, called)
        if ruling is None or refused is None:
            return None
        facts = Facts(signer, node, says, called.agent_id, skill, purpose)
        party = self._policy.caller(facts, self._manifest(says))
        target = self._policy.callee(called.agent_id, called, called.node_id)
        return RulingView(
            allowed=False,
            ground=ruling.ground,
            rule=ruling.rule,
            source=ruling.source,
            caller=_party(party, party.claimed_name or short(party.key)),
            callee=_party(target, called.name),
            skill=skill,
            purpose=purpose,
            trust=int(100 * self._policy.trust.score(party.key)),
            tier=self._policy.trust.tier(party.key),
            code=refused.code,
            told=refused.why or "",
            mode=self._policy.mode,
            version=self._policy.version,
            warnings=self._policy.warnings(connected=False),
        )

    def view(self) -> PolicyView:
        """Return what is in force."""
        policy = self._policy
        policy.refresh()
        loaded = policy.loaded
        organisations: dict[str, list[str]] = {}
        for key, name in loaded.lists.organisation_of.items():
            organisations.setdefault(name, []).append(key)
        tags: dict[str, list[str]] = {}
        for key, given in loaded.lists.tags_of.items():
            for tag in given:
                tags.setdefault(tag, []).append(key)
        entries = policy.entries()
        return PolicyView(
            mode=policy.mode,
            setting=policy.setting,
            directory=str(policy.directory),
            version=policy.version,
            files=list(loaded.files),
            organisations=organisations,
            tags=tags,
            deny=_entries(entries["deny"]),
            allow=_entries(entries["allow"]),
            grey=_entries(entries["grey"]),
            out_deny=_entries(loaded.lists.out["deny"]),
            out_confined=_entries(loaded.lists.out["confined"]),
            grey_trust_min=loaded.lists.grey_trust_min,
            policies=[PolicyRow(**row._asdict()) for row in loaded.engine.rows] if loaded.engine else [],
            issuers=[IssuerView(issuer=who, seq=seq, entries=count) for who, seq, count in policy.lists.issuers()],
            warnings=policy.warnings(connected=False),
        )

    def _caller(self, ref: str) -> tuple[str, str, str]:
        """Return (who would sign, node, agent named) for a caller."""
        if ref in ("", "@"):
            return self._node_id, self._node_id, self._node_id
        if ref.startswith("@"):
            node = self._node(ref[1:])
            return node, node, node
        manifest = self._manifest(ref)
        if manifest is None and ref.startswith("did:"):
            try:
                public_key_of(ref)
            except DecodeError as error:
                raise UsageError(
                    str(error), code="policy.key", hint="agentmesh discover --json   lists the ids"
                ) from error
            return ref, ref, ref  # the person at that node; of an agent nobody has heard of no more is known
        manifest = manifest or self._one(ref)
        return manifest.agent_id, manifest.node_id, manifest.agent_id

    def _node(self, name: str) -> str:
        for node in (self._node_id, *self._nodes()):
            if name in (node, short(node)) or name.casefold() == self._name_of(node).casefold():
                return node
        raise AgentNotFound(f"no node {name[:80]!r} is known here", hint="agentmesh peers   lists the nodes")

    def _one(self, ref: str) -> Manifest:
        """Return the one agent of a name or id; one at this node before all others."""
        found = [entry.manifest for entry in find(ref, self._directory, self._name_of)]
        found = [one for one in found if one.node_id == self._node_id] or found
        if len(found) > 1:
            raise UsageError(
                f"{len(found)} agents are called {ref[:80]!r}",
                code="policy.ambiguous",
                why="each may be ruled differently",
                hint="name it as name@node, or by its id",
            )
        return found[0]

    def _manifest(self, did: str) -> Manifest | None:
        entry = self._directory.entry(did)
        return entry.manifest if entry is not None else None


def _party(party: Party, name: str) -> PartyView:
    return PartyView(
        key=party.key,
        name=name,
        node_id=party.node,
        organisation=party.organisation,
        home=party.home,
        tags=list(party.tags),
        claimed_tags=list(party.claimed_tags),
    )


def _entries(index: Index) -> list[EntryView]:
    return [EntryView(who=who, why=why, source=source) for who, (why, source) in index.items()]
