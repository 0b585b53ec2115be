"""The file of API keys: durable, private, and refused when it is not what it should be."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path

import pytest

from agentmesh.errors import ConfigError, Corrupt, LimitError, StateError
from agentmesh.store import keys
from agentmesh.store.keys import KeptKey, KeyStore


def key(name: str, secret: str = "") -> KeptKey:
    return KeptKey(name, hashlib.sha256((secret or name).encode()).digest(), ("read", "call:echo"), "t", 10, None)


def test_a_key_is_kept_by_its_hash_and_is_there_again_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite"
    store = KeyStore.open(path)
    store.add(key("ci", "amk_secret"))
    store.close()
    store = KeyStore.open(path)
    assert store.all() == [key("ci", "amk_secret")]
    store.close()
    assert path.stat().st_mode & 0o777 == 0o600
    assert not any(b"amk_secret" in file.read_bytes() for file in tmp_path.iterdir())


def test_a_key_that_was_removed_stays_removed(tmp_path: Path) -> None:
    store = KeyStore.open(tmp_path / "keys.sqlite")
    store.add(key("ci"))
    assert store.remove("ci")
    assert not store.remove("ci")
    store.close()
    assert KeyStore.open(tmp_path / "keys.sqlite").all() == []


def test_a_name_is_given_once_and_a_full_file_takes_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEYS_MAX", 2)
    store = KeyStore.open(tmp_path / "keys.sqlite")
    store.add(key("a"))
    with pytest.raises(StateError) as taken:
        store.add(key("a", "other"))
    assert taken.value.code == "keys.exists"
    store.add(key("b"))
    with pytest.raises(LimitError):
        store.add(key("c"))
    assert store.remove("a")
    store.add(key("c"))
    assert [one.name for one in store.all()] == ["b", "c"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o660, 0o644])
def test_a_file_that_others_can_open_is_refused_and_left_as_it_is(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "keys.sqlite"
    KeyStore.open(path).close()
    path.chmod(mode)
    with pytest.raises(ConfigError) as error:
        KeyStore.open(path)
    assert error.value.code == "keys.permissions"
    assert error.value.hint == f"chmod 600 {path}"
    assert path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\x00" + b"\xff" * 4000])
def test_a_damaged_file_is_an_error_that_says_what_to_do_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "keys.sqlite"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(Corrupt) as error:
        KeyStore.open(path)
    assert "agentmesh keys add" in str(error.value.hint)
    assert path.read_bytes() == content


def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite"
    KeyStore.open(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(ConfigError) as error:
        KeyStore.open(path)
    assert error.value.code == "keys.newer"
