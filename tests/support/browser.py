"""A real browser for the console's tests: Debian's Chromium, driven by Playwright, watching for everything that should not be.

Playwright's own event loop lives in the thread of the test, so a browser is kept for one module and never beside tests that
are coroutines.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.daemons import Daemon

CHROMIUM = os.environ.get("AGENTMESH_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
#: Without a sandbox because tests run as root in CI; the rest keeps it from asking anybody outside.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--enable-unsafe-swiftshader",
    "--js-flags=--expose-gc",
    "--enable-precise-memory-info",
)
#: Rules of WCAG 2.2 AA and below.
AXE_TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa")
WIDE, NARROW = (1280, 800), (400, 800)


def needs_browser() -> pytest.MarkDecorator:
    """Return the mark of tests that need a browser; they say what is missing when they are skipped."""
    missing = ""
    if not CHROMIUM:
        missing = "no Chromium here (Debian: apt-get install chromium)"
    elif importlib.util.find_spec("playwright") is None:
        missing = "playwright is not installed"
    return pytest.mark.skipif(bool(missing), reason=f"{missing}: the console was not looked at")


@contextlib.contextmanager
def chromium(flags: tuple[str, ...] = ()) -> Generator[Any]:
    """Start a browser; it is gone with the block."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *flags])
        try:
            yield browser
        finally:
            browser.close()


def login_link(daemon: Daemon, *place: str) -> str:
    """Return a link that opens the console logged in, as a person gets it from the command line."""
    return daemon.cli("console", "--print", *place).out.strip().splitlines()[-1].strip()


class Desk:
    """One browser profile at one daemon's console, and everything that went wrong in it.

    Args:
        browser: Of ``chromium``.
        daemon: Whose console.
        size: Width and height of the window, pixels.
        theme: "light" or "dark".
        lang: "en" or "zh".
        expected: Says of a message of the browser whether the test brought it about on purpose.
    """

    def __init__(
        self,
        browser: Any,
        daemon: Daemon,
        *,
        size: tuple[int, int] = WIDE,
        theme: str = "light",
        lang: str = "en",
        expected: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self.daemon = daemon
        self.expected = expected
        self.wrong: list[str] = []
        self.outside: list[str] = []
        self.context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            locale="zh-CN" if lang == "zh" else "en-GB",
            color_scheme=theme,
            reduced_motion="reduce",
            timezone_id="UTC",
        )
        self.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=daemon.url)
        self.context.set_default_timeout(60_000)
        self.context.on("request", self._on_request)
        self.context.on("weberror", lambda error: self._note(f"exception: {error.error}"))
        self.context.on("console", self._on_console)
        self.page = self.context.new_page()

    def __enter__(self) -> Desk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _error: BaseException | None, _at: TracebackType | None
    ) -> None:
        if kind is not None:
            with contextlib.suppress(Exception):
                # What a person would see stands in the report of the failed test.
                print(self.page.url, self.wrong, self.page.inner_text("body")[:2000], sep="\n")
        self.context.close()
        if kind is None:
            assert self.wrong == [], self.wrong
            assert self.outside == [], self.outside

    def _on_console(self, message: Any) -> None:
        # What the software renderer of a machine without a GPU says of its own speed is not the page's doing.
        if message.type in ("error", "warning") and "GL Driver Message" not in message.text:
            self._note(f"{message.type}: {message.text} ({message.location.get('url', '')})")

    def _note(self, text: str) -> None:
        if not self.expected(text):
            self.wrong.append(text[:500])

    def _on_request(self, request: Any) -> None:
        at = urlsplit(request.url)
        if at.scheme not in ("data", "blob", "about") and at.port != self.daemon.port:
            self.outside.append(request.url[:300])

    def login(self, *place: str) -> Desk:
        """Open the console as ``agentmesh console`` does, and wait until it is alive."""
        self.page.goto(login_link(self.daemon, *place))
        self.live()
        return self

    def live(self) -> None:
        """Wait until the page hears its daemon."""
        self.page.locator(".dot.live").wait_for()

    def open(self, place: str, ready: str = "#page-title") -> None:
        """Go to a place of the console (``#/runs``) and wait until it shows something."""
        self.page.evaluate("place => { location.hash = place }", place)
        self.page.locator(ready).first.wait_for()
        self.settle()

    def settle(self) -> None:
        """Wait until two frames were painted, so that what is measured or looked at stands."""
        self.page.evaluate("() => new Promise(go => requestAnimationFrame(() => requestAnimationFrame(() => go(0))))")

    def axe(self) -> list[str]:
        """Return what is hard to use for people with a disability, a line each."""
        # Evaluated by the driver, which the page's policy does not bind; a script element would be refused, rightly.
        self.page.evaluate(axe_source())
        found = self.page.evaluate(
            "tags => axe.run(document, { runOnly: { type: 'tag', values: tags }, resultTypes: ['violations'] })",
            list(AXE_TAGS),
        )
        return [
            f"{one['id']}: {node['html'][:160]} · {node['failureSummary'][:200]}"
            for one in found["violations"]
            for node in one["nodes"][:5]
        ]


def plain(command: str) -> str:
    """Return a command that a page shows without the home directory that it names for nodes like those of the tests."""
    return re.sub(r"^agentmesh --home (\"[^\"]*\"|\S+) ", "agentmesh ", command)


@cache
def axe_source() -> str:
    """Return the rules as one script."""
    import axe_playwright_python

    return (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")
