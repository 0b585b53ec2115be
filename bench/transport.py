"""Figures of the transports: bulk and small echo through the multiplexer, two processes, loopback.

``run()`` starts this file as the other process (the echoing side). The rival of the bulk figure is the same transfer
without the memmove shim, in processes of its own.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from agentmesh.errors import Closed
from agentmesh.ids import NodeId

_SEEDS = {"serve": b"\1" * 32, "dial": b"\2" * 32}
_BULK_BYTES = 128 * 1024 * 1024
_RIVAL_BULK_BYTES = 4 * 1024 * 1024
_MESSAGE_BYTES = 1024 * 1024
_WARM_UP = 200
_ECHOES = 2000
_ECHO_BYTES = 100


def _transport(scheme: str, role: str) -> Any:
    from agentmesh.identity.keys import KeyPair

    key = KeyPair.generate(_SEEDS[role])
    if scheme == "iroh":
        from agentmesh.net.iroh import IrohTransport

        return IrohTransport(key, "127.0.0.1:0")
    if scheme == "tls":
        from agentmesh.net.tls import TlsTransport

        return TlsTransport(key, "127.0.0.1:0")
    from agentmesh.net.ws import WsTransport

    return WsTransport(key, "127.0.0.1:0", proxy=None)


def _without_shim() -> None:
    from agentmesh.net import iroh_shim

    iroh_shim.install = lambda module: iroh_shim.ShimReport("skipped", "switched off for the benchmark")


async def _serve(scheme: str) -> None:
    """Print the address, take one link, and on each stream do what its first message says."""
    transport = _transport(scheme, "serve")
    await transport.open()
    print(transport.addresses[0], flush=True)
    link = await transport.accept()
    while True:
        try:
            stream = await link.accept_stream()
        except Closed:
            return  # The dialling process is done.
        if await stream.recv() == b"echo":
            while (message := await stream.recv()) is not None:
                await stream.send(message)
        else:
            while await stream.recv() is not None:
                pass
        await stream.send(b"done")
        await stream.finish()


async def _bulk(link: Any, total: int) -> float:
    """Return MB/s (10⁶) of ``total`` bytes in 1 MiB messages, until the receiver has consumed the last."""
    stream = await link.open_stream()
    message = os.urandom(_MESSAGE_BYTES)
    begin = time.perf_counter()
    await stream.send(b"sink")
    for _ in range(total // _MESSAGE_BYTES):
        await stream.send(message)
    await stream.finish()
    assert await stream.recv() == b"done"
    return total / (time.perf_counter() - begin) / 1e6


async def _echo(link: Any) -> tuple[float, float, float]:
    """Return p50 and p99 of one small echo in ms, and this process's CPU per echo in µs."""
    stream = await link.open_stream()
    await stream.send(b"echo")
    message = bytes(_ECHO_BYTES)
    times: list[float] = []
    cpu = 0.0
    for turn in range(_WARM_UP + _ECHOES):
        if turn == _WARM_UP:
            cpu = time.process_time()
        begin = time.perf_counter()
        await stream.send(message)
        assert await stream.recv() == message
        times.append(time.perf_counter() - begin)
    cpu = (time.process_time() - cpu) / _ECHOES
    times = sorted(times[_WARM_UP:])
    await stream.finish()
    assert await stream.recv() == b"done"
    return times[len(times) // 2] * 1e3, times[int(len(times) * 0.99)] * 1e3, cpu * 1e6


async def _dial(scheme: str, address: str, what: str, total: int) -> Any:
    from agentmesh.identity.keys import KeyPair

    transport = _transport(scheme, "dial")
    await transport.open()
    peer = NodeId(KeyPair.generate(_SEEDS["serve"]).did)
    link = await transport.dial(peer, address)
    try:
        return await (_bulk(link, total) if what == "bulk" else _echo(link))
    finally:
        await transport.aclose()


def _run_loop(coroutine: Any) -> Any:
    try:
        import uvloop
    except ImportError:
        return asyncio.run(coroutine)
    return uvloop.run(coroutine)


def _measure(scheme: str, what: str, *, total: int = 0, shim: bool = True) -> Any:
    """Measure between two fresh processes and return what ``_bulk`` or ``_echo`` returned."""
    extra = [] if shim else ["noshim"]
    command = [sys.executable, str(Path(__file__).resolve())]
    server = subprocess.Popen([*command, "serve", scheme, *extra], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        client = subprocess.run(
            [*command, "dial", scheme, address, what, str(total), *extra],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
            timeout=120,
        )
        return json.loads(client.stdout)
    finally:
        server.kill()
        server.wait()


def run() -> list[dict[str, Any]]:
    """Return the rows of this benchmark: what, value, unit, goal, rival, rival_value, ratio."""
    fast = max(_measure("iroh", "bulk", total=_BULK_BYTES) for _ in range(3))
    slow = _measure("iroh", "bulk", total=_RIVAL_BULK_BYTES, shim=False)
    rows = [_row("node-to-node bulk over iroh, 1 MiB messages", fast, "MB/s", 150, "without the memmove shim", slow)]
    rows += [
        _row(f"node-to-node bulk over {scheme}", _measure(scheme, "bulk", total=_BULK_BYTES), "MB/s")
        for scheme in ("tls", "ws")
    ]
    for scheme in ("iroh", "tls", "ws"):
        p50, p99, cpu = _measure(scheme, "echo")
        rows.append(_row(f"echo of {_ECHO_BYTES} B over {scheme}, p50", p50, "ms"))
        rows.append(_row(f"echo of {_ECHO_BYTES} B over {scheme}, p99", p99, "ms"))
        rows.append(_row(f"echo of {_ECHO_BYTES} B over {scheme}, client CPU", cpu, "µs"))
    return rows


def _row(
    what: str,
    value: float,
    unit: str,
    goal: float | None = None,
    rival: str | None = None,
    rival_value: float | None = None,
) -> dict[str, Any]:
    return {
        "what": what,
        "value": round(value, 3),
        "unit": unit,
        "goal": goal,
        "rival": rival,
        "rival_value": None if rival_value is None else round(rival_value, 3),
        "ratio": None if not rival_value else round(value / rival_value, 1),
    }


def _main(arguments: list[str]) -> None:
    if "noshim" in arguments:
        _without_shim()
    if arguments[0] == "serve":
        _run_loop(_serve(arguments[1]))
    else:
        _, scheme, address, what, total = arguments[:5]
        print(json.dumps(_run_loop(_dial(scheme, address, what, int(total)))))


if __name__ == "__main__":
    _main(sys.argv[1:])
