"""Routes of what happened: runs, their events, the live stream, and events from outside."""

from __future__ import annotations

import re

from agentmesh.api.sse import stream_of_log
from agentmesh.api.table import Ask, EventStream, Param, RouteRow
from agentmesh.errors import Busy, Corrupt, DecodeError, Full, LimitError, RecordNotFound, RunNotFound, UsageError
from agentmesh.sdk.requests import EVENTS_BYTES_MAX
from agentmesh.sdk.types import (
    EventsRequest,
    EventView,
    ReceiptChecks,
    ReceiptList,
    RunList,
    Stored,
    TraceRows,
    TraceView,
)
from agentmesh.wire.rows import ROWS_DEFAULT, ROWS_MAX, RowQuery, RunQuery, kinds_of, listed

_SEQ_DIGITS_MAX = 15
_REF_SUMMARY = "Run or task id, a unique prefix of 4 or more characters, last, or last~N."
_FULL_RUN_ID = re.compile(r"[0-9a-f]{32}")


async def list_runs(ask: Ask) -> RunList:
    """Answer ``GET /api/v1/runs``."""
    asked = ask.query
    query = RunQuery(
        limit=asked["limit"],
        before=asked["before"],
        agent=asked["agent"],
        states=listed("state", asked["state"]),
        kinds=kinds_of(asked["kind"]),
        since=asked["since"],
        until=asked["until"],
    )
    return await ask.backend.runs(query)


async def trace_run(ask: Ask) -> TraceView:
    """Answer ``GET /api/v1/runs/{ref}/events``."""
    return await ask.backend.trace(ask.path["ref"], ask.query["after"], ask.query["remote"])


async def row_run(ask: Ask) -> TraceRows:
    """Answer ``GET /api/v1/runs/{ref}/rows``."""
    asked = ask.query
    query = RowQuery(
        after=asked["after"],
        upto=asked["upto"],
        start=asked["start"],
        limit=asked["limit"],
        kinds=kinds_of(asked["kind"]),
        states=listed("state", asked["state"]),
        tasks=listed("task", asked["task"]),
        agent=asked["agent"],
        since=asked["since"],
        until=asked["until"],
    )
    return await ask.backend.rows(ask.path["ref"], query, asked["remote"])


async def show_event(ask: Ask) -> EventView:
    """Answer ``GET /api/v1/events/{seq}``."""
    seq = ask.path["seq"]
    if not (seq.isascii() and seq.isdigit() and len(seq) <= _SEQ_DIGITS_MAX):
        raise RecordNotFound(f"no event {seq[:40]!r}: events are named by their position in the log")
    return EventView(event=await ask.backend.event(int(seq)))


async def list_receipts(ask: Ask) -> ReceiptList:
    """Answer ``GET /api/v1/receipts/{ref}``."""
    return ReceiptList(receipts=await ask.backend.receipts(ask.path["ref"]))


async def check_receipts(ask: Ask) -> ReceiptChecks:
    """Answer ``GET /api/v1/receipts/{ref}/check``."""
    return await ask.backend.receipt_checks(ask.path["ref"])


async def follow_events(ask: Ask) -> EventStream:
    """Answer ``GET /api/v1/events/stream``."""
    backend = ask.backend
    run_id: str | None = ask.query["run"] or None
    after: int | None = ask.query["after"] if ask.last_event_id is None else ask.last_event_id
    last = backend.status().last_seq
    if run_id is not None and not _FULL_RUN_ID.fullmatch(run_id):
        run_id = (await backend.rows(run_id, RowQuery(limit=1), False)).run_id
    if after is None:
        # A run is shown from its start; the whole log from now on.
        after = 0 if run_id is not None else last
    # A position beyond the end is one of another log: this home was made anew.
    return stream_of_log(backend.follow(min(after, last), run_id))


async def store_events(ask: Ask) -> Stored:
    """Answer ``POST /api/v1/events``."""
    request: EventsRequest = ask.body
    return await ask.backend.ingest(request.events)


