"""How late the event loop comes to what is due: the one figure that shows that something blocks it."""

from __future__ import annotations

import asyncio

from agentmesh.obs.meters import Histogram

#: How often it is looked at, seconds. More often would cost an idle daemon more than it tells.
EVERY_S = 1.0


async def watch_loop(lags: Histogram, every_s: float = EVERY_S) -> None:
    """Note the lag of the running loop again and again, by its own clock. Runs until cancelled."""
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + every_s
        await asyncio.sleep(every_s)
        lags.observe(loop.time() - due_s)
