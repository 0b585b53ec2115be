"""Trust & audit, Peers & settings and the kill switch in a real browser: what they show is what API and command line say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentmesh.identity.keys import KeyPair
from tests.console.stage import MARKUP, called
from tests.support.browser import Desk, needs_browser
from tests.support.daemons import Daemon, Mesh, sees_agent, wait_until
from tests.support.plain import plain_agent

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), needs_browser()]

SEED = b"O" * 32
TRUST, PEERS = "Trust & audit", "Peers & settings"
OPERATOR = KeyPair.generate(SEED).did


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Daemon, Daemon]]:
    """Two nodes that obey one operator, whose key lies at the first; calls that ended well and ill."""
    mesh = Mesh(tmp_path_factory.mktemp("trust"))
    try:
        with plain_agent() as agent:
            one, other = mesh.pair(operators=(OPERATOR,))
            for node, name in ((one, "broken"), (other, "echo")):
                node.post("/api/v1/agents", {"url": f"{agent}/{name}", "door": "http", "name": name})
            wait_until(lambda: sees_agent(one, "echo"), "the far agent to be known", 60)
            called(one, "echo", "hello", purpose=MARKUP[:200])
            called(one, "broken", "try")
            wait_until(lambda: log_of(one)["matching"] == 2, "both calls to be recorded")
            yield one, other
    finally:
        mesh.aclose()


def log_of(node: Daemon, query: str = "") -> Any:
    return node.get(f"/api/v1/audit/rows?action=call{query}")


def go(desk: Desk, place: str, title: str, ready: str) -> None:
    """Open a place and wait until it is that page, not the one before, which shows what was asked for."""
    desk.open(place)
    desk.page.get_by_role("heading", level=1, name=title, exact=True).wait_for()
    desk.page.locator(ready).first.wait_for()


def digest(desk: Desk) -> tuple[str | None, str | None]:
    shown = desk.page.locator("[data-digest]")
    return shown.get_attribute("data-count"), shown.get_attribute("data-digest")


def test_trust_shows_the_agents_the_bars_and_the_digest_of_the_command_line(
    nodes: tuple[Daemon, Daemon], browser: Any
) -> None:
    with Desk(browser, nodes[0]).login() as desk:
        go(desk, "#/trust", TRUST, "[data-digest]")
        told = nodes[0].cli("trust", "--json").json()
        assert digest(desk) == (str(told["count"]), told["digest"])
        desk.page.get_by_text("As a table").click()
        bars = [int(one) for one in desk.page.locator("figure tbody td:nth-child(2)").all_inner_texts()]
        assert bars == [one["count"] for one in told["histogram"]]
        desk.page.locator("tbody a", has_text="echo").click()
        desk.page.get_by_role("heading", name="What happened").wait_for()
        desk.page.get_by_text("did its work").first.wait_for()
        assert desk.axe() == []


def test_the_log_of_calls_is_that_of_the_command_line_and_is_saved_as_it_is_hashed(
    nodes: tuple[Daemon, Daemon], browser: Any
) -> None:
    one = nodes[0]
    with Desk(browser, one).login() as desk:
        go(desk, "#/trust/calls", TRUST, "[data-seq]")
        told = one.cli("audit", "show", "--action", "call", "--json").json()
        assert digest(desk) == (str(told["matching"]), told["digest"])
        shown = [int(row.get_attribute("data-seq")) for row in desk.page.locator("[data-seq]").all()]
        assert shown == [row["data"]["seq"] for row in reversed(told["records"])]
        assert "window.pwned" in desk.page.inner_text("main"), "the purpose is shown as what it is"
        assert desk.page.evaluate("window.pwned") is None
        desk.page.get_by_role("button", name="failed", exact=True).click()
        desk.page.wait_for_function("document.querySelectorAll('[data-seq]').length === 1")
        assert "result=failed" in desk.page.url
        with desk.page.expect_download() as saved:
            desk.page.get_by_role("button", name="Export NDJSON").click()
        text = Path(saved.value.path()).read_text("utf-8")
        assert text == one.cli("audit", "export", "--action", "call", "--result", "failed").out
        desk.open("#/trust/calls?callee=echo")
        row = desk.page.locator("[data-seq]", has_text="echo")
        row.get_by_role("link", name="receipt kept").click()
        desk.page.get_by_text("holds", exact=True).wait_for()
        desk.page.get_by_text("receipt verify receipts.json --offline").wait_for()


def test_a_key_is_shown_once_opens_what_it_should_and_is_revoked(nodes: tuple[Daemon, Daemon], browser: Any) -> None:
    one = nodes[0]
    with Desk(browser, one).login() as desk:
        go(desk, "#/peers/access", PEERS, "#key-name")
        desk.page.locator("#key-name").fill("ci")
        desk.page.get_by_role("button", name="Make", exact=True).click()
        secret = desk.page.locator("dialog[open] code").inner_text()
        desk.page.keyboard.press("Escape")
        assert desk.page.locator("dialog[open] code").count() == 1, (
            "it does not go before somebody says that it is kept"
        )
        desk.page.get_by_role("button", name="I have kept it").click()
        desk.page.get_by_role("button", name="Revoke ci").wait_for()
        assert secret not in desk.page.content()
        (key,) = one.get("/api/v1/keys")["keys"]
        assert (key["name"], key["scopes"]) == ("ci", ["read"])
        desk.page.get_by_role("button", name="Revoke ci").click()
        desk.page.get_by_role("button", name="Yes, revoke").click()
        desk.page.get_by_text("There is no API key").wait_for()
        assert one.get("/api/v1/keys")["keys"] == []


def test_machines_and_settings_are_shown_as_the_daemon_has_them(nodes: tuple[Daemon, Daemon], browser: Any) -> None:
    one, other = nodes
    with Desk(browser, one).login() as desk:
        go(desk, "#/peers", PEERS, "[data-count]")
        row = desk.page.get_by_role("region", name="Machines").locator("tbody tr").inner_text()
        assert re.search(rf"{other.name}\b.*alive.*direct", row, re.DOTALL), row
        go(desk, "#/peers/settings?own=1&q=operators", PEERS, "[data-digest]")
        told = one.get("/api/v1/config")
        assert digest(desk) == (str(told["count"]), told["digest"])
        assert desk.page.locator("summary").count() == 1
        assert OPERATOR in desk.page.locator("summary").inner_text()
        assert one.token not in desk.page.content()


def test_without_the_key_the_stop_says_what_to_do_and_with_it_one_press_stops_both_nodes(
    nodes: tuple[Daemon, Daemon], browser: Any
) -> None:
    one, other = nodes
    key = one.home.operator_key

    def expected(text: str) -> bool:
        return "status of 404" in text

    with Desk(browser, one, expected=expected).login() as desk:
        stop = desk.page.get_by_role("button", name=re.compile("^Stop every node"))
        stop.click()
        desk.page.locator("dialog[open]").get_by_text("operator.none").wait_for()
        desk.page.get_by_role("button", name="Close", exact=True).click()
        assert not one.get("/api/v1/status")["read_only"]
        key.write_text(f"agentmesh ed25519 seed v1\n{SEED.hex()}\n")
        key.chmod(0o600)
        stop.click()
        desk.page.get_by_text("2 of 2 nodes confirmed").wait_for()
        assert other.get("/api/v1/status")["read_only"]
        desk.page.get_by_label("Reason (optional)").fill("runaway <b>spending</b>")
        desk.page.get_by_role("button", name="Tell the reason").click()
        desk.page.get_by_text("Every node is told the reason").wait_for()
        assert desk.axe() == []
        desk.page.get_by_role("button", name="Close", exact=True).click()
        banner = desk.page.locator(".stopped")
        banner.get_by_text("runaway <b>spending</b>").wait_for()
        for place in ("#/runs", "#/peers"):
            desk.open(place)
            assert banner.is_visible()
        desk.page.get_by_role("button", name=re.compile("Let the nodes go on")).click()
        assert one.get("/api/v1/status")["read_only"], "releasing asks first"
        desk.page.get_by_role("button", name="Yes, release").click()
        desk.page.get_by_text("2 of 2 nodes confirmed").wait_for()
        banner.wait_for(state="hidden")
        assert not other.get("/api/v1/status")["read_only"]
