"""Discover, its form and Home in a real browser: what they show is what the command line prints, and nothing is sent unasked."""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.browser import WIDE, Desk, needs_browser, plain
from tests.support.daemons import Daemon, Mesh, script, sees_agent, wait_until
from tests.support.plain import plain_agent

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240), needs_browser()]

AGENTS = """
import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Literal
from agentmesh import agent, run
from agentmesh.errors import AgentFailed

@dataclass
class Person:
    name: str
    age: int = 0

@agent
async def booker(origin: str, seats: int, kind: Literal["first", "second"], via: list[str] = [], who: Person | None = None):
    "Books seats on trains."
    return f"{seats} {kind} from {origin} via {'+'.join(via)} for {who.name if who else 'nobody'}"

@agent
async def talker(text: str) -> AsyncIterator[str]:
    "Talks about trains without an end."
    for n in range(100_000):
        yield f"word {n} "
        await asyncio.sleep(0.02)

@agent
async def broken(text: str) -> str:
    "Breaks down."
    raise AgentFailed("out of order", code="broken.down", hint="ask booker")

run(booker, talker, broken)
"""
#: A line of ``agentmesh discover --explain``: the name, and the score as the sum of its parts.
SUM = re.compile(r"^(\S+)  ([0-9.]+ = [0-9.·+ ]+?)   \(", re.MULTILINE)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    root = tmp_path_factory.mktemp("discover")
    mesh = Mesh(root)
    try:
        one = mesh.node("one")
        (root / "agents.py").write_text(AGENTS, "utf-8")
        with script([sys.executable, str(root / "agents.py")], env=one.env):
            for name in ("booker", "talker", "broken"):
                wait_until(lambda name=name: sees_agent(one, name), f"{name} to be known", 60)
            yield one
    finally:
        mesh.aclose()


@pytest.fixture
def desk(node: Daemon, browser: Any) -> Iterator[Desk]:
    with Desk(browser, node, size=WIDE).login() as one:
        yield one


def runs(node: Daemon) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = node.get("/api/v1/runs?limit=100")["runs"]
    return found


def states(node: Daemon) -> dict[str, str]:
    return {one["run_id"]: one["state"] for one in runs(node)}


def understood(node: Daemon) -> bool:
    """Say whether the search compares meanings and has read every agent."""
    found = node.post("/api/v1/discover", {"query": "book seats on a train", "scope": "local"})
    return bool(found["embedder"]) and not any("being indexed" in note for note in found["notes"])


def opened(desk: Desk, node: Daemon, name: str) -> Any:
    """Open the panel of an agent, and return it."""
    desk.open(f"#/discover?agent={node.get(f'/api/v1/agents/{name}')['agent']['agent_id']}", "aside form")
    return desk.page.locator("aside")


def test_answers_are_those_of_the_command_that_the_page_shows(node: Daemon, desk: Desk) -> None:
    # The process that compares meanings takes a moment to start and to read all agents; words alone give other figures.
    wait_until(lambda: understood(node), "the search by meaning", 60)
    desk.open("#/discover?q=book+seats+on+a+train&trust=low&w=0.5,0.4,0.1&local=1", ".sum")
    desk.page.get_by_text("meaning by").wait_for()
    desk.page.get_by_role("button", name="CLI").click()
    command = desk.page.locator("[popover] code").first.inner_text()
    printed = node.cli(*shlex.split(command)[1:]).out
    assert plain(command) == (
        'agentmesh discover "book seats on a train" --trust low --weights 0.5,0.4,0.1 --local --explain'
    )
    shown = [
        (hit.get_by_role("link").inner_text(), hit.locator(".sum").inner_text())
        for hit in desk.page.locator(".hit").filter(has=desk.page.locator(".sum")).all()
    ]
    printed_sums = SUM.findall(printed)
    assert printed_sums
    assert shown[: len(printed_sums)] == printed_sums


