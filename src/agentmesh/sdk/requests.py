"""The requests of the HTTP API and the meaning of its answers, shared by the async and the sync client. No I/O.

A ``Request`` knows its path, its body and the type of its answer; a client only has to carry bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Generic, Literal, TypedDict, TypeVar, Unpack
from urllib.parse import quote, urlencode

import msgspec

from agentmesh.errors import Closed, DecodeError, LimitError, MeshError, NoRoute, Timeout, UsageError, from_wire
from agentmesh.sdk.context import current
from agentmesh.sdk.types import (
    AbuseReport,
    AgentDetail,
    AgentList,
    AgentView,
    BridgeChange,
    BridgeList,
    BridgeRequest,
    CallRequest,
    CancelResult,
    DiscoverFilters,
    DiscoverRequest,
    DiscoverView,
    EventsRequest,
    EventView,
    FederationView,
    GrantRequest,
    GrantView,
    HealthView,
    ImportRequest,
    ImportView,
    KeyList,
    KeyMade,
    KeyRequest,
    KeyView,
    NetView,
    OrderRequest,
    OrdersView,
    OrderTaken,
    PeerList,
    PolicyView,
    Problem,
    ReceiptList,
    Registered,
    RegisterRequest,
    Renewed,
    Reply,
    RulingView,
    RunList,
    Scope,
    SeedRequest,
    ShutdownView,
    StatusView,
    Stored,
    TenantList,
    TenantRequest,
    TenantView,
    TraceRows,
    TraceView,
    TrustList,
    TrustTier,
    TrustView,
    WeightsView,
)
from agentmesh.wire.event import EventV1

_MIB = 1024 * 1024
#: Largest bodies that a node takes, in bytes.
BODY_BYTES_MAX = 1 * _MIB
CALL_BYTES_MAX = 9 * _MIB
EVENTS_BYTES_MAX = 16 * _MIB
#: Largest answer that is read, in bytes; a trace of a long run is the largest there is.
ANSWER_BYTES_MAX = 256 * _MIB
#: Seconds to wait for an answer that needs no agent.
ANSWER_TIMEOUT_S = 30.0
#: Seconds to wait for an import, which reads documents and registers agents.
IMPORT_TIMEOUT_S = 600.0
#: Seconds granted beyond a call's own deadline before the client gives up on the daemon.
CALL_MARGIN_S = 10.0
#: Longest deadline a call can have, seconds.
CALL_TIMEOUT_S_MAX = 86_400.0
#: Seconds without a byte on a stream (the daemon sends a comment every 15 s) before it counts as dead.
STREAM_SILENCE_S = 60.0
#: Longest wait for a canceled call's task to be canceled too, in seconds.
CANCEL_TIMEOUT_S = 2.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request(Generic[T]):
    """One request: what to send, and as what to read the answer."""

    method: str
    path: str
    answer: type[T]
    body: bytes | None = None
    timeout_s: float = ANSWER_TIMEOUT_S
    headers: dict[str, str] = field(default_factory=dict[str, str])


def health() -> Request[HealthView]:
    """Ask whether the daemon answers; needs no token."""
    return Request("GET", "/health", HealthView, timeout_s=3.0)


def status() -> Request[StatusView]:
    """Ask for the node's state."""
    return Request("GET", "/api/v1/status", StatusView)


def agents(query: str = "", name: str = "", unhealthy: bool = True) -> Request[AgentList]:
    """Ask for the agents that match."""
    wanted = {"query": query, "name": name, "unhealthy": "" if unhealthy else "false"}
    return Request("GET", "/api/v1/agents" + _query(wanted), AgentList)


class DiscoverOptions(TypedDict, total=False):
    """What a search may say besides the need; fields of ``DiscoverFilters`` and ``DiscoverRequest``, which document them.

    Attributes:
        protocol, tag, skill, model, location, organisation, node: What an agent must have or be; letter case does not count.
        context_window_min: Tokens.
        price_max, budget: The most that one call may cost, US dollars in a text ("0.05").
        trust_tier: At least this one: "low", "unknown", "medium", "high", "own".
        health: "healthy" leaves out what was not checked yet.
        weights: The mix of the score: text, trust, health; the node's own when left out.
        limit, near: Most hits and near misses.
        scope: "local" asks no other node.
        time_ms: Patience with other nodes.
    """

    protocol: str
    tag: str
    skill: str
    model: str
    location: str
    organisation: str
    node: str
    context_window_min: int
    price_max: str
    budget: str
    trust_tier: TrustTier
    health: Literal["", "healthy"]
    weights: Sequence[float] | None
    limit: int
    near: int
    scope: Scope
    time_ms: int


