"""The table of metrics, and what one scrape reads into it. ``docs/reference/metrics.md`` is written from the table.

Names follow the conventions of Prometheus: units last, counters end in ``_total``. No label ever holds what a stranger chose:
values are of a fixed set or bounded, and what is beyond the bound counts as ``other``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from agentmesh.obs.meters import Snapshot

Kind = Literal["counter", "gauge", "histogram", "gaugehistogram"]


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: As it is scraped; of a histogram without ``_bucket``, ``_sum`` and ``_count``.
        kind: Its type.
        help: What it counts.
        labels: Names of its labels.
        values: What the labels can be, for people; "" for a metric without labels.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    values: str = ""


_DIRECTION = "direction: `out` started at this node, `in` at an agent beside it"
_CODE = "code: of the error (errors.md), the 100 first that occur, then `other`"

#: Groups of the page, each with its metrics.
GROUPS: tuple[tuple[str, tuple[Metric, ...]], ...] = (
    (
        "Calls",
        (
            Metric(
                "agentmesh_calls_total",
                "counter",
                "Calls that ended. One that starts at this node and is served beside it counts both ways.",
                ("direction", "outcome", "path", "transport"),
                f"{_DIRECTION}; outcome: `completed`, `failed`, `canceled`, `rejected` or `input-required`; path: `local`, "
                "`direct`, `relayed` or `none`; transport: `iroh`, `tls`, `ws`, `memory`, `local`, `http` (brought by a program "
                "with a call token) or `none` (it reached no node)",
            ),
            Metric(
                "agentmesh_call_seconds",
                "histogram",
                "Time of calls from request to outcome, refusals included.",
                ("direction",),
                _DIRECTION,
            ),
            Metric(
                "agentmesh_call_queue_seconds",
                "histogram",
                "Time that calls spent at the guard of their agent before they began; most of them none.",
            ),
            Metric(
                "agentmesh_token_check_seconds",
                "histogram",
                "Time to verify the token of a call that came in; its count is how many were checked.",
                ("result",),
                "result: `good` or `refused`",
            ),
            Metric(
                "agentmesh_refusals_total",
                "counter",
                "Calls that this node refused, by reason.",
                ("direction", "code"),
                f"{_DIRECTION}; {_CODE}",
            ),
            Metric("agentmesh_calls_running", "gauge", "Calls under way.", ("direction",), _DIRECTION),
            Metric(
                "agentmesh_call_retries_total",
                "counter",
                "Replicas that calls from here gave up for another one.",
            ),
            Metric(
                "agentmesh_agent_calls_total",
                "counter",
                "Calls at each agent beside this node.",
                ("agent", "outcome"),
                "agent: names of agents registered here, the 100 first that are called, then `other`; outcome: as above",
            ),
            Metric(
                "agentmesh_usage_tokens_total", "counter", "Model tokens that agents beside this node say they used."
            ),
            Metric("agentmesh_usage_usd_total", "counter", "Dollars that agents beside this node say they spent."),
        ),
    ),
    (
        "Messages",
        (
            Metric(
                "agentmesh_messages_total",
                "counter",
                "Messages of this node that ended, and of all that it took (spec/mail.md §4).",
                ("what",),
                "what: `sent` (taken), `delivered`, `expired`, `dead`; `received` for agents here, `repeated`: had come before",
            ),
            Metric("agentmesh_messages_queued", "gauge", "Messages that wait to be delivered."),
            Metric("agentmesh_inbox_messages", "gauge", "Messages that wait to be read by agents here."),
            Metric("agentmesh_carried_messages", "gauge", "Sealed messages that this node keeps for others."),
            Metric("agentmesh_mail_sessions", "gauge", "End-to-end encrypted sessions that are open."),
        ),
    ),
    (
        "Shared state",
        (
            Metric(
                "agentmesh_state_operations_total",
                "counter",
                "Reads and writes of shared state that ended at this node (spec/state.md §5).",
                ("level", "outcome"),
                "level: `local`, `causal`, `quorum` or `linearizable`; outcome: `done`, `refused` or `unknown`",
            ),
            Metric(
                "agentmesh_state_refused_total",
                "counter",
                "Writes of other nodes that were not let in though nobody broke the protocol: a clock ahead, no room.",
                ("code",),
                _CODE,
            ),
            Metric("agentmesh_state_spaces", "gauge", "Spaces of which this node has a replica."),
            Metric("agentmesh_state_keys", "gauge", "Keys in them, those that were deleted of late included."),
            Metric("agentmesh_state_bytes", "gauge", "Bytes of their writes, in memory."),
            Metric("agentmesh_state_waiting", "gauge", "Reads and writes that wait for other nodes."),
        ),
    ),
    (
        "Agents and trust",
        (
            Metric(
                "agentmesh_agents",
                "gauge",
                "Agents in the directory of this node.",
                ("place", "health"),
                "place: `here` or `elsewhere`; health: `healthy`, `unhealthy` or `unknown`",
            ),
            Metric(
                "agentmesh_agents_trusted",
                "gauge",
                "Agents elsewhere, by what this node thinks of them.",
                ("tier",),
                "tier: `unknown`, `low`, `medium`, `high` or `own`",
            ),
            Metric(
                "agentmesh_agent_trust",
                "gaugehistogram",
                "Trust in the agents elsewhere, 0 to 1: how many are at or below each bound now.",
            ),
        ),
    ),
    (
        "Topics",
        (
            Metric(
                "agentmesh_topic_publications_total",
                "counter",
                "Publications made here, and those of other nodes that were taken.",
                ("direction",),
                "direction: `out` made here, `in` of others",
            ),
            Metric(
                "agentmesh_topic_refused_total",
                "counter",
                "Publications of other nodes that were dropped.",
                ("why",),
                "why: `rules` of this node or a revoked key, `rate` of the publisher",
            ),
            Metric(
                "agentmesh_topic_unflooded_total",
                "counter",
                "Publications to durable topics that were kept but, being too many, not broadcast as well.",
            ),
            Metric("agentmesh_topic_deliveries_total", "counter", "Events handed to subscribers here."),
            Metric(
                "agentmesh_topic_lost_total", "counter", "Events that subscribers lost because they read too slowly."
            ),
            Metric("agentmesh_topic_subscribers", "gauge", "Subscribers here."),
            Metric("agentmesh_topic_retained", "gauge", "Subjects whose last value is kept here."),
            Metric("agentmesh_durable_topics", "gauge", "Durable topics that are known here."),
        ),
    ),
    (
        "Directory and federation",
        (
            Metric(
                "agentmesh_directory_comparisons_total",
                "counter",
                "Comparisons of the directory that neighbours asked for.",
                ("result",),
                "result: `same` or `different`",
            ),
            Metric(
                "agentmesh_directory_lag_seconds",
                "gauge",
                "Time since a comparison last found the same as here; 0 without neighbours.",
            ),
            Metric(
                "agentmesh_directory_refused_total",
                "counter",
                "Manifests that other nodes sent and this one did not take in.",
                ("code",),
                _CODE,
            ),
            Metric(
                "agentmesh_federation_pulls_total",
                "counter",
                "Pulls of pages from seeds.",
                ("result",),
                "result: `good` or `failed`",
            ),
            Metric(
                "agentmesh_federation_lag_seconds",
                "gauge",
                "Time since the last whole pull from a seed; none before the first.",
                ("seed",),
                "seed: its address as configured, the 20 first; the worst of the rest is `other`",
            ),
        ),
    ),
    (
        "Membership and links",
        (
            Metric(
                "agentmesh_members",
                "gauge",
                "Nodes that this one watches.",
                ("state",),
                "state: `alive` or `suspect`",
            ),
            Metric("agentmesh_long_links", "gauge", "Neighbours outside the zone."),
            Metric("agentmesh_network_nodes", "gauge", "Estimate of the nodes in the whole mesh."),
            Metric("agentmesh_lost_nodes", "gauge", "Nodes that this one lost touch with."),
            Metric(
                "agentmesh_links",
                "gauge",
                "Links that are up.",
                ("path", "scope", "transport"),
                "path: `direct`, `relayed` or (in tests) `local`; scope: `mesh` or `abroad` (another mesh); transport: `iroh`, "
                "`tls`, `ws` or `memory`",
            ),
            Metric(
                "agentmesh_link_bytes_total",
                "counter",
                "Bytes over links, before encryption.",
                ("direction", "transport"),
                "direction: `sent` or `received`; transport: as above",
            ),
            Metric(
                "agentmesh_datagrams_total",
                "counter",
                "Signed datagrams.",
                ("direction",),
                "direction: `sent` or `received`",
            ),
            Metric(
                "agentmesh_datagram_bytes_total",
                "counter",
                "Bytes of datagrams, without their UDP headers.",
                ("direction",),
                "direction: `sent` or `received`",
            ),
            Metric(
                "agentmesh_datagrams_dropped_total",
                "counter",
                "Datagrams that were not sent, or not taken in.",
                ("reason",),
                "reason: one of a fixed list (docs/spec/wire.md)",
            ),
            Metric(
                "agentmesh_misbehaviour_total",
                "counter",
                "Times that another node broke the protocol.",
                ("code",),
                _CODE,
            ),
        ),
    ),
    (
        "Queues, events and audit",
        (
            Metric(
                "agentmesh_queue_depth",
                "gauge",
                "What waits.",
                ("queue",),
                "queue: `agents` calls for room at their agent; `events` for the event log's disk; `receipts` for their "
                "database; `audit` records for the disk; `discover` questions for the search process; `control` messages for "
                "slow peers",
            ),
            Metric("agentmesh_queue_limit", "gauge", "How much may wait at most.", ("queue",), "queue: as above"),
            Metric("agentmesh_events_accepted_total", "counter", "Events that the event log took."),
            Metric(
                "agentmesh_events_settled_total",
                "counter",
                "What became of accepted events.",
                ("result",),
                "result: `stored`; `known` (a copy of one that is stored); `returned` (whoever waited was told that it failed)",
            ),
            Metric(
                "agentmesh_events_lost_total",
                "counter",
                "Events that were accepted, and neither settled nor waiting: always 0.",
            ),
            Metric("agentmesh_events_stored", "gauge", "Events in the log now."),
            Metric("agentmesh_audit_records", "gauge", "Records in the audit log."),
            Metric(
                "agentmesh_audit_refusing", "gauge", "1 while the audit log cannot be written, so calls are refused."
            ),
        ),
    ),
    (
        "The daemon",
        (
            Metric(
                "agentmesh_loop_lag_seconds",
                "histogram",
                "How late the event loop came to a timer, looked at once a second.",
            ),
            Metric(
                "agentmesh_streams_open",
                "gauge",
                "Streams that are open.",
                ("kind",),
                "kind: `sse` to programs here, `peer` requests of other nodes",
            ),
            Metric("agentmesh_read_only", "gauge", "1 while the kill switch is on."),
            Metric("agentmesh_warnings", "gauge", "Sentences that `agentmesh status` warns with."),
            Metric("agentmesh_log_lines_lost_total", "counter", "Lines that daemon.log could not take."),
            Metric(
                "agentmesh_spans_total",
                "counter",
                "Spans for OpenTelemetry (reference/opentelemetry.md); all 0 where none are exported.",
                ("result",),
                "result: `sent`, `failed` after all tries, `dropped` because too many waited",
            ),
            Metric("agentmesh_spans_waiting", "gauge", "Spans that are still to be sent."),
            Metric("agentmesh_scrape_seconds", "gauge", "How long the values of this scrape took to read."),
            Metric(
                "agentmesh_build_info",
                "gauge",
                "Always 1.",
                ("version", "python", "system"),
                "version of AgentMesh and Python; system: `linux`, `darwin` or `win32`",
            ),
            Metric(
                "agentmesh_node_info",
                "gauge",
                "Always 1.",
                ("node_id", "node_name", "site"),
                "as `agentmesh status` shows them",
            ),
        ),
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for _, metrics in GROUPS for metric in metrics}

Labels = tuple[str, ...]


class Readings:
    """The values of one scrape. A value under a name or labels that the table does not have is a bug."""

    def __init__(self) -> None:
        self.values: dict[str, dict[Labels, float]] = {}
        self.histograms: dict[str, dict[Labels, Snapshot]] = {}

    def set(self, name: str, value: float, *labels: str) -> None:
        """Take the value of one series."""
        self._check(name, labels)
        self.values.setdefault(name, {})[labels] = value

    def set_all(self, name: str, values: Mapping[Labels, float]) -> None:
        """Take the values of all series of a metric."""
        for labels, value in values.items():
            self.set(name, value, *labels)

    def set_histogram(self, name: str, value: Snapshot, *labels: str) -> None:
        """Take a histogram."""
        self._check(name, labels)
        self.histograms.setdefault(name, {})[labels] = value

    @staticmethod
    def _check(name: str, labels: Labels) -> None:
        assert len(METRICS[name].labels) == len(labels), name
