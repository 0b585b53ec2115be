"""What rows of a run must be, said as plainly as possible: everything is made anew from all events for each answer."""

from __future__ import annotations

from typing import Any

from agentmesh.wire.console_views import RowBatch, TaskRow, TraceRows
from agentmesh.wire.event import EventV1, digest, encode_json, is_end, order_key, state_of
from agentmesh.wire.rows import RowQuery, label


def each_once(events: list[EventV1]) -> list[EventV1]:
    """Return events in order, of each id the one that came first."""
    first: dict[str, EventV1] = {}
    for event in sorted(events, key=lambda event: event.seq):
        first.setdefault(event.id, event)
    return sorted(first.values(), key=order_key)


def fits(event: EventV1, query: RowQuery) -> bool:
    return (
        (not query.kinds or event.kind in query.kinds)
        and (not query.states or (event.kind == "status" and state_of(event.payload) in query.states))
        and (not query.tasks or event.task_id in query.tasks)
        and (
            not query.agent or query.agent == event.agent_id or query.agent.casefold() == (event.agent or "").casefold()
        )
        and event.ts >= query.since
        and (not query.until or event.ts <= query.until)
    )


def rows_model(events: list[EventV1], last_seq: int, query: RowQuery) -> TraceRows:
    """Answer as the log must, without names of nodes."""
    whole = each_once(events)
    arrived = sorted(whole, key=lambda event: event.seq)
    upto = min(query.upto, last_seq) if query.upto else last_seq
    then = [event for event in whole if event.seq <= upto]
    kinds = list(dict.fromkeys(event.kind for event in arrived))
    states = list(dict.fromkeys(state_of(event.payload) for event in arrived if event.kind == "status"))
    nodes = list(dict.fromkeys(event.node_id for event in arrived if event.node_id))
    ids = list(dict.fromkeys(event.task_id for event in arrived if event.task_id is not None))
    match = [event for event in then if fits(event, query)]
    asked = [event for event in match if event.seq > query.after]
    shown = asked[query.start : query.start + query.limit]
    place = {event.id: at for at, event in enumerate(then)}
    named: list[Any] = [
        name for e in whole for name in (e.node_id, e.payload.get("to_node"), e.metadata.get("caller_node"))
    ]
    return TraceRows(
        run_id=whole[0].run_id,
        count=len(whole),
        digest=digest(whole),
        matching=len(match),
        upto=upto,
        rows=RowBatch(
            position=[place[event.id] for event in shown],
            seq=[event.seq for event in shown],
            ts=[event.ts for event in shown],
            kind=[kinds.index(event.kind) for event in shown],
            task=[-1 if event.task_id is None else ids.index(event.task_id) for event in shown],
            node=[nodes.index(event.node_id) if event.node_id else -1 for event in shown],
            state=[states.index(state_of(event.payload)) if event.kind == "status" else -1 for event in shown],
            label=[label(event) for event in shown],
            bytes=[len(encode_json(event)) + 1 for event in shown],
            index=[match.index(event) for event in shown] if any(query.filters) else [],
        ),
        more=query.start + query.limit < len(asked),
        tasks=[_task(task, ids, whole, arrived) for task in ids],
        kinds=list(kinds),
        states=states,
        node_ids=nodes,
        nodes={name: "" for name in named if name},
        complete=not any(_is_open(whole, task) for task in [None, *ids]),
    )


def _is_open(events: list[EventV1], task: str | None) -> bool:
    turns = [state_of(event.payload) for event in events if event.task_id == task and event.kind == "status"]
    turns = [state for state in turns if state == "submitted" or is_end(state)]
    return bool(turns) and turns[-1] == "submitted"


def _task(task: str, ids: list[str], whole: list[EventV1], arrived: list[EventV1]) -> TaskRow:
    mine = [event for event in whole if event.task_id == task]
    came = [event for event in arrived if event.task_id == task]
    row = TaskRow(task_id=task, events=len(mine))
    row.first_ts, row.last_ts = min(event.ts for event in mine), max(event.ts for event in mine)
    called = next((event for event in mine if event.agent or event.agent_id), None)
    if called is not None:
        row.agent, row.agent_id = called.agent or "", called.agent_id or ""
    parent = next((event.parent_task_id for event in came if event.parent_task_id), None)
    row.parent = ids.index(parent) if parent in ids else -1
    begun = next(
        (e for e in came if e.kind == "status" and state_of(e.payload) == "submitted" and e.payload["from"]), None
    )
    if begun is not None:
        row.caller, row.skill = begun.payload["from"], begun.payload.get("skill", "")
        row.path = "local" if begun.payload["to_node"] == begun.node_id else ""
    return row
