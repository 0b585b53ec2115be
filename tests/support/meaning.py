"""A double of the search index: it reads the same shelf, and knows as many synonyms as the test tells it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

from agentmesh.core.search.model import Document, Filters, Found, Hit, Passage
from agentmesh.node.search.discover import Shelf
from agentmesh.node.search.packed import missed_by

#: Word → what it means, for all tests.
MEANS = {
    "rental": "lease",
    "tenancy": "lease",
    "contract": "agreement",
    "flat": "home",
    "check": "review",
    "sum": "arithmetic",
}


class FakeIndex:
    """Scores by the share of the query's meanings that one passage holds."""

    def __init__(self, shelf: Shelf, means: Mapping[str, str] = MEANS) -> None:
        self.shelf, self.means = shelf, means
        self.told: list[str] = []
        self.queries: list[str] = []
        self.failure: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.closed = False

    def changed(self, agent_id: str) -> None:
        """Note it."""
        self.told.append(agent_id)

    async def search(
        self, query: str, filters: Filters | None = None, *, limit: int = 10, near: int = 3, timeout_s: float = 3.0
    ) -> Found:
        """Answer, fail or hang, as the test says."""
        self.queries.append(query)
        if self.hold is not None:
            await self.hold.wait()
        if self.failure is not None:
            raise self.failure
        wanted = self._meanings(query)
        hits: list[Hit] = []
        misses: list[Hit] = []
        for agent_id in self.shelf.versions():
            document = self.shelf.document(agent_id)
            if document is None:
                continue
            text, passage = self._score(document, wanted)
            if text:
                missed = missed_by(document, filters or Filters())
                (misses if missed else hits).append(Hit(agent_id, text, passage, missed, 0.0, text))
        hits.sort(key=lambda hit: (-hit.text, hit.agent_id))
        misses.sort(key=lambda hit: (-hit.text, hit.agent_id))
        return Found(tuple(hits[:limit]), tuple(misses[:near]), (query,), "fake-1")

    def _score(self, document: Document, wanted: set[str]) -> tuple[float, Passage]:
        best: tuple[float, Passage] = (0.0, document.passages[0])
        for passage in document.passages:
            share = len(wanted & self._meanings(passage.text)) / max(1, len(wanted))
            if share > best[0]:
                best = share, passage
        return best

    def _meanings(self, text: str) -> set[str]:
        words = [word.rstrip("s") for word in re.findall(r"\w+", text.casefold())]
        return {self.means.get(word, word) for word in words if len(word) > 3}

    async def aclose(self) -> None:
        """Note it."""
        self.closed = True


class Indexes:
    """Every index that was opened, in order; ``opener`` stands for ``open_client``."""

    def __init__(self) -> None:
        self.opened: list[FakeIndex] = []

    def opener(self, *_: Any) -> Any:
        """Return what a node opens its index with."""

        def open_index(shelf: Shelf) -> FakeIndex:
            self.opened.append(FakeIndex(shelf))
            return self.opened[-1]

        return open_index
