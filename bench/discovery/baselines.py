"""What the search of this project is compared with: plain TF-IDF, and the vectors of an embedder alone.

Neither takes needs apart, corrects typing or fuses anything. They are rows of the report, never part of the product.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from agentmesh.core.search.model import Document
from agentmesh.embed.base import Dense, Embedder, Role, Sparse

_WORD = re.compile(r"[^\W_]+")
_HAN = re.compile(r"[\u3400-\u9fff]")


class Searcher(Protocol):
    """Anything that ranks agents for a text."""

    def update(self, documents: Sequence[Document]) -> None:
        """Take in agents; a rival takes all at once."""
        ...

    def search(self, query: str, limit: int) -> list[tuple[str, float]]:
        """Return ids and scores (0 … 1), the best first."""
        ...

    def close(self) -> None:
        """Give back what is held. Idempotent."""
        ...


def words(text: str) -> list[str]:
    """Cut a text into lower-case words; Chinese into single characters and pairs, as it has no spaces."""
    found: list[str] = []
    for word in _WORD.findall(text.lower()):
        for part in re.findall(r"[\u3400-\u9fff]+|[^\u3400-\u9fff]+", word):
            if _HAN.match(part):
                found.extend(part)
                found.extend(part[n : n + 2] for n in range(len(part) - 1))
            else:
                found.append(part)
    return found


def said(document: Document) -> str:
    """Return everything that an agent says of itself as one text."""
    return " ".join((*(passage.text for passage in document.passages), *document.tags))


class TfIdf:
    """One vector per agent over all it says; cosine. What a team without a search engine would write in an hour."""

    def __init__(self) -> None:
        self._rarity: dict[str, float] = {}
        self._postings: dict[str, list[tuple[int, float]]] = {}
        self._ids: list[str] = []

    def update(self, documents: Sequence[Document]) -> None:
        """Take in all agents, once."""
        counts = [
            Counter(words(" ".join((*(passage.text for passage in one.passages), *one.tags)))) for one in documents
        ]
        spread = Counter(word for count in counts for word in count)
        self._rarity = {word: math.log((1 + len(counts)) / (1 + n)) + 1 for word, n in spread.items()}
        self._ids = [one.agent_id for one in documents]
        self._postings = {}
        for number, count in enumerate(counts):
            for word, weight in self._vector(count).items():
                self._postings.setdefault(word, []).append((number, weight))

    def search(self, query: str, limit: int) -> list[tuple[str, float]]:
        """Return ids and cosines, the best first."""
        scores: dict[int, float] = {}
        for word, weight in self._vector(Counter(words(query))).items():
            for number, other in self._postings.get(word, ()):
                scores[number] = scores.get(number, 0.0) + weight * other
        best = sorted(scores.items(), key=lambda one: (-one[1], self._ids[one[0]]))[:limit]
        return [(self._ids[number], min(1.0, score)) for number, score in best]

    def close(self) -> None:
        """Give back what is held."""

    def _vector(self, count: Counter[str]) -> dict[str, float]:
        """Weigh words by rarity, at length 1; words that no agent says count as nothing."""
        raw = {word: n * self._rarity[word] for word, n in count.items() if word in self._rarity}
        length = math.sqrt(math.fsum(value * value for value in raw.values()))
        return {word: value / length for word, value in raw.items()} if length else {}


class Plain:
    """One vector per agent over all it says, from a local sentence model; cosine. What a vector database alone gives.

    Args:
        embedder: Open, of dense vectors; closed with this.
    """

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._ids: list[str] = []
        self._matrix: Any = None

    def update(self, documents: Sequence[Document]) -> None:
        """Take in all agents, once."""
        import numpy

        self._ids = [one.agent_id for one in documents]
        self._matrix = numpy.asarray(
            self._embedder.embed([said(one) for one in documents], "passage"), dtype=numpy.float32
        )

    def search(self, query: str, limit: int) -> list[tuple[str, float]]:
        """Return ids and cosines, the best first; what is at a right angle or worse is no answer."""
        scores = self._matrix @ self._embedder.embed([query], "query")[0]
        best = sorted(zip(self._ids, scores.tolist(), strict=True), key=lambda one: (-one[1], one[0]))[:limit]
        return [(name, min(1.0, score)) for name, score in best if score > 0]

    def close(self) -> None:
        """Let go of the model."""
        self._embedder.close()


class Remembering:
    """An embedder that embeds no text twice in one process: the report asks the same queries of several worlds.

    Args:
        embedder: Open; closed with this.
    """

    _known: ClassVar[dict[tuple[str, Role, str], Dense | Sparse]] = {}

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.name, self.version, self.dims = embedder.name, embedder.version, embedder.dims

    def embed(self, texts: Sequence[str], role: Role) -> list[Dense | Sparse]:
        """Return one vector for each text, in their order."""
        new = [text for text in dict.fromkeys(texts) if (self.version, role, text) not in self._known]
        for text, vector in zip(new, self._embedder.embed(new, role) if new else (), strict=True):
            self._known[(self.version, role, text)] = vector
        return [self._known[(self.version, role, text)] for text in texts]

    def close(self) -> None:
        """Let go of the model; the vectors stay."""
        self._embedder.close()
