"""What two texts share: folding, hidden signs, stems, parts of words, slips of the keyboard."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.core.search.spelling import Spelling
from agentmesh.core.search.text import WORD_CHARS_MAX, clean, pairs, slips, stem, tokens, trigrams


def words(text: str) -> list[str]:
    return [one.text for one in tokens(text) if one.kind != "end"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Contracts, contract; CONTRACTED", ["contract", "contract", "contract"]),
        ("kubeDoctor HTTPServer snake_case", ["kube", "doctor", "http", "server", "snake", "case"]),
        ("C++ and C#, k8s", ["c++", "and", "c#", "k8s"]),
        ("Übersetzung ＦＵＬＬ ﬁle straße", ["ubersetzung", "full", "file", "strass"]),
        ("tenant's", ["tenant"]),
        ("переводчики переводчик", ["переводчик", "переводчик"]),
        ("审合同pdf文件", ["审合同", "pdf", "文件"]),
    ],
)
def test_words_are_folded_taken_apart_and_brought_to_their_stem(text: str, found: list[str]) -> None:
    assert words(text) == found


@pytest.mark.parametrize(
    "sign", ["\u200b", "\u200d", "\ufeff", "\u202e", "\u2066", "\U000e0041", "\ufe0f", "\u00ad", "\u3164"]
)
def test_signs_that_nobody_sees_change_nothing(sign: str) -> None:
    assert words(f"con{sign}tract re{sign}view{sign}") == words("contract review")
    assert words(f"合{sign}同") == words("合同")


@given(st.text(max_size=300))
def test_any_text_is_read_without_error_and_always_alike(text: str) -> None:
    first = [*tokens(text)]
    assert first == [*tokens(text)]
    assert all(len(one.text) <= WORD_CHARS_MAX + 8 for one in first if one.kind == "word")
    assert clean(clean(text)) == clean(text)


def test_a_word_of_a_million_letters_costs_no_more_than_a_long_one() -> None:
    assert len(words("a" * 1_000_000)[0]) <= WORD_CHARS_MAX


def test_signs_without_spaces_are_read_in_pairs() -> None:
    assert pairs("租房合同") == ["租房", "房合", "合同"]
    assert pairs("租") == ["租"]


def test_stems_leave_words_with_digits_alone() -> None:
    assert stem("mp3s") == "mp3s"
    assert stem("agreements") == "agreement"


@pytest.mark.parametrize(
    ("one", "other", "most", "near"),
    [
        ("translate", "tranlsate", 1, True),
        ("translate", "transalte", 1, True),
        ("invoice", "invoce", 1, True),
        ("invoice", "invoicee", 1, True),
        ("invoice", "involve", 1, False),
        ("contract", "kontrakt", 2, True),
        ("contract", "abstract", 2, False),
    ],
)
def test_slips_are_counted(one: str, other: str, most: int, near: bool) -> None:
    assert (slips(one, other, most) is not None) is near


@given(st.text("abcd", max_size=8), st.text("abcd", max_size=8), st.integers(0, 2))
def test_slips_are_the_same_in_both_directions(one: str, other: str, most: int) -> None:
    assert slips(one, other, most) == slips(other, one, most)
    assert slips(one, one, most) == 0
    assert (one == other) == (slips(one, other, 0) == 0)


def test_a_mistyped_word_is_near_to_those_with_the_fewest_slips() -> None:
    spelling = Spelling()
    for word in ("translate", "translator", "contract", "flight", "fright", "tax"):
        spelling.add(word)
    assert spelling.near("tranlsate") == [("translate", 1)]
    assert spelling.near("flght") == [("flight", 1)]
    assert spelling.near("contract") == [("contract", 0)]
    assert spelling.near("zzzzzzzz") == []
    assert spelling.near("tex") == []
    assert trigrams("ab") == {"^ab", "ab$"}
