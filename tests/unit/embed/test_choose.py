"""What answers when, and that whoever asks is told in words why it is not what was configured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from agentmesh.embed import choose as choose_module
from agentmesh.embed import minilm as minilm_module
from agentmesh.embed.base import Dense, Role, Sparse
from agentmesh.embed.choose import Source, choose, open_embedder
from agentmesh.embed.endpoint import Endpoint
from agentmesh.embed.models import MINILM
from agentmesh.errors import ConfigError
from tests.support.models import real_models


class Plain:
    """Stands for the built-in embedder."""

    name, version, dims = "builtin", "1", 0

    def embed(self, texts: Sequence[str], role: Role) -> list[Dense | Sparse]:
        return [{} for _ in texts]

    def close(self) -> None: ...


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_module, "_builtin", Plain)


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "models", environ={})


def test_auto_takes_the_model_that_is_there() -> None:
    chosen = choose("auto", Source(real_models(), environ={}))
    assert (chosen.embedder.name, chosen.wanted, chosen.fallback, chosen.hint) == ("minilm", "auto", "", "")
    assert open_embedder("auto", Path("/none"), models=real_models()).name == "minilm"


def test_auto_without_the_model_is_the_built_in_one_and_says_how_to_get_it(source: Source) -> None:
    chosen = choose("auto", source)
    assert chosen.embedder.name == "builtin"
    assert "minilm is not installed" in chosen.fallback
    assert chosen.hint == "agentmesh models install minilm"


def test_auto_without_the_libraries_names_them(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choose_module, "is_present", lambda *_: True)
    monkeypatch.setattr(minilm_module, "missing_libraries", lambda: ["numpy"])
    chosen = choose("auto", source)
    assert chosen.embedder.name == "builtin"
    assert "numpy" in chosen.fallback
    assert chosen.hint == "pip install 'agentmeshd[semantic]'"


@pytest.mark.parametrize("name", ["auto", "minilm"])
def test_a_broken_model_is_replaced_by_the_built_in_one_with_the_reason(name: str, source: Source) -> None:
    pytest.importorskip("tokenizers")
    directory = source.models / "minilm"
    directory.mkdir(parents=True)
    for file in MINILM.files:
        with open(directory / file.name, "wb") as sparse:
            sparse.truncate(file.size)
    chosen = choose(name, source)
    assert (chosen.embedder.name, chosen.wanted) == ("builtin", name)
    assert "broken" in chosen.fallback
    assert "SHA-256" in chosen.fallback
    assert chosen.hint == "agentmesh models install minilm"
    with pytest.raises(ConfigError) as caught:
        open_embedder("minilm", source.models.parent)
    assert caught.value.code == "embed.model_broken"


@pytest.mark.parametrize("name", ["http://127.0.0.1:1", "http://192.0.2.1#m", "word2vec"])
def test_what_cannot_be_opened_is_replaced_by_the_built_in_one_with_the_reason(name: str, source: Source) -> None:
    source = source._replace(environ={"AGENTMESH_EMBEDDER_KEY": "sk-abc"})
    chosen = choose(name, source)
    assert chosen.embedder.name == "builtin"
    assert chosen.fallback
    assert "sk-abc" not in str(chosen)
    with pytest.raises(ConfigError):
        open_embedder(name, source.models.parent, environ=source.environ)


def test_a_name_opens_what_it_says(source: Source) -> None:
    assert choose("builtin", source).fallback == ""
    assert open_embedder("builtin", source.models.parent).name == "builtin"
    chosen = choose("http://127.0.0.1:1", source._replace(model="m"))
    assert isinstance(chosen.embedder, Endpoint)
    assert chosen.fallback == ""
