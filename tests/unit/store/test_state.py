"""The small state: what is saved is there after a restart, numbers only rise, damage is moved aside and said so."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from agentmesh.errors import ConfigError, Corrupt, Full, LimitError, StateError
from agentmesh.store import state as module
from agentmesh.store.base import ContactRow
from agentmesh.store.state import StateStore


def test_registrations_survive_a_restart_until_deleted(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    store = StateStore.open(path)
    store.save_registration("echo", {"url": "http://127.0.0.1:1", "n": [1, None, "é"]})
    store.save_registration("calc", {"url": "x"})
    store.save_registration("calc", {"url": "y"})
    store.close()
    store = StateStore.open(path)
    assert store.registrations() == {"calc": {"url": "y"}, "echo": {"url": "http://127.0.0.1:1", "n": [1, None, "é"]}}
    assert store.delete_registration("calc")
    assert not store.delete_registration("calc")
    assert list(store.registrations()) == ["echo"]
    store.close()


def test_sequence_numbers_rise_across_restarts_and_with_a_clock_that_went_back(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    given: list[int] = []
    for now_ms in (1_700_000_000_000, 1_700_000_000_000, 5, 1_800_000_000_000, 0):
        store = StateStore.open(path)
        given.append(store.next_seq("agent", now_ms))
        store.close()
    assert given == sorted(set(given))
    assert given[0] == 1_700_000_000_000
    assert given[3] == 1_800_000_000_000
    store = StateStore.open(path)
    assert store.next_seq("other") == 1
    assert store.next_seq("other", 2**80) == 2**53 - 1
    store.close()


def test_contacts_are_listed_last_seen_first_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONTACTS_MAX", 20)
    store = StateStore.open(tmp_path / "state.sqlite")
    store.save_contact("b", ["tls:1", "x" * 600, *(f"iroh:{n}" for n in range(30))], source="mdns", last_seen=50)
    store.save_contact("a", ["ws:2"], source="static", last_seen=70)
    first, second = store.contacts()
    assert first == ContactRow("a", ("ws:2",), "static", 70)
    assert second.addresses[:2] == ("tls:1", "iroh:0")
    assert len(second.addresses) == 16
    for n in range(60):
        store.save_contact(f"n{n}", [], source="exchange", last_seen=100 + n)
    assert len(store.contacts()) <= 20
    assert store.contacts(1)[0].node_id == "n59"
    assert store.delete_contact("n59")
    store.close()


def test_single_values_can_be_set_read_and_removed(tmp_path: Path) -> None:
    store = StateStore.open(tmp_path / "state.sqlite")
    assert store.get("k") is None
    store.set("k", {"a": [1]})
    assert store.get("k") == {"a": [1]}
    store.set("k", None)
    assert store.get("k") is None
    with pytest.raises(LimitError):
        store.set("k", "x" * (2 << 20))
    store.close()


@pytest.mark.parametrize("damage", ["text", "holes", "no tables"])
def test_a_damaged_file_is_moved_aside_and_said_so(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "state.sqlite"
    store = StateStore.open(path)
    for n in range(200):
        store.save_registration(f"agent{n}", {"url": "x" * 100})
    store.close()
    if damage == "text":
        path.write_bytes(b"no database" * 1000)
    elif damage == "holes":
        data = bytearray(path.read_bytes())
        data[4096:] = bytes(len(data) - 4096)
        path.write_bytes(data)
    else:
        db = sqlite3.connect(path)
        db.execute("DROP TABLE counters")
        db.commit()
        db.close()
    store = StateStore.open(path)
    assert store.registrations() == {}
    assert "moved to state.sqlite.damaged.1" in store.report[0]
    assert (tmp_path / "state.sqlite.damaged.1").exists()
    store.save_registration("echo", {})
    store.close()
    assert StateStore.open(path).report == []


def test_only_the_newest_damaged_files_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    for _ in range(12):
        path.write_bytes(b"damage" * 500)
        StateStore.open(path).close()
    assert sorted(p.name for p in tmp_path.glob("*.damaged.*")) == [f"state.sqlite.damaged.{n}" for n in (10, 11, 12)]


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    StateStore.open(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version=99")
    db.close()
    with pytest.raises(ConfigError) as refused:
        StateStore.open(path)
    assert refused.value.code == "state.newer"
    assert list(tmp_path.glob("*.damaged.*")) == []


def test_a_place_that_cannot_be_written_is_no_damage(tmp_path: Path) -> None:
    with pytest.raises(Full):
        StateStore.open(tmp_path / "missing" / "state.sqlite")
    (tmp_path / "directory").mkdir()
    with pytest.raises((Full, Corrupt)):
        StateStore.open(tmp_path / "directory")
    assert list(tmp_path.glob("*.damaged.*")) == []


def test_the_file_is_private_and_a_closed_store_says_so(tmp_path: Path) -> None:
    path = tmp_path / "state.sqlite"
    store = StateStore.open(path)
    store.save_registration("a", {})
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0, file.name
    store.close()
    store.close()
    with pytest.raises(StateError):
        store.registrations()
