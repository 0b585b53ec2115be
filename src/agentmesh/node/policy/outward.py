"""Calls that leave this node: whom its agents may not call, and which of them may call nobody elsewhere.

What others let in is theirs to decide; this is about what one's own agents do. It is the table ``[out]`` of ``lists.toml``
(docs/reference/policy.md §3), looked at before a call goes out, for each replica that it could go to.
"""

from __future__ import annotations

from agentmesh.errors import Unauthorized
from agentmesh.identity.manifest import Manifest
from agentmesh.node.policy.facts import Ruling
from agentmesh.node.policy.lists import look_up
from agentmesh.node.policy.policy import Policy


class Outward:
    """Decide which calls may leave.

    Args:
        node_id: This node.
        policy: What is in force.
    """

    def __init__(self, node_id: str, policy: Policy) -> None:
        self._node_id, self._policy = node_id, policy

    def rule(self, caller: str, callee: Manifest) -> Ruling | None:
        """Return why a call may not leave; None if nothing here forbids it.

        Args:
            caller: did:key of the agent at this node that calls; the node's own for the person at it.
            callee: An agent at another node. What it says of itself can only count against it.
        """
        policy = self._policy
        policy.refresh(now=False)
        if policy.mode == "broken" and caller != self._node_id:
            return Ruling(
                False, "broken", "the policy files cannot be read", reason="this node's policy cannot be read"
            )
        out = policy.loaded.lists.out
        if not any(out.values()):
            return None
        here = policy.callee(caller, policy.manifest_of(caller))
        confined = look_up(out["confined"], keys=(caller,), organisation="", home=False, tags=here.tags)
        if confined is None and caller != self._node_id:
            confined = look_up(out["confined"], keys=(self._node_id,), organisation="", home=False, tags=())
        there = policy.callee(callee.agent_id, callee, callee.node_id)
        found = confined or look_up(
            out["deny"],
            keys=(callee.agent_id, callee.node_id),
            organisation=there.organisation,
            home=there.home,
            tags=there.tags,
        )
        return None if found is None else Ruling(False, "out", found.who, found.source, found.why)

    def refusal(self, caller: str, callee: Manifest) -> Unauthorized | None:
        """Return the error for a call that may not leave; None if it may."""
        ruling = self.rule(caller, callee)
        if ruling is None:
            return None
        return Unauthorized(
            f"this node does not let calls to {callee.name!r} out",
            code="policy.out",
            why=ruling.reason or "its own policy forbids it",
            hint=f"agentmesh policy explain CALLER {callee.name}   names the rule",
        )
