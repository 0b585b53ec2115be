"""What a URL holds: cards, catalogs, registries; hostile ones too. Documents are served on loopback by the test."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from agentmesh.adapters import imports
from agentmesh.adapters.http_client import HttpClient, tcp_health
from agentmesh.adapters.imports import Loot, look
from agentmesh.adapters.reach import Reach
from agentmesh.adapters.registry import default_adapters
from agentmesh.errors import DecodeError, LimitError, NoRoute, UsageError

A2A = "application/a2a-agent-card+json"
CATALOG = "application/ai-catalog+json"
CARD = {"name": "calc", "description": "d", "version": "1", "supportedInterfaces": [{"url": "/rpc"}], "skills": []}


class Site:
    """Serves JSON documents by path and notes what was asked."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.asked: list[str] = []
        self.url = ""

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := (await reader.readline()).decode():
            while (await reader.readline()).strip():
                pass
            path = line.split()[1]
            self.asked.append(path)
            found = self.documents.get(path)
            status = "404 Not Found" if found is None else "200 OK"
            if isinstance(found, str) and found.startswith("->"):
                writer.write(f"HTTP/1.1 302 Found\r\nLocation: {found[2:]}\r\nContent-Length: 0\r\n\r\n".encode())
            else:
                body = found if isinstance(found, bytes) else json.dumps(found).encode()
                writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
            await writer.drain()
        writer.close()


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    found = Site()
    server = await asyncio.start_server(found.answer, "127.0.0.1", 0)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield found
    server.close()


def links(loot: Loot) -> list[tuple[str, str]]:
    return [(link.label, link.url) for link in loot.links]


def codes(loot: Loot) -> dict[str, str]:
    return {one.key: one.code for one in loot.refused}


async def test_a_card_is_found_at_its_well_known_place_or_where_it_was_named(site: Site) -> None:
    site.documents = {"/.well-known/agent-card.json": CARD, "/cards/7": CARD}
    loot = await look(site.url, "auto")
    assert (loot.kind, links(loot)) == ("a2a", [("calc", f"{site.url}/.well-known/agent-card.json")])
    loot = await look(f"{site.url}/cards/7", "a2a")
    assert links(loot) == [("calc", f"{site.url}/cards/7#card")], "the card itself, not one that lies near it"


async def test_a_catalog_gives_its_agents_and_says_of_all_else_why_not(site: Site) -> None:
    site.documents["/.well-known/ai-catalog.json"] = {
        "specVersion": "1.0",
        "entries": [
            {"identifier": "urn:air:x:a", "displayName": "A", "type": A2A, "url": "/a/agent-card.json"},
            {"identifier": "urn:air:x:b", "displayName": "B", "mediaType": A2A, "url": "https://8.8.8.8/b"},
            {
                "identifier": "urn:air:x:c",
                "type": A2A,
                "data": {**CARD, "supportedInterfaces": [{"url": f"{site.url}/c"}]},
            },
            {"displayName": "mcp", "type": "application/mcp-server+json", "url": "https://8.8.8.8/mcp"},
            {"displayName": "skill", "type": "application/ai-skills+zip", "url": "https://8.8.8.8/skill"},
            {"displayName": "no address", "type": A2A, "data": {"name": "x"}},
            {"displayName": "metadata", "type": A2A, "url": "http://169.254.169.254/card.json"},
            {"displayName": "file", "type": A2A, "url": "file:///etc/passwd"},
            "no object",
            {"displayName": "inner", "type": CATALOG, "url": "/more.json"},
            {
                "displayName": "inline",
                "type": CATALOG,
                "data": {"entries": [{"displayName": "D", "type": A2A, "url": "/d.json"}]},
            },
        ],
    }
    site.documents["/more.json"] = {"entries": [{"displayName": "E", "type": A2A, "url": "/e"}]}
    loot = await look(site.url, "catalog")
    assert links(loot) == [
        ("A", f"{site.url}/a/agent-card.json"),
        ("B", "https://8.8.8.8/b#card"),
        ("urn:air:x:c", f"{site.url}/c"),
        ("E", f"{site.url}/e#card"),
        ("D", f"{site.url}/d.json"),
    ]
    assert codes(loot) == {
        "mcp": "import.no_door",
        "skill": "import.other_kind",
        "no address": "import.no_url",
        "metadata": "link.inward",
        "file": "agent.bad_url",
        "an entry without a name": "import.other_kind",
    }


async def test_an_mcp_registry_is_read_to_its_end_and_its_servers_are_told_with_the_reason(site: Site) -> None:
    official = "io.modelcontextprotocol.registry/official"
    site.documents = {
        "/v0/servers": {
            "servers": [
                {
                    "server": {
                        "name": "x/remote",
                        "remotes": [{"type": "streamable-http", "url": "https://8.8.8.8/mcp"}],
                    }
                },
                {"server": {"name": "x/old"}, "_meta": {official: {"isLatest": False}}},
                {"server": {"name": "x/gone"}, "_meta": {official: {"status": "deleted"}}},
            ],
            "metadata": {"nextCursor": "x/remote:1&2", "count": 3},
        },
        "/v0/servers?cursor=x%2Fremote%3A1%262": {"servers": [{"name": "x/package", "packages": [{}]}], "metadata": {}},
    }
    for url in (site.url, f"{site.url}/v0/servers"):
        loot = await look(url, "mcp-registry" if url == site.url else "auto")
        assert loot.kind == "mcp-registry"
        assert codes(loot) == {"x/remote": "import.no_door", "x/package": "import.not_remote"}
        assert "https://8.8.8.8/mcp" in loot.refused[0].reason


