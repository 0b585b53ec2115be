"""Both sides of a federation in one process: a seed with real feeds, proofs and signatures; pullers ask it without sockets."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec

from agentmesh.api import problems
from agentmesh.codec.canonical import parse_strict
from agentmesh.core.federation.config import FederationConfig
from agentmesh.errors import MeshError
from agentmesh.identity.federation_proof import Asked, sign_answer
from agentmesh.identity.jws import parse_header, public_of_jwk, split_compact
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest, build_card, read_record, sign_card, sign_tombstone
from agentmesh.identity.node_record import NodeRecord, node_body, read_node_record, sign_node_record
from agentmesh.identity.voucher import Membership, sign_voucher
from agentmesh.ids import NodeId, did_of
from agentmesh.node.federation.desk import Desk
from agentmesh.node.federation.exports import Exports
from agentmesh.node.federation.imports import Answer, Imports
from agentmesh.node.federation.rules import Partner, Rules, Seed
from agentmesh.store.federation import FederationStore
from agentmesh.wire.federation import PROOF_HEADER, CatalogEntry, CatalogPage, Push

ORIGIN = "http://127.0.0.1:7443"
LIFE_S = 86_400


def key_of(name: str) -> KeyPair:
    return KeyPair(hashlib.sha256(name.encode()).digest())


def voucher(org: KeyPair, node: KeyPair) -> str:
    return sign_voucher(org, node.did, "node", id="v", iat=int(time.time()) - 5, life_s=LIFE_S)


def manifest_of(
    name: str, seq: int = 1, *, node: KeyPair, org: KeyPair | None = None, key: KeyPair | None = None, tag: str = "t"
) -> Manifest:
    """Return a signed manifest whose organisation vouches for its node, and the node for the agent."""
    now, agent = int(time.time()), key or key_of(f"agent {name}")
    params: dict[str, Any] = {}
    if org is not None:
        word = sign_voucher(node, agent.did, "agent", id="w", iat=now, life_s=LIFE_S, organisation=org.did)
        params = {"organisation": {"id": org.did, "chain": [voucher(org, node), word]}}
    card = build_card(
        agent_key_did=agent.did,
        node_id=node.did,
        name=name,
        description=f"Does {name}.",
        version="1",
        skills=[{"id": "s", "name": "S", "description": f"Does {name}.", "tags": [tag]}],
        input_modes=["text/plain"],
        output_modes=["text/plain"],
        seq=seq,
        iat=now,
        exp=now + LIFE_S,
        params=params,
    )
    return read_record(msgspec.json.encode(sign_card(agent, card)), now=now, require_signed=True)


def tombstone_of(name: str, seq: int, *, node: KeyPair) -> Manifest:
    now = int(time.time())
    raw = sign_tombstone(key_of(f"agent {name}"), node_id=node.did, name=name, seq=seq, iat=now, exp=now + LIFE_S)
    return read_record(raw, now=now, require_signed=True)


def record_of(node: KeyPair, address: str = "memory:far") -> NodeRecord:
    now = int(time.time())
    body = node_body(seq=now, iat=now, wire=1, addresses=(address,), name="far")
    return read_node_record(sign_node_record(node, body), now=now)


class Shown:
    """What a site could show (``exports.Known``)."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def manifests(self) -> list[Manifest]:
        return [one for one in self._site.records.values() if not one.tombstone]

    def record(self, agent: str) -> Manifest | None:
        return self._site.records.get(agent)

    def may_show(self, manifest: Manifest, partner: Partner) -> bool:
        return True

    def node(self, node: NodeId) -> NodeRecord | None:
        return record_of(self._site.node) if node == self._site.node.did else None


