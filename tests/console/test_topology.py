"""The page of the topology: the rows of the command line with its digest, filters in the address, keys, no card to draw with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.console.stage import Stage, called, set_up
from tests.support.browser import Desk, needs_browser
from tests.support.daemons import Mesh, wait_until
from tests.support.plain import plain_agent

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), needs_browser()]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    mesh = Mesh(tmp_path_factory.mktemp("topology"))
    try:
        with plain_agent() as agent:
            yield set_up(mesh, agent)
    finally:
        mesh.aclose()


def said_by(desk: Desk) -> tuple[str, str]:
    """Return the count and digest that the page shows, once it shows any."""
    line = desk.page.locator("[data-digest]")
    line.wait_for()
    return line.get_attribute("data-count"), line.get_attribute("data-digest")


def printed_by(stage: Stage, *options: str) -> tuple[str, str]:
    view = stage.one.cli("topology", "--json", *options).json()
    return str(view["count"]), view["digest"]


def agree(desk: Desk, stage: Stage, *options: str) -> None:
    """Wait until page and command line say the same: calls leave the window as time goes by."""
    wait_until(lambda: said_by(desk) == printed_by(stage, *options), "the page to say what the command line says", 60)


def test_the_page_shows_the_rows_and_the_digest_of_the_command_line(stage: Stage, browser: Any) -> None:
    with Desk(browser, stage.one).login() as desk:
        desk.open("#/topology?view=table&window=60")
        agree(desk, stage, "--window", "60m")
        view = stage.one.cli("topology", "--json", "--window", "60m").json()
        assert desk.page.locator("tbody tr").count() == len(view["edges"])
        for rows, shown in (("agents", view["agents"]), ("machines", view["machines"])):
            desk.open(f"#/topology?view=table&window=60&rows={rows}")
            desk.page.locator("tbody tr").nth(len(shown) - 1).wait_for()
            assert desk.page.locator("tbody tr").count() == len(shown)
        assert desk.page.get_by_role("alert").count() == 0, "the page computed another digest"


def test_filters_stand_in_the_address_and_ask_what_the_command_line_asks(stage: Stage, browser: Any) -> None:
    with Desk(browser, stage.one).login() as desk:
        desk.open("#/topology?view=table&rows=machines&window=60")
        desk.page.locator("tbody tr").nth(1).wait_for()
        desk.page.get_by_role("button", name="Federation", exact=True).click()
        wait_until(lambda: desk.page.locator("tbody tr").count() == 1, "only this machine to be left")
        assert "source=federation" in desk.page.url
        agree(desk, stage, "--window", "60m", "--source", "federation")
        desk.page.get_by_role("button", name="CLI", exact=True).click()
        shown = desk.page.get_by_text("topology --window 60m --source federation")
        shown.wait_for()


def test_a_table_is_sorted_by_its_heads_and_the_address_says_so(stage: Stage, browser: Any) -> None:
    with Desk(browser, stage.one).login() as desk:
        desk.open("#/topology?view=table&rows=agents&window=60")
        head = desk.page.get_by_role("columnheader", name="Agent")
        head.get_by_role("button").click()
        wait_until(lambda: head.get_attribute("aria-sort") == "ascending", "the rows to be sorted")
        names = desk.page.locator("tbody tr td:first-child").all_inner_texts()
        assert names == sorted(names, key=str.casefold)
        assert "sort=name" in desk.page.url


def test_keys_go_from_mark_to_mark_and_open_and_close_its_card(stage: Stage, browser: Any) -> None:
    with Desk(browser, stage.one).login() as desk:
        desk.open("#/topology?window=60")
        desk.page.locator("[data-drawn=true]").wait_for()
        desk.page.get_by_role("application").focus()
        for key in ("ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp"):
            desk.page.keyboard.press(key)
        desk.page.keyboard.press("Enter")
        card = desk.page.get_by_role("complementary")
        card.wait_for()
        assert desk.axe() == []
        desk.page.keyboard.press("Escape")
        card.wait_for(state="detached")


def test_a_new_call_is_drawn_and_moves_nothing(stage: Stage, browser: Any) -> None:
    with Desk(browser, stage.one).login() as desk:
        desk.open("#/topology?window=60")
        desk.page.locator("[data-drawn=true]").wait_for()
        before, places = said_by(desk), desk.page.evaluate("sessionStorage.getItem('agentmesh.topology')")
        called(stage.one, "echo", "once more")
        wait_until(lambda: said_by(desk) != before, "the call to be seen on the page", 60)
        assert desk.page.evaluate("sessionStorage.getItem('agentmesh.topology')") == places


def test_without_a_card_to_draw_with_the_same_rows_are_a_table(stage: Stage, browser: Any) -> None:
    with Desk(browser, stage.one) as desk:
        desk.page.add_init_script("HTMLCanvasElement.prototype.getContext = () => null")
        desk.login()
        desk.open("#/topology?window=60")
        desk.page.get_by_text("This browser cannot draw the map (no WebGL)").wait_for()
        desk.page.locator("tbody tr").first.wait_for()
