"""Every page in a real browser, in both languages and themes, wide and narrow: it opens, all can use it, it asks nobody else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.console.stage import Stage, set_up
from tests.support.browser import NARROW, WIDE, Desk, needs_browser
from tests.support.daemons import Mesh
from tests.support.plain import plain_agent

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), needs_browser()]

#: Page → its title in English and Chinese.
PAGES = {
    "#/": ("Home", "概览"),
    "#/topology": ("Topology", "拓扑"),
    "#/runs": ("Runs", "运行"),
    "#/discover": ("Discover", "发现"),
    "#/trust": ("Trust & audit", "信任与审计"),
    "#/peers": ("Peers & settings", "节点与设置"),
}
LOOKS = [("en", "light", WIDE), ("zh", "dark", WIDE), ("en", "dark", NARROW), ("zh", "light", NARROW)]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    mesh = Mesh(tmp_path_factory.mktemp("console"))
    try:
        with plain_agent() as agent:
            yield set_up(mesh, agent)
    finally:
        mesh.aclose()


@pytest.mark.parametrize(
    ("lang", "theme", "size"), LOOKS, ids=["en-light", "zh-dark", "en-dark-narrow", "zh-light-narrow"]
)
def test_every_page_opens_and_can_be_used_by_everybody(
    stage: Stage, browser: Any, lang: str, theme: str, size: tuple[int, int]
) -> None:
    with Desk(browser, stage.one, lang=lang, theme=theme, size=size).login() as desk:
        places = [*PAGES, f"#/runs/{stage.runs['completed']}", f"#/runs/{stage.runs['hostile']}"]
        for place in places:
            # Every page has a title, the one before it too: a run is there when its rows are.
            desk.open(place, "#page-title" if place in PAGES else f"[data-run='{place[7:]}'] [data-seq]")
            title = PAGES[place][lang == "zh"] if place in PAGES else ""
            if title:
                desk.page.get_by_role("heading", level=1, name=title, exact=True).wait_for()
                assert desk.page.title() == f"{title} · AgentMesh"
            assert desk.page.evaluate("document.documentElement.lang") == ("zh-CN" if lang == "zh" else "en")
            assert desk.axe() == [], place
            wide = desk.page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, f"{place} is {wide} px wider than the window"
            assert desk.page.evaluate("window.pwned") is None
