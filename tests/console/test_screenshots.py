"""Pictures of every page for the documentation: taken anew by ``make screenshots``, compared with nothing, for people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.console.stage import Stage
from tests.support.browser import Desk, needs_browser
from tests.support.daemons import Mesh, sees_agent, wait_until
from tests.support.plain import plain_agent

pytestmark = [
    pytest.mark.e2e,
    needs_browser(),
    pytest.mark.skipif(not os.environ.get("AGENTMESH_SCREENSHOTS"), reason="make screenshots takes them"),
]

FOLDER = Path(__file__).resolve().parents[2] / "docs" / "images" / "console"
#: What stands in the pictures: agents that could be anybody's.
AGENTS = {
    "summariser": "Sums up long documents in three sentences.",
    "contract-check": "Reviews rental contracts under German law and marks unusual clauses.",
    "translator": "Translates between Chinese, German and English.",
    "invoice-reader": "Reads amounts, dates and tax from scanned invoices.",
}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    mesh = Mesh(tmp_path_factory.mktemp("pictures"))
    try:
        with plain_agent() as agent:
            laptop = mesh.node("laptop")
            server = mesh.node("server", seeds=(laptop.seed(),))
            nodes = (laptop, server)
            for number, (name, says) in enumerate(AGENTS.items()):
                body = {"url": f"{agent}/{name}", "door": "http", "name": name, "description": says}
                nodes[number % 2].post("/api/v1/agents", body)
            laptop.post(
                "/api/v1/agents", {"url": f"{agent}/broken", "door": "http", "name": "scanner", "description": "Scans."}
            )
            for name in AGENTS:
                wait_until(lambda name=name: sees_agent(laptop, name), f"{name} to be known", 60)
            names = list(AGENTS)
            for number in range(24):
                caller, callee = names[(number * 2) % 4], names[(number * 3 + 1) % 4]
                sent = {"to": callee, "text": f"please look at page {number + 1}"}
                if caller in (names[0], names[2]) and caller != callee:
                    sent["from_agent"] = caller
                laptop.post("/api/v1/calls", sent)
            laptop.ask("POST", "/api/v1/calls", {"to": "scanner", "text": "scan"})
            run = laptop.get("/api/v1/runs?limit=5")["runs"][1]["run_id"]
            yield Stage(laptop, server, {"run": run})
    finally:
        mesh.aclose()


@pytest.mark.parametrize(
    ("name", "place", "lang", "theme"),
    [
        ("home", "#/", "en", "light"),
        ("topology", "#/topology", "en", "light"),
        ("topology-zh-dark", "#/topology", "zh", "dark"),
        ("runs", "#/runs", "en", "light"),
        ("timeline", "#/runs/{run}", "en", "light"),
        ("timeline-zh-dark", "#/runs/{run}?view=full", "zh", "dark"),
        ("discover", "#/discover?q=check+a+rental+contract", "en", "light"),
        ("trust", "#/trust", "en", "light"),
        ("peers", "#/peers", "en", "light"),
    ],
)
def test_a_picture_is_taken(stage: Stage, browser: Any, name: str, place: str, lang: str, theme: str) -> None:
    with Desk(browser, stage.one, lang=lang, theme=theme).login() as desk:
        desk.open(place.format(**stage.runs))
        desk.page.wait_for_load_state("networkidle")
        desk.page.wait_for_timeout(1_500)
        FOLDER.mkdir(parents=True, exist_ok=True)
        desk.page.screenshot(path=FOLDER / f"{name}.png", animations="disabled")
