"""Federation of one node, put together: the rules, what partners see, what seeds tell, hints, and the check of calls from abroad.

Everything is off until somebody writes federation.toml or names a seed: then nothing runs but a look at the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from agentmesh.core.brain import Brain
from agentmesh.core.federation.config import FederationConfig
from agentmesh.errors import AgentNotFound, MeshError
from agentmesh.identity.federation_proof import Asked, sign_ask
from agentmesh.identity.jws import b64url
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.order import Order
from agentmesh.identity.trust_statement import EVIDENCE_MAX, TrustRow, sign_trust_statement
from agentmesh.ids import NodeId
from agentmesh.net.tasks import TaskScope
from agentmesh.node.callee import Ended, Visit
from agentmesh.node.federation.desk import PUSH_PATH, Desk
from agentmesh.node.federation.exports import Exports
from agentmesh.node.federation.imports import Fetch, Imports, failure_of
from agentmesh.node.federation.rules import Partner, RulesFile
from agentmesh.node.orders import Orders
from agentmesh.node.organisations import Organisations
from agentmesh.node.trust import Trust
from agentmesh.store.federation import FederationStore
from agentmesh.wire.federation import FederationView, PartnerView, Push

_log = logging.getLogger("agentmesh.federation")

#: How long changes are gathered before a partner is told that there are some, seconds.
HINT_AFTER_S = 0.1
#: Tries of one hint, and the pauses between them, seconds; who cannot be told asks by itself later.
_HINT_PAUSES_S = (0.5, 2.0, 8.0)
_HINT_TIMEOUT_S = 5.0
_HINT_BYTES_MAX = 64 * 1024
#: Subjects of one statement of evidence, and the least that is told of one (as in ``node.hearsay``).
_ROWS_MAX = 256
_ROW_MIN = 0.05
_NAMES_MAX = 100

LowTrust = Literal["drop", "mark"]


class FederationKit(NamedTuple):
    """What federation needs from outside the node.

    Attributes:
        store: Keeps what was pulled.
        fetch: Asks over HTTP.
        seeds: Of the settings.
        interval_s: How often seeds are asked.
        trust_min: Least trust of a federated agent, 0 … 1.
        low: What becomes of one with less: not shown, or shown as "low".
    """

    store: FederationStore
    fetch: Fetch
    seeds: tuple[str, ...] = ()
    interval_s: float = 30.0
    trust_min: float = 0.0
    low: LowTrust = "drop"


class Federation:
    """Show agents to partners, and take in what seeds show.

    Args:
        key: This node's.
        kit: Store, client and settings.
        rules: federation.toml.
        brain: The mesh.
        organisations: Who is whose.
        orders: Revocations.
        trust: What this node thinks of agents.
        take_evidence: Takes a node's trust statement, as from a neighbour.
        is_abroad: Whether a node is of another mesh.
        on_agent: Called with federated agents that appeared, changed or went.
        on_border: Called when other nodes are of another mesh than before.
    """

    def __init__(
        self,
        key: KeyPair,
        kit: FederationKit,
        rules: Path,
        brain: Brain,
        organisations: Organisations,
        orders: Orders,
        trust: Trust,
        *,
        take_evidence: Callable[[NodeId, list[str]], object],
        is_abroad: Callable[[str], bool],
        on_agent: Callable[[str], None] = lambda _: None,
        on_border: Callable[[], None] = lambda: None,
    ) -> None:
        self._on_agent, self._on_border = on_agent, on_border
        self._key, self._kit, self._brain, self._organisations = key, kit, brain, organisations
        self._orders, self._trust, self._is_abroad = orders, trust, is_abroad
        self._evidence_to = take_evidence
        self._rules = RulesFile(rules, kit.seeds)
        self._scope = TaskScope("hints")
        self._hinting: dict[str, bool] = {}
        self._hint_problems: dict[str, str] = {}
        self._state: object = None
        self._judging = False
        self.exports = Exports(self, os.urandom(32), self._hint_later)
        self.desk = Desk(
            key,
            self.exports,
            lambda: self._rules.rules,
            voucher=lambda: organisations.shown,
            refusal_of=orders.refusal_of,
            orders=lambda: orders.revocations_of(organisations.own or "-"),
            evidence=self._evidence,
            on_push=self._on_push,
            is_seed=lambda asked: self.imports.is_source(asked.organisation, asked.node),
        )
        self.imports = Imports(
            key,
            kit.store,
            kit.fetch,
            FederationConfig(interval_s=kit.interval_s),
            voucher=lambda: organisations.shown,
            refusal_of=orders.refusal_of,
            trusts=lambda agent: kit.low == "mark" or not self.is_low(agent),
            on_change=self._on_imported,
            on_member=organisations.note,
            on_order=self._on_order,
            on_evidence=self._take_evidence,
        )

    def open(self) -> None:
        """Look at the rules and begin to pull."""
        self.refresh()
        self.imports.reload(list(self._rules.rules.seeds.values()))

    def refresh(self) -> None:
        """Look at the file, and whether somebody was revoked or this node belongs elsewhere now. Called every few seconds."""
        if self._rules.refresh():
            self.exports.reload(self._rules.rules)
            self.imports.reload(list(self._rules.rules.seeds.values()))
            self._on_border()
        state = (self._organisations.own, self._orders.revoked, self._orders.taken_back)
        if state != self._state:
            self._state = state
            self.exports.refresh()
            self.imports.refresh()

    def _on_imported(self, agent: str) -> None:
        self.exports.changed(agent)
        self._on_agent(agent)

    def changed(self, agent: str) -> None:
        """Take note that an agent of this mesh appeared, changed or went."""
        self.exports.changed(agent)

    # What could be shown (``exports.Known``)

    def manifests(self) -> Sequence[Manifest]:
        """Return the manifests of every agent that could be shown."""
        return [entry.manifest for entry in (*self._brain.entries(), *self.imports.entries())]

    def record(self, agent: str) -> Manifest | None:
        """Return the newest record of an agent, be it a tombstone."""
        entry = self._brain.directory.table.get(agent)
        if entry is not None:
            return entry.manifest
        federated = self.imports.entry(agent)
        return None if federated is None else federated.manifest

    def may_show(self, manifest: Manifest, partner: Partner) -> bool:
        """Say whether this node may speak for an agent to a partner whose list names it."""
        refusal_of = self._orders.refusal_of
        if refusal_of(manifest.agent_id) is not None or refusal_of(manifest.node_id) is not None:
            return False
        own, theirs = self._organisations.own, ""
        with contextlib.suppress(MeshError):
            member = self._organisations.look(manifest)
            theirs = "" if member is None else member.organisation
        entry = self._brain.entry(manifest.agent_id)
        if entry is None:
            federated = self.imports.entry(manifest.agent_id)
            named = manifest.agent_id in partner.ids and theirs != partner.key
            return federated is not None and federated.federated.reshare and named
        return theirs == own if own else entry.local

    def node(self, node: NodeId) -> NodeRecord | None:
        """Return what a node says of itself."""
        if node == self._brain.node_id:
            return self._brain.record
        return self._brain.overlay.record_of(node) or self.imports.node(node)

    # Borders (``node.borders.Partners``)

    def is_partner(self, organisation: str, node: str) -> bool:
        """Say whether an organisation or a single node is a partner, or a seed's."""
        return self.desk.partner_of(organisation, node) is not None or self.imports.is_source(organisation, node)

    def addresses_of(self, node: NodeId) -> tuple[str, ...]:
        """Return where a node may be reached that a seed told of."""
        return self.imports.addresses_of(node)

    def organisations(self) -> list[str]:
        """Return the organisations of seeds and partners: their revocations count here."""
        return [*self.imports.organisations(), *self._rules.rules.partners]

    def name_of(self, node: str) -> str:
        """Return what a federated node calls itself; "" if it is none."""
        record = self.imports.node(NodeId(node))
        return "" if record is None else record.name

    def is_low(self, agent: str) -> bool:
        """Say whether an agent is trusted less than federated ones must be."""
        least = self._kit.trust_min
        if least <= 0 or self._judging:
            return False  # a verdict looks up where the agent lives, and so comes by here again
        self._judging = True
        try:
            return self._trust.verdict(agent).score < least
        finally:
            self._judging = False

    # What seeds and partners say

    def _on_order(self, order: Order) -> None:
        with contextlib.suppress(MeshError):  # older than what is in force, or of an organisation that is one too many
            self._orders.submit(order.raw)

    def _take_evidence(self, node: NodeId, raw: str) -> None:
        self._evidence_to(node, [raw])

    def _on_push(self, asked: Asked, push: Push) -> int:
        return self.imports.heard(asked.organisation, asked.node, push.entries)

    def _evidence(self, agents: list[str]) -> str:
        """Return a statement of what this node saw of these agents; "" if nothing. It is advice; its own do not count."""
        ledger, now_s, unix_s = self._trust.opinions.ledger, self._trust.now_s, time.time()
        wanted = dict.fromkeys(agents)
        rows: list[TrustRow] = []
        for subject, tally in ledger.heaviest(len(wanted) + _ROWS_MAX, now_s):
            sums = ledger.sums(subject, now_s)
            if subject not in wanted or tally.node == self._key.did or sums.good + sums.bad < _ROW_MIN:
                continue
            since = max(1, int(unix_s - max(0.0, now_s - tally.since_s)))
            good, bad = (min(EVIDENCE_MAX, round(one * 1_000)) for one in sums)
            rows.append(TrustRow(subject, tally.node, good, bad, since))
            if len(rows) >= _ROWS_MAX:
                break
        if not rows:
            return ""
        with contextlib.suppress(MeshError):
            return sign_trust_statement(self._key, sorted(rows), seq=int(unix_s * 1000), iat=int(unix_s))
        return ""

    # Hints to partners

    def _hint_later(self, key: str) -> None:
        """Tell a partner soon that something changed; once for all that changes meanwhile."""
        partner = self._rules.rules.partners.get(key)
        if partner is None or not partner.hint:
            return
        if key in self._hinting:
            self._hinting[key] = True
            return
        with contextlib.suppress(MeshError):  # the node shuts down
            self._scope.spawn(self._hint(partner), "hint")
            self._hinting[key] = False

    async def _hint(self, partner: Partner) -> None:
        again = True
        try:
            while again:
                await asyncio.sleep(HINT_AFTER_S)
                self._hinting[partner.key] = False
                await self._send_hint(partner)
                again = self._hinting[partner.key]
        finally:
            self._hinting.pop(partner.key, None)

    async def _send_hint(self, partner: Partner) -> None:
        for pause_s in (0.0, *_HINT_PAUSES_S):
            await asyncio.sleep(pause_s)
            try:
                await self._post(partner, b"{}")
            except MeshError as error:
                self._hint_problems[partner.key] = f"{error.code}: {error.detail}"[:300]
                continue
            self._hint_problems.pop(partner.key, None)
            return
        _log.info("partner %s cannot be told of changes: %s", partner.name, self._hint_problems[partner.key])

    async def _post(self, partner: Partner, body: bytes) -> None:
        url = f"{partner.hint}{PUSH_PATH}"
        proof = sign_ask(
            self._key,
            method="POST",
            url=url,
            jti=b64url(os.urandom(16)),
            iat=int(time.time()),
            voucher=self._organisations.shown,
            body=body,
        )
        headers = {"DPoP": proof, "Content-Type": "application/json"}
        answer = await self._kit.fetch("POST", url, headers, body, timeout_s=_HINT_TIMEOUT_S, bytes_max=_HINT_BYTES_MAX)
        if answer.status != 200:
            raise failure_of(answer)

    # What people see

    def pulls(self) -> tuple[int, int, dict[str, float]]:
        """Return how many pulls brought a page, how many failed, and the seconds since the last whole one of each seed."""
        return self.imports.pulled, self.imports.failed, self.imports.lags()

    def view(self) -> FederationView:
        """Return how federation stands."""
        now_s = time.monotonic()
        partners: list[PartnerView] = []
        for key, partner in self._rules.rules.partners.items():
            visitor, feed = self.desk.visitors.get(key), self.exports.feeds.get(key)
            shown = self.exports.shown(key)
            records = [self.record(agent) for agent in shown[:_NAMES_MAX]]
            partners.append(
                PartnerView(
                    name=partner.name,
                    key=key,
                    agents=sorted(record.name for record in records if record is not None),
                    count=len(shown),
                    pulled_s=None
                    if visitor is None or visitor.pulled_s is None
                    else round(now_s - visitor.pulled_s, 3),
                    behind=0 if feed is None else len(feed.after(visitor.rev if visitor is not None else 0)),
                    refused=0 if visitor is None else visitor.refused,
                    hint=self._hint_problems.get(key, ""),
                )
            )
        return FederationView(
            organisation=self._organisations.own,
            listen=self.desk.origin,
            seeds=self.imports.views(),
            partners=partners,
            problem=self._rules.problem,
        )

    def warnings(self) -> list[str]:
        """Return what a person should know."""
        found = [f"{self._rules.problem}; the former rules stay in force"] if self._rules.problem else []
        for seed in self.imports.views():
            if seed.failures >= 3:
                found.append(f"seed {seed.url} does not answer as it should: {seed.error}"[:300])
        return found

    async def aclose(self) -> None:
        """Stop pulling and hinting. Idempotent."""
        await self._scope.aclose()
        await self.imports.aclose()

    # Calls from abroad (``node.callee.Check``)

    async def enter(self, visit: Visit) -> None:
        """Let a call pass: one from another mesh only to agents that its partner sees. Raises AgentNotFound.

        What is not shown is not there: the answer is that of an id that nobody has.
        """
        if visit.peer == self._key.did or not self._is_abroad(visit.peer):
            return
        partner = self.desk.partner_of(self._organisations.of_node(visit.peer), visit.peer)
        if partner is None or not self.exports.is_shown(partner, visit.agent.manifest):
            raise AgentNotFound.near(visit.message.agent_id, [])

    def leave(self, visit: Visit, ended: Ended) -> None:
        """Nothing was taken."""


class ClosedBorder:
    """The check of a node without federation: nobody of another mesh calls here (``node.callee.Check``).

    Args:
        is_abroad: Whether a node is of another mesh.
    """

    def __init__(self, is_abroad: Callable[[str], bool]) -> None:
        self._is_abroad = is_abroad

    async def enter(self, visit: Visit) -> None:
        """Let calls of this mesh pass. Raises AgentNotFound."""
        if self._is_abroad(visit.peer):
            raise AgentNotFound.near(visit.message.agent_id, [])

    def leave(self, visit: Visit, ended: Ended) -> None:
        """Nothing was taken."""
