"""Reading agent cards: which interface is chosen, and what a card may not do."""

from __future__ import annotations

from typing import Any

import pytest

from agentmesh.adapters.a2a_card import card_urls, read_card
from agentmesh.errors import DecodeError, UsageError
from agentmesh.ids import is_name

HERE = "http://127.0.0.1:9/.well-known/agent-card.json"


def card(*interfaces: tuple[str, str, str], **fields: Any) -> dict[str, Any]:
    offered = [{"url": u, "protocolBinding": b, "protocolVersion": v} for u, b, v in interfaces]
    return {"name": "Calc Agent", "supportedInterfaces": offered, **fields}


def target(said: dict[str, Any], came_from: str = HERE) -> dict[str, Any]:
    return read_card(said, came_from, came_from).target


def test_json_rpc_of_1_0_is_preferred_then_rest_then_0_3() -> None:
    old = ("http://127.0.0.1:9/03", "JSONRPC", "0.3")
    rest = ("http://127.0.0.1:9/rest", "HTTP+JSON", "1.0")
    all_three = [old, rest, ("http://127.0.0.1:9/rpc", "JSONRPC", "1.0")]
    assert target(card(*all_three))["url"] == "http://127.0.0.1:9/rpc"
    assert target(card(*all_three[:2]))["binding"] == "HTTP+JSON"
    assert target(card(*all_three[:1]))["version"] == "0.3"


def test_a_0_3_card_names_its_url_and_transport_at_the_top() -> None:
    old = {"name": "old", "url": "http://127.0.0.1:9/a2a", "protocolVersion": "0.3.0", "preferredTransport": "JSONRPC"}
    assert target(old) | {"version": "0.3", "binding": "JSONRPC"} == target(old)
    grpc = {"name": "old", "url": "http://127.0.0.1:9/", "preferredTransport": "GRPC", "protocolVersion": "0.3.0",
            "additionalInterfaces": [{"url": "http://127.0.0.1:9/rpc", "transport": "JSONRPC"}]}  # fmt: skip
    assert target(grpc)["url"] == "http://127.0.0.1:9/rpc"


def test_the_card_is_believed_about_streaming() -> None:
    interface = ("http://127.0.0.1:9/", "JSONRPC", "1.0")
    assert target(card(interface, capabilities={"streaming": True}))["streaming"] is True
    found = read_card(card(interface), HERE, HERE)
    assert (found.target["streaming"], found.capabilities.stream, found.capabilities.cancel) == (False, False, False)


def test_an_address_of_any_kind_becomes_the_host_the_card_came_from() -> None:
    assert target(card(("http://0.0.0.0:77/x", "JSONRPC", "1.0")))["url"] == "http://127.0.0.1:77/x"
    assert target(card(("http://[::]:77/x", "JSONRPC", "1.0")))["url"] == "http://127.0.0.1:77/x"
    assert target(card(("/rpc", "JSONRPC", "1.0")))["url"] == "http://127.0.0.1:9/rpc"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "127.9.9.9", "x.localhost"])
def test_a_card_from_elsewhere_may_not_point_into_this_machine(host: str) -> None:
    with pytest.raises(UsageError) as caught:
        target(card((f"http://{host}:6374/", "JSONRPC", "1.0")), "https://agents.example/.well-known/agent-card.json")
    assert caught.value.code == "agent.bad_url"


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"name": 3, "skills": []},
        {"name": "x"},
        card(),
        card(("http://127.0.0.1:9/", "GRPC", "1.0")),
        card(("http://127.0.0.1:9/", "JSONRPC", "2.0")),
        card(("ftp://127.0.0.1/", "JSONRPC", "1.0")),
    ],
)
def test_what_is_no_usable_card_is_not_this_door(said: dict[str, Any]) -> None:
    with pytest.raises(DecodeError) as caught:
        target(said)
    assert caught.value.code == "agent.not_this_door"


def test_names_skills_and_texts_are_made_to_fit() -> None:
    wild = card(
        ("http://127.0.0.1:9/", "JSONRPC", "1.0"),
        description="d" * 9000,
        skills=[{"id": "a", "tags": ["", 3, "t"]}, {"id": "a"}, "junk", *({"id": str(n)} for n in range(500))],
        defaultInputModes="text",
    )
    found = read_card(wild, HERE, HERE)
    assert found.name == "calc-agent"
    assert is_name(found.name)
    assert len(found.description) == 2000
    assert len(found.skills) <= 64
    assert len({s["id"] for s in found.skills}) == len(found.skills)
    assert all(s["tags"] and s["description"] for s in found.skills)
    assert found.input_modes


@pytest.mark.parametrize("name", ["!!!", "", "   ", "🙂"])
def test_a_name_that_cannot_be_typed_becomes_the_port(name: str) -> None:
    said = card(("http://127.0.0.1:9/", "JSONRPC", "1.0")) | {"name": name}
    assert read_card(said, HERE, "http://127.0.0.1:9/").name == "agent-9"


def test_cards_are_looked_for_below_the_path_then_at_the_root_with_the_query() -> None:
    assert card_urls("http://h/a2a/calc/?assistant_id=1") == [
        "http://h/a2a/calc/.well-known/agent-card.json?assistant_id=1",
        "http://h/a2a/calc/.well-known/agent.json?assistant_id=1",
        "http://h/.well-known/agent-card.json?assistant_id=1",
        "http://h/.well-known/agent.json?assistant_id=1",
    ]
    assert card_urls("http://h/x/card.json") == ["http://h/x/card.json"]
    assert card_urls("http://h/x?v=1#card") == ["http://h/x?v=1"]
