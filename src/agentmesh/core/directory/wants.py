"""Which records were asked for a moment ago, so that two peers are not asked for the same one."""

from __future__ import annotations

from agentmesh.core.directory.table import Rank
from agentmesh.ids import AgentId


class Wants:
    """Remember what is being waited for. Forgetting early costs a second question and nothing else.

    Args:
        retry_s: After this long without the record it may be asked for again.
        wants_max: Most records remembered.
    """

    def __init__(self, retry_s: float, wants_max: int) -> None:
        self.retry_s = retry_s
        self.wants_max = wants_max
        self._asked: dict[AgentId, tuple[Rank, float]] = {}

    def __len__(self) -> int:
        return len(self._asked)

    def ask(self, agent_id: str, rank: Rank, now_s: float) -> bool:
        """Say whether to ask for a record of this rank now, and remember it if so."""
        agent = AgentId(agent_id)
        asked = self._asked.get(agent)
        if asked is not None and asked[0] >= rank and now_s - asked[1] < self.retry_s:
            return False
        if len(self._asked) >= self.wants_max:
            self._asked.clear()
        self._asked[agent] = (rank, now_s)
        return True

    def came(self, agent_id: AgentId) -> None:
        """Note that a record of the agent came."""
        self._asked.pop(agent_id, None)

    def expire(self, now_s: float) -> None:
        """Forget what did not come in time."""
        self._asked = {agent: asked for agent, asked in self._asked.items() if now_s - asked[1] < self.retry_s}