class Site:
    """A seed: agents of one node and organisation, and the desk at which partners ask."""

    def __init__(self, name: str, partner: KeyPair, agents: tuple[str, ...] = ("*",), *, owned: bool = True) -> None:
        self.node, self.org = key_of(f"node {name}"), key_of(f"org {name}") if owned else None
        self.records: dict[str, Manifest] = {}
        self.refused: Callable[[str], MeshError | None] = lambda _: None
        self.orders: list[str] = []
        self.pushed: list[tuple[Asked, Push]] = []
        rule = Partner("partner", partner.did, agents, frozenset(), frozenset(), False, "")
        self.rules = Rules({partner.did: rule}, {})
        self.exports = Exports(Shown(self), b"secret of this run " + name.encode())
        self.exports.reload(self.rules)
        self.shown_voucher = voucher(self.org, self.node) if self.org else ""
        self.desk = Desk(
            self.node,
            self.exports,
            lambda: self.rules,
            voucher=lambda: self.shown_voucher,
            refusal_of=lambda did: self.refused(did),
            orders=lambda: self.orders,
            evidence=lambda _: "",
            on_push=lambda asked, push: (self.pushed.append((asked, push)), len(push.entries))[1],
            is_seed=lambda _: False,
            unix_s=lambda: time.time(),
        )
        self.desk._opened -= 5
        self.desk.origin = ORIGIN

    def put(self, name: str, seq: int = 1, **more: Any) -> Manifest:
        manifest = manifest_of(name, seq, node=self.node, org=self.org, **more)
        self.records[manifest.agent_id] = manifest
        self.exports.changed(manifest.agent_id)
        return manifest

    def end(self, name: str, seq: int) -> None:
        tombstone = tombstone_of(name, seq, node=self.node)
        self.records[tombstone.agent_id] = tombstone
        self.exports.changed(tombstone.agent_id)

    async def fetch(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, *, timeout_s: float, bytes_max: int
    ) -> Answer:
        """Ask the desk as HTTP would."""
        parts = urlsplit(url)
        query = dict(parse_qsl(parts.query))
        try:
            if method == "POST":
                raw, proof = self.desk.push(headers.get("DPoP", ""), body or b"")
            else:
                raw, proof = self.desk.pull(
                    headers.get("DPoP", ""), cursor=query.get("cursor", ""), limit=int(query.get("limit", "0"))
                )
        except MeshError as error:
            problem = problems.problem_of(error)
            return Answer(problem.status, {}, problems.encode_problem(problem))
        return Answer(200, {PROOF_HEADER: proof}, raw)


def sign_page(site: Site, page: CatalogPage | bytes, headers: dict[str, str]) -> Answer:
    """Answer a question with any page, properly signed by the site: what a seed can do that lies."""
    protected, payload, _ = split_compact(headers["DPoP"], payload_bytes_max=4_096)
    claims: Any = parse_strict(payload, bytes_max=4_096)
    asker = NodeId(did_of(public_of_jwk(parse_header(protected)["jwk"])))
    asked = Asked(asker, None, claims["jti"], claims["iat"], claims["exp"])
    body = page if isinstance(page, bytes) else msgspec.json.encode(page)
    proof = sign_answer(site.node, asked=asked, body=body, iat=int(time.time()), voucher=site.shown_voucher)
    return Answer(200, {PROOF_HEADER: proof}, body)


class Puller:
    """A node that pulls, with a diary of what it was told."""

    def __init__(self, tmp_path: Path, fetch: Any, seeds: tuple[Seed, ...] = (Seed(ORIGIN),), **knobs: Any) -> None:
        self.node, self.org = key_of("node puller"), key_of("org puller")
        tmp_path.mkdir(parents=True, exist_ok=True)
        self.store = FederationStore.open(tmp_path / "federation.sqlite")
        self.changed: list[str] = []
        self.members: dict[str, Membership | None] = {}
        self.orders: list[Any] = []
        self.evidence: list[tuple[str, str]] = []
        self.refused: Callable[[str], MeshError | None] = lambda _: None
        self.distrusted: set[str] = set()
        self.imports = Imports(
            self.node,
            self.store,
            fetch,
            FederationConfig(**{"interval_s": 0.05, "backoff_base_s": 0.02, "backoff_max_s": 0.2, **knobs}),
            voucher=lambda: voucher(self.org, self.node),
            refusal_of=lambda did: self.refused(did),
            trusts=lambda agent: agent not in self.distrusted,
            on_change=self.changed.append,
            on_member=lambda manifest, member: self.members.update({manifest.agent_id: member}),
            on_order=self.orders.append,
            on_evidence=lambda node, raw: self.evidence.append((node, raw)),
        )
        self.imports.reload(list(seeds))

    @property
    def names(self) -> list[str]:
        return sorted(entry.manifest.name for entry in self.imports.entries())

    @property
    def refusals(self) -> dict[str, int]:
        return {one.code: one.count for view in self.imports.views() for one in view.refused}

    @property
    def error(self) -> str:
        return self.imports.views()[0].error

    async def aclose(self) -> None:
        await self.imports.aclose()
        self.store.close()


@contextlib.asynccontextmanager
async def pulling(tmp_path: Path, fetch: Any, *seeds: Seed, **knobs: Any) -> AsyncIterator[Puller]:
    puller = Puller(tmp_path, fetch, seeds or (Seed(ORIGIN),), **knobs)
    try:
        yield puller
    finally:
        await puller.aclose()


async def until(holds: Callable[[], Any], timeout_s: float = 10.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 what is waited for has no event of its own
            await asyncio.sleep(0.005)


def entry_of(manifest: Manifest, **over: Any) -> CatalogEntry:
    return CatalogEntry(identifier=manifest.agent_id, data=msgspec.Raw(manifest.raw), **over)
