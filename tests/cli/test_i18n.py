"""English and Chinese say the same things: no text without its translation, no translation without its text."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentmesh.cli import i18n
from agentmesh.cli.tree import DAEMON_VERBS, VERBS
from agentmesh.errors import AgentNotFound, MeshError, NoRoute

CLI = Path(i18n.__file__).parent


def texts_in_source() -> Iterator[str]:
    """Yield every literal that the CLI passes to ``t``, also through a choice between two."""
    for path in CLI.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name == "t":
                for part in ast.walk(node.args[0]):
                    if isinstance(part, ast.Constant) and isinstance(part.value, str):
                        yield part.value


def test_every_fixed_text_has_its_chinese() -> None:
    wanted = set(texts_in_source()) | {row.help for row in (*VERBS, *DAEMON_VERBS)} | {row.panel for row in VERBS}
    assert len(wanted) > 40
    assert sorted(wanted - set(i18n.ZH)) == []


def test_translations_keep_the_placeholders() -> None:
    for english, chinese in i18n.ZH.items():
        assert sorted(re.findall(r"\{\w+\}", english)) == sorted(re.findall(r"\{\w+\}", chinese)), english
        assert any(ord(char) > 0x2E80 for char in chinese), english


@pytest.mark.parametrize(
    ("error", "start"),
    [
        (AgentNotFound.near("x", []), "没有这个智能体(no agent named 'x')"),
        (NoRoute("gone", code="unreached.no_route.special"), "无法到达(gone)"),
        (MeshError("odd", code="never.seen"), "odd"),
    ],
)
def test_chinese_errors_keep_the_words_of_whoever_failed(error: MeshError, start: str) -> None:
    i18n.use("zh")
    try:
        assert i18n.error_lines(error)[0] == start
    finally:
        i18n.use("en")
    assert i18n.error_lines(error)[0] == error.detail
