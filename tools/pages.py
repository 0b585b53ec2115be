"""Write docs/reference/errors.md from the error table and the source: ``make docs``; ``--check`` only says if it is fresh."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path
from typing import NamedTuple

from agentmesh import errors
from agentmesh.errors import ERROR_TABLE, MeshError

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "agentmesh"
PAGE = ROOT / "docs" / "reference" / "errors.md"
CLASSES = {name: cls for name, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, MeshError)}

HEAD = """\
# Errors

Written by `make docs` from `src/agentmesh/errors.py` and the places that raise; do not edit.

Every error has a `code` that does not change between versions, a text that may, often a `why`, and a next step. Three
families tell whose move it is: `CallerError` (yours), `PeerError` (the other side broke the protocol), `Refused` (a lawful
no). `Unreached` says that no answer came; `AgentFailed` carries the called agent's own text.

The command line prints three lines on stderr and ends with the exit code below; with `--json` it prints
`{"error": {"code", "message", "why", "hint"}}` there. The HTTP API answers with the status below and an
`application/problem+json` body (RFC 9457) that has the same members. Between nodes the error travels under its wire name.

## Kinds

| error | code | HTTP | exit | wire name | meaning |
|---|---|---|---|---|---|
"""

EXITS = """
## Exit codes

| code | meaning |
|---|---|
| 0 | done |
| 1 | a fault of ours: a bug, a broken store, bytes that make no sense |
| 2 | wrong usage, configuration or moment |
| 3 | not trusted or not authorised |
| 4 | the daemon or a peer cannot be reached |
| 5 | the called agent failed or was canceled |
| 6 | not found |
| 7 | timeout |
| 8 | refused: budget, rate, loop or kill switch |
| 9 | waiting for a person |
| 130 | interrupted with Ctrl-C |

## Codes

A code that is not in the table above is a special case of one of its kinds, and has that kind's status and exit code.

| code | kind | says |
|---|---|---|
"""


class Raised(NamedTuple):
    """One special code and where its text comes from."""

    code: str
    kind: str
    says: str


def skeleton(node: ast.expr | None) -> str:
    """Return a message with its variable parts as ``…``."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return skeleton(node.left) + skeleton(node.right)
    if isinstance(node, ast.IfExp):
        return skeleton(node.body)
    return "…"


def raised() -> list[Raised]:
    """Return every special code in the source, once each, by code."""
    found: dict[str, Raised] = {}
    for path in sorted(SRC.rglob("*.py")):
        if path.name.startswith("demo"):
            continue  # What the toy agents say is theirs.
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name not in CLASSES:
                continue
            for keyword in node.keywords:
                if keyword.arg == "code" and isinstance(keyword.value, ast.Constant):
                    code = str(keyword.value.value)
                    says = skeleton(node.args[0] if node.args else None)
                    if code not in found or found[code].says == "…":
                        found[code] = Raised(code, name, says)
    own = {cls.code for cls in CLASSES.values()}
    return [found[code] for code in sorted(found) if code not in own]


def cell(text: str) -> str:
    """Make a text safe for a table cell."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")[:160]


def page() -> str:
    """Return the whole page."""
    kinds = [
        f"| `{cls.__name__}` | `{cls.code}` | {row.http} | {row.exit} | `{row.wire}` "
        f"| {cell((inspect.getdoc(cls) or '').splitlines()[0])} |"
        for cls, row in ERROR_TABLE.items()
    ]
    codes = [f"| `{one.code}` | `{one.kind}` | {cell(one.says)} |" for one in raised()]
    return HEAD + "\n".join(kinds) + "\n" + EXITS + "\n".join(codes) + "\n"


def main() -> int:
    """Write the page, or with ``--check`` compare it; exit code 1 if it is stale."""
    fresh = page()
    if "--check" in sys.argv[1:]:
        stale = not PAGE.exists() or PAGE.read_text("utf-8") != fresh
        if stale:
            print(f"{PAGE.relative_to(ROOT)} is stale; next: make docs", file=sys.stderr)
        return int(stale)
    PAGE.write_text(fresh, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
