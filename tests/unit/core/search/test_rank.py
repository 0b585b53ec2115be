"""The order of answers: what the parts of a score do, and which mixes are refused."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.core.search.rank import Parts, Ranked, Weights, merged, ranked
from agentmesh.errors import UsageError

part = st.floats(0, 1)
parts = st.builds(Parts, part, part, part)
weight = st.floats(0, 100)
found = st.dictionaries(st.text(min_size=1, max_size=4), parts, max_size=12).map(lambda table: list(table.items()))


@given(found, st.builds(Weights, weight, weight, weight).filter(lambda mix: sum(mix) > 1e-6))
def test_answers_are_ordered_by_score(answers: list[tuple[str, Parts]], mix: Weights) -> None:
    order = ranked(answers, mix)
    assert sorted(one.agent_id for one in order) == sorted(agent_id for agent_id, _ in answers)
    assert [one.score for one in order] == sorted((one.score for one in order), reverse=True)
    for one in order:
        assert min(one.parts) - 1e-9 <= one.score <= max(one.parts) + 1e-9


@given(parts, st.integers(0, 2), st.builds(Weights, weight, weight, weight).filter(lambda mix: sum(mix) > 1e-6))
def test_whoever_is_better_in_one_part_and_equal_in_the_others_never_comes_later(
    good: Parts, which: int, mix: Weights
) -> None:
    worse = good._replace(**{Parts._fields[which]: good[which] / 2})
    # The id that comes first in the alphabet is the worse one's, so that a tie would show it first only if it is a tie.
    order = ranked([("a-worse", worse), ("b-good", good)], mix)
    assert order[0].agent_id == "b-good" or order[0].score == order[1].score


def test_a_dead_or_untrusted_agent_does_not_come_before_a_good_one() -> None:
    order = ranked(
        [("dead", Parts(0.8, 0.9, 0.0)), ("shady", Parts(0.8, 0.05, 1.0)), ("good", Parts(0.8, 0.9, 1.0))], Weights()
    )
    assert order[0].agent_id == "good"


@pytest.mark.parametrize("bad", [(0, 0, 0), (-1, 1, 1), (math.nan, 1, 1), (math.inf, 1, 1)])
def test_a_mix_that_means_nothing_is_refused(bad: tuple[float, float, float]) -> None:
    with pytest.raises(UsageError) as caught:
        ranked([], Weights(*bad))
    assert caught.value.code == "discover.weights"


def test_an_agent_that_several_places_tell_of_stands_once_with_its_best_score() -> None:
    def one(agent_id: str, score: float) -> Ranked:
        return Ranked(agent_id, score, Parts(score, 0, 0))

    assert merged([[one("a", 0.9), one("b", 0.2)], [one("b", 0.5), one("c", 0.3)]]) == [
        one("a", 0.9),
        one("b", 0.5),
        one("c", 0.3),
    ]
