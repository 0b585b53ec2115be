"""Every command that the console shows, offers to copy or writes together is one of the command line, with its options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from agentmesh.cli.tree import agentmesh_tree

CONSOLE = Path(__file__).resolve().parents[2] / "console" / "src"

pytestmark = pytest.mark.skipif(not CONSOLE.is_dir(), reason="the console's source is not here (an unpacked wheel)")

#: From the program's name to the end of the text or of the markup's attribute.
SHOWN = re.compile(r"(?<!/)\bagentmesh ([a-z][^'\"`<\n]*)")
#: ``option('tag', …)`` and the flags of the filters, with the command that they are for.
MADE = {
    "pages/discover/asked.ts": ("discover", re.compile(r"flag: '([a-z-]+)'")),
    "pages/topology/command.ts": ("topology", re.compile(r"option\('([a-z]+)'")),
    "pages/discover/call.ts": ("run", re.compile(r"option\('([a-z-]+)'")),
}


@cache
def tree() -> Any:
    return agentmesh_tree()


def shown() -> Iterator[tuple[str, list[str]]]:
    for path in sorted(CONSOLE.rglob("*")):
        if path.suffix in (".ts", ".svelte") and not path.name.endswith((".test.ts", ".d.ts")):
            for found in SHOWN.finditer(path.read_text("utf-8")):
                yield str(path.relative_to(CONSOLE)), found[1].split()


def options_of(command: Any) -> set[str]:
    return {name for parameter in command.params for name in parameter.opts}


def test_every_command_of_the_console_is_one_of_the_command_line() -> None:
    lines = list(shown())
    assert len(lines) > 20, "the pattern finds the commands no more"
    for where, words in lines:
        command, rest = tree().get_command(None, words[0]), words[1:]
        assert command is not None, f"{where}: agentmesh {' '.join(words)}"
        below = rest[0] if rest and re.fullmatch(r"[a-z][a-z-]*", rest[0]) else ""
        if below and hasattr(command, "get_command"):
            command = command.get_command(None, below)
            assert command is not None, f"{where}: agentmesh {' '.join(words)}"
        for word in rest:
            if re.fullmatch(r"--?[a-z][a-z-]*", word):
                assert word in options_of(command), f"{where}: agentmesh {' '.join(words)}"


@pytest.mark.parametrize("file", sorted(MADE))
def test_every_option_that_the_console_writes_is_one_of_its_command(file: str) -> None:
    verb, pattern = MADE[file]
    flags = set(pattern.findall((CONSOLE / file).read_text("utf-8")))
    assert len(flags) > 2, "the pattern finds the options no more"
    assert {f"--{flag}" for flag in flags} <= options_of(tree().get_command(None, verb))
