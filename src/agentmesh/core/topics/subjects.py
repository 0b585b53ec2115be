"""Subjects and patterns: what they look like, which fit, and a table of many patterns (docs/spec/topics.md §2).

A subject is one to sixteen words with dots between them. A pattern may have ``*`` for any one word, and ``>`` at its end for one
or more. Subjects that begin with ``$`` are the mesh's own: a pattern finds them only if its own first word says so.
"""

from __future__ import annotations

import re
from typing import Generic, TypeVar

from agentmesh.errors import LimitError, UsageError

SUBJECT_CHARS_MAX = 256
WORDS_MAX = 16
#: Subjects of the mesh's own: announcements of durable topics.
TOPICS = "$topics."
#: Subjects under which each node tells its own people who is there; never sent.
PRESENCE = "presence."
_WORD = r"[A-Za-z0-9_-]+"
_SUBJECT = re.compile(rf"\$?{_WORD}(?:\.{_WORD})*")
_PATTERN = re.compile(rf"(?:\$?{_WORD}|\*)(?:\.(?:{_WORD}|\*))*(?:\.>)?|>")
_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_V = TypeVar("_V")


def is_subject(text: str) -> bool:
    """Say whether a text is a subject."""
    return len(text) <= SUBJECT_CHARS_MAX and text.count(".") < WORDS_MAX and _SUBJECT.fullmatch(text) is not None


def check_subject(text: str) -> str:
    """Return a subject as it is. Raises UsageError (code "topic.subject"): it is none."""
    if not is_subject(text):
        raise UsageError(
            f"{text[:80]!r} is no subject",
            code="topic.subject",
            why=f"a subject is 1 to {WORDS_MAX} words of A-Z a-z 0-9 _ - with dots between, at most {SUBJECT_CHARS_MAX} in all",
        )
    return text


def check_pattern(text: str) -> str:
    """Return a pattern as it is. Raises UsageError (code "topic.pattern"): it is none."""
    if len(text) > SUBJECT_CHARS_MAX or text.count(".") >= WORDS_MAX or not _PATTERN.fullmatch(text):
        raise UsageError(
            f"{text[:80]!r} is no pattern of subjects",
            code="topic.pattern",
            why="a pattern is a subject in which * stands for one word, and > at the end for one or more",
        )
    return text


def is_topic_name(text: str) -> bool:
    """Say whether a text can be the name of a durable topic."""
    return _NAME.fullmatch(text) is not None


def matches(pattern: str, subject: str) -> bool:
    """Say whether a pattern fits a subject."""
    wanted, words = pattern.split("."), subject.split(".")
    if words[0][:1] == "$" and wanted[0] != words[0]:
        return False
    for place, want in enumerate(wanted):
        if want == ">":
            return len(words) > place
        if place >= len(words) or (want != "*" and want != words[place]):
            return False
    return len(wanted) == len(words)


def overlaps(one: str, other: str) -> bool:
    """Say whether some subject fits both patterns."""
    left, right = one.split("."), other.split(".")
    if (left[0][:1] == "$" or right[0][:1] == "$") and left[0] != right[0]:
        return False
    for place in range(max(len(left), len(right))):
        if place >= len(left) or place >= len(right):
            return False
        mine, theirs = left[place], right[place]
        if ">" in (mine, theirs):
            return True
        if mine != theirs and "*" not in (mine, theirs):
            return False
    return True


class _Branch(Generic[_V]):
    __slots__ = ("below", "here", "rest")

    def __init__(self) -> None:
        self.below: dict[str, _Branch[_V]] = {}
        #: Values of the patterns that end here, and of those that go on with ``>``; each with how often it was added.
        self.here: dict[_V, int] = {}
        self.rest: dict[_V, int] = {}


class PatternTable(Generic[_V]):
    """Many patterns, each with values; what fits a subject is found by its words, not by trying every pattern.

    Args:
        patterns_max: Most pairs of pattern and value.
    """

    def __init__(self, patterns_max: int) -> None:
        self.patterns_max = patterns_max
        self._root: _Branch[_V] = _Branch()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def branches(self) -> int:
        """How many places it takes in memory: 1 when it is empty."""
        count, open_ = 0, [self._root]
        while open_:
            count += 1
            open_.extend(open_.pop().below.values())
        return count

    def add(self, pattern: str, value: _V) -> None:
        """Add a pair; the same one may be added several times.

        Raises:
            UsageError: no pattern (code "topic.pattern"). Nothing changed.
            LimitError: the table is full (code "topic.patterns_full"). Nothing changed.
        """
        words = check_pattern(pattern).split(".")
        if self._count >= self.patterns_max:
            raise LimitError(f"{self.patterns_max} patterns are followed already", code="topic.patterns_full")
        branch = self._root
        for word in words:
            if word == ">":
                branch.rest[value] = branch.rest.get(value, 0) + 1
                break
            branch = branch.below.setdefault(word, _Branch())
        else:
            branch.here[value] = branch.here.get(value, 0) + 1
        self._count += 1

    def remove(self, pattern: str, value: _V) -> bool:
        """Take a pair out once; say whether it was there."""
        words = pattern.split(".")
        path: list[tuple[_Branch[_V], str]] = []
        branch = self._root
        for word in words:
            if word == ">":
                break
            path.append((branch, word))
            found = branch.below.get(word)
            if found is None:
                return False
            branch = found
        held = branch.rest if words[-1] == ">" else branch.here
        times = held.get(value, 0)
        if not times:
            return False
        if times > 1:
            held[value] = times - 1
        else:
            del held[value]
        self._count -= 1
        for parent, word in reversed(path):
            child = parent.below[word]
            if child.below or child.here or child.rest:
                break
            del parent.below[word]
        return True

    def match(self, subject: str) -> list[_V]:
        """Return the values of all patterns that fit a subject, each once."""
        words = subject.split(".")
        found: dict[_V, None] = {}
        # At most one branch for each word and one for ``*``; both ways at each word, the table is what bounds them.
        open_: list[_Branch[_V]] = [self._root]
        for place, word in enumerate(words):
            hidden = place == 0 and word[:1] == "$"
            onward: list[_Branch[_V]] = []
            for branch in open_:
                if not hidden:
                    found.update(dict.fromkeys(branch.rest))
                    if (any_ := branch.below.get("*")) is not None:
                        onward.append(any_)
                if (exact := branch.below.get(word)) is not None:
                    onward.append(exact)
            if not onward:
                return list(found)
            open_ = onward
        for branch in open_:
            found.update(dict.fromkeys(branch.here))
        return list(found)
