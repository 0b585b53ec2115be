"""The further calls of one call: however the tree below it grows and ends, it never makes more than it may (guard.md §4.6)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.core.budget.purse import Purse
from agentmesh.errors import BudgetExceeded


class Branch:
    """A call of the tree: what it may pass on, and how many it really made below itself."""

    def __init__(self, bound: int | None, above: Branch | None) -> None:
        self.purse, self.bound, self.above = Purse(), bound, above
        self.open: list[Branch] = []
        self.made = 0


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 12), st.integers(0, 2**32), st.integers(1, 60))
def test_a_tree_of_calls_never_makes_more_than_its_root_allows(bound: int, seed: int, steps: int) -> None:
    rng = random.Random(seed)
    root = Branch(bound, None)
    alive = [root]
    total = 0
    for _ in range(steps):
        one = rng.choice(alive)
        if rng.random() < 0.6 or one is root or one.open:
            try:
                share = one.purse.take(one.bound, rng.choice([None, 0, 1, 5]))
            except BudgetExceeded:
                continue
            assert share is not None
            inner = Branch(share, one)
            one.open.append(inner)
            alive.append(inner)
            total += 1
            up: Branch | None = one
            while up is not None:
                up.made += 1
                up = up.above
        else:
            above = one.above
            assert above is not None
            above.open.remove(one)
            alive.remove(one)
            above.purse.give_back(above.bound, one.bound, rng.choice([one.made, None]))
        assert total <= bound
        assert all(branch.made <= branch.purse.spent <= (branch.bound or 0) for branch in alive)


def test_what_a_call_did_not_use_can_be_used_by_the_next_one() -> None:
    purse = Purse()
    for _ in range(3):
        share = purse.take(3, None)
        purse.give_back(3, share, 0)
    with pytest.raises(BudgetExceeded) as error:
        purse.take(3, None)
    assert error.value.code == "budget.calls"
    assert (purse.used, purse.spent) == (3, 3)


def test_side_by_side_only_what_each_names_is_held() -> None:
    purse = Purse()
    assert [purse.take(4, 0) for _ in range(3)] == [0, 0, 0]
    assert purse.take(4, 7) == 0
    with pytest.raises(BudgetExceeded):
        purse.take(4, 0)


def test_without_a_bound_calls_are_counted_and_nothing_is_refused() -> None:
    purse = Purse()
    shares = [purse.take(None, wanted) for wanted in (None, 5)]
    assert shares == [None, 5]
    purse.give_back(None, None, 2)
    purse.give_back(None, 5, None)
    assert purse.spent == 4
