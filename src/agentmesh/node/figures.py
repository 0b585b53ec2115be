"""What is counted of calls while they run, for ``/metrics`` (``obs.metrics`` has the names).

Told of every call twice at most: when it ends at an agent beside this node, and when it ends for whoever started it here. An
outcome costs about a microsecond; nothing is formatted before somebody scrapes.
"""

from __future__ import annotations

from collections.abc import Callable

from agentmesh.errors import AgentCanceled, CallerError, MeshError, Refused
from agentmesh.ids import NodeId
from agentmesh.node.call import Call
from agentmesh.node.callee import Ended, Visit
from agentmesh.obs.meters import CALL_S, Counts, Histogram
from agentmesh.wire import v1

#: Own agents, and codes of errors, that are counted apart.
_NAMED_MAX = 100
#: How a call came that a program brought with its own token.
_BY_TOKEN = ("local", "http")


class CallFigures:
    """Count calls.

    Args:
        node_id: This node.
        way_to: Node id → (path, transport) of the link to it; ("", "") without one.
    """

    def __init__(self, node_id: NodeId, way_to: Callable[[NodeId], tuple[str, str]]) -> None:
        self._node_id, self._way_to = node_id, way_to
        self.calls = Counts(4)
        self.refusals = Counts(2, series_max=2 * _NAMED_MAX, open_label=1)
        self.agents = Counts(2, series_max=5 * _NAMED_MAX)
        self._named: dict[str, None] = {}
        self.seconds = {"in": Histogram(CALL_S), "out": Histogram(CALL_S)}
        self.retries = self.tokens = self.usd_micros = 0

    # At an agent beside this node

    def served(self, visit: Visit, ended: Ended) -> None:
        """Take note of how a call ended that came to an agent beside this node."""
        outcome = ended.state
        peer = visit.peer
        if peer == self._node_id:
            path, transport = "local", "local"
        else:
            path, transport = self._way_to(peer) if peer else _BY_TOKEN
        self.calls.add(("in", outcome, path, transport))
        witness = visit.witness
        self.seconds["in"].observe(witness.wall_s)
        self.agents.add((self._name(visit.agent.manifest.name), outcome))
        if outcome == "rejected" and ended.error is not None:
            self.refusals.add(("in", ended.error.code))
        if (used := witness.usage) is not None:
            self.tokens += used.tokens
            self.usd_micros += used.usd_micros

    def turned_away(self, peer: NodeId, message: v1.CallOpen, error: MeshError) -> None:
        """Take note of a call whose token does not hold, or that names no agent here."""
        path, transport = self._way_to(peer) if peer != self._node_id else _BY_TOKEN
        self.calls.add(("in", "rejected", path, transport))
        self.refusals.add(("in", error.code))

    def _name(self, name: str) -> str:
        if name not in self._named:
            if len(self._named) >= _NAMED_MAX:
                return "other"
            self._named[name] = None
        return name

    # For whoever started it here

    def made(self, call: Call) -> None:
        """Take note of how a call ended that was started here."""
        path = "none" if call.transport == "none" else call.path
        self.calls.add(("out", outcome_of(call), path, call.transport))
        self.seconds["out"].observe(call.seconds)
        if call.tried:
            self.retries += len(call.tried)

    def unstarted(self, error: MeshError) -> None:
        """Take note of a call that was not started; one that was asked for in a wrong way is none."""
        if isinstance(error, CallerError):
            return
        outcome = "rejected" if isinstance(error, Refused) else "failed"
        self.calls.add(("out", outcome, "none", "none"))
        if outcome == "rejected":
            self.refusals.add(("out", error.code))


def outcome_of(call: Call) -> str:
    """Return how a call ended, in one of five words."""
    if call.state is not None:
        return call.state
    if call.error is None:
        return "completed"
    if isinstance(call.error, AgentCanceled):
        return "canceled"
    return "rejected" if isinstance(call.error, Refused) else "failed"
