"""Operations on shared state as requests, for both clients. No I/O; docs/spec/state.md says what each means."""

from __future__ import annotations

from typing import Any, cast

from agentmesh.errors import UsageError
from agentmesh.sdk import message_requests as wanted
from agentmesh.sdk.context import current
from agentmesh.sdk.requests import Request
from agentmesh.wire.state_views import LevelName, LockRequest, LockView, StateChange, StateOp, StateView

#: A lock is renewed when so much of its time is over.
RENEW_SHARE = 1 / 3
TTL_S_MIN, TTL_S_MAX = 1.0, 3600.0


class SpacePlace:
    """What one user of a space knows: at which level it works, and what it has seen (``token``).

    Args:
        space: Name.
        level: "local", "causal", "quorum" or "linearizable".
        agent: In whose name; "" = the node, or the agent that runs here.
    """

    def __init__(self, space: str, level: LevelName, agent: str) -> None:
        if not space:
            raise UsageError("a space has a name", code="state.space", hint='mesh.state("votes")')
        context = current()
        self.space = space
        self.level: LevelName = level
        self.agent = agent or ("" if context is None else context.agent_id or context.agent_name)
        self.token = ""

    def get(self, key: str, level: LevelName | None) -> Request[StateView]:
        """Return the request that reads a key."""
        return wanted.get_state(self.space, key, level or self.level, self.token)

    def change(self, key: str, op: StateOp, level: LevelName | None, **fields: Any) -> Request[StateView]:
        """Return the request that does one operation."""
        change = StateChange(op=op, level=level or self.level, token=self.token, agent=self.agent, **fields)
        return wanted.change_state(self.space, key, change)

    def seen(self, view: StateView) -> StateView:
        """Note what an answer saw, so that the next request sees no less."""
        self.token = view.token or self.token
        return view


class Hold:
    """A lock as one holder has it.

    Args:
        name: Of the lock.
        request: How it is taken.
    """

    def __init__(self, name: str, request: LockRequest) -> None:
        if not TTL_S_MIN <= request.ttl_s <= TTL_S_MAX:
            raise UsageError(f"ttl_s of a lock is {TTL_S_MIN:g} to {TTL_S_MAX:g}", code="lock.ttl")
        self.name, self.asked = name, request
        self.view = LockView(name=name)

    def acquire(self) -> Request[LockView]:
        """Return the request that takes it."""
        return wanted.acquire(self.name, self.asked)

    def renew(self) -> Request[LockView]:
        """Return the request that keeps it."""
        asked = LockRequest(holder=self.view.holder, ttl_s=self.asked.ttl_s, renew=True, agent=self.asked.agent)
        return wanted.acquire(self.name, asked)

    def release(self) -> Request[LockView]:
        """Return the request that gives it back."""
        return wanted.release(self.name, self.view.holder)

    @property
    def renew_after_s(self) -> float:
        """How long after it was taken or renewed it is to be renewed."""
        return self.asked.ttl_s * RENEW_SHARE


def number(view: StateView) -> int:
    """Return the value of a counter; 0 where there is none yet."""
    return int(view.value) if view.exists and view.value is not None else 0


def items(view: StateView) -> list[Any]:
    """Return the value of a set or list; empty where there is none yet."""
    value: object = view.value if view.exists else None
    return cast("list[Any]", value) if isinstance(value, list) else []


def members(view: StateView) -> dict[str, Any]:
    """Return the value of a map; empty where there is none yet."""
    value: object = view.value if view.exists else None
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def words(view: StateView) -> str:
    """Return the value of a text; "" where there is none yet."""
    return view.value if view.exists and isinstance(view.value, str) else ""
