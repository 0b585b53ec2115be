"""Promotion of the older event record (RQ4 §2.4) to EventV1. Called by the event log when it reads a line."""

from __future__ import annotations

import hashlib
import math
from datetime import UTC, datetime
from typing import Any

import msgspec

from agentmesh.errors import DecodeError
from agentmesh.wire.event import KINDS, EventV1, check, decode_json, decode_lines


def read_line(line: bytes) -> EventV1:
    """Decode one line of the log: an EventV1, or an older record, which is promoted.

    Raises:
        DecodeError: neither. No state changed.
    """
    try:
        return decode_json(line)
    except DecodeError as first:
        if first.code != "event.malformed":
            raise
        try:
            raw = msgspec.json.decode(line)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            raise first from None
        if isinstance(raw, dict) and "schema_version" not in raw and "event_type" in raw:
            return promote(raw)  # pyright: ignore[reportUnknownArgumentType]
        raise


def read_lines(lines: list[bytes]) -> list[EventV1]:
    """Decode lines of the log as ``read_line`` does. Raises DecodeError: one is no event."""
    try:
        return decode_lines(lines)
    except DecodeError:
        # An older record is among them, or garbage.
        return [read_line(line) for line in lines]


def promote(old: dict[str, Any]) -> EventV1:
    """Turn the record of the older log (RQ4 §2.4) into EventV1.

    ``event_type`` becomes ``kind`` (an unknown value becomes ``status`` and is kept in the payload), ``message`` becomes
    ``payload``, a missing id is derived from the content so that reading twice gives the same id.

    Raises:
        DecodeError: no ``run_id`` or no readable ``ts``. No state changed.
    """
    kind = str(old.get("event_type", ""))
    message = old.get("message")
    payload: dict[str, Any]
    if isinstance(message, dict):
        payload = {str(k): v for k, v in message.items()}  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
    elif message is None:
        payload = {}
    else:
        payload = {"text": str(message)}
    if kind not in KINDS:
        payload["event_type"] = kind
        kind = "status"
    run_id = old.get("run_id")
    if not isinstance(run_id, str) or not run_id:
        raise DecodeError("older event without run_id", code="event.malformed")
    metadata = old.get("metadata")
    digest = hashlib.sha256(msgspec.json.encode(old, order="deterministic")).hexdigest()[:32]
    return check(
        EventV1(
            id=str(old.get("id") or digest),
            ts=_micros(old.get("ts")),
            kind=kind,  # type: ignore[arg-type]
            run_id=run_id,
            task_id=str(old["task_id"]) if old.get("task_id") else None,
            step=str(old["step"]) if old.get("step") else None,
            payload=payload,
            metadata=dict(metadata) if isinstance(metadata, dict) else {},  # pyright: ignore[reportUnknownArgumentType]
        )
    )


def _micros(ts: object) -> int:
    if isinstance(ts, bool):
        raise DecodeError("older event with a boolean ts", code="event.malformed")
    if isinstance(ts, int | float) and math.isfinite(ts):
        # Seconds, milliseconds and microseconds since 1970 are three decades of magnitude apart.
        value = float(ts)
        scale = 1_000_000 if value < 1e11 else 1_000 if value < 1e14 else 1
        return int(value * scale)
    if isinstance(ts, str):
        try:
            when = datetime.fromisoformat(ts)
        except ValueError as error:
            raise DecodeError(f"older event with ts {ts[:40]!r}", code="event.malformed") from error
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return int(when.timestamp() * 1_000_000)
    raise DecodeError("older event without ts", code="event.malformed")
