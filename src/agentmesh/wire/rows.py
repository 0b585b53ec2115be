"""A run as rows: what a person reads of an event on one line, and which rows are asked for (docs/spec/console.md §1).

Texts come from agents and programs of anybody and may be of any size: a label reads a bounded part of them and shows what is not
printable as a dot, so that no mark can turn, hide or break a line.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice
from typing import Any, cast

import msgspec

from agentmesh.errors import UsageError
from agentmesh.wire.event import KINDS, EventV1, text_of

#: Characters of a label.
LABEL_CHARS_MAX = 160
#: Rows of one answer, at most and unless asked otherwise.
ROWS_MAX = 20_000
ROWS_DEFAULT = 5_000
#: Entries of one filter list.
_LIST_MAX = 64
#: What of nested payloads is read for a label.
_PARTS_MAX, _DEPTH_MAX = 32, 8


class RowQuery(msgspec.Struct, kw_only=True, frozen=True):
    """Which rows of a run are asked for. Filters say something of the event alone, so that a row that matched matches for ever.

    Attributes:
        after: Leave out rows with this local ``seq`` or a lower one.
        upto: Look at the run as it was at this ``seq``; 0 for now.
        start: Rows to pass over, of those that are asked for.
        limit: Rows of one answer.
        kinds: These kinds only; () for all.
        states: Status events that name one of these states; () for all events.
        tasks: Events of these calls.
        agent: Events of this agent: its name, in any letter case, or its id; "" for all.
        since, until: Time of the event, microseconds since 1970 UTC, both included; 0 for no bound.
    """

    after: int = 0
    upto: int = 0
    start: int = 0
    limit: int = ROWS_DEFAULT
    kinds: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    agent: str = ""
    since: int = 0
    until: int = 0

    @property
    def filters(self) -> tuple[Any, ...]:
        """What decides whether a row matches; all empty where every row does."""
        return (self.kinds, self.states, self.tasks, self.agent.casefold(), self.since, self.until)


class RunQuery(msgspec.Struct, kw_only=True, frozen=True):
    """Which runs are asked for.

    Attributes:
        limit: Runs of one answer.
        before: Only runs that came before this number, as ``RunList.next`` of the answer before says it; 0 for the newest.
        agent: An agent whose events are in it: its name, in any letter case, or its id; "" for all.
        states: The run is in one of these states now.
        kinds: An event of one of these kinds is in it.
        since, until: The run and this stretch of time overlap; microseconds since 1970 UTC, 0 for no bound.
    """

    limit: int = 50
    before: int = 0
    agent: str = ""
    states: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    since: int = 0
    until: int = 0


def listed(name: str, text: str, known: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Read a list of values divided by commas; order and repeats do not count.

    Raises:
        UsageError: too many, or one that is not of the known ones.
    """
    found = tuple(sorted({one.strip() for one in text.split(",")} - {""}))
    if len(found) > _LIST_MAX:
        raise UsageError(f"{name} names {len(found)} values, at most {_LIST_MAX} are looked for", code="rows.filter")
    for one in found if known else ():
        if one not in known:
            raise UsageError(f"{name} cannot be {one[:40]!r}", code="rows.filter", why=f"there are {', '.join(known)}")
    return found


def kinds_of(text: str) -> tuple[str, ...]:
    """Read a list of kinds of events. Raises UsageError."""
    return listed("kind", text, KINDS)


def one_line(text: str, chars_max: int = LABEL_CHARS_MAX) -> str:
    """Return the beginning of a text on one line: what is not printable, marks of writing direction too, is shown as a dot."""
    cut = text[: chars_max + 1]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else _seen(c) for c in cut)
    return cut if len(cut) <= chars_max else cut[: chars_max - 1] + "…"


def _seen(char: str) -> str:
    if char == "\n":
        return "␤"
    if char.isspace() and char not in "\r\v\f\x1c\x1d\x1e\x1f\x85\u2028\u2029":
        return " "
    return "\ufffd" if "\ud800" <= char <= "\udfff" else "·"