_FILTERS = frozenset(DiscoverFilters.__struct_fields__)


def discover_request(query: str = "", **options: Unpack[DiscoverOptions]) -> DiscoverRequest:
    """Describe a search. Raises UsageError: an unknown option, or weights that are not three numbers."""
    given: dict[str, Any] = {**options}
    filters = {name: given.pop(name) for name in list(given) if name in _FILTERS}
    mix = given.pop("weights", None)
    try:
        weights = None if mix is None else WeightsView(**dict(zip(("text", "trust", "health"), mix, strict=True)))
        return DiscoverRequest(query=query, filters=DiscoverFilters(**filters), weights=weights, **given)
    except (TypeError, ValueError) as error:
        raise UsageError(f"this search makes no sense: {error}", code="discover.options") from error


def discover(request: DiscoverRequest) -> Request[DiscoverView]:
    """Find agents that meet a need."""
    timeout_s = ANSWER_TIMEOUT_S + max(0, request.time_ms) / 1_000
    return Request("POST", "/api/v1/discover", DiscoverView, body_of(request, BODY_BYTES_MAX), timeout_s)


def watch_discover(request: DiscoverRequest, *, watch: bool) -> Request[DiscoverView]:
    """Open the stream of answers to a search; with ``watch`` it goes on with every change."""
    path = "/api/v1/discover?watch=true" if watch else "/api/v1/discover"
    accept = {"Accept": "text/event-stream"}
    return Request("POST", path, DiscoverView, body_of(request, BODY_BYTES_MAX), headers=accept)


def agent(ref: str) -> Request[AgentDetail]:
    """Ask for one agent."""
    return Request("GET", f"/api/v1/agents/{segment(ref)}", AgentDetail)


def register(request: RegisterRequest) -> Request[Registered]:
    """Register the agents behind a URL."""
    return Request("POST", "/api/v1/agents", Registered, body_of(request, BODY_BYTES_MAX))


def deregister(ref: str) -> Request[AgentView]:
    """Withdraw a local agent."""
    return Request("DELETE", f"/api/v1/agents/{segment(ref)}", AgentView)


def renew(agent_id: str) -> Request[Renewed]:
    """Keep an ephemeral agent alive."""
    return Request("POST", f"/api/v1/agents/{segment(agent_id)}/renew", Renewed)


def call(request: CallRequest) -> Request[Reply]:
    """Call an agent and wait for the reply, or open the stream of its events."""
    # Without a deadline of its own the call has the node's, and the node always answers.
    timeout_s = (request.timeout_s or CALL_TIMEOUT_S_MAX) + CALL_MARGIN_S
    return Request("POST", "/api/v1/calls", Reply, body_of(request, CALL_BYTES_MAX), timeout_s)


def cancel(task_id: str) -> Request[CancelResult]:
    """Ask a task to stop."""
    return Request("POST", f"/api/v1/tasks/{segment(task_id)}/cancel", CancelResult)


class RunFilters(TypedDict, total=False):
    """Which runs are listed.

    Attributes:
        agent: Name or id of an agent that took part.
        state: States of the run, divided by commas.
        kind: Kinds of events in it, divided by commas.
        since, until: Time of the node, microseconds since 1970 UTC: runs that overlap with it.
        before: What ``RunList.next`` of the answer before says, to go on.
    """

    agent: str
    state: str
    kind: str
    since: int
    until: int
    before: int


