"""What outlives a process of calls: used tokens and receipts (docs/spec/tokens.md §7)."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from agentmesh.errors import Busy, ConfigError, Corrupt, Full, StateError, StoreError
from agentmesh.store import calls, used_tokens
from agentmesh.store.calls import CallStore
from agentmesh.store.database import Database
from agentmesh.store.receipt_journal import KeptReceipt
from tests.support.daemons import wait_until

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
    monkeypatch.setattr(used_tokens, "TOKENS_MAX", 10)
    store = CallStore.open(tmp_path / "calls.sqlite")
    for n in range(10):
        assert store.note_token("a", str(n), NOW + 10 * n, now=NOW)
    with pytest.raises(Busy) as error:
        store.note_token("a", "new", NOW + 90, now=NOW)
    assert error.value.code == "refused.busy.tokens"
    assert not store.is_noted("a", "new")
    assert store.note_token("a", "new", NOW + 120, now=NOW + 50)
    assert [n for n in range(10) if not store.is_noted("a", str(n))] == [0, 1, 2, 3, 4]
    store.close()
    store = CallStore.open(tmp_path / "calls.sqlite")
    assert [n for n in range(10) if not store.is_noted("a", str(n))] == [0, 1, 2, 3, 4]
    assert len(list((tmp_path / "calls").iterdir())) < 8, "what is over is no longer kept"


def test_what_a_killed_process_noted_and_kept_is_there_for_the_next(tmp_path: Path) -> None:
    store = CallStore.open(tmp_path / "calls.sqlite")  # and never closed
    assert store.note_token("a", "1", NOW + 90, now=NOW)
    for n in range(3):
        store.keep(receipt(n))
    for path in (tmp_path / "calls").iterdir():  # a write that the process did not live to end
        with path.open("ab") as file:
            file.write(b'["torn')
    following = CallStore.open(tmp_path / "calls.sqlite")
    assert not following.note_token("a", "1", NOW + 90, now=NOW)
    assert following.note_token("a", "2", NOW + 90, now=NOW)
    assert [k.hash for k in following.export()] == ["h0", "h1", "h2"]
    following.close()
    last = CallStore.open(tmp_path / "calls.sqlite")
    assert last.is_noted("a", "1")
    assert last.is_noted("a", "2")
    assert list((tmp_path / "calls").glob("*.jsonl")) == []


def test_a_receipt_is_found_whether_it_waits_or_is_filed(tmp_path: Path) -> None:
    store = CallStore.open(tmp_path / "calls.sqlite")
    for n in range(5):
        store.keep(receipt(n))
        assert store.receipt_of(f"t{n}", "b", "a") == f"r{n}"
        assert store.last_hash("b", "a") == f"h{n}"
    assert store.last_hash("b", "c") is None
    assert store._waiting, "nothing was filed for that"  # pyright: ignore[reportPrivateUsage]
    assert len(store.latest()) == 5
    assert not store._waiting  # pyright: ignore[reportPrivateUsage]
    assert store.receipt_of("t4", "b", "a") == "r4"
    assert store.last_hash("b", "a") == "h4"


def test_receipts_are_filed_in_the_background_without_being_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "_LINGER_S", 0.0)
    store = CallStore.open(tmp_path / "calls.sqlite")
    filed = threading.Event()
    real = store._journal.drop  # pyright: ignore[reportPrivateUsage]

    def drop(numbers: list[int]) -> None:
        real(numbers)
        filed.set()

    monkeypatch.setattr(store._journal, "drop", drop)  # pyright: ignore[reportPrivateUsage]
    for n in range(3):
        filed.clear()
        store.keep(receipt(n))
        assert filed.wait(10)
    store.close()


def test_a_database_that_refuses_receipts_delays_them_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "WAITING_MAX", 3)
    store = CallStore.open(tmp_path / "calls.sqlite")

    def full(*_: object) -> None:
        raise Full("no space left on device", code="store.full")

    with monkeypatch.context() as broken:
        broken.setattr(Database, "write_many", full)
        for n in range(3):
            store.keep(receipt(n))
            with pytest.raises(StoreError):
                store.latest()
        with pytest.raises(Full) as error:
            store.keep(receipt(3))
        assert error.value.code == "calls.behind"
        assert store.receipt_of("t2", "b", "a") == "r2"
        store.close()
    store = CallStore.open(tmp_path / "calls.sqlite")
    assert [k.hash for k in store.export()] == ["h0", "h1", "h2"]


def test_a_disk_that_is_full_refuses_tokens_and_receipts_and_takes_them_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = CallStore.open(tmp_path / "calls.sqlite")
    real = os.write

    def half(fd: int, data: bytes) -> int:
        return real(fd, data[: len(data) // 2])

    with monkeypatch.context() as broken:
        broken.setattr(os, "write", half)
        with pytest.raises(Full):
            store.note_token("a", "1", NOW + 90, now=NOW)
        with pytest.raises(Full):
            store.keep(receipt(1))
    assert not store.is_noted("a", "1")
    assert store.note_token("a", "1", NOW + 90, now=NOW)
    assert store.receipt_of("t1", "b", "a") is None
    store.keep(receipt(2))
    store.close()
    store = CallStore.open(tmp_path / "calls.sqlite")
    assert store.is_noted("a", "1")
    assert [k.hash for k in store.export()] == ["h2"]


def test_tokens_that_version_1_kept_in_a_table_are_still_refused(tmp_path: Path) -> None:
    now = int(time.time())
    with contextlib.closing(sqlite3.connect(tmp_path / "calls.sqlite")) as db:
        db.executescript(
            "CREATE TABLE tokens(caller TEXT NOT NULL, jti TEXT NOT NULL, until INTEGER NOT NULL, "
            "PRIMARY KEY(caller, jti)) WITHOUT ROWID;" + calls._SCHEMA + "PRAGMA user_version=1"  # pyright: ignore[reportPrivateUsage]
        )
        db.executemany("INSERT INTO tokens VALUES (?,?,?)", [("a", "old", now - 9), ("a", "good", now + 90)])
        db.commit()
    for _ in range(2):
        store = CallStore.open(tmp_path / "calls.sqlite")
        assert store.is_noted("a", "good")
        assert not store.is_noted("a", "old")
        store.close()


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
        store.latest(1)
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
    store.latest(1)
    asked: list[str] = []
    real = store._db.read
    store._db.read = lambda sql, *values: (asked.append(sql), real(sql, *values))[1]  # type: ignore[method-assign]
    assert store.receipt_of("t7", "b", "a") == "r7"
    assert store.receipt_of("t7", "b", "nobody") is None
    plan = real(f"EXPLAIN QUERY PLAN {asked[0]}", "t7", "b", "a")
    assert "receipts_task" in str(plan[0])


def test_a_task_without_receipt_costs_no_look_into_the_database_and_none_with_one_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "RECEIPTS_MAX", 40)
    monkeypatch.setattr(calls, "WAITING_MAX", 20)
    monkeypatch.setattr(calls, "_TRIM_EVERY", 10)
    asked: list[str] = []
    for start in (0, 60, 120):
        store = CallStore.open(tmp_path / "calls.sqlite")
        if start:
            assert store.receipt_of(f"t{start - 1}", "b", "a") == f"r{start - 1}"
            wait_until(lambda store=store: store._older is not None, "what is known of tasks")
        for n in range(start, start + 60):
            store.keep(receipt(n))
            store.latest(1)
        for n in range(start + 20, start + 60):
            assert store.receipt_of(f"t{n}", "b", "a") == f"r{n}"
        with monkeypatch.context() as spied:
            spied.setattr(store._db, "read", lambda sql, *_: asked.append(sql))
            for n in range(1_000):
                assert store.receipt_of(f"new{n}", "b", "a") is None
        store.close()
    assert len(asked) < 30
