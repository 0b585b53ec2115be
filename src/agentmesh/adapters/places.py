"""How far inside a network a URL leads, and the rule for URLs that a stranger names: never further in than it is itself.

An operator may name any URL. What a document or another registry links to is a stranger's word: followed blindly, it would
let whoever wrote it reach services of this machine or its network (server-side request forgery). So a link may lead to where
its document came from, or further out: from loopback anywhere, from a private network not into this machine, from the
internet to the internet only. Link-local addresses (cloud metadata among them), multicast and reserved ones are never
followed. What is checked here once is held to at every connection by a client that is made with ``least``, since a name may
lead elsewhere later.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any
from urllib.parse import urlsplit

from agentmesh.adapters.http_pool import place_of, target_of
from agentmesh.adapters.reach import Reach, reach_of
from agentmesh.errors import NoRoute, UsageError

RESOLVE_TIMEOUT_S = 5.0


async def reach_of_url(url: str) -> Reach:
    """Resolve the host of a URL and say how far inside the innermost of its addresses is.

    Raises:
        UsageError: no http or https URL (code "agent.bad_url"). NoRoute: its host has no address (code "agent.unreachable").
    """
    _, host, port = target_of(url).origin
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(RESOLVE_TIMEOUT_S):
            found: list[Any] = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise NoRoute(
            f"nothing answers at {place_of(url)}",
            code="agent.unreachable",
            why=f"its host has no address: {error}"[:300],
        ) from error
    return min((reach_of(str(one[4][0])) for one in found), default=Reach.NEVER)


async def check_link(url: str, came_from: Reach, *, own_port: int = 0) -> Reach:
    """Return how far inside a URL leads that a stranger named.

    Args:
        url: The link.
        came_from: Where its document came from.
        own_port: Port of this node's HTTP API; a link to it would be a call that never ends.

    Raises:
        UsageError: no URL, with credentials (code "agent.bad_url"), or it leads further in than it may (code "link.inward").
        NoRoute: its host has no address.
    """
    target = target_of(url)
    if urlsplit(url).username is not None:
        raise UsageError(f"the link to {place_of(url)} holds credentials", code="agent.bad_url")
    reach = await reach_of_url(url)
    if reach is Reach.NEVER or reach < came_from:
        raise UsageError(
            f"the link to {place_of(url)} leads to {reach.words}",
            code="link.inward",
            why=f"it was found on {came_from.words}, and what is found there may not lead further in",
            hint=f"if you trust it: agentmesh register {place_of(url)}",
        )
    if reach is Reach.LOOPBACK and target.origin[2] == own_port:
        raise UsageError(f"the link to {place_of(url)} leads back to this node", code="link.own_node")
    return reach
