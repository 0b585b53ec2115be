"""A link outlives the calls it carries: nothing is used up by calls that have ended."""

from __future__ import annotations

import asyncio
import sys

import aiohttp
import pytest

from bench.rivals import process
from tests.support.daemons import Daemon, sees_agent, wait_until

#: More than a link allows at once (net.mux_stream.Limits.streams_max).
CALLS = 1100


@pytest.mark.e2e
async def test_a_link_carries_more_calls_than_it_has_streams(two_nodes: tuple[Daemon, Daemon]) -> None:
    a, b = two_nodes
    with process([sys.executable, "-m", "bench.agent"]) as port:
        b.post("/api/v1/agents", {"url": f"http://127.0.0.1:{port}", "door": "http", "name": "echo"})
        wait_until(lambda: sees_agent(a, "echo"), "node a to see the agent")
        left = iter(range(CALLS))
        headers = {"Authorization": f"Bearer {a.token}"}
        async with aiohttp.ClientSession(headers=headers) as session:

            async def caller() -> None:
                for _ in left:
                    async with session.post(f"{a.url}/api/v1/calls", json={"to": "echo", "text": "x"}) as answer:
                        assert answer.status == 200, await answer.text()

            await asyncio.gather(*(caller() for _ in range(32)))
        assert a.get("/api/v1/peers")["peers"][0]["connected"]
