"""The small SQLite files of the daemon: what is written together is there together, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmesh.errors import UsageError
from agentmesh.store.database import Database


def opened(path: Path) -> Database:
    return Database(path, "CREATE TABLE t(n INTEGER);", 1, name="test", damaged="mv it away")


@pytest.mark.parametrize("durable", [False, True])
def test_a_transaction_holds_all_that_was_written_in_it_or_nothing(tmp_path: Path, durable: bool) -> None:
    db = opened(tmp_path / "t.sqlite")
    with db.transaction(durable=durable):
        db.write("INSERT INTO t VALUES (1)")
        db.write("INSERT INTO t VALUES (2)")

    def fail() -> None:
        with db.transaction(durable=durable):
            db.write("INSERT INTO t VALUES (3)")
            raise UsageError("changed its mind")

    with pytest.raises(UsageError):
        fail()
    db.close()
    db = opened(tmp_path / "t.sqlite")
    assert db.read("SELECT n FROM t ORDER BY n") == [(1,), (2,)]
    db.close()


def test_each_write_is_as_safe_as_it_asks_whatever_the_one_before_asked(tmp_path: Path) -> None:
    db = opened(tmp_path / "t.sqlite")
    levels: list[int] = []
    for durable in (False, True, True, False, True):
        db.write("INSERT INTO t VALUES (1)", durable=durable)
        levels.append(db.read("PRAGMA synchronous")[0][0])
    with db.transaction():
        db.write("INSERT INTO t VALUES (2)", durable=True)  # the transaction decides
        levels.append(db.read("PRAGMA synchronous")[0][0])
    db.write("INSERT INTO t VALUES (3)", durable=True)
    levels.append(db.read("PRAGMA synchronous")[0][0])
    assert levels == [1, 2, 2, 1, 2, 1, 2], "1 is NORMAL, 2 is FULL"
    db.close()
