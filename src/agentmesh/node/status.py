"""The part of a node that tells how it stands, which nodes it knows and which orders it obeys."""

from __future__ import annotations

import os
import time

from agentmesh.errors import UsageError
from agentmesh.net.addresses import format_seed, parse_seed
from agentmesh.node.operator import resume_order, stop_order
from agentmesh.node.orders import OPERATOR_KEY_FILE
from agentmesh.node.parts import Parts
from agentmesh.node.peers import known_peers
from agentmesh.node.views import cut_off_view
from agentmesh.obs.resident import rss_bytes
from agentmesh.wire.console_views import Marks
from agentmesh.wire.federation import FederationView
from agentmesh.wire.net_views import NetView, PeerView
from agentmesh.wire.order_views import KillSwitchRequest, OrdersView, OrderTaken
from agentmesh.wire.views import StatusView

_SEEDS_MAX = 1_000


class StatusHost(Parts):
    """What ``Node`` tells of itself and of other nodes; nothing but ``Node`` inherits it."""

    def status(self) -> StatusView:
        """Return the state of this node."""
        addresses, brain = self.links.addresses, self._brain
        _, _, members = brain.overlay.zone()
        return StatusView(
            node_id=self.node_id,
            node_name=self.config.name,
            pid=os.getpid(),
            port=self._http_port(),
            version=self.config.version,
            uptime_s=round(time.monotonic() - self._started_s, 3),
            rss_bytes=rss_bytes(),
            peers=sum(1 for _ in self.links.peers()),
            agents=len(self._brain.entries()),
            agents_local=len(self.registry.agents()),
            addresses=addresses,
            seed=format_seed(self.node_id, addresses[0]) if addresses else "",
            zone=brain.overlay.zone_name,
            site=self.config.site,
            capacity=self.config.capacity,
            members=len(members),
            long_links=len(brain.overlay.long_links()),
            network_size=brain.dht.size_estimate(),
            cut_off=cut_off_view(brain.cut_off(), now_s=self.mesh.now_s, unix_s=time.time()),
            udp=self.mesh.udp_view(),
            home=str(self._home),
            discovery=list(self.discovery),
            transports=[t.scheme for t in self.links.transports],
            require_signed_registration=self.config.require_signed_registration,
            read_only=self.switch.is_on,
            events=self._log.count,
            last_seq=self._log.last_seq,
            otel=None if self._span_kit is None else self._span_kit.view(),
            warnings=self._warnings(),
        )

    def _warnings(self) -> list[str]:
        warnings = [
            *self.orders.warnings(),
            *self.mesh.warnings,
            *self._log.report.sentences,
            *self._state.report,
            *self.links.warnings,
            *self.registry.warnings,
            *self.organisations.warnings(),
            *(self.federation.warnings() if self.federation is not None else ()),
            *self._guard.warnings,
            *self.audit.warnings,
            *self.critical.warnings,
            *(() if self._span_kit is None else self._span_kit.warnings()),
            *self._audit_peers.warnings(self.name_of),
            *self.policy.warnings(connected=any(True for _ in self.links.peers())),
        ]
        warnings += self.mesh.peer_warnings(self.name_of)
        return warnings

    def marks(self) -> Marks:
        """Return how far the log is, and how often what people look at has changed."""
        return Marks(
            self._log.last_seq,
            self.mesh.agents_changed,
            self.mesh.peers_changed,
            self.orders.changes,
            self.trust.changes,
            self.switch.is_on,
        )

    def federation_view(self) -> FederationView:
        """Return how federation stands."""
        if self.federation is None:
            return FederationView(organisation=self.organisations.own)
        return self.federation.view()

    def peers(self) -> list[PeerView]:
        """Return every node known: zone mates, long links, other links, then the rest."""
        return known_peers(self._brain, self.links, self.mesh, self.name_of)

    async def net(self) -> NetView:
        """Ask node after node for its neighbours and return the shape of the mesh."""
        return await self._survey.net()

    async def add_seeds(self, seeds: list[str]) -> None:
        """Learn addresses of nodes from a person or a file and dial them.

        Raises:
            UsageError: too many, or one is malformed. None was taken.
        """
        if len(seeds) > _SEEDS_MAX:
            raise UsageError(f"{len(seeds)} seeds, at most {_SEEDS_MAX} are taken", code="seed.too_many")
        for contact in [parse_seed(seed) for seed in seeds]:
            self.mesh.hint(contact.node_id, contact.addresses, "static")

    async def take_order(self, raw: str) -> OrderTaken:
        """Obey and spread an order that an operator hands over (see ``Orders.submit``)."""
        return self.orders.submit(raw)

    async def kill_switch(self, request: KillSwitchRequest, by: str) -> OrderTaken:
        """Sign a stop or its end with the operator's key of this home, obey it and spread it; ``by`` is who asked.

        Raises:
            RecordNotFound, ConfigError: there is no key that can be used (codes "operator.none", "key.*"). No state changed.
            UsageError: the request makes no sense. No state changed.
            Unauthorized, ReplayError: this node does not obey that key, or a newer order is in force. No state changed.
        """
        path, known = self._home / OPERATOR_KEY_FILE, self.orders.view()
        # On the loop, as the order's own sync is: a stop waits for no thread.
        if request.on:
            raw = stop_order(path, known, reason=request.reason, for_s=request.for_s, local=request.local)
        else:
            raw = resume_order(path, known, local=request.local)
        taken = self.orders.submit(raw)
        self.audit.note_soon(
            "killswitch", self.node_id, event="on" if request.on else "off", by=by, jti=taken.order.jti
        )
        return taken

    def orders_view(self) -> OrdersView:
        """Return the orders in force here."""
        return self.orders.view()
