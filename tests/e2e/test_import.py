"""Agents are imported by URL: from a card, and from a catalog that also lists what cannot be had."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons import Mesh, script, sees_agent, wait_until

pytestmark = pytest.mark.e2e

AGENTS = Path(__file__).parents[1] / "agents"
A2A = "application/a2a-agent-card+json"


@contextmanager
def site(document: Any) -> Iterator[str]:
    """Serve one document as AI Catalog of a site."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            found = self.path == "/.well-known/ai-catalog.json"
            body = json.dumps(document).encode() if found else b""
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "application/ai-catalog+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def url_of(agent: subprocess.Popen[str]) -> str:
    assert agent.stdout is not None
    return agent.stdout.readline().strip()


def test_agents_of_a_card_and_of_a_catalog_are_imported_and_stay_over_a_restart(tmp_path: Path) -> None:
    with ExitStack() as stack:
        mesh = Mesh(tmp_path)
        stack.callback(mesh.aclose)
        node = mesh.node("importer")
        one, other = (
            url_of(stack.enter_context(script([sys.executable, str(AGENTS / "a2a_official.py"), "0", "jsonrpc"])))
            for _ in range(2)
        )
        done = node.cli("import", one)
        assert done.code == 0, done.err
        name = node.get("/api/v1/agents")["agents"][0]["name"]
        assert name in done.out
        catalog = stack.enter_context(
            site(
                {
                    "specVersion": "1.0",
                    "entries": [
                        {"displayName": "again", "type": A2A, "url": f"{one}/.well-known/agent-card.json"},
                        {"displayName": "double", "type": A2A, "url": f"{other}/.well-known/agent-card.json"},
                        {"displayName": "tools", "type": "application/mcp-server+json", "url": "https://mcp.example/"},
                        {"displayName": "inward", "type": A2A, "url": "http://169.254.169.254/card.json"},
                        {
                            "displayName": "self",
                            "type": A2A,
                            "url": f"{node.url}/a2a/{name}/.well-known/agent-card.json",
                        },
                    ],
                }
            )
        )
        shown = node.cli("import", catalog, "--dry-run", "--json").json()
        assert [line.split()[0] for line in shown["found"]] == ["again", "double"]
        assert len(node.get("/api/v1/agents")["agents"]) == 1, "a dry run registers nothing"
        done = node.cli("import", catalog)
        refused = {
            line.split()[0]: line.split()[1] for line in done.out.splitlines() if "." in line and " import." in line
        }
        assert "tools" in refused, done.out
        found = node.cli("import", catalog, "--json").json()
        assert {one["key"]: one["code"] for one in found["refused"]} == {
            "double": "register.taken",
            "tools": "import.no_door",
            "inward": "link.inward",
            "self": "link.own_node",
        }, "what a stranger lists takes no name that is in use"
        assert [one["name"] for one in found["agents"]] == [name], "the same agent again is no other one"
        assert node.cli("deregister", name).code == 0
        assert node.cli("import", catalog).code == 0
        assert node.cli("import", catalog, "--kind", "mcp-registry").code != 0
        node.aclose()
        node.open()
        wait_until(lambda: sees_agent(node, name), "the imported agent after a restart")
        done = node.cli("run", "--to", name, "hello import")
        assert done.out.startswith("import"), (done.out, done.err)
