"""What the HTTP API and its clients agree on about messages, topics and state: sizes, waits, and the node's own inbox."""

from __future__ import annotations

from agentmesh.errors import UsageError

#: In a path: the inbox of the node itself, where people and programs beside it receive. No agent can be named so.
NODE = "-"
#: A payload of 1 MiB in base64 or as escaped JSON text.
MESSAGE_BODY_BYTES_MAX = 8 * 1024 * 1024
#: A value of 64 KiB as escaped JSON.
STATE_BODY_BYTES_MAX = 512 * 1024
#: Most messages or leases acknowledged in one request, and most messages of one page.
ACKS_MAX = 1000
#: Longest wait of one request for an inbox, in seconds.
INBOX_WAIT_S_MAX = 60
#: How long a message that was handed out is not handed out again, in seconds.
LEASE_S, LEASE_S_MAX = 60, 3600
PATTERNS_MAX = 64


def split_patterns(text: str) -> list[str]:
    """Return the patterns of a list divided by commas. Raises UsageError: none, or too many."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not 0 < len(found) <= PATTERNS_MAX:
        raise UsageError(f"a subscriber names 1 to {PATTERNS_MAX} patterns", code="topic.patterns")
    return found
