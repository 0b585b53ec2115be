"""Three processes of four real nodes each: they find each other through one, and no one of them is needed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet import Fleet, fleet, same_directory

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

Facts = list[dict[str, Any]]


@pytest.fixture
def twelve(tmp_path: Path) -> Iterator[Fleet]:
    """Twelve nodes of this test alone."""
    with settled(tmp_path) as nodes:
        yield nodes


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Twelve nodes for tests that leave them as they were."""
    with settled(tmp_path_factory.mktemp("fleet")) as nodes:
        yield nodes


@contextlib.contextmanager
def settled(root: Path) -> Iterator[Fleet]:
    """Start twelve nodes; each knows the seed, and one agent lives behind the first and the last of every process."""
    with fleet(root, 3, 4) as nodes:
        nodes.until(lambda facts: met(facts, 12), "all twelve to find each other")
        for number in (0, 3, 4, 7, 8, 11):
            nodes.ask(f"n{number}", "register", agent=f"echo-{number}")
        nodes.until(lambda facts: same_directory(facts, 6), "every node to know the six agents")
        nodes.until(lambda facts: all(one["healthy"] == 6 for one in facts), "every node to call them healthy")
        yield nodes


def met(facts: Facts, count: int) -> bool:
    """Say whether every node knows all others and is a member of a zone of them, or has long links beyond it."""
    return len(facts) == count and all(one["known"] >= count - 1 and one["members"] >= 2 for one in facts)


def test_nodes_that_know_one_seed_find_all_others_and_their_agents(calm: Fleet) -> None:
    assert calm.ask("n0", "call", to="echo-11", text="hi")["text"] == "n11: hi"
    assert calm.ask("n10", "call", to="echo-3", text="hi")["text"] == "n3: hi"
    shape = calm.ask("n5", "net")
    assert (shape["nodes"], shape["components"], shape["complete"]) == (12, 1, True)
    assert shape["zones"] == {"/": 12}


def test_the_agents_of_a_killed_process_go_unhealthy_everywhere_and_the_rest_goes_on(twelve: Fleet) -> None:
    twelve.squads[1].kill()
    twelve.until(
        lambda facts: all(one["names"] == ["echo-0", "echo-11", "echo-3", "echo-8"] for one in facts),
        "the two agents of the killed process to be offered nowhere",
        40,
    )
    assert twelve.ask("n9", "call", to="echo-0", text="still here")["text"] == "n0: still here"
    twelve.ask("n1", "register", agent="late")
    twelve.until(lambda facts: all("late" in one["names"] for one in facts), "a new agent to be known by all that live")


def test_a_killed_process_comes_back_with_its_stored_contacts_only_and_even_the_seed_may_be_gone(twelve: Fleet) -> None:
    back, seed = twelve.squads[2], twelve.squads[0]
    back.kill()
    twelve.until(lambda facts: all("echo-8" not in one["names"] for one in facts), "the death to be noticed", 40)
    seed.kill()
    back.start()
    back.ask("open", seeds=[])
    twelve.until(
        lambda facts: all({"echo-4", "echo-7", "echo-8", "echo-11"} <= set(one["names"]) for one in facts),
        "the returned nodes to know and be known again",
        40,
    )
    assert twelve.ask("n8", "call", to="echo-4", text="back")["text"] == "n4: back"


def test_a_node_that_leaves_takes_its_agents_along_at_once_and_is_not_called_dead(twelve: Fleet) -> None:
    twelve.ask("n11", "close")
    took_s = twelve.until(
        lambda facts: all("echo-11" not in one["names"] for one in facts), "the leave to be known", 20
    )
    states = [one["states"].get("n11", "left") for one in twelve.facts()]
    assert set(states) <= {"left", "unreached"}, states
    assert all(one["cut_off"] is None for one in twelve.facts())
    assert took_s < 20


def test_an_agent_that_falls_sick_is_offered_nowhere_until_it_is_well(calm: Fleet) -> None:
    calm.ask("n7", "sicken", sick=True)
    calm.until(lambda facts: all("echo-7" not in one["names"] for one in facts), "the sickness to be known", 30)
    calm.ask("n7", "sicken", sick=False)
    calm.until(lambda facts: all("echo-7" in one["names"] for one in facts), "the recovery to be known", 30)
