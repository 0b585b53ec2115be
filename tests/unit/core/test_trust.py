"""Evidence, EigenTrust and scores: what they promise, and what attackers make of them (docs/spec/trust.md)."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import networkx
import pytest
from hypothesis import given
from hypothesis import strategies as st

# The public networkx.pagerank needs scipy; this is its reference implementation, in plain Python.
from networkx.algorithms.link_analysis.pagerank_alg import _pagerank_python  # pyright: ignore

from agentmesh.core.trust.config import WEIGHTS, WRONGS, Kind, TrustConfig
from agentmesh.core.trust.eigentrust import eigentrust
from agentmesh.core.trust.evidence import Ledger, Sums, Tally
from agentmesh.core.trust.network import Said
from agentmesh.core.trust.opinion import Opinions, reliance_of, score_of

CONFIG = TrustConfig()
HOUR_S, DAY_S = 3_600.0, 86_400.0
OWN = "own"
KINDS: tuple[Kind, ...] = tuple(WEIGHTS)
NEWCOMER = CONFIG.base
amounts = st.floats(0, 1e4, allow_nan=False)
sums = st.builds(Sums, amounts, amounts)
kinds = st.sampled_from(KINDS)


def trusting(*nodes: str, roots: tuple[str, ...] = ()) -> Opinions:
    """Return the opinions of a node that saw these nodes do well for a day."""
    opinions = Opinions(CONFIG, OWN, roots)
    for hour in range(24):
        for node in nodes:
            opinions.ledger.note(f"agent of {node}", "completed", hour * HOUR_S, node=node)
    return opinions


def weigh(opinions: Opinions, now_s: float = DAY_S) -> dict[str, float]:
    """Set the weights of words as ``node.trust`` does, and return the trust of every node."""
    seen = {s: opinions.ledger.sums(s, now_s) for s, tally in opinions.ledger.subjects() if not tally.node}
    trust = eigentrust(opinions.network.seen(seen), opinions.network.roots, restart=CONFIG.restart)
    opinions.network.weigh(trust)
    return trust


def well(node: str, amount: float = 50.0) -> Said:
    return Said(node, "", amount, 0.0)


def badly(node: str, amount: float = 50.0) -> Said:
    return Said(node, "", 0.0, amount)


# -- evidence ----------------------------------------------------------------------------------------------------------


def test_evidence_counts_half_after_its_half_life_and_a_quarter_after_two() -> None:
    ledger = Ledger(CONFIG)
    ledger.note("a", "completed", 0.0)
    assert ledger.sums("a", CONFIG.half_life_s).good == pytest.approx(0.5)
    assert ledger.sums("a", 2 * CONFIG.half_life_s).good == pytest.approx(0.25)
    ledger.note("a", "completed", CONFIG.half_life_s)
    assert ledger.sums("a", CONFIG.half_life_s).good == pytest.approx(1.5)


def test_each_kind_weighs_what_its_setting_says() -> None:
    for kind, weight in WEIGHTS.items():
        ledger = Ledger(CONFIG)
        assert ledger.note("a", kind, 0.0) == weight
        assert ledger.sums("a", 0.0) == Sums(max(0.0, weight), max(0.0, -weight))
    ledger = Ledger(replace(CONFIG, weights={**WEIGHTS, "failed": -2.0}))
    assert ledger.note("a", "failed", 0.0) == -2.0


def test_many_calls_within_an_hour_weigh_less_and_less_up_to_a_limit() -> None:
    ledger = Ledger(CONFIG)
    weights = [ledger.note("a", "completed", 0.0) for _ in range(1_000)]
    assert weights == sorted(weights, reverse=True)
    assert ledger.sums("a", 0.0).good == pytest.approx(CONFIG.hour_good)
    later = [ledger.note("a", "completed", 10 * HOUR_S) for _ in range(1_000)]
    assert sum(later) == pytest.approx(CONFIG.hour_good, rel=1e-3)


def test_a_thousand_agents_behind_one_node_are_one_source() -> None:
    one, many = Ledger(CONFIG), Ledger(CONFIG)
    for number in range(1_000):
        one.note("agent", "completed", 0.0, node="n")
        many.note(f"agent {number}", "completed", 0.0, node="n")
    assert many.sums("n", 0.0) == one.sums("n", 0.0)


def test_a_burst_of_silence_during_a_partition_weighs_less_than_two_failed_calls() -> None:
    ledger = Ledger(CONFIG)
    silent: list[Kind] = ["timeout", "unreached", "missed_lease"]
    for second in range(600):
        ledger.note("a", silent[second % 3], float(second))
    assert ledger.sums("a", 600.0).bad <= CONFIG.hour_luck * 1.2
    assert ledger.wrong("a", 600.0) == 0.0


def test_a_clock_that_goes_back_neither_ages_nor_revives_evidence() -> None:
    ledger = Ledger(CONFIG)
    ledger.note("a", "failed", DAY_S)
    before = ledger.sums("a", DAY_S)
    assert ledger.sums("a", 0.0) == before
    ledger.note("a", "failed", 0.0)
    assert ledger.sums("a", DAY_S).bad > before.bad
    ledger.assert_invariants()


def test_who_floods_the_table_with_new_names_pushes_out_no_old_ones() -> None:
    ledger = Ledger(replace(CONFIG, subjects_max=100))
    for hour in range(5):
        ledger.note("friend", "completed", hour * HOUR_S)
        ledger.note("foe", "bad_signature", hour * HOUR_S)
    for number in range(5_000):
        ledger.note(f"new {number}", "rejected", 5 * HOUR_S)
        ledger.assert_invariants()
    assert ledger.sums("friend", 5 * HOUR_S).good > 1.0
    assert ledger.sums("foe", 5 * HOUR_S).bad > 10.0
    assert len(ledger.forgotten) >= 4_900
    assert "foe" not in ledger.forgotten


def test_what_was_stored_wrongly_is_not_taken_back() -> None:
    ledger = Ledger(CONFIG)
    for spoilt in (Tally("", good=math.nan), Tally("", good=-1.0), Tally("", bad=math.inf), Tally("", wrong=1.0)):
        ledger.restore("a", spoilt)
    assert len(ledger) == 0
    ledger.restore("a", Tally("n", good=1.0, bad=2.0, wrong=2.0))
    assert ledger.sums("a", 0.0) == Sums(1.0, 2.0)


@given(
    st.lists(st.tuples(st.sampled_from("abcde"), kinds, st.floats(-HOUR_S, 100 * DAY_S), st.sampled_from(["", "n"])))
)
def test_no_run_of_evidence_breaks_a_bound(run: list[tuple[str, Kind, float, str]]) -> None:
    ledger = Ledger(replace(CONFIG, subjects_max=4))
    for subject, kind, at_s, node in run:
        ledger.note(subject, kind, at_s, node=node)
        ledger.assert_invariants()


# -- the score ---------------------------------------------------------------------------------------------------------


@given(sums, sums, st.floats(0, 1), st.floats(0.001, 100))
def test_the_score_is_bounded_and_moves_with_the_evidence(own: Sums, others: Sums, base: float, more: float) -> None:
    score = score_of(own, others, base, CONFIG)
    assert 0.0 <= score <= 1.0
    assert score_of(Sums(own.good + more, own.bad), others, base, CONFIG) >= score
    assert score_of(Sums(own.good, own.bad + more), others, base, CONFIG) <= score
    assert score_of(own, Sums(others.good + more, others.bad), base, CONFIG) >= score
    assert score_of(own, Sums(others.good, others.bad + more), base, CONFIG) <= score


@given(st.lists(kinds, max_size=30), kinds)
def test_one_more_good_call_never_lowers_a_score_and_anything_else_never_raises_it(run: list[Kind], last: Kind) -> None:
    opinions = Opinions(CONFIG, OWN)
    for kind in run:
        opinions.ledger.note("a", kind, 0.0, node="n")
    before = opinions.judge("a", "n", 0.0).score
    opinions.ledger.note("a", last, 0.0, node="n")
    after = opinions.judge("a", "n", 0.0).score
    assert after >= before - 1e-12 if WEIGHTS[last] > 0 else after <= before + 1e-12


def test_a_newcomer_is_unknown_and_low_and_good_work_lifts_it_over_hours() -> None:
    opinions = Opinions(CONFIG, OWN)
    assert opinions.judge("a", "n", 0.0)[:2] == (NEWCOMER, "unknown")
    tiers: list[str] = []
    for hour in range(8):
        for _ in range(50):
            opinions.ledger.note("a", "completed", hour * HOUR_S, node="n")
        tiers.append(opinions.judge("a", "n", hour * HOUR_S).tier)
    assert tiers[0] == "medium", "an hour of good calls is a start"
    assert "high" not in tiers[:2], "no number of calls within an hour or two makes anybody highly trusted"
    assert tiers[-1] == "high"


@given(st.lists(kinds, max_size=30))
def test_the_choice_between_replicas_starts_in_the_middle_and_follows_the_same_evidence(run: list[Kind]) -> None:
    opinions = Opinions(CONFIG, OWN)
    assert reliance_of(opinions.judge("a", "n", 0.0), CONFIG) == CONFIG.neutral
    for kind in run:
        before = reliance_of(opinions.judge("a", "n", 0.0), CONFIG)
        opinions.ledger.note("a", kind, 0.0, node="n")
        after = reliance_of(opinions.judge("a", "n", 0.0), CONFIG)
        assert 0.0 <= after <= 1.0
        assert after >= before - 1e-12 if WEIGHTS[kind] > 0 else after <= before + 1e-12
    assert reliance_of(opinions.judge("own agent", OWN, 0.0), CONFIG) == 1.0


def test_whitewashing_does_not_pay() -> None:
    """A new key is worth no more than the worst tier, and behind the same node it does not even shake off what was wrong."""
    opinions = Opinions(CONFIG, OWN)
    opinions.ledger.note("old", "abuse_report", 0.0, node="n")
    assert opinions.judge("old", "n", 0.0).tier == "low"
    fresh = opinions.judge("new", "n", 0.0)
    assert fresh.tier == "low"
    assert fresh.score <= opinions.judge("old", "n", 0.0).score + 1e-12
    elsewhere = opinions.judge("new", "other", 0.0)
    assert elsewhere.tier == "unknown"
    assert elsewhere.score < CONFIG.medium, "what a threshold asks for starts above any newcomer"


def test_an_agent_is_judged_once_for_its_own_wrong_and_all_agents_for_their_nodes() -> None:
    opinions = Opinions(CONFIG, OWN)
    opinions.ledger.note("a", "bad_signature", 0.0, node="n")
    assert opinions.judge("a", "n", 0.0).own.bad == -WEIGHTS["bad_signature"]
    assert opinions.judge("b", "n", 0.0).own.bad == -WEIGHTS["bad_signature"]
    assert opinions.judge("b", "other", 0.0).own.bad == 0.0


def test_own_agents_are_own_and_roots_are_trusted_beforehand_until_they_do_wrong() -> None:
    opinions = Opinions(CONFIG, OWN, ("root",))
    assert opinions.judge(OWN, "", 0.0)[:2] == (1.0, "own")
    assert opinions.judge("mine", OWN, 0.0)[:2] == (1.0, "own")
    assert opinions.judge("theirs", "root", 0.0)[:2] == (CONFIG.root_base, "high")
    opinions.ledger.note("root", "bad_signature", 0.0)
    assert opinions.judge("theirs", "root", 0.0).tier == "low"


def test_words_decide_where_little_was_seen_and_hardly_count_where_much_was() -> None:
    opinions = trusting("friend")
    for hour in range(24):
        opinions.ledger.note("seen", "completed", hour * HOUR_S, node="n")
    opinions.network.take("friend", 1, [Said("seen", "n", 0.0, 50.0), Said("unseen", "n", 0.0, 50.0)], DAY_S)
    weigh(opinions)
    seen, unseen = opinions.judge("seen", "n", DAY_S), opinions.judge("unseen", "n", DAY_S)
    assert seen.score > CONFIG.medium
    assert unseen.score < NEWCOMER
    assert unseen.tier == "low"


# -- EigenTrust against an independent implementation --------------------------------------------------------------------


def oracle(seen: dict[str, dict[str, float]], roots: list[str], restart: float) -> dict[str, float]:
    graph = networkx.DiGraph()
    graph.add_nodes_from(roots)
    for node, others in seen.items():
        graph.add_node(node)
        for other, value in others.items():
            graph.add_node(other)
            if value > 0:
                graph.add_edge(node, other, weight=value)
    start = {root: 1.0 / len(roots) for root in roots}
    return _pagerank_python(graph, 1 - restart, start, 1_000, 1e-13, None, "weight", start)


names = st.sampled_from([f"n{i}" for i in range(9)])
graphs = st.dictionaries(names, st.dictionaries(names, st.floats(0, 100), max_size=6), max_size=9)


@given(graphs, st.lists(names, min_size=1, max_size=3, unique=True), st.floats(0.05, 1.0))
def test_eigentrust_is_personalised_pagerank(
    seen: dict[str, dict[str, float]], roots: list[str], restart: float
) -> None:
    ours = eigentrust(seen, roots, restart=restart, rounds_max=1_000, change_min=1e-13)
    theirs = oracle(seen, roots, restart)
    assert sum(ours.values()) == pytest.approx(1.0)
    assert set(ours) == set(theirs)
    for node, value in theirs.items():
        assert ours[node] == pytest.approx(value, abs=1e-8)


def test_eigentrust_of_a_large_graph_is_that_of_the_oracle_too() -> None:
    rng = random.Random(7)
    everybody = [f"n{i}" for i in range(120)]
    seen = {node: {rng.choice(everybody): rng.random() * 10 for _ in range(20)} for node in everybody}
    ours = eigentrust(seen, ["n0", "n1"], restart=0.2, change_min=1e-12)
    theirs = oracle(seen, ["n0", "n1"], 0.2)
    assert max(abs(ours[node] - theirs[node]) for node in theirs) < 1e-8


# -- threat models of the paper (§7.3): honest nodes serve well and say so, the root knows two of them --------------------

HONEST = [f"honest {i}" for i in range(10)]
LIARS = [f"liar {i}" for i in range(10)]


def mesh_of_honest_nodes() -> Opinions:
    opinions = trusting(*HONEST[:2])
    for node in HONEST:
        opinions.network.take(node, 1, [well(other) for other in HONEST if other != node], DAY_S)
    return opinions


def share_of_liars(opinions: Opinions) -> float:
    trust = weigh(opinions)
    return sum(trust.get(liar, 0.0) for liar in LIARS)


def test_threat_a_liars_that_praise_each_other_alone_have_no_trust() -> None:
    """Model A: malicious nodes always serve badly and value whoever serves badly."""
    opinions = mesh_of_honest_nodes()
    for node in LIARS:
        opinions.network.take(node, 1, [well(other, 1e4) for other in LIARS if other != node], DAY_S)
    assert share_of_liars(opinions) == 0.0
    for liar in LIARS:
        assert opinions.judge(liar, "", DAY_S).score == NEWCOMER


def test_threat_b_a_clique_gains_nothing_by_however_much_praise() -> None:
    """Model B: the malicious nodes know each other and form a chain that keeps all trust within."""
    opinions = mesh_of_honest_nodes()
    for number, node in enumerate(LIARS):
        opinions.network.take(node, 1, [well(LIARS[(number + 1) % 10], 1e4), badly(HONEST[0], 1e4)], DAY_S)
    assert share_of_liars(opinions) == 0.0
    assert opinions.judge(HONEST[0], "", DAY_S) == trusted_without_liars(HONEST[0])


def test_threat_c_liars_that_sometimes_serve_well_get_no_more_trust_than_they_earn() -> None:
    """Model C: as B, but they serve well part of the time, so some honest nodes value them a little."""
    opinions = trusting(*HONEST[:2])
    for node in HONEST:
        rows = [*(well(other) for other in HONEST if other != node), *(well(liar, 2.0) for liar in LIARS)]
        opinions.network.take(node, 1, rows, DAY_S)
    for number, node in enumerate(LIARS):
        opinions.network.take(node, 1, [well(LIARS[(number + 1) % 10], 1e4)], DAY_S)
    assert share_of_liars(opinions) < 0.15
    assert all(opinions.network.weight_of(liar) < 0.1 for liar in LIARS)


def test_threat_d_spies_that_serve_well_and_praise_liars_lift_them_below_honest_nodes() -> None:
    """Model D: half of them (spies) serve well everywhere and pass their trust on to the other half."""
    opinions = trusting(*HONEST[:2])
    spies, wolves = LIARS[:5], LIARS[5:]
    for node in HONEST:
        opinions.network.take(node, 1, [well(other) for other in (*HONEST, *spies) if other != node], DAY_S)
    for spy in spies:
        opinions.network.take(spy, 1, [well(wolf, 1e4) for wolf in wolves], DAY_S)
    weigh(opinions)
    least_honest = min(opinions.judge(node, "", DAY_S).score for node in HONEST)
    assert all(opinions.judge(wolf, "", DAY_S).score < least_honest for wolf in wolves)
    # One look of our own is worth more than all that they say.
    for hour in range(24):
        opinions.ledger.note(wolves[0], "failed", DAY_S + hour * HOUR_S)
    assert opinions.judge(wolves[0], "", 2 * DAY_S).score < CONFIG.medium


def trusted_without_liars(node: str) -> object:
    opinions = mesh_of_honest_nodes()
    weigh(opinions)
    return opinions.judge(node, "", DAY_S)


def test_slander_by_a_thousand_new_ids_changes_nothing() -> None:
    opinions = mesh_of_honest_nodes()
    for number in range(1_000):
        opinions.network.take(f"nobody {number}", 1, [badly(HONEST[0], 1e4), badly("new", 1e4)], DAY_S)
        weigh(opinions) if number % 200 == 0 else None
    opinions.network.assert_invariants()
    weigh(opinions)
    assert opinions.judge(HONEST[0], "", DAY_S) == trusted_without_liars(HONEST[0])
    assert opinions.judge("new", "", DAY_S).score == NEWCOMER


@given(st.integers(1, 12), st.floats(0.001, 1e4), st.floats(0, 1e4), st.randoms(use_true_random=False))
def test_no_clique_without_roots_rises_above_a_newcomer(
    size: int, praise: float, slander: float, rng: random.Random
) -> None:
    opinions = mesh_of_honest_nodes()
    clique = [f"clique {i}" for i in range(size)]
    for node in clique:
        rows = [well(other, praise * rng.random()) for other in clique if other != node]
        opinions.network.take(node, 1, [*rows, *(badly(one, slander) for one in HONEST)], DAY_S)
    weigh(opinions)
    for node in clique:
        assert opinions.judge(f"agent of {node}", node, DAY_S).score <= NEWCOMER
        assert opinions.judge(node, "", DAY_S).score <= NEWCOMER


def test_what_somebody_says_of_itself_and_its_agents_does_not_count() -> None:
    opinions = trusting("friend")
    rows = [well("friend", 1e4), Said("agent", "friend", 1e4, 0.0), Said("disguised", "elsewhere", 1e4, 0.0)]
    opinions.network.take("friend", 1, rows, DAY_S)
    weigh(opinions)
    assert opinions.network.sums("friend", "", DAY_S) == Sums(0.0, 0.0)
    assert opinions.network.sums("agent", "friend", DAY_S) == Sums(0.0, 0.0)
    assert opinions.network.sums("disguised", "friend", DAY_S) == Sums(0.0, 0.0), "the manifest says where it lives"
    assert opinions.network.sums("disguised", "elsewhere", DAY_S).good > 0.0


def test_one_good_call_passes_on_little_trust() -> None:
    opinions = Opinions(CONFIG, OWN)
    opinions.ledger.note("stranger", "completed", 0.0)
    opinions.network.take("stranger", 1, [well("its friend", 1e4)], 0.0)
    weigh(opinions, 0.0)
    assert opinions.network.weight_of("stranger") < 0.2
    assert opinions.judge("its friend", "", 0.0).tier != "high"


def test_the_word_of_a_root_counts_in_full_and_at_most_as_much_as_the_limit_says() -> None:
    opinions = Opinions(CONFIG, OWN, ("root",))
    opinions.network.take("root", 1, [Said("a", "n", 1e4, 0.0)], 0.0)
    weigh(opinions, 0.0)
    assert opinions.network.weight_of("root") == pytest.approx(1.0)
    assert opinions.network.sums("a", "n", 0.0).good == pytest.approx(CONFIG.network)


# -- statements --------------------------------------------------------------------------------------------------------


def test_only_a_newer_statement_takes_the_place_of_another_and_old_ones_fade_and_go() -> None:
    opinions = trusting("friend")
    network = opinions.network
    assert network.take("friend", 5, [well("a")], DAY_S)
    assert not network.take("friend", 5, [badly("a")], DAY_S)
    assert not network.take("friend", 4, [badly("a")], DAY_S)
    assert network.seq_of("friend") == 5
    weigh(opinions)
    fresh = network.sums("a", "", DAY_S).good
    assert network.sums("a", "", DAY_S + CONFIG.stale_s).good < fresh
    assert network.take("friend", 6, [], DAY_S)
    assert network.words("a", "") == []
    assert network.expire(DAY_S + CONFIG.stale_s) == []
    assert network.expire(DAY_S + CONFIG.stale_s + 1) == ["friend"]
    network.assert_invariants()


def test_statements_are_bounded_and_those_of_trusted_nodes_stay() -> None:
    opinions = Opinions(replace(CONFIG, issuers_max=10), OWN)
    for hour in range(24):
        opinions.ledger.note("friend", "completed", hour * HOUR_S)
    opinions.network.take("friend", 1, [well("a")], DAY_S)
    weigh(opinions)
    for number in range(100):
        opinions.network.take(f"nobody {number}", 1, [well("b")], DAY_S)
        opinions.network.assert_invariants()
    assert len(opinions.network) == 10
    assert opinions.network.seq_of("friend") == 1
    assert not opinions.network.take(OWN, 1, [well("b")], DAY_S), "nobody needs to be told its own words"


def test_kinds_that_are_wrong_are_those_that_no_bad_luck_explains() -> None:
    assert {"bad_signature", "protocol_abuse", "abuse_report"} == WRONGS
    assert min(-WEIGHTS[kind] for kind in WRONGS) > max(-WEIGHTS[kind] for kind in KINDS if kind not in WRONGS)
