"""The first check of every call: is the agent well, and has it room?"""

from __future__ import annotations

from agentmesh.errors import Busy, NoRoute
from agentmesh.node.callee import Ended, Visit
from agentmesh.node.registry import Registry


class Limits:
    """Refuse calls to an agent that fails its health check or runs as many as it may (``node.callee.Check``).

    Args:
        registry: Asked to look again at an agent that is not well.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    async def enter(self, visit: Visit) -> None:
        """Let the call pass. Raises NoRoute, Busy."""
        agent = visit.agent
        if agent.health is not None and agent.health.status != "healthy":
            self._registry.check_soon(agent)
            raise NoRoute(
                f"agent {agent.manifest.name!r} does not answer its health check",
                code="agent.unhealthy",
                why=agent.health.detail or None,
                extra={"untouched": True},
            )
        if agent.active >= agent.limit:
            raise Busy(
                f"agent {agent.manifest.name!r} is at its limit of {agent.limit} calls", extra={"untouched": True}
            )

    def leave(self, visit: Visit, ended: Ended) -> None:
        """Nothing was taken."""
