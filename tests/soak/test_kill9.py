"""A hundred SIGKILLs at random moments (issue 2: loss 0)."""

from __future__ import annotations

import random

import pytest

from bench.soak_kill9 import soak


@pytest.mark.soak
def test_a_hundred_kills_lose_nothing_that_was_acknowledged() -> None:
    found = soak(100, random.SystemRandom().getrandbits(32))
    assert found["acknowledged"] > 10_000
    assert (found["lost"], found["differ"]) == (0, 0), f"python -m bench.soak_kill9 --kills 100 --seed {found['seed']}"
