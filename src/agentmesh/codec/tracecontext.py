"""W3C Trace Context: the headers ``traceparent`` and ``tracestate``, read strictly and written (Level 1, with the random flag
of Level 2). Pure; the one place where they are taken apart (docs/spec/wire.md §5.5).

What makes no sense is dropped and never refused: a trace is for people who look, no ground to turn a call away (§3.2.2, §4.3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

#: Members and characters of a tracestate that is passed on (§3.3.1).
STATE_MEMBERS_MAX, STATE_CHARS_MAX = 32, 512
#: A longer header is not even looked at.
_PARENT_CHARS_MAX = 1024
SAMPLED = 0x01
#: Flags that are passed on: sampled, and "the trace id is random" of Level 2; all others are zero in version 00 (§3.2.2.5).
_FLAGS = 0x03
_PARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII | re.DOTALL)
_TRACE_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_SPAN_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)
_NO_TRACE, _NO_SPAN = "0" * 32, "0" * 16
#: A member: key (perhaps ``tenant@system``), "=", up to 256 printable characters without "," and "=", the last no space
#: (§3.3.1.3).
_MEMBER = re.compile(
    r"(?:[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]",
    re.ASCII,
)


class TraceContext(NamedTuple):
    """Where in a trace something happens.

    Attributes:
        trace_id: 32 lower-case hex digits, not all zero.
        span_id: 16 lower-case hex digits, not all zero.
        flags: ``SAMPLED``, and 2 if the trace id is random; nothing else.
        state: ``tracestate``, "" if there is none; of other systems, passed on as it came.
        parent_id: Span that caused this one, "" if none did; not part of what travels.
    """

    trace_id: str
    span_id: str
    flags: int = SAMPLED
    state: str = ""
    parent_id: str = ""

    @property
    def sampled(self) -> bool:
        """Whether it is to be recorded, as whoever began the trace decided."""
        return bool(self.flags & SAMPLED)

    @property
    def traceparent(self) -> str:
        """The value of the header."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def child(self, span_id: str) -> TraceContext:
        """Return the context of a span that this one causes."""
        return TraceContext(self.trace_id, span_id, self.flags, self.state, self.span_id)


def read_trace(traceparent: str | None, tracestate: str | None = "") -> TraceContext | None:
    """Read the two headers; None if the first is not there or makes no sense.

    Args:
        traceparent: Its value. Version ff is refused, a later one than 00 is read as 00 where it begins like it (§4.3).
        tracestate: Its value, several headers joined by commas; dropped alone if it makes no sense.
    """
    if not traceparent or len(traceparent) > _PARENT_CHARS_MAX:
        return None
    match = _PARENT.fullmatch(traceparent.strip(" \t"))
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & _FLAGS, read_state(tracestate))


def in_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[str | None, str]:
    """Return the two headers of a request, unread; names are in lower case. Several ``traceparent`` are as good as none, several
    ``tracestate`` are one (§3.2, §3.3)."""
    parents: list[bytes] = []
    states: list[bytes] = []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    if len(parents) != 1:
        return None, ""
    return parents[0].decode("latin-1"), b",".join(states).decode("latin-1")


def read_state(tracestate: str | None) -> str:
    """Return a tracestate as it is passed on: without empty members; "" if a member makes no sense or there are too many."""
    if not tracestate or len(tracestate) > 4 * STATE_CHARS_MAX:
        return ""
    members: list[str] = []
    keys: set[str] = set()
    for piece in tracestate.split(","):
        member = piece.strip(" \t")
        if not member:
            continue
        key = member.partition("=")[0]
        if not _MEMBER.fullmatch(member) or key in keys:
            return ""
        keys.add(key)
        members.append(member)
    if len(members) > STATE_MEMBERS_MAX:
        return ""
    # Too long: whole members are left out from the end, the oldest first (§3.3.1.5).
    while len(",".join(members)) > STATE_CHARS_MAX:
        del members[-1]
    return ",".join(members)


def begin_trace(run_id: str, span_id: str, share: float = 1.0) -> TraceContext:
    """Return the first span of a trace that begins with a run: the run's id is the trace's, so one leads to the other.

    Args:
        run_id: The run; one that is no trace id (programs may choose theirs) is hashed.
        span_id: Its first span.
        share: Share of traces that are sampled, 0 to 1. The trace id decides, so every node decides alike.
    """
    fits = _TRACE_ID.fullmatch(run_id) and run_id != _NO_TRACE
    trace_id = run_id if fits else sha256(run_id.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    # The last 56 bits, as OpenTelemetry's ratio samplers do.
    sampled = int(trace_id[-14:], 16) >= round((1 - min(max(share, 0.0), 1.0)) * (1 << 56))
    return TraceContext(trace_id, span_id, SAMPLED if sampled else 0)


def is_span_id(text: object) -> bool:
    """Say whether something is the id of a span."""
    return isinstance(text, str) and _SPAN_ID.fullmatch(text) is not None and text != _NO_SPAN
