"""What seeds tell, as this node keeps and shows it (``node.sights.Abroad``): ``core.federation`` on a clock, HTTP and disk.

Pages are verified in a thread, so that ten thousand records never hold up a call. An agent that several seeds tell of is shown as
the one with the highest ``seq`` says; if that is a tombstone, not at all.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import random
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol
from urllib.parse import urlencode

import msgspec

from agentmesh.core.federation.config import FederationConfig
from agentmesh.core.federation.machine import Federation
from agentmesh.core.federation.messages import (
    Drop,
    Hinted,
    Item,
    Keep,
    KeepCursor,
    PageCame,
    PullFailed,
    PullWanted,
    Pushed,
    SeedAdded,
    SeedRemoved,
)
from agentmesh.core.machine import Outbox, Timer
from agentmesh.errors import Busy, DecodeError, MeshError, StoreError, Unauthorized, from_wire
from agentmesh.identity.federation_proof import Answered, read_answer, sign_ask
from agentmesh.identity.jws import b64url
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest, read_record
from agentmesh.identity.node_record import NodeRecord, read_node_record
from agentmesh.identity.order import Order
from agentmesh.identity.voucher import Membership, read_membership
from agentmesh.ids import NodeId
from agentmesh.net.tasks import TaskScope
from agentmesh.node.federation.desk import PULL_PATH
from agentmesh.node.federation.pages import Federated, Page, Source, item_of, read_entries, read_page
from agentmesh.node.federation.rules import Seed
from agentmesh.node.routes import host_of
from agentmesh.store.federation import FederationStore
from agentmesh.wire.federation import PAGE_BYTES_MAX, PROOF_HEADER, CatalogEntry, RefusedView, SeedView

_log = logging.getLogger("agentmesh.federation")

#: How long one page may take, seconds.
PULL_TIMEOUT_S = 20.0
#: Nodes of all seeds together whose records are kept.
_NODES_MAX = 4_096
#: Records that are verified in one go while earlier ones are taken back at the start.
_RESTORE_BATCH = 200


class Answer(NamedTuple):
    """An HTTP answer: status, headers with names in lower case, body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Fetch(Protocol):
    """Sends HTTP requests. Follows no redirects, reads no proxy settings, sends no cookies (``adapters.fetch``)."""

    async def __call__(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, *, timeout_s: float, bytes_max: int
    ) -> Answer:
        """Send one request and return the answer.

        Raises:
            MeshError: no connection, no HTTP, a redirect, too late, or too large.
        """
        ...


class FederatedEntry:
    """A federated agent as an entry of a directory."""

    __slots__ = ("federated",)

    def __init__(self, federated: Federated) -> None:
        self.federated = federated

    @property
    def manifest(self) -> Manifest:
        """The verified manifest."""
        return self.federated.manifest

    @property
    def healthy(self) -> bool | None:
        """Nobody here checks it."""
        return None

    @property
    def local(self) -> bool:
        """Never."""
        return False

    def lease_left_s(self, now_s: float) -> float:
        """Return infinity: it is shown until its seed says otherwise, or its manifest ends."""
        return math.inf