def label(event: EventV1) -> str:
    """Return what a row shows of an event: ``describe`` on one line, at most 160 characters, whatever the payload holds."""
    return one_line(describe(event, _text, _value))


def describe(
    event: EventV1,
    text: Callable[[object], str] = text_of,
    value: Callable[[Any], str] = lambda value: _whole(value),
) -> str:
    """Return what an event says.

    Args:
        event: The event.
        text: Reads parts of a message or artifact.
        value: Reads any other value.
    """
    payload = event.payload
    if event.kind == "status":
        state = value(payload.get("state", ""))
        said = payload.get("text") or payload.get("detail")
        detail = value(said) if said else text(payload.get("input"))
        return f"{state}: {detail}" if detail else state
    if event.kind == "message":
        return f'"{text(payload.get("parts"))}"'
    if event.kind == "artifact":
        name = payload.get("name") or payload.get("artifact_id") or "artifact"
        return f"{value(name)}: {text(payload.get('parts'))}"
    if event.kind == "tool":
        result = payload.get("result")
        shown = f" → {value(result)}" if result is not None else ""
        return f"{value(payload.get('name', 'tool'))}({_arguments(payload.get('args'), value)}){shown}"
    if event.kind == "reasoning":
        return value(payload.get("text", ""))
    return f"{value(payload.get('code', 'error'))}: {value(payload.get('message', ''))}"


def _arguments(args: Any, value: Callable[[Any], str]) -> str:
    if isinstance(args, dict):
        pairs = islice(cast("dict[str, Any]", args).items(), _PARTS_MAX)
        return ", ".join(f"{value(key)}={value(one)}" for key, one in pairs)
    if isinstance(args, list):
        return ", ".join(value(one) for one in islice(cast("list[Any]", args), _PARTS_MAX))
    return "" if args is None else value(args)


def _whole(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _value(value: Any) -> str:
    """Return the beginning of a value as compact JSON, a text as itself."""
    if isinstance(value, str):
        return value[: LABEL_CHARS_MAX + 1]
    out: list[str] = []
    _write(value, out, LABEL_CHARS_MAX + 1, 0)
    return "".join(out)


def _write(value: Any, out: list[str], room: int, depth: int) -> int:
    """Append the beginning of a value as JSON; return the characters of room that are left."""
    if room <= 0 or depth > _DEPTH_MAX:
        return 0
    if isinstance(value, dict | list):
        items: Any = value.items() if isinstance(value, dict) else value  # pyright: ignore[reportUnknownMemberType,reportUnknownVariableType]
        room = _put("{" if isinstance(value, dict) else "[", out, room)
        for number, item in enumerate(items):
            if room <= 0:
                return 0
            if number:
                room = _put(",", out, room)
            if isinstance(value, dict):
                room = _put(msgspec.json.encode(item[0][:LABEL_CHARS_MAX]).decode() + ":", out, room)
                item = item[1]
            room = _write(item, out, room, depth + 1)
        return _put("}" if isinstance(value, dict) else "]", out, room)
    if isinstance(value, str):
        value = value[:room]
    return _put(msgspec.json.encode(value).decode(), out, room)


def _put(text: str, out: list[str], room: int) -> int:
    out.append(text)
    return room - len(text)


def _text(parts: object) -> str:
    """Return the beginning of what ``text_of`` makes of parts."""
    if not isinstance(parts, list):
        return ""
    out: list[str] = []
    room = LABEL_CHARS_MAX + 1
    for part in cast("list[Any]", parts):
        if room <= 0:
            break
        if isinstance(part, dict):
            said = _part(cast("dict[str, Any]", part), out)
            room = _put(said, out, room)
    return "".join(out)


def _part(part: dict[str, Any], before: list[str]) -> str:
    text = part.get("text")
    if isinstance(text, str):
        return text[: LABEL_CHARS_MAX + 1]
    if "data" in part:
        said = _value(part["data"])
        return "" if said in before else said
    texts = {key: part[key] for key in ("filename", "url", "raw") if isinstance(part.get(key), str)}
    return text_of([{key: one[: LABEL_CHARS_MAX + 1] for key, one in texts.items()}])
