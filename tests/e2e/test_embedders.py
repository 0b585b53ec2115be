"""The embedder that was configured answers in a real daemon; where it fails, words and concepts do, and the answer says so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.daemons import Daemon, Mesh, wait_until
from tests.support.models import real_models
from tests.support.plain import plain_agent
from tests.support.vectors import VectorServer

pytestmark = pytest.mark.e2e

#: No word of the need stands in what the agents say, and no concept of ours joins them.
AGENTS = {"alpine": "Walks you up steep slopes with ropes.", "oven": "Loaves and rolls, fresh each morning."}
NEED = "mountaineering companion"


@pytest.fixture
def agent() -> Iterator[str]:
    with plain_agent() as url:
        yield url


def furnished(mesh: Mesh, agent: str, **given: Any) -> Daemon:
    node = mesh.node("alone", **given)
    for name, says in AGENTS.items():
        body = {"url": f"{agent}/{name}", "door": "http", "name": name, "description": says}
        node.post("/api/v1/agents", body)
    return node


def asked(node: Daemon, need: str = NEED) -> dict[str, Any]:
    return node.cli("discover", need, "--json").json()


def answered_by(node: Daemon, embedder: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        found = asked(node)
        return found if found["embedder"] == embedder else None

    return wait_until(look, f"an answer by {embedder}", 90)


def test_the_local_model_finds_what_words_and_concepts_do_not(mesh: Mesh, agent: str) -> None:
    node = furnished(mesh, agent, models_dir=str(real_models()))
    answered_by(node, "minilm")
    found = wait_until(lambda: None if (view := asked(node))["notes"] else view, "all texts to have vectors", 60)
    assert found["embedder"] == "minilm"
    assert found["agents"][0]["name"] == "alpine"


def test_without_the_model_the_answer_says_how_to_get_it(mesh: Mesh, agent: str) -> None:
    found = answered_by(furnished(mesh, agent), "builtin")
    assert any("agentmesh models install minilm" in note for note in found["notes"])


def test_an_endpoint_answers_and_when_it_hangs_searches_go_on_without_it(mesh: Mesh, agent: str) -> None:
    with VectorServer() as server:
        node = furnished(mesh, agent, embedder=server.address)
        answered_by(node, server.address)

        def heard() -> bool:
            asked(node)  # a need is not sent out while no agent has reached the index
            return any(NEED in text for batch in server.texts() for text in batch)

        wait_until(heard, "the need at the endpoint", 60)

        def hang(*_args: object) -> None:
            server.over.wait(120)

        server.behaviour = hang
        asked(node, "somebody who bakes")

        def said() -> dict[str, Any] | None:
            found = asked(node, "somebody who bakes bread")
            # On a busy machine the first note may be of the search process, which was late itself.
            return found if any("does not answer" in note for note in found["notes"]) else None

        wait_until(said, "a note of the endpoint", 60)
