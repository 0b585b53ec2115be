"""Secrets on disk: private from the first moment, made once, refused when others can read them, never shown."""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import ConfigError, Full
from agentmesh.store import keyfile
from agentmesh.store.keyfile import load_or_create_key, load_or_create_token


def test_a_key_is_made_once_with_mode_0600_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "identity" / "agents" / "echo.key"
    old = os.umask(0o277)
    try:
        os.umask(0o000)
        key = load_or_create_key(path)
    finally:
        os.umask(old)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert (tmp_path / "identity").stat().st_mode & 0o077 == 0
    assert path.parent.stat().st_mode & 0o077 == 0
    assert load_or_create_key(path).did == key.did
    assert load_or_create_key(tmp_path / "other.key").did != key.did
    assert [p.name for p in path.parent.iterdir()] == ["echo.key"], "nothing temporary stays"


def test_a_strict_umask_does_not_make_the_key_unreadable_for_its_owner(tmp_path: Path) -> None:
    old = os.umask(0o777)
    try:
        load_or_create_key(tmp_path / "node.key")
    finally:
        os.umask(old)
    assert (tmp_path / "node.key").stat().st_mode & 0o7777 == 0o600


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o610])
def test_a_key_that_others_can_open_is_refused_and_left_as_it_is(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "node.key"
    load_or_create_key(path)
    content = path.read_text()
    path.chmod(mode)
    with pytest.raises(ConfigError) as refused:
        load_or_create_key(path)
    assert refused.value.code == "key.permissions"
    assert refused.value.hint == f"chmod 600 {path}"
    assert path.read_text() == content
    assert path.stat().st_mode & 0o777 == mode


@pytest.mark.parametrize(
    "content", ["", "x", "agentmesh ed25519 seed v1\n", "agentmesh ed25519 seed v1\n" + "A" * 64, "f" * 5000]
)
def test_wrong_content_is_refused_without_showing_or_replacing_it(tmp_path: Path, content: str) -> None:
    path = tmp_path / "node.key"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as refused:
        load_or_create_key(path)
    assert refused.value.code == "key.malformed"
    assert not content or len(content) < 2 or content not in str(refused.value.to_dict())
    assert path.read_text() == content


def test_neither_messages_nor_repr_show_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    key = load_or_create_key(path)
    seed = path.read_text().split()[-1]
    assert key.seed.hex() == seed
    assert seed not in repr(key)
    path.write_text(path.read_text() + "more\n")
    with pytest.raises(ConfigError) as refused:
        load_or_create_key(path)
    assert seed not in str(refused.value.to_dict())


def test_a_directory_or_pipe_in_its_place_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "directory.key").mkdir(mode=0o700)
    os.mkfifo(tmp_path / "pipe.key", 0o600)
    for name in ("directory.key", "pipe.key"):
        with pytest.raises(ConfigError) as refused:
            load_or_create_key(tmp_path / name)
        assert refused.value.code == "key.unreadable"


def test_two_starts_at_once_agree_on_one_key(tmp_path: Path) -> None:
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda: found.append(load_or_create_key(tmp_path / "node.key").did)) for _ in range(12)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 12
    assert len(set(found)) == 1


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(keyfile.os, "write", write)
    with pytest.raises(Full) as refused:
        load_or_create_key(tmp_path / "node.key")
    assert refused.value.code == "store.full"
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_hard_links_still_gets_its_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: Any) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(keyfile.os, "link", link)
    did = load_or_create_key(tmp_path / "node.key").did
    assert load_or_create_key(tmp_path / "node.key").did == did
    assert len(list(tmp_path.iterdir())) == 1


def test_a_token_is_made_once_private_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "api.token"
    token = load_or_create_token(path)
    assert len(token) >= 32
    assert load_or_create_token(path) == token
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(ConfigError) as refused:
        load_or_create_token(path)
    assert refused.value.code == "token.permissions"
    path.chmod(0o600)
    path.write_text("short\n")
    with pytest.raises(ConfigError) as refused:
        load_or_create_token(path)
    assert refused.value.code == "token.malformed"
