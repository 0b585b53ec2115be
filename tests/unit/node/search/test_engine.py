"""The search engine: what it finds, in what order, and that nothing of what strangers write or ask breaks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentmesh.core.search.model import QUERY_CHARS_MAX, Document, Filters, Found, Passage
from agentmesh.embed.concepts import read_lexicon
from agentmesh.node.search.engine import Engine

LEXICON = read_lexicon(
    [
        (
            "test.txt",
            """# a few concepts for tests
legal : law, legal, lawyer | 法律, 律师 | Recht
contract < legal : contract, agreement | 合同, 协议 | Vertrag
rental_contract < contract : rental contract, tenancy agreement, lease | 租房合同 | Mietvertrag, Mietverträge
review : review, check, vet, examine, look over | 审查, 审一下 | prüfen, Prüfung
german : German, Germany | 德国, 德语 | deutsch, Deutschland
translate : translate, translator, translation | 翻译 | übersetzen, Übersetzung
flight : flight, plane ticket, airfare | 机票, 航班 | Flug
book : book, reserve, reservation | 预订, 订 | buchen
tax : tax, vat, tax return | 税, 报税 | Steuer
recipe : recipe, cook, dish | 菜谱, 做菜 | Rezept
weather : weather, forecast | 天气 | Wetter
""",
        )
    ]
)


def document(agent_id: str, text: str, *skills: str, version: str = "1", **more: Any) -> Document:
    passages = (Passage("agent", "", text), *(Passage("skill", f"s{n}", one) for n, one in enumerate(skills)))
    names = tuple(f"s{n}" for n in range(len(skills)))
    return Document(agent_id=agent_id, version=version, name=agent_id, passages=passages, skills=names, **more)


AGENTS = [
    document("lease", "Reviews tenancy agreements (Mietvertrag) in Germany", tags=("law",), protocols=("mesh", "a2a")),
    document("lawyer", "General legal questions", "Explains the law to laypeople", price_micros=50_000),
    document(
        "polyglot",
        "Translates letters",
        "Translation from German into English",
        models=("gpt-5",),
        context_window=8_000,
    ),
    document("travel", "Books flights and reserves seats", location="eu/berlin"),
    document("taxes", "Prepares your VAT and tax return", organisation="did:key:org", node_id="did:key:n"),
    document("chef", "菜谱和做菜建议"),
    document("sky", "Weather for the next week", context_window=128_000, price_micros=1_000),
]


@pytest.fixture
def engine(tmp_path: Path):
    made = Engine.open(tmp_path / "search.sqlite", lexicon=LEXICON)
    made.update(AGENTS)
    yield made
    made.close()


def ids(found: Found) -> list[str]:
    return [hit.agent_id for hit in found.hits]


@pytest.mark.parametrize(
    ("query", "first"),
    [
        ("vet the lease for my flat", "lease"),
        ("帮我审一下租房合同", "lease"),
        ("Prüfung von Mietverträgen", "lease"),
        ("plane ticket", "travel"),
        ("trnaslation", "polyglot"),
        ("I want to cook something", "chef"),
        ("报税", "taxes"),
    ],
)
def test_an_agent_is_found_by_what_is_meant_in_other_words_and_other_languages(
    engine: Engine, query: str, first: str
) -> None:
    found = engine.search(query)
    assert ids(found)[0] == first
    assert 0 < found.hits[0].text <= 1
    assert found.embedder == "builtin"


def test_the_passage_that_fits_best_is_shown(engine: Engine) -> None:
    hit = engine.search("translate German").hits[0]
    assert (hit.agent_id, hit.passage.skill) == ("polyglot", "s0")


def test_of_several_needs_the_best_of_each_comes_first(engine: Engine) -> None:
    found = engine.search("review the lease and book a flight")
    assert found.needs == ("review the lease", "book a flight")
    assert set(ids(found)[:2]) == {"lease", "travel"}


def test_whoever_answers_more_needs_comes_before_who_answers_one_as_well(engine: Engine) -> None:
    engine.update([document("both", "Reviews tenancy agreements", "Books flights")])
    assert ids(engine.search("check the tenancy agreement and book a flight"))[0] == "both"


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        (Filters(protocol="A2A"), "lease"),
        (Filters(tag="LAW"), "lease"),
        (Filters(skill="S0", model="GPT"), "polyglot"),
        (Filters(location="eu"), "travel"),
        (Filters(organisation="did:key:org"), "taxes"),
        (Filters(node_id="did:key:n"), "taxes"),
        (Filters(context_window_min=100_000), "sky"),
        (Filters(price_micros_max=1_000), "sky"),
    ],
)
def test_only_those_that_meet_every_filter_are_hits(engine: Engine, filters: Filters, passes: str) -> None:
    query = "law, translation, flight, tax and weather"
    assert ids(engine.search(query, filters=filters)) == [passes]


def test_a_near_miss_says_which_filter_it_does_not_meet(engine: Engine) -> None:
    found = engine.search("tenancy agreement", filters=Filters(protocol="a2a", price_micros_max=10))
    assert found.hits == ()
    assert found.near[0].agent_id == "lease"
    assert found.near[0].missed == ("price_micros_max",)


def test_a_filter_finds_the_one_agent_behind_thousands_that_fit_better(tmp_path: Path) -> None:
    engine = Engine.open(tmp_path / "search.sqlite", lexicon=LEXICON)
    engine.update([document(f"n{n}", "Tax return and VAT") for n in range(600)])
    engine.update([document("one", "Travel, and some tax", price_micros=7, tags=("rare",))])
    assert ids(engine.search("tax return", filters=Filters(tag="rare"))) == ["one"]
    assert ids(engine.search("tax return", filters=Filters(price_micros_max=7))) == ["one"]
    engine.close()


def test_saying_a_thing_often_or_at_length_does_not_pay(engine: Engine) -> None:
    engine.update([document("plain", "Translates letters"), document("loud", "Translates letters. " * 80)])
    scores = {hit.agent_id: hit.text for hit in engine.search("translate a letter").hits}
    assert scores["plain"] == pytest.approx(scores["loud"])


def test_an_agent_that_lists_everything_does_not_come_before_one_that_does_it(engine: Engine) -> None:
    everything = ", ".join(sorted({*LEXICON.terms}) * 1) + ", " + ", ".join(f"skill{n}word" for n in range(200))
    engine.update([document("stuffed", "best agent ever, " + everything), document("vat", "VAT and tax return")])
    assert ids(engine.search("tax return"))[0] != "stuffed"


def test_praise_weighs_nothing(engine: Engine) -> None:
    assert engine.search("best ultimate agent ever").hits == ()


def test_hidden_signs_change_nothing(engine: Engine) -> None:
    engine.update([document("a", "Translates letters"), document("b", "Trans\u200blates let\u202eters")])
    scores = {hit.agent_id: hit.text for hit in engine.search("translate letters").hits}
    assert scores["a"] == scores["b"]


def test_what_an_agent_says_it_does_not_do_hardly_counts(engine: Engine) -> None:
    engine.update([document("no", "Answers letters. Does not prepare a tax return or VAT")])
    found = engine.search("tax return")
    assert ids(found)[0] == "taxes"
    assert {hit.agent_id: hit.text for hit in found.hits}["no"] < 0.5


@pytest.mark.parametrize(
    "query",
    [
        "",
        "   \n",
        "\x00",
        "the of and",
        '" OR 1=1; DROP TABLE agents; --',
        "text: NEAR(a b) * ^ { } - + AND OR NOT",
        "=plaw*",
        "_contract",
        "\ud800 lone surrogate",
        "\u202e\u200b",
        "%s %n {0} ${x}",
        "a" * 5_000,
        "租" * 5_000,
        bytes(range(256)).decode("latin-1"),
    ],
)
def test_no_query_breaks_the_search(engine: Engine, query: str) -> None:
    found = engine.search(query)
    assert all(0 <= hit.text <= 1 for hit in found.hits)
    assert ids(engine.search("tax return"))[0] == "taxes"


def test_of_a_query_that_is_too_long_the_rest_is_not_read_and_that_is_said(engine: Engine) -> None:
    found = engine.search("tax return " + "x " * 500_000 + "flight")
    assert ids(found) == ["taxes"]
    assert str(QUERY_CHARS_MAX) in found.notes[0]


short = st.sampled_from(
    [
        "tax return",
        "translate a letter",
        "租房合同",
        "cook a dish",
        "\u202ebad",
        "",
        "Mietvertrag prüfen",
        "zzz qqq",
        "a\x00b",
        "x" * 3_000,
    ]
)
agents = st.lists(
    st.builds(
        lambda number, version, texts: document(f"a{number}", *(texts or [""]), version=version),
        st.integers(0, 6),
        st.sampled_from("12"),
        st.lists(short, max_size=3),
    ),
    max_size=10,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(agents, st.lists(st.integers(0, 6), max_size=5))
def test_an_index_that_grew_and_shrank_answers_as_one_made_at_once(
    tmp_path_factory: pytest.TempPathFactory, documents: list[Document], gone: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("index")
    grown, fresh = Engine.open(folder / "a", lexicon=LEXICON), Engine.open(folder / "b", lexicon=LEXICON)
    latest: dict[str, Document] = {}
    for one in documents:
        if latest.get(one.agent_id) is None or latest[one.agent_id].version != one.version:
            latest[one.agent_id] = one
        grown.update([one])
    for number in gone:
        grown.remove([f"a{number}"])
        latest.pop(f"a{number}", None)
    fresh.update([latest[key] for key in sorted(latest)])
    assert grown.versions() == fresh.versions() == {key: one.version for key, one in latest.items()}
    for query in ("tax return", "translate", "lease", "cook"):
        one, other = grown.search(query), fresh.search(query)
        assert [(hit.agent_id, hit.text) for hit in one.hits] == [(hit.agent_id, hit.text) for hit in other.hits]
    grown.close()
    fresh.close()


def test_taking_out_what_was_put_in_leaves_nothing(engine: Engine) -> None:
    before = engine.search("weather and tax law")
    engine.update([document("new", "Weather, tax, law")])
    assert engine.search("weather and tax law") != before
    assert engine.remove(["new", "never there"]) == 1
    assert engine.search("weather and tax law") == before


def test_after_a_restart_only_what_changed_is_indexed_again(tmp_path: Path) -> None:
    for expected in (len(AGENTS), 0):
        engine = Engine.open(tmp_path / "search.sqlite", lexicon=LEXICON)
        assert engine.update(AGENTS) == expected
        assert engine.update([msgspec.structs.replace(AGENTS[0], version="2")]) == 1
        assert engine.update([AGENTS[0]]) == 1
        engine.close()


def test_another_lexicon_empties_the_index_and_says_so(tmp_path: Path) -> None:
    engine = Engine.open(tmp_path / "search.sqlite", lexicon=LEXICON)
    engine.update(AGENTS)
    engine.close()
    engine = Engine.open(tmp_path / "search.sqlite", lexicon=read_lexicon([("x.txt", "tax : tax\n")]))
    assert engine.versions() == {}
    assert "indexed again" in engine.notes[0]
    engine.close()


@pytest.mark.parametrize("damage", [b"", b"not a database at all" * 500, None])
def test_a_broken_index_is_made_anew_and_that_is_said(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "search.sqlite"
    engine = Engine.open(path, lexicon=LEXICON)
    engine.update(AGENTS)
    engine.close()
    if damage is None:
        raw = bytearray(path.read_bytes())
        raw[100:4096] = b"\xff" * 3996
        path.write_bytes(raw)
    else:
        path.write_bytes(damage)
    engine = Engine.open(path, lexicon=LEXICON)
    assert engine.update(AGENTS) == len(AGENTS)
    assert ids(engine.search("tax return"))[0] == "taxes"
    assert damage == b"" or "made anew" in engine.notes[0]
    engine.close()
