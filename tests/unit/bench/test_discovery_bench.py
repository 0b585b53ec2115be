"""``python -m bench discovery`` measures any set of its format, and says what is wrong with one that is not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agentmesh.core.search.rank import Weights
from bench.discovery import conduct, main, measure, report, scale, sets

ROOT = Path(__file__).resolve().parents[3]
AGENTS = """\
{"id": "a", "name": "lease-check", "description": "Reads rental contracts.", "skills": ["Review of a lease"]}
{"id": "b", "skills": [{"name": "Weather", "examples": ["rain in Porto?"]}], "price": 3}

{"id": "c", "description": null, "tags": ["tax"], "skills": null}
"""
QUERIES = """\
{"qid": "1", "query": "rental contracts", "relevant": {"a": 3}, "kind": "keyword"}
{"qid": "2", "query": "porto rain", "relevant": {"b": 3, "c": 0}, "kind": "keyword", "split": "test"}
{"qid": "3", "query": "tax", "relevant": {"c": 2}, "split": "dev"}
{"qid": "4", "query": "a flying carpet", "relevant": {}}
"""


@pytest.fixture(name="files")
def _files(tmp_path: Path) -> list[str]:
    (tmp_path / "agents.jsonl").write_text(AGENTS, "utf-8")
    (tmp_path / "queries.jsonl").write_text("\ufeff" + QUERIES, "utf-8")
    return [
        "--agents",
        str(tmp_path / "agents.jsonl"),
        "--queries",
        str(tmp_path / "queries.jsonl"),
        "--embedder",
        "tfidf",
    ]


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    assert main.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_a_foreign_set_with_gaps_is_measured_overall_and_by_kind(
    files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    got = told(files, capsys)
    assert got["overall"] == {"queries": 3, "recall@10": 1.0, "ndcg@10": 1.0, "mrr": 1.0}
    assert got["kinds"] == {
        "keyword": {"queries": 2, "recall@10": 1.0, "ndcg@10": 1.0, "mrr": 1.0},
        "any": {"queries": 1, "recall@10": 1.0, "ndcg@10": 1.0, "mrr": 1.0},
    }
    assert (got["agents"], got["queries"], got["unanswerable"]) == (3, 4, 1)


@pytest.mark.parametrize(("split", "queries"), [("dev", 3), ("test", 3), ("all", 4)])
def test_a_query_without_a_split_belongs_to_every_one(
    split: str, queries: int, files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert told([*files, "--split", split], capsys)["queries"] == queries


def test_trust_and_health_reorder_only_if_they_are_given_weight(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [
        {"id": "bad", "description": "parcel tracking", "trust": 0.0, "health": "unhealthy"},
        {"id": "good", "description": "parcel tracking worldwide", "trust": 1.0, "health": "healthy"},
    ]
    (tmp_path / "a").write_text("\n".join(map(json.dumps, lines)), "utf-8")
    (tmp_path / "q").write_text('{"qid": "1", "query": "parcel tracking", "relevant": {"good": 3}}', "utf-8")
    files = ["--agents", str(tmp_path / "a"), "--queries", str(tmp_path / "q"), "--embedder", "tfidf"]
    assert told(files, capsys)["overall"] == {"queries": 1, "recall@10": 1.0, "ndcg@10": 0.6309, "mrr": 0.5}
    mixed = told([*files, "--weights", "7,2,1"], capsys)
    assert mixed["overall"] == {"queries": 1, "recall@10": 1.0, "ndcg@10": 1.0, "mrr": 1.0}
    assert mixed["weights"] == [0.7, 0.2, 0.1]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"id": "a"', "truncated"),
        ('{"name": "no id"}', "missing required field `id`"),
        ('{"id": "x", "skills": "all"}', "$.skills"),
        ('{"id": "a"}\n{"id": "a"}', "stands on line 4 already"),
        ('{"id": "x", "health": "fine"}', "health is one of"),
        ('{"id": "x", "trust": 7}', "trust is 0 to 1"),
        ("[1]", "Expected `object`"),
        ("\x00\xff", "malformed"),
        (f'{{"id": "{"x" * sets.LINE_BYTES_MAX}"}}', "bytes"),
    ],
)
def test_a_bad_line_is_named_with_file_and_line(
    line: str, why: str, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "agents.jsonl"
    path.write_text(f'{{"id": "b"}}\n\n{{"id": "c"}}\n{line}\n', "utf-8")
    assert main.main([*files, "--json"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"{path}:{5 if chr(10) in line else 4}: " in shown.err
    assert why in shown.err


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"qid": "9", "query": "x", "relevant": {"nobody": 3}}', "no agent 'nobody'"),
        ('{"qid": "9", "query": "x", "relevant": {"a": 4}}', "grades are 1 to 3"),
        ('{"qid": "9", "query": " ", "relevant": {"a": 3}}', "an empty query"),
        ('{"qid": "9", "query": "x", "relevant": ["a"]}', "$.relevant"),
    ],
)
def test_a_bad_query_is_named(
    line: str, why: str, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "queries.jsonl").write_text(line, "utf-8")
    assert main.main(files) == 2
    assert why in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--embedder", "no-such"], ["--weights", "1,2"], ["--weights", "0,0,0"], ["--weights", "nan,1,1"]]
)
def test_a_wrong_flag_ends_with_2_and_a_word_why(
    arguments: list[str], files: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*files, *arguments]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_missed_queries_of_the_held_back_split_are_not_named(capsys: pytest.CaptureFixture[str]) -> None:
    got = told(["--embedder", "tfidf", "--misses"], capsys)
    held = {one.qid for one in sets.lines_of(sets.QUERIES, sets.Query, "qid") if one.split == "test"}
    assert isinstance(got["misses"], list)
    assert got["misses"]
    assert held.isdisjoint(miss["qid"] for miss in got["misses"])


def test_the_bench_hands_a_measurement_what_follows_its_name(files: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench", "discovery", *files, "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["embedder"] == "tfidf"


# -- trust and health, the page, size -------------------------------------------------------------------------------


@pytest.fixture(scope="module", name="twins")
def _twins() -> tuple[measure.Asked, conduct.World]:
    agents, queries = sets.read(sets.AGENTS, sets.QUERIES)
    world = conduct.twins(agents, queries, "same text")
    return measure.ask("tfidf", world.agents, queries), world


def test_a_bad_copy_never_comes_before_the_agent_it_copied(twins: tuple[measure.Asked, conduct.World]) -> None:
    assert len(twins[1].bad) > 150
    for mix in (Weights(), Weights(0.95, 0.03, 0.02), Weights(0.34, 0.33, 0.33)):
        assert conduct.outranked(*twins, mix) == 0, mix


def test_the_experiment_sees_bad_copies_that_come_first(twins: tuple[measure.Asked, conduct.World]) -> None:
    assert conduct.outranked(*twins, measure.TEXT_ALONE) > 0.3, "by text alone equals stand by id, the bad ones first"
    assert conduct.outranked(*twins, Weights(1.0, 1.0, 0.0)) > 0.0, "health without weight does not help"


def test_standings_dealt_by_chance_cost_text_alone_nothing_and_a_heavy_mix_much() -> None:
    agents, queries = sets.read(sets.AGENTS, sets.QUERIES)
    asked, dealt = measure.ask("tfidf", agents, queries), conduct.dealt(agents)
    alone, heavy = (measure.judged(asked, dealt, mix).overall for mix in (measure.TEXT_ALONE, Weights(0.1, 0.5, 0.4)))
    assert alone == measure.judged(asked, measure.standings_of(agents)).overall
    assert heavy.ndcg < alone.ndcg


def test_the_page_shows_what_was_measured(tmp_path: Path) -> None:
    text = report.PAGE.read_text("utf-8")
    for name in ("embedders", "kinds", "weights", "twins", "scale"):
        assert f"<!-- discovery:{name} -->\n" in text
        assert f"<!-- /discovery:{name} -->" in text
    page = tmp_path / "page.md"
    page.write_text(text, "utf-8")
    report.render(page)
    assert page.read_text("utf-8") == text, "next: python -m bench discovery --report"
    assert "| `tfidf` |" in text


def test_synthetic_agents_are_as_many_as_asked_for_and_all_different() -> None:
    agents, queries = sets.read(sets.AGENTS, sets.QUERIES)
    batches = list(scale.documents(agents, scale.BATCH + 7))
    assert [len(batch) for batch in batches] == [scale.BATCH, 7]
    made = [one for batch in batches for one in batch]
    assert len({one.agent_id for one in made}) == len({one.passages[0].text for one in made}) == len(made)
    assert made == [one for batch in scale.documents(agents, scale.BATCH + 7) for one in batch], (
        "the same agents every time"
    )
    texts = scale.asked(queries, 400)
    assert len(set(texts)) == 400


def test_a_rival_is_not_measured_at_scale(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--scale", "10", "--embedder", "tfidf"]) == 2
    assert "no index" in capsys.readouterr().err


def test_the_built_in_embedder_finds_far_more_than_words_alone_and_what_is_mistyped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(main, "SCALES", ())
    monkeypatch.setattr(main, "GOALS", main.GOALS[:1])
    rows = {row["what"]: row for row in main.run()}
    recall, spelled = rows["builtin: recall@10"], rows["builtin: recall@10, keywords and typos"]
    assert recall["rival"] == "tfidf"
    assert recall["value"] > recall["rival_value"] + 0.15
    assert spelled["value"] >= 0.95


def test_a_crowd_of_bad_copies_that_fills_all_places_is_seen() -> None:
    agents, queries = sets.read(sets.AGENTS, sets.QUERIES)
    world = conduct.crowd(agents, queries)
    name, crowd = next(iter(world.bad.items()))
    assert len(crowd) == conduct.CROWD > measure.DEPTH
    query = next(one for one in world.queries if one.relevant.get(name) == 3)
    full = [(copy, 0.9) for copy in crowd[: measure.DEPTH]]
    without, within = ([full], [[*full[:-1], (name, 0.9)]])
    asked = measure.Asked([query], without, 0, 0.0, 0.0)
    assert conduct.outranked(asked, world, Weights()) == 1
    assert conduct.outranked(asked._replace(answers=within), world, Weights()) == 0


def test_the_graph_of_vectors_finds_nearly_what_exact_search_finds() -> None:
    pytest.importorskip("numpy")
    pytest.importorskip("usearch")
    done = subprocess.run(
        [sys.executable, "-m", "bench", "discovery", "--vectors", "3000", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["vectors"] == 3000
    assert told["graph_recall@10"] > 0.9