ROWS = (
    RouteRow(
        "GET",
        "/api/v1/runs",
        list_runs,
        "List the newest runs",
        RunList,
        errors=(UsageError, Corrupt),
        params=(
            Param("limit", "integer", 50, "At most so many.", low=1, high=1000),
            Param("before", "integer", 0, "Go on after an answer: what it says as next."),
            Param("agent", "string", "", "Only runs with this agent, by name or id.", chars_max=300),
            Param("state", "string", "", "Only runs in one of these states, divided by commas."),
            Param("kind", "string", "", "Only runs with an event of one of these kinds, divided by commas."),
            Param("since", "integer", 0, "Only runs that went on at this time or later, microseconds since 1970 UTC."),
            Param("until", "integer", 0, "Only runs that began at this time or before; 0 for no end."),
        ),
        scope="read",
    ),
    RouteRow(
        "GET",
        "/api/v1/runs/{ref}/events",
        trace_run,
        "Show a run from every node's point of view",
        TraceView,
        errors=(RunNotFound, UsageError, Corrupt),
        params=(
            Param("after", "integer", 0, "Leave out events up to this local seq."),
            Param("remote", "boolean", True, "Also ask the other nodes that took part."),
        ),
        path_params={"ref": _REF_SUMMARY},
        scope="read",
    ),
    RouteRow(
        "GET",
        "/api/v1/runs/{ref}/rows",
        row_run,
        "Show a run as rows without payloads",
        TraceRows,
        errors=(RunNotFound, UsageError, Corrupt),
        params=(
            Param("after", "integer", 0, "Leave out rows up to this local seq: what came since."),
            Param("upto", "integer", 0, "Look at the run as it was at this seq, while paging; 0 for now."),
            Param("start", "integer", 0, "Rows to pass over, of those that are asked for."),
            Param("limit", "integer", ROWS_DEFAULT, "At most so many rows.", low=1, high=ROWS_MAX),
            Param("kind", "string", "", "Only these kinds, divided by commas."),
            Param("state", "string", "", "Only status events that name one of these states, divided by commas."),
            Param("task", "string", "", "Only events of these calls, divided by commas.", chars_max=10_000),
            Param("agent", "string", "", "Only events of this agent, by name or id.", chars_max=300),
            Param("since", "integer", 0, "Not before this time, microseconds since 1970 UTC."),
            Param("until", "integer", 0, "Not after this time, microseconds since 1970 UTC; 0 for no end."),
            Param("remote", "boolean", True, "Also ask the other nodes that took part."),
        ),
        path_params={"ref": _REF_SUMMARY},
        description=(
            "Columns, one entry per event, in the order of the run. Page with ``start`` and the ``upto`` of the first answer; "
            "ask with ``after`` = ``upto`` for what came since, and put each row where its ``position`` says."
        ),
        scope="read",
    ),
    RouteRow(
        "GET",
        "/api/v1/receipts/{ref}",
        list_receipts,
        "Show what callees signed of a run",
        ReceiptList,
        errors=(RunNotFound, UsageError, Corrupt),
        path_params={"ref": _REF_SUMMARY},
        description="Receipts and the tokens of their calls, as kept at this node: enough to check both offline.",
        scope="read",
    ),
    RouteRow(
        "GET",
        "/api/v1/receipts/{ref}/check",
        check_receipts,
        "Show what caller and callees signed of a run or task, and whether this node finds that it holds",
        ReceiptChecks,
        errors=(RunNotFound, UsageError, Corrupt),
        path_params={"ref": _REF_SUMMARY},
        description="Receipts and the tokens of their calls, as kept at this node: enough to check both offline.",
        scope="read",
    ),
    RouteRow(
        "GET",
        "/api/v1/events/stream",
        follow_events,
        "Follow the event log, or one run, live",
        None,
        errors=(RunNotFound, UsageError, Busy),
        params=(
            Param("run", "string", "", "Only this run (id, prefix, last), from its start.", chars_max=200),
            Param("after", "integer", None, "Start after this seq; Last-Event-ID, when sent, goes before it."),
        ),
        stream="always",
        description=(
            "Server-sent events, one per EventV1: event = kind, id = seq, data = EventV1. A comment every 15 s shows "
            "that the stream lives. Reconnect with Last-Event-ID and nothing is lost or repeated."
        ),
        scope="events",
    ),
    # After the stream, whose path would look like a position.
    RouteRow(
        "GET",
        "/api/v1/events/{seq}",
        show_event,
        "Show one event with its payload",
        EventView,
        errors=(RecordNotFound, Corrupt),
        path_params={"seq": "Position in this node's log."},
        scope="read",
    ),
    RouteRow(
        "POST",
        "/api/v1/events",
        store_events,
        "Store events; answered when they are on disk",
        Stored,
        EventsRequest,
        (UsageError, DecodeError, LimitError, Full, Busy),
        body_bytes_max=EVENTS_BYTES_MAX,
        scope="events",
    ),
)
