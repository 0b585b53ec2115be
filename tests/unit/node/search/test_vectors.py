"""Vectors of models beside words and concepts: kept by content, changed without a gap, and never able to break an answer."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from agentmesh.core.search.model import Document, Filters, Found, Passage
from agentmesh.core.search.text import tokens
from agentmesh.embed.base import Dense, Role, Sparse
from agentmesh.embed.concepts import read_lexicon
from agentmesh.errors import PeerError, Timeout
from agentmesh.node.search import dense as dense_module
from agentmesh.node.search.engine import Engine

pytest.importorskip("numpy")
pytest.importorskip("usearch")

LEXICON = read_lexicon([("t.txt", "tax : tax | 税 | Steuer\ntravel : travel, trip | 旅行 | Reise\n")])
#: What the model below takes for the same, though no word is shared.
SAME = {"fiscal": "tax", "levi": "tax", "journey": "travel", "trip": "travel", "felin": "cat"}
DIMS = 96


class Model:
    """A model of the tests: texts are near if their words, or those that ``SAME`` names, are the same."""

    def __init__(self, name: str = "toy", version: str = "toy-1", dims: int = DIMS) -> None:
        self.name, self.version, self.dims = name, version, dims
        self.read: list[str] = []
        self.fails = ""
        self.closed = False

    def embed(self, texts: Sequence[str], role: Role) -> list[Dense | Sparse]:
        if self.fails:
            raise Timeout(self.fails, code="unreached.timeout")
        if role == "passage":
            self.read += texts
        return [self._vector(text) for text in texts]

    def _vector(self, text: str) -> list[float]:
        vector = [0.0] * self.dims
        for one in tokens(text):
            if one.kind == "word":
                rng = random.Random(self.version[:4] + SAME.get(one.text, one.text))
                vector = [a + rng.gauss(0, 1) for a in vector]
        length = sum(a * a for a in vector) ** 0.5
        return [a / length for a in vector] if length else vector

    def close(self) -> None:
        self.closed = True


def document(agent_id: str, *texts: str, version: str = "1", tags: tuple[str, ...] = ()) -> Document:
    passages = tuple(Passage("skill" if n else "agent", f"s{n}" if n else "", text) for n, text in enumerate(texts))
    return Document(agent_id=agent_id, version=version, name=agent_id, passages=passages, tags=tags)


AGENTS = [
    document("paul", "Fiscal matters", tags=("money",)),
    document("ann", "Hello", "Plans every journey"),
    document("tom", "Feeds the feline"),
]


def opened(path: Path, model: Model, former: Model | None = None) -> Engine:
    return Engine.open(path / "search.sqlite", model, former=former, lexicon=LEXICON)


def ids(found: Found) -> list[str]:
    return [hit.agent_id for hit in found.hits]


@pytest.fixture
def model() -> Model:
    return Model()


def test_an_agent_is_found_by_meaning_that_only_the_model_knows(tmp_path: Path, model: Model) -> None:
    engine = opened(tmp_path, model)
    engine.update(AGENTS)
    found = engine.search("cat")
    assert (found.embedder, ids(found)[0]) == ("toy", "tom")
    assert found.hits[0].vector > found.hits[0].lexical == 0
    assert engine.search("travel").hits[0].passage.skill == "s1"
    assert ids(engine.search("tax", filters=Filters(tag="money"))) == ["paul"]
    assert ids(engine.search("cat", filters=Filters(tag="none"))) == []
    engine.close()
    assert model.closed


def test_a_text_is_embedded_once_for_all_agents_and_restarts(tmp_path: Path, model: Model) -> None:
    unrelated = set(dense_module._UNRELATED)
    agents = [*AGENTS, document("twin", "Bye", "Plans every journey")]
    engine = opened(tmp_path, model)
    engine.update(agents)
    read = [text for text in model.read if text not in unrelated]
    assert sorted(read) == sorted(
        ["paul: Fiscal matters", "ann: Hello", "Plans every journey", "tom: Feeds the feline", "twin: Bye"]
    )
    engine.close()
    later = Model()
    engine = opened(tmp_path, later)
    assert engine.update(agents) == 0
    while engine.has_work:
        engine.step()
    assert {"ann", "twin"} == set(ids(engine.search("trip"))[:2])
    assert set(later.read) <= unrelated
    engine.close()


def test_what_was_taken_out_or_changed_is_not_found_by_its_old_vector(tmp_path: Path, model: Model) -> None:
    engine = opened(tmp_path, model)
    engine.update(AGENTS)
    engine.remove(["tom"])
    engine.update([document("ann", "Hello", "Bakes bread", version="2")])
    assert "tom" not in ids(engine.search("cat"))
    assert all(hit.text < 0.3 for hit in engine.search("journey").hits)
    engine.close()


def test_the_former_model_serves_until_the_new_one_has_read_everything(tmp_path: Path, model: Model) -> None:
    engine = opened(tmp_path, model)
    engine.update(AGENTS)
    engine.close()
    new, former = Model("new", "new-1"), Model()
    engine = opened(tmp_path, new, former)
    while engine.embedder == "builtin":
        engine.step()  # takes the stored vectors of the former into memory
    found = engine.search("cat")
    assert (found.embedder, ids(found)[0]) == ("toy", "tom")
    assert "new" in found.notes[0]
    while engine.has_work:
        engine.step()
    found = engine.search("cat")
    assert (found.embedder, ids(found)[0], found.notes) == ("new", "tom", ())
    assert former.closed
    engine.close()
    again = Model()
    engine = opened(tmp_path, again, Model("new", "new-1"))
    engine.update([], embed=True)
    assert set(again.read) >= {"paul: Fiscal matters"}  # the vectors of the former were forgotten
    engine.close()


def test_without_the_former_model_words_and_concepts_answer_meanwhile(tmp_path: Path, model: Model) -> None:
    engine = opened(tmp_path, model)
    engine.update([document("paul", "Tax matters")])
    engine.close()
    engine = opened(tmp_path, Model("new", "new-1"))
    found = engine.search("tax")
    assert (found.embedder, ids(found)) == ("builtin", ["paul"])
    assert "built-in" in found.notes[0]
    engine.close()


def test_a_model_that_fails_at_a_query_costs_no_answer_and_is_said(tmp_path: Path, model: Model) -> None:
    engine = opened(tmp_path, model)
    engine.update([*AGENTS, document("words", "Tax returns")])
    model.fails = "the endpoint hangs"
    found = engine.search("tax")
    assert ids(found)[0] == "words"
    assert any("the endpoint hangs" in note for note in found.notes)
    engine.close()


def test_texts_wait_for_a_model_that_fails_and_are_embedded_later(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(tmp_path, model)
    model.fails = "down"
    engine.update(AGENTS)
    while engine.has_work:
        engine.step()  # the spelling of words, which no model is needed for
    assert engine.waiting == 4
    assert engine.rests_s
    model.fails = ""
    now = dense_module.time.monotonic() + 60
    monkeypatch.setattr(dense_module.time, "monotonic", lambda: now)
    while engine.has_work:
        engine.step()
    assert ids(engine.search("cat"))[0] == "tom"
    engine.close()


def test_an_agent_that_goes_while_its_texts_wait_leaves_nothing_behind(tmp_path: Path, model: Model) -> None:
    engine = opened(tmp_path, model)
    engine.update(AGENTS, embed=False)
    engine.update([document("ann", "Hello", "Plans every journey", version="2")], embed=False)
    engine.remove(["tom", "ann"])
    while engine.has_work:
        engine.step()
    assert engine.waiting == 0
    assert "paul: Fiscal matters" in model.read
    assert "tom: Feeds the feline" not in model.read
    assert {hit.agent_id for hit in engine.search("cat journey levy").hits} <= {"paul"}
    engine.close()


def test_a_model_that_changes_its_dimension_is_not_believed(tmp_path: Path, model: Model) -> None:
    engine = opened(tmp_path, model)
    engine.update(AGENTS)
    model.dims = DIMS + 1
    engine.update([document("new", "Something new")])
    found = engine.search("fiscal")
    assert ids(found)[0] == "paul"
    assert any(f"{DIMS} figures" in note for note in found.notes)
    engine.close()


class Broken(Model):
    """Gives too few vectors, or figures that are none."""

    def embed(self, texts: Sequence[str], role: Role) -> list[Dense | Sparse]:
        found = super().embed(texts, role)
        return [[float("nan")] * self.dims for _ in found] if self.name == "nan" else found[:-1]


@pytest.mark.parametrize("name", ["nan", "few"])
def test_vectors_that_are_none_never_reach_the_index(tmp_path: Path, name: str) -> None:
    engine = opened(tmp_path, Broken(name, name))
    engine.update([*AGENTS, document("words", "Tax returns")])
    assert ids(engine.search("tax"))[0] == "words"
    assert engine.search("tax").notes
    engine.close()


def test_beyond_the_exact_limit_a_graph_finds_the_same(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [f"word{n}" for n in range(60)]
    rng = random.Random(7)
    agents = [document(f"a{n}", " ".join(rng.choices(words, k=6))) for n in range(400)]
    engine = opened(tmp_path, model)
    engine.update(agents)
    exact = [ids(engine.search(f"{one} {other}")) for one, other in itertools.pairwise(words)]
    monkeypatch.setattr(dense_module, "EXACT_ROWS_MAX", 100)
    assert engine.has_work
    assert ids(engine.search("word0 word1")) == exact[0]  # every vector is compared until the graph is whole
    while engine.has_work:
        engine.step()
    walked = [ids(engine.search(f"{one} {other}")) for one, other in itertools.pairwise(words)]
    same = sum(len(set(one) & set(other)) for one, other in zip(exact, walked, strict=True))
    assert same >= 0.95 * sum(len(one) for one in exact)
    engine.remove([exact[0][0]])
    engine.update([document("late", "word0 word1")])
    assert not engine.has_work
    assert ids(engine.search("word0 word1"))[0] == "late"
    assert exact[0][0] not in ids(engine.search("word0 word1"))
    engine.close()


def test_a_need_in_another_language_is_put_to_an_english_model_in_english(tmp_path: Path) -> None:
    model = Model("minilm", "mini-1")
    engine = opened(tmp_path, model)
    engine.update([document("taxes", "Levy and duty"), document("trips", "旅行计划")])
    assert "trips: travel" in model.read
    assert ids(engine.search("税"))[0] == "taxes"
    engine.close()


def test_an_error_of_the_peer_is_told_apart_from_a_bug(
    tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = opened(tmp_path, model)
    engine.update(AGENTS)

    def broken(texts: Sequence[str], role: Role) -> list[Dense | Sparse]:
        raise PeerError("it answered in verse", code="embed.endpoint_answer")

    monkeypatch.setattr(model, "embed", broken)
    assert any("in verse" in note for note in engine.search("fiscal").notes)
    engine.close()
