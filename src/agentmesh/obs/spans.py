"""One side of a call as a span: what the node tells, and what exporters take. It knows nothing of any library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from agentmesh.codec.tracecontext import TraceContext

Value = str | int | float | bool
#: Longest text of one attribute, characters; what is longer is cut.
TEXT_MAX = 1_024
#: The same for what was said in a call, where that is exported at all.
CONTENT_MAX = 8_192
#: Remarks within one span; later ones are left out, and counted.
MARKS_MAX = 64


class Mark(NamedTuple):
    """Something that happened within a span.

    Attributes:
        at_ns: Nanoseconds since 1970 UTC.
        name: What.
        attributes: More of it.
    """

    at_ns: int
    name: str
    attributes: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Span:
    """One side of a call that is over.

    Attributes:
        trace: Where in the trace it is.
        kind: "client" where the call was made, "server" where it was served.
        name: For people.
        began_ns, ended_ns: Nanoseconds since 1970 UTC; the first is never the later one.
        attributes: docs/reference/opentelemetry.md lists them.
        error: Code of the error it ended with; "" if it went well.
        detail: Words of that error, where they may be told.
        marks: In order, at most ``MARKS_MAX``.
    """

    trace: TraceContext
    kind: Literal["client", "server"]
    name: str
    began_ns: int
    ended_ns: int
    attributes: Mapping[str, Value]
    error: str = ""
    detail: str = ""
    marks: Sequence[Mark] = ()


def fit_text(text: str, chars_max: int = TEXT_MAX) -> str:
    """Return a text that fits an attribute and any encoder: cut, and without lone surrogates."""
    return text[:chars_max].encode("utf-8", "replace").decode()
