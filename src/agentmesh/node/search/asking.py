"""Asking others for agents by text, and answering them: zone mates, long links and seeds, and the DHT by single words.

What comes back is signed manifests and nothing else. The directory verifies each as it does with records of a broadcast, and
this node ranks them itself: a peer decides what it sends, never where it stands. Who is asked looks in its own index only, so
a question costs one answer each.
"""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence

from agentmesh.core.contacts.guard import Bucket
from agentmesh.errors import DecodeError, MeshError, Unauthorized
from agentmesh.ids import AgentId, NodeId, capability_key
from agentmesh.net.base import Stream
from agentmesh.net.tasks import TaskScope
from agentmesh.node.links import Peer
from agentmesh.node.mesh import Mesh
from agentmesh.wire import v1
from agentmesh.wire.search_views import AskedView, HitSource

#: Peers asked by one question: directories overlap much, so more bring little.
PEERS_MAX = 12
#: Words of one question that are looked up in the DHT, the longest first; each is a walk of some hops.
WORDS_MAX = 6
_WORD_CHARS_MIN = 3
#: What one peer may ask of this node per second, and at once; and how many questions are answered at a time.
_QUERIES_PER_S, _QUERIES_BURST, _SERVING_MAX = 10.0, 20.0, 8
_BUCKETS_MAX = 1_000
#: Records asked for from each.
_LIMIT = 16
#: Records of one answer that find room in a full directory: with PEERS_MAX answers little more than one DHT search brings.
_ROOMS = 4
_WORD = re.compile(r"[^\W_][\w-]*")

#: Finds agents of this node's own index by text: at most so many ids, best first.
Look = Callable[[str, int], Awaitable[Sequence[AgentId]]]


