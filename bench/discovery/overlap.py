"""How many words a query shares with what it looks for: the proof that a paraphrase is one. Pure."""

from __future__ import annotations

import re

_COMMON = """
a about above after again against all also although always am an and any anybody anyone anything are as at be because been
before being below between both but by can cannot could did do does doing down during each else enough ever every everybody
everything few for from further get gets give had has have having he her here hers him his how i if in instead into is it its
just let like made make makes many may me might more most much must my myself near no nobody none nor not now of off often on
once one only or other our ours out over own per please really same she should since so some somebody someone something still
such than that the their them then there these they this those though through to too two three four under until up upon us use
used uses very want wants was we well were what when where whether which while who whom whose why will with without would yes
yet you your need needs help find tell look new good best way
der die das den dem des ein eine einen und oder für mit von zu im am ist sind bei nach aus auf
el la los las un una y o de del que en por para con mi su es
"""
#: Words that say nothing about what is looked for, in the languages of the set that have spaces.
STOP = frozenset(_COMMON.split())
_WORD = re.compile(r"[^\W\d_]+")
_HAN = re.compile(r"[\u3400-\u9fff]")
#: Endings that two forms of a word may differ in, longest first.
_ENDINGS = ("ings", "ing", "edly", "ies", "ed", "es", "ly", "s", "e")


def stem(word: str) -> str:
    """Cut an English ending off, roughly: too much rather than too little, so that overlap is seen rather than missed."""
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 3:
            return word[: -len(ending)] + ("y" if ending == "ies" else "")
    return word


def content(text: str) -> frozenset[str]:
    """Return the stems of the words that carry meaning; of Chinese, its pairs of characters."""
    found: set[str] = set()
    for word in _WORD.findall(text.lower().replace("'s", " ").replace("’s", " ")):
        if _HAN.search(word):
            found.update(word[n : n + 2] for n in range(len(word) - 1))
        elif len(word) > 1 and word not in STOP:
            found.add(stem(word))
    return frozenset(found)


def overlap(query: str, text: str) -> float:
    """Return the share of the query's content words that the text has too; 0 for a query without any."""
    asked = content(query)
    return len(asked & content(text)) / len(asked) if asked else 0.0
