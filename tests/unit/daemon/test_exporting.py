"""Whether spans are exported is a matter of the settings; that they cannot be is a warning, never a node that does not start."""

from __future__ import annotations

import contextlib
import importlib.util
from pathlib import Path

import pytest

from agentmesh.daemon.exporting import open_spans
from agentmesh.daemon.settings import load

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


async def opened(home: Path, **given: object) -> tuple[bool, str]:
    """Return whether spans go somewhere, and the warning."""
    settings = load({"home": home, **given}, {}).settings
    async with contextlib.AsyncExitStack() as stack:
        kit, warning = open_spans(settings, "did:key:z6Mk", stack)
    return kit is not None, warning


async def test_nothing_is_exported_unless_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ENDPOINT, raising=False)
    assert await opened(tmp_path) == (False, "")
    assert await opened(tmp_path, otel_endpoint="http://127.0.0.1:1") == (True, "")
    monkeypatch.setenv(ENDPOINT, "http://127.0.0.1:1")
    assert await opened(tmp_path) == (True, "")
    assert await opened(tmp_path, otel_endpoint="off") == (False, "")


async def test_without_the_libraries_the_node_starts_and_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    exported, warning = await opened(tmp_path, otel_endpoint="http://127.0.0.1:1")
    assert not exported
    assert "otel.missing" in warning
    assert "pip install 'agentmeshd[otel]'" in warning
