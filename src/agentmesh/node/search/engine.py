"""The search engine of one node: documents in, answers out. Lives in the search process; the bench uses it directly.

An answer is made in two steps. Lists of agents by feature bring up candidates, rarest feature first and never more than a fixed
amount of work; the exact score (``score.py``) then orders them by the passage that fits best.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from agentmesh.core.search.model import (
    PASSAGES_MAX,
    QUERY_CHARS_MAX,
    TEXT_CHARS_MAX,
    Document,
    Filters,
    Found,
    Hit,
)
from agentmesh.core.search.needs import needs_of
from agentmesh.core.search.spelling import Spelling
from agentmesh.embed.base import Embedder
from agentmesh.embed.builtin import Reader, Unit
from agentmesh.embed.concepts import Lexicon, dumped, lexicon_files, mark_of, read_lexicon, stored
from agentmesh.embed.models import models_in
from agentmesh.node.search.candidates import Asked, Candidates, ordered
from agentmesh.node.search.packed import Keys, packed, read_document, traits_of
from agentmesh.node.search.score import Need, Tuning, weighed
from agentmesh.node.search.vectors import Models, Vectors, models_by_name
from agentmesh.store.search import AgentRow, SearchStore

#: Hits and near misses of one answer, at most.
LIMIT_MAX = 1_000
#: From this part of other languages on a text is helped, or replaced, by English names before an English model reads it.
_FOREIGN_SOME, _FOREIGN_MOST = 0.3, 0.7
#: Documents put in by one transaction.
_BATCH = 100
_SPELLING_WORDS_MAX = 40_000
#: What a corrected word still says, by the number of slips.
_SLIPPED = (1.0, 0.9, 0.75)


class Engine:
    """Open with ``Engine.open(path)``; calls must not overlap."""

    def __init__(self, store: SearchStore, reader: Reader, models: Models, *, tuning: Tuning) -> None:
        self._store = store
        self._reader = reader
        self._tuning = tuning
        salt = store.get("salt")
        if len(salt) != 16:
            salt = os.urandom(16)
            store.put("salt", salt)
        self._keys = Keys(salt)
        self._candidates = Candidates(store, tuning)
        self._spelling: Spelling | None = None
        self._report: list[str] = list(store.report)
        self._begin()
        self._vectors = Vectors(store, models, self._texts_of, store.agents_all())

    @classmethod
    def open(
        cls,
        path: Path | str,
        embedder: str | Embedder = "builtin",
        *,
        home: Path | str = ".",
        model: str = "",
        key_file: str = "",
        models_dir: Path | str = "",
        former: Embedder | None = None,
        lexicon: Lexicon | None = None,
        tuning: Tuning | None = None,
    ) -> Engine:
        """Open or make an index.

        Args:
            path: The SQLite file.
            embedder: By which vectors are made beside words and concepts: a name of ``embed.choose``, or an open one.
            home: The node's home, where local models are.
            model, key_file: Of an endpoint.
            models_dir: Where local models are instead; "" for the home.
            former: The one that served this file before, if ``embedder`` is an open one.
            lexicon: The concepts; None takes the program's.
            tuning: Figures of the score; None takes the program's.

        Raises:
            Full: the file cannot be written.
            ConfigError: there can be no embedder of that name.
        """
        if isinstance(embedder, str):
            at = Path(models_dir) if models_dir else models_in(Path(home))
            models = models_by_name(embedder, at, model=model, key_file=key_file)
        else:
            models = Models(None if embedder.name == "builtin" else embedder, _known(former), [])
        store = SearchStore.open(Path(path))
        try:
            return cls(
                store, Reader(_lexicon(store) if lexicon is None else lexicon), models, tuning=tuning or Tuning()
            )
        except BaseException:
            store.close()
            raise

    def __len__(self) -> int:
        return len(self._store)

    @property
    def embedder(self) -> str:
        """By what meaning is compared now; "builtin" if it is words and concepts alone."""
        return self._vectors.name or "builtin"

    @property
    def notes(self) -> list[str]:
        """What people should know of every answer, in English."""
        return [*self._report, *self._vectors.notes()]

    def _begin(self) -> None:
        """Empty an index whose features another lexicon or other code made."""
        version = self._reader.version.encode()
        if self._store.get("reader") != version:
            if len(self._store):
                self._store.clear()
                self._report.append("the lexicon is new: all agents are indexed again")
            self._store.put("reader", version)

    # Documents

    def versions(self) -> dict[str, str]:
        """Return the version of every agent that is indexed. Raises StoreError."""
        return self._store.versions()

    def update(self, documents: Iterable[Document], *, embed: bool = True) -> int:
        """Index documents; one whose version is there already is passed over.

        Args:
            documents: Any number; of two with one id the later counts.
            embed: Make all vectors now; otherwise ``step`` does, little by little.

        Returns:
            How many were indexed.

        Raises:
            StoreError: it cannot be written. Batches written before stay.
        """
        done = 0
        batch: dict[str, Document] = {}
        for document in documents:
            batch[document.agent_id] = document
            if len(batch) >= _BATCH:
                done += self._put(batch)
                batch = {}
        done += self._put(batch) if batch else 0
        while embed and self._vectors.rests_s == 0:
            self.step()
        return done

    @property
    def has_work(self) -> bool:
        """Whether ``step`` has something to do now."""
        return self.rests_s == 0

    @property
    def rests_s(self) -> float | None:
        """Seconds until ``step`` has something to do; None if nothing is left."""
        return 0.0 if self._spelling is None else self._vectors.rests_s

    @property
    def waiting(self) -> int:
        """Texts that have no vector yet."""
        return self._vectors.waiting

    def step(self) -> None:
        """Do a small part of what is to be done, some 50 ms. Raises StoreError."""
        if self._vectors.rests_s == 0:
            self._vectors.step()
        else:
            self._spell()  # the first slip of a keyboard need not wait for it

    def remove(self, agent_ids: Iterable[str]) -> int:
        """Take agents out and return how many were there. Raises StoreError."""
        removed: list[tuple[int, str]] = []
        for agent_id in dict.fromkeys(agent_ids):
            if (old := self._old(agent_id)) is not None:
                removed.append(old)
        if removed:
            self._store.change(removed, [])
            self._vectors.remove(number for number, _ in removed)
            self._candidates.changed()
        return len(removed)

    def _put(self, batch: dict[str, Document]) -> int:
        removed: list[tuple[int, str]] = []
        added: list[AgentRow] = []
        texts: list[list[str]] = []
        for document in batch.values():
            if self._store.version_of(document.agent_id) == document.version:
                continue
            if (old := self._old(document.agent_id)) is not None:
                removed.append(old)
            added.append(self._row(document))
            texts.append(self._texts(document) if self._vectors.is_used else [])
        if added:
            numbers = self._store.change(removed, added)
            self._vectors.remove(number for number, _ in removed)
            self._vectors.add([*zip(numbers, texts, strict=True)])
            self._candidates.changed()
        return len(added)

    def _old(self, agent_id: str) -> tuple[int, str] | None:
        found = self._store.stored(agent_id)
        if found is None:
            return None
        number, raw = found
        document = read_document(raw)
        return number, _tokens(document, self._read(document))

    def _read(self, document: Document) -> list[dict[str, float]]:
        """Return the features of each passage; the agent's own begins with its name and tags."""
        read = self._reader.features
        found: list[dict[str, float]] = []
        for number, passage in enumerate(document.passages[:PASSAGES_MAX]):
            text = passage.text[:TEXT_CHARS_MAX]
            if number == 0:
                text = f"{document.name[:200]}\n{chr(10).join(document.tags[:64])[:1000]}\n{text}"
            elif passage.skill and passage.kind == "skill":
                text = f"{passage.skill[:200]}\n{text}"
            found.append(read(text))
        return found or [read(document.name[:200])]

    def _texts(self, document: Document) -> list[str]:
        """Return what a model reads of an agent: its passages, and in English what other languages name."""
        texts = [self._for_model(one.text[:TEXT_CHARS_MAX]) for one in document.passages[:PASSAGES_MAX]]
        if texts and not texts[0].startswith(document.name):
            texts[0] = f"{document.name[:200]}: {texts[0]}"
        return texts

    def _texts_of(self, numbers: Sequence[int]) -> list[tuple[int, list[str]]]:
        return [(number, self._texts(read_document(raw))) for number, raw in self._store.documents(numbers).items()]

    def _for_model(self, text: str) -> str:
        """Add the English names of what a text says in other languages; of one that is hardly English they stand alone."""
        gloss = self._reader.gloss(text)
        if not gloss.english or gloss.foreign < _FOREIGN_SOME:
            return text
        return gloss.english if gloss.foreign >= _FOREIGN_MOST else f"{gloss.english}. {text}"

    def _row(self, document: Document) -> AgentRow:
        passages = self._read(document)
        self._learn(passages)
        return AgentRow(
            document.agent_id,
            document.version,
            max(0, min(document.context_window, 2**53)),
            None if document.price_micros is None else max(0, min(document.price_micros, 2**53)),
            msgspec.msgpack.encode(document),
            packed(passages, self._keys),
            _tokens(document, passages),
        )

    # Answers

    def search(self, query: str, *, filters: Filters | None = None, limit: int = 10, near: int = 3) -> Found:
        """Answer a query.

        Args:
            query: What is needed; of more than ``QUERY_CHARS_MAX`` characters the rest is not read.
            filters: What must hold.
            limit: Hits at most.
            near: Near misses at most; none without filters.

        Raises:
            StoreError: the index cannot be read.
        """
        filters = filters or Filters()
        limit, near = max(0, min(limit, LIMIT_MAX)), max(0, min(near, LIMIT_MAX))
        notes = list(self.notes)
        if len(query) > QUERY_CHARS_MAX:
            query = query[:QUERY_CHARS_MAX]
            notes.append(f"only the first {QUERY_CHARS_MAX} characters of the query were read")
        texts = needs_of(query)
        asked = [self._asked(text) for text in texts]
        asked = [one for one in asked if one.need.paths or one.question is not None]
        hits, nearly = self._answers(asked, filters, limit, near) if asked else ([], [])
        notes += [note for note in self._vectors.notes() if note not in notes]  # of what failed just now
        return Found(tuple(hits), tuple(nearly), tuple(texts), self.embedder, tuple(notes))

    def _asked(self, text: str) -> Asked:
        need = self._weigh(text)
        if not self._vectors.name:
            return Asked(need, None, 1.0)
        if not self._vectors.reads_only_english:
            return Asked(need, self._vectors.question(text), self._tuning.cover)
        gloss = self._reader.gloss(text)
        cover = self._tuning.cover if gloss.foreign < _FOREIGN_SOME else self._tuning.cover_foreign
        question = self._vectors.question(self._for_model(text))
        return Asked(need, question, cover if question is not None else 1.0)

    def _answers(self, needs: Sequence[Asked], filters: Filters, limit: int, near: int) -> tuple[list[Hit], list[Hit]]:
        within = self._candidates.within(filters)
        lists: list[tuple[list[Hit], list[Hit]]] = []
        each = max(limit, 10) if len(needs) == 1 else limit // len(needs) + 20
        for need in needs:
            answers = self._candidates.answers(need, filters, within, each, near, needs=len(needs))
            lists.append(answers)
        if len(lists) == 1:
            hits, nearly = lists[0]
        else:
            hits, nearly = _together([one for one, _ in lists]), _together([one for _, one in lists])
        return hits[:limit], nearly[:near]

    def _weigh(self, text: str) -> Need:
        units = [self._corrected(unit) for unit in self._reader.units(text)]
        return weighed(text, units, self._candidates.count, self._keys, len(self._store), self._tuning)

    def _corrected(self, unit: Unit) -> Unit:
        """Return a unit whose word nobody knows with the known words that it may mean."""
        if unit.known or any(self._candidates.count(word) for word in unit.words):
            return unit
        near = self._spell().near(unit.plain)
        words: list[str] = []
        means: dict[str, float] = dict(unit.means)
        slips = near[0][1] if near else 0
        for word, _ in near:
            for read in self._reader.units(word):
                words += [one for one in read.words if self._candidates.count(one)]
                for concept, strength in read.means:
                    means[concept] = max(means.get(concept, 0.0), strength)
        if not near:
            return unit
        share = _SLIPPED[min(slips, len(_SLIPPED) - 1)]
        return unit._replace(
            words=tuple(dict.fromkeys(words))[:1] or unit.words,
            means=tuple((name, strength * share) for name, strength in means.items()),
            weight=unit.weight * share,
        )

    def _spell(self) -> Spelling:
        """Return the spelling of all words that the lexicon or an agent has; made when nothing else is to do, or needed."""
        if self._spelling is None:
            made = Spelling()
            for word in self._reader.lexicon.words:
                made.add(word)
            for word in self._store.words(_SPELLING_WORDS_MAX):
                made.add(word)
            self._spelling = made
        return self._spelling

    def _learn(self, passages: Sequence[dict[str, float]]) -> None:
        """Let the spelling know the words of a new agent."""
        if self._spelling is not None:
            for features in passages:
                for name in features:
                    if name.isascii() and name.isalpha():
                        self._spelling.add(name)

    def close(self) -> None:
        """Close the file and let go of the model. Idempotent."""
        self._vectors.close()
        self._store.close()


