"""A query taken apart into needs, and never one need torn apart."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.core.search.needs import NEEDS_MAX, needs_of


@pytest.mark.parametrize(
    ("query", "needs"),
    [
        (
            "translate the contract and book a flight to Rome, then remind me",
            ["translate the contract", "book a flight to Rome", "remind me"],
        ),
        ("please summarise the meeting; draft an email to the client", None),
        ("翻译这份合同，然后订一张去罗马的机票，并提醒我", ["翻译这份合同", "订一张去罗马的机票", "提醒我"]),
        ("prüfe den Vertrag und buche einen Flug", ["prüfe den Vertrag", "buche einen Flug"]),
    ],
)
def test_several_needs_are_taken_apart(query: str, needs: list[str] | None) -> None:
    found = needs_of(query)
    assert len(found) >= 2
    assert needs is None or found == needs


@pytest.mark.parametrize(
    "query",
    [
        "search and replace",
        "find terms and conditions",
        "compare and summarise contracts",
        "track and trace parcels and invoices",
        "My landlord kept my deposit. What can I do?",
        "I need to translate and proofread a letter",
        "bread and butter pudding",
        "帮我比较和总结两份合同",
        "帮我审一下租房合同",
    ],
)
def test_one_need_stays_whole(query: str) -> None:
    assert needs_of(query) == [query.rstrip(".")]


@given(st.text(max_size=400))
def test_any_text_is_at_most_so_many_needs_and_none_of_them_is_empty(text: str) -> None:
    found = needs_of(text)
    assert len(found) <= NEEDS_MAX
    assert all(found) or found == [""]


def test_what_is_beyond_the_most_stays_with_the_last() -> None:
    found = needs_of("; ".join(f"translate letter {n}" for n in range(20)))
    assert len(found) == NEEDS_MAX
    assert "letter 19" in found[-1]


def test_an_empty_query_has_no_need() -> None:
    assert needs_of(" \n\t") == []
