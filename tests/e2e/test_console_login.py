"""The way into the console with a real daemon: the command, the link, the session over a restart, the stream over it."""

from __future__ import annotations

import http.client
import json
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.daemons import Daemon, Mesh, run_cli

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    mesh = Mesh(tmp_path_factory.mktemp("console"))
    try:
        yield mesh.node("one")
    finally:
        mesh.aclose()


def get(node: Daemon, target: str, headers: dict[str, str], method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
    try:
        connection.request(method, target, headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def log_in(node: Daemon) -> dict[str, str]:
    """Return the headers of the page that a link of the command opened."""
    done = node.cli("console", "--print", "run", "last")
    assert done.code == 0, done.err
    link = urlsplit(done.out.strip())
    assert (link.port, link.path, link.fragment) == (node.port, "/console/login", "/runs/last")
    status, headers, body = get(node, f"{link.path}?{link.query}", {})
    assert status == 200
    assert get(node, f"{link.path}?{link.query}", {})[0] == 403
    page = body.decode().partition('name="agentmesh-page" content="')[2].partition('"')[0]
    return {"Cookie": headers["set-cookie"].partition(";")[0], "X-AgentMesh-Page": page}


def first_tick(node: Daemon, headers: dict[str, str], after: str = "") -> dict[str, object]:
    connection = http.client.HTTPConnection("127.0.0.1", node.port, timeout=30)
    try:
        connection.request("GET", f"/api/v1/console/stream{after}", headers=headers)
        answer = connection.getresponse()
        assert answer.status == 200
        while not (line := answer.readline()).startswith(b"data: "):
            assert line, "the stream ended without a tick"
        tick: dict[str, object] = json.loads(line[6:])
        return tick
    finally:
        connection.close()


def test_the_session_of_a_link_outlives_a_restart_and_ends_with_the_command(node: Daemon) -> None:
    page = log_in(node)
    cookie = {"Cookie": page["Cookie"]}
    assert get(node, "/api/v1/status", page)[0] == 200
    assert get(node, "/api/v1/status", cookie)[0] == 401
    assert get(node, "/api/v1/status", {**page, "Sec-Fetch-Site": "same-site"})[0] == 403
    before = first_tick(node, cookie)
    assert before["resync"] is True
    kept = node.home.sessions
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert page["X-AgentMesh-Page"].encode() not in kept.read_bytes()
    was = node.port
    node.aclose()
    node.given["port"] = was  # as with people, whose port does not change
    node.open()
    if node.port == was:
        assert get(node, "/api/v1/status", page)[0] == 200
        after = first_tick(node, cookie, f"?after={before['seq']}")
        assert after["instance"] != before["instance"]
    page = log_in(node)
    done = node.cli("console", "--logout-all", "--json")
    assert done.json()["ended"] == 2
    assert get(node, "/api/v1/status", page)[0] == 401
    records = node.get("/api/v1/audit/records?limit=1000")["records"]
    events = [one["data"]["event"] for one in records if one["data"]["action"] == "session"]
    assert events == ["login", "login", "logout"]


def test_without_a_screen_the_command_prints_the_link_and_says_so(node: Daemon) -> None:
    plain = {k: v for k, v in node.env.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")}
    done = run_cli("console", "--lang", "en", env=plain)
    if sys.platform == "linux":
        assert done.out.startswith(f"{node.url}/console/login?code=")
        assert "works once" in done.err
    assert "works once" not in run_cli("console", "--print", "-q", env=plain).err
    wrong = run_cli("console", "nowhere", env=plain)
    assert (wrong.code, "error[console.page]" in wrong.err) == (2, True)


def test_a_browser_is_handed_a_link_for_this_user_alone(node: Daemon, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {seen}\n', "utf-8")
    browser.chmod(0o755)
    done = run_cli("console", "topology", "--lang", "en", env={**node.env, "BROWSER": f"{browser} %s"})
    assert done.code == 0, done.err
    assert done.out.split() == [
        "✓",
        "console",
        f"{node.url}/#/topology",
    ]  # never the link: it is in the browser's hands
    url = urlsplit(seen.read_text("utf-8").strip())
    assert url.fragment == "/topology"
    assert get(node, f"{url.path}?{url.query}", {})[0] == 200
