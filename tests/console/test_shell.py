"""The console's shell at a real daemon: logging in, tabs that share one stream, a daemon that restarts, pages of strangers."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.browser import Desk, login_link, needs_browser
from tests.support.daemons import Daemon, Mesh
from tests.support.plain import plain_agent

HERE = Path(__file__).resolve().parent
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), needs_browser()]


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """One directory of daemons for the module."""
    one = Mesh(tmp_path_factory.mktemp("shell"))
    try:
        yield one
    finally:
        one.aclose()


@pytest.fixture(scope="module")
def node(mesh: Mesh) -> Iterator[Daemon]:
    with plain_agent() as agent:
        daemon = mesh.node("alone")
        daemon.post(
            "/api/v1/agents", {"url": f"{agent}/echo", "door": "http", "name": "echo", "description": "Says it."}
        )
        daemon.post("/api/v1/calls", {"to": "echo", "text": "hello"})
        yield daemon


@contextlib.contextmanager
def stranger(body: str) -> Iterator[str]:
    """Serve a page of somebody else on another port of this machine, as any program of any user could."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            raw = body.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        def log_message(self, *_: object) -> None:
            return None

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_a_link_opens_the_console_once_and_leaves_no_trace_in_the_address(node: Daemon, browser: Any) -> None:
    link = login_link(node)
    with Desk(browser, node) as desk:
        desk.page.goto(link)
        desk.live()
        assert "code" not in desk.page.url
        assert desk.page.evaluate("document.cookie") == ""
    with Desk(browser, node, expected=lambda text: "401" in text or "403" in text) as desk:
        desk.page.goto(link)
        desk.page.get_by_text("agentmesh console").first.wait_for()
        desk.page.goto(node.url)
        desk.page.get_by_text("agentmesh console").first.wait_for()


def test_a_link_to_a_run_opens_that_run(node: Daemon, browser: Any) -> None:
    run = node.get("/api/v1/runs")["runs"][0]["run_id"]
    with Desk(browser, node).login("run", "last") as desk:
        desk.page.get_by_role("heading", level=1, name=f"Run {run[:8]}").wait_for()


def test_language_theme_and_place_are_remembered_and_the_keyboard_reaches_everything(
    node: Daemon, browser: Any
) -> None:
    with Desk(browser, node).login() as desk:
        page = desk.page
        page.keyboard.press("Control+k")
        page.locator("dialog [role=combobox]").fill("run")
        page.keyboard.press("Enter")
        page.get_by_role("heading", level=1, name="Runs").wait_for()
        page.get_by_role("button", name="语言：中文").press("Enter")
        page.get_by_role("heading", level=1, name="运行").wait_for()
        page.get_by_role("button", name="主题：跟随系统").press("Enter")
        page.reload()
        page.get_by_role("heading", level=1, name="运行").wait_for()
        assert page.evaluate("document.documentElement.dataset.theme") == "light"
        page.keyboard.press("Control+k")
        page.locator("dialog [role=combobox]").wait_for()
        page.keyboard.press("Escape")
        page.locator("dialog [role=combobox]").wait_for(state="detached")
        reached: set[str] = set()
        for _ in range(60):
            page.keyboard.press("Tab")
            found = page.evaluate(
                "() => { const at = document.activeElement, box = at.getBoundingClientRect();"
                " return [at.tagName + ':' + (at.getAttribute('href') ?? at.getAttribute('aria-label') ?? at.textContent.trim()),"
                " box.width >= 24 && box.height >= 20, getComputedStyle(at).outlineStyle] }"
            )
            if found[0].startswith(("A:", "BUTTON:")):
                assert found[2] != "none", f"{found[0]} has the focus and does not show it"
            reached.add(found[0])
        for place in ("#/", "#/topology", "#/runs", "#/discover", "#/trust", "#/peers"):
            assert f"A:{place}" in reached


def test_twelve_tabs_share_one_stream_and_all_are_live(node: Daemon, browser: Any) -> None:
    with Desk(browser, node).login() as desk:
        tabs = [desk.page]
        streams: list[str] = []
        desk.context.on(
            "request", lambda request: streams.append(request.url) if "console/stream" in request.url else None
        )
        for _ in range(11):
            tab = desk.context.new_page()
            tab.goto(f"{node.url}/#/runs")
            tabs.append(tab)
        for tab in tabs:
            tab.locator(".dot.live").wait_for()
        assert streams == []
        # The tab that listens goes; another one takes over, and news still arrives everywhere.
        tabs[0].close()
        node.post("/api/v1/calls", {"to": "echo", "text": "to all tabs"})
        run = node.get("/api/v1/runs")["runs"][0]["run_id"]
        for tab in tabs[1:]:
            tab.locator(f"a[href*='{run}']").first.wait_for()
        assert len(streams) == 1


def test_a_page_lives_through_a_restart_of_its_daemon(node: Daemon, browser: Any) -> None:
    broken = ("ERR_", "Failed to load", "401")
    with Desk(browser, node, expected=lambda text: any(one in text for one in broken)).login() as desk:
        desk.open("#/runs")
        port = node.port
        node.kill()
        desk.page.locator(".dot.offline").wait_for()
        desk.page.locator(".banner").first.wait_for()
        node.given["port"] = port
        node.open()
        assert node.port == port
        desk.live()
        desk.page.locator(".banner").wait_for(state="detached")
        node.post("/api/v1/calls", {"to": "echo", "text": "after the restart"})
        run = node.get("/api/v1/runs")["runs"][0]["run_id"]
        desk.page.locator(f"a[href*='{run}']").first.wait_for()


def test_a_page_of_somebody_else_gets_nothing_from_a_browser_that_is_logged_in(node: Daemon, browser: Any) -> None:
    runs = node.get("/api/v1/status")["events"]
    with stranger((HERE / "stranger.html").read_text("utf-8").replace("TARGET", json.dumps(node.url))) as address:
        desk = Desk(browser, node, expected=lambda _: True)
        with contextlib.closing(desk.context):
            desk.login()
            page = desk.context.new_page()
            page.goto(address)
            page.wait_for_function("window.got !== undefined")
            got = page.evaluate("window.got")
            assert got["read"] is None
            assert got["call"] is None
            assert got["stream"] is None
            assert got["frame"] is None
            assert got["blind"] in (None, "opaque0")
    assert node.get("/api/v1/status")["pid"] == node.pid
    assert node.get("/api/v1/status")["events"] == runs


def test_logging_out_ends_what_is_open(node: Daemon, browser: Any) -> None:
    with Desk(browser, node, expected=lambda text: "401" in text).login() as desk:
        desk.open("#/runs")
        assert node.cli("console", "--logout-all").code == 0
        desk.page.evaluate("location.hash = '#/peers'")
        desk.page.get_by_text("You are not logged in here").first.wait_for()
