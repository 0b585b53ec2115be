"""The shapes of what the console shows beside the older views: a run as rows, one event, and the live stream.

The CLI prints the same lists: rows carry no payload, ``count`` and ``digest`` are those of ``TraceView`` (docs/spec/console.md).
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from agentmesh.wire.event import EventV1


class RowBatch(msgspec.Struct, kw_only=True):
    """Events without their payloads, column by column; all columns are equally long, rows stand in the order of the run.

    Attributes:
        position: Where the event stands in the whole run as it is now, from 0; rising. Merging a later batch by position into
            the rows held gives the list of the server.
        seq: Position in this node's log: what ``GET /api/v1/events/{seq}`` is asked for.
        ts: Microseconds since 1970 UTC, of the clock of the node where it happened.
        kind: Index into ``TraceRows.kinds``.
        task: Index into ``TraceRows.tasks``; -1 for none.
        node: Index into ``TraceRows.node_ids``; -1 for none.
        state: Index into ``TraceRows.states``; -1 for events that are not a status.
        label: What a person reads in the row, at most 160 characters, one line.
        bytes: Size of the event in the log.
        index: Where the event stands among the rows that match the filters, from 0; merged like ``position`` when only those
            are held. Empty without filters, where it is the position.
    """

    position: list[int] = []
    seq: list[int] = []
    ts: list[int] = []
    kind: list[int] = []
    task: list[int] = []
    node: list[int] = []
    state: list[int] = []
    label: list[str] = []
    bytes: list[int] = []
    index: list[int] = []


class TaskRow(msgspec.Struct, kw_only=True):
    """One call of a run, for indent and bars.

    Attributes:
        task_id: Its id.
        parent: Index of the call that caused it in ``TraceRows.tasks``; -1 for none that is known.
        depth: Calls above it; 0 for the first.
        agent, agent_id: Who was called, as far as known.
        caller: Name of who called, as far as known.
        skill: Skill that was asked for, if any.
        state: Its last state; "" if none is known.
        first_ts, last_ts: Of its events, microseconds since 1970 UTC.
        events: How many it has.
        path: "local", "direct" or "relayed"; "" if unknown.
    """

    task_id: str
    parent: int = -1
    depth: int = 0
    agent: str = ""
    agent_id: str = ""
    caller: str = ""
    skill: str = ""
    state: str = ""
    first_ts: int = 0
    last_ts: int = 0
    events: int = 0
    path: str = ""


class TraceRows(msgspec.Struct, kw_only=True):
    """``GET /api/v1/runs/{ref}/rows``: a run as rows.

    Attributes:
        run_id: The full id.
        count, digest: Of the whole run as ``TraceView`` has them, whatever was asked for.
        matching: How many rows fit the filters; ``count`` without any.
        upto: Highest ``seq`` that this answer knows of: what comes later has a higher one. Pass it on as ``upto`` while
            paging, and as ``after`` to get what came since.
        rows: The rows asked for.
        more: Whether further rows that match follow the last one.
        tasks: Every call of the run, in order of first appearance; indexes stay as they are while the run grows.
        kinds, states, node_ids: What the columns point into; only ever appended to.
        nodes: Node id → name.
        missing_nodes, complete, receipts: As in ``TraceView``.
    """

    run_id: str
    count: int
    digest: str
    matching: int
    upto: int
    rows: RowBatch
    more: bool = False
    tasks: list[TaskRow] = []
    kinds: list[str] = []
    states: list[str] = []
    node_ids: list[str] = []
    nodes: dict[str, str] = {}
    missing_nodes: list[str] = []
    complete: bool = False
    receipts: int = 0


class EventView(msgspec.Struct, kw_only=True):
    """``GET /api/v1/events/{seq}``: one event whole, with its payload."""

    event: EventV1


#: What may have changed since the last tick, so that pages know what to ask for again.
Topic = Literal["runs", "agents", "peers", "orders", "trust"]


class Tick(msgspec.Struct, kw_only=True):
    """One frame of ``GET /api/v1/console/stream`` (SSE, event ``tick``, id = ``seq``): what there is to look at again.

    Sent when something changed, at most ten a second; whoever reads slowly gets fewer and wider ones, never a queue.

    Attributes:
        seq: Position of the newest event in the log.
        events: Positions of the log since the last tick.
        runs: Runs that have news since, at most 200, the newest last.
        resync: Ask for everything that is shown again: the stream begins, more runs changed than are named, or the position
            asked for is not one of this log.
        changed: What else changed.
        read_only: Whether an operator's stop is in force.
        now_ms: Wall clock of the node, milliseconds.
        instance: Random for each start of the daemon: another one means that it was started anew.
        node_name, version: Of the node.
        home: Its home directory, if a command must be told it (``--home``) to reach this node; "" if it is found without.
    """

    seq: int
    events: int = 0
    runs: list[str] = []
    resync: bool = False
    changed: list[Topic] = []
    read_only: bool = False
    now_ms: int = 0
    instance: str = ""
    node_name: str = ""
    version: str = ""
    home: str = ""


class Marks(NamedTuple):
    """How far a node's log is, and how often what people look at has changed: cheap to ask for, and to compare.

    Attributes:
        seq: The last position given in the log.
        agents, peers, orders, trust: Rise with each change; by how much means nothing.
        read_only: Whether an operator's stop is in force.
    """

    seq: int
    agents: int = 0
    peers: int = 0
    orders: int = 0
    trust: int = 0
    read_only: bool = False


class LoginLink(msgspec.Struct, kw_only=True):
    """``POST /api/v1/console/login``: a link that opens the console logged in, once.

    Attributes:
        url: ``http://127.0.0.1:PORT/console/login?code=…``.
        expires_s: Seconds for which it is good.
    """

    url: str
    expires_s: int


class SessionsEnded(msgspec.Struct, kw_only=True):
    """``POST /api/v1/console/logout`` and ``DELETE /api/v1/console/sessions``: how many sessions ended."""

    ended: int
