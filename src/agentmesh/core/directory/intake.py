"""Whatever peers send is checked here, taken in, and answered (docs/spec/directory.md §2, §3).

From cheap to dear: size and shape, whether it is news, the signature last. A record is taken in if it was broadcast, came
from a neighbour, or was asked for. Mistakes that only a wrong clock or another setting explains blame nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from agentmesh.core.directory.finds import Finds
from agentmesh.core.directory.holdings import Holdings, line_of
from agentmesh.core.directory.messages import (
    AGENT,
    BATCH_MAX,
    NODE,
    ZONE,
    Line,
    RecordRefused,
    Records,
    Seek,
    SeqBehind,
    Sought,
    Want,
)
from agentmesh.core.directory.own import Own
from agentmesh.core.directory.sync import Sync
from agentmesh.core.directory.table import Entry, Rank, rank_of
from agentmesh.core.directory.wants import Wants
from agentmesh.core.directory.zone import Zone
from agentmesh.core.machine import Outbox, PeerMisbehaved
from agentmesh.core.messages import Suggested
from agentmesh.errors import MeshError, ReplayError
from agentmesh.identity.manifest import Manifest
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.reader import Reader
from agentmesh.identity.zone_report import ZoneReport
from agentmesh.ids import Key, NodeId

Verdict = Literal["new", "stale", "bad"]
#: Codes of records that are refused without blame: clocks differ, and so may settings.
_BLAMELESS = (
    "manifest.unsigned",
    *(f"{kind}.{why}" for kind in ("manifest", "node_record", "zone_report") for why in ("expired", "not_yet_valid")),
)
#: A report of this node's own site whose zone is so many levels larger than ours is out of date, or made up.
_DEPTH_BEHIND_MAX = 3
_SEQ_MAX = 2**53 - 1
#: A record signed so lately may still be on its way by broadcast; that a comparison brought it first means nothing.
_FRESH_S = 5


class Intake:
    """From messages to holdings.

    Args:
        holdings: What is held.
        reader: Verifies.
        sync, wants, finds, zone, own: Parts of the same directory.
    """

    def __init__(
        self, holdings: Holdings, reader: Reader, *, sync: Sync, wants: Wants, finds: Finds, zone: Zone, own: Own
    ) -> None:
        self.holdings = holdings
        self.config = holdings.config
        self._reader = reader
        self._sync = sync
        self._wants = wants
        self._finds = finds
        self._zone = zone
        self._own = own

    # Broadcasts

    def judge(self, kind: str, payload: bytes, now_s: float) -> Verdict:
        """Say whether a broadcast is to be passed on: "stale" = known or superseded, "bad" = nobody honest sends it."""
        unix_s = self.holdings.wall.unix_s(now_s)
        try:
            if kind == "agent":
                manifest = self._reader.manifest(payload, unix_s, require_signed=True)
                return "new" if self._is_agent_news(manifest) else "stale"
            if kind == "node":
                record = self._reader.node(payload, unix_s)
                return "new" if self._is_node_news(record, unix_s) else "stale"
            if kind == "zone":
                report = self._reader.zone(payload, unix_s)
                return "new" if self._is_report_news(report, unix_s) else "stale"
        except MeshError as error:
            return "stale" if error.code in _BLAMELESS and error.code != "manifest.unsigned" else "bad"
        return "bad"

    def deliver(self, kind: str, payload: bytes, via: NodeId, now_s: float, out: Outbox) -> None:
        """Take in a broadcast."""
        if kind == "agent":
            self._take_manifest(via, payload, now_s, out)
        elif kind == "node":
            self._take_word(via, NODE, payload, now_s, out)
        elif kind == "zone":
            self._take_word(via, ZONE, payload, now_s, out)

    def _is_agent_news(self, manifest: Manifest) -> bool:
        held = self.holdings.table.get(manifest.agent_id)
        if held is not None:
            return _rank_of(manifest) > held.rank
        state = self.holdings.nodes.get(manifest.node_id)
        return state is None or state.up or manifest.iat > state.down_iat or manifest.tombstone

    def _is_node_news(self, record: NodeRecord, unix_s: int) -> bool:
        state = self.holdings.nodes.get(record.node_id)
        known = 0 if state is None or state.record is None else state.record.seq
        if record.node_id == self.holdings.node_id:
            known = _SEQ_MAX if self._own.record is None else self._own.record.seq
        return record.seq > known and record.iat >= unix_s - self.config.word_age_s

    def _is_report_news(self, report: ZoneReport, unix_s: int) -> bool:
        shallow = report.site == self._zone.site and report.depth < self._zone.depth - _DEPTH_BEHIND_MAX
        fresh = report.iat >= unix_s - self.config.word_age_s and not shallow
        return fresh and self.holdings.reports.is_newer(report)

    # Records

    def on_records(self, peer: NodeId, message: Records, now_s: float, out: Outbox) -> None:
        """Take in what a peer sends, and note that it answered."""
        if len(message.records) > BATCH_MAX or len(message.words) > BATCH_MAX:
            count = len(message.records) + len(message.words)
            out.emit(PeerMisbehaved(peer, "directory.batch", f"{count} records in one message, at most {BATCH_MAX}"))
            return
        near = peer in self._sync.neighbours
        news = 0
        for kind, raw in message.words:
            if near or self._was_asked(peer, kind, raw, now_s):
                news = max(news, int(self._take_word(peer, kind, raw, now_s, out)))
        for raw in message.records:
            news = max(news, self._take_manifest(peer, raw, now_s, out, asked_only=not near))
        if news and near:
            self._sync.heat(now_s, out, peer, fresh=news == 1)
        self._finds.note_answer(peer, out)

    def on_sought(self, peer: NodeId, message: Sought, now_s: float, out: Outbox) -> None:
        """Take in the answer to a ``Seek``; nobody else's."""
        searches = self._finds.seeking(peer, message.key)
        if not searches:
            return
        if len(message.records) > BATCH_MAX:
            out.emit(PeerMisbehaved(peer, "directory.batch", f"{len(message.records)} records, at most {BATCH_MAX}"))
            message.records.clear()
        for raw in message.records:
            self._take_manifest(peer, raw, now_s, out)
        for search in searches:
            search.seeks.pop(peer, None)
            self._finds.settle(search, out)

    def on_suggested(self, suggested: Suggested, now_s: float, out: Outbox) -> None:
        """Take in the answer to a search by text, up to the first record that nobody honest sends."""
        peer, unix_s = suggested.peer, self.holdings.wall.unix_s(now_s)
        for place, raw in enumerate(suggested.records):
            try:
                # Whatever this node admits by itself, it takes no stranger's word for what nobody signed.
                self._reader.manifest(raw, unix_s, require_signed=True)
            except MeshError as error:
                self._blame(peer, error, out)
                if error.code not in _BLAMELESS:
                    return
            else:
                self._take_manifest(peer, raw, now_s, out, sought=place < suggested.sought)

    def on_want(self, peer: NodeId, want: Want, now_s: float, out: Outbox) -> None:
        """Send what is asked for and here; an empty answer says that nothing is."""
        if len(want.positions) > BATCH_MAX:
            out.emit(PeerMisbehaved(peer, "directory.batch", f"{len(want.positions)} positions, at most {BATCH_MAX}"))
            return
        records: list[bytes] = []
        words: list[tuple[int, bytes]] = []
        for position in dict.fromkeys(want.positions):
            entry, _ = self.holdings.at(AGENT, position)
            if isinstance(entry, Entry):
                records.append(entry.manifest.raw)
            elif (
                state := self.holdings.nodes.at(position) if len(position) == 32 else None
            ) and state.record is not None:
                words.append((NODE, state.record.raw))
            elif (report := self.holdings.reports.get(position)) is not None:
                words.append((ZONE, report.raw))
        sent = 0
        for batch in _batches(words, records, self.config.records_bytes):
            if sent < self.config.want_batches:
                out.send(peer, batch)
            sent += 1
        if not sent:
            out.send(peer, Records(records=[]))

    def on_seek(self, peer: NodeId, seek: Seek, out: Outbox) -> None:
        """Answer with manifests of agents under the key, as many as fit into one message."""
        most = min(max(0, seek.agents_max), BATCH_MAX)
        if len(seek.key) != 32:
            out.emit(PeerMisbehaved(peer, "directory.key", f"a key of {len(seek.key)} bytes"))
            return
        records: list[bytes] = []
        size = 0
        for entry in self.holdings.table.under(Key(seek.key), most) if most else []:
            size += len(entry.manifest.raw)
            if records and size > self.config.records_bytes:
                break
            records.append(entry.manifest.raw)
        out.send(peer, Sought(key=seek.key, records=records))

    def weigh(self, peer: NodeId, line: Line, now_s: float) -> Line | bool:
        """Say of a line whether to ask for it; or return the line of what is newer here."""
        if line.kind not in (AGENT, NODE, ZONE) or not 1 <= line.seq <= _SEQ_MAX:
            return False
        theirs = rank_of(line)
        item, mine = self.holdings.at(line.kind, line.position)
        if item is not None and mine is not None:
            if mine > theirs:
                return line_of(item)
            if mine == theirs:
                if isinstance(item, Entry) and item.manifest.node_id == peer and not item.local:
                    self.holdings.table.charge(item, peer)
                return False
        elif line.kind == AGENT and ((not line.signed and self.config.require_signed) or self.holdings.table.full):
            return False
        return self._wants.ask(line.position, theirs, peer, now_s)

    def _was_asked(self, peer: NodeId, kind: int, raw: bytes, now_s: float) -> bool:
        """Say whether a word of a stranger was asked for."""
        unix_s = self.holdings.wall.unix_s(now_s)
        try:
            if kind == ZONE:
                return self._wants.asked_of(self._reader.zone(raw, unix_s).zone_key, peer)
            key = self._reader.node(raw, unix_s).key
        except MeshError:
            return False
        return self._wants.asked_of(bytes(byte ^ 0xFF for byte in key), peer)

    # Words about nodes

    def _take_word(self, peer: NodeId, kind: int, raw: bytes, now_s: float, out: Outbox) -> bool:
        """Take in a node record or zone report; True if it is news."""
        unix_s = self.holdings.wall.unix_s(now_s)
        try:
            if kind == NODE:
                return self._take_node(self._reader.node(raw, unix_s), now_s, out)
            if kind == ZONE:
                return self._take_report(self._reader.zone(raw, unix_s), now_s, out)
            out.emit(PeerMisbehaved(peer, "directory.word", f"a word of kind {kind}"))
        except MeshError as error:
            self._blame(peer, error, out)
        return False

    def _take_node(self, record: NodeRecord, now_s: float, out: Outbox) -> bool:
        if record.node_id == self.holdings.node_id:
            return False
        self._zone.hear(record, now_s, out)
        self._wants.came(bytes(byte ^ 0xFF for byte in record.key))
        return self.holdings.hear_record(record, now_s, out, keep=True)

    def _take_report(self, report: ZoneReport, now_s: float, out: Outbox) -> bool:
        self._wants.came(report.zone_key)
        shallow = report.site == self._zone.site and report.depth < self._zone.depth - _DEPTH_BEHIND_MAX
        if shallow or not self.holdings.reports.is_newer(report):
            return False
        self.holdings.hear_report(report, now_s, out)
        self._own.hear_report(report, self._zone.key[:8], now_s, out)
        self._zone.hear_report(report, now_s, out)
        return True

    # Agents

    def _take_manifest(
        self, peer: NodeId, raw: bytes, now_s: float, out: Outbox, *, asked_only: bool = False, sought: bool = False
    ) -> int:
        """Verify and take in a record of an agent. Returns 0 if it is no news, 1 if it was signed just now, 2 if before."""
        unix_s = self.holdings.wall.unix_s(now_s)
        try:
            manifest = self._reader.manifest(raw, unix_s, require_signed=self.config.require_signed)
            key = self._reader.keys(manifest)[0]
            if asked_only and not self._may_answer(peer, manifest, key):
                return 0
            if not self._admit(peer, manifest, key, now_s, out, sought=sought):
                return 0
            return 1 if manifest.iat > unix_s - _FRESH_S else 2
        except MeshError as error:
            self._blame(peer, error, out)
            return 0

    def _may_answer(self, peer: NodeId, manifest: Manifest, key: Key) -> bool:
        """Say whether a stranger was asked for this; who was named as a provider speaks for its own agents only."""
        as_provider = any(key in search.wants for search in self._finds.running.values())
        return self._wants.asked_of(key, peer) and (manifest.node_id == peer or not as_provider)

    def _admit(
        self, peer: NodeId, manifest: Manifest, key: Key, now_s: float, out: Outbox, *, sought: bool = False
    ) -> bool:
        """Take in a verified record if it wins. Raises ReplayError for one that was superseded long ago."""
        self._wants.came(key)
        old = self.holdings.table.get(manifest.agent_id)
        mark = manifest.mark
        rank = _rank_of(manifest, mark)
        if old is not None and old.local:
            if rank > old.rank and manifest.signed:
                tell_behind(old, manifest, self.holdings.node_id, out)
            return False
        if old is not None:
            self._note_equivocation(peer, old, manifest, mark, out)
            if rank == old.rank:
                if peer == manifest.node_id:
                    self.holdings.table.charge(old, peer)
                return False
            if rank < old.rank:
                out.send(peer, Records(records=[old.manifest.raw]))
                if manifest.seq < old.manifest.seq and now_s - old.since_s > self.config.replay_grace_s:
                    raise ReplayError(
                        f"seq {manifest.seq} was superseded by {old.manifest.seq}", code="manifest.replay"
                    )
                return False
        if manifest.node_id == self.holdings.node_id and not manifest.tombstone:
            self._own.disown(key, now_s, out)
            return False
        entry = self._entry(peer, manifest, key, mark, now_s, out)
        if entry is None:
            return False
        asked = sought or any(key in search.wants for search in self._finds.running.values())
        if not self.holdings.put(entry, now_s, out, asked=asked):
            out.emit(RecordRefused(peer, "directory.full", f"no room for another agent ({manifest.name!r})"))
            return False
        self._note_found(entry, out)
        return True

    def _entry(self, peer: NodeId, manifest: Manifest, key: Key, mark: int, now_s: float, out: Outbox) -> Entry | None:
        """Make the entry of a record, unless its node is dead and has not been heard of since."""
        state = self.holdings.node(manifest.node_id, now_s, out)
        disowned = not manifest.signed and not state.healthy(key)
        if not manifest.tombstone and ((not state.up and manifest.iat <= state.down_iat) or disowned):
            state.lacking = not state.up
            self.holdings.release(state)
            return None
        return Entry(
            manifest=manifest, key=key, node=state, local=False, since_s=now_s, via=peer, mark=mark, noted=True
        )

    def _note_found(self, entry: Entry, out: Outbox) -> None:
        """Tell the searches that wait for this agent."""
        for search in list(self._finds.running.values()):
            search.wants.pop(entry.key, None)
            if self.holdings.table.has_key(entry, search.key):
                self._finds.note_found(search, entry.manifest.agent_id, out)
            self._finds.settle(search, out)

    def _note_equivocation(self, peer: NodeId, old: Entry, new: Manifest, mark: int, out: Outbox) -> None:
        """Blame a node that signs two records under one seq; only itself can prove it, so hearsay blames nobody."""
        first = old.manifest
        same_kind = (first.signed, first.seq, first.tombstone) == (new.signed, new.seq, new.tombstone)
        if same_kind and old.mark != mark and peer == new.node_id:
            out.emit(PeerMisbehaved(peer, "manifest.equivocation", f"two records of {new.name!r} under seq {new.seq}"))

    def _blame(self, peer: NodeId, error: MeshError, out: Outbox) -> None:
        if error.code in _BLAMELESS:
            out.emit(RecordRefused(peer, error.code, error.detail, error.hint or ""))
        else:
            out.emit(PeerMisbehaved(peer, error.code, error.detail))


def tell_behind(mine: Entry, theirs: Manifest, node_id: NodeId, out: Outbox) -> None:
    """Tell the node that the mesh holds a higher ``seq`` of one of its agents."""
    out.emit(SeqBehind(mine.manifest.agent_id, mine.manifest.name, theirs.seq, theirs.node_id != node_id))


def _rank_of(manifest: Manifest, mark: int | None = None) -> Rank:
    return manifest.signed, manifest.seq, manifest.tombstone, -(manifest.mark if mark is None else mark)


def _batches(words: Iterable[tuple[int, bytes]], records: Iterable[bytes], bytes_max: int) -> Iterator[Records]:
    """Yield messages of at most ``BATCH_MAX`` records and about ``bytes_max`` bytes; none if there is nothing."""
    batch = Records(records=[], words=[])
    size = 0
    for kind, raw in (*words, *((AGENT, raw) for raw in records)):
        count = len(batch.records) + len(batch.words)
        if count and (size + len(raw) > bytes_max or count >= BATCH_MAX):
            yield batch
            batch, size = Records(records=[], words=[]), 0
        if kind == AGENT:
            batch.records.append(raw)
        else:
            batch.words.append((kind, raw))
        size += len(raw)
    if size:
        yield batch
