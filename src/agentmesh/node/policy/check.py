"""The check of policy before every call at an agent beside this node (``node.callee.Check``)."""

from __future__ import annotations

from collections.abc import Callable

from agentmesh.errors import Refused, TrustTooLow, Unauthorized
from agentmesh.node.callee import Ended, Visit
from agentmesh.node.policy.facts import Facts, Ruling
from agentmesh.node.policy.policy import Policy

#: What a stranger hears when the rule that refuses it gives no reason: that there is a rule, not which.
_NO_REASON = "the policy of its node does not let you call it"
#: Longest id that is looked at; what is longer names nobody.
_ID_CHARS_MAX = 128
#: Longest name of a rule in an audit record.
_RULE_CHARS_MAX = 200


class PolicyCheck:
    """Refuse calls that the policy of this node does not allow; set the highest priority of those that pass.

    Args:
        policy: Decides.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def enter(self, visit: Visit) -> None:
        """Let the call pass. Raises Unauthorized, TrustTooLow."""
        ruling, trust = self._policy.judge(facts_of(visit))
        rule = f"{ruling.ground} {ruling.rule}"[:_RULE_CHARS_MAX]
        visit.facts["risk"] = {"trust": trust, "policy_version": self._policy.version, "rule": rule}
        if not ruling.allowed:
            raise refusal(ruling, visit.agent.manifest.name)
        visit.priority_max = ruling.priority_max

    def leave(self, visit: Visit, ended: Ended) -> None:
        """Nothing was taken."""


def facts_of(visit: Visit) -> Facts:
    """Return what policy looks at in a call whose token holds."""
    message, claims, granted = visit.message, visit.token.claims, visit.delegation
    return Facts(
        caller=visit.token.caller,
        node=visit.peer,
        says=message.caller if len(message.caller) <= _ID_CHARS_MAX else "",
        callee=message.agent_id,
        skill=claims.skill,
        purpose=claims.purpose,
        hops=len(claims.hops),
        budget=claims.budget,
        root=granted.root if granted else "",
        principal=granted.sub if granted else "",
    )


def refusal(ruling: Ruling, name: str) -> Refused:
    """Return what the caller is told: the reason that its rule gives, and nothing of rules that concern others."""
    kind: Callable[..., Refused] = TrustTooLow if ruling.trust else Unauthorized
    return kind(
        f"you may not call agent {name!r}" if not ruling.trust else f"agent {name!r} asks for more trust than you have",
        code="trust.low" if ruling.trust else "policy.denied",
        why=ruling.reason or _NO_REASON,
        hint="its operator sees why: agentmesh policy explain CALLER CALLEE",
    )
