"""The wall between the rooms: imports go down only (ARCHITECTURE.md, design §3).

Every file under ``src`` is parsed, nothing is imported. Imports under ``TYPE_CHECKING`` and inside functions count too:
a type is a dependency like any other.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "agentmesh"

FLOORS = {
    "errors": 0,
    "ids": 0,
    "codec": 1,
    "identity": 1,
    "core": 2,
    "wire": 3,
    "net": 4,
    "store": 4,
    "obs": 4,
    "sim": 4,
    "embed": 4,
    "engines": 4,
    "node": 5,
    "sdk": 5,
    "api": 6,
    "adapters": 6,
    "daemon": 7,
    "cli": 8,
}
#: One-way streets within a floor (adr/0004): an id that is none raises an error, a signature covers canonical bytes;
#: an engine (adr/0009) keeps its file and its tasks as everybody does.
STEPS = {("ids", "errors"), ("identity", "codec"), ("engines", "store"), ("engines", "net")}
#: What would bring a clock, a socket or global randomness into code that must replay exactly.
IMPURE = {"asyncio", "socket", "ssl", "sqlite3", "time", "datetime", "secrets", "uuid"}
PURE_ROOMS = {room for room, floor in FLOORS.items() if floor <= 3} | {"sim"}
#: Of the top package only these may be imported from inside: plain facts, no re-exported rooms.
TOP_NAMES = {"__version__"}


def imported(tree: ast.AST, module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield (line, dotted name) of everything a module imports; ``from a import b`` yields ``a.b``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                parts = parts if is_package else parts[:-1]
                parts = parts[: len(parts) - (node.level - 1)]
                base = ".".join([*parts, base] if base else parts)
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}"


def _used_of_top(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield what is read from the package itself after ``import agentmesh``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "agentmesh":
            yield node.lineno, f"agentmesh.{node.attr}"


def breaches(source: str, module: str, is_package: bool = False) -> list[str]:
    """Return what a module's imports break, as ``line: why``."""
    if module == "agentmesh":
        return []  # the public names, each loaded from its room on first use
    path = module.split(".")
    room = path[1]
    found: list[str] = []
    if room not in FLOORS:
        return [f"1: room {room!r} stands on no floor; add it to ARCHITECTURE.md and to this table"]
    tree = ast.parse(source)
    for line, name in [*imported(tree, module, is_package), *_used_of_top(tree)]:
        target = name.split(".")
        if target[0] in IMPURE and room in PURE_ROOMS:
            found.append(f"{line}: {room} imports {target[0]}; floors 0 to 3 and sim take time and chance as arguments")
        if target[0] != "agentmesh" or len(target) == 1:
            continue
        if target[1] not in FLOORS:
            if target[1] not in TOP_NAMES:
                found.append(f"{line}: {room} imports {name}; inside, import from the room itself")
            continue
        other = target[1]
        if other == room:
            if room == "core" and (why := _core_breach(path, target)):
                found.append(f"{line}: {why}")
            continue
        if FLOORS[other] > FLOORS[room]:
            found.append(f"{line}: {room} (floor {FLOORS[room]}) imports {other} (floor {FLOORS[other]}) above it")
        elif FLOORS[other] == FLOORS[room] and (room, other) not in STEPS:
            found.append(f"{line}: {room} and {other} are on one floor and may not know each other")
    return found


def _core_breach(path: list[str], target: list[str]) -> str:
    """Say why one core module may not import another, or "" if it may."""
    if path == ["agentmesh", "core", "brain"]:
        return ""
    mine = path[2] if len(path) > 2 and (SRC / "core" / path[2]).is_dir() else ""
    theirs = target[2] if len(target) > 2 else ""
    if theirs == "brain":
        return "only what is above core may import the brain"
    if (SRC / "core" / theirs).is_dir() and theirs != mine:
        return f"machine {mine or path[-1]!r} imports machine {theirs!r}; only core/brain.py composes machines"
    return ""


def modules() -> list[Path]:
    return sorted(SRC.rglob("*.py"))


def name_of(path: Path) -> tuple[str, bool]:
    parts = ("agentmesh", *path.relative_to(SRC).with_suffix("").parts)
    if parts[-1] == "__init__":
        return ".".join(parts[:-1]), True
    return ".".join(parts), False


def test_imports_go_down_only_in_every_source_file() -> None:
    found: list[str] = []
    for path in modules():
        module, is_package = name_of(path)
        found += [f"{path.relative_to(ROOT)}:{why}" for why in breaches(path.read_text("utf-8"), module, is_package)]
    assert not found, "\n".join(found)


def test_the_walk_sees_the_whole_tree() -> None:
    rooms = {name_of(path)[0].split(".")[1] for path in modules() if path.parent != SRC or path.stem in FLOORS}
    assert {"errors", "ids", "wire", "core", "net", "store", "node", "api", "adapters", "daemon", "cli"} <= rooms


@pytest.mark.parametrize(
    ("module", "source", "word"),
    [
        ("agentmesh.wire.v1", "from agentmesh.node.door import Door", "above"),
        ("agentmesh.wire.v1", "from ..node import door", "above"),
        ("agentmesh.store.log", "import agentmesh.obs.metrics", "one floor"),
        ("agentmesh.codec.frame", "from agentmesh.identity import keys", "one floor"),
        ("agentmesh.errors", "from agentmesh.ids import NodeId", "one floor"),
        ("agentmesh.sdk.client", "def f():\n    from agentmesh.node import node", "one floor"),
        ("agentmesh.adapters.a2a", "from agentmesh.api import app", "one floor"),
        ("agentmesh.core.brain", "import asyncio", "arguments"),
        ("agentmesh.identity.keys", "from datetime import datetime", "arguments"),
        ("agentmesh.codec.frame", "def f():\n    import time", "arguments"),
        ("agentmesh.sim.clock", "import uuid", "arguments"),
        ("agentmesh.core.directory.machine", "from agentmesh.core.overlay import machine", "brain"),
        ("agentmesh.core.directory.machine", "from agentmesh.core import brain", "brain"),
        ("agentmesh.core.messages", "from agentmesh.core.directory.machine import X", "brain"),
        ("agentmesh.node.node", "from agentmesh import Mesh", "room itself"),
        ("agentmesh.node.node", "import agentmesh\nagentmesh.Mesh()", "room itself"),
        ("agentmesh.helpers.x", "", "no floor"),
    ],
)
def test_a_breach_is_found(module: str, source: str, word: str) -> None:
    found = breaches(source, module)
    assert len(found) == 1
    assert word in found[0]


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("agentmesh.node.node", "import asyncio\nfrom agentmesh.net.base import Link\nfrom agentmesh.node import door"),
        (
            "agentmesh.core.brain",
            "from agentmesh.core.directory.machine import X\nfrom agentmesh.core.exchange import y",
        ),
        ("agentmesh.core.directory.machine", "from agentmesh.core.machine import Outbox\nfrom . import messages"),
        ("agentmesh.cli.main", "from agentmesh import __version__"),
        ("agentmesh.daemon.app", "import agentmesh\nprint(agentmesh.__version__)"),
    ],
)
def test_a_lawful_import_passes(module: str, source: str) -> None:
    assert breaches(source, module) == []
