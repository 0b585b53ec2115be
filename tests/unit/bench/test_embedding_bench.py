"""The figures of what an embedder costs: all of them are there, and of the embedder that answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentmesh.embed.choose import Source
from bench.discovery import embedding


def test_an_embedder_is_measured_alone_in_bulk_and_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding, "ROUNDS", 10)
    monkeypatch.setattr(embedding, "PASSAGES", 20)
    told = embedding.measured("minilm", Source(tmp_path, environ={}))
    assert told["embedder"] == "builtin"
    assert "not installed" in told["fallback"]
    assert told["passages"] == 20
    assert 0 < told["query_ms"]["p50"] <= told["query_ms"]["p99"]
    assert told["passages_per_s"] > 0
    assert told["rss_mb"] > 0
