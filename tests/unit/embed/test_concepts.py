"""The lexicon: strict about its lines, and the one of the program has none that is wrong."""

from __future__ import annotations

import pytest

from agentmesh.embed.concepts import dumped, lexicon_files, mark_of, read_lexicon, stored
from agentmesh.errors import ConfigError

GOOD = (
    "a.txt",
    "# what it holds\nlegal : law, legal matter | 法律 | Recht\n"
    "lease < legal : rental contract, lease | 租房合同 | Mietvertrag\n",
)


def test_terms_of_all_columns_name_the_concept_and_bring_the_broader_one() -> None:
    lexicon = read_lexicon([GOOD])
    lease = lexicon.ids.index("lease")
    assert lexicon.terms["rental contract"] == lexicon.foreign["mietvertrag"] == lexicon.runs["租房合同"] == (lease,)
    assert dict(lexicon.closures[lease]) == {lease: 1.0, lexicon.ids.index("legal"): 0.55}
    assert lexicon.breadth[lexicon.ids.index("legal")] == 1
    assert lexicon.glosses[lease] == "rental contract"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("law legal", "a concept is"),
        ("Law : law", "small letters"),
        ("a < b, c, d, e : x", "at most 3"),
        ("a : x | y | z | q", "three columns"),
        ("a : | |", "three columns"),
        ("a : x\na : y", "stands already"),
        ("a < b : x", "stands nowhere"),
        ("a < b : x\nb < a : y", "broader than itself"),
        ("a : one two three four five six seven eight nine ten eleven", "no words"),
    ],
)
def test_a_wrong_line_is_named_with_its_file_and_number(text: str, word: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_lexicon([("odd.txt", text)])
    assert caught.value.code == "embed.lexicon"
    assert "odd.txt:" in str(caught.value)
    assert word in str(caught.value)


def test_a_concept_in_two_files_has_the_terms_of_both() -> None:
    lexicon = read_lexicon([GOOD, ("b.txt", "lease : letting || bail\n")])
    assert lexicon.foreign["bail"] == lexicon.terms["leas"]


def test_concepts_that_share_many_terms_are_near_whatever_they_are_called() -> None:
    lexicon = read_lexicon(
        [("a.txt", "tax : tax, levy, duty, income tax\ntaxes : tax, levy, duty, tax return\ncar : car\n")]
    )
    closure = dict(lexicon.closures[lexicon.ids.index("tax")])
    assert 0.5 < closure[lexicon.ids.index("taxes")] < 1
    assert lexicon.ids.index("car") not in closure


def test_the_stored_copy_is_read_only_if_it_is_of_the_same_files() -> None:
    lexicon = read_lexicon([GOOD])
    assert stored(dumped(lexicon), mark_of([GOOD])) == lexicon
    assert stored(dumped(lexicon), mark_of([(GOOD[0], GOOD[1] + "#")])) is None
    assert stored(b"\xc1garbage", lexicon.mark) is None


def test_the_lexicon_of_the_program_is_read_without_a_complaint() -> None:
    lexicon = read_lexicon(lexicon_files())
    assert len(lexicon.ids) > 1_000
    assert len(lexicon.runs) > 5_000
    assert all(text.startswith("#") for _, text in lexicon_files())
