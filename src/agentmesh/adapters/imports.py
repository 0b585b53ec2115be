"""What a URL holds that agents can be imported from: an A2A agent card, an AI Catalog, or an MCP registry.

Formats: A2A 1.0 §8.2 (``/.well-known/agent-card.json``); AI Catalog 1.0 (``/.well-known/ai-catalog.json``: ``entries`` with
``type``, ``mediaType`` in its drafts, and ``url`` or ``data``; catalogs may nest); the MCP registry API (``GET /v0/servers``,
pages joined by ``metadata.nextCursor``). The URL is the operator's and may be anywhere; what it links to is a stranger's word
(``places``). Nothing is registered here.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from agentmesh.adapters.a2a_card import CARD_ITSELF, card_urls
from agentmesh.adapters.http_client import Answer, HttpClient, check_url, decode_json
from agentmesh.adapters.http_pool import place_of
from agentmesh.adapters.places import check_link, reach_of_url
from agentmesh.adapters.reach import Reach
from agentmesh.adapters.shape import mapping, members, words
from agentmesh.errors import AgentFailed, DecodeError, LimitError, MeshError
from agentmesh.wire.bridge_views import RefusedEntry

Kind = Literal["auto", "a2a", "catalog", "mcp-registry"]

#: Largest document, bytes.
DOCUMENT_BYTES_MAX = 8 * 1024 * 1024
#: Links that one import follows to agents; what else is found is refused.
LINKS_MAX = 500
#: Documents that one import reads: nested catalogs, pages of a registry.
DOCUMENTS_MAX = 64
#: How deep catalogs may nest, and how many things may be found in all.
DEPTH_MAX, ENTRIES_MAX = 4, 10_000
TIMEOUT_S = 10.0
CATALOG_PATH, REGISTRY_PATH = "/.well-known/ai-catalog.json", "/v0/servers"
REFUSED_SHOWN_MAX = 1_000
_CATALOG = "application/ai-catalog+json"
_CARDS = ("application/a2a-agent-card+json", "application/agent-card+json", "application/a2a-agent-card")
_NO_MCP = "it is an MCP server, and there is no door to these: this version serves MCP clients and calls no MCP servers"


class Link(NamedTuple):
    """An agent that was found.

    Attributes:
        label: What its document calls it.
        url: Where it answers, or where its card is.
        least: How far inside it may be at most.
    """

    label: str
    url: str
    least: Reach


class Loot:
    """What one import found so far."""

    def __init__(self) -> None:
        self.kind = ""
        self.links: list[Link] = []
        self.refused: list[RefusedEntry] = []
        self.documents = 0
        self.entries = 0

    def refuse(self, label: str, code: str, reason: str) -> None:
        """Note what is not imported."""
        if len(self.refused) < REFUSED_SHOWN_MAX:
            self.refused.append(RefusedEntry(key=label[:200], code=code, reason=reason[:500]))

    def refuse_error(self, label: str, error: MeshError) -> None:
        """Note what is not imported because of an error."""
        self.refuse(label, error.code, f"{error.detail}: {error.why}" if error.why else error.detail)

    def count(self) -> None:
        """Count an entry. Raises LimitError beyond ``ENTRIES_MAX``."""
        self.entries += 1
        if self.entries > ENTRIES_MAX:
            raise LimitError(f"more than {ENTRIES_MAX} entries", code="import.too_many")


async def look(url: str, kind: Kind, *, own_port: int = 0) -> Loot:
    """Read what a URL holds and return the agents that it leads to.

    Args:
        url: Of a document, or of a site that has one at its well-known place.
        kind: What to look for; "auto" tries a card, then a catalog, then a registry.
        own_port: Port of this node's HTTP API, where nothing is imported from.

    Raises:
        UsageError: not a usable URL (code "agent.bad_url").
        NoRoute, Closed, Timeout: nothing answers there.
        DecodeError: it holds nothing of that kind (code "import.nothing"). LimitError: too large.
    """
    check_url(url)
    came_from = max(Reach.LOOPBACK, await reach_of_url(url))
    client = HttpClient(answer_bytes_max=DOCUMENT_BYTES_MAX)
    inner = HttpClient(answer_bytes_max=DOCUMENT_BYTES_MAX, least=came_from)
    search = _Search(client, inner, came_from, own_port)
    try:
        return await search.run(url, kind)
    finally:
        await client.aclose()
        await inner.aclose()


class _Search:
    """One look at one URL."""

    def __init__(self, client: HttpClient, inner: HttpClient, came_from: Reach, own_port: int) -> None:
        self._client, self._inner, self._came_from, self._own_port = client, inner, came_from, own_port
        self._loot = Loot()
        self._seen: set[str] = set()

    async def run(self, url: str, kind: Kind) -> Loot:
        said: list[str] = []
        for one, places in self._places(url).items():
            if kind not in ("auto", one):
                continue
            for place in places:
                answer = await self._fetch(self._client, place)
                if answer is None or (document := _document(answer)) is None:
                    said.append(f"nothing to read at {urlsplit(place).path or '/'}")
                    continue
                found = _kind_of(document)
                if found and kind in ("auto", found):
                    await self._take(document, found, place)
                    return self._loot
                said.append(f"{urlsplit(place).path or '/'} holds {found or 'something else'}")
        raise DecodeError(
            f"there is nothing to import at {place_of(url)}",
            code="import.nothing",
            why="; ".join(dict.fromkeys(said))[:500],
            hint="name the document itself; an agent that answers there is brought in by: agentmesh register URL",
        )

    def _places(self, url: str) -> dict[Kind, list[str]]:
        """Return where to look for each kind, the likeliest first."""
        parts = urlsplit(url)
        if parts.path.endswith(".json") or parts.query:
            return {"a2a": [url], "catalog": [url], "mcp-registry": [url]}
        base = parts.path.rstrip("/")
        site = f"{parts.scheme}://{parts.netloc}"
        registry = site + (base if base.endswith("/servers") else base + REGISTRY_PATH)
        return {
            "a2a": [*([url] if base else []), *card_urls(url)],
            "catalog": [*([url] if base else []), site + base + CATALOG_PATH],
            "mcp-registry": [registry],
        }

    async def _fetch(self, client: HttpClient, url: str) -> Answer | None:
        """Return the document at a URL; None if there is none."""
        self._loot.documents += 1
        try:
            answer = await client.fetch("GET", url, headers={"Accept": "application/json"}, timeout_s=TIMEOUT_S)
        except AgentFailed:
            return None
        return answer if answer.status == 200 else None

    async def _take(self, document: dict[str, Any], kind: Kind, url: str) -> None:
        self._loot.kind = kind
        if kind == "a2a":
            await self._link(words(document.get("name"), "the agent", 200), _card_at(url))
        elif kind == "catalog":
            await self._catalog(document, url, 1)
        else:
            await self._registry(document, url)

    async def _link(self, label: str, url: str) -> None:
        """Note an agent, or why it is none."""
        if url in self._seen:
            return
        self._seen.add(url)
        if len(self._loot.links) >= LINKS_MAX:
            self._loot.refuse(label, "import.too_many", f"one import brings in {LINKS_MAX} agents at most")
            return
        try:
            await check_link(url, self._came_from, own_port=self._own_port)
        except MeshError as error:
            self._loot.refuse_error(label, error)
            return
        self._loot.links.append(Link(label, url, self._came_from))

    # -- AI Catalog ------------------------------------------------------------------------------------------------

    async def _catalog(self, catalog: dict[str, Any], base: str, depth: int) -> None:
        for item in members(catalog.get("entries")):
            self._loot.count()
            entry = mapping(item)
            label = words(entry.get("displayName"), "", 200) or words(
                entry.get("identifier"), "an entry without a name", 200
            )
            kind = words(entry.get("type") or entry.get("mediaType"), "", 200).partition(";")[0].strip().lower()
            data = entry.get("data") if entry.get("data") is not None else entry.get("inline")
            link = words(entry.get("url"), "", 2048)
            if kind == _CATALOG:
                await self._nested(label, data, urljoin(base, link) if link else "", base, depth)
            elif kind in _CARDS or "a2a" in kind:
                link = _endpoint(mapping(data)) if data is not None else _card_at(link)
                if link:
                    await self._link(label, urljoin(base, link))
                else:
                    self._loot.refuse(label, "import.no_url", "its card names no address")
            elif "mcp" in kind:
                self._loot.refuse(label, "import.no_door", _NO_MCP)
            else:
                self._loot.refuse(label, "import.other_kind", f"it is no agent but {kind[:80] or 'of no type'}")

    async def _nested(self, label: str, data: object, url: str, base: str, depth: int) -> None:
        if depth >= DEPTH_MAX:
            self._loot.refuse(label, "import.too_deep", f"catalogs are read {DEPTH_MAX} deep")
            return
        if data is not None:
            await self._catalog(mapping(data), base, depth + 1)
            return
        if not url or url in self._seen:
            return
        self._seen.add(url)
        if self._loot.documents >= DOCUMENTS_MAX:
            self._loot.refuse(label, "import.too_many", f"one import reads {DOCUMENTS_MAX} documents at most")
            return
        try:
            await check_link(url, self._came_from, own_port=self._own_port)
            answer = await self._fetch(self._inner, url)
            document = _document(answer) if answer is not None else None
            if document is None or _kind_of(document) != "catalog":
                raise DecodeError("there is no catalog", code="import.nothing")
        except LimitError:
            raise
        except MeshError as error:
            self._loot.refuse_error(label, error)
            return
        await self._catalog(document, url, depth + 1)

    # -- MCP registry ----------------------------------------------------------------------------------------------

    async def _registry(self, page: dict[str, Any], url: str) -> None:
        """Read the pages of a registry. Its servers are told, with the reason why they cannot be called."""
        cursors: set[str] = set()
        while True:
            for item in members(page.get("servers")):
                self._loot.count()
                self._server(mapping(item))
            cursor = words(mapping(page.get("metadata")).get("nextCursor"), "", 2048)
            if not cursor:
                return
            if cursor in cursors or self._loot.documents >= DOCUMENTS_MAX:
                why = "its pages go round in a circle" if cursor in cursors else f"only {DOCUMENTS_MAX} pages are read"
                self._loot.refuse("the rest of the registry", "import.too_many", why)
                return
            cursors.add(cursor)
            answer = await self._fetch(self._client, f"{url.partition('?')[0]}?cursor={quote(cursor, safe='')}")
            found = _document(answer) if answer is not None else None
            if found is None:
                self._loot.refuse("the rest of the registry", "import.nothing", "its next page cannot be read")
                return
            page = found

    def _server(self, item: dict[str, Any]) -> None:
        server = mapping(item.get("server")) or item
        official = mapping(mapping(item.get("_meta")).get("io.modelcontextprotocol.registry/official"))
        status = official.get("status") or server.get("status")
        if official.get("isLatest") is False or status in ("deleted", "deprecated"):
            return
        label = words(server.get("name"), "a server without a name", 200)
        remotes = [words(mapping(one).get("url"), "", 2048) for one in members(server.get("remotes"))]
        if any(remotes):
            self._loot.refuse(label, "import.no_door", f"{_NO_MCP} ({next(filter(None, remotes))})")
        else:
            self._loot.refuse(
                label, "import.not_remote", "it is a package to be run by its client, not a server to be called"
            )


def _document(answer: Answer) -> dict[str, Any] | None:
    """Return the JSON object of an answer; None if it is none, whatever its media type says."""
    try:
        found = decode_json(answer.body)
    except DecodeError:
        return None
    return mapping(found) or None


def _kind_of(document: dict[str, Any]) -> Kind | Literal[""]:
    """Say what a document is by its members; media types are too often wrong."""
    if isinstance(document.get("entries"), list):
        return "catalog"
    if isinstance(document.get("servers"), list):
        return "mcp-registry"
    if isinstance(document.get("name"), str) and {"supportedInterfaces", "url", "skills"} & set(document):
        return "a2a"
    return ""


def _card_at(url: str) -> str:
    """Return the URL of a card so that the door takes it for one; "" stays so."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(fragment=CARD_ITSELF)) if url and not parts.path.endswith(".json") else url


def _endpoint(card: dict[str, Any]) -> str:
    """Return the first address in a card; "" if it has none."""
    found = [mapping(one).get("url") for one in members(card.get("supportedInterfaces"))[:32]]
    return next((url for url in [*found, card.get("url")] if isinstance(url, str) and url), "")