class Imports:
    """Pull from seeds and show what they tell.

    Args:
        key: This node's.
        store: Keeps what was pulled.
        fetch: Asks over HTTP.
        config: Knobs of the machine.
        voucher: Returns this node's voucher.
        refusal_of: Why an id may do nothing here.
        trusts: Says of an agent whether it may be shown.
        on_change: Called with agents that appeared, changed or went.
        on_member: Called with a verified manifest and whose it is.
        on_order: Called with a revocation by a seed's organisation.
        on_evidence: Called with a node and its trust statement.
        unix_s, mono_s: The clocks.
    """

    def __init__(
        self,
        key: KeyPair,
        store: FederationStore,
        fetch: Fetch,
        config: FederationConfig,
        *,
        voucher: Callable[[], str],
        refusal_of: Callable[[str], MeshError | None],
        trusts: Callable[[str], bool],
        on_change: Callable[[str], None],
        on_member: Callable[[Manifest, Membership | None], None],
        on_order: Callable[[Order], None],
        on_evidence: Callable[[NodeId, str], None],
        unix_s: Callable[[], float] = time.time,
        mono_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._key, self._store, self._fetch = key, store, fetch
        self._voucher, self._refusal_of, self._trusts = voucher, refusal_of, trusts
        self._on_change, self._on_member, self._on_order = on_change, on_member, on_order
        self._on_evidence, self._unix_s, self._mono_s = on_evidence, unix_s, mono_s
        self.machine = Federation(config, random.Random(os.urandom(16)))  # noqa: S311 jitter, not secrets
        self._scope = TaskScope("federation")
        self._seeds: dict[str, Seed] = {}
        self._sources: dict[str, Source] = {}
        self._nodes: dict[NodeId, tuple[NodeRecord, str]] = {}
        self._best: dict[str, FederatedEntry] | None = None
        self._names: dict[str, list[str]] = {}
        self._closed = False
        #: Pages that came from seeds, and requests that failed.
        self.pulled = self.failed = 0

    # Seeds

    def reload(self, seeds: Sequence[Seed]) -> None:
        """Pull from these seeds, and from no others."""
        wanted = {seed.url: seed for seed in seeds}
        for url in [url for url in self._seeds if url not in wanted]:
            self._feed(SeedRemoved(url))
            self._sources.pop(url, None)
            self._save(lambda url=url: self._store.forget(url))
        fresh = [seed for url, seed in wanted.items() if url not in self._seeds]
        changed = [url for url, seed in wanted.items() if url in self._seeds and self._seeds[url] != seed]
        self._seeds = wanted
        for url in changed:  # what it may tell is another thing now, so it is asked for all of it again
            self._feed(SeedRemoved(url))
            self._save(lambda url=url: self._store.forget(url))
            self._feed(SeedAdded(url))
        if fresh:
            self._scope.spawn(self._restore(fresh), "restore")

    async def _restore(self, seeds: list[Seed]) -> None:
        """Take back what was kept of seeds, then begin to pull from them."""
        try:
            known = {row.url: row for row in self._store.seeds()}
            for url in [url for url in known if url not in self._seeds]:
                self._store.forget(url)
        except StoreError as error:
            _log.warning("what was federated cannot be read: %s", error)
            known = {}
        for seed in seeds:
            row, held = known.get(seed.url), list[Item]()
            if (
                row is not None
                and row.node
                and (not seed.organisation or seed.organisation in (row.node, row.organisation))
            ):
                source = self._sources[seed.url] = Source(row.node, row.organisation, seed.allow)
                rows = self._store.entries(seed.url)
                for start in range(0, len(rows), _RESTORE_BATCH):
                    batch = rows[start : start + _RESTORE_BATCH]
                    held += await asyncio.to_thread(_kept, batch, source, int(self._unix_s()))
                whole = {item.agent for item in held}
                for agent in [agent for agent, _, _ in rows if agent not in whole]:
                    self._save(lambda url=seed.url, agent=agent: self._store.drop_entry(url, agent))
                for raw in self._store.nodes(seed.url):
                    self._note_node(raw, seed.url)
            if seed.url in self._seeds and seed.url not in self.machine.seeds:
                for item in held:
                    self._note(item)
                self._best = None
                self._feed(SeedAdded(seed.url, row.cursor if row is not None and held else "", tuple(held)))
                for item in held:
                    self._on_change(item.agent)

    def _note_node(self, raw: bytes, url: str) -> None:
        try:
            record = read_node_record(raw, now=int(self._unix_s()))
        except MeshError:
            return  # it ended meanwhile; a fresh one comes with the next page
        self._keep_node(record, url)

    def _keep_node(self, record: NodeRecord, url: str) -> bool:
        old = self._nodes.pop(record.node_id, None)
        newer = old is None or record.seq > old[0].seq
        while len(self._nodes) >= _NODES_MAX:
            del self._nodes[next(iter(self._nodes))]
        self._nodes[record.node_id] = (record, url) if newer or old is None else old
        return newer

    # The machine

    def _feed(self, incoming: object) -> None:
        if self._closed:
            return
        out = Outbox()
        self.machine.handle(incoming, self._mono_s(), out)
        for delay_s, timer in out.timers:
            asyncio.get_running_loop().call_later(delay_s, self._ring, timer)
        if out.records:
            self._best = None
            self._save(lambda: self._write(out.records))
            for record in out.records:
                if isinstance(record, Keep):
                    self._note(record.item)
                    self._on_change(record.item.agent)
                elif isinstance(record, Drop):
                    self._on_change(record.agent)
        for event in out.events:
            if isinstance(event, PullWanted):
                self._scope.spawn(self._pull(event), "pull")

    def _ring(self, timer: Timer) -> None:
        self._feed(timer)

    def _note(self, item: Item) -> None:
        federated: Federated = item.body
        self._on_member(federated.manifest, federated.member)

    def _write(self, records: list[object]) -> None:
        with self._store.writing():
            for record in records:
                if isinstance(record, Keep):
                    kept: Federated = record.item.body
                    self._store.save_entry(record.seed, record.item.agent, kept.manifest.raw, reshare=kept.reshare)
                elif isinstance(record, Drop):
                    self._store.drop_entry(record.seed, record.agent)
                elif isinstance(record, KeepCursor):
                    self._store.save_cursor(record.seed, record.cursor)

    def _save(self, write: Callable[[], None]) -> None:
        """Write what can be pulled again: a disk that is full is a nuisance, no reason to show nothing."""
        try:
            write()
        except StoreError as error:
            _log.warning("what was federated is not kept for the next start: %s", error)

    # Pulling

    async def _pull(self, wanted: PullWanted) -> None:
        seed = self._seeds.get(wanted.seed)
        if seed is None:
            return
        try:
            async with asyncio.timeout(PULL_TIMEOUT_S):
                size, source, page = await self._ask(seed, wanted)
        except TimeoutError:
            self._fail(wanted, "unreached.timeout", f"no answer within {PULL_TIMEOUT_S:g} s")
            return
        except MeshError as error:
            wait_s = error.retry_after_s if isinstance(error, Busy) else 0.0
            known = error.code != "federation.cursor_unknown"
            self._fail(wanted, error.code, error.detail, wait_s=wait_s, restart=not known)
            return
        for order in page.orders:
            self._on_order(order)
        if (refusal := self._refused(source)) is not None:
            self.failed += 1
            self._feed(PullFailed(wanted.seed, wanted.token, refusal.code, refusal.detail, drop=True))
            return
        for record in page.nodes:
            if self._keep_node(record, seed.url):
                self._save(lambda record=record: self._store.save_node(seed.url, record.node_id, record.raw))
        if page.evidence:
            self._on_evidence(NodeId(source.node), page.evidence)
        unix_s = int(self._unix_s())
        self.pulled += 1
        self._feed(PageCame(seed.url, wanted.token, page.items, page.next_cursor, page.more, size, unix_s))

    def _fail(self, wanted: PullWanted, code: str, detail: str, *, wait_s: float = 0.0, restart: bool = False) -> None:
        _log.info("pull from %s failed: %s (%s)", wanted.seed, detail, code)
        self.failed += 1
        self._feed(PullFailed(wanted.seed, wanted.token, code, detail, wait_s, restart=restart))

    async def _ask(self, seed: Seed, wanted: PullWanted) -> tuple[int, Source, Page]:
        """Ask for one page and verify it. Raises MeshError."""
        url = f"{seed.url}{PULL_PATH}"
        jti, unix_s = b64url(os.urandom(16)), int(self._unix_s())
        proof = sign_ask(self._key, method="GET", url=url, jti=jti, iat=unix_s, voucher=self._voucher())
        query = urlencode({"limit": wanted.limit, **({"cursor": wanted.cursor} if wanted.cursor else {})})
        answer = await self._fetch(
            "GET", f"{url}?{query}", {"DPoP": proof}, None, timeout_s=PULL_TIMEOUT_S, bytes_max=PAGE_BYTES_MAX
        )
        if answer.status != 200:
            raise failure_of(answer)
        answered = read_answer(
            answer.headers.get(PROOF_HEADER, ""),
            now=int(self._unix_s()),
            asker=self._key.did,
            jti=jti,
            body=answer.body,
        )
        source = self._source(seed, answered)
        page = await asyncio.to_thread(read_page, answer.body, source, now=int(self._unix_s()))
        return len(answer.body), source, page

    def _source(self, seed: Seed, answered: Answered) -> Source:
        """Return who answered. Raises Unauthorized: it is not who must."""
        if seed.organisation and seed.organisation not in (answered.organisation, answered.node):
            raise Unauthorized(
                "somebody else answers there than was agreed",
                code="federation.other_seed",
                why=f"{answered.organisation or answered.node} answers, {seed.organisation} must",
            )
        source = Source(answered.node, answered.organisation, seed.allow)
        old = self._sources.get(seed.url)
        if (
            old is not None
            and not seed.organisation
            and (old.organisation or old.node) != (source.organisation or source.node)
        ):
            raise Unauthorized(
                "somebody else answers there than before",
                code="federation.other_seed",
                why=f"it was {old.organisation or old.node}, now it is {source.organisation or source.node}",
                hint='if that is meant, say so: organisation = "did:key:…" under [seeds.NAME] of federation.toml',
            )
        if old != source:
            self._sources[seed.url] = source
            self._save(lambda: self._store.save_seed(seed.url, node=source.node, organisation=source.organisation))
        return source

    def _refused(self, source: Source) -> MeshError | None:
        for did in (source.organisation, source.node):
            if did and (refusal := self._refusal_of(did)) is not None:
                return refusal
        return None

    # Hints

    def heard(self, organisation: str, node: str, entries: list[CatalogEntry]) -> int:
        """Take a partner's hint: pull from the seeds that it answers at. Returns how many entries are looked at."""
        taken = 0
        for url, seed in list(self._seeds.items()):
            source = self._sources.get(url)
            if not _is_of(seed, source, organisation, node) or (
                source is not None and self._refused(source) is not None
            ):
                continue
            if entries and source is not None:
                taken = len(entries)
                self._scope.spawn(self._take_pushed(url, source, entries), "pushed")
            self._feed(Hinted(url))
        return taken

    async def _take_pushed(self, url: str, source: Source, entries: list[CatalogEntry]) -> None:
        items = await asyncio.to_thread(read_entries, entries, source, now=int(self._unix_s()))
        self._feed(Pushed(url, items))

    def refresh(self) -> None:
        """Drop what came from seeds that are revoked now."""
        for url, source in list(self._sources.items()):
            state = self.machine.seeds.get(url)
            if state is not None and state.held and (refusal := self._refused(source)) is not None:
                self._feed(PullFailed(url, state.pulling, refusal.code, refusal.detail, drop=True))

    # What is shown

    def _index(self) -> dict[str, FederatedEntry]:
        if self._best is None:
            best: dict[str, Item] = {}
            for url in self._seeds:
                state = self.machine.seeds.get(url)
                for agent, item in state.held.items() if state is not None else ():
                    held = best.get(agent)
                    if held is None or (item.seq, item.mark) > (held.seq, held.mark):
                        best[agent] = item
            self._best = {agent: FederatedEntry(item.body) for agent, item in best.items() if item.kind == "card"}
            self._names = {}
            for agent, entry in self._best.items():
                self._names.setdefault(entry.manifest.name, []).append(agent)
        return self._best

    def _may_show(self, entry: FederatedEntry) -> bool:
        manifest, member, unix_s = entry.manifest, entry.federated.member, int(self._unix_s())
        holds = manifest.exp >= unix_s and (member is None or member.holds(unix_s))
        return holds and self._trusts(manifest.agent_id)

    def entries(self) -> Sequence[FederatedEntry]:
        """Return every federated agent that may be shown."""
        return [entry for entry in self._index().values() if self._may_show(entry)]

    def entry(self, agent_id: str) -> FederatedEntry | None:
        """Return the federated agent of that id."""
        entry = self._index().get(agent_id)
        return entry if entry is not None and self._may_show(entry) else None

    def by_name(self, name: str) -> Sequence[FederatedEntry]:
        """Return the federated agents of exactly that name: of the seed that comes first, no others."""
        index = self._index()
        found = [index[agent] for agent in self._names.get(name, ()) if self._may_show(index[agent])]
        return [entry for entry in found if entry.federated.organisation == found[0].federated.organisation]

    def addresses_of(self, node: NodeId) -> tuple[str, ...]:
        """Return where a node may be reached that a seed told of."""
        known = self._nodes.get(node)
        if known is None:
            return ()
        record, url = known
        return tuple(a for a in record.addresses if not a.startswith("udp:") and _may_dial(a, url))

    def node(self, node: NodeId) -> NodeRecord | None:
        """Return what a node says of itself that a seed told of."""
        known = self._nodes.get(node)
        return None if known is None else known[0]

    def is_source(self, organisation: str, node: str) -> bool:
        """Say whether a seed belongs to an organisation, or is a node."""
        return any(_is_of(seed, self._sources.get(url), organisation, node) for url, seed in self._seeds.items())

    def organisations(self) -> list[str]:
        """Return the organisations of the seeds."""
        return [source.organisation for source in self._sources.values() if source.organisation]

    def lags(self) -> dict[str, float]:
        """Return the seconds since the last whole pull from each seed; without those that were never pulled."""
        now_s = self._mono_s()
        return {url: now_s - one.done_s for url, one in self.machine.seeds.items() if one.done_s is not None}

    def views(self) -> list[SeedView]:
        """Return what people see of each seed."""
        now_s, shown = self._mono_s(), dict[str, int]()
        index = self._index()
        found: list[SeedView] = []
        for url in self._seeds:
            state, source = self.machine.seeds.get(url), self._sources.get(url)
            if state is None:
                found.append(SeedView(url=url))
                continue
            shown[url] = sum(
                1 for agent in state.held if (entry := index.get(agent)) is not None and self._may_show(entry)
            )
            found.append(
                SeedView(
                    url=url,
                    organisation="" if source is None else source.organisation,
                    node_id="" if source is None else source.node,
                    entries=shown[url],
                    held=len(state.held),
                    lag_s=None if state.done_s is None else round(now_s - state.done_s, 3),
                    next_s=0.0 if state.pulling else round(max(0.0, state.due_s - now_s), 3),
                    failures=state.failures,
                    error=f"{state.error}: {state.error_detail}" if state.error else "",
                    admitted=state.admitted,
                    refused=[RefusedView(code=c, count=n, detail=d) for c, (n, d) in state.refused.items()],
                )
            )
        return found

    async def aclose(self) -> None:
        """Stop pulling. Idempotent."""
        self._closed = True
        await self._scope.aclose()


def _may_dial(address: str, url: str) -> bool:
    """Say whether a seed may send this node to an address: to this very machine only if the seed is there itself.

    Link-local addresses, among them those where clouds keep credentials, are nobody's node.
    """
    there = host_of(address)
    if there is None:
        return True
    if there.is_loopback:
        seed = host_of(f"http:{url.partition('://')[2]}")
        return seed is not None and seed.is_loopback
    return not (there.is_link_local or there.is_unspecified or there.is_multicast)


def _is_of(seed: Seed, source: Source | None, organisation: str, node: str) -> bool:
    """Say whether an organisation, or a node of none, is the one that answers at a seed, or that must."""
    known = {seed.organisation} if source is None else {seed.organisation, source.organisation, source.node}
    return (organisation in known if organisation else False) or node in known


def _kept(rows: list[tuple[str, bytes, bool]], source: Source, now: int) -> list[Item]:
    """Verify kept records again; those whose time is over are left out."""
    found: list[Item] = []
    for _, raw, reshare in rows:
        try:
            manifest = read_record(raw, now=now, require_signed=True)
            member = None if manifest.tombstone else read_membership(manifest, now=now)
        except MeshError:
            continue
        found.append(item_of(Federated(manifest, member, reshare)))
    return found


def failure_of(answer: Answer) -> MeshError:
    """Return the error that an answer other than 200 tells; its own words are not trusted to be short."""
    try:
        problem = msgspec.json.decode(answer.body[:16_384], type=dict[str, object])
        problem["type"] = str(problem.get("type", "")).rpartition("/")[2]
        problem.setdefault("message", problem.get("detail") or problem.get("title") or "")
        error = from_wire(problem)
        error.detail = f"the seed says: {error.detail[:200]}"
        return error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return DecodeError(f"the seed answered HTTP {answer.status}", code="federation.http")
