"""Rows of a run from its events."""

from __future__ import annotations

from collections.abc import Sequence

from agentmesh.wire.console_views import RowBatch, TaskRow, TraceRows
from agentmesh.wire.event import EventV1, encode_json, state_of
from agentmesh.wire.rows import RowQuery, label
from agentmesh.wire.views import TraceView


def rows_of(view: TraceView, upto: int, query: RowQuery) -> TraceRows:
    """Return the rows of a run that is told whole, in its order."""
    upto = min(query.upto, upto) if query.upto else upto
    events = [event for event in view.events if event.seq <= upto]
    by_arrival = sorted(events, key=lambda event: event.seq)
    kinds = list(dict.fromkeys(event.kind for event in by_arrival))
    states = list(dict.fromkeys(state_of(event.payload) for event in by_arrival if event.kind == "status"))
    nodes = list(dict.fromkeys(event.node_id for event in by_arrival if event.node_id))
    ids = list(dict.fromkeys(event.task_id for event in by_arrival if event.task_id is not None))
    tasks = {task: TaskRow(task_id=task) for task in ids}
    _fill(tasks, events, view.nodes)
    matching = [(place, event) for place, event in enumerate(events) if _fits(event, query)]
    index = {event.seq: number for number, (_, event) in enumerate(matching)}
    asked = [(place, event) for place, event in matching if event.seq > query.after]
    shown = asked[query.start : query.start + query.limit]
    numbers = {task: number for number, task in enumerate(ids)}
    batch = RowBatch(
        position=[place for place, _ in shown],
        seq=[event.seq for _, event in shown],
        ts=[event.ts for _, event in shown],
        kind=[kinds.index(event.kind) for _, event in shown],
        task=[-1 if event.task_id is None else numbers[event.task_id] for _, event in shown],
        node=[nodes.index(event.node_id) if event.node_id else -1 for _, event in shown],
        state=[states.index(state_of(event.payload)) if event.kind == "status" else -1 for _, event in shown],
        label=[label(event) for _, event in shown],
        bytes=[len(encode_json(event)) + 1 for _, event in shown],
        index=[index[event.seq] for _, event in shown] if any(query.filters) else [],
    )
    return TraceRows(
        run_id=view.run_id,
        count=view.count,
        digest=view.digest,
        matching=len(matching),
        upto=upto,
        rows=batch,
        more=query.start + query.limit < len(asked),
        tasks=list(tasks.values()),
        kinds=list(kinds),
        states=states,
        node_ids=nodes,
        nodes=view.nodes,
        missing_nodes=view.missing_nodes,
        complete=view.complete,
        receipts=view.receipts,
    )


def _fits(event: EventV1, query: RowQuery) -> bool:
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


def _fill(tasks: dict[str, TaskRow], events: Sequence[EventV1], nodes: dict[str, str]) -> None:
    numbers = {task: number for number, task in enumerate(tasks)}
    homes: dict[str, str] = {}
    for event in events:
        if event.task_id is None:
            continue
        row = tasks[event.task_id]
        row.events += 1
        row.first_ts = min(row.first_ts or event.ts, event.ts)
        row.last_ts = max(row.last_ts, event.ts)
        row.agent, row.agent_id = row.agent or event.agent or "", row.agent_id or event.agent_id or ""
        if event.parent_task_id in numbers and row.parent < 0:
            row.parent = numbers[event.parent_task_id]
        if event.kind == "status":
            row.state = state_of(event.payload) or row.state
            if row.state == "submitted":
                row.caller, row.skill = (
                    str(event.payload.get("from") or "")[:120],
                    str(event.payload.get("skill") or "")[:120],
                )
                homes[row.task_id] = event.node_id
                row.path = "local" if event.payload.get("to_node") == event.node_id else "direct"
    for row in tasks.values():
        seen, above = {row.task_id}, row.parent
        while above >= 0 and (parent := list(tasks.values())[above]).task_id not in seen:
            seen.add(parent.task_id)
            row.depth += 1
            above = parent.parent