def _known(former: Embedder | None) -> Callable[[str], Embedder | None]:
    def opened(name: str) -> Embedder | None:
        return former if former is not None and former.name == name else None

    return opened


def _together(lists: Sequence[Sequence[Hit]]) -> list[Hit]:
    """Merge the answers to several needs: the best of each first, and whoever answers more of them higher."""
    best: dict[str, Hit] = {}
    total: dict[str, float] = {}
    for hits in lists:
        for rank, hit in enumerate(hits):
            # A need whose best answer is weak still shows its best early: half way to the best of that rank.
            level = max((other[rank].text for other in lists if len(other) > rank), default=hit.text)
            lifted = (hit.text * level) ** 0.5
            total[hit.agent_id] = total.get(hit.agent_id, 0.0) + lifted
            if hit.agent_id not in best or lifted > best[hit.agent_id].text:
                best[hit.agent_id] = msgspec.structs.replace(hit, text=lifted)
    share = 0.3
    merged = [
        msgspec.structs.replace(hit, text=(1 - share) * hit.text + share * total[agent_id] / len(lists))
        for agent_id, hit in best.items()
    ]
    return ordered(merged)


def _lexicon(store: SearchStore) -> Lexicon:
    """Return the program's lexicon, from the copy in the index if it is of the same files."""
    files = lexicon_files()
    found = stored(store.get("lexicon"), mark_of(files))
    if found is None:
        found = read_lexicon(files)
        store.put("lexicon", dumped(found))
    return found


def _tokens(document: Document, passages: Sequence[dict[str, float]]) -> str:
    names: dict[str, None] = {}
    for features in passages:
        names.update(dict.fromkeys(features))
    return " ".join((*names, *traits_of(document)))