class RowFilters(TypedDict, total=False):
    """Which rows of a run are shown.

    Attributes:
        after: Leave out rows with this ``seq`` or a lower one: what came since.
        upto: The run as it was at this ``seq``.
        start, limit: Rows to pass over, and rows of one answer, at most 20,000.
        kind, state, task: Lists divided by commas: kinds, states that a status names, ids of calls.
        agent: Name or id of the agent.
        since, until: Time of the event, microseconds since 1970 UTC.
    """

    after: int
    upto: int
    start: int
    limit: int
    kind: str
    state: str
    task: str
    agent: str
    since: int
    until: int


def runs(limit: int = 50, **filters: Unpack[RunFilters]) -> Request[RunList]:
    """Ask for the newest runs."""
    wanted = {"limit": str(limit), **_texts({**filters})}
    return Request("GET", "/api/v1/runs" + _query(wanted), RunList)


def rows(ref: str = "last", remote: bool = True, **filters: Unpack[RowFilters]) -> Request[TraceRows]:
    """Ask for a run as rows."""
    wanted = {"remote": "" if remote else "false", **_texts({**filters})}
    return Request("GET", f"/api/v1/runs/{segment(ref)}/rows" + _query(wanted), TraceRows)


def event(seq: int) -> Request[EventView]:
    """Ask for one event."""
    return Request("GET", f"/api/v1/events/{seq}", EventView)


def trace(ref: str = "last", after: int = 0, remote: bool = True) -> Request[TraceView]:
    """Ask for a run."""
    wanted = {"after": str(after) if after else "", "remote": "" if remote else "false"}
    return Request("GET", f"/api/v1/runs/{segment(ref)}/events" + _query(wanted), TraceView)


def federation() -> Request[FederationView]:
    """Ask how federation stands."""
    return Request("GET", "/api/v1/federation", FederationView)


def orders() -> Request[OrdersView]:
    """Ask for the operators that the node obeys, and their orders."""
    return Request("GET", "/api/v1/orders", OrdersView)


def take_order(order: str) -> Request[OrderTaken]:
    """Hand over an order as its operator signed it."""
    return Request("POST", "/api/v1/orders", OrderTaken, body_of(OrderRequest(order=order), BODY_BYTES_MAX))


def receipts(ref: str = "last") -> Request[ReceiptList]:
    """Ask for the receipts of a run or task."""
    return Request("GET", f"/api/v1/receipts/{segment(ref)}", ReceiptList)


def policy() -> Request[PolicyView]:
    """Ask who may call what."""
    return Request("GET", "/api/v1/policy", PolicyView)


def explain_policy(caller: str, callee: str, skill: str = "", purpose: str = "") -> Request[RulingView]:
    """Ask whether a call would pass."""
    query = urlencode({"caller": caller, "callee": callee, "skill": skill, "purpose": purpose})
    return Request("GET", f"/api/v1/policy/explain?{query}", RulingView)


def trust(ref: str) -> Request[TrustView]:
    """Ask how far the node trusts an agent or node."""
    return Request("GET", f"/api/v1/trust/{segment(ref)}", TrustView)


def trust_list(*, tier: str = "", query: str = "", limit: int = 500) -> Request[TrustList]:
    """Ask how far the node trusts every agent."""
    return Request("GET", "/api/v1/trust" + _query({"tier": tier, "query": query, "limit": str(limit)}), TrustList)


def report_abuse(ref: str, reason: str) -> Request[TrustView]:
    """Report abuse by an agent or node."""
    body = body_of(AbuseReport(reason=reason), BODY_BYTES_MAX)
    return Request("POST", f"/api/v1/trust/{segment(ref)}/reports", TrustView, body)


def store_events(events: list[EventV1]) -> Request[Stored]:
    """Store events durably."""
    return Request("POST", "/api/v1/events", Stored, body_of(EventsRequest(events=events), EVENTS_BYTES_MAX))


def peers() -> Request[PeerList]:
    """Ask for the known nodes."""
    return Request("GET", "/api/v1/peers", PeerList)


def add_seeds(seeds: list[str]) -> Request[PeerList]:
    """Connect to further nodes."""
    return Request("POST", "/api/v1/peers", PeerList, body_of(SeedRequest(seeds=seeds), BODY_BYTES_MAX))


def keys() -> Request[KeyList]:
    """Ask for the API keys, which never tells a key itself."""
    return Request("GET", "/api/v1/keys", KeyList)


