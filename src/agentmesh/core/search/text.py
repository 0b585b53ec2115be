"""From characters to words: what two texts must share to be about the same. Pure; every text is a stranger's.

Letter case, width, accents and signs that nobody sees do not count. Words of Latin script are taken apart at camelCase,
snake_case and between letters and digits, and brought to their stem (Snowball, English unless told otherwise; Russian words by
the Russian one, since their script names it). Chinese, Japanese and Korean text has no spaces: it stays in runs, which readers
cut by a lexicon or into pairs of signs.
"""

from __future__ import annotations

import importlib
import re
import unicodedata
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any, Literal, NamedTuple

#: Words longer than this are cut: nobody types them, and a stemmer's work grows with them.
WORD_CHARS_MAX = 48
#: Stems remembered; words of people repeat, so this is nearly all that is ever asked.
_STEMS_MAX = 65_536
_HIDDEN_CATEGORIES = {"Cf", "Cs", "Co", "Cn"}

Kind = Literal["word", "run", "end"]

_ASCII_CONTROL = re.compile(r"[\x00-\x1f\x7f]+")
#: Chinese and Japanese signs, kana, hangul: everything written without spaces that we read pair by pair.
_CJK = (
    "\u3005-\u3007\u3040-\u30ff\u3105-\u312f\u31a0-\u31bf\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
    "\U00020000-\U0003ffff"
)
_TOKEN = re.compile(
    rf"(?P<run>[{_CJK}]+)"
    rf"|(?P<sign>(?<![^\W_])(?:[cCfF]\#|[cC]\+\+)(?![^\W_]))"
    rf"|(?P<word>(?:(?![{_CJK}])[^\W_])+(?:['’](?:(?![{_CJK}])[^\W\d_])+)*)"
    r"|(?P<end>[.;:!?,()\[\]。；：！？，、（）—\n]+)"
)
#: Borders inside a word: aB, ABc, and between a number of two or more digits and letters.
_BORDER = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_LETTERS = re.compile(r"[^\W\d_]{2,}")
_RUSSIAN = re.compile(r"[\u0400-\u04ff]")


class Token(NamedTuple):
    """One piece of a text.

    Attributes:
        kind: "word": one stem; "run": signs without spaces, as they stand; "end": a clause ends here.
        text: Folded; of a word its stem.
        plain: Of a word its folded form before stemming, else as ``text``.
    """

    kind: Kind
    text: str
    plain: str


def clean(text: str) -> str:
    """Return the text in its plain form: NFKC, one space for each control character, nothing that nobody sees.

    Removed are format characters (zero width, bidirectional marks, tags), variation selectors, surrogates, private and
    unassigned code points: a word with such a sign in it is the same word to people.
    """
    if text.isascii():
        return _ASCII_CONTROL.sub(_spaced, text)
    text = unicodedata.normalize("NFKC", text)
    return _ASCII_CONTROL.sub(_spaced, "".join(one for one in text if one < "\x80" or not _is_hidden(one)))


def _spaced(found: re.Match[str]) -> str:
    return "\n" if "\n" in found.group() else " "


@lru_cache(maxsize=4096)
def _is_hidden(sign: str) -> bool:
    code = ord(sign)
    return (
        unicodedata.category(sign) in _HIDDEN_CATEGORIES
        or 0x80 <= code <= 0x9F
        or 0xFE00 <= code <= 0xFE0F
        or 0xE0100 <= code <= 0xE01EF
        or code in (0x034F, 0x115F, 0x1160, 0x3164, 0xFFA0)  # fillers that show nothing
    )


def folded(word: str) -> str:
    """Return a word without letter case and accents ("Übersetzung" → "ubersetzung")."""
    word = word.casefold()
    if word.isascii():
        return word
    apart = unicodedata.normalize("NFKD", word)
    return unicodedata.normalize("NFC", "".join(one for one in apart if not "\u0300" <= one <= "\u036f"))


def tokens(text: str, language: str = "english") -> Iterator[Token]:
    """Yield the pieces of a text in their order.

    Args:
        text: Any string; it is cleaned here.
        language: Of Latin words, as Snowball names it; "" leaves all words as they are.
    """
    for found in _TOKEN.finditer(clean(text)):
        kind = found.lastgroup
        if kind == "word":
            yield from _words(found.group(), language)
        elif kind == "end":
            yield _END
        elif kind == "run":
            piece = found.group()
            yield Token("run", piece, piece)
        else:
            piece = found.group().lower()
            yield Token("word", piece, piece)


_END = Token("end", "", "")


def _parts(word: str) -> list[str]:
    """Take a word apart at camelCase; one that is simply written in one case stays whole."""
    if word.islower() or word.isupper() or word[1:].islower():
        return [word]
    return [part for part in _BORDER.split(word) if part]


@lru_cache(maxsize=_STEMS_MAX)
def _words(piece: str, language: str) -> tuple[Token, ...]:
    return tuple(_token(part, language) for part in _parts(piece))


def _token(word: str, language: str) -> Token:
    plain = folded(word.replace("’", "'"))[:WORD_CHARS_MAX]
    if plain.endswith("'s"):
        plain = plain[:-2]
    plain = plain.replace("'", "")
    return Token("word", stem(plain, language), plain)


@lru_cache(maxsize=_STEMS_MAX)
def stem(word: str, language: str = "english") -> str:
    """Return the stem of one folded word; words with digits and very short ones are their own, and all in no language ("")."""
    if len(word) < 4 or not language or not word.isalpha():
        return word
    if _RUSSIAN.match(word):
        language = "russian"
    return _stemmer(language)(word)


@lru_cache(maxsize=8)
def _stemmer(language: str) -> Callable[[str], str]:
    snowball: Any = importlib.import_module("snowballstemmer")  # on first use: the daemon never needs it
    return snowball.stemmer(language).stemWord


def letters_of(word: str) -> list[str]:
    """Return the parts of letters of a word that has digits as well ("gpt4" → ["gpt"]), none if it is all letters or digits."""
    return _LETTERS.findall(word) if any(one.isdigit() for one in word) and not word.isdigit() else []


def pairs(run: str) -> list[str]:
    """Return the pairs of neighbouring signs of a run, of a single sign itself."""
    return [run] if len(run) < 2 else [run[i : i + 2] for i in range(len(run) - 1)]


def trigrams(word: str) -> set[str]:
    """Return the character trigrams of a word, its borders marked."""
    marked = f"^{word}$"
    return {marked[i : i + 3] for i in range(len(marked) - 2)}


def slips(one: str, other: str, most: int) -> int | None:
    """Return by how many slips two words differ, None if by more than ``most``.

    A slip is a letter more, a letter less, another letter, or two neighbours swapped.
    """
    if abs(len(one) - len(other)) > most:
        return None
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        row = [i]
        left = i
        for j, b in enumerate(other, 1):
            best = last[j - 1] if a == b else 1 + min(last[j - 1], last[j], left)
            if i > 1 and j > 1 and a == other[j - 2] and b == one[i - 2] and before[j - 2] < best:
                best = min(best, before[j - 2] + 1)
            row.append(best)
            left = best
        if min(row) > most:
            return None
        before, last = last, row
    return last[-1] if last[-1] <= most else None
