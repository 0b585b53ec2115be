"""The local sentence model: the figures of its makers, and what happens when its files are not what they should be."""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.embed import minilm as minilm_module
from agentmesh.embed import models as models_module
from agentmesh.embed.minilm import MiniLM
from agentmesh.embed.models import MINILM, is_present, model_named, models_in, read_file
from agentmesh.embed.safetensors import NotTensors, read_tensors
from agentmesh.errors import Closed, ConfigError, RecordNotFound
from tests.support.models import model_of, real_models, safetensors

ROOT = Path(__file__).resolve().parents[3]
WEATHER = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."]
LEFT = ["The new movie is awesome", "The cat sits outside", "A man is playing guitar"]
RIGHT = ["The dog plays in the garden", "The new movie is so great", "A woman watches TV"]


@pytest.fixture(scope="module")
def model() -> Iterator[MiniLM]:
    """The real model, loaded once."""
    loaded = MiniLM(real_models())
    yield loaded
    loaded.close()


def cosines(model: MiniLM, left: list[str], right: list[str]) -> list[list[float]]:
    rows, columns = model.embed(left, "query"), model.embed(right, "passage")
    return [[sum(a * b for a, b in zip(r, c, strict=True)) for c in columns] for r in rows]  # pyright: ignore


def flat(rows: list[list[float]]) -> list[float]:
    return [value for row in rows for value in row]


def test_similarities_are_those_that_the_manual_of_sentence_transformers_prints(model: MiniLM) -> None:
    assert flat(cosines(model, WEATHER, WEATHER)) == pytest.approx(
        [1.0, 0.6660, 0.1046, 0.6660, 1.0, 0.1411, 0.1046, 0.1411, 1.0], abs=1e-4
    )
    assert flat(cosines(model, LEFT, RIGHT)) == pytest.approx(
        [0.0543, 0.8939, -0.0502, 0.2838, -0.0029, 0.1310, 0.2277, -0.0136, -0.0327], abs=1e-4
    )


def test_a_text_is_cut_at_256_tokens(model: MiniLM) -> None:
    words = ["rent"] * 254
    assert cosines(model, [" ".join(words)], [" ".join([*words, "guitar", "lawyer"])])[0][0] > 0.99999
    assert cosines(model, [" ".join(words)], [" ".join([*words[:200], "guitar", "lawyer"])])[0][0] < 0.9999


def test_long_and_short_texts_together_get_the_vectors_they_get_alone(model: MiniLM) -> None:
    texts = [" ".join(["rental contract", "lawyer", "checks"] * count) for count in (1, 70, 3, 20, 1, 5, 84)]
    together = model.embed(texts, "passage")
    for text, vector in zip(texts, together, strict=True):
        alone = model.embed([text], "passage")[0]
        assert max(abs(a - b) for a, b in zip(alone, vector, strict=True)) < 1e-5  # pyright: ignore


def test_words_that_command_a_tokenizer_are_words(model: MiniLM) -> None:
    assert cosines(model, ["cats [SEP] dogs"], ["cats sep dogs"])[0][0] > 0.6
    assert any(model.embed(["[PAD] [PAD]"], "query")[0])


def test_several_threads_may_ask_at_once(model: MiniLM) -> None:
    texts = [f"{word} contracts" for word in ("rental", "work", "sales", "loan")]
    want = [list(vector) for vector in model.embed(texts, "query")]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda text: list(model.embed([text], "query")[0]), texts * 4))
    for one, vector in zip(want * 4, found, strict=True):
        assert max(abs(a - b) for a, b in zip(one, vector, strict=True)) < 1e-5  # pyright: ignore


def test_a_closed_model_says_so() -> None:
    model = MiniLM(real_models())
    model.close()
    model.close()
    with pytest.raises(Closed):
        model.embed(["x"], "query")


# -- files ------------------------------------------------------------------------------------------------------------


def planted(root: Path, monkeypatch: pytest.MonkeyPatch, **files: bytes) -> Path:
    """Put a small model in place of the real one: files as given, hashes that fit."""
    weights = files.get("weights", safetensors({"x": ("F32", [1], b"\0\0\0\0")}))
    tokenizer = files.get("tokenizer", b"{}")
    contents = {"model.safetensors": weights, "tokenizer.json": tokenizer}
    monkeypatch.setattr(minilm_module, "MINILM", model_of(contents))
    (root / "minilm").mkdir(parents=True)
    for name, content in contents.items():
        (root / "minilm" / name).write_bytes(content)
    return root


