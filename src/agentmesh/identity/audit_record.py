"""Audit records: what a node writes down of each call, refusal and change, as CloudEvents 1.0 (docs/spec/audit.md §2).

A record is one JSON object in canonical form (RFC 8785), hence one line: a newline or quote in a name cannot end it, and equal
records are equal bytes. It holds who asked, for what, what was decided and why, with digests and hashes in place of prompts and
answers. The members are those that AIMS (draft-klrc-aiagent-auth §11) asks for at least, and some more.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Literal, cast

from agentmesh.codec.canonical import canonical, parse_strict
from agentmesh.codec.merkle import SIZE_MAX
from agentmesh.codec.tracecontext import read_trace
from agentmesh.errors import DecodeError, LimitError, UsageError
from agentmesh.identity.claims import hash_of

#: Largest record, bytes. Ours have about 1,000.
RECORD_BYTES_MAX = 16 * 1024
#: Longest text in a record, characters; longer ones are cut and end in "…".
TEXT_CHARS_MAX = 512
#: Largest remark of what would undo a call, bytes of JSON; of larger ones only the digest is kept.
UNDO_BYTES_MAX = 4096
TYPE_PREFIX = "dev.agentmesh.audit."

#: call: an agent here was called. call.out: this node called elsewhere. The rest are changes at this node.
ACTIONS = frozenset(
    (
        "call",
        "call.out",
        "register",
        "withdraw",
        "config",
        "policy",
        "order",
        "key",
        "session",
        "tenant",
        "grant",
        "report",
        "killswitch",
        "gap",
        "other",
    )
)
Decision = Literal["allowed", "refused"]

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_ACTION = re.compile(r"[a-z][a-z0-9_.]{0,63}")
_MEMBERS = frozenset(
    ("specversion", "id", "source", "type", "time", "subject", "datacontenttype", "traceparent", "data")
)


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """A record that was read; made by ``read_record`` only.

    Attributes:
        seq: Its place in the log, from 0.
        source: did:key of the node that wrote it.
        time: RFC 3339, UTC, microseconds.
        action: What was asked for; one of ``ACTIONS``, or what a newer version added.
        decision: Whether it was allowed.
        data: All of it.
        raw: The canonical bytes, which the log's tree is over.
    """

    seq: int
    source: str
    time: str
    action: str
    decision: Decision
    data: dict[str, Any]
    raw: bytes


def clean(text: object, chars_max: int = TEXT_CHARS_MAX) -> str:
    """Return a text of hostile origin as it may stand in a record: on one line, without what steers a terminal, bounded."""
    if type(text) is str and len(text) <= chars_max and text.isascii() and text.isprintable():
        return text
    shown = _CONTROL.sub("\ufffd", str(text)[: chars_max + 1])
    return shown if len(shown) <= chars_max else shown[: chars_max - 1] + "…"


def body_of(
    action: str,
    decision: Decision,
    *,
    agent: str,
    resource: str,
    time: str,
    traceparent: str | None = None,
    **members: Any,
) -> dict[str, Any]:
    """Return a record that still lacks its place and source (``write_record``).

    Args:
        action: One of ``ACTIONS``.
        decision: Whether it was allowed.
        agent: did:key of who asked.
        resource: What was asked for: did:key of an agent, or a name.
        time: RFC 3339, UTC.
        traceparent: W3C trace context, left out if it is none.
        members: Further members of ``data``; texts are cleaned, empty and None ones left out.
    """
    data: dict[str, Any] = {"action": action, "decision": decision, "agent": clean(agent), "resource": clean(resource)}
    _put(data, members)
    body: dict[str, Any] = {
        "specversion": "1.0",
        "type": TYPE_PREFIX + action,
        "time": time,
        "subject": data["resource"],
        "datacontenttype": "application/json",
        "data": data,
    }
    if (trace := read_trace(traceparent)) is not None:
        body["traceparent"] = trace.traceparent
    return body


def ended_body(begun: dict[str, Any], decision: Decision, *, time: str, **members: Any) -> dict[str, Any]:
    """Return what ``body_of`` returned when something began, with what is known of it now that it has ended.

    Args:
        begun: It stays as it is.
        decision: Whether it was allowed after all.
        time: RFC 3339, UTC.
        members: Further members of ``data``, or others in place of those that are there.
    """
    data = {**begun["data"], "decision": decision}
    _put(data, members)
    return {**begun, "time": time, "data": data}


def _put(data: dict[str, Any], members: dict[str, Any]) -> None:
    for name, value in members.items():
        if value is not None and value != "" and value != {} and value != []:
            data[name] = _cleaned(value)


def write_record(body: dict[str, Any], source: str, seq: int) -> bytes:
    """Return the canonical bytes of a record at its place in a log.

    Raises:
        UsageError: it is too large, or holds what has no canonical form (codes "audit.record", "audit.too_large").
    """
    record = {**body, "source": source, "id": str(seq), "data": {**body["data"], "seq": seq}}
    try:
        raw = canonical(record)
    except LimitError as error:
        raise UsageError(f"no audit record: {error}", code="audit.record") from error
    if len(raw) > RECORD_BYTES_MAX:
        raise UsageError(
            f"an audit record of {len(raw)} bytes, at most {RECORD_BYTES_MAX} are kept", code="audit.too_large"
        )
    return raw


def read_record(raw: bytes) -> AuditRecord:
    """Read a record, strictly: one that is not spelled in the canonical way was changed.

    Raises:
        DecodeError: codes "json.*", "audit.record". No state changed.
    """
    value = parse_strict(raw, bytes_max=RECORD_BYTES_MAX)
    if not isinstance(value, dict):
        raise _malformed("it is no object")
    record = cast("dict[str, Any]", value)
    data = record.get("data")
    if not isinstance(data, dict) or not record.keys() <= _MEMBERS or record.get("specversion") != "1.0":
        raise _malformed("it is no CloudEvent with data")
    members = cast("dict[str, Any]", data)
    seq, action, decision = members.get("seq"), members.get("action"), members.get("decision")
    texts = [record.get("source"), record.get("time"), members.get("agent"), members.get("resource")]
    if type(seq) is not int or not 0 <= seq < SIZE_MAX or record.get("id") != str(seq):
        raise _malformed("it has no place in a log")
    if not isinstance(action, str) or not _ACTION.fullmatch(action) or record.get("type") != TYPE_PREFIX + action:
        raise _malformed("it names no action")
    if decision not in ("allowed", "refused") or not all(isinstance(text, str) for text in texts):
        raise _malformed("it lacks decision, source, time, agent or resource")
    if canonical(record) != raw:
        raise _malformed("it is spelled in another way than the one")
    return AuditRecord(seq, str(texts[0]), str(texts[1]), action, decision, members, raw)


def undo_of(value: object) -> dict[str, Any] | None:
    """Return what an agent says would undo its work, as it may stand in a record; None if it says nothing usable.

    A value up to ``UNDO_BYTES_MAX`` is kept as it is, of a larger one or one without canonical form only its digest.
    """
    if not isinstance(value, dict) or not value:
        return None
    kept = cast("dict[str, Any]", value)
    try:
        raw = canonical(kept)
    except LimitError:
        try:
            raw = json.dumps(kept, sort_keys=True, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError):
            return None
    else:
        cleaned = _cleaned(kept)
        if len(raw) <= UNDO_BYTES_MAX and cleaned == kept:
            return kept
    return {"skill": clean(kept.get("skill", ""), 128), "sha256": hash_of(raw.decode("utf-8", "replace"))}


def undo_steps(record: AuditRecord) -> list[Any]:
    """Return what a record says would undo the call, in the order in which it was done."""
    remediation = record.data.get("remediation")
    steps = cast("dict[str, Any]", remediation).get("undo") if isinstance(remediation, dict) else None
    return cast("list[Any]", steps) if isinstance(steps, list) else []


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(k, 128): _cleaned(v) for k, v in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_cleaned(v) for v in cast("list[Any]", value)]
    return value


def _malformed(why: str) -> DecodeError:
    return DecodeError("not an audit record", code="audit.record", why=why)
