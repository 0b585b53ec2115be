"""What is remembered of trust outlives the process, and stays bounded (docs/spec/trust.md §7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmesh.errors import ConfigError, Corrupt, StateError
from agentmesh.store.trust import EVENTS_EACH_MAX, KeptEvent, TallyRow, TrustStore


def tally(subject: str, good: float = 1.0) -> TallyRow:
    return TallyRow(subject, "n", good, 0.5, 0.25, 0.1, 0.2, 0.3, 10.0, 20.0)


def event(number: int) -> KeptEvent:
    return KeptEvent(number, "completed", 1.0, f"task {number}")


def test_sums_events_statements_and_facts_are_there_when_the_store_opens_again(tmp_path: Path) -> None:
    store = TrustStore.open(tmp_path / "trust.sqlite")
    store.save([tally("a"), tally("b", 9.0)], [("a", [event(1), event(2)])], [], [("clock_s", 12.5)])
    store.save_statement("n", "raw 1", 1)
    store.save_statement("n", "raw 2", 2)
    store.save_statement("m", "raw 3", 3)
    store.close()
    store = TrustStore.open(tmp_path / "trust.sqlite")
    assert store.tallies(10) == [tally("b", 9.0), tally("a")]
    assert store.tallies(1) == [tally("b", 9.0)]
    assert store.events("a") == [event(2), event(1)]
    assert (store.fact("clock_s"), store.fact("other")) == (12.5, None)
    assert store.statements(10) == ["raw 3", "raw 2"]
    store.drop_statement("m")
    assert store.statements(10) == ["raw 2"]


def test_of_each_subject_only_the_newest_events_stay(tmp_path: Path) -> None:
    store = TrustStore.open(tmp_path / "trust.sqlite")
    for number in range(100):
        store.save([tally("a")], [("a", [event(number)]), ("b", [event(number)] if number < 3 else [])], [], [])
    kept = store.events("a")
    assert len(kept) == EVENTS_EACH_MAX
    assert kept[0] == event(99)
    assert len(store.events("b")) == 3


def test_who_is_forgotten_goes_with_its_events_unless_it_came_back(tmp_path: Path) -> None:
    store = TrustStore.open(tmp_path / "trust.sqlite")
    store.save([tally("a"), tally("b")], [("a", [event(1)]), ("b", [event(2)])], [], [])
    store.save([tally("b", 3.0)], [("b", [event(3)])], ["a", "b"], [])
    assert store.tallies(10) == [tally("b", 3.0)]
    assert (store.events("a"), store.events("b")) == ([], [event(3)])


def test_a_damaged_or_newer_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "trust.sqlite"
    path.write_bytes(b"no database" * 1_000)
    with pytest.raises(Corrupt) as error:
        TrustStore.open(path)
    assert f"mv {path}" in (error.value.hint or "")
    assert path.read_bytes().startswith(b"no database")
    path.unlink()
    store = TrustStore.open(path)
    store._db.write("PRAGMA user_version=99")  # pyright: ignore[reportPrivateUsage]
    store.close()
    with pytest.raises(ConfigError) as newer:
        TrustStore.open(path)
    assert newer.value.code == "trust.newer"
    with pytest.raises(StateError):
        store.tallies(1)
