"""Who calls whom at this node, taken down as it happens: calls at agents here and calls that leave (``core.traffic``).

It is a check that refuses nobody, a recorder (``node.callee``) and a watcher of calls that leave (``node.calls``). A call from
one agent here to another is met once, at its callee; one between two nodes once at each.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from agentmesh.core.traffic.table import Edge, Outcome, Traffic, Way
from agentmesh.errors import AgentCanceled, MeshError, Refused, problem_type
from agentmesh.ids import NodeId
from agentmesh.node.attempt import Attempt, Untouched
from agentmesh.node.callee import Ended, Visit
from agentmesh.node.links import Links
from agentmesh.node.registry import Registry
from agentmesh.wire import v1

#: Codes come from other nodes too, and are shown to people.
_CODE = re.compile(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+){0,3}")
_CODE_CHARS_MAX = 64
#: How calls end that an agent answered, and all others that have a name of their own.
_ANSWERED: dict[str, Outcome] = {"completed": "ok", "input-required": "ok", "failed": "failed"}
_OUTCOMES: dict[str, Outcome] = {**_ANSWERED, "rejected": "refused", "canceled": "canceled"}


class TrafficWatch:
    """Keep the table of one node.

    Args:
        node_id: This node.
        registry: The agents beside it.
        links: Say how calls from other nodes travel.
        mono_s: The clock.
    """

    def __init__(
        self, node_id: NodeId, registry: Registry, links: Links, mono_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._node_id, self._registry, self._links, self.mono_s = node_id, registry, links, mono_s
        self.table = Traffic(node_id, mono_s())
        self._visits: dict[Visit, tuple[Edge, float]] = {}
        self._tries: dict[Attempt, tuple[Edge, float]] = {}

    @property
    def running(self) -> int:
        """Calls under way, at agents here and elsewhere."""
        return len(self._visits) + len(self._tries)

    # Calls at agents beside this node

    async def enter(self, visit: Visit) -> None:
        """Take note that a call begins."""
        now_s = self.mono_s()
        edge = self._edge_of(visit, now_s)
        self.table.begin(edge, visit.message.run_id, now_s)
        self._visits[visit] = edge, now_s

    def leave(self, visit: Visit, ended: Ended) -> None:
        """Nothing: ``ended`` counts."""

    async def ended(self, visit: Visit, ended: Ended) -> None:
        """Count a call that is over, or that was refused before any work; one whose outcome was told again is none."""
        begun = self._visits.pop(visit, None)
        now_s = self.mono_s()
        if begun is None:
            if ended.state == "rejected":
                self._refused(ended.error, now_s)
                self.table.count(self._edge_of(visit, now_s), "refused", self._way_of(visit.peer), None, now_s)
            return
        edge, began_s = begun
        outcome = _OUTCOMES.get(ended.state, "failed")
        if outcome == "refused":
            self._refused(ended.error, now_s)
        took_s = now_s - began_s if ended.state in _ANSWERED else None
        self.table.end(edge, outcome, self._way_of(visit.peer), took_s, now_s)

    async def turned_away(self, peer: NodeId, message: v1.CallOpen, error: MeshError) -> None:
        """Count a call whose token does not hold; what it says of its caller is a claim, so its node stands for it."""
        now_s = self.mono_s()
        self._refused(error, now_s)
        if self._registry.get(message.agent_id) is None or peer == self._node_id:
            self.table.count_unplaced(now_s)
            return
        edge = self.table.edge(peer, peer, message.agent_id, self._node_id, now_s)
        self.table.count(edge, "refused", self._way_of(peer), None, now_s)

    def _edge_of(self, visit: Visit, now_s: float) -> Edge:
        """Return the edge of a call; its caller is who signed it, and of calls that stay here who made it."""
        message, manifest = visit.message, visit.agent.manifest
        caller = message.caller if visit.peer == self._node_id else visit.token.caller
        edge = self.table.edge(caller, visit.peer, manifest.agent_id, self._node_id, now_s)
        if not edge.callee_name:
            edge.callee_name = manifest.name
            edge.caller_name = message.caller_name if visit.peer == self._node_id else ""
        return edge

    def _way_of(self, peer: NodeId) -> Way:
        if peer in ("", self._node_id):
            return "local"
        linked = self._links.peer(peer)
        return "" if linked is None else linked.link.path

    # Calls that leave

    def goes(self, attempt: Attempt) -> None:
        """Take note that a try of a call leaves. Never raises."""
        now_s = self.mono_s()
        message, manifest = attempt.message, attempt.candidate.entry.manifest
        edge = self.table.edge(message.caller, self._node_id, manifest.agent_id, manifest.node_id, now_s)
        if not edge.callee_name:
            edge.caller_name, edge.callee_name = message.caller_name, manifest.name
        self.table.begin(edge, message.run_id, now_s)
        self._tries[attempt] = edge, now_s

    def went(self, attempt: Attempt, error: BaseException | None) -> None:
        """Count a try that is over. Never raises."""
        begun = self._tries.pop(attempt, None)
        if begun is None:
            return
        edge, began_s = begun
        now_s = self.mono_s()
        way: Way = attempt.path  # pyright: ignore[reportAssignmentType] a way of ``net.base.PathKind``
        if error is None and attempt.state in _ANSWERED:
            self.table.end(edge, _ANSWERED[attempt.state], way, now_s - began_s, now_s)
            return
        reason = error.reason if isinstance(error, Untouched) else error
        if isinstance(reason, Refused):
            outcome: Outcome = "refused"
        elif attempt.state:
            outcome = _OUTCOMES.get(attempt.state, "failed")
        elif isinstance(reason, AgentCanceled) or not isinstance(reason, MeshError):
            outcome = "canceled"
        else:
            outcome = "failed"
        if outcome == "refused":
            self._refused(reason if isinstance(reason, MeshError) else None, now_s)
        if isinstance(error, Untouched):
            way = ""
        answered = outcome in ("ok", "failed") and way
        self.table.end(edge, outcome, way, now_s - began_s if answered else None, now_s)

    def refused(self, error: MeshError) -> None:
        """Count a call that was refused here before it went anywhere."""
        now_s = self.mono_s()
        self._refused(error, now_s)
        self.table.count_unplaced(now_s)

    def _refused(self, error: MeshError | None, now_s: float) -> None:
        self.table.refuse(_reason_of(error), now_s)


def _reason_of(error: MeshError | None) -> str:
    """Return the code of a refusal; where another node says one that is none, the kind of its error."""
    if error is None:
        return "rejected"
    code = error.code
    if len(code) <= _CODE_CHARS_MAX and _CODE.fullmatch(code):
        return code
    return problem_type(error).rpartition("/")[2]
