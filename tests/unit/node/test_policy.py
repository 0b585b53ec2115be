"""Who may call what: the default of organisations, lists, Cedar policies, and files that go wrong (docs/reference/policy.md)."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.codec.canonical import canonical
from agentmesh.errors import ConfigError, DecodeError
from agentmesh.identity.budget import Budget
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest, build_card, read_record, sign_card
from agentmesh.node.policy import policy as module
from agentmesh.node.policy.cedar import CODE_CHARS_MAX, DEPTH_MAX, Engine, statements
from agentmesh.node.policy.facts import Facts, Ruling
from agentmesh.node.policy.files import FILE_BYTES_MAX, Source
from agentmesh.node.policy.lists import ENTRIES_MAX, ISSUERS_MAX, read_lists
from agentmesh.node.policy.policy import Policy

NOW = 1_800_000_000


def key(number: int) -> KeyPair:
    return KeyPair.generate(bytes([number]) * 32)


HERE, OTHER, ACME, STRANGER = (key(n).did for n in (1, 2, 3, 4))
CALC, WRITER, ACME_BOT = (key(n).did for n in (11, 12, 13))


def manifest(number: int, node: str, name: str, *tags: str, seq: int = 1) -> Manifest:
    skill = {"id": "s", "name": "S", "description": "Does it.", "tags": list(tags) or ["misc"]}
    one = key(number)
    card = build_card(
        agent_key_did=one.did, node_id=node, name=name, description="An agent.", version="1", skills=[skill],
        input_modes=["text/plain"], output_modes=["text/plain"], seq=seq, iat=NOW, exp=NOW + 3600,
    )  # fmt: skip
    return read_record(canonical(sign_card(one, card)), now=NOW, require_signed=True)


class Trust:
    """Trusts as the test says."""

    def __init__(self) -> None:
        self.scores: dict[str, float] = {}

    def score(self, who: str) -> float:
        return self.scores.get(who, 0.0)

    def tier(self, who: str) -> str:
        return "high" if self.score(who) > 0.7 else "low"


class World:
    """A policy over files of the test, with a clock that the test moves."""

    def __init__(self, directory: Path, mode: str = "auto") -> None:
        self.directory, self.clock_s, self.trust = directory, 0.0, Trust()
        self.known = {
            one.agent_id: one
            for one in (
                manifest(11, HERE, "calc", "maths"),
                manifest(12, OTHER, "writer", "prose"),
                manifest(13, ACME, "acme-bot", "finance"),
            )
        }
        self.policy = Policy(
            HERE,
            directory,
            mode,
            manifest_of=self.known.get,  # type: ignore[arg-type]
            name_of=lambda node: f"node-{node[-4:]}",
            trust=self.trust,
            clock_s=lambda: self.clock_s,
        )

    def write(self, **files: str) -> World:
        self.directory.mkdir(exist_ok=True, mode=0o700)
        for name, text in files.items():
            path = self.directory / name.replace("_", ".")
            path.write_text(text, "utf-8")
            path.chmod(0o600)
        self.clock_s += 10
        return self

    def rule(self, caller: str = STRANGER, node: str = "", callee: str = CALC, **facts: Any) -> Ruling:
        """Rule on a call of an agent (by its own key), or of the person at a node."""
        home = self.known[caller].node_id if caller in self.known else caller
        return self.policy.rule(Facts(caller, node or home, caller, callee, **facts))

    def ok(self, *args: Any, **facts: Any) -> bool:
        return self.rule(*args, **facts).allowed


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "policies")


LISTS = f"""
deny = []
[organisations.own]
keys = ["{OTHER}"]
[organisations.acme]
keys = ["{ACME}"]
"""


def lists(**members: Any) -> str:
    head = "".join(f"{name} = {value}\n" for name, value in members.items())
    return head + LISTS.replace("deny = []\n", "" if "deny" in members else "deny = []\n")


# -- the default -------------------------------------------------------------------------------------------------------


def test_on_the_first_day_everybody_may_call_and_status_says_so(world: World) -> None:
    assert all(world.ok(who) for who in (HERE, WRITER, ACME_BOT, STRANGER))
    assert world.rule().rule.startswith("open")
    assert "no policy" in world.policy.warnings(connected=True)[0]
    assert world.policy.warnings(connected=False) == [], "nobody else is there"
    assert World(world.directory, "open").policy.warnings(connected=True) == [], "it was chosen"


def test_the_first_file_closes_the_node_across_organisations_and_leaves_ones_own_open(world: World) -> None:
    world.write(lists_toml=LISTS)
    assert all(world.ok(who) for who in (HERE, CALC, OTHER, WRITER))
    assert not any(world.ok(who) for who in (ACME, ACME_BOT, STRANGER))
    assert world.rule(ACME_BOT).ground == "default"


def test_an_organisation_that_names_this_node_is_its_own_and_so_one_file_does_for_all_its_nodes(world: World) -> None:
    world.write(lists_toml=f'[organisations.acme]\nkeys = ["{HERE}", "{ACME}"]')
    assert world.ok(ACME_BOT)
    assert not world.ok(OTHER)


def test_an_agent_that_was_given_to_another_organisation_may_call_its_agents_and_no_others(world: World) -> None:
    world.known[key(14).did] = manifest(14, HERE, "hosted")
    world.write(lists_toml=f'[organisations.acme]\nkeys = ["{ACME}", "{key(14).did}"]')
    assert world.ok(ACME_BOT, callee=key(14).did), "both are acme's"
    assert not world.ok(ACME_BOT, callee=CALC)
    assert not world.ok(key(14).did, callee=CALC), "a guest at this node is not its owner"
    assert world.ok(HERE, callee=key(14).did), "the person at this node may call all of it"


def test_modes_hold_without_any_file_and_strict_lets_only_the_person_here_call(tmp_path: Path) -> None:
    closed, strict = World(tmp_path / "none", "closed"), World(tmp_path / "none", "strict")
    assert (closed.ok(CALC), closed.ok(WRITER)) == (True, False)
    assert (strict.ok(HERE), strict.ok(CALC), strict.ok(WRITER)) == (True, False, False)
    assert World(tmp_path / "none", "open").write(lists_toml=LISTS).ok(STRANGER)


def test_a_grant_lets_its_holder_in_where_the_node_is_closed_and_not_where_a_rule_is_asked_for(tmp_path: Path) -> None:
    closed, strict = World(tmp_path / "closed", "closed"), World(tmp_path / "strict", "strict")
    assert (closed.ok(ACME_BOT), closed.ok(ACME_BOT, root=HERE, principal=HERE)) == (False, True)
    assert not strict.ok(ACME_BOT, root=HERE, principal=HERE)
    closed.write(lists_toml=lists(deny=f'["{ACME}"]'))
    assert not closed.ok(ACME_BOT, root=HERE, principal=HERE), "deny wins"


# -- lists -------------------------------------------------------------------------------------------------------------


def test_deny_wins_over_everything_and_counts_against_every_name_that_is_given(world: World) -> None:
    world.write(lists_toml=lists(deny=f'["{WRITER}"]', allow=f'["{WRITER}", "{OTHER}"]'))
    assert world.rule(WRITER).ground == "deny"
    as_node = Facts(OTHER, OTHER, WRITER, CALC)  # its node signs and says it is for the writer
    assert world.policy.rule(as_node).ground == "deny"
    assert world.ok(OTHER)
    world.write(lists_toml=lists(deny=f'["{ACME}"]', allow=f'["{ACME_BOT}"]'))
    assert not world.ok(ACME_BOT), "its node is denied"
    assert not world.ok(WRITER, principal=ACME, root=HERE), "and so is whom a grant is for"


def test_organisations_and_tags_can_be_listed_and_a_reason_is_kept(world: World) -> None:
    world.write(lists_toml=lists(deny='[{who = "organisation:acme", why = "the contract has ended"}]'))
    ruling = world.rule(ACME_BOT)
    assert (ruling.allowed, ruling.rule, ruling.reason) == (False, "organisation:acme", "the contract has ended")
    assert ruling.source.startswith("lists.toml:1")
    world.write(lists_toml=lists(allow='["organisation:acme"]'))
    assert world.rule(ACME_BOT).ground == "allow"


def test_a_tag_that_somebody_gives_itself_counts_against_it_and_never_for_it(world: World) -> None:
    world.write(lists_toml=lists(allow='["tag:finance"]'))
    assert not world.ok(ACME_BOT), "it only says so itself"
    world.write(lists_toml=lists(allow='["tag:Finance"]') + f'[tags."FINANCE"]\nkeys = ["{ACME_BOT}"]')
    assert world.ok(ACME_BOT), "the operator says so; letter case does not matter"
    world.write(lists_toml=lists(deny='["tag:prose"]'))
    assert not world.ok(WRITER)
    world.write(lists_toml=lists(allow='["tag:fіnance"]') + f'[tags.finance]\nkeys = ["{ACME_BOT}"]')
    assert not world.ok(ACME_BOT), "a Cyrillic look-alike is another tag"


def test_a_name_that_a_node_signs_for_counts_only_if_that_agent_says_it_lives_there(world: World) -> None:
    world.write(lists_toml=lists(allow=f'["{ACME_BOT}"]'))
    assert world.policy.rule(Facts(ACME, ACME, ACME_BOT, CALC)).allowed, "its own manifest names this node"
    assert not world.policy.rule(Facts(STRANGER, STRANGER, ACME_BOT, CALC)).allowed, "anybody could say that"


def test_grey_callers_need_trust_and_come_last(world: World) -> None:
    world.write(lists_toml=lists(grey='["organisation:acme"]', grey_trust_min="0.4"))
    low = world.rule(ACME_BOT)
    assert (low.allowed, low.ground, low.trust) == (False, "grey", True)
    world.trust.scores[ACME_BOT] = 0.4
    fair = world.rule(ACME_BOT)
    assert (fair.allowed, fair.priority_max) == (True, 0)


def test_the_more_particular_of_allow_and_grey_wins_and_grey_among_equals(world: World) -> None:
    world.write(lists_toml=lists(grey='["organisation:acme"]', allow=f'["{ACME_BOT}"]'))
    assert world.rule(ACME_BOT).ground == "allow"
    world.write(lists_toml=lists(grey=f'["{ACME_BOT}"]', allow='["organisation:acme"]'))
    assert world.rule(ACME_BOT).ground == "grey"
    world.write(lists_toml=lists(grey='["organisation:acme"]', allow='["organisation:acme"]'))
    assert world.rule(ACME_BOT).ground == "grey"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("deny = [\n", 2, "TOML"),
        ("[deny]\n", 0, "should be"),
        ("\nalow = []\n", 2, "alow"),
        ('\n\ndeny = ["did:key:z6Mkwrong"]', 3, "did:key:z6Mkwrong"),
        (f'deny = ["{CALC[:-1]}а"]', 1, "no entry"),
        ('deny = ["organisation:acme"]', 1, "not in this file"),
        ('deny = ["role:admin"]', 1, "no entry"),
        ('deny = [{who = "tag:x", why = "a\\nb"}]', 1, "one line"),
        ("[organisations.Acme]\nkeys = []", 1, "no name of an organisation"),
        ('[organisations."аcme"]\nkeys = []', 1, "no name of an organisation"),
        (f'[organisations.a]\nkeys = ["{CALC}"]\n[organisations.b]\nkeys = ["{CALC}"]', 2, "two organisations"),
        ("grey_trust_min = 1.5", 0, "1.0"),
        ("grey_trust_min = nan", 0, "should be"),
        ("x = " + "[" * 5000, 0, "TOML"),
    ],
)
def test_what_is_wrong_with_lists_is_said_with_its_line(text: str, line: int, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_lists(Source("lists.toml", text))
    assert error.value.code == "policy.file"
    assert error.value.extra["line"] == line
    assert says in f"{error.value} {error.value.why}"


# -- published lists ---------------------------------------------------------------------------------------------------


def test_a_published_list_is_in_force_at_once_and_the_newest_of_an_issuer_wins(world: World) -> None:
    published = world.policy.lists
    assert world.ok(ACME_BOT)
    assert published.apply(OTHER, 5, {"deny": [{"who": ACME, "why": "it floods"}]})
    ruling = world.rule(ACME_BOT)
    assert (ruling.ground, ruling.source, ruling.reason) == ("deny", OTHER, "it floods")
    assert not published.apply(OTHER, 5, {}), "the same number again"
    assert not published.apply(OTHER, 4, {}), "an older one"
    assert not world.ok(ACME_BOT)
    assert published.apply(OTHER, 6, {"grey": [ACME]})
    assert world.rule(ACME_BOT).ground == "grey"
    assert published.withdraw(OTHER)
    assert world.rule(ACME_BOT).ground == "default"
    assert not published.withdraw(OTHER)


def test_a_published_list_does_not_close_an_open_node_and_stays_when_files_change(world: World) -> None:
    world.policy.lists.apply(OTHER, 1, {"deny": [STRANGER]})
    assert world.ok(ACME_BOT)
    world.write(lists_toml=lists(allow=f'["{STRANGER}"]'))
    assert world.rule(STRANGER).ground == "deny", "deny wins, whoever said it"


@pytest.mark.parametrize(
    "body",
    [
        {"deny": ["everybody"]},
        {"deny": "all"},
        {"block": []},
        {"deny": [{"who": STRANGER, "reason": "x"}]},
        {"deny": [{"who": STRANGER, "why": "x" * 300}]},
        {"allow": [STRANGER] * (ENTRIES_MAX + 1)},
        {"allow": [7]},
    ],
)
def test_a_published_list_that_cannot_be_read_changes_nothing(world: World, body: Any) -> None:
    world.policy.lists.apply(OTHER, 1, {"deny": [STRANGER]})
    with pytest.raises(DecodeError) as error:
        world.policy.lists.apply(OTHER, 2, body)
    assert error.value.code == "policy.list"
    assert not world.ok(STRANGER)
    assert world.policy.lists.issuers() == [(OTHER, 1, 1)]


def test_only_so_many_issuers_are_heard(world: World) -> None:
    for number in range(ISSUERS_MAX):
        world.policy.lists.apply(key(100 + number).did, 1, {})
    with pytest.raises(ConfigError):
        world.policy.lists.apply(key(99).did, 1, {})


# -- policies ----------------------------------------------------------------------------------------------------------

PERMIT = """
// acme; may add
@id("acme-adds") @reason("acme may only add")
permit(principal in Organisation::"acme", action == Action::"call", resource)
when { resource.name == "calc" && context.skill == "add" };
"""


def test_a_policy_permits_what_the_default_would_not_and_nothing_more(world: World) -> None:
    world.write(lists_toml=LISTS, acme_cedar=PERMIT)
    ruling = world.rule(ACME_BOT, skill="add")
    assert (ruling.allowed, ruling.ground, ruling.rule, ruling.source) == (True, "permit", "acme-adds", "acme.cedar:3")
    assert not world.ok(ACME_BOT, skill="divide")
    assert not world.ok(STRANGER, skill="add")
    assert world.ok(WRITER, skill="divide"), "the default still holds where no policy speaks"


def test_a_forbid_wins_over_default_and_allow_list_and_gives_its_reason(world: World) -> None:
    world.write(
        lists_toml=lists(allow=f'["{ACME_BOT}"]'),
        a_cedar=f'@reason("calc is for people") forbid(principal in Node::"{ACME}", action, resource);'
        f'\n\nforbid(principal == Caller::"{WRITER}", action, resource is Agent) unless {{ context.hops < 3 }};',
    )
    ruling = world.rule(ACME_BOT)
    assert (ruling.ground, ruling.reason, ruling.rule) == ("forbid", "calc is for people", "a.cedar:1")
    assert world.ok(WRITER)
    assert world.rule(WRITER, hops=3).rule == "a.cedar:3"


FACTS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ('context.purpose like "*audit*"', {"purpose": "the audit of May"}, {"purpose": "fun"}),
    ("context.trust >= 50", {"trust": 0.5}, {"trust": 0.49}),
    ('context.tier == "high"', {"trust": 0.8}, {"trust": 0.1}),
    ("context.delegated", {"root": STRANGER, "principal": "fun"}, {}),
    (
        'context has on_behalf_of && context.on_behalf_of == "finance"',
        {"root": STRANGER, "principal": "finance"},
        {"root": STRANGER, "principal": "fun"},
    ),
    (
        "context.budget has calls && context.budget.calls <= 3",
        {"budget": Budget(calls=3)},
        {"budget": Budget(tokens=1)},
    ),
    ('principal.claimed.name == "acme-bot"', {}, {"caller": STRANGER}),
    ('principal.claimed.tags.contains("finance")', {}, {"caller": STRANGER}),
    ('resource in Tag::"maths"', {}, {"callee": "other"}),
    ("context.hops == 2", {"hops": 2}, {"hops": 1}),
]


@pytest.mark.parametrize(("condition", "yes", "no"), FACTS, ids=[row[0] for row in FACTS])
def test_every_fact_can_be_asked_and_a_decision_from_memory_is_never_that_of_other_facts(
    tmp_path: Path, condition: str, yes: dict[str, Any], no: dict[str, Any]
) -> None:
    world = World(tmp_path / "policies", "strict")
    world.known[key(15).did] = manifest(15, HERE, "other")
    world.write(lists_toml=LISTS, a_cedar=f"permit(principal, action, resource) when {{ {condition} }};")

    def ask(facts: dict[str, Any]) -> bool:
        facts = dict(facts)
        caller = facts.pop("caller", ACME_BOT)
        world.trust.scores = {caller: facts.pop("trust", 0.0)}
        facts["callee"] = key(15).did if facts.get("callee") == "other" else CALC
        return world.ok(caller, **facts)

    assert [ask(yes), ask(no), ask(yes), ask(no)] == [True, False, True, False]


def test_what_only_more_trust_would_change_is_said_to_be_a_matter_of_trust(world: World) -> None:
    world.write(
        lists_toml=LISTS,
        a_cedar='permit(principal in Organisation::"acme", action, resource) when { context.trust > 60 };'
        'forbid(principal in Organisation::"own", action, resource) when { context.trust < 10 };',
    )
    assert world.rule(ACME_BOT).trust
    assert world.rule(WRITER).trust
    assert not world.rule(STRANGER).trust


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("permit(principal, action, resource)", 1, "semicolon"),
        ("\npermit(principal, action resource);", 2, "unexpected"),
        (
            'permit(principal, action, resource);\n\n  permit(principal, action, resource) when { context.skil == "" };',
            3,
            "skil",
        ),
        ('permit(principal, action == Action::"delete", resource);', 1, "delete"),
        ('permit(principal in Organisation::"acmee", action, resource);', 1, "acmee"),
        ('forbid(principal == Caller::"did:key:z6Mkа", action, resource);', 1, "match nobody"),
        ('forbid(principal, action, resource) when { principal in [Node::"laptop"] };', 1, "laptop"),
        ('permit(principal, action, resource) when { principal.name == "x" };', 1, "name"),
        ("permit(principal == ?principal, action, resource);", 1, "template"),
        ('@id("a") permit(principal, action, resource);\n@id("a") forbid(principal, action, resource);', 2, "twice"),
        ('@reason("a\\nb") permit(principal, action, resource);', 1, "one line"),
        (f'@id("{"x" * 200}") permit(principal, action, resource);', 1, "128"),
        (";", 1, ""),
        ('permit(principal, action, resource) when { context.skill == "a };', 1, "quote"),
        ("permit(principal, action, resource) when { " + "(" * DEPTH_MAX + "true" + ")" * DEPTH_MAX + "};", 1, "deep"),
        ("permit(principal, action, resource) when { " + "true && " * CODE_CHARS_MAX + "true };", 1, "long"),
        ("permit(principal, action, resource) when { context" + ".a" * 2000 + " };", 1, ""),
        ('permit(principal, action, resource) when { context.skill == "' + "x" * 70_000 + '" };', 1, "long"),
    ],
)
def test_what_is_wrong_with_a_policy_is_said_with_its_line(world: World, text: str, line: int, says: str) -> None:
    with pytest.raises(ConfigError) as error:
        Engine([Source("a.cedar", text)], ["own", "acme"])
    assert (error.value.code, error.value.extra) == ("policy.file", {"file": "a.cedar", "line": line})
    assert says in f"{error.value} {error.value.why}"


@functools.cache
def fresh() -> World:
    return World(Path("/nonexistent"), "closed")


NASTY = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            '"',
            '\\"',
            'add" || true || "',
            '"}',
            '{"__entity": {"type": "Caller", "id": "x"}}',
            "\x00",
            "\ud800",
            "//",
            ";",
            "аdd",
        ]
    ),
)


@functools.cache
def permitting() -> Engine:
    return Engine([Source("a.cedar", PERMIT)], ["own", "acme"])


@given(skill=NASTY, purpose=NASTY, says=NASTY)
def test_nothing_that_a_caller_says_can_speak_to_the_engine(skill: str, purpose: str, says: str) -> None:
    world = fresh()
    world.policy._cache.clear()
    world.policy.loaded = module.Loaded(read_lists(Source("lists.toml", LISTS)), permitting(), ("a.cedar",), "v")
    world.policy._read = True
    world.policy._look_s = 1e9
    allowed = world.policy.rule(Facts(ACME_BOT, ACME, ACME_BOT, CALC, skill, purpose)).allowed
    assert allowed == (skill == "add")
    assert not world.policy.rule(Facts(STRANGER, STRANGER, says, CALC, "add", purpose)).allowed


@given(st.lists(st.sampled_from(['permit(a, "x;y");', "// a; b\n", "forbid(\n);", '"\\";";', " ", "\n"]), max_size=12))
def test_statements_are_split_at_the_semicolons_that_count(parts: list[str]) -> None:
    found = list(statements(Source("a", "".join(parts))))
    wanted = [part for part in parts if part.strip() and not part.startswith("//")]
    assert [text for _, text in found] == wanted
    assert [line for line, _ in found] == sorted(line for line, _ in found)


def test_a_policy_that_cannot_be_evaluated_refuses_the_call(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """Cedar skips such a policy; a forbid that is skipped would let the call pass."""
    text = "forbid(principal, action, resource) when { context.hops + 9223372036854775807 > 0 };"
    world.write(lists_toml=LISTS, a_cedar=text)
    ruling = world.rule(HERE, hops=1)
    assert (ruling.allowed, ruling.ground) == (False, "broken")
    assert "overflow" in caplog.text
    assert "overflow" not in ruling.reason


def test_decisions_are_remembered_and_forgotten_with_every_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    decide = Engine.decide

    def counting(self: Engine, facts: Facts, *args: Any, **kwargs: Any) -> Any:
        asked.append(facts.skill)
        return decide(self, facts, *args, **kwargs)

    monkeypatch.setattr(Engine, "decide", counting)
    world.write(lists_toml=LISTS, acme_cedar=PERMIT)
    for purpose in ("a", "b", "a"):  # no policy looks at the purpose
        world.rule(ACME_BOT, skill="add", purpose=purpose)
    assert asked == ["add"]
    world.policy.lists.apply(OTHER, 1, {})
    world.rule(ACME_BOT, skill="add")
    assert len(asked) == 2
    world.known[CALC] = manifest(11, HERE, "renamed", seq=2)
    assert not world.ok(ACME_BOT, skill="add"), "the agent has another name now"
    monkeypatch.setattr(module, "CACHE_MAX", 50)
    for number in range(200):
        world.rule(ACME_BOT, skill=str(number))
    assert len(world.policy._cache) <= 50


# -- files -------------------------------------------------------------------------------------------------------------


def test_a_change_is_seen_within_a_second_and_a_bad_file_leaves_the_old_policy_in_force(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.write(lists_toml=LISTS, acme_cedar=PERMIT)
    assert world.ok(ACME_BOT, skill="add")
    version = world.policy.version
    world.write(acme_cedar="permit(principal, action, resource")
    assert world.ok(ACME_BOT, skill="add")
    assert not world.ok(STRANGER)
    assert world.policy.version == version
    warning = world.policy.warnings(connected=True)[0]
    assert "acme.cedar:1" in warning
    assert "former policy stays in force" in warning
    assert caplog.text.count("acme.cedar:1") == 1, "the log is told once"
    world.write(acme_cedar="forbid(principal, action, resource);")
    assert not world.ok(HERE)
    assert world.policy.warnings(connected=True) == []
    (world.directory / "acme.cedar").unlink()
    world.clock_s += 0.5
    assert not world.ok(HERE), "not looked at yet"
    world.clock_s += 0.6
    assert world.ok(HERE)


def test_a_node_that_starts_with_a_bad_file_lets_nobody_but_itself_call_until_it_is_mended(world: World) -> None:
    world.write(lists_toml="deny = [")
    assert (world.ok(HERE), world.ok(CALC), world.ok(WRITER), world.ok(STRANGER)) == (True, False, False, False)
    assert world.policy.mode == "broken"
    assert "lists.toml:1" in world.policy.warnings(connected=True)[0]
    world.write(lists_toml=LISTS)
    assert world.ok(WRITER)


def test_files_that_are_all_gone_do_not_open_a_node(world: World) -> None:
    world.write(lists_toml=LISTS)
    assert not world.ok(STRANGER)
    (world.directory / "lists.toml").unlink()
    world.clock_s += 10
    assert not world.ok(STRANGER)
    assert "all policy files are gone" in world.policy.warnings(connected=True)[0]


def _large(path: Path) -> None:
    path.unlink()
    with open(path, "wb") as file:
        file.truncate(100 * 1024 * 1024)  # sparse
    path.chmod(0o600)


def _linked(path: Path) -> None:
    outside = path.parent.parent / "outside.cedar"
    outside.write_text("permit(principal, action, resource);")
    outside.chmod(0o600)
    path.unlink()
    path.symlink_to(outside)


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def _directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _dangling(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


BAD_FILES: list[tuple[str, Callable[[Path], Any], str]] = [
    ("100 MB", _large, f"at most {FILE_BYTES_MAX}"),
    (
        "a NUL",
        lambda path: path.write_bytes(b"//\n//\x00\npermit(principal, action, resource);"),
        "a.cedar:2: holds a NUL",
    ),
    ("no UTF-8", lambda path: path.write_bytes(b"// \xff"), "UTF-8"),
    ("a link out of the home", _linked, "is a link out of"),
    ("a link to nowhere", _dangling, "cannot be read"),
    ("a pipe", _fifo, "is not a file"),
    ("a directory", _directory, "is not a file"),
    ("writable by others", lambda path: path.chmod(0o666), "others may write"),
    ("a directory writable by others", lambda path: path.parent.chmod(0o777), "others may write"),
]


@pytest.mark.parametrize(("spoil", "says"), [pytest.param(*row[1:], id=row[0]) for row in BAD_FILES])
def test_a_file_that_is_not_what_it_should_be_is_refused_and_the_old_policy_stays(
    world: World, spoil: Callable[[Path], Any], says: str
) -> None:
    world.write(lists_toml=LISTS, a_cedar=PERMIT)
    assert world.ok(ACME_BOT, skill="add")
    spoil(world.directory / "a.cedar")
    world.clock_s += 10
    assert world.ok(ACME_BOT, skill="add")
    assert not world.ok(ACME_BOT, skill="divide")
    assert says in world.policy.warnings(connected=True)[0]


def test_a_file_that_vanishes_between_look_and_read_leaves_the_old_policy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.write(lists_toml=LISTS, a_cedar=PERMIT)
    assert world.ok(ACME_BOT, skill="add")
    listing = module.listing

    def vanishing(directory: Path) -> Any:
        seen = listing(directory)
        (directory / "a.cedar").unlink(missing_ok=True)
        return seen

    monkeypatch.setattr(module, "listing", vanishing)
    world.write(lists_toml=LISTS + "\n")
    assert world.ok(ACME_BOT, skill="add")
    assert "a.cedar: cannot be read" in world.policy.warnings(connected=True)[0]
    world.clock_s += 10
    assert not world.ok(ACME_BOT, skill="add"), "gone for good, and seen to be"
    assert world.policy.warnings(connected=True) == []


def test_links_inside_the_directory_are_followed_as_mounted_configuration_has_them(world: World) -> None:
    world.write(lists_toml=LISTS)
    (world.directory / ".data").mkdir()
    (world.directory / ".data" / "a.cedar").write_text(PERMIT)
    (world.directory / "a.cedar").symlink_to(".data/a.cedar")
    world.clock_s += 10
    assert world.ok(ACME_BOT, skill="add")


def test_names_that_are_not_read_are_told(world: World) -> None:
    world.write(lists_toml=LISTS)
    (world.directory / "rules.ceder").write_text("")
    world.clock_s += 10
    world.rule()
    assert "rules.ceder" in world.policy.warnings(connected=False)[0]


def test_without_the_engine_a_policy_file_is_an_error_that_names_the_extra(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "cedarpy", None)
    world.write(lists_toml=LISTS)
    assert world.ok(WRITER), "lists need no engine"
    world.write(a_cedar=PERMIT)
    assert world.ok(WRITER)
    assert world.policy.error is not None
    assert (world.policy.error.code, world.policy.error.hint) == ("policy.engine", "pip install 'agentmeshd[policy]'")


def test_the_engine_is_not_loaded_before_there_is_a_policy_of_its_language(tmp_path: Path) -> None:
    directory = tmp_path / "policies"
    World(directory).write(lists_toml=LISTS)
    code = (
        "import sys; from pathlib import Path; import agentmesh.node.node; from agentmesh.node.policy.policy import Policy\n"
        f"policy = Policy({HERE!r}, Path({str(directory)!r}), 'auto', lambda _: None, str); policy.refresh()\n"
        "assert policy.mode == 'closed', policy.error\n"
        "sys.exit('cedarpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
