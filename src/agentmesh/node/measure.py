"""The part of a node that reads all that ``/metrics`` tells (``obs.metrics`` is the table).

Counters are kept where things happen; here they are read, when somebody scrapes. What takes longer with more agents is done in
slices, so that a scrape never holds up the loop for more than a few milliseconds.
"""

from __future__ import annotations

import asyncio
import platform
import sys
import time
from collections import Counter
from collections.abc import Callable

from agentmesh.errors import Closed
from agentmesh.ids import NodeId
from agentmesh.node.call_lines import CallLines
from agentmesh.node.figures import CallFigures
from agentmesh.node.status import StatusHost
from agentmesh.obs.log import Lost
from agentmesh.obs.meters import OTHER, SHARES, SHORT_S, Histogram
from agentmesh.obs.metrics import Readings
from agentmesh.store.audit import QUEUE_MAX as AUDIT_QUEUE_MAX
from agentmesh.store.calls import WAITING_MAX as RECEIPTS_WAITING_MAX

#: How long the loop is held at most before others get their turn, seconds; looked at every few agents.
_SLICE_S, _SLICE_AGENTS = 0.002, 16
_SEEDS_MAX = 20


class MeasureHost(StatusHost):
    """What ``Node`` tells of itself in figures; nothing but ``Node`` inherits it."""

    figures: CallFigures
    call_lines: CallLines

    def _begin_measures(self, node_id: NodeId, *more: Callable[[Readings], None]) -> None:
        self.figures = CallFigures(node_id, self.way_to)
        self.call_lines = CallLines(node_id, self.way_to, is_on=self.config.log_calls)
        self.loop_lag = Histogram(SHORT_S)
        #: Asked for more at each scrape, in their order; they return at once.
        self.measures: list[Callable[[Readings], None]] = [*more]
        self._measuring: asyncio.Task[Readings] | None = None

    def way_to(self, node: NodeId) -> tuple[str, str]:
        """Return path and transport of the link to a node; "none" without one."""
        peer = self.links.peer(node)
        return ("none", "none") if peer is None else (peer.link.path, peer.link.scheme)

    async def measure(self) -> Readings:
        """Return the values of all metrics. Those who ask while it is under way get the same. Raises Closed: the node stops."""
        task = self._measuring
        if task is None or task.done():
            task = self._measuring = self._scope.spawn(self._measure(), "measure")
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            asking = asyncio.current_task()
            if asking is not None and asking.cancelling():
                raise
            raise Closed("the daemon is stopping", code="daemon.stopping") from None

    async def _measure(self) -> Readings:
        began_s = time.perf_counter()
        readings = Readings()
        for read in (
            self._read_calls,
            self._read_mesh,
            self._read_traffic,
            self._read_queues,
            self._read_daemon,
            *self.measures,
        ):
            read(readings)
            await asyncio.sleep(0)
        await self._read_agents(readings)
        readings.set("agentmesh_scrape_seconds", time.perf_counter() - began_s)
        return readings

    def _read_calls(self, readings: Readings) -> None:
        figures = self.figures
        readings.set_all("agentmesh_calls_total", figures.calls.read())
        readings.set_all("agentmesh_refusals_total", figures.refusals.read())
        readings.set_all("agentmesh_agent_calls_total", figures.agents.read())
        for direction, seconds in figures.seconds.items():
            readings.set_histogram("agentmesh_call_seconds", seconds.read(), direction)
        readings.set_histogram("agentmesh_call_queue_seconds", self._guard.waits.read())
        readings.set_histogram("agentmesh_token_check_seconds", self._token_checks.good.read(), "good")
        readings.set_histogram("agentmesh_token_check_seconds", self._token_checks.refused.read(), "refused")
        readings.set("agentmesh_calls_running", self._calls.running, "out")
        readings.set("agentmesh_calls_running", self._calls.serving, "in")
        readings.set("agentmesh_call_retries_total", figures.retries)
        readings.set("agentmesh_usage_tokens_total", figures.tokens)
        readings.set("agentmesh_usage_usd_total", figures.usd_micros / 1e6)

    async def _read_agents(self, readings: Readings) -> None:
        agents: Counter[tuple[str, str]] = Counter()
        tiers: Counter[tuple[str, ...]] = Counter()
        trust = Histogram(SHARES)
        turn_s = time.perf_counter()
        for place, entry in enumerate(self.sights.entries()):
            if place % _SLICE_AGENTS == 0 and time.perf_counter() - turn_s > _SLICE_S:
                await asyncio.sleep(0)
                turn_s = time.perf_counter()
            healthy = entry.healthy
            health = "unknown" if healthy is None else "healthy" if healthy else "unhealthy"
            agents["here" if entry.local else "elsewhere", health] += 1
            if not entry.local:
                verdict = self.trust.verdict(entry.manifest.agent_id)
                trust.observe(verdict.score)
                tiers[(verdict.tier,)] += 1
        for place in ("here", "elsewhere"):
            for health in ("healthy", "unhealthy", "unknown"):
                readings.set("agentmesh_agents", agents[place, health], place, health)
        for tier in ("unknown", "low", "medium", "high", "own"):
            readings.set("agentmesh_agents_trusted", tiers[(tier,)], tier)
        readings.set_histogram("agentmesh_agent_trust", trust.read())

    def _read_mesh(self, readings: Readings) -> None:
        brain, now_s = self._brain, self.mesh.now_s
        same, different, lag_s = brain.directory.agreement(now_s)
        readings.set("agentmesh_directory_comparisons_total", same, "same")
        readings.set("agentmesh_directory_comparisons_total", different, "different")
        readings.set("agentmesh_directory_lag_seconds", lag_s)
        readings.set_all("agentmesh_directory_refused_total", self.mesh.refusals.read())
        readings.set_all("agentmesh_misbehaviour_total", self.mesh.misbehaviour.read())
        if self.federation is not None:
            pulled, failed, lags = self.federation.pulls()
            readings.set("agentmesh_federation_pulls_total", pulled, "good")
            readings.set("agentmesh_federation_pulls_total", failed, "failed")
            named = dict(list(lags.items())[:_SEEDS_MAX])
            if rest := list(lags.values())[_SEEDS_MAX:]:
                named[OTHER] = max(rest)
            for seed, seconds in named.items():
                readings.set("agentmesh_federation_lag_seconds", seconds, seed)
        states = Counter(view.state for view in brain.swim.members())
        for state in ("alive", "suspect"):
            readings.set("agentmesh_members", states[state], state)
        readings.set("agentmesh_long_links", len(brain.overlay.long_links()))
        readings.set("agentmesh_network_nodes", brain.dht.size_estimate())
        cut_off = brain.cut_off()
        readings.set("agentmesh_lost_nodes", 0 if cut_off is None else cut_off.lost)

    def _read_traffic(self, readings: Readings) -> None:
        links: Counter[tuple[str, ...]] = Counter()
        for scope, peers in (("mesh", self.links.peers()), ("abroad", self.links.abroad())):
            for peer in peers:
                links[peer.link.path, scope, peer.link.scheme] += 1
        readings.set_all("agentmesh_links", links)
        for scheme, traffic in self.links.traffic.items():
            readings.set("agentmesh_link_bytes_total", traffic.sent, "sent", scheme)
            readings.set("agentmesh_link_bytes_total", traffic.received, "received", scheme)
        if (udp := self.mesh.udp) is not None:
            readings.set("agentmesh_datagrams_total", udp.sent, "sent")
            readings.set("agentmesh_datagrams_total", udp.received, "received")
            readings.set("agentmesh_datagram_bytes_total", udp.bytes_sent, "sent")
            readings.set("agentmesh_datagram_bytes_total", udp.bytes_received, "received")
            for reason, count in udp.drops.items():
                if count:
                    readings.set("agentmesh_datagrams_dropped_total", count, reason)

    def _read_queues(self, readings: Readings) -> None:
        fate, config = self._log.fate, self._log.config
        peers = [*self.links.peers(), *self.links.abroad()]
        depths = {
            "agents": self._guard.waiting,
            "events": fate.waiting,
            "receipts": self._call_store.waiting,
            "audit": self.audit.log.waiting,
            "control": sum(peer.outbox.qsize() for peer in peers),
        }
        limits = {
            "events": config.queue_events_max,
            "receipts": RECEIPTS_WAITING_MAX,
            "audit": AUDIT_QUEUE_MAX,
        }
        for queue, depth in depths.items():
            readings.set("agentmesh_queue_depth", depth, queue)
        for queue, limit in limits.items():
            readings.set("agentmesh_queue_limit", limit, queue)
        readings.set("agentmesh_events_accepted_total", fate.accepted)
        readings.set("agentmesh_events_settled_total", fate.stored, "stored")
        readings.set("agentmesh_events_settled_total", fate.known, "known")
        readings.set("agentmesh_events_settled_total", fate.returned, "returned")
        readings.set("agentmesh_events_lost_total", fate.lost)
        readings.set("agentmesh_events_stored", self._log.count)
        head = self.audit.log.head
        readings.set("agentmesh_audit_records", 0 if head is None else head.size)
        readings.set("agentmesh_audit_refusing", self.audit.log.refusal is not None)
        readings.set("agentmesh_streams_open", sum(peer.requests for peer in peers), "peer")

    def _read_daemon(self, readings: Readings) -> None:
        readings.set_histogram("agentmesh_loop_lag_seconds", self.loop_lag.read())
        readings.set("agentmesh_read_only", self.switch.is_on)
        readings.set("agentmesh_warnings", len(self._warnings()))
        readings.set("agentmesh_log_lines_lost_total", Lost.lines)
        spans = None if self._span_kit is None else self._span_kit.view()
        for result in ("sent", "failed", "dropped"):
            readings.set("agentmesh_spans_total", 0 if spans is None else getattr(spans, result), result)
        readings.set("agentmesh_spans_waiting", 0 if spans is None else spans.waiting)
        readings.set("agentmesh_build_info", 1, self.config.version, platform.python_version(), sys.platform)
        readings.set("agentmesh_node_info", 1, self.node_id, self.config.name, self.config.site)
