"""Vectors of a model in memory: one for each passage, eight bits a figure, searched exactly; above that, by a graph (HNSW).

Exact search is a scan by ``usearch`` (SIMD): measured 20–30 ms for 300,000 vectors of 384 figures on two cores, where numpy
took 130 ms. Vectors are kept in the index file under the hash of their text, so a text is embedded once for all agents and
restarts. numpy and usearch load with the first model.
"""

from __future__ import annotations

import hashlib
import importlib
import struct
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from agentmesh.embed.base import Embedder
from agentmesh.errors import DecodeError, MeshError
from agentmesh.store.search import SearchStore

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

#: Texts given to the model in one step: about 50 ms of a small local one, during which a query waits.
STEP_TEXTS = 8
#: Up to here every vector is compared (100,000 agents of five passages are a little more); beyond, a graph is walked.
EXACT_ROWS_MAX = 400_000
#: Rows of one search, and how widely the graph is walked for it.
NEAREST = 256
_GRAPH_BREADTH = 128
#: Rows put into the graph in one step, a millisecond each; until it has all of them every vector is compared.
_GRAPH_STEP_ROWS = 40
#: After a failure of the model nothing is embedded for so long.
_REST_S = 30.0
#: A cosine that is this part of the way from unrelated to identical is as near as different words come.
_NEAR_PART = 0.7
#: Texts that have nothing to do with each other: how near a model brings those is its zero.
_UNRELATED = (
    "Translates legal contracts from Spanish.",
    "Plans a bicycle tour in the Alps.",
    "Finds memory leaks in C++ programs.",
    "Suggests a dinner from what is in the fridge.",
    "Explains blood test results.",
    "Forecasts the output of a wind farm.",
    "Writes slogans for shoe shops.",
    "Tunes a guitar by ear.",
)
_ROWS_MIN = 1024
_SCALE = struct.Struct("<f")
_MODELS_KEY = "models"


class Near(NamedTuple):
    """How near the vectors of one agent's passages are: the best, and of which passage."""

    cosine: float
    passage: int


class Waiting(NamedTuple):
    """A text that has no vector yet, and the rows that wait for it."""

    text: str
    rows: list[tuple[int, int]]