def test_a_form_sends_what_its_schema_asks_for_and_nothing_before_send_is_pressed(node: Daemon, desk: Desk) -> None:
    before = len(runs(node))
    panel = opened(desk, node, "booker")
    send = panel.get_by_role("button", name="Send")
    send.click()
    panel.get_by_text("Needed").first.wait_for()
    panel.get_by_role("textbox", name="origin").fill('Roma <b>"Termini"</b>')
    with plain_agent() as agent, desk.page.expect_response(re.compile("/api/v1/agents/")):
        # What changes in the directory takes nothing out of a form that is being filled in.
        node.post("/api/v1/agents", {"url": f"{agent}/late", "door": "http", "name": "late"})
    panel.get_by_role("textbox", name="seats").fill("two")
    panel.get_by_text("Write a whole number").or_(panel.get_by_text("Write a number")).wait_for()
    panel.get_by_role("textbox", name="seats").fill("2")
    panel.get_by_role("combobox", name="kind").select_option("second")
    panel.get_by_role("button", name="Add to via").click()
    panel.get_by_role("textbox", name="via 1").fill("Firenze")
    panel.get_by_role("textbox", name="name").fill("Anna")
    command = panel.locator("form .command code").inner_text()
    assert len(runs(node)) == before, "something was sent before Send was pressed"
    send.click()
    answer = '2 second from Roma <b>"Termini"</b> via Firenze for Anna'
    panel.locator(".answer pre").get_by_text(answer, exact=True).wait_for()
    panel.get_by_role("status").get_by_text("completed").wait_for()
    assert node.cli(*shlex.split(command)[1:], "--json").json()["text"] == answer
    panel.get_by_role("link", name="Open the run").click()
    desk.page.wait_for_url(re.compile(r"#/runs/[0-9a-f]{32}"))


def test_a_call_ends_when_it_is_stopped_and_when_its_panel_is_left(node: Daemon, desk: Desk) -> None:
    for leave in (False, True):
        panel = opened(desk, node, "talker")
        panel.get_by_label("Input", exact=True).fill("go on")
        panel.get_by_role("button", name="Send").click()
        panel.locator(".answer pre").get_by_text("word 3").wait_for()
        run = panel.get_by_role("link", name="Open the run").get_attribute("href").rpartition("/")[2]
        if leave:
            desk.page.keyboard.press("Escape")
            panel.wait_for(state="detached")
        else:
            panel.get_by_role("button", name="Stop").click()
            panel.get_by_role("status").get_by_text("canceled").wait_for()
        wait_until(lambda run=run: states(node).get(run) == "canceled", "the call to be canceled")


def test_a_failure_says_why_and_what_next(node: Daemon, desk: Desk) -> None:
    panel = opened(desk, node, "broken")
    panel.get_by_label("Input", exact=True).fill("try")
    panel.get_by_role("button", name="Send").click()
    problem = panel.get_by_role("alert")
    problem.wait_for()
    for text in ("out of order", "broken.down", "ask booker"):
        assert text in problem.inner_text()


def test_home_shows_the_figures_of_the_command_line_and_the_last_runs(node: Daemon, desk: Desk) -> None:
    node.ask("POST", "/api/v1/calls", {"to": "booker", "data": {"origin": "x", "seats": 1, "kind": "first"}})
    desk.open("#/", ".facts li:nth-child(4)")
    figures = json.loads(node.cli("topology", "--stats", "--json").out)
    shown = [one.inner_text() for one in desk.page.locator(".facts .value").all()]
    assert shown[:2] == [str(figures["agents"]), str(figures["machines_alive"])]
    newest = runs(node)[0]
    desk.page.locator("tbody tr").first.get_by_role("link", name=newest["run_id"][:8]).wait_for()


def test_the_search_leads_to_an_agent_and_back_to_where_one_was(node: Daemon, desk: Desk) -> None:
    desk.open("#/discover", ".hit")
    box = desk.page.get_by_role("searchbox")
    box.focus()
    desk.page.keyboard.press("Control+k")
    desk.page.get_by_role("option", name="talker").wait_for()
    assert desk.axe() == []
    desk.page.keyboard.press("Escape")
    assert box.evaluate("one => one === document.activeElement")
    desk.page.keyboard.press("Control+k")
    desk.page.keyboard.type("talk")
    desk.page.get_by_role("option", selected=True).get_by_text("talker").wait_for()
    desk.page.keyboard.press("Enter")
    desk.page.get_by_role("complementary", name="Agent talker").wait_for()
    assert desk.axe() == []
