"""Who may publish to and subscribe to which subjects: a short list of rules, the first that fits decides."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from agentmesh.core.topics.subjects import check_pattern, matches
from agentmesh.errors import LimitError, UsageError

RULES_MAX = 256
#: Names in one rule, each way.
NAMES_MAX = 256
_NAME_CHARS_MAX = 200
ANYBODY = "*"


class Rule(NamedTuple):
    """One rule.

    Attributes:
        pattern: Of subjects.
        publish, subscribe: Agent ids, names of agents beside the node, node ids, ``org:`` and a did:key, or ``*``.
    """

    pattern: str
    publish: tuple[str, ...] = (ANYBODY,)
    subscribe: tuple[str, ...] = (ANYBODY,)


def check_rules(rules: Sequence[Rule]) -> None:
    """Raise unless these can be the rules of a node.

    Raises:
        UsageError: a pattern that is none, or an empty or overlong name (codes "topic.pattern", "topic.rule").
        LimitError: too many (code "topic.rules").
    """
    if len(rules) > RULES_MAX:
        raise LimitError(f"{len(rules)} rules, at most {RULES_MAX}", code="topic.rules")
    for rule in rules:
        check_pattern(rule.pattern)
        for names in (rule.publish, rule.subscribe):
            if len(names) > NAMES_MAX or any(not 0 < len(name) <= _NAME_CHARS_MAX for name in names):
                raise UsageError(
                    f"the rule of {rule.pattern!r} names nobody, too many, or somebody with too long a name",
                    code="topic.rule",
                )


def rule_of(rules: Sequence[Rule], subject: str) -> Rule | None:
    """Return the rule that decides on a subject; None where every member may."""
    return next((rule for rule in rules if matches(rule.pattern, subject)), None)


def may(names: Collection[str], who: Collection[str]) -> bool:
    """Say whether one of the ids and names by which somebody is known stands among those of a rule."""
    return ANYBODY in names or any(name in who for name in names)
