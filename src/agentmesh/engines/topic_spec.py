"""What every store of durable topics accepts as a topic."""

from __future__ import annotations

from agentmesh.core.topics.subjects import check_pattern, is_topic_name
from agentmesh.engines.base import TopicSpec
from agentmesh.errors import UsageError

#: Subjects of one topic.
PATTERNS_MAX = 64


def check_spec(spec: TopicSpec) -> None:
    """Raise UsageError unless a topic can be made (codes "topic.name", "topic.subjects", "topic.reserved", "topic.limits")."""
    if not is_topic_name(spec.name):
        raise UsageError(
            f"{spec.name[:80]!r} is no name of a topic",
            code="topic.name",
            why="a name is 1 to 64 characters of A-Z a-z 0-9 _ -",
        )
    if not 0 < len(spec.subjects) <= PATTERNS_MAX:
        raise UsageError(f"a topic keeps 1 to {PATTERNS_MAX} patterns of subjects", code="topic.subjects")
    for pattern in spec.subjects:
        check_pattern(pattern)
        if pattern.startswith("$"):
            raise UsageError(f"{pattern!r} is of the mesh's own subjects", code="topic.reserved")
    if min(spec.records_max, spec.bytes_max, spec.age_s_max) < 1:
        raise UsageError("every limit of a topic is at least 1", code="topic.limits")
