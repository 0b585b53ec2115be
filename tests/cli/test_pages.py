"""The reference pages of the command line and the settings are those of this version."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("cli_pages_tool", ROOT / "tools" / "cli_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", ["cli.md", "configuration.md"])
def test_the_page_is_fresh(name: str) -> None:
    text = (ROOT / "docs" / "reference" / name).read_text("utf-8")
    assert text == tool().PAGES[name](), "next: python tools/cli_pages.py"
