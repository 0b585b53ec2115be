"""Recall, nDCG and reciprocal rank: a perfect ranking is 1, order counts where it should, nothing leaves 0 … 1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.discovery.metrics import K, Metrics, judge, mean

NAMES = [f"agent-{n}" for n in range(30)]
GRADES = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 3), min_size=1, max_size=20)
RANKING = st.permutations(NAMES).flatmap(lambda names: st.integers(0, len(names)).map(lambda n: names[:n]))


@given(RANKING, GRADES)
def test_every_figure_lies_between_nothing_and_all(ranking: list[str], relevant: dict[str, int]) -> None:
    assert all(0 <= figure <= 1 for figure in judge(ranking, relevant))


@given(GRADES, st.permutations(NAMES))
def test_the_best_agents_in_the_order_of_their_grades_score_one(relevant: dict[str, int], rest: list[str]) -> None:
    best = sorted(relevant, key=lambda name: -relevant[name])
    assert judge([*best, *rest], relevant) == pytest.approx(Metrics(1, 1, 1))


@given(RANKING, GRADES)
def test_what_stands_below_the_tenth_place_and_doubles_count_for_nothing(
    ranking: list[str], relevant: dict[str, int]
) -> None:
    assert judge(ranking, relevant) == judge(ranking[:K], relevant)
    doubled = [name for name in ranking[:K] for _ in range(2)]
    assert judge(doubled, relevant) == judge(ranking[:K], relevant)


@given(st.permutations(NAMES), GRADES, st.integers(0, K - 2))
def test_a_better_agent_moved_up_never_lowers_and_always_raises_ndcg(
    ranking: list[str], relevant: dict[str, int], place: int
) -> None:
    upper, lower = ranking[place], ranking[place + 1]
    swapped = [*ranking[:place], lower, upper, *ranking[place + 2 :]]
    change = judge(swapped, relevant).ndcg - judge(ranking, relevant).ndcg
    gain = relevant.get(lower, 0) - relevant.get(upper, 0)
    assert change == pytest.approx(0, abs=1e-12) if gain == 0 else change * gain > 0


def test_figures_worked_out_by_hand() -> None:
    got = judge(["x", "a", "y", "b"], {"a": 3, "b": 1, "c": 2})
    assert got.recall == pytest.approx(2 / 3)
    assert got.mrr == 0.5
    # (7/log2(3) + 1/log2(5)) / (7 + 3/log2(3) + 1/2)
    assert got.ndcg == pytest.approx(0.51605, abs=1e-4)
    assert judge([], {"a": 1}) == Metrics(0, 0, 0)


def test_a_query_without_any_right_agent_is_refused_and_the_mean_of_nothing_is_nothing() -> None:
    with pytest.raises(ValueError, match="relevant"):
        judge(["a"], {"a": 0})
    assert mean([]) == Metrics(0, 0, 0)
    assert mean([Metrics(1, 1, 1), Metrics(0, 0.5, 0)]) == Metrics(0.5, 0.75, 0.5)
