"""The shapes of the HTTP API: what the daemon answers, the SDK returns and the CLI prints with ``--json``.

They live here, below node, sdk and api, because all three speak in them (adr/0004). Users of the SDK import them from
``agentmesh.sdk.types``.

One home for each shape: ``api/`` encodes these types and generates ``/openapi.json`` from them, ``sdk/`` decodes them.
Fields are only ever added; a reader ignores what it does not know.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from agentmesh.core.balance.config import Strategy
from agentmesh.wire.event import EventV1, TaskState, state_of, text_of
from agentmesh.wire.net_views import CutOffView, UdpView

AgentStatus = Literal["healthy", "unhealthy", "unknown", "gone"]
TrustLevel = Literal["own", "signed", "low"]
TrustTier = Literal["unknown", "low", "medium", "high", "own"]


class SpanExportView(msgspec.Struct, kw_only=True):
    """How spans are exported (docs/reference/opentelemetry.md).

    Attributes:
        endpoint: Where they go.
        sent, failed, dropped: Spans taken there, given up after all tries, and never tried because too many waited.
        waiting: Spans that are still to be sent.
        problem: Why the last ones were not taken; "" while they are.
    """

    endpoint: str
    sent: int = 0
    failed: int = 0
    dropped: int = 0
    waiting: int = 0
    problem: str = ""


class StatusView(msgspec.Struct, kw_only=True):
    """``GET /api/v1/status``.

    Attributes:
        node_id: did:key of this node.
        node_name: Host name or configured name.
        pid, port: The daemon's process and its HTTP port on loopback.
        version: AgentMesh version.
        uptime_s: Seconds since start.
        rss_bytes: Resident memory of the daemon.
        peers: Number of connected peers.
        agents: Number of agents this node knows, its own included.
        agents_local: Those registered here.
        addresses: Where the mesh transport can be dialled.
        seed: What another machine passes to ``--seed`` to reach this node; "" if it listens nowhere.
        home: The home directory.
        discovery: Ways in use: "mdns", "static", "exchange" (what other nodes tell).
        transports: Schemes in use.
        require_signed_registration: Whether unsigned agents are refused.
        events, last_seq: Number of stored events, and the position of the newest one in the log.
        otel: How spans are exported; null where they are not.
        warnings: Things a person should know (repaired log, clock jump, missing engine).
        zone: Zone of this node, "site/bits"; "/" while the whole mesh without sites is one zone.
        site, capacity: What this node says of itself: its place, and its tier 0 … 4 of long links.
        members: Members of its zone that are believed alive, itself included.
        long_links: Neighbours outside the zone.
        network_size: Estimate of the number of nodes in the whole mesh, itself included; null while there is none.
        cut_off: What this node lost touch with; null when it is in touch with all it knows.
        udp: Datagram counters; null without a UDP port.
        read_only: True while an operator's stop is in force here; the first warning says why.
    """

    node_id: str
    node_name: str
    pid: int
    port: int
    version: str
    uptime_s: float
    rss_bytes: int
    peers: int
    agents: int
    agents_local: int = 0
    addresses: list[str] = []
    seed: str = ""
    home: str = ""
    discovery: list[str] = []
    transports: list[str] = []
    require_signed_registration: bool = True
    events: int = 0
    last_seq: int = 0
    otel: SpanExportView | None = None
    warnings: list[str] = []
    zone: str = ""
    site: str = ""
    capacity: int = 0
    members: int = 0
    long_links: int = 0
    network_size: int | None = None
    cut_off: CutOffView | None = None
    udp: UdpView | None = None
    read_only: bool = False


class SkillView(msgspec.Struct, kw_only=True):
    """One skill of an agent (A2A AgentSkill, shortened)."""

    id: str
    name: str
    description: str = ""
    tags: list[str] = []
    examples: list[str] = []


class AgentView(msgspec.Struct, kw_only=True):
    """One agent in the directory.

    Attributes:
        agent_id, name, description, version: Who it is.
        node_id, node_name: The node it lives behind.
        skills: What it can do.
        status: "healthy" is offered for calls; "unhealthy" is shown and not offered; "unknown" before the first check.
        trust: "own" (registered on this node), "signed" (verified manifest of another node, or of a bridge), "low" (unsigned).
        trust_score, trust_tier: What this node thinks of its conduct, 0 … 1 and in a word (docs/spec/trust.md).
        organisation: did:key of the organisation that vouches for it; "" for none (docs/spec/federation.md §2).
        path: "local", "direct" or "relayed"; "unreached" when no link to its node is up.
        door: Door of a local agent ("a2a", "http", "sdk"); "" for remote ones.
        seq: The owner's sequence number of the manifest.
        lease_s: Seconds until it is dropped, while its node is not reachable; null for all others.
        detail: Why it is unhealthy, if known.
        origin: Other registry that it came from: the entry, if it came over a bridge of this node, else its kind; "" = none.
    """

    agent_id: str
    name: str
    node_id: str
    node_name: str = ""
    description: str = ""
    version: str = ""
    skills: list[SkillView] = []
    status: AgentStatus = "unknown"
    trust: TrustLevel = "signed"
    path: str = "local"
    door: str = ""
    seq: int = 0
    lease_s: float | None = None
    detail: str = ""
    trust_score: float = 0.0
    trust_tier: TrustTier = "unknown"
    organisation: str = ""
    origin: str = ""


class AgentList(msgspec.Struct, kw_only=True):
    """``GET /api/v1/agents``: all agents, or those that match the query, by name."""

    agents: list[AgentView]


class AgentDetail(msgspec.Struct, kw_only=True):
    """``GET /api/v1/agents/{name or id}``: the view, the signed manifest (A2A AgentCard) and every replica of the name."""

    agent: AgentView
    card: dict[str, Any]
    replicas: list[AgentView] = []
    a2a_url: str = ""


class RegisterRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/agents``.

    Attributes:
        url: Where the agent answers (http or https).
        door: "a2a", "http", "sdk", or "auto" to ask the URL.
        name: Overrides the name the agent gives itself (only when one agent is behind the URL).
        description: Overrides its description.
        unsigned: Register without a signature; refused unless ``require_signed_registration`` is off.
        card: A manifest that the agent signed itself (A2A AgentCard with our extension); ``url`` is still where it is called.
        ephemeral: Forget it when its process goes (SDK agents); otherwise it is kept across restarts.
        params: Further manifest params (models, context_window, pricing, qps_budget, concurrency_limit).
    """

    url: str
    door: Literal["auto", "a2a", "http", "sdk"] = "auto"
    name: str | None = None
    description: str | None = None
    unsigned: bool = False
    card: dict[str, Any] | None = None
    ephemeral: bool = False
    params: dict[str, Any] = {}


