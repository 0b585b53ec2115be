"""``agentmesh console``: open the web console in the browser, logged in by a link that works once."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from agentmesh.cli import i18n
from agentmesh.cli.output import Output
from agentmesh.cli.verb import single

if TYPE_CHECKING:
    import webbrowser

#: Pages that can be named (console/src/pages.ts).
PAGES = ("home", "topology", "runs", "discover", "trust", "peers")
_FRAGMENT = re.compile(r"#/[\x21-\x7e]{0,1000}")
_WORDS_MAX = 8


def console(
    out: Output,
    page: Annotated[
        list[str] | None,
        typer.Argument(
            help="What to open: home, topology, runs, 'run last', discover, trust, peers, or '#/…' of an address."
        ),
    ] = None,
    print_: Annotated[bool, typer.Option("--print", help="Print the link; open nothing.")] = False,
    logout_all: Annotated[
        bool, typer.Option("--logout-all", help="End every session of the console, in every browser.")
    ] = False,
) -> None:
    """Open the web console in the browser, logged in.

    \b
    agentmesh console
    agentmesh console run last
    agentmesh console --print        for a machine without a screen

    The link works once and for a minute. Through SSH, forward the port first:   ssh -L 6374:127.0.0.1:6374 HOST
    """
    from agentmesh.cli.connect import connect

    with connect(out) as mesh:
        if logout_all:
            ended = mesh.end_console_sessions()
            if out.json:
                out.data(ended)
            else:
                out.check("ok", "console", i18n.t("sessions ended: {count}", count=ended.ended))
            return
        fragment = fragment_of(page or [])
        browser = None if print_ or out.json else browser_here(os.environ, sys.platform)
        link = mesh.console_login(same_user=browser is not None)
    url = link.url + fragment
    if out.json:
        out.data({"url": url, "expires_s": link.expires_s})
        return
    opened = browser is not None and browser.open(url)
    where = link.url.partition("/console/")[0] + "/" + fragment
    if opened:
        out.check("ok", "console", where)
        return
    if not print_ and browser is not None:
        # The link that was made for a browser here is good for programs of this user only.
        with connect(out) as mesh:
            url = mesh.console_login().url + fragment
    out.line(url)
    out.note(i18n.t("the link works once and for {seconds} s; open it in a browser", seconds=link.expires_s))


def fragment_of(words: list[str]) -> str:
    """Return the part of the console's address that names a page, ``#/…``; "" for none. Raises UsageError."""
    from agentmesh.errors import UsageError

    if not words:
        return ""
    if len(words) == 1 and "#/" in words[0]:  # copied from the address bar
        fragment = words[0][words[0].index("#/") :]
        if _FRAGMENT.fullmatch(fragment):
            return fragment
    first = {"run": "runs", "home": ""}.get(words[0], words[0])
    if first not in ("", *PAGES) or len(words) > _WORDS_MAX or not all(word and word.isprintable() for word in words):
        raise UsageError(
            f"{' '.join(words)[:80]!r} is no page of the console",
            code="console.page",
            why=f"there are {', '.join(PAGES)}, and a run: run REF",
            hint="agentmesh console run last",
        )
    return "#/" + "/".join(quote(word, safe="") for word in (first, *words[1:]) if word)


def browser_here(environ: Mapping[str, str], platform: str) -> webbrowser.BaseBrowser | None:
    """Return the browser that would show a page on the screen that this person looks at; None if there is none.

    Args:
        environ: The environment.
        platform: As ``sys.platform``.
    """
    import webbrowser

    if environ.get("BROWSER", "") == "":
        if environ.get("SSH_CONNECTION") or environ.get("SSH_TTY"):
            return None
        if platform not in ("darwin", "win32") and not (environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY")):
            return None
    try:
        found = webbrowser.get()
    except webbrowser.Error:
        return None
    # Plain GenericBrowsers are those for terminals (lynx, w3m), which cannot show the console, and what $BROWSER names.
    return None if type(found) is webbrowser.GenericBrowser and not environ.get("BROWSER") else found


def build() -> Any:
    """Return the command."""
    return single(console)
