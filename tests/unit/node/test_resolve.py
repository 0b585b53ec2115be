"""From a name to replicas, best first."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.core.balance.balance import Balance
from agentmesh.core.balance.config import BalanceConfig
from agentmesh.errors import AgentNotFound, NoRoute
from agentmesh.ids import did_of, short
from agentmesh.node.resolve import candidate_of, find, offered


def did(number: int) -> str:
    return did_of(number.to_bytes(32, "big"))


@dataclass
class FakeManifest:
    agent_id: str
    node_id: str
    name: str
    signed: bool = True
    params: dict[str, object] = field(default_factory=dict)


@dataclass
class FakeEntry:
    manifest: Any
    healthy: bool | None = True
    local: bool = False


def entry(
    name: str, agent: int, node: int, *, signed: bool = True, healthy: bool | None = True, local: bool = False
) -> Any:
    return FakeEntry(FakeManifest(did(agent), did(node), name, signed), healthy, local)


class FakeDirectory:
    def __init__(self, every: list[Any]) -> None:
        self._every = every

    def entries(self) -> list[Any]:
        return self._every

    def entry(self, agent_id: str) -> Any:
        return next((e for e in self._every if e.manifest.agent_id == agent_id), None)

    def by_name(self, name: str) -> list[Any]:
        return [e for e in self._every if e.manifest.name == name]


NAMES = {did(1): "anna-laptop", did(2): "ben-server"}


def name_of(node_id: str) -> str:
    return NAMES.get(node_id, short(node_id))


def order(found: list[Any], connected: frozenset[str] = frozenset(), busy: dict[str, int] | None = None) -> list[str]:
    balance = Balance(BalanceConfig(), random.Random(1))
    candidates = [
        candidate_of(e, distance=0 if e.manifest.node_id in connected else 1, quiet=False, weight=1, trust=1.0)
        for e in offered(found)
    ]
    for candidate in candidates:
        for _ in range((busy or {}).get(candidate.replica.agent_id, 0)):
            balance.began(candidate.replica, 0.0)
    places = balance.order([c.replica for c in candidates], "least-connections", "", 0.0, 100)
    return [candidates[place].entry.manifest.agent_id for place in places]


def test_a_name_finds_every_replica_whatever_its_case() -> None:
    every = [entry("Calc", 10, 1), entry("calc", 11, 2), entry("echo", 12, 2)]
    assert len(find("CALC", FakeDirectory(every), name_of)) == 2


@pytest.mark.parametrize("node", ["ben-server", "BEN-SERVER", did(2), short(did(2)), did(2)[12:20]])
def test_a_node_after_the_at_sign_may_be_a_name_an_id_or_a_prefix(node: str) -> None:
    every = [entry("calc", 10, 1), entry("calc", 11, 2)]
    found = find(f"calc@{node}", FakeDirectory(every), name_of)
    assert did(11) in [e.manifest.agent_id for e in found]
    if node in ("ben-server", "BEN-SERVER", did(2), short(did(2))):
        assert len(found) == 1


def test_a_name_as_written_comes_before_the_same_name_in_other_letters() -> None:
    every = [entry("Calc", 10, 1), entry("calc", 11, 2)]
    assert [e.manifest.agent_id for e in find("calc", FakeDirectory(every), name_of)] == [did(11)]


def test_an_id_finds_exactly_that_agent() -> None:
    every = [entry("calc", 10, 1), entry("calc", 11, 2)]
    assert [e.manifest.agent_id for e in find(did(10), FakeDirectory(every), name_of)] == [did(10)]


def test_an_unknown_name_says_which_names_are_near() -> None:
    with pytest.raises(AgentNotFound) as caught:
        find("clac", FakeDirectory([entry("calc", 10, 1)]), name_of)
    assert caught.value.extra["did_you_mean"] == ["calc"]


def test_an_own_agent_comes_before_a_stranger_of_the_same_name() -> None:
    found = [entry("calc", 10, 2), entry("calc", 11, 1, local=True)]
    assert order(found, connected=frozenset({did(2)}))[0] == did(11)


def test_an_unsigned_agent_is_never_used_when_a_signed_one_carries_the_name() -> None:
    found = [entry("calc", 10, 1, signed=False), entry("calc", 11, 2)]
    assert order(found) == [did(11)]


def test_an_unsigned_agent_is_used_when_nothing_else_carries_the_name() -> None:
    assert order([entry("calc", 10, 1, signed=False)]) == [did(10)]


def test_a_connected_node_comes_before_one_that_must_be_dialled() -> None:
    found = [entry("calc", 10, 1), entry("calc", 11, 2)]
    assert order(found, connected=frozenset({did(2)}))[0] == did(11)


def test_among_equals_the_one_with_fewer_running_calls_comes_first() -> None:
    found = [entry("calc", 10, 1), entry("calc", 11, 1)]
    assert order(found, busy={did(10): 3})[0] == did(11)


def test_unhealthy_replicas_are_not_offered() -> None:
    found = [entry("calc", 10, 1, healthy=False), entry("calc", 11, 2)]
    assert order(found) == [did(11)]
    with pytest.raises(NoRoute) as caught:
        order([entry("calc", 10, 1, healthy=False)])
    assert caught.value.code == "agent.unhealthy"


@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.booleans(), st.sampled_from([True, None, False]), st.booleans()), min_size=1
    )
)
def test_the_order_holds_only_offered_replicas_once_each_and_puts_own_ones_first(rows: list[Any]) -> None:
    found = [
        entry("x", 100 + i, node, signed=signed, healthy=healthy, local=local)
        for i, (node, signed, healthy, local) in enumerate(rows)
    ]
    try:
        ids = order(found, connected=frozenset({did(1)}))
    except NoRoute:
        assert all(e.healthy is False for e in found)
        return
    entries = {e.manifest.agent_id: e for e in found}
    assert len(ids) == len(set(ids))
    assert all(entries[i].healthy is not False for i in ids)
    locals_first = [entries[i].local for i in ids]
    assert locals_first == sorted(locals_first, reverse=True)


@pytest.mark.parametrize("trust", [-1.0, 2.0, float("nan"), float("inf")])
def test_a_trust_that_is_none_counts_as_no_trust(trust: float) -> None:
    assert candidate_of(entry("x", 1, 1), distance=0, quiet=False, weight=1, trust=trust).replica.trust == 0.0
