"""Topics between two daemons, one of which is killed: what was acknowledged is there again (docs/spec/topics.md §5, §6)."""

from __future__ import annotations

import contextlib
import json
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemons import Daemon, Mesh, connected, wait_until

pytestmark = pytest.mark.e2e


def events(node: Daemon, count: int, *args: str) -> list[dict[str, Any]]:
    """Follow on the command line until so many came."""
    done = node.cli("sub", *args, "-n", str(count), "--json")
    assert done.code == 0, done
    return [json.loads(line) for line in done.out.splitlines() if line.startswith("{")]


def test_what_a_killed_keeper_acknowledged_is_replayed_and_the_last_value_known(tmp_path: Path) -> None:
    mesh = Mesh(tmp_path)
    try:
        keeper, other = mesh.pair()
        keeper.stay()
        status, view = keeper.ask("PUT", "/api/v1/topics", {"name": "jobs", "subjects": ["jobs.>"]})
        assert (status, view["engine"]) == (200, "sqlite")
        wait_until(lambda: other.get("/api/v1/topics")["topics"], "the other node to learn of the topic")
        keeper.post("/api/v1/topics/weather", {"text": "rain", "retain": True})
        kept: dict[int, int] = {}
        for number in range(20):
            view = other.post("/api/v1/topics/jobs.x", {"data": number})
            kept[view["offset"]] = number
        assert sorted(kept) == list(range(1, 21))
        [work] = events(other, 1, ">", "--durable", "jobs", "--group", "g")
        keeper.kill()
        status, problem = other.ask("POST", "/api/v1/topics/jobs.x", {"data": "lost"})
        assert status in (502, 504), problem
        keeper.open()
        wait_until(lambda: connected(other, keeper), "the nodes to meet again", 60)

        def published() -> Any:
            with contextlib.suppress(OSError, HTTPException):
                status, view = other.ask("POST", "/api/v1/topics/jobs.x", {"data": "again"})
                return status == 200 and view["offset"]
            return None

        last: int = wait_until(published, "the keeper to take more", 60)
        assert last > 20
        got = events(other, 20, ">", "--durable", "jobs", "--all")
        assert {event["offset"]: event["data"] for event in got} == kept
        # The first is done, and that was not forgotten; what its reader had besides may be out until its time is over.
        [more] = events(other, 1, ">", "--durable", "jobs", "--group", "g")
        assert work["offset"] == 1 < more["offset"] <= 18
        for node in (keeper, other):
            [value] = events(node, 1, "weather", "--last")
            assert (value["data"], value["retained"], value["source"]) == ("rain", True, keeper.node_id)
    finally:
        mesh.aclose()
