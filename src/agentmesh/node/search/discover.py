"""Discovery of one node: a need in words, or filters, becomes a list of agents with the parts of their scores (RQ0 §4.3).

CLI, SDK, HTTP and MCP all end here. The local answer comes at once; what others know joins it as it arrives. Nothing runs and
nothing is kept before the first query with words. If the search process is gone or slow, words alone decide, and the answer
says so; discovery itself does not fail for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from agentmesh.core.search.model import Document, Filters, Found, Hit, Passage
from agentmesh.core.search.rank import Weights
from agentmesh.errors import Busy, MeshError
from agentmesh.identity.manifest import Manifest
from agentmesh.ids import AgentId
from agentmesh.net.base import Stream
from agentmesh.net.tasks import TaskScope
from agentmesh.node.config import NodeConfig
from agentmesh.node.links import Peer
from agentmesh.node.mesh import Mesh
from agentmesh.node.resolve import Directory, Entry
from agentmesh.node.search.answer import Eyes, answer, by_words, listing
from agentmesh.node.search.asking import Asking, Question, words_of
from agentmesh.node.search.wanted import LIMIT_MAX, Wanted, read_request
from agentmesh.wire import v1
from agentmesh.wire.search_views import DiscoverRequest, DiscoverView, HitSource

if TYPE_CHECKING:
    from agentmesh.node.search.client import Source

#: Hits asked of the index beyond those that are shown: trust and health put them in another order.
_POOL = 100
#: How long an answer waits for the index, in all and each time that it is made again. A person does not notice the first; the
#: process needs less to start unless the machine is very busy.
_PATIENCE_S, _PATIENCE_MIN_S = 1.5, 0.3
#: How long the index may take, start included, before it counts as broken.
_INDEX_S = 20.0
_SEARCHES_MAX = 128
#: Entries judged between two looks at other work, where there is no index to do it.
_STEP = 50
#: A watched list is made again at most so often, and at least so often, seconds: an index that was late, and trust, tell nobody.
WATCH_GAP_S, WATCH_IDLE_S = 0.5, 5.0
_EVERYTHING = Filters()


class Index(Protocol):
    """What finds agents by text, in a process of its own (``node.search.client.SearchClient``)."""

    def changed(self, agent_id: str) -> None:
        """Say that an agent came, changed or went; costs nothing while the process does not run."""
        ...

    def search(
        self, query: str, filters: Filters | None = None, *, limit: int = 10, near: int = 3, timeout_s: float = 3.0
    ) -> Coroutine[Any, Any, Found]:
        """Answer a query. Raises MeshError: there is no answer, or not in time."""
        ...

    async def aclose(self) -> None:
        """End the process. Idempotent."""
        ...

    @property
    def waiting(self) -> int:
        """Questions that are not answered yet."""
        ...


class Shelf:
    """The agents that the index is to hold (``node.search.client.Source``): those of the directory, and those of tenants.

    Args:
        entries: Returns all of them.
        entry: Returns one.
        site_of: Node id → the site that it says it is at.
        organisation_of: The organisation that vouches for an agent, as its manifest proves.
    """

    def __init__(
        self,
        entries: Callable[[], Iterable[Entry]],
        entry: Callable[[str], Entry | None],
        *,
        site_of: Callable[[str], str],
        organisation_of: Callable[[Manifest], str],
    ) -> None:
        self._entries, self._entry, self._site_of, self._organisation_of = entries, entry, site_of, organisation_of

    def versions(self) -> Mapping[str, str]:
        """Return the id and version of each; no card is read for it."""
        return {entry.manifest.agent_id: self._version(entry) for entry in self._entries()}

    def document(self, agent_id: str) -> Document | None:
        """Return what is searched of an agent; None if it is not here."""
        entry = self._entry(agent_id)
        return None if entry is None else self.document_of(entry)

    def document_of(self, entry: Entry) -> Document:
        """Return what is searched of an entry."""
        from agentmesh.node.search.documents import document_of

        manifest = entry.manifest
        location, organisation = self._site_of(manifest.node_id), self._organisation_of(manifest)
        document = document_of(manifest, location=location, organisation=organisation)
        return msgspec.structs.replace(document, version=self._version(entry))

    def _version(self, entry: Entry) -> str:
        mark = getattr(entry, "mark", None)  # entries of the directory have it ready
        manifest = entry.manifest
        number = manifest.mark if mark is None else mark
        return f"{number:012x} {self._site_of(manifest.node_id)} {self._organisation_of(manifest)}"


class Discovery:
    """Answer what is wanted.

    Args:
        mesh: The way to others.
        directory: The agents that this node shows.
        shelf: What can be found here.
        eyes: What the node knows of agents besides their texts.
        open_index: Makes the index from the shelf; called at the first query with words.
        weights: The node's own mix.
        asks: Whether queries may be told to other nodes.
        organisation_named: Name of an organisation → its did:key, as far as it is known.
        rng: Chooses among peers.
    """

    def __init__(
        self,
        mesh: Mesh,
        directory: Directory,
        shelf: Shelf,
        eyes: Eyes,
        open_index: Callable[[Shelf], Index],
        *,
        weights: Weights,
        asks: bool,
        organisation_named: Callable[[str], str],
        rng: random.Random,
    ) -> None:
        self._mesh, self._directory, self._shelf, self._eyes = mesh, directory, shelf, eyes
        self._open_index, self._index = open_index, None
        self._weights, self._asks, self._organisation_named = weights, asks, organisation_named
        self._scope = TaskScope("search", tasks_max=_SEARCHES_MAX)
        self._asking = Asking(mesh, self._look, self._may_tell, rng)
        self._watchers: dict[asyncio.Event, None] = {}

    @property
    def waiting(self) -> int:
        """Questions that wait for the search process."""
        return 0 if self._index is None else self._index.waiting

    # What the directory says

    def note(self, agent_id: AgentId) -> None:
        """Take note that an agent came, changed or left."""
        if self._index is not None:
            self._index.changed(agent_id)
        self._asking.note(agent_id)
        for watcher in self._watchers:
            watcher.set()

    # Answers

    async def find(self, request: DiscoverRequest, directory: Directory | None = None) -> DiscoverView:
        """Return the whole answer. Arguments and errors as ``snapshots``."""
        wanted = self._read(request, directory)
        async with contextlib.aclosing(self._answers(wanted, directory, final=True)) as answers:
            return await anext(answers)

    def snapshots(
        self, request: DiscoverRequest, directory: Directory | None = None, *, watch: bool = False
    ) -> AsyncGenerator[DiscoverView]:
        """Yield the answer each time that it changes, the local one first; at the last one nobody is waited for any more.

        Args:
            request: What is wanted.
            directory: The agents that the asker may see; None for all that the mesh may see. Others are then not asked.
            watch: Go on with every change of the directory, until the caller ends it.

        Raises:
            UsageError: it makes no sense (codes "discover.*"). Nothing was asked.
        """
        return self._answers(self._read(request, directory), directory, watch=watch)

    def _read(self, request: DiscoverRequest, directory: Directory | None) -> Wanted:
        wanted = read_request(request, self._weights, self._organisation_named)
        return wanted if directory is None and self._asks else wanted._replace(scope="local")

    async def _answers(
        self, wanted: Wanted, directory: Directory | None, *, final: bool = False, watch: bool = False
    ) -> AsyncGenerator[DiscoverView]:
        begin_s = time.monotonic()
        changed = asyncio.Event()
        self._watchers[changed] = None
        question: Question | None = None
        try:
            view = await self._local(wanted, directory, None, begin_s)
            if wanted.scope == "mesh":
                question = self._ask(wanted, view)
                view.asked = msgspec.structs.replace(question.asked)
            until_s = begin_s + wanted.time_s
            while question is not None and not question.asked.done:
                if not final:
                    yield view
                await question.more(until_s)
                if not final or question.asked.done:
                    view = await self._local(wanted, directory, question, begin_s)
            yield view
            while watch:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(WATCH_IDLE_S):
                        await changed.wait()
                await asyncio.sleep(WATCH_GAP_S)
                changed.clear()
                again = await self._local(wanted, directory, question, time.monotonic())
                if _said(again) != _said(view):
                    view = again
                    yield view
        finally:
            del self._watchers[changed]
            if question is not None:
                question.end()

    def _ask(self, wanted: Wanted, view: DiscoverView) -> Question:
        known: list[int] = []
        for hit in view.hits:
            if (entry := self._mesh.brain.entry(hit.agent.agent_id)) is not None:
                known.append(entry.mark)
        words = [*words_of(wanted.query), *(one for one in (wanted.filters.tag, wanted.filters.skill) if one)]
        return self._asking.ask(wanted.query, words, known, wanted.time_s)

    async def _local(
        self, wanted: Wanted, directory: Directory | None, question: Question | None, begin_s: float
    ) -> DiscoverView:
        """Return the answer from what is here now."""
        seen = directory or self._directory
        if not wanted.query:
            view = listing(wanted, seen, self._eyes, self._missed(wanted.filters))
        else:
            # Who sees a part only may find his agents far down the list of all.
            limit = min(LIMIT_MAX, wanted.limit + _POOL) if directory is None else LIMIT_MAX
            patience_s = max(_PATIENCE_MIN_S, _PATIENCE_S - (time.monotonic() - begin_s))
            found = await self._found(wanted, limit, seen, patience_s)
            sources = question.sources if question is not None else {}
            view = answer(wanted, found, seen, self._eyes, lambda entry: self._source(entry, sources))
        if question is not None:
            view.asked = msgspec.structs.replace(question.asked)
        view.took_ms = round((time.monotonic() - begin_s) * 1_000, 1)
        return view

    def _source(self, entry: Entry, sources: Mapping[str, HitSource]) -> HitSource:
        agent_id = entry.manifest.agent_id
        is_abroad = not entry.local and self._mesh.brain.entry(agent_id) is None
        return "federation" if is_abroad else sources.get(agent_id, "local")

    async def _found(self, wanted: Wanted, limit: int, seen: Directory, patience_s: float) -> Found:
        """Ask the index, or look at the words alone if it does not answer."""
        try:
            return self._with_named(await self._indexed(wanted, limit, patience_s), wanted, seen)
        except MeshError as error:
            found = await self._by_words(wanted.query, wanted.filters, seen)
            return msgspec.structs.replace(found, notes=(*found.notes, f"words alone decided: {error.detail}"))

    async def _indexed(self, wanted: Wanted, limit: int, patience_s: float) -> Found:
        """Ask the index.

        Raises:
            Busy: it does not answer soon (code "discover.starting"); it goes on by itself, for the next query.
            MeshError: it failed.
        """
        if self._index is None:
            self._index = self._open_index(self._shelf)
        near = wanted.near and wanted.near + _POOL
        asked = self._index.search(wanted.query, wanted.filters, limit=limit, near=near, timeout_s=_INDEX_S)
        search = self._scope.spawn(asked, "query", quiet=True)
        await asyncio.wait({search}, timeout=patience_s)
        if not search.done() or search.cancelled():
            raise Busy("the search by meaning is starting or busy; ask again in a moment", code="discover.starting")
        return search.result()

    def _with_named(self, found: Found, wanted: Wanted, seen: Directory) -> Found:
        """Put those whose very name the query is before all others, whatever the name means."""
        named = {entry.manifest.agent_id: entry for entry in seen.by_name(wanted.query)}
        if not named:
            return found
        missed = self._missed(wanted.filters)
        hits: list[Hit] = []
        near: list[Hit] = []
        for agent_id, entry in named.items():
            hit = Hit(agent_id, 1.0, Passage("agent", "", entry.manifest.description), tuple(missed(entry)), 1.0)
            (near if hit.missed else hits).append(hit)
        hits += (hit for hit in found.hits if hit.agent_id not in named)
        near += (hit for hit in found.near if hit.agent_id not in named)
        return msgspec.structs.replace(found, hits=tuple(hits), near=tuple(near))

    async def _by_words(self, query: str, filters: Filters, seen: Directory) -> Found:
        entries, missed = list(seen.entries()), self._missed(filters)
        parts: list[Found] = []
        for start in range(0, len(entries), _STEP):
            parts.append(by_words(query, entries[start : start + _STEP], missed))
            await asyncio.sleep(0)
        hits = sorted((hit for part in parts for hit in part.hits), key=lambda hit: (-hit.text, hit.agent_id))
        nearly = sorted((hit for part in parts for hit in part.near), key=lambda hit: (-hit.text, hit.agent_id))
        return Found(tuple(hits), tuple(nearly), (query,))

    def _missed(self, filters: Filters) -> Callable[[Entry], Sequence[str]]:
        if filters == _EVERYTHING:
            return lambda _: ()
        from agentmesh.node.search.packed import missed_by

        return lambda entry: missed_by(self._shelf.document_of(entry), filters)

    # Others

    async def serve(self, peer: Peer, stream: Stream, query: v1.SearchQuery) -> None:
        """Answer a peer from this node's own index (see ``Asking.serve``)."""
        await self._asking.serve(peer, stream, query)

    async def _look(self, text: str, limit: int) -> Sequence[AgentId]:
        if not text.strip():
            return ()
        wanted = read_request(DiscoverRequest(query=text, near=0, scope="local"), self._weights)
        # Never the words alone for others: to read every card costs this node's loop much more than it costs to ask.
        found = await self._indexed(wanted, min(LIMIT_MAX, limit + _POOL), _PATIENCE_S)
        return [AgentId(hit.agent_id) for hit in found.hits]

    def _may_tell(self, agent_id: AgentId) -> bytes | None:
        """Return the record of an agent if others may be told of it: announced, signed, well and not revoked."""
        entry = self._mesh.brain.entry(agent_id)
        if entry is None or not entry.manifest.signed or entry.healthy is False:
            return None
        return None if self._eyes.is_revoked(entry.manifest) else entry.manifest.raw

    async def aclose(self) -> None:
        """Stop asking and end the search process. Idempotent."""
        await self._asking.aclose()
        await self._scope.aclose()
        if self._index is not None:
            await self._index.aclose()


def open_client(home: Path, scope: TaskScope, config: NodeConfig) -> Callable[[Source], Index]:
    """Return what makes the index of a node in its home directory."""

    def open_index(source: Source) -> Index:
        from agentmesh.node.search.client import SearchClient, SearchSettings

        settings = SearchSettings(config.embedder, config.embedder_model, config.embedder_key_file, config.models_dir)
        return SearchClient(home / "search.sqlite", source, scope, home=home, settings=settings)

    return open_index


def _said(view: DiscoverView) -> tuple[object, ...]:
    """Return what people would see change."""
    hits = [(hit.agent.agent_id, round(hit.score.total, 2), hit.agent.status, hit.agent.seq) for hit in view.hits]
    return hits, [(near.agent.agent_id, near.why) for near in view.near], view.notes