class Dense:
    """The vectors of one embedder for all agents.

    Args:
        store: Where vectors are kept.
        embedder: A dense one.

    Attributes:
        embedder: As given.
        failure: Why nothing is embedded now; "" if all is well.
    """

    def __init__(self, store: SearchStore, embedder: Embedder) -> None:
        self._numpy: Any = importlib.import_module("numpy")
        self._usearch: Any = importlib.import_module("usearch.index")
        self._store = store
        self.embedder = embedder
        self.failure = ""
        self._rest_until_s = 0.0
        self._model = model_number(store, embedder.version)
        self._dims = 0  # learned from the first vector: to ask an endpoint may fail
        self._matrix: Any = None
        self._scales: Any = None
        self._agents: Any = None
        self._passages: Any = None
        self._count = 0
        self._rows_of: dict[int, list[int]] = {}
        self._free: list[int] = []
        self._waiting: dict[bytes, Waiting] = {}
        self._order: deque[bytes] = deque()
        self._awaiting: dict[int, list[bytes]] = {}  # agent → what it waits for
        self._graph: Any = None
        self._graphed = 0  # rows before this one are in the graph
        self._unrelated: float | None = None

    @property
    def waiting(self) -> int:
        """Texts that have no vector yet."""
        return len(self._waiting)

    @property
    def rests_s(self) -> float:
        """Seconds until the model is tried again after a failure; 0 if it may work now."""
        return max(0.0, self._rest_until_s - time.monotonic())

    def __len__(self) -> int:
        return self._count - len(self._free)

    @property
    def matrix(self) -> npt.NDArray[np.int8]:
        """The rows, eight bits a figure, those of agents that went included."""
        return self._matrix[: self._count]

    # Agents

    def add(self, agents: Sequence[tuple[int, Sequence[str]]]) -> None:
        """Take in agents with the texts of their passages; texts without a vector wait. Raises StoreError."""
        hashes = {hash_of(text): text for _, texts in agents for text in texts if text}
        known = self._store.vectors(self._model, list(hashes))
        for number, texts in agents:
            for passage, text in enumerate(texts):
                if not text:
                    continue
                key = hash_of(text)
                raw = known.get(key)
                if raw is not None and self._put_raw(number, passage, raw):
                    continue
                if key not in self._waiting:
                    self._waiting[key] = Waiting(text, [])
                    self._order.append(key)
                self._waiting[key].rows.append((number, passage))
                self._awaiting.setdefault(number, []).append(key)

    def remove(self, number: int) -> None:
        """Take an agent out."""
        for row in self._rows_of.pop(number, ()):
            self._agents[row] = 0
            self._free.append(row)
            if row < self._graphed:
                self._graph.remove(row)
        for key in self._awaiting.pop(number, ()):
            rows = self._waiting[key].rows
            rows[:] = [row for row in rows if row[0] != number]

    def step(self) -> None:
        """Embed a few of the waiting texts. A failure of the model is kept in ``failure``; StoreError is raised."""
        keys: list[bytes] = []
        while self._order and len(keys) < STEP_TEXTS:
            key = self._order.popleft()
            if key in self._waiting and self._waiting[key].rows:
                keys.append(key)
            else:
                self._waiting.pop(key, None)
        if not keys:
            return
        try:
            vectors = self._quantised([self._waiting[key].text for key in keys], "passage")
        except MeshError as error:
            self._order.extendleft(reversed(keys))
            self._fail(error)
            return
        self.failure = ""
        self._store.keep_vectors(self._model, zip(keys, vectors, strict=True))
        for key, raw in zip(keys, vectors, strict=True):
            for number, passage in self._waiting.pop(key).rows:
                self._put_raw(number, passage, raw)
                left = self._awaiting[number]
                left.remove(key)
                if not left:
                    del self._awaiting[number]

    @property
    def is_growing(self) -> bool:
        """Whether ``grow`` has rows to put into the graph."""
        return self._count > EXACT_ROWS_MAX and self._graphed < self._count

    def grow(self) -> None:
        """Put a few rows into the graph."""
        if self._graph is None:
            self._graph = self._usearch.Index(
                ndim=self._dims, metric="cos", dtype="i8", expansion_search=_GRAPH_BREADTH, expansion_add=_GRAPH_BREADTH
            )
        end = min(self._count, self._graphed + _GRAPH_STEP_ROWS)
        rows = [row for row in range(self._graphed, end) if self._agents[row]]
        if rows:
            self._graph.add(self._numpy.asarray(rows, dtype=self._numpy.uint64), self._matrix[rows])
        self._graphed = end

    # Queries

    def query(self, text: str) -> Any:
        """Return the vector of a need, float32 of length 1; None if the model fails, and ``failure`` says why."""
        if self.rests_s > 0:
            return None
        try:
            (vector,) = self.embedder.embed([text], "query")
            made = self._numpy.asarray(vector, dtype=self._numpy.float32)
            if self._dims and made.shape != (self._dims,):
                raise DecodeError(
                    f"a vector of {made.shape} where {self._dims} figures were expected", code="embed.dims"
                )
        except MeshError as error:
            self._fail(error)
            return None
        length = float(self._numpy.linalg.norm(made))
        return made / length if length > 0 else None

    def nearness(self, cosine: float) -> float:
        """Return a cosine as a share, 0 … 1: 0 for texts as near as unrelated ones are to this model.

        The same on every node with this model, whatever is indexed there.
        """
        zero = self._zero()
        return max(0.0, min(1.0, (cosine - zero) / (_NEAR_PART * (1.0 - zero))))

    def _zero(self) -> float:
        if self._unrelated is None:
            np = self._numpy
            try:
                vectors = np.asarray(self.embedder.embed(_UNRELATED, "passage"), dtype=np.float32)
            except MeshError:
                return 0.0  # asked again the next time
            count = len(vectors)
            mean = (float((vectors @ vectors.T).sum()) - count) / (count * (count - 1))
            self._unrelated = max(0.0, min(0.9, mean))
        return self._unrelated

    def nearest(self, vector: npt.NDArray[np.float32]) -> list[int]:
        """Return numbers of the agents whose passages are nearest, the nearest first."""
        if not len(self):
            return []
        asked = self._numpy.rint(vector * (127.0 / float(abs(vector).max()))).astype(self._numpy.int8)
        count = min(self._count, NEAREST + len(self._free))
        if self._count > EXACT_ROWS_MAX and not self.is_growing:
            rows = self._graph.search(asked, min(NEAREST, len(self))).keys
        else:
            found = self._usearch.search(
                self.matrix, asked, min(count, 4 * NEAREST), self._usearch.MetricKind.Cos, exact=True
            )
            rows = found.keys
        numbers = self._agents[self._numpy.asarray(rows, dtype=self._numpy.int64)].tolist()
        return [number for number in dict.fromkeys(numbers) if number]

    def near(self, vector: npt.NDArray[np.float32], numbers: Sequence[int]) -> dict[int, Near]:
        """Return how near the passages of these agents are, by the full vectors; agents without vectors are left out."""
        np = self._numpy
        rows = [row for number in numbers for row in self._rows_of.get(number, ())]
        if not rows:
            return {}
        taken = np.asarray(rows, dtype=np.int64)
        cosines = (self._matrix[taken].astype(np.float32) @ vector) * self._scales[taken]
        found: dict[int, Near] = {}
        for number, passage, cosine in zip(
            self._agents[taken].tolist(), self._passages[taken].tolist(), cosines.tolist(), strict=True
        ):
            if number not in found or cosine > found[number].cosine:
                found[number] = Near(cosine, passage)
        return found

    def close(self) -> None:
        """Let go of the model. Idempotent."""
        self.embedder.close()

    # Rows

    def _quantised(self, texts: Sequence[str], role: Any) -> list[bytes]:
        np = self._numpy
        vectors = self.embedder.embed(texts, role)
        made: list[bytes] = []
        for vector in vectors:
            one = np.asarray(vector, dtype=np.float32)
            if self._dims == 0:
                self._dims = int(one.shape[0])
            if one.shape != (self._dims,) or not bool(np.isfinite(one).all()):
                raise DecodeError(
                    f"a vector of {one.shape} where {self._dims} figures were expected", code="embed.dims"
                )
            length = float(np.linalg.norm(one))
            one = one / length if length > 0 else one
            most = float(abs(one).max())
            scale = most / 127.0 if most > 0 else 1.0
            made.append(_SCALE.pack(scale) + np.rint(one / scale).astype(np.int8).tobytes())
        if len(made) != len(texts):
            raise DecodeError(f"{len(made)} vectors for {len(texts)} texts", code="embed.count")
        return made

    def _put_raw(self, number: int, passage: int, raw: bytes) -> bool:
        """Put a stored vector into a row; False if it is of another length."""
        np = self._numpy
        dims = len(raw) - _SCALE.size
        if self._dims == 0:
            self._dims = dims
        if dims != self._dims:
            return False
        row = self._free.pop() if self._free else self._next_row()
        self._matrix[row] = np.frombuffer(raw, dtype=np.int8, offset=_SCALE.size)
        self._scales[row] = _SCALE.unpack_from(raw)[0]
        self._agents[row], self._passages[row] = number, passage
        self._rows_of.setdefault(number, []).append(row)
        if row < self._graphed:
            self._graph.add(row, self._matrix[row])
        return True

    def _next_row(self) -> int:
        np = self._numpy
        if self._matrix is None or self._count == len(self._matrix):
            size = max(_ROWS_MIN, self._count + self._count // 2)
            grown = [
                np.zeros((size, self._dims), np.int8),
                np.zeros(size, np.float32),
                np.zeros(size, np.int64),
                np.zeros(size, np.int16),
            ]
            if self._matrix is not None:
                for new, old in zip(grown, (self._matrix, self._scales, self._agents, self._passages), strict=True):
                    new[: self._count] = old[: self._count]
            self._matrix, self._scales, self._agents, self._passages = grown
        self._count += 1
        return self._count - 1

    def _fail(self, error: MeshError) -> None:
        self.failure = error.detail
        self._rest_until_s = time.monotonic() + _REST_S


def hash_of(text: str) -> bytes:
    """Return by what the vector of a text is kept."""
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=12).digest()


def model_number(store: SearchStore, version: str) -> int:
    """Return the number under which the vectors of an embedder are kept, a new one for a version never seen."""
    known = models_of(store)
    if version not in known:
        known[version] = max(known.values(), default=0) + 1
        store.put(_MODELS_KEY, msgspec.msgpack.encode(known))
    return known[version]


def models_of(store: SearchStore) -> dict[str, int]:
    """Return the versions of embedders whose vectors may be kept, with their numbers."""
    try:
        return msgspec.msgpack.decode(store.get(_MODELS_KEY), type=dict[str, int])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return {}
