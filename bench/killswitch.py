"""Ten real nodes in two processes over TLS on loopback: how long until a stop holds at the last, and how much gets through later.

The stop is handed to a node chosen by turn; "last node" is the time from there until the tenth node refuses. Then each node is
asked to call, register and withdraw; what is not refused got through.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from agentmesh.identity.keys import KeyPair
from agentmesh.identity.order import Body, Resume, Stop, sign_order
from bench.pair import quantile
from tests.support.fleet import Fleet, fleet

NODES, ROUNDS, WRITES = 10, 20, 60
_OPERATOR = KeyPair.generate(b"O" * 32)


def _order(body: Body) -> str:
    now_ns = time.time_ns()
    return sign_order(_OPERATOR, body, seq=now_ns // 1_000_000, iat=now_ns // 10**9, jti=f"order-{now_ns}")


def _all(nodes: Fleet, stopped: bool) -> None:
    nodes.until(lambda facts: all(one["read_only"] is stopped for one in facts), "every node to have heard", 20.0)


def run() -> list[dict[str, Any]]:
    """Stop and release ten nodes again and again, then try to write everywhere."""
    last_ms: list[float] = []
    with (
        tempfile.TemporaryDirectory() as root,
        fleet(Path(root), 2, NODES // 2, "--operators", _OPERATOR.did) as nodes,
    ):
        nodes.until(lambda facts: all(one["known"] >= NODES - 1 for one in facts), "all to meet")
        nodes.ask("n1", "register", agent="echo")
        nodes.until(lambda facts: all(one["healthy"] == 1 for one in facts), "all to know the agent")
        for number in range(ROUNDS):
            begun = nodes.ask(f"n{number % NODES}", "order", order=_order(Stop("bench")))
            _all(nodes, True)
            last_ms.append(1000 * (max(one["stopped_at"] for one in nodes.facts()) - begun))
            if number < ROUNDS - 1:
                nodes.ask(f"n{(number + 3) % NODES}", "order", order=_order(Resume()))
                _all(nodes, False)
        refused = sum(nodes.ask(f"n{i}", "write", to="echo", count=WRITES) for i in range(NODES))
    return [
        {"what": "10 nodes: last node stopped, p50", "value": quantile(last_ms, 0.5), "unit": "ms"},
        {"what": "10 nodes: last node stopped, slowest of 20", "value": max(last_ms), "unit": "ms", "goal": "≤ 2,000"},
        {"what": "later writes refused", "value": 100 * refused / (NODES * WRITES), "unit": "%", "goal": "100"},
    ]
