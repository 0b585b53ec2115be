"""All doors of this installation, and the search for the one that fits a URL."""

from __future__ import annotations

from agentmesh.adapters.a2a import A2AAdapter
from agentmesh.adapters.base import Adapter, Discovered
from agentmesh.adapters.http import HttpAdapter
from agentmesh.adapters.http_client import check_url
from agentmesh.adapters.mailbox import SCHEME, MailboxAdapter
from agentmesh.adapters.reach import Reach
from agentmesh.adapters.sdk import SdkAdapter
from agentmesh.errors import AgentFailed, DecodeError, LimitError


def default_adapters(least: Reach = Reach.NEVER) -> dict[str, Adapter]:
    """Return a new adapter per door, by name. Making them is cheap: each loads its client at the first request.

    Args:
        least: How far inside their connections may lead at most (``places``).
    """
    adapters: list[Adapter] = [A2AAdapter(least), SdkAdapter(least), HttpAdapter(least), MailboxAdapter()]
    return {adapter.name: adapter for adapter in adapters}


async def detect(url: str, adapters: dict[str, Adapter]) -> tuple[Adapter, list[Discovered]]:
    """Find the door for a URL: a mailbox, an A2A card, else an SDK process, else a plain HTTP agent.

    Raises:
        UsageError: not a usable URL (code "agent.bad_url").
        NoRoute, Closed, Timeout: nothing answers there.
        DecodeError: something answers, but no door fits (code "agent.no_door_fits").
    """
    if url.startswith(SCHEME) and (mailbox := adapters.get(MailboxAdapter.name)) is not None:
        return mailbox, await mailbox.discover(url)
    check_url(url)
    reasons: list[str] = []
    for name in ("a2a", "sdk"):
        adapter = adapters.get(name)
        if adapter is None:
            continue
        try:
            return adapter, await adapter.discover(url)
        except (DecodeError, AgentFailed, LimitError) as error:
            reasons.append(f"{name}: {error.why or error.detail}")
    plain = adapters.get("http")
    if isinstance(plain, HttpAdapter):
        # A call cannot be tried out, so either a description or an existing endpoint has to speak for the agent.
        try:
            if await plain.describe(url) or await plain.takes_posts(url):
                return plain, await plain.discover(url)
            reasons.append("http: no description, and nothing where calls would go")
        except AgentFailed as error:
            reasons.append(f"http: {error.detail}")
    raise DecodeError(
        "something answers there, but it is no agent that this node can call",
        code="agent.no_door_fits",
        why="; ".join(reasons)[:500],
        hint=f"agentmesh register {url[:200]} --door http   if it takes JSON by POST",
    )
