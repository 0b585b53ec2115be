"""What outlives a process of calls: used tokens and receipts (docs/spec/tokens.md §7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmesh.errors import Busy, ConfigError, Corrupt, Full, StateError
from agentmesh.store import calls
from agentmesh.store.calls import CallStore, KeptReceipt

NOW = 1_800_000_000


def receipt(number: int, *, task: str = "t", callee: str = "b") -> KeptReceipt:
    return KeptReceipt(f"h{number}", f"{task}{number}", f"run{number // 10}", callee, "a", f"r{number}", f"k{number}")


def test_a_token_is_noted_once_and_stays_noted_when_the_store_opens_again(tmp_path: Path) -> None:
    store = CallStore.open(tmp_path / "calls.sqlite")
    assert not store.is_noted("a", "1")
    assert store.note_token("a", "1", NOW + 90, now=NOW)
    assert not store.note_token("a", "1", NOW + 90, now=NOW)
    assert store.note_token("b", "1", NOW + 90, now=NOW), "ids are the caller's own"
    store.close()
    store = CallStore.open(tmp_path / "calls.sqlite")
    assert store.is_noted("a", "1")
    assert not store.note_token("a", "1", NOW + 90, now=NOW)


def test_a_full_store_forgets_what_is_over_and_nothing_that_is_still_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "TOKENS_MAX", 10)
    store = CallStore.open(tmp_path / "calls.sqlite")
    for n in range(10):
        assert store.note_token("a", str(n), NOW + n, now=NOW)
    with pytest.raises(Busy) as error:
        store.note_token("a", "new", NOW + 90, now=NOW)
    assert error.value.code == "refused.busy.tokens"
    assert not store.is_noted("a", "new")
    assert store.note_token("a", "new", NOW + 90, now=NOW + 5)
    assert store.is_noted("a", "9")
    assert not store.is_noted("a", "0")


def test_receipts_are_found_by_task_run_and_beginning_in_order(tmp_path: Path) -> None:
    store = CallStore.open(tmp_path / "calls.sqlite")
    for n in range(25):
        store.keep(receipt(n))
        store.keep(receipt(n))
    assert [k.hash for k in store.of_call("run1")] == [f"h{n}" for n in range(10, 20)]
    assert [k.hash for k in store.of_call("t24")] == ["h24"]
    assert store.of_call("nothing") == []
    assert [k.hash for k in store.latest(2)] == ["h24", "h23"]
    assert store.last_hash("b", "a") == "h24"
    assert store.last_hash("b", "c") is None
    assert [k.hash for k in store.export()] == [f"h{n}" for n in range(25)]


def test_the_oldest_receipts_go_when_there_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "RECEIPTS_MAX", 10)
    monkeypatch.setattr(calls, "_TRIM_EVERY", 5)
    store = CallStore.open(tmp_path / "calls.sqlite")
    for n in range(40):
        store.keep(receipt(n))
    assert [k.hash for k in store.export()] == [f"h{n}" for n in range(30, 40)]


def test_a_damaged_or_newer_file_is_left_as_it_is_and_said_so(tmp_path: Path) -> None:
    path = tmp_path / "calls.sqlite"
    path.write_bytes(b"no database" * 100)
    with pytest.raises(Corrupt) as error:
        CallStore.open(path)
    assert "mv " in (error.value.hint or "")
    assert path.read_bytes().startswith(b"no database")
    path.unlink()
    store = CallStore.open(path)
    store._db.write("PRAGMA user_version=99")  # pyright: ignore[reportPrivateUsage]
    store.close()
    with pytest.raises(ConfigError) as newer:
        CallStore.open(path)
    assert newer.value.code == "calls.newer"
    with pytest.raises(Full):
        CallStore.open(tmp_path / "nowhere" / "calls.sqlite")
    with pytest.raises(StateError):
        store.is_noted("a", "1")


def test_a_task_is_found_by_its_own_index_and_not_by_walking_over_all_of_its_pair(tmp_path: Path) -> None:
    store = CallStore.open(tmp_path / "calls.sqlite")
    for n in range(50):
        store.keep(receipt(n))
    asked: list[str] = []
    real = store._db.read
    store._db.read = lambda sql, *values: (asked.append(sql), real(sql, *values))[1]  # type: ignore[method-assign]
    assert store.receipt_of("t7", "b", "a") == "r7"
    assert store.receipt_of("t7", "b", "nobody") is None
    plan = real(f"EXPLAIN QUERY PLAN {asked[0]}", "t7", "b", "a")
    assert "receipts_task" in str(plan[0])
