"""Which model's vectors serve, and which are being made: a new model takes over when it has read everything.

Without a model there is nothing here but notes. While another model is still reading, the former one serves if it can still be
opened; otherwise words and concepts do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agentmesh.embed.base import Embedder
from agentmesh.errors import MeshError
from agentmesh.node.search.dense import Dense, hash_of, models_of
from agentmesh.store.search import SearchStore

#: Agents taken into memory in one step.
_LOAD_AGENTS = 100
#: Stored vectors beyond this many for each that is used are forgotten; texts come back, so a few are kept.
_SPARE_FACTOR, _SPARE_MIN = 3, 50_000
_SERVING_KEY = "serving"
#: Models that were trained on English alone.
_ENGLISH_ONLY = frozenset({"minilm"})

#: Numbers of agents → their texts as a model reads them.
TextsOf = Callable[[Sequence[int]], Iterable[tuple[int, list[str]]]]


class Models(NamedTuple):
    """The embedders of an engine.

    Attributes:
        wanted: By which vectors shall be made; None for words and concepts alone.
        former: Opens the embedder of a name that served before, None if it cannot.
        notes: Why another one than the configured answers.
    """

    wanted: Embedder | None
    former: Callable[[str], Embedder | None]
    notes: list[str]


class Serving(msgspec.Struct, array_like=True):
    """Whose vectors were complete when they were last looked at."""

    name: str
    version: str


class Question(NamedTuple):
    """A need as a model sees it."""

    dense: Dense
    vector: Any


class Vectors:
    """The vectors of all agents.

    Args:
        store: Where they are kept.
        models: The embedders.
        texts_of: What a model reads of agents.
        numbers: The agents that are there.
    """

    def __init__(self, store: SearchStore, models: Models, texts_of: TextsOf, numbers: Sequence[int]) -> None:
        self._store, self._texts_of = store, texts_of
        self._notes = models.notes
        self._serving: Dense | None = None
        self._coming: Dense | None = None
        self._loading: dict[int, list[int]] = {}
        if models.wanted is None:
            return
        served = self._served()
        if served is not None and served.version != models.wanted.version and served.version in models_of(store):
            former = models.former(served.name)
            if former is not None and former.version == served.version:
                self._serving = self._started(former, numbers)
            elif former is not None:
                former.close()
        self._coming = self._started(models.wanted, numbers)
        if not numbers:
            self._take_over(self._coming)

    def _started(self, embedder: Embedder, numbers: Sequence[int]) -> Dense:
        dense = Dense(self._store, embedder)
        self._loading[id(dense)] = list(reversed(numbers))
        return dense

    def _served(self) -> Serving | None:
        try:
            return msgspec.msgpack.decode(self._store.get(_SERVING_KEY), type=Serving)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return None

    @property
    def name(self) -> str:
        """Whose vectors answer now; "" if none do."""
        ready = self._ready()
        return "" if ready is None else ready.embedder.name

    @property
    def is_used(self) -> bool:
        """Whether there is any model."""
        return self._serving is not None or self._coming is not None

    @property
    def reads_only_english(self) -> bool:
        """Whether the serving model knows no other language."""
        return self.name in _ENGLISH_ONLY

    @property
    def waiting(self) -> int:
        """Texts and agents that a step has to do with."""
        return sum(one.waiting + len(self._loading[id(one)]) for one in self._all())

    @property
    def rests_s(self) -> float | None:
        """Seconds until ``step`` has something to do; None if it has nothing to do."""
        rests: list[float] = []
        for one in self._all():
            if self._loading[id(one)] or one.is_growing:
                rests.append(0.0)
            elif one.waiting:
                rests.append(one.rests_s)
        return min(rests, default=None)

    def notes(self) -> list[str]:
        """Return what people should know."""
        found = list(self._notes)
        for one in self._all():
            if one.failure:
                found.append(f"the embedder {one.embedder.name} does not answer ({one.failure}); words and concepts do")
            left = one.waiting + len(self._loading[id(one)])
            if left and one is not self._serving:
                by = self._serving.embedder.name if self._serving is not None else "the built-in reading"
                found.append(f"{left} texts wait for {one.embedder.name}; until then {by} answers")
            elif left:
                found.append(f"{left} texts wait for {one.embedder.name}; their words and concepts answer until then")
        return found

    def add(self, agents: Sequence[tuple[int, list[str]]]) -> None:
        """Take in new agents. Raises StoreError."""
        for one in self._all():
            one.add(agents)

    def remove(self, numbers: Iterable[int]) -> None:
        """Take agents out."""
        for number in numbers:
            for one in self._all():
                one.remove(number)

    def step(self) -> None:
        """Load some agents, or embed a few texts; then see whether the new model can take over. Raises StoreError."""
        for one in self._all():
            loading = self._loading[id(one)]
            if loading:
                part = [loading.pop() for _ in range(min(_LOAD_AGENTS, len(loading)))]
                one.add([*self._texts_of(part)])
                break
            if one.waiting and one.rests_s == 0:
                one.step()
                break
            if one.is_growing:
                one.grow()
                break
        coming = self._coming
        if coming is not None and not coming.waiting and not self._loading[id(coming)]:
            self._take_over(coming)

    def _take_over(self, coming: Dense) -> None:
        if self._serving is not None:
            del self._loading[id(self._serving)]
            self._serving.close()
        self._serving, self._coming = coming, None
        coming.nearness(0.0)  # what the first query would have to work out otherwise
        embedder = coming.embedder
        self._store.put(_SERVING_KEY, msgspec.msgpack.encode(Serving(embedder.name, embedder.version)))
        model = models_of(self._store)[embedder.version]
        self._store.forget_vectors(model)
        if self._store.vector_count(model) > max(_SPARE_MIN, _SPARE_FACTOR * len(coming)):
            numbers = self._store.agents_all()
            texts = (
                text for start in range(0, len(numbers), 500) for text in self._all_texts(numbers[start : start + 500])
            )
            self._store.keep_only(model, (hash_of(text) for text in texts if text))

    def _all_texts(self, numbers: Sequence[int]) -> list[str]:
        return [text for _, texts in self._texts_of(numbers) for text in texts]

    def question(self, text: str) -> Question | None:
        """Return a need as the serving model sees it; None if there is none, or it fails."""
        dense = self._ready()
        if dense is None or not len(dense):
            return None
        vector = dense.query(text)
        return None if vector is None else Question(dense, vector)

    def _ready(self) -> Dense | None:
        return self._serving if self._serving is not None and not self._loading[id(self._serving)] else None

    def _all(self) -> list[Dense]:
        return [one for one in (self._serving, self._coming) if one is not None]

    def close(self) -> None:
        """Let go of the models. Idempotent."""
        for one in self._all():
            one.close()
        self._serving = self._coming = None


def _nobody(name: str) -> None:
    return None


def models_by_name(name: str, directory: Path, *, model: str = "", key_file: str = "") -> Models:
    """Open the embedder of a name; where it cannot be, words and concepts answer and a note says why.

    Raises:
        ConfigError: there can be no embedder of that name.
    """
    if name == "builtin":
        return Models(None, _nobody, [])
    from agentmesh.embed.choose import Source, choose  # models and libraries load with the first use only

    source = Source(directory, model, key_file)

    def opened(which: str) -> tuple[Embedder | None, list[str]]:
        chosen = choose(which, source)
        notes = [chosen.fallback + (f" ({chosen.hint})" if chosen.hint else "")] if chosen.fallback else []
        return None if chosen.embedder.name == "builtin" else chosen.embedder, notes

    def former(which: str) -> Embedder | None:
        try:
            return opened(which)[0]
        except MeshError:
            return None

    wanted, notes = opened(name)
    return Models(wanted, former, notes)
