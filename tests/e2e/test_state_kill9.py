"""Three real nodes share state; one is killed with SIGKILL while it is written to: what was acknowledged at QUORUM is there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.daemons import Daemon, Mesh, connected, wait_until

pytestmark = pytest.mark.e2e


def _set(daemon: Daemon, key: str, value: int, level: str) -> bool:
    status, _ = daemon.ask("POST", f"/api/v1/state/team/{key}", {"op": "set", "value": value, "level": level})
    return status == 200


def _value(daemon: Daemon, key: str, level: str) -> object:
    status, body = daemon.ask("GET", f"/api/v1/state/team/{key}?level={level}")
    return body["value"] if status == 200 else None


def test_what_was_acknowledged_by_two_of_three_outlives_a_killed_node(tmp_path: Path):
    mesh = Mesh(tmp_path)
    try:
        a = mesh.node("a")
        b = mesh.node("b", seeds=(a.seed(),))
        c = mesh.node("c", seeds=(a.seed(), b.seed()))
        for one, other in ((a, b), (a, c), (b, c)):
            wait_until(lambda one=one, other=other: connected(one, other), "the nodes to be connected")
        wait_until(lambda: _set(a, "first", 0, "quorum"), "the space to have three holders")
        acknowledged = [number for number in range(40) if _set(a, f"k{number}", number, "quorum")]
        assert len(acknowledged) >= 30
        local = _set(a, "mine", 7, "local")
        a.kill()
        assert local
        wait_until(lambda: _set(b, "after", 1, "quorum"), "two of three holders to go on")
        for number in acknowledged:
            assert _value(c, f"k{number}", "quorum") == number
        a.open()
        wait_until(lambda: _value(a, "mine", "local") == 7, "the killed node to have its own write again")
        wait_until(lambda: _value(a, "after", "local") == 1, "the killed node to catch up")
        wait_until(lambda: _value(c, "mine", "local") == 7, "what it alone had to spread")
    finally:
        mesh.aclose()