@pytest.mark.parametrize(
    "document",
    [b"", b"[]", b"null", b"<html>It works</html>", b'{"entries": {}}', b"[" * 100_000, b'{"name": 7}', b"\xff\xfe"],
)
async def test_what_holds_nothing_is_named_so_with_what_was_looked_at(site: Site, document: bytes) -> None:
    site.documents = {
        "/.well-known/agent-card.json": document,
        "/.well-known/ai-catalog.json": document,
        "/v0/servers": document,
    }
    with pytest.raises(DecodeError) as caught:
        await look(site.url, "auto")
    assert caught.value.code == "import.nothing"
    assert "/v0/servers" in (caught.value.why or "")


async def test_catalogs_and_pages_that_go_round_in_circles_end(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imports, "DOCUMENTS_MAX", 8)
    me = {"displayName": "me", "type": CATALOG, "url": "/loop.json"}
    site.documents["/loop.json"] = {"entries": [me, {"displayName": "A", "type": A2A, "url": "/a.json"}]}
    assert links(await look(f"{site.url}/loop.json", "auto")) == [("A", f"{site.url}/a.json")]
    deep: dict[str, Any] = {"entries": [{"displayName": "deep", "type": A2A, "url": "/deep.json"}]}
    for _ in range(10):
        deep = {"entries": [{"displayName": "nest", "type": CATALOG, "data": deep}]}
    site.documents["/deep.json"] = deep
    assert codes(await look(f"{site.url}/deep.json", "auto")) == {"nest": "import.too_deep"}
    page = {"servers": [], "metadata": {"nextCursor": "same"}}
    site.documents |= {"/v0/servers": page, "/v0/servers?cursor=same": page}
    assert codes(await look(site.url, "mcp-registry")) == {"the rest of the registry": "import.too_many"}
    for number in range(20):
        site.documents[f"/n{number}.json"] = {
            "entries": [{"displayName": f"n{number}", "type": CATALOG, "url": f"/n{number + 1}.json"}]
        }
    monkeypatch.setattr(imports, "DEPTH_MAX", 100)
    assert "import.too_many" in codes(await look(f"{site.url}/n0.json", "auto")).values()


async def test_a_catalog_of_too_much_is_cut_or_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    site.documents["/c.json"] = {
        "entries": [{"displayName": f"{i}", "type": A2A, "url": f"/{i}.json"} for i in range(700)]
    }
    loot = await look(f"{site.url}/c.json", "catalog")
    assert len(loot.links) == imports.LINKS_MAX
    assert {one.code for one in loot.refused} == {"import.too_many"}
    monkeypatch.setattr(imports, "ENTRIES_MAX", 100)
    with pytest.raises(LimitError):
        await look(f"{site.url}/c.json", "catalog")
    monkeypatch.setattr(imports, "DOCUMENT_BYTES_MAX", 1000)
    with pytest.raises(LimitError):
        await look(f"{site.url}/c.json", "catalog")


async def test_redirects_stay_where_they_began_and_nothing_is_read_from_this_node(site: Site) -> None:
    site.documents |= {"/here.json": "->/there.json", "/there.json": CARD, "/away.json": "->http://127.0.0.2:1/"}
    assert links(await look(f"{site.url}/here.json", "auto")) == [("calc", f"{site.url}/here.json")]
    with pytest.raises(DecodeError):
        await look(f"{site.url}/away.json", "auto")
    port = int(site.url.rpartition(":")[2])
    assert codes(await look(f"{site.url}/there.json", "auto", own_port=port)) == {"calc": "link.own_node"}
    with pytest.raises(UsageError):
        await look("ftp://127.0.0.1/x", "auto")
    with pytest.raises(NoRoute):
        await look("http://127.0.0.1:1/x.json", "auto")


async def test_a_name_that_leads_further_in_by_now_is_not_asked_anything(site: Site) -> None:
    """A stranger's host name was on the internet when it was checked, and is this machine when it is used."""
    site.documents["/.well-known/agent-card.json"] = CARD
    client = HttpClient(least=Reach.PUBLIC)
    with pytest.raises(NoRoute) as caught:
        await client.fetch("POST", f"{site.url}/rpc", json={}, timeout_s=5)
    assert caught.value.code == "link.inward"
    await client.aclose()
    adapters = default_adapters(Reach.PRIVATE)
    del adapters["mailbox"]  # asks nobody, whatever it is given
    for adapter in adapters.values():
        with pytest.raises(NoRoute):
            await adapter.discover(site.url)
        await adapter.aclose()
    assert (await tcp_health(site.url, Reach.PUBLIC)).status == "unhealthy"
    assert site.asked == []


async def test_a_card_that_leads_further_in_than_its_finder_may_is_refused(site: Site) -> None:
    site.documents["/.well-known/agent-card.json"] = {
        **CARD,
        "supportedInterfaces": [{"url": "http://169.254.169.254/rpc"}],
    }
    adapters = default_adapters(Reach.LOOPBACK)
    with pytest.raises(UsageError) as caught:
        await adapters["a2a"].discover(site.url)
    assert caught.value.code == "link.inward"
    for adapter in adapters.values():
        await adapter.aclose()