def add_key(request: KeyRequest) -> Request[KeyMade]:
    """Make an API key."""
    return Request("POST", "/api/v1/keys", KeyMade, body_of(request, BODY_BYTES_MAX))


def revoke_key(name: str) -> Request[KeyView]:
    """Revoke an API key."""
    return Request("DELETE", f"/api/v1/keys/{segment(name)}", KeyView)


def tenants() -> Request[TenantList]:
    """Ask for the tenants."""
    return Request("GET", "/api/v1/tenants", TenantList)


def save_tenant(request: TenantRequest) -> Request[TenantView]:
    """Make or change a tenant."""
    return Request("POST", "/api/v1/tenants", TenantView, body_of(request, BODY_BYTES_MAX))


def remove_tenant(name: str) -> Request[TenantView]:
    """Remove a tenant."""
    return Request("DELETE", f"/api/v1/tenants/{segment(name)}", TenantView)


def bridges() -> Request[BridgeList]:
    """Ask for the bridges to other registries."""
    return Request("GET", "/api/v1/bridges", BridgeList)


def add_bridge(url: str) -> Request[BridgeChange]:
    """Open a bridge."""
    return Request("POST", "/api/v1/bridges", BridgeChange, body_of(BridgeRequest(url=url), BODY_BYTES_MAX))


def remove_bridge(url: str) -> Request[BridgeChange]:
    """Close a bridge."""
    return Request("DELETE", "/api/v1/bridges" + _query({"url": url}), BridgeChange)


def import_agents(request: ImportRequest) -> Request[ImportView]:
    """Import agents."""
    return Request("POST", "/api/v1/import", ImportView, body_of(request, BODY_BYTES_MAX), IMPORT_TIMEOUT_S)


def net() -> Request[NetView]:
    """``GET /api/v1/net``."""
    return Request("GET", "/api/v1/net", NetView)


def grant(request: GrantRequest) -> Request[GrantView]:
    """``POST /api/v1/grants``."""
    return Request("POST", "/api/v1/grants", GrantView, body_of(request, BODY_BYTES_MAX))


def shutdown() -> Request[ShutdownView]:
    """End the daemon."""
    return Request("POST", "/api/v1/shutdown", ShutdownView)


def observe(lamport: int) -> None:
    """Raise the logical time of the agent that runs here, if one does."""
    if (context := current()) is not None:
        context.observe(lamport)


