"""Who may call what: the rule of organisations, the lists, and the policies of this node, put together.

The order is fixed (docs/reference/policy.md §1): a deny entry, a ``forbid``, then the more particular of an allow and a grey
entry, a ``permit``, and at last the default. Files are looked at again when a call comes and a second has passed; a bad one
leaves what was in force. If there was nothing yet, only this node itself may call until it is mended.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from agentmesh.errors import ConfigError
from agentmesh.identity.manifest import Manifest
from agentmesh.node.policy.cedar import Engine, is_same
from agentmesh.node.policy.facts import (
    OWN,
    BelongingOf,
    Facts,
    Ground,
    ManifestOf,
    NobodyBelongs,
    NoTrust,
    Party,
    Ruling,
    TrustOf,
)
from agentmesh.node.policy.files import LISTS, Listing, Source, listing, read_all
from agentmesh.node.policy.lists import (
    NO_LISTS,
    Index,
    Listed,
    ListName,
    Lists,
    Published,
    fold_tag,
    look_up,
    read_lists,
)

_log = logging.getLogger("agentmesh.policy")

#: Seconds after which the files are looked at again.
LOOK_AGAIN_S = 1.0
#: Decisions that are remembered; each takes about a kilobyte.
CACHE_MAX = 10_000
_TAGS_MAX = 256
_BROKEN = "the policy of this node cannot be read, so only the node itself may call"


class Loaded(NamedTuple):
    """What the files say.

    Attributes:
        lists: ``lists.toml``.
        engine: The policies; None if there are none.
        files: Names of the files.
        version: Hash of all of them, 16 hex digits; "" if there are none.
    """

    lists: Lists
    engine: Engine | None
    files: tuple[str, ...]
    version: str


NOTHING = Loaded(NO_LISTS, None, (), "")


def load(sources: Sequence[Source]) -> Loaded:
    """Make sense of policy files.

    Raises:
        ConfigError: one of them is wrong (codes "policy.file", "policy.engine"). Nothing is kept.
    """
    lists = next((read_lists(one) for one in sources if one.name == LISTS), NO_LISTS)
    policies = [one for one in sources if one.name != LISTS]
    engine = Engine(policies, lists.organisations) if policies else None
    digest = hashlib.sha256(b"\0".join(part.encode() for one in sources for part in (one.name, one.text)))
    return Loaded(lists, engine, tuple(one.name for one in sources), digest.hexdigest()[:16] if sources else "")


class Policy:
    """Decide who may call the agents of this node.

    Args:
        node_id: This node.
        directory: Where the files are; it need not exist.
        mode: "auto", "open", "closed" or "strict" (``daemon/knobs.py``).
        manifest_of: The directory of agents.
        name_of: Node id → the name it gives itself.
        trust: How far somebody is trusted.
        clock_s: Monotonic seconds.
        belonging: Which organisations vouch for whom; nobody does if left out.
    """

    def __init__(
        self,
        node_id: str,
        directory: Path,
        mode: str,
        manifest_of: ManifestOf,
        name_of: Callable[[str], str],
        *,
        trust: TrustOf | None = None,
        clock_s: Callable[[], float] = time.monotonic,
        belonging: BelongingOf | None = None,
    ) -> None:
        self._belonging: BelongingOf = belonging or NobodyBelongs()
        self._node_id, self.directory, self.setting = node_id, directory, mode
        self._manifest_of, self._name_of, self._clock_s = manifest_of, name_of, clock_s
        self.trust: TrustOf = trust or NoTrust()
        #: Lists of trusted issuers: ``apply`` and ``withdraw``.
        self.lists = Published(self._renew)
        self.loaded = NOTHING
        #: Why the files are not in force as they are; None if they are.
        self.error: ConfigError | None = None
        #: Told of the version that was in force and the one that is.
        self.on_change: Callable[[str, str], None] = lambda _was, _is: None
        self._seen: Listing | None = None
        self._read = False  # whether the files, or that there are none, were ever understood
        self._look_s = -1.0
        self._cache: dict[Any, Ruling] = {}
        self._entries: dict[ListName, Index] = {}
        self._renew()

    # What is in force

    @property
    def mode(self) -> str:
        """What holds where no rule speaks: "open", "closed", "strict", or "broken" when nothing could be read yet."""
        if self.error is not None and not self._read:
            return "broken"
        if self.setting == "auto":
            return "closed" if self.loaded.version else "open"
        return self.setting

    @property
    def chosen(self) -> bool:
        """Whether somebody has decided about this node: by a file, or by the setting."""
        return self.setting != "auto" or self.loaded.version != "" or self.error is not None

    @property
    def version(self) -> str:
        """Names the files in force; the same for the same files."""
        return self.loaded.version

    @property
    def grey_trust_min(self) -> float:
        """Trust below which a grey caller is refused."""
        return self.loaded.lists.grey_trust_min

    def entries(self) -> dict[ListName, Index]:
        """Return the lists in force, published ones included."""
        return self._entries

    def refresh(self, *, now: bool = True) -> None:
        """Look at the files and take what has changed; without ``now`` only if a second has passed. Never raises."""
        clock_s = self._clock_s()
        if not now and clock_s < self._look_s:
            return
        self._look_s = clock_s + LOOK_AGAIN_S
        try:
            seen = listing(self.directory)
            if seen == self._seen:
                return
            self._take(seen)
        except ConfigError as error:
            self._seen = None  # it may be mended without a trace in the listing, as the target of a link
            if self.error is None or str(error) != str(self.error):
                _log.error("%s; %s", _said(error), "the former policy stays in force" if self._read else _BROKEN)
            self.error = error
            self._cache.clear()

    def _take(self, seen: Listing) -> None:
        if self.loaded.version and not seen.stamp and self.setting == "auto":
            raise ConfigError(
                "all policy files are gone",
                code="policy.gone",
                why="no file may mean an open node, and that should be nobody's accident",
                hint="agentmesh config set policy open (or closed), then restart",
            )
        sources = read_all(self.directory, [one[0] for one in seen.stamp])
        loaded = load(sources)
        if listing(self.directory) != seen:
            raise ConfigError("the policy files change while they are read", code="policy.file")
        was = self.loaded.version
        self.loaded, self.error, self._seen = loaded, None, seen
        self._read = True
        self._renew()
        if loaded.version != was:
            self.on_change(was, loaded.version)
            _log.info("policy %s is in force: %s", loaded.version, ", ".join(loaded.files))

    def _renew(self) -> None:
        self._entries = self.lists.merged(self.loaded.lists.entries)
        self._cache.clear()

    def warnings(self, connected: bool) -> list[str]:
        """Return what a person should know.

        Args:
            connected: Whether other nodes can call here now.
        """
        found: list[str] = []
        if self.error is not None:
            found.append(
                f"{_said(self.error)}; {_BROKEN if self.mode == 'broken' else 'the former policy stays in force'}"
            )
        if self._seen is not None and self._seen.ignored:
            found.append(f"not read in policies/: {', '.join(self._seen.ignored)[:200]}")
        if connected and not self.chosen:
            found.append(
                "no policy: every node that reaches this one may call its agents (docs/howto/policies.md; "
                "agentmesh config set policy open   if that is meant)"
            )
        return found

    # Decisions

    def rule(self, facts: Facts) -> Ruling:
        """Decide about one call, from memory if it was decided before."""
        return self.judge(facts)[0]

    def judge(self, facts: Facts) -> tuple[Ruling, int]:
        """Decide about one call, and say how far its caller is trusted, 0 … 100."""
        if self._clock_s() >= self._look_s:
            self.refresh()
        caller, callee = self._manifest_of(facts.says), self._manifest_of(facts.callee)
        trust = self._trust(facts, caller)
        reads = self.loaded.engine.reads if self.loaded.engine is not None else ()
        key = (
            *facts[:4],
            facts.root,
            facts.principal,
            trust,
            caller.seq if caller else 0,
            callee.seq if callee else 0,
            facts.skill if "skill" in reads else "",
            facts.purpose if "purpose" in reads else "",
            facts.hops if "hops" in reads else 0,
            facts.budget if "budget" in reads else None,
            self._belonging.of_agent(facts.says) if caller is not None else "",
            self._belonging.of_node(facts.node),
            self._belonging.own,
            self._belonging.is_abroad(facts.node),
        )
        ruling = self._cache.get(key)
        if ruling is None:
            ruling = self._decide(facts, self.caller(facts, caller), self.callee(facts.callee, callee), trust)
            while len(self._cache) >= CACHE_MAX:
                del self._cache[next(iter(self._cache))]
            self._cache[key] = ruling
        return ruling, trust

    def _trust(self, facts: Facts, manifest: Manifest | None) -> int:
        return int(
            100 * min(1.0, max(0.0, self.trust.score(self._agent(facts, manifest) or facts.node or facts.caller)))
        )

    def _agent(self, facts: Facts, manifest: Manifest | None) -> str:
        """Return the calling agent if it is proven: it signed, or its own signed manifest says that it lives at this node."""
        if facts.caller == facts.says or facts.caller != facts.node:
            return facts.caller
        if facts.node == self._node_id or (manifest and manifest.signed and manifest.node_id == facts.node):
            return facts.says
        return ""

    def caller(self, facts: Facts, manifest: Manifest | None) -> Party:
        """Return what is known of the calling side."""
        agent = self._agent(facts, manifest)
        key = agent or facts.node or facts.caller
        organisation, home = self._organisation(agent, facts.node)
        claimed = _tags(manifest)
        vouched = home and manifest is not None and manifest.signed and manifest.agent_id == agent
        return Party(
            key=key,
            node=facts.node,
            organisation=organisation,
            home=home,
            names=tuple(
                dict.fromkeys(one for one in (facts.caller, facts.says, facts.node, facts.principal, facts.root) if one)
            ),
            tags=self._tags_of((agent, facts.node), claimed if vouched else ()),
            claimed_name=manifest.name if manifest else self._name_of(key),
            claimed_tags=claimed,
        )

    def manifest_of(self, agent: str) -> Manifest | None:
        """Return the manifest of an agent that is known here."""
        return self._manifest_of(agent)

    def callee(self, agent: str, manifest: Manifest | None, node: str = "") -> Party:
        """Return what is known of an agent at this node, or at another one: the tags of that are its word."""
        node = node or self._node_id
        organisation, home = self._organisation(agent, node)
        tags = self._tags_of((agent, node), _tags(manifest))
        return Party(agent, node, organisation, home, (agent,), tags, manifest.name if manifest else "")

    def _organisation(self, agent: str, node: str) -> tuple[str, bool]:
        """Return (organisation, whether it is this node's own) of an agent at a node; an agent's own entry wins."""
        of = self.loaded.lists.organisation_of
        ours = of.get(self._node_id) or of.get(self._belonging.own) or OWN
        if (listed := of.get(agent)) is not None or node == self._node_id or agent == self._node_id:
            name = listed or ours
        else:
            vouched = self._belonging.of_agent(agent) if agent else ""
            name = self._named(vouched, ours) or of.get(node) or self._named(self._belonging.of_node(node), ours)
        return name, name in (OWN, ours)

    def _named(self, organisation: str, ours: str) -> str:
        """Return the name of an organisation that vouches for somebody; "" if the operator gave it none."""
        if not organisation:
            return ""
        named = self.loaded.lists.organisation_of.get(organisation, "")
        return named or (ours if organisation == self._belonging.own else "")

    def _tags_of(self, keys: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
        given = self.loaded.lists.tags_of
        return tuple(dict.fromkeys((*(tag for key in keys for tag in given.get(key, ())), *own)))

    def _decide(self, facts: Facts, caller: Party, callee: Party, trust: int) -> Ruling:
        ruling = self._weigh(facts, caller, callee, trust)
        if not ruling.allowed and trust < 100 and self._weigh(facts, caller, callee, 100).allowed:
            return replace(ruling, trust=True)
        return ruling

    def _weigh(self, facts: Facts, caller: Party, callee: Party, trust: int) -> Ruling:
        person = facts.caller == self._node_id and facts.says == self._node_id
        if self.mode == "broken":
            return Ruling(person, "broken", _BROKEN, reason="" if person else "its policy cannot be read")
        if (denied := self._denied(caller)) is not None:
            return _listed(False, "deny", denied)
        verdict = None if self.loaded.engine is None else self._ask(self.loaded.engine, facts, caller, callee, trust)
        if verdict is not None and not verdict.allowed:
            return verdict
        allow, grey = (self._find(which, caller) for which in ("allow", "grey"))
        if grey is not None and (allow is None or allow.rank <= grey.rank):
            if trust < round(100 * self.loaded.lists.grey_trust_min):
                return _listed(False, "grey", grey)
            return replace(_listed(True, "grey", grey), priority_max=0)
        if allow is not None:
            return _listed(True, "allow", allow)
        return verdict or self._default(facts, caller, callee, person)

    def _denied(self, caller: Party) -> Listed | None:
        return look_up(
            self._entries["deny"],
            keys=caller.names,
            organisation=caller.organisation,
            home=caller.home,
            tags=(*caller.tags, *caller.claimed_tags),
        ) or self._denied_node(caller)

    def _denied_node(self, caller: Party) -> Listed | None:
        """An agent that was given to another organisation is still refused where its node's organisation is."""
        of = self.loaded.lists.organisation_of
        name = of.get(caller.node) or of.get(self._belonging.of_node(caller.node), "")
        return look_up(self._entries["deny"], keys=(), organisation=name, home=False, tags=()) if name else None

    def _find(self, which: ListName, caller: Party) -> Listed | None:
        return look_up(
            self._entries[which],
            keys=(caller.key, caller.node) if caller.node else (caller.key,),
            organisation=caller.organisation,
            home=caller.home,
            tags=caller.tags if which == "allow" else (*caller.tags, *caller.claimed_tags),
        )

    def _ask(self, engine: Engine, facts: Facts, caller: Party, callee: Party, trust: int) -> Ruling | None:
        """Ask the policies; None where none speaks of the call."""
        name, tier = callee.claimed_name, self.trust.tier(caller.key)
        verdict = engine.decide(facts, caller, callee, callee_name=name, trust=trust, tier=tier)
        if verdict.decision == "broken":
            _log.error("a policy cannot be evaluated, so the call is refused: %s", verdict.why)
            return Ruling(False, "broken", verdict.why, reason="its policy cannot be evaluated")
        if verdict.decision == "none":
            return None
        rules = ", ".join(row.id for row in verdict.rows)
        sources = ", ".join(row.source for row in verdict.rows)
        if verdict.decision == "permit":
            return Ruling(True, "permit", rules, sources)
        return Ruling(False, "forbid", rules, sources, next((row.reason for row in verdict.rows if row.reason), ""))

    def _default(self, facts: Facts, caller: Party, callee: Party, person: bool) -> Ruling:
        mode = self.mode
        if mode == "open" and self._belonging.is_abroad(facts.node):
            mode = "closed"  # another mesh's nodes come in by agreement, and call by rule
        if mode == "open":
            return Ruling(True, "default", "open: whoever no rule names may call")
        if person:
            return Ruling(True, "default", f"{mode}: the person at this node may call")
        if mode == "strict":
            return Ruling(False, "default", "strict: nobody may call whom no rule permits")
        if caller.home or is_same(caller, callee):
            return Ruling(True, "default", f"closed: the organisation {caller.organisation or OWN!r} may call")
        if facts.root:  # ``node.grants`` refuses every chain whose root does not count here
            return Ruling(True, "default", f"closed: a grant of {facts.root} came with the call")
        return Ruling(False, "default", "closed: other organisations may not call unless a rule permits it")


def _said(error: ConfigError) -> str:
    return f"{error} ({error.why})" if error.why else str(error)


def _listed(allowed: bool, ground: Ground, found: Listed) -> Ruling:
    return Ruling(allowed, ground, found.who, found.source, found.why)


def _tags(manifest: Manifest | None) -> tuple[str, ...]:
    """Return the tags that an agent gives its skills, folded; at most 256."""
    if manifest is None:
        return ()
    found = [fold_tag(str(tag)) for skill in manifest.skills for tag in skill.get("tags", ())]
    return tuple(dict.fromkeys(found))[:_TAGS_MAX]