def test_a_model_that_is_not_there_names_the_command_that_brings_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        MiniLM(tmp_path)
    assert caught.value.code == "embed.model_missing"
    assert caught.value.hint == "agentmesh models install minilm"
    assert not is_present(MINILM, tmp_path)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def grow(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def link_outside(path: Path) -> None:
    outside = path.parent.parent / "outside"
    path.rename(outside)
    path.symlink_to(outside)


def make_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("harm", [cut, grow, flip, link_outside, make_fifo, make_directory])
def test_a_file_that_is_not_exactly_the_one_we_know_is_never_parsed(
    name: str, harm: Callable[[Path], None], tmp_path: Path
) -> None:
    contents = {"model.safetensors": b"weights", "tokenizer.json": b"tokens"}
    model = model_of(contents)
    (tmp_path / "minilm").mkdir()
    for file, content in contents.items():
        (tmp_path / "minilm" / file).write_bytes(content)
    assert [read_file(model, file, tmp_path) for file in model.files] == [b"weights", b"tokens"]
    assert is_present(model, tmp_path)
    harm(tmp_path / "minilm" / name)
    harmed = next(file for file in model.files if file.name == name)
    with pytest.raises(ConfigError) as caught:
        read_file(model, harmed, tmp_path)
    assert caught.value.code == "embed.model_broken"
    assert caught.value.hint == "agentmesh models install minilm"
    assert caught.value.why
    if harm is not flip:
        assert not is_present(model, tmp_path)


def test_right_bytes_of_the_wrong_model_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numpy")
    pytest.importorskip("tokenizers")
    with pytest.raises(ConfigError) as caught:
        MiniLM(planted(tmp_path, monkeypatch))
    assert caught.value.code == "embed.model_broken"
    assert "lacks embeddings.word_embeddings.weight" in (caught.value.why or "")


def test_a_missing_library_names_the_command_that_brings_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError) as caught:
        MiniLM(tmp_path)
    assert caught.value.code == "embed.library"
    assert caught.value.hint == "pip install 'agentmeshd[semantic]'"


def test_models_have_names() -> None:
    assert model_named("minilm") is MINILM
    with pytest.raises(RecordNotFound) as caught:
        model_named("gpt")
    assert caught.value.code == "models.unknown"
    assert models_in(Path("/h")) == Path("/h/models")


def test_pyproject_asks_for_the_libraries_that_the_model_needs() -> None:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    found = re.search(r"^semantic = \[(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    assert found
    assert tuple(re.findall(r'"([^"]+)"', found[1])) == models_module.LIBRARIES


# -- safetensors ------------------------------------------------------------------------------------------------------

ONE = struct.pack("<2f", 1.5, -2.0)
GOOD = safetensors({"a": ("F32", [2], ONE), "b": ("I64", [1], bytes(8))})


def test_tensors_are_read_as_they_were_written() -> None:
    pytest.importorskip("numpy")
    assert read_tensors(GOOD, {"a": (2,)})["a"].tolist() == [1.5, -2.0]


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "shorter"),
        (GOOD[:7], "shorter"),
        (b"\xff" * 8 + GOOD[8:], "claims"),
        ((10**7).to_bytes(8, "little") + GOOD[8:], "claims"),
        ((3).to_bytes(8, "little") + GOOD[8:], "header"),
        (GOOD[:8] + b"[" * len(GOOD[8:]), "header"),
        (GOOD[:-1], "end at byte"),
        (GOOD + b"x", "end at byte"),
        (safetensors({"a": ("F32", [3], ONE)}), "is right"),
        (safetensors({"a": ("F64", [2], ONE)}), "is right"),
        (safetensors({"a": ("F32", [2, 1], ONE)}), "is right"),
        (safetensors({"a": ("F32", [2], ONE + ONE)}), "is right"),
        (safetensors({"c": ("F32", [2], ONE)}), "lacks a"),
        (safetensors({"a": ("F32", [2], struct.pack("<2f", 1.0, float("nan")))}), "finite"),
        (safetensors({"a": ("F32", [2], struct.pack("<2f", 1.0, float("inf")))}), "finite"),
        (safetensors({"a": ("F32", [2], ONE)}, b={"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}), "overlap"),
        (safetensors({"a": ("F32", [2], ONE)}, a={"dtype": "F32", "shape": [2], "data_offsets": [-8, 0]}), "overlap"),
        (
            safetensors({"a": ("F32", [2], ONE)}, a={"dtype": "F32", "shape": [2], "data_offsets": [0, 10**15]}),
            "end at",
        ),
        (safetensors({"a": ("F32", [2], ONE)}, a="tensor"), "header"),
        (
            safetensors({}, **{f"t{n}": {"dtype": "F32", "shape": [], "data_offsets": [0, 0]} for n in range(5000)}),
            "5000",
        ),
    ],
)
def test_what_is_no_safetensors_file_is_refused_with_the_reason(content: bytes, word: str) -> None:
    pytest.importorskip("numpy")
    with pytest.raises(NotTensors, match=re.escape(word)):
        read_tensors(content, {"a": (2,)})


@given(content=st.binary(max_size=200), at=st.integers(0, len(GOOD)), byte=st.integers(0, 255))
def test_any_bytes_are_read_or_refused(content: bytes, at: int, byte: int) -> None:
    pytest.importorskip("numpy")
    changed = bytearray(GOOD)
    changed[min(at, len(GOOD) - 1)] = byte
    for one in (content, bytes(changed), GOOD[:at]):
        with contextlib.suppress(NotTensors):
            assert read_tensors(one, {"a": (2,)})["a"].shape == (2,)
