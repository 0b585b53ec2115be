"""The table of requirements and the tests know each other, both ways."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.requirements import REQUIREMENTS

TESTS = Path(__file__).resolve().parent
#: Numbered parts of the issue that asked for this release; each is named by at least one requirement.
PARTS = [f"2.{part}" for part in range(1, 12)] + ["bad input", "done when", "JSON shapes"]


def defined() -> dict[str, set[str]]:
    """Return the test functions of every test file."""
    return {
        str(path.relative_to(TESTS)): {
            node.name
            for node in ast.walk(ast.parse(path.read_text("utf-8")))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        }
        for path in TESTS.rglob("test_*.py")
    }


def test_every_named_test_exists() -> None:
    known = defined()
    missing = [
        f"{name}: {test}"
        for name, requirement in REQUIREMENTS.items()
        for test in requirement.tests
        if test.partition("::")[2] not in known.get(test.partition("::")[0], set())
    ]
    assert missing == []


def test_every_requirement_is_held_by_a_test() -> None:
    assert [name for name, requirement in REQUIREMENTS.items() if not requirement.tests] == []


def test_every_test_file_holds_some_requirement() -> None:
    named = {test.partition("::")[0] for requirement in REQUIREMENTS.values() for test in requirement.tests}
    assert sorted(set(defined()) - named) == []


def test_every_part_of_the_issue_is_named() -> None:
    sources = " · ".join(requirement.source for requirement in REQUIREMENTS.values())
    assert [part for part in PARTS if not re.search(rf"{re.escape(part)}(?![0-9])", sources)] == []


def test_every_founding_document_is_named() -> None:
    sources = " ".join(requirement.source for requirement in REQUIREMENTS.values())
    assert [f"RQ{n}" for n in range(5) if f"RQ{n}" not in sources] == []
