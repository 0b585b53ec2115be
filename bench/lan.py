"""Two fresh nodes on one LAN segment: from starting the second one to seeing the first one's agent there.

Two network namespaces joined by a veth pair, mDNS on, every setting at its default. Needs root and iproute2.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from tests.support.lan import lan, why_not

ROUNDS = 5


def run() -> list[dict[str, Any]]:
    """Measure; about half a minute. Without namespaces the one row says why there is no figure."""
    what = "second node started → first node's agent seen there"
    if reason := why_not():
        return [{"what": f"{what}: not measured, {reason}", "value": None, "unit": "s", "goal": "≤ 3"}]
    seconds: list[float] = []
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory() as temp, lan(Path(temp)) as (anna, ben):
            anna.start_daemon("anna")
            anna.start_agent("agentmesh.sdk.toys.echo")
            anna.seconds_until_it_sees("echo")
            ben.start_daemon("ben")
            seconds.append(ben.seconds_until_it_sees("echo"))
    seconds.sort()
    return [
        {"what": f"{what}, median of {ROUNDS}", "value": round(seconds[ROUNDS // 2], 2), "unit": "s", "goal": "≤ 3"},
        {"what": f"{what}, slowest of {ROUNDS}", "value": round(seconds[-1], 2), "unit": "s", "goal": "≤ 3"},
    ]