def parse(request: Request[T], status: int, raw: bytes) -> T:
    """Read an answer.

    Raises:
        MeshError: what the node says went wrong, as the class it was raised with there.
        DecodeError: what answered is not a node of ours.
    """
    if status != 200:
        raise error_of_problem(raw, status)
    try:
        return msgspec.json.decode(raw, type=request.answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(
            f"the answer to {request.method} {request.path[:100]} makes no sense: {error}",
            code="daemon.answer",
            why="something else may be listening on this port, or the daemon is from another version",
            hint="agentmesh doctor",
        ) from error


def error_of_problem(raw: bytes, status: int) -> MeshError:
    """Rebuild the error that a problem describes; never raises."""
    try:
        problem = msgspec.json.decode(raw, type=Problem)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return DecodeError(
            f"HTTP {status} without an explanation",
            code="daemon.answer",
            why="something else may be listening on this port",
            hint="agentmesh doctor",
        )
    return from_wire(
        {
            **problem.extra,
            "type": problem.type.rpartition("/")[2],
            "code": problem.code,
            "message": problem.detail,
            "why": problem.why,
            "hint": problem.hint,
        }
    )


def unreachable(base: str, error: BaseException) -> NoRoute:
    """Say that nothing listens where the daemon should."""
    return NoRoute(
        f"no daemon answers at {base}", code="daemon.unreachable", why=str(error)[:300] or None, hint="agentmesh up"
    )


def broke_off(error: BaseException) -> Closed:
    """Say that the daemon went away before its answer was complete."""
    return Closed(
        "the daemon went away before it answered",
        code="daemon.closed",
        why=str(error)[:300] or type(error).__name__,
        hint="agentmesh status",
    )


def too_slow(timeout_s: float) -> Timeout:
    """Say that the daemon did not answer in time."""
    return Timeout(f"the daemon did not answer within {timeout_s:g} s", code="daemon.timeout", hint="agentmesh doctor")


def too_large() -> LimitError:
    """Say that an answer is larger than is read."""
    return LimitError(f"the answer is larger than {ANSWER_BYTES_MAX} bytes", code="daemon.answer_too_large")


class Address:
    """Where the daemon is: found once, and again when it does not answer there any more (it may have moved).

    Args:
        home: Home directory of the daemon.
        url, token: Override what the home directory says. Inside an agent, the daemon it registered with is the default.
    """

    def __init__(self, home: str | PathLike[str] | None, url: str | None, token: str | None) -> None:
        context = current()
        if context is not None and home is None and url is None and token is None:
            home, url, token = context.home, context.url, context.token
        self._asked = (home, url, token)
        self._found: tuple[str, str] | None = None

    def get(self) -> tuple[str, str]:
        """Return (base URL, token). Raises NoRoute, ConfigError or Unauthorized as ``sdk.locate``."""
        if self._found is None:
            from agentmesh.sdk.locate import locate

            self._found = locate(*self._asked)
        return self._found

    def moved(self) -> bool:
        """Look again; say whether the daemon is now somewhere else."""
        before, self._found = self._found, None
        try:
            return self.get() != before
        except MeshError:
            return False


@dataclass(slots=True)
class Following:
    """The place of a follower in the event log, across reconnects.

    Attributes:
        run: Only this run, if given.
        after: Last seq received, or where to start; None for the daemon's default.
        retry_for_s: Seconds without a connection after which it gives up.
    """

    run: str | None = None
    after: int | None = None
    retry_for_s: float = 60.0
    _delay_s: float = 0.0
    _waited_s: float = 0.0

    def request(self) -> Request[EventV1]:
        """Return the request that goes on where the last one ended."""
        headers = {"Last-Event-ID": str(self.after)} if self.after is not None else {}
        return Request("GET", "/api/v1/events/stream" + _query({"run": self.run or ""}), EventV1, headers=headers)

    def accept(self, event: EventV1) -> bool:
        """Note an event; say whether it is new."""
        self._delay_s = self._waited_s = 0.0
        if event.seq and self.after is not None and event.seq <= self.after:
            return False
        self.after = event.seq or self.after
        return True

    def next_delay_s(self, error: MeshError) -> float:
        """Return how long to wait before the next try; raise the error when it has been long enough."""
        if not isinstance(error, NoRoute | Closed | Timeout) or self._waited_s >= self.retry_for_s:
            raise error
        self._delay_s = min(max(0.1, self._delay_s * 2), 5.0)
        self._waited_s += self._delay_s
        return self._delay_s


def _texts(values: dict[str, Any]) -> dict[str, str]:
    return {name: str(value) if value else "" for name, value in values.items()}


def _query(wanted: dict[str, str]) -> str:
    given = {name: value for name, value in wanted.items() if value}
    return "?" + urlencode(given) if given else ""


def segment(ref: str) -> str:
    """Return a name or id as one segment of a path. Raises UsageError: it is none."""
    if not ref or ref in (".", ".."):
        raise UsageError(f"{ref!r} is no name or id", code="usage.ref")
    return quote(ref, safe="")


def body_of(value: msgspec.Struct, bytes_max: int) -> bytes:
    """Encode a body; raise UsageError for what is not JSON and LimitError for what no node would take."""
    try:
        body = msgspec.json.encode(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise UsageError(f"this cannot be sent as JSON: {error}", code="usage.not_json") from error
    if len(body) > bytes_max:
        raise LimitError(
            f"the request has {len(body)} bytes, at most {bytes_max} are taken",
            code="body.too_large",
            hint="send large content as a file part with a URL",
        )
    return body


def headers_of(request: Request[Any], token: str) -> dict[str, str]:
    """Return the headers of a request."""
    headers = {"Authorization": f"Bearer {token}", **request.headers}
    if request.body is not None:
        headers["Content-Type"] = "application/json"
    return headers
