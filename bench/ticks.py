"""The console's live stream under 100 tasks with 1,000 events/s: what 12 clients cost a daemon, and how soon they hear."""

from __future__ import annotations

import http.client
import json
import os
import selectors
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.support.daemons import Daemon, Mesh

EVENTS_PER_S = 1_000
TASKS = 100
BATCH = 20
SECONDS = 20.0
CLIENTS = 12
_TICK_S = 1 / os.sysconf("SC_CLK_TCK")


def run() -> list[dict[str, Any]]:
    """Measure one real daemon, first without and then with clients."""
    with tempfile.TemporaryDirectory() as root:
        mesh = Mesh(Path(root))
        try:
            daemon = mesh.node("console")
            _load(daemon, 3.0, [])  # the writer, the index and the parser are warm
            alone = _load(daemon, SECONDS, [])
            before = _rss_bytes(daemon.pid)
            streams = [_Stream(daemon) for _ in range(CLIENTS)]
            heard = _load(daemon, SECONDS, streams)
            grown = _rss_bytes(daemon.pid) - before
            for one in streams:
                one.socket.close()
        finally:
            mesh.aclose()
    delays = sorted(delay for one in streams for delay in one.delays_ms)
    extra = heard["cpu"] - alone["cpu"]
    return [
        _row("processor time of a daemon taking 1,000 events/s, nobody looking", alone["cpu"] * 100, "% of a core"),
        _row(f"more with {CLIENTS} clients on the console's stream", extra * 100, "% of a core", "≤ 10"),
        _row("frames per second and client", sum(one.frames for one in streams) / CLIENTS / SECONDS, "1/s", "≤ 10"),
        _row("event stored → frame at the client, median", statistics.median(delays), "ms"),
        _row("event stored → frame at the client, p95", delays[int(len(delays) * 0.95)], "ms", "≤ 200"),
        _row("memory grown over the run with clients", grown / 2**20, "MiB", "≤ 10"),
        _row("events missing at the end", sum(one.last != heard["seq"] for one in streams), "clients", "0"),
    ]


def _row(what: str, value: float, unit: str, goal: str = "") -> dict[str, Any]:
    return {"what": what, "value": value, "unit": unit, "goal": goal or None}


class _Stream:
    """One client of the stream that takes frames as they come."""

    def __init__(self, daemon: Daemon) -> None:
        self.socket = socket.create_connection(("127.0.0.1", daemon.port))
        self.socket.sendall(
            f"GET /api/v1/console/stream HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {daemon.token}\r\n\r\n".encode()
        )
        self.frames = self.last = 0
        self.delays_ms: list[float] = []
        self._text = b""

    def take(self, stored: list[tuple[int, float]]) -> None:
        """Read what is there; ``stored`` are positions with the time at which they were known to be on disk."""
        self._text += self.socket.recv(2**16)
        *frames, self._text = self._text.split(b"\n\n")
        now = time.monotonic()
        for frame in frames:
            data = frame.partition(b"data: ")[2]
            if not data:
                continue
            seq = json.loads(data)["seq"]
            # The oldest event that this frame is the first to tell of waited longest.
            waited = next((at for one, at in stored if self.last < one <= seq), None)
            if waited is not None:
                self.delays_ms.append(max(0.0, now - waited) * 1000)
            self.last, self.frames = seq, self.frames + 1


def _load(daemon: Daemon, seconds: float, streams: list[_Stream]) -> dict[str, float]:
    """Store events at the rate for so long; return the share of a core that the daemon took, and the last position."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=30)
    headers = {"Authorization": f"Bearer {daemon.token}", "Content-Type": "application/json"}
    selector = selectors.DefaultSelector()
    for one in streams:
        selector.register(one.socket, selectors.EVENT_READ, one)
    stored: list[tuple[int, float]] = []
    begun, cpu, sent, seq = time.monotonic(), _cpu_s(daemon.pid), 0, 0
    settled = 0.0
    while True:
        now = time.monotonic()
        if now - begun < seconds:
            due = int((now - begun) * EVENTS_PER_S)
            if due - sent >= BATCH:
                connection.request("POST", "/api/v1/events", _batch(sent), headers)
                seq = json.loads(connection.getresponse().read())["last_seq"]
                stored = [*stored[-200:], (seq, time.monotonic())]
                sent += BATCH
        elif not settled:
            settled = _cpu_s(daemon.pid) - cpu
        elif all(one.last >= seq for one in streams) or now - begun > seconds + 10:
            break
        for key, _ in selector.select(0.002):
            key.data.take(stored)
    connection.close()
    selector.close()
    return {"cpu": settled / seconds, "seq": seq}


def _batch(first: int) -> bytes:
    now = int(time.time() * 1e6)
    return json.dumps(
        {
            "events": [
                {
                    "id": os.urandom(16).hex(),
                    "ts": now,
                    "kind": "message",
                    "run_id": f"{n % TASKS:032x}",
                    "task_id": f"{n % TASKS:032x}",
                    "node_id": "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK",
                    "agent": "echo",
                    "lamport": n,
                    "payload": {"role": "agent", "parts": [{"text": "all work and no play " * 5}]},
                }
                for n in range(first, first + BATCH)
            ]
        }
    ).encode()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def _rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
