"""What a node is put together from, and what all that it offers needs.

``Node`` sets the attributes when it is made. What it offers to people and programs stands beside, one class for each
subject (``listing``, ``status``, ``history``, ``rulings``, ``tenancy``): a further part is one line here, one in
``node.py`` and one class of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from agentmesh.core.brain import Brain
from agentmesh.engines.base import CriticalStore, TopicStore
from agentmesh.ids import NodeId, short
from agentmesh.net.tasks import TaskScope
from agentmesh.node.audit import Audit
from agentmesh.node.audit_peers import AuditPeers
from agentmesh.node.borders import Border
from agentmesh.node.calls import Calls
from agentmesh.node.config import NodeConfig
from agentmesh.node.federation.federation import Federation
from agentmesh.node.grants import Grants
from agentmesh.node.guard import Guard
from agentmesh.node.killswitch import KillSwitch
from agentmesh.node.links import Links
from agentmesh.node.locks import Locks
from agentmesh.node.mail.host import MailDesk
from agentmesh.node.mesh import Mesh
from agentmesh.node.orders import Orders
from agentmesh.node.organisations import Organisations
from agentmesh.node.policy.policy import Policy
from agentmesh.node.presented import TokenCalls
from agentmesh.node.registry import Registry
from agentmesh.node.sights import Sights
from agentmesh.node.spans import SpanKit
from agentmesh.node.state.shared import SharedState
from agentmesh.node.survey import Survey
from agentmesh.node.topics.compose import TopicParts
from agentmesh.node.topics.topics import Topics
from agentmesh.node.traces import Traces
from agentmesh.node.traffic import TrafficWatch
from agentmesh.node.trust import Trust
from agentmesh.obs.meters import Checks
from agentmesh.store.calls import CallStore
from agentmesh.store.eventlog import EventLog
from agentmesh.store.state import StateStore


class Parts:
    """The parts of a node. Made only as a ``Node``."""

    node_id: NodeId
    config: NodeConfig
    discovery: list[str]
    mesh: Mesh
    links: Links
    registry: Registry
    switch: KillSwitch
    orders: Orders
    organisations: Organisations
    border: Border
    sights: Sights
    federation: Federation | None
    policy: Policy
    trust: Trust
    traffic: TrafficWatch
    audit: Audit
    critical: CriticalStore
    bus: Callable[[], TopicStore] | None
    locks: Locks
    mail: MailDesk
    topics: Topics
    _topics: TopicParts
    state: SharedState
    _brain: Brain
    _calls: Calls
    _token_calls: TokenCalls
    _guard: Guard
    _grants: Grants
    _traces: Traces
    _survey: Survey
    _audit_peers: AuditPeers
    _log: EventLog
    _state: StateStore
    _call_store: CallStore
    _token_checks: Checks
    _span_kit: SpanKit | None
    _home: Path
    _http_port: Callable[[], int]
    _started_s: float
    _scope: TaskScope

    def name_of(self, node: str) -> str:
        """Return the name of a node for people: its own claim, or the short id."""
        if node == self.node_id:
            return self.config.name
        if (name := self.mesh.names.get(node)) is not None:
            return name or short(node)
        record = self._brain.overlay.record_of(NodeId(node))
        name = record.name if record is not None else ""
        if not name and self.federation is not None:
            name = self.federation.name_of(node)
        return name or short(node)
