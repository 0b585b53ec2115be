"""Shared state on disk: what a commit keeps, what a full disk does, and histories that stay bounded."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmesh.errors import Full
from agentmesh.store.spaces import SpaceRow, SpaceStore, WriteRow


def row(number: int, *, dropped: tuple[bytes, ...] = (), key: str = "a") -> WriteRow:
    return WriteRow("team", key, b"m%d" % number, b"body%d" % number, b"past%d" % number, dropped, number)


def test_writes_histories_and_numbers_come_back_after_a_restart(tmp_path: Path):
    store = SpaceStore.open(tmp_path / "s.sqlite")
    birth = store.birth
    store.keep([row(1), row(2, dropped=(b"m1",)), SpaceRow("team", b"placed", 0)])
    store.keep([row(3, key="b")])
    store.sync()
    store.close()
    store = SpaceStore.open(tmp_path / "s.sqlite")
    assert store.birth == birth
    assert store.names() == ["team"]
    assert store.space("team") == SpaceRow("team", b"placed", 3)
    assert sorted(store.writes("team")) == [b"body2", b"body3"]
    assert store.pasts("team") == [("a", b"past1"), ("a", b"past2"), ("b", b"past3")]
    assert store.space("other") is None
    store.close()


def test_what_is_committed_stands_in_the_file_without_closing_it(tmp_path: Path):
    store = SpaceStore.open(tmp_path / "s.sqlite")
    store.keep([row(1)])
    store.sync()
    copy = tmp_path / "copy.sqlite"
    copy.write_bytes((tmp_path / "s.sqlite").read_bytes())  # as a killed process leaves it
    (tmp_path / "copy.sqlite-wal").write_bytes((tmp_path / "s.sqlite-wal").read_bytes())
    other = SpaceStore.open(copy)
    assert other.writes("team") == [b"body1"]
    other.close()
    store.close()


def test_two_stores_never_have_the_same_birth(tmp_path: Path):
    one, other = SpaceStore.open(tmp_path / "a.sqlite"), SpaceStore.open(tmp_path / "b.sqlite")
    assert one.birth != other.birth
    one.close()
    other.close()


def test_a_long_history_is_cut(tmp_path: Path):
    store = SpaceStore.open(tmp_path / "s.sqlite", past_max=10)
    for number in range(1, 200):
        store.keep([row(number)])
    assert 10 <= len(store.pasts("team")) <= 10 + 33
    assert store.pasts("team")[-1] == ("a", b"past199")
    store.close()


def test_a_full_disk_keeps_none_of_the_rows_and_says_so(tmp_path: Path):
    store = SpaceStore.open(tmp_path / "s.sqlite")
    store.keep([row(1)])
    store._db.write("PRAGMA max_page_count=12")  # the smallest disk there is
    with pytest.raises(Full):
        store.keep([row(number)._replace(body=bytes(4000)) for number in range(2, 40)])
    assert store.writes("team") == [b"body1"]
    store._db.write("PRAGMA max_page_count=100000")
    store.keep([row(2)])
    assert len(store.writes("team")) == 2
    store.close()
