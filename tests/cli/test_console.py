"""``agentmesh console``: which page, and whether there is a browser to open it in."""

from __future__ import annotations

import webbrowser
from typing import Any

import pytest

from agentmesh.cli.commands.console import browser_here, fragment_of
from agentmesh.errors import UsageError


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ([], ""),
        (["home"], "#/"),
        (["runs"], "#/runs"),
        (["run", "last"], "#/runs/last"),
        (["run", "run_7f3a"], "#/runs/run_7f3a"),
        (["topology"], "#/topology"),
        (["discover"], "#/discover"),
        (["trust", "calc@anna/x"], "#/trust/calc%40anna%2Fx"),
        (["#/runs/last?kind=tool"], "#/runs/last?kind=tool"),
        (["http://127.0.0.1:6374/#/runs/1f3a"], "#/runs/1f3a"),
    ],
)
def test_a_page_is_named_by_words_or_by_a_copied_address(words: list[str], fragment: str) -> None:
    assert fragment_of(words) == fragment


@pytest.mark.parametrize(
    "words",
    [
        ["nope"],
        [""],
        ["javascript:alert(1)"],
        ["#/a b"],
        ["#/" + "x" * 2000],
        ["run", "a\x1b[2J"],
        ["http://x/"],
        ["run"] * 9,
    ],
)
def test_what_is_no_page_is_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match="no page of the console"):
        fragment_of(words)


@pytest.mark.parametrize(
    ("environ", "platform", "opens"),
    [
        ({}, "linux", False),
        ({"DISPLAY": ":0"}, "linux", True),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "linux", True),
        ({"DISPLAY": ":10", "SSH_CONNECTION": "a b c d"}, "linux", False),
        ({"SSH_TTY": "/dev/pts/1"}, "darwin", False),
        ({}, "darwin", True),
        ({"BROWSER": "firefox", "SSH_CONNECTION": "a b c d"}, "linux", True),
    ],
)
def test_a_browser_is_opened_only_on_the_screen_that_this_person_looks_at(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], platform: str, opens: bool
) -> None:
    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.BackgroundBrowser("firefox"))
    assert (browser_here(environ, platform) is not None) is opens


def test_a_browser_for_terminals_cannot_show_the_console(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webbrowser, "get", lambda: webbrowser.GenericBrowser("lynx"))
    assert browser_here({"DISPLAY": ":0"}, "linux") is None

    def none(*_: Any) -> None:
        raise webbrowser.Error("none")

    monkeypatch.setattr(webbrowser, "get", none)
    assert browser_here({"DISPLAY": ":0"}, "linux") is None
