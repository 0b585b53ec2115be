"""The lexicon of concepts: what words mean, across languages, as far as agents and needs go (docs/explain/discovery.md).

Text files beside this module, one concept a line:

    id < broader, broader : English terms, … | 中文, … | Begriffe in other languages, …

A concept may stand in several files: its terms are together. Concepts that share many terms are near each other, whatever their
authors called them.

Read once, in the search process. The files are part of the program, so a wrong line is a bug: tests read them strictly, and
the reader refuses them.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from importlib import resources
from itertools import permutations
from typing import Any

import msgspec

from agentmesh.core.search.text import clean, tokens
from agentmesh.errors import ConfigError

#: How much of a concept each step to a broader one keeps.
BROADER = (1.0, 0.55, 0.3)
#: Concepts are near if they share this many terms, and this part of those of the smaller one; how near they can come.
_NEAR_TERMS_MIN, _NEAR_PART_MIN, _NEAR_MOST = 3, 0.2, 0.85
_ID = re.compile(r"[a-z][a-z0-9_]{0,47}", re.ASCII)
_PARENTS_MAX = 3
_TERM_CHARS_MAX = 80
_TERM_WORDS_MAX = 10
#: Changes when the tables below do, so that a stored copy of other code is not read.
_FORM = 6


class Lexicon(msgspec.Struct, array_like=True):
    """Terms and the concepts that they name. Indices point into ``ids``.

    Attributes:
        mark: Hash of the files it was made from.
        ids: Names of the concepts.
        glosses: For each its first English term, "" if it has none.
        closures: For each itself and its broader concepts with how much of it they are, itself first.
        breadth: For each how many concepts are narrower; 0 for most.
        terms: Stems of an English term (or one of mixed script), joined by spaces → its concepts.
        longest: First stem of a term → most stems of a term that begins so.
        runs: Term in signs without spaces → its concepts.
        runs_longest: First sign → most signs.
        words: Every plain word of a term, for spelling, with its stem.
        foreign: Term of another language in Latin or Cyrillic script, folded and not stemmed → its concepts: the stems of
            one language are false friends in another.
        foreign_longest: First word of such a term → most words.
    """

    mark: str
    ids: list[str]
    glosses: list[str]
    closures: list[tuple[tuple[int, float], ...]]
    breadth: list[int]
    terms: dict[str, tuple[int, ...]]
    longest: dict[str, int]
    runs: dict[str, tuple[int, ...]]
    runs_longest: dict[str, int]
    words: dict[str, str]
    foreign: dict[str, tuple[int, ...]]
    foreign_longest: dict[str, int]


def lexicon_files() -> list[tuple[str, str]]:
    """Return name and text of each file of the lexicon, in order of name."""
    folder = resources.files("agentmesh.embed") / "lexicon"
    found = sorted((one for one in folder.iterdir() if one.name.endswith(".txt")), key=lambda one: one.name)
    return [(one.name, one.read_text("utf-8")) for one in found]


def mark_of(files: Iterable[tuple[str, str]]) -> str:
    """Return a name for these very files as this code reads them."""
    whole = hashlib.blake2b(str(_FORM).encode(), digest_size=12)
    for name, text in files:
        whole.update(f"{name}\0{text}\0".encode())
    return whole.hexdigest()


def stored(raw: bytes, mark: str) -> Lexicon | None:
    """Return the lexicon that ``msgspec.msgpack.encode`` wrote, None if it is damaged or of other files."""
    try:
        found = msgspec.msgpack.decode(raw, type=Lexicon)
    except (msgspec.DecodeError, ValueError):
        return None
    return found if found.mark == mark else None


def read_lexicon(files: Iterable[tuple[str, str]]) -> Lexicon:
    """Read all files.

    Args:
        files: Name and text of each.

    Raises:
        ConfigError: a line is not of the form, an id stands twice in a file, or a broader concept is unknown or in a circle (code
            "embed.lexicon"). Says which file and line.
    """
    files = list(files)
    rows: dict[str, _Row] = {}
    for name, text in files:
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                row = _row(line, f"{name}:{number}")
                if (known := rows.setdefault(row.id, row)) is not row:
                    _join(known, row)
    index = {one: number for number, one in enumerate(rows)}
    made = Lexicon(mark_of(files), list(rows), [], [], [0] * len(rows), {}, {}, {}, {}, {}, {}, {})
    for row in rows.values():
        closure = _closure(row, rows)
        made.closures.append(tuple((index[one], share) for one, share in closure.items()))
        for one in closure:
            made.breadth[index[one]] += one != row.id
        made.glosses.append(row.columns[0][0] if row.columns[0] else "")
        for column, terms in enumerate(row.columns):
            for term in terms:
                _enter(made, term, index[row.id], row.where, is_foreign=column == 2)
    _bring_near(made)
    return made


class _Row(msgspec.Struct):
    where: str
    id: str
    broader: list[str]
    columns: list[list[str]]


def _row(line: str, where: str) -> _Row:
    head, colon, body = line.partition(":")
    if not colon:
        raise _wrong(where, "a concept is `id < broader : english | 中文 | others`")
    name, less, above = (part.strip() for part in head.partition("<"))
    broader = [one.strip() for one in above.split(",")] if less else []
    if not all(_ID.fullmatch(one) for one in (name, *broader)) or len(broader) > _PARENTS_MAX:
        raise _wrong(where, f"ids are small letters, digits and _, and at most {_PARENTS_MAX} are broader")
    columns = [[" ".join(term.split()) for term in part.split(",") if term.strip()] for part in body.split("|")]
    if len(columns) > 3 or not any(columns):
        raise _wrong(where, "a concept has one to three columns of terms, parted by |")
    return _Row(where, name, broader, columns + [[] for _ in range(3 - len(columns))])


def _join(known: _Row, more: _Row) -> None:
    """Add the terms of a second file to a concept; twice in one file is a slip."""
    if more.where.rpartition(":")[0] == known.where.rpartition(":")[0]:
        raise _wrong(more.where, f"{more.id!r} stands already in {known.where}")
    known.broader += [one for one in more.broader if one not in known.broader]
    for had, new in zip(known.columns, more.columns, strict=True):
        had += [term for term in new if term not in had]


def _closure(row: _Row, rows: dict[str, _Row]) -> dict[str, float]:
    """Return the concept and what is broader, each with its share; steps beyond the table are not taken."""
    found: dict[str, float] = {row.id: BROADER[0]}
    level = [row]
    for share in BROADER[1:]:
        above: list[_Row] = []
        for one in level:
            for parent in one.broader:
                if parent not in rows:
                    raise _wrong(one.where, f"the broader concept {parent!r} stands nowhere")
                if parent == row.id:
                    raise _wrong(row.where, f"{row.id!r} is broader than itself")
                found.setdefault(parent, share)
                above.append(rows[parent])
        level = above
    return found


def _enter(made: Lexicon, term: str, concept: int, where: str, *, is_foreign: bool) -> None:
    found = [one for one in tokens(term, "" if is_foreign else "english") if one.kind != "end"]
    if not found or len(clean(term)) > _TERM_CHARS_MAX or len(found) > _TERM_WORDS_MAX:
        raise _wrong(where, f"{term!r} has no words, or more than {_TERM_WORDS_MAX}")
    if len(found) == 1 and found[0].kind == "run":
        run = found[0].text
        made.runs[run] = _with(made.runs.get(run, ()), concept)
        made.runs_longest[run[0]] = max(len(run), made.runs_longest.get(run[0], 0))
        return
    terms, longest = (made.foreign, made.foreign_longest) if is_foreign else (made.terms, made.longest)
    first, *_ = names = [one.plain if is_foreign else one.text for one in found]
    key = " ".join(names)
    terms[key] = _with(terms.get(key, ()), concept)
    longest[first] = max(len(names), longest.get(first, 0))
    for one in found:
        if one.kind == "word":
            if is_foreign:
                made.words.setdefault(one.plain, one.plain)
            else:
                made.words[one.plain] = one.text


def _bring_near(made: Lexicon) -> None:
    """Put into the closure of a concept those that share several of its terms, the nearer the more."""
    sizes: Counter[int] = Counter()
    shared: Counter[tuple[int, int]] = Counter()
    for concepts in (*made.terms.values(), *made.runs.values(), *made.foreign.values()):
        sizes.update(concepts)
        shared.update(permutations(concepts, 2))
    for (one, other), count in shared.items():
        part = count / min(sizes[one], sizes[other])
        if count >= _NEAR_TERMS_MIN and part >= _NEAR_PART_MIN:
            closure = dict(made.closures[one])
            closure[other] = max(closure.get(other, 0.0), round(min(_NEAR_MOST, part * 2), 2))
            made.closures[one] = tuple(closure.items())


def _with(concepts: tuple[int, ...], one: int) -> tuple[int, ...]:
    return concepts if one in concepts else (*concepts, one)


def _wrong(where: str, why: str) -> ConfigError:
    return ConfigError(
        f"lexicon {where}: {why}", code="embed.lexicon", hint="the lexicon is part of the program: install it again"
    )


def dumped(lexicon: Lexicon) -> bytes:
    """Return what ``stored`` reads: reading the files takes most of a second, this a few milliseconds."""
    encoded: Any = msgspec.msgpack.encode(lexicon)
    return encoded