class Question:
    """One question to others, under way.

    Attributes:
        asked: How it stands.
        sources: Where agents came from that were not known before.
    """

    def __init__(self) -> None:
        self.asked = AskedView(done=True)
        self.sources: dict[str, HitSource] = {}
        self._running: dict[asyncio.Task[None], None] = {}

    def add(self, task: asyncio.Task[None]) -> None:
        """Wait for one more."""
        self._running[task] = None
        self.asked.asked += 1
        self.asked.done = False

    async def more(self, until_s: float) -> None:
        """Wait until somebody answered, all have, or monotonic time ``until_s``; who is late is not waited for."""
        left_s = until_s - time.monotonic()
        if self._running and left_s > 0:
            done, _ = await asyncio.wait(self._running, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                del self._running[task]
        self.asked.done = not self._running or time.monotonic() >= until_s

    def end(self) -> None:
        """Stop asking. Idempotent."""
        for task in self._running:
            task.cancel()
        self._running.clear()
        self.asked.done = True


class Asking:
    """Ask other nodes, and answer them.

    Args:
        mesh: Links, directory and DHT.
        look: This node's own index.
        may_tell: Says whether an agent may be told to others: announced to the mesh, signed, well, not revoked.
        rng: Chooses among peers.
    """

    def __init__(self, mesh: Mesh, look: Look, may_tell: Callable[[AgentId], bytes | None], rng: random.Random) -> None:
        self._mesh, self._look, self._may_tell, self._rng = mesh, look, may_tell, rng
        self._scope = TaskScope("search-asking", tasks_max=2_000)
        self._buckets: dict[NodeId, Bucket] = {}
        self._serving = 0
        #: Filled with the agents that the directory takes in while a peer's answer is handed to it.
        self._arriving: list[AgentId] | None = None

    def note(self, agent_id: AgentId) -> None:
        """Note that an agent came to the directory."""
        if self._arriving is not None:
            self._arriving.append(agent_id)

    # Asking

    def ask(self, text: str, words: Iterable[str], known: Sequence[int], time_s: float) -> Question:
        """Begin to ask.

        Args:
            text: What is needed; "" asks the DHT alone.
            words: Names, skills and tags that may be what is needed, for the DHT.
            known: ``mark`` of the best records held already.
            time_s: For all of it.
        """
        question = Question()
        if not any(True for _ in self._mesh.links.peers()) or time_s <= 0:
            return question
        begin_s = time.monotonic()
        query = v1.SearchQuery(
            v=v1.WIRE_VERSION, text=text[: v1.SEARCH_CHARS_MAX], limit=_LIMIT, known=list(known[: v1.SEARCH_KNOWN_MAX])
        )
        for node in self._whom() if text else ():
            question.add(self._scope.spawn(self._ask(node, query, question, time_s), "ask", quiet=True))
        for word in list(dict.fromkeys(words))[:WORDS_MAX]:
            question.add(self._scope.spawn(self._find(word, question, begin_s, time_s), "find", quiet=True))
        return question

    def _whom(self) -> list[NodeId]:
        """Return whom to ask: long links and seeds see other parts of the mesh, so they come first; then who is linked."""
        brain, links = self._mesh.brain, self._mesh.links
        seeds = [node for node, source in self._mesh.sources.items() if source == "static"]
        first = list(dict.fromkeys((*brain.overlay.long_links(), *seeds)))
        others = [node for node in brain.neighbours() if node not in first]
        others += [
            peer.link.peer for peer in links.peers() if peer.link.peer not in first and peer.link.peer not in others
        ]
        self._rng.shuffle(first)
        self._rng.shuffle(others)
        others.sort(key=lambda node: not links.is_connected(node))
        half = PEERS_MAX // 2
        chosen = [*first[: max(half, PEERS_MAX - len(others))], *others]
        abroad = {peer.link.peer for peer in links.abroad()}
        return [node for node in chosen if node != self._mesh.node_id and node not in abroad][:PEERS_MAX]

    async def _ask(self, node: NodeId, query: v1.SearchQuery, question: Question, time_s: float) -> None:
        try:
            async with asyncio.timeout(time_s):
                reply = await self._reply(node, query)
        except DecodeError as error:
            self._mesh.note_misbehaviour(node, error.code, str(error))
            question.asked.failed += 1
        except (MeshError, TimeoutError):
            question.asked.failed += 1
        else:
            question.asked.answered += 1
            if not reply.refused:
                self._take(node, reply.records, question)

    async def _reply(self, node: NodeId, query: v1.SearchQuery) -> v1.SearchReply:
        links = self._mesh.links
        peer = await links.connect(self._mesh.contact_of(node))
        if peer.calls_only:
            raise Unauthorized("a node of another mesh is not told what is looked for here", code="link.calls_only")
        stream = await peer.link.open_stream()
        try:
            await stream.send(v1.encode(query))
            payload = await stream.recv()
        finally:
            stream.reset(0)
        return v1.SearchReply() if payload is None else v1.decode_search_reply(payload)

    def _take(self, node: NodeId, records: Sequence[bytes], question: Question) -> None:
        self._arriving = []
        try:
            self._mesh.suggested(node, records, _ROOMS)  # the directory has taken in what holds when this returns
            for agent_id in self._arriving:
                question.sources.setdefault(agent_id, "peer")
        finally:
            self._arriving = None

    async def _find(self, word: str, question: Question, begin_s: float, time_s: float) -> None:
        def on_found(agent_id: AgentId) -> None:
            entry = self._mesh.brain.entry(agent_id)
            if entry is not None and entry.since_s >= begin_s:
                question.sources.setdefault(agent_id, "dht")

        await self._mesh.find(capability_key(word), timeout_s=time_s, on_found=on_found)
        question.asked.answered += 1

    # Answering

    async def serve(self, peer: Peer, stream: Stream, query: v1.SearchQuery) -> None:
        """Answer a SearchQuery from this node's own index.

        Raises:
            DecodeError: it asks for more than may be asked for.
        """
        if len(query.text) > v1.SEARCH_CHARS_MAX or not 1 <= query.limit <= v1.SEARCH_RECORDS_MAX:
            raise DecodeError(
                f"a search of {len(query.text)} characters for {query.limit} records", code="search.too_large"
            )
        if len(query.known) > v1.SEARCH_KNOWN_MAX:
            raise DecodeError(f"{len(query.known)} known records in one search", code="search.too_large")
        reply = v1.SearchReply(refused="refused.busy")
        if self._serving < _SERVING_MAX and self._allows(peer.link.peer):
            self._serving += 1
            try:
                reply = v1.SearchReply(records=await self._records(query))
            except MeshError as error:
                reply = v1.SearchReply(refused=error.code)
            finally:
                self._serving -= 1
        await stream.send(v1.encode(reply))
        await stream.finish()

    async def _records(self, query: v1.SearchQuery) -> list[bytes]:
        known = frozenset(query.known)
        records: list[bytes] = []
        size = 0
        for agent_id in await self._look(query.text, query.limit + len(known)):
            raw = self._may_tell(agent_id)
            entry = self._mesh.brain.entry(agent_id)
            if raw is None or entry is None or entry.mark in known:
                continue
            size += len(raw)
            if len(records) >= query.limit or size > v1.SEARCH_BYTES_MAX:
                break
            records.append(raw)
        return records

    def _allows(self, peer: NodeId) -> bool:
        now_s = time.monotonic()
        bucket = self._buckets.get(peer)
        if bucket is None:
            while len(self._buckets) >= _BUCKETS_MAX:
                del self._buckets[next(iter(self._buckets))]
            bucket = self._buckets[peer] = Bucket(_QUERIES_PER_S, _QUERIES_BURST, now_s)
        return bucket.take(1, now_s)

    async def aclose(self) -> None:
        """Stop asking. Idempotent."""
        await self._scope.aclose()


def words_of(text: str) -> list[str]:
    """Return the words of a query that may be a name, skill or tag: the whole of it, then its words, longest first."""
    words = [word for word in _WORD.findall(text) if len(word) >= _WORD_CHARS_MIN or not word.isascii()]
    words.sort(key=lambda word: (-len(word), word))
    whole = [text] if text and len(text) <= 256 else []
    return [*whole, *words]
