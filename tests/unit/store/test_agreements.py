"""Agreement keys on disk: drawn each day, kept while mail to them may come, destroyed then, private from the first moment."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from agentmesh.errors import ConfigError, Full
from agentmesh.identity.agreement import KEEP_S, ROTATE_S
from agentmesh.store.agreements import KEYS_MAX, AgreementFile
from tests.support.records import EPOCH

LIFE_S = 86_400


def test_a_key_is_drawn_once_a_day_and_read_again_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "identity" / "agents" / "echo.x25519"
    file = AgreementFile(path)
    first = file.current(EPOCH, LIFE_S)
    assert path.stat().st_mode & 0o7777 == 0o600
    assert path.parent.stat().st_mode & 0o077 == 0
    assert file.current(EPOCH + ROTATE_S - 1, LIFE_S).kid == first.kid
    assert AgreementFile(path).current(EPOCH + 1, LIFE_S).kid == first.kid
    second = AgreementFile(path).current(EPOCH + ROTATE_S, LIFE_S)
    assert second.kid != first.kid
    assert AgreementFile(path).secrets(EPOCH + ROTATE_S) == {first.kid: first.secret, second.kid: second.secret}
    assert [p.name for p in path.parent.iterdir()] == ["echo.x25519"], "nothing temporary stays"


def test_a_key_outlives_each_manifest_that_names_it(tmp_path: Path) -> None:
    file = AgreementFile(tmp_path / "k")
    short = file.current(EPOCH, 3600)
    assert short.exp >= EPOCH + ROTATE_S - 1 + 3600
    longer = file.current(EPOCH + 1, 7 * 86_400)
    assert longer.kid != short.kid, "the manifests live longer now"
    assert longer.exp >= EPOCH + 1 + 7 * 86_400


def test_a_key_is_destroyed_when_no_mail_to_it_can_come_any_more(tmp_path: Path) -> None:
    path = tmp_path / "k"
    file = AgreementFile(path)
    first = file.current(EPOCH, LIFE_S)
    assert first.kid in file.secrets(first.exp + KEEP_S)
    assert first.kid not in file.secrets(first.exp + KEEP_S + 1)
    file.current(first.exp + KEEP_S + 1, LIFE_S)
    assert first.secret.hex() not in path.read_text()


def test_the_keys_of_one_agent_are_bounded(tmp_path: Path) -> None:
    file = AgreementFile(tmp_path / "k")
    for number in range(KEYS_MAX + 5):
        file.current(EPOCH + number, LIFE_S + number * 1_000_000)
    assert len(AgreementFile(tmp_path / "k").secrets(EPOCH)) == KEYS_MAX


def test_a_clock_that_was_far_ahead_does_not_stop_the_rotation(tmp_path: Path) -> None:
    file = AgreementFile(tmp_path / "k")
    ahead = file.current(EPOCH + 30 * 86_400, LIFE_S)
    assert file.current(EPOCH, LIFE_S).kid != ahead.kid


@pytest.mark.parametrize("content", ["", "x\n", "agentmesh x25519 keys v1\n1 2 abc\n", "agentmesh x25519 keys v1\n\n"])
def test_a_file_that_is_something_else_is_left_as_it_is(tmp_path: Path, content: str) -> None:
    path = tmp_path / "k"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as refused:
        AgreementFile(path).current(EPOCH, LIFE_S)
    assert refused.value.code == "agreement.malformed"
    assert path.read_text() == content


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "k"
    AgreementFile(path).current(EPOCH, LIFE_S)
    path.chmod(0o640)
    with pytest.raises(ConfigError) as refused:
        AgreementFile(path).secrets(EPOCH)
    assert refused.value.code == "agreement.permissions"


def test_on_a_full_disk_no_key_is_drawn_and_the_old_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "k"
    file = AgreementFile(path)
    first = file.current(EPOCH, LIFE_S)
    content = path.read_text()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(Full):
        file.current(EPOCH + ROTATE_S, LIFE_S)
    assert path.read_text() == content
    assert list(file.secrets(EPOCH)) == [first.kid]
    assert [p.name for p in tmp_path.iterdir()] == ["k"]
