"""The set that discovery is measured with is what its page says: large, mixed, honest about paraphrases, halved evenly."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from bench.discovery import sets
from bench.discovery.overlap import content, overlap
from bench.discovery.sets import Agent, Query

KINDS = {"keyword", "typo", "paraphrase", "crosslingual", "chinese", "multi", "trap"}
HAN = re.compile(r"[\u3400-\u9fff]")


@pytest.fixture(scope="module", name="whole")
def _whole() -> tuple[dict[str, Agent], list[Query]]:
    agents, queries = sets.read(sets.AGENTS, sets.QUERIES)
    return {one.id: one for one in agents}, queries


def chinese(text: str | None) -> bool:
    return bool(HAN.search(text or ""))


def test_the_set_is_as_large_as_promised_and_a_quarter_of_it_is_chinese(
    whole: tuple[dict[str, Agent], list[Query]],
) -> None:
    agents, queries = whole
    assert len(agents) >= 320
    assert len(queries) >= 170
    assert 0.2 <= sum(chinese(one.description) for one in agents.values()) / len(agents) <= 0.3
    assert max(sets.AGENTS.stat().st_size, sets.QUERIES.stat().st_size) <= 250_000


def test_no_agent_and_no_query_is_there_twice(whole: tuple[dict[str, Agent], list[Query]]) -> None:
    agents, queries = whole
    for texts in (
        [one.description for one in agents.values()],
        [one.name for one in agents.values()],
        [one.query for one in queries],
    ):
        assert [text for text, n in Counter(text.strip().lower() for text in texts if text).items() if n > 1] == []


def test_every_query_has_a_kind_a_split_whole_grades_and_a_right_answer(
    whole: tuple[dict[str, Agent], list[Query]],
) -> None:
    for one in whole[1]:
        assert one.kind in KINDS
        assert one.split in {"dev", "test"}
        assert set(one.relevant.values()) <= {1, 2, 3}
        assert len([grade for grade in one.relevant.values() if grade >= 2]) >= 1, one.qid


def test_both_splits_have_the_same_mix_and_two_fifths_are_paraphrases(
    whole: tuple[dict[str, Agent], list[Query]],
) -> None:
    queries = whole[1]
    dev, test = (Counter(one.kind for one in queries if one.split == split) for split in ("dev", "test"))
    assert set(dev) == set(test) == KINDS
    assert max(abs(dev[kind] - test[kind]) for kind in KINDS) <= 1
    assert dev["paraphrase"] + test["paraphrase"] >= 0.4 * len(queries)


def test_a_paraphrase_shares_at_most_a_tenth_of_its_words_with_each_right_agent(
    whole: tuple[dict[str, Agent], list[Query]],
) -> None:
    agents, queries = whole
    told = {
        (one.qid, name): sorted(content(one.query) & content(sets.whole_text(agents[name])))
        for one in queries
        for name in one.relevant
        if one.kind == "paraphrase" and overlap(one.query, sets.whole_text(agents[name])) > 0.1
    }
    assert told == {}


def test_a_keyword_query_shares_words_with_each_right_agent(whole: tuple[dict[str, Agent], list[Query]]) -> None:
    agents, queries = whole
    strange = [
        (one.qid, name)
        for one in queries
        for name in one.relevant
        if one.kind == "keyword" and overlap(one.query, sets.whole_text(agents[name])) == 0
    ]
    assert strange == []


def test_a_crosslingual_query_and_its_best_agents_are_in_different_languages(
    whole: tuple[dict[str, Agent], list[Query]],
) -> None:
    agents, queries = whole
    shared = [
        (one.qid, name)
        for one in queries
        for name, grade in one.relevant.items()
        if one.kind == "crosslingual" and grade == 3 and overlap(one.query, sets.whole_text(agents[name])) > 0.34
    ]
    assert shared == []
    ways = Counter(
        (chinese(one.query), chinese(agents[max(one.relevant, key=lambda n: one.relevant[n])].description))
        for one in queries
        if one.kind == "crosslingual"
    )
    assert ways[(True, False)] >= 10
    assert ways[(False, True)] >= 10
    assert ways[(False, False)] >= 4, "German and Spanish"


def test_a_chinese_query_and_its_agents_are_chinese(whole: tuple[dict[str, Agent], list[Query]]) -> None:
    agents, queries = whole
    asked = [one for one in queries if one.kind == "chinese"]
    assert all(chinese(one.query) for one in asked)
    assert all(chinese(agents[name].description) for one in asked for name in one.relevant)


def test_the_second_set_is_of_other_agents_and_shares_three_words_of_a_hundred(
    whole: tuple[dict[str, Agent], list[Query]],
) -> None:
    agents, queries = sets.read(*sets.SECOND)
    assert {one.description for one in agents}.isdisjoint(one.description for one in whole[0].values())
    assert {one.query for one in queries}.isdisjoint(one.query for one in whole[1])
    assert {one.split for one in queries} == {"test"}
    kinds = Counter(one.kind for one in queries)
    assert (len(agents), len(queries), kinds["paraphrase"], kinds["crosslingual"]) == (160, 100, 40, 14)
    texts = {one.id: sets.whole_text(one) for one in agents}
    shared = [overlap(one.query, texts[name]) for one in queries if one.kind == "paraphrase" for name in one.relevant]
    assert sum(shared) / len(shared) <= 0.035
