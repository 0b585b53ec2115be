"""Baggage: what goes along with a call and with every call made from it (W3C Baggage; docs/spec/guard.md §6). Pure."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

from agentmesh.errors import UsageError

#: Characters of a value that need no percent sign (W3C Baggage §3.2.1.2, without "%").
_SAFE = "!#$&'()*+-./:<=>?@[]^_`{|}~"
_BAGGAGE_MAX, _BAGGAGE_CHARS_MAX = 32, 4096
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}", re.ASCII)


def check_baggage(baggage: dict[str, str]) -> None:
    """Refuse baggage that no header could carry (W3C Baggage §3.2). Raises UsageError (code "call.baggage")."""
    size = sum(len(key) + len(value) + 2 for key, value in baggage.items())
    if len(baggage) > _BAGGAGE_MAX or size > _BAGGAGE_CHARS_MAX:
        raise UsageError(
            f"baggage of {len(baggage)} members and {size} characters",
            code="call.baggage",
            why=f"at most {_BAGGAGE_MAX} members of {_BAGGAGE_CHARS_MAX} characters together travel",
        )
    for key, value in baggage.items():
        if not _TOKEN.fullmatch(key) or not value.isprintable():
            raise UsageError(
                f"{key[:80]!r} is no member of baggage",
                code="call.baggage",
                why="a key is a token of RFC 7230, a value is printable text of one line",
            )


def baggage_of(baggage: dict[str, str]) -> dict[str, str]:
    """Return the baggage of a call that came from elsewhere; {} if it is none, for it is no ground to refuse a call."""
    try:
        check_baggage(baggage)
    except UsageError:
        return {}
    return baggage


def write_baggage(baggage: dict[str, str]) -> str:
    """Return it as the value of a ``baggage`` header."""
    return ",".join(f"{key}={quote(value, safe=_SAFE)}" for key, value in baggage.items())


def read_baggage(header: str) -> dict[str, str]:
    """Read the value of a ``baggage`` header; properties are left out, and so is all of it when it makes no sense."""
    baggage: dict[str, str] = {}
    for member in header[: 3 * _BAGGAGE_CHARS_MAX].split(",") if header.strip() else ():
        key, equals, value = member.partition(";")[0].partition("=")
        if not equals:
            return {}
        baggage[key.strip()] = unquote(value.strip())
    return baggage_of(baggage)
