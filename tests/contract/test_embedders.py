"""Every embedder does what ``embed/base.py`` promises, and each finds what it is there to find."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.embed.base import Dense, Embedder, Sparse
from agentmesh.embed.choose import open_embedder
from tests.support.models import real_models
from tests.support.vectors import VectorServer

NAMES = ["builtin", "minilm", "endpoint"]
NEED, ANSWER, OTHER = (
    "check a rental contract for unlawful clauses",
    "Reviews lease agreements and points out terms that the law forbids.",
    "Turns photographs into water colours.",
)


@pytest.fixture(scope="module", params=NAMES)
def embedder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Embedder]:
    name, models = request.param, real_models() if request.param == "minilm" else None
    with VectorServer() as server:
        opened = open_embedder(
            server.address if name == "endpoint" else name, tmp_path_factory.mktemp("home"), models=models, environ={}
        )
        yield opened
        opened.close()
        opened.close()


def cosine(one: Dense | Sparse, other: Dense | Sparse) -> float:
    if hasattr(one, "items"):
        left, right = dict(one), dict(other)  # pyright: ignore
        return sum(value * right.get(key, 0.0) for key, value in left.items())
    return sum(a * b for a, b in zip(one, other, strict=True))  # pyright: ignore


def length(vector: Dense | Sparse) -> float:
    return math.sqrt(cosine(vector, vector))


def test_an_embedder_says_who_it_is(embedder: Embedder) -> None:
    assert embedder.name
    assert embedder.version
    assert embedder.version == embedder.version.strip()
    assert embedder.dims >= 0


def test_each_text_gets_a_vector_of_length_one_in_its_place(embedder: Embedder) -> None:
    texts = [NEED, OTHER, ANSWER]
    vectors = embedder.embed(texts, "passage")
    assert [round(length(v), 4) for v in vectors] == [1.0, 1.0, 1.0]
    if embedder.dims:
        assert {len(v) for v in vectors} == {embedder.dims}
    for text, vector in zip(texts, vectors, strict=True):
        assert cosine(embedder.embed([text], "passage")[0], vector) > 0.9999
    assert embedder.embed([], "query") == []


def test_the_same_text_gets_the_same_vector_whatever_stands_beside_it(embedder: Embedder) -> None:
    alone = embedder.embed([NEED], "query")[0]
    among = embedder.embed([OTHER * 20, NEED, "x", "", NEED], "query")
    assert cosine(alone, among[1]) > 0.99999
    assert cosine(alone, among[4]) > 0.99999


def test_a_need_is_nearer_to_who_answers_it_than_to_others(embedder: Embedder) -> None:
    need = embedder.embed([NEED], "query")[0]
    answer, other = embedder.embed([ANSWER, OTHER], "passage")
    assert cosine(need, answer) > cosine(need, other) + 0.1


@pytest.mark.parametrize("text", ["", "   \n\t ", "\x00\x00", "\u200b\u200b"])
def test_a_text_that_says_nothing_gets_a_vector_of_nothing(embedder: Embedder, text: str) -> None:
    vector = embedder.embed([text], "passage")[0]
    assert length(vector) == 0.0
    assert len(vector) == embedder.dims


@pytest.mark.parametrize(
    "text",
    [
        "a" * 1_000_000,
        "a b " * 250_000,
        "\ud800\udfff lone",
        "[SEP] [CLS] [MASK]",
        "' OR 1=1 --",
        'NEAR("',
        "\u202egnp",
    ],
)
def test_a_text_made_to_hurt_does_no_harm(embedder: Embedder, text: str) -> None:
    vectors = embedder.embed([text, NEED], "query")
    assert round(length(vectors[1]), 4) == 1.0
    assert length(vectors[0]) <= 1.001


@settings(max_examples=20)
@given(texts=st.lists(st.text(max_size=80), max_size=4))
def test_any_texts_get_vectors_of_length_one_or_nothing(embedder: Embedder, texts: list[str]) -> None:
    vectors: list[Any] = embedder.embed(texts, "query")
    assert len(vectors) == len(texts)
    for vector in vectors:
        assert length(vector) == pytest.approx(1.0, abs=1e-3) or length(vector) == 0.0
