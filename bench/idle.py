"""What a daemon costs while nothing happens: resident memory and CPU, from /proc, after a minute.

Three nodes run side by side: one as installed, one with every transport on, and one that has a peer over iroh and three
agents to check on. mDNS is on in the first two, as it is by default.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.rivals import process
from tests.support.daemons import Daemon, Mesh, connected, sees_agent, wait_until

SETTLE_S = 60.0
WATCH_S = 60.0
TICKS = os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> dict[str, float]:
    """Return resident (Rss), proportional (Pss) and private memory of a process in MB (10^6 bytes)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text("ascii")
    kb = {name: int(value) for name, value in re.findall(r"^(\w+):\s+(\d+) kB", text, re.MULTILINE)}
    private = kb["Private_Clean"] + kb["Private_Dirty"]
    return {"rss": kb["Rss"] * 1.024e-3, "pss": kb["Pss"] * 1.024e-3, "private": private * 1.024e-3}


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def run() -> list[dict[str, Any]]:
    """Measure; two minutes."""
    with tempfile.TemporaryDirectory() as temp, contextlib.ExitStack() as stack:
        mesh = Mesh(Path(temp))
        stack.callback(mesh.aclose)
        busy, peer = mesh.pair()
        for name in ("one", "two", "three"):
            port = stack.enter_context(process([sys.executable, "-m", "bench.agent"]))
            busy.post("/api/v1/agents", {"url": f"http://127.0.0.1:{port}", "door": "http", "name": name})
            wait_until(lambda name=name: sees_agent(peer, name), f"the peer to see {name}")
        assert connected(busy, peer)
        nodes: dict[str, Daemon] = {
            "as installed, no agents": mesh.node("installed", mdns=True, listen="0.0.0.0:0"),
            "iroh, tls and ws on, no agents": mesh.node(
                "transports",
                mdns=True,
                transports=("iroh", "tls", "ws"),
                listen="0.0.0.0:0",
                listen_tls="0.0.0.0:0",
                listen_ws="0.0.0.0:0",
            ),
            "one peer over iroh, three agents": busy,
        }
        time.sleep(SETTLE_S)
        before = {name: cpu_s(node.pid) for name, node in nodes.items()}
        memory = {name: memory_mb(node.pid) for name, node in nodes.items()}
        begin = time.monotonic()
        time.sleep(WATCH_S)
        passed = time.monotonic() - begin
        used = {name: (cpu_s(node.pid) - before[name]) / passed * 100 for name, node in nodes.items()}
    rows: list[dict[str, Any]] = []
    for name in nodes:
        rows.append(
            {"what": f"RSS after 60 s: {name}", "value": round(memory[name]["rss"], 1), "unit": "MB", "goal": "≤ 50"}
        )
        rows.append({"what": f"of it private: {name}", "value": round(memory[name]["private"], 1), "unit": "MB"})
        rows.append(
            {"what": f"CPU over the next 60 s: {name}", "value": round(used[name], 2), "unit": "%", "goal": "≤ 1"}
        )
    return rows
