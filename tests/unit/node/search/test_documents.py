"""What is searched of a manifest, and that nothing a stranger writes in a card breaks it."""

from __future__ import annotations

from typing import Any

import pytest

from agentmesh.codec.canonical import canonical
from agentmesh.core.search.model import PASSAGES_MAX, TEXT_CHARS_MAX, Passage
from agentmesh.identity.manifest import Manifest, build_card, read_record
from agentmesh.node.search.documents import document_of, version_of
from tests.support.records import key

AGENT, NODE = key(1).did, key(2).did
SKILL = {
    "id": "check",
    "name": "Check",
    "description": "Checks leases",
    "tags": ["law", "lease"],
    "examples": ["Is this fair?"],
}


def manifest(*, seq: int = 1, skills: list[dict[str, Any]] | None = None, **params: Any) -> Manifest:
    card = build_card(
        agent_key_did=AGENT,
        node_id=NODE,
        name="lease-check",
        description="Reviews tenancy agreements",
        version="1.0",
        skills=[SKILL] if skills is None else skills,
        input_modes=["text/plain"],
        output_modes=["text/plain"],
        seq=seq,
        iat=1_000 + seq,
        exp=2_000 + seq,
        params=params,
    )
    return read_record(canonical(card), now=1_500, require_signed=False)


def test_an_agent_has_a_passage_for_itself_for_each_skill_and_for_each_example() -> None:
    found = document_of(
        manifest(vector_desc="Rental law of Berlin"), protocols=("mcp",), organisation="o", location="eu/berlin"
    )
    assert found.passages == (
        Passage("agent", "", "Reviews tenancy agreements\nRental law of Berlin"),
        Passage("skill", "check", "Check: Checks leases"),
        Passage("example", "check", "Is this fair?"),
    )
    assert (found.agent_id, found.name, found.node_id) == (AGENT, "lease-check", NODE)
    assert (found.tags, found.skills) == (("law", "lease"), ("check",))
    assert found.protocols == ("mesh", "mcp")
    assert (found.organisation, found.location) == ("o", "eu/berlin")


def test_a_manifest_that_was_only_signed_again_is_the_same_version() -> None:
    first, again, other = (document_of(one) for one in (manifest(), manifest(seq=9), manifest(models=["gpt-5"])))
    assert first.version == again.version == version_of(again)
    assert first.version != other.version
    assert first.version != document_of(manifest(), location="x").version


@pytest.mark.parametrize(
    ("pricing", "micros"),
    [
        (
            [{"scheme": "exact", "network": "base", "amount": "25000", "asset": "0xabc", "extra": {"name": "USDC"}}],
            25_000,
        ),
        ([{"maxAmountRequired": "10", "extra": {"name": "USD Coin"}}], 10),
        ([{"amount": "10", "asset": "USDT"}, {"amount": "30", "asset": "USDC"}], 30),
        ({"amount": "0.02", "currency": "USD"}, 20_000),
        ({"amount": "1", "currency": "usd"}, 1_000_000),
        ({"amount": "0.0000001", "currency": "USD"}, 1),
        ([{"amount": "25000", "extra": {"name": "EURC"}}], None),
        ([{"amount": "1.5", "asset": "USDC"}], None),
        ({"amount": "-1", "currency": "USD"}, None),
        ({"amount": "１", "currency": "USD"}, None),
        ("cheap", None),
        ([["x"]], None),
    ],
)
def test_a_price_is_read_in_millionths_of_a_dollar_or_not_at_all(pricing: Any, micros: int | None) -> None:
    assert document_of(manifest(pricing=pricing)).price_micros == micros


@pytest.mark.parametrize(
    ("said", "tokens"), [(8_000, 8_000), ("128000", 128_000), ("many", 0), ([1], 0), (-5, 0), ("٣", 0)]
)
def test_a_context_window_is_a_whole_number_or_nothing(said: Any, tokens: int) -> None:
    assert document_of(manifest(context_window=said)).context_window == tokens


def test_members_of_another_form_are_left_out() -> None:
    found = document_of(
        manifest(models={"a": "b"}, vector_desc=[1, 2], protocols=5, location=["x"], tags=[{"x": "y"}, "ok"])
    )
    assert (found.models, found.location, found.tags[:1]) == ((), "", ("ok",))


def test_a_card_that_says_very_much_is_cut_and_its_skills_stay_before_its_examples() -> None:
    skills = [
        {"id": f"s{n}", "name": f"S{n}", "description": "x" * 500, "tags": ["t"], "examples": ["one", "two"]}
        for n in range(60)
    ]
    found = document_of(manifest(skills=skills))
    assert len(found.passages) == PASSAGES_MAX
    assert sum(one.kind == "skill" for one in found.passages) == 60
    assert all(len(one.text) <= TEXT_CHARS_MAX for one in found.passages)
