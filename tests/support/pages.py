"""Read the documentation as data: blocks of code with the note above them, links, headings."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent.parent
_FENCE = re.compile(
    r"(?:^<!-- (?P<note>(?:run|expect)[^>]*?) -->\n)?^```(?P<kind>[\w-]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_HEREDOC = re.compile(r"<<'?(\w+)'?.*?^\1$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """One fenced block: its language, the note above it ("" if none), its text and its line in the page."""

    kind: str
    note: str
    text: str
    line: int


def pages() -> list[Path]:
    """Return every page of documentation."""
    top = ["README.md", "README.zh-CN.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"]
    return [ROOT / name for name in top] + sorted((ROOT / "docs").rglob("*.md")) + sorted((ROOT / "adr").glob("*.md"))


def guides() -> list[Path]:
    """Return the pages whose commands people type."""
    return [p for p in pages() if p.parent == ROOT or p.parent.name in {"tutorial", "howto"}]


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page."""
    text = page.read_text("utf-8")
    return [
        Block(m["kind"], m["note"] or "", m["text"], text.count("\n", 0, m.start("text")) + 1)
        for m in _FENCE.finditer(text)
    ]


def commands(text: str) -> list[list[str]]:
    """Split a shell block into commands, each as words; heredocs, comments and assignments are left out."""
    out: list[list[str]] = []
    text = _HEREDOC.sub("", text).replace("\\\n", " ")
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        one: list[str] = []
        for word in words:
            if word in {"|", "&&", "||", ";"}:
                out.append(one)
                one = []
            else:
                one.append(word)
        out.append(one)
    return [c for c in (_command(one) for one in out) if c]


def _command(words: list[str]) -> list[str]:
    """Drop leading assignments and everything from a redirection on."""
    while words and re.fullmatch(r"\w+=.*", words[0]):
        words = words[1:]
    for at, word in enumerate(words):
        if re.match(r"\d?[<>]", word):
            return words[:at]
    return words


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text("utf-8"))


def links(page: Path) -> list[str]:
    """Return the targets of a page's links."""
    return re.findall(r"\]\(([^)\s]+)\)", prose(page))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as forges make them."""
    heads = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-") for head in heads}
