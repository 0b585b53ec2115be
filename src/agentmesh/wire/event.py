"""EventV1: one thing that happened in a run (RQ4 §2.2–2.4).

It travels between nodes, rests in the JSONL log, and is what CLI, API, SDK and console show. Its identity is ``id``,
made by the node where it happened; copies on other nodes keep that id. Order within a run is ``(lamport, ts, id)``: the
lamport count follows cause and effect across nodes even when a clock is an hour off.

The older record of RQ4 §2.4 (``event_type``, ``message``) is promoted by ``store.promote`` when a log is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any, Literal, get_args

import msgspec

from agentmesh.errors import DecodeError

Kind = Literal["status", "message", "artifact", "tool", "reasoning", "error"]
KINDS: tuple[str, ...] = get_args(Kind)
#: States of a task, spelled as A2A does without its prefix.
TaskState = Literal["submitted", "working", "input-required", "completed", "failed", "canceled", "rejected"]
TERMINAL_STATES = frozenset({"completed", "failed", "canceled", "rejected"})

EVENT_BYTES_MAX = 8 * 1024 * 1024
SCHEMA_VERSION = "1"


class EventV1(msgspec.Struct, kw_only=True, omit_defaults=False):
    """One event.

    Attributes:
        schema_version: "1".
        id: 32 hex digits, random, made where the event happened.
        ts: Wall clock of that node, integer microseconds since 1970 UTC. For people, never for order.
        kind: status, message, artifact, tool, reasoning or error.
        run_id: The run: everything that one outside request caused. 32 hex digits.
        task_id: The call within the run that this event belongs to.
        parent_task_id: The call that caused this call, if any.
        team_run_id: The team run, if any.
        step: The team step, if any.
        node_id: did:key of the node where it happened.
        agent_id: did:key of the called agent, if known.
        agent: Its name, for people.
        lamport: Logical time within the run, ≥ 0.
        payload: By kind. status ``{state, …}``; message ``{role, parts, delta?}``; artifact ``{artifact_id, parts, name?,
            append?, last?}``; tool ``{name, args?, result?}``; reasoning ``{text}``; error ``{type, code, message, hint?}``.
            ``parts`` are A2A 1.0 parts in JSON form (``{"text": …}``, ``{"data": …}``, ``{"url"|"raw": …, "mediaType": …}``).
        metadata: Anything else, JSON-ready.
        seq: Position in this node's own log, ≥ 1, given by the log; 0 before. Not part of the event's identity.
    """

    id: str
    ts: int
    kind: Kind
    run_id: str
    task_id: str | None = None
    parent_task_id: str | None = None
    team_run_id: str | None = None
    step: str | None = None
    node_id: str = ""
    agent_id: str | None = None
    agent: str | None = None
    lamport: int = 0
    payload: dict[str, Any] = {}
    metadata: dict[str, Any] = {}
    schema_version: str = SCHEMA_VERSION
    seq: int = 0


_json_decoder = msgspec.json.Decoder(EventV1)
_json_encoder = msgspec.json.Encoder()
_ID_CHARS_MAX = 128
_LAMPORT_MAX = 2**53


def encode_json(event: EventV1) -> bytes:
    """Encode as one JSON line without the newline."""
    return _json_encoder.encode(event)


def decode_json(line: bytes) -> EventV1:
    """Decode one JSON line.

    Raises:
        DecodeError: not an event of this version. No state changed.
    """
    if len(line) > EVENT_BYTES_MAX:
        raise DecodeError(f"event of {len(line)} bytes, at most {EVENT_BYTES_MAX} are read", code="event.too_large")
    try:
        return check(_json_decoder.decode(line))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(f"not an event: {error}", code="event.malformed") from error


def decode_lines(lines: list[bytes]) -> list[EventV1]:
    """Decode JSON lines as ``decode_json`` does, a third faster, where there are many. Raises DecodeError: one is no event."""
    if max(map(len, lines), default=0) > EVENT_BYTES_MAX:
        raise DecodeError(f"event of more than {EVENT_BYTES_MAX} bytes", code="event.too_large")
    decode = _json_decoder.decode
    try:
        events = [decode(line) for line in lines]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(f"not an event: {error}", code="event.malformed") from error
    for event in events:
        if (
            event.schema_version != SCHEMA_VERSION
            or not 0 < len(event.id) <= _ID_CHARS_MAX
            or not 0 < len(event.run_id) <= _ID_CHARS_MAX
            or event.ts < 0
            or not 0 <= event.lamport <= _LAMPORT_MAX
        ):
            check(event)
    return events


def check(event: EventV1) -> EventV1:
    """Return the event if its own fields make sense.

    Raises:
        DecodeError: unknown version, empty or overlong id, negative time. No state changed.
    """
    if event.schema_version != SCHEMA_VERSION:
        raise DecodeError(
            f"event schema {event.schema_version[:20]!r}, this version reads '1'",
            code="event.version",
            hint="upgrade agentmesh on this machine",
        )
    for text in (event.id, event.run_id):
        if not text or len(text) > _ID_CHARS_MAX:
            raise DecodeError("event without a usable id or run_id", code="event.malformed")
    if event.ts < 0 or event.lamport < 0 or event.lamport > _LAMPORT_MAX:
        raise DecodeError("event with a time out of range", code="event.malformed")
    return event


def state_of(payload: dict[str, Any]) -> str:
    """Return the state that a status payload names, "" if it names none; payloads come from anyone and hold anything."""
    state = payload.get("state")
    return state if isinstance(state, str) else ""


def is_end(state: str) -> bool:
    """Say whether a call ends with this state: a terminal one, or one that waits for the caller."""
    return state in TERMINAL_STATES or state == "input-required"


def order_key(event: EventV1) -> tuple[int, int, str]:
    """Return the sort key within a run."""
    return (event.lamport, event.ts, event.id)


def digest(events: Iterable[EventV1]) -> str:
    """Return the digest of a run's events: ``9c1f-77e0``.

    SHA-256 over ``(id, kind, ts, SHA-256 of the payload)`` of each event in order; two readers that print the same digest
    hold the same list. Duplicates of one id count once.
    """
    total = hashlib.sha256()
    seen: set[str] = set()
    for event in sorted(events, key=order_key):
        if event.id in seen:
            continue
        seen.add(event.id)
        body = hashlib.sha256(msgspec.json.encode(event.payload, order="deterministic")).digest()
        total.update(f"{event.id}\n{event.kind}\n{event.ts}\n".encode())
        total.update(body)
    text = total.hexdigest()
    return f"{text[:4]}-{text[4:8]}"


def text_of(parts: object) -> str:
    """Join the text parts of a message or artifact; data parts appear as compact JSON, files as their name or URL.

    A data part whose JSON stands before it as a text part is the same answer for programs; it is said once.
    """
    if not isinstance(parts, list):
        return ""
    out: list[str] = []
    for part in parts:  # pyright: ignore[reportUnknownVariableType]
        if not isinstance(part, dict):
            continue
        if isinstance(part.get("text"), str):  # pyright: ignore[reportUnknownMemberType]
            out.append(part["text"])  # pyright: ignore[reportUnknownArgumentType]
        elif "data" in part:
            if (form := msgspec.json.encode(part["data"]).decode()) not in out:
                out.append(form)
        elif "url" in part or "raw" in part:
            out.append(f"[{part.get('filename') or part.get('url') or 'file'}]")  # pyright: ignore[reportUnknownMemberType]
    return "".join(out)