class Registered(msgspec.Struct, kw_only=True):
    """Answer to a registration: the agents behind the URL, with did:key each."""

    agents: list[AgentView]


class CallRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/calls``.

    Attributes:
        to: Agent name, ``name@node`` (node name or id prefix), or agent id.
        text: Shorthand for one text part; exactly one of text, data and parts.
        data: Shorthand for one data part.
        parts: A2A 1.0 parts in JSON form.
        skill: Skill id, if the agent has several.
        timeout_s: Whole call, 0.05 to 86400 s; null for the node's setting ``call_timeout_s``.
        context_id: Conversation to continue.
        run_id, parent_task_id, lamport, hops: Set by agents that call on: the run they are part of.
        task_id: Chosen by the caller for a safe retry: a repeated id returns the first result.
        from_agent: Name or id of the calling local agent ("" = the person or program at this node).
        stream: True for an SSE answer of EventV1, False for one Reply.
        traceparent, tracestate: W3C trace context of whoever asks: the call becomes part of that trace. What makes no sense is
            left out. Without one the headers of these names count, then the call that is being served, then a trace begins.
        metadata: JSON object passed to the agent.
        purpose: Why, in the caller's words; signed into the call token, for policies and audit. At most 512 characters.
        grants: Grants for this caller that allow the call, root first (``POST /api/v1/grants`` makes them).
        balance: How to choose among replicas; "" for the node's setting ``balance``.
        idempotent: It may safely run more than once: when the link to a replica breaks, another one is asked.
        hedge_ms: Ask a second replica after so many milliseconds without an answer, 1 to 600000; only with ``idempotent``.
        budget: What the call may use at most, its own further calls included: ``calls``, ``tokens``, ``usd_micros``,
            ``wall_ms``, each an integer from 0 to 10^15. What is left out the caller does not bound.
        priority: 0, which can wait, to 9: which of this caller's own calls goes first where they wait.
        baggage: W3C baggage that goes along with the call and with every call made from it, such as a language: at most 32
            members of at most 4096 characters together.
    """

    to: str
    text: str | None = None
    data: Any = None
    parts: list[dict[str, Any]] | None = None
    skill: str | None = None
    timeout_s: float | None = None
    context_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    parent_task_id: str | None = None
    lamport: int = 0
    hops: list[str] = []
    from_agent: str = ""
    stream: bool = False
    traceparent: str | None = None
    tracestate: str = ""
    metadata: dict[str, Any] = {}
    purpose: str = ""
    grants: list[str] = []
    balance: Strategy | Literal[""] = ""
    idempotent: bool = False
    hedge_ms: int | None = None
    budget: dict[str, Any] = {}
    priority: int = 5
    baggage: dict[str, str] = {}


class Reply(msgspec.Struct, kw_only=True):
    """The outcome of one call.

    Attributes:
        run_id, task_id, context_id: Ids to trace, cancel and continue with.
        state: Terminal state, or "input-required".
        text: The answer as text (messages, else artifacts).
        data: Data parts of the answer, in order.
        artifacts: ``[{artifact_id, name?, parts}]``.
        agent_id, agent, node_id: Who answered.
        ms: Milliseconds from request to last event, measured at the caller's node.
        path: "local", "direct" or "relayed".
        tried: Node ids of replicas that were given up first: not reached, or, if the call is idempotent, lost on the way.
        lamport: Logical time of the run after this call; an agent that goes on counts from here.
        receipt: What the callee signed of this call (compact JWS), checked and kept here; "" if it signs none.
    """

    run_id: str
    task_id: str
    state: TaskState
    text: str = ""
    data: list[Any] = []
    artifacts: list[dict[str, Any]] = []
    agent_id: str = ""
    agent: str = ""
    node_id: str = ""
    ms: float = 0.0
    path: str = "local"
    context_id: str | None = None
    tried: list[str] = []
    lamport: int = 0
    receipt: str = ""

    def __str__(self) -> str:
        return self.text


class TraceView(msgspec.Struct, kw_only=True):
    """``GET /api/v1/runs/{id}/events``: a run in order, from every node that took part and could be asked.

    Attributes:
        run_id: The full id.
        count, digest: Number of events and their digest (``wire.event.digest``) over the whole run, whatever ``after`` cut.
        events: In order; with ``after``, those whose local ``seq`` is larger.
        nodes: Node id → name of every node that took part.
        missing_nodes: Node ids that took part but could not be asked now.
        complete: True when the run has ended and no node is missing.
        receipts: How many receipts of it are kept at this node (``GET /api/v1/receipts/{run_id}``).
        trace_ids: W3C trace ids that it is part of, in order of appearance, at most 8: the run's own id unless whoever asked
            brought a trace.
    """

    run_id: str
    count: int
    digest: str
    events: list[EventV1]
    nodes: dict[str, str] = {}
    missing_nodes: list[str] = []
    complete: bool = False
    receipts: int = 0
    trace_ids: list[str] = []


class RunView(msgspec.Struct, kw_only=True):
    """One line of ``GET /api/v1/runs``, newest first.

    Attributes:
        run_id: The full id.
        first_ts, last_ts: Time of its earliest and latest event, microseconds since 1970 UTC.
        count: Events.
        agent: The agent that was called first.
        state: How its first call stands.
        tasks: Calls.
        agents: Names of agents that took part, at most 8, by name.
    """

    run_id: str
    first_ts: int
    last_ts: int
    count: int
    agent: str = ""
    state: str = ""
    tasks: int = 0
    agents: list[str] = []


class RunList(msgspec.Struct, kw_only=True):
    """``GET /api/v1/runs``.

    Attributes:
        runs: Newest first, by arrival at this node.
        total: How many runs fit the filters in all.
        next: What to pass as ``before`` to go on; 0 when these are all.
    """

    runs: list[RunView]
    total: int = 0
    next: int = 0


class SeedRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/peers``: seeds to connect to, ``did:key:…@host:port`` or ``scheme:did:key:…@host:port``."""

    seeds: list[str]


class EventsRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/events``: events to store (at most 10,000); answered after they are on disk."""

    events: list[EventV1]


class Stored(msgspec.Struct, kw_only=True):
    """How many events are now durable, and the last one's position in the log."""

    stored: int
    last_seq: int


class CancelResult(msgspec.Struct, kw_only=True):
    """``POST /api/v1/tasks/{task_id}/cancel``: whether a running task was asked to stop."""

    task_id: str
    canceled: bool


class HealthView(msgspec.Struct, kw_only=True):
    """``GET /health``: the daemon answers. Needs no token, so it says nothing that is not public."""

    status: Literal["ok"]
    version: str
    node_id: str


class Renewed(msgspec.Struct, kw_only=True):
    """``POST /api/v1/agents/{agent_id}/renew``: the lease of an ephemeral agent runs on. An unknown agent is a 404."""

    agent_id: str
    renewed: bool


class ShutdownView(msgspec.Struct, kw_only=True):
    """``POST /api/v1/shutdown``: the daemon is about to end."""

    pid: int
    stopping: bool = True


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """RFC 9457 problem details; ``code``, ``why``, ``hint`` as in ``MeshError``."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    why: str | None = None
    hint: str | None = None
    instance: str | None = None
    extra: dict[str, Any] = {}


def begins_again(event: EventV1) -> bool:
    """Say whether what was answered before this event is void, because another replica answers from here on."""
    return event.kind == "status" and event.payload.get("again") is True and state_of(event.payload) == "working"


def reply_from_events(events: list[EventV1]) -> tuple[str, list[Any], list[dict[str, Any]]]:
    """Fold the message and artifact events of one task into (text, data, artifacts).

    Text is the concatenation of message deltas, or of whole messages joined by newlines; without messages, the text of
    the artifacts. An artifact event with ``append`` extends the artifact of that id, otherwise it replaces it. Data parts
    are collected from messages, then from artifacts. Where the answer began again, what came before is void.
    """
    texts: list[str] = []
    open_delta = False
    data: list[Any] = []
    artifacts: dict[str, dict[str, Any]] = {}
    for event in events:
        if begins_again(event):
            texts, open_delta, data, artifacts = [], False, [], {}
        parts: list[dict[str, Any]] = event.payload.get("parts") or []
        if event.kind == "message" and event.payload.get("role", "agent") != "user":
            text = text_of([p for p in parts if "text" in p])
            delta = bool(event.payload.get("delta"))
            if text:
                if delta and open_delta:
                    texts[-1] += text
                else:
                    texts.append(text)
                open_delta = delta
            data.extend(p["data"] for p in parts if "data" in p)
        elif event.kind == "artifact":
            key = str(event.payload.get("artifact_id", ""))
            if event.payload.get("append") and key in artifacts:
                artifacts[key]["parts"].extend(parts)
            else:
                name = event.payload.get("name")
                artifacts[key] = {"artifact_id": key, "parts": list(parts), **({"name": name} if name else {})}
    for artifact in artifacts.values():
        data.extend(p["data"] for p in artifact["parts"] if "data" in p)
    text = "\n".join(texts) if texts else "\n".join(filter(None, (text_of(a["parts"]) for a in artifacts.values())))
    return text, data, list(artifacts.values())
