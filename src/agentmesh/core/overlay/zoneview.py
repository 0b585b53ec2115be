"""The zone view: the dozen nodes of the own site whose DHT keys are nearest (docs/spec/overlay.md §4).

A zone is a prefix of the key: all nodes of one site whose keys begin with the same ``depth`` bits. The depth follows from the
candidates alone, so nodes that know the same candidates agree without a word. Candidates are found by one search for the own
key after joining, kept equal by an exchange of marks with random zone mates (T-Man, Jelasity & Babaoglu 2009), and a new
member is greeted, so that both sides list each other after one trip.
"""

from __future__ import annotations

import math
from itertools import chain
from operator import itemgetter
from typing import Any

from agentmesh.core.machine import Outbox, PeerMisbehaved
from agentmesh.core.messages import ZoneChanged
from agentmesh.core.overlay.candidates import Candidate, Candidates, head, mark_of, shared_bits
from agentmesh.core.overlay.ground import Ground
from agentmesh.core.overlay.messages import MARK_BYTES, MARKS_MAX, RECORDS_MAX, Here, NearAsk, NearReply
from agentmesh.core.overlay.passive import Passive
from agentmesh.errors import DecodeError
from agentmesh.identity.node_record import NodeRecord
from agentmesh.ids import Key, NodeId, dht_key, public_key_of

#: Requests of a search under way at once, and the number of nearest nodes that must have been asked when it ends.
_SEARCH_AT_ONCE = 2
_SEARCH_WIDTH = 3
#: A request of a search that is not answered within this time does not hold it up any longer, seconds.
_SEARCH_WAIT_S = 0.5
#: The zone is formed while a search goes on only after this time, seconds.
_SEARCH_PATIENCE_S = 1.0
#: A search is over after this time, seconds.
_SEARCH_S = 3.0
#: Unanswered ``NearAsk`` remembered; what nobody asked for is not read.
_ASKED_MAX = 24
#: An answer that comes later than this, seconds, is not read, and the node is doubted.
_ASKED_S = 3.0
#: Every so many exchanges one goes to the sibling zone.
_SIBLING_EVERY = 4


class ZoneView:
    """Zone, candidates and their exchange. Args: ground: what both views share; passive: the long view's reserve, as a help."""

    __slots__ = (
        "_asked",
        "_doubts",
        "_flap_s",
        "_flaps",
        "_fresh",
        "_ground",
        "_merge_s",
        "_merged_s",
        "_near_s",
        "_near_wait_s",
        "_passive",
        "_rounds",
        "_search",
        "_search_s",
        "_told",
        "_zone_s",
        "candidates",
        "depth",
    )

    def __init__(self, ground: Ground, passive: Passive) -> None:
        self._ground, self._passive = ground, passive
        own = head(dht_key(public_key_of(ground.node_id)))
        self.candidates = Candidates(ground.config, own)
        self.depth = 0
        self._told: ZoneChanged | None = None
        self._zone_s = self._merge_s = math.inf
        self._flaps, self._flap_s, self._merged_s = 0, -math.inf, -math.inf
        self._near_s, self._near_wait_s, self._rounds = math.inf, ground.config.near_fast_s, 0
        self._fresh: NodeId | None = None
        self._asked: dict[NodeId, float] = {}
        self._doubts: dict[NodeId, tuple[float, int]] = {}
        self._search: dict[NodeId, None] = {}
        self._search_s = -math.inf

    # -- from the machine --

    def start(self, now_s: float) -> None:
        """Begin with the first own record; after a change of the site drop whom it does not hold."""
        ground = self._ground
        assert ground.record is not None
        for node in [n for n, c in self.candidates.entries.items() if c.record.site != ground.record.site]:
            self.candidates.drop(node)
        if self._near_s == math.inf:
            self._near_s = now_s + self._near_wait_s
        self._zone_s = min(self._zone_s, now_s)

    def due_s(self) -> float:
        """Return when ``tick`` wants to be called next."""
        due_s = min(self._zone_s, self._merge_s, self._near_s)
        return min(due_s, *(until_s for until_s, _ in self._doubts.values())) if self._doubts else due_s

    def tick(self, now_s: float, out: Outbox) -> None:
        """Do what time asks for: form the zone anew, exchange candidates."""
        for node in [node for node, (until_s, _) in self._doubts.items() if until_s <= now_s]:
            _, tries = self._doubts.pop(node)
            candidate = self.candidates.entries.get(node)
            if candidate is None or self._ground.is_watched(node):
                continue
            if tries < self._ground.config.doubt_tries:
                self._doubt(node, now_s, out, tries + 1)
            else:
                self._ground.gone(candidate.record, now_s, out)
        if now_s >= min(self._zone_s, self._merge_s):
            self._form(now_s, out)
        if now_s >= self._near_s:
            self._round(now_s, out)

    def admit(self, record: NodeRecord, via: NodeId, now_s: float, *, met: bool) -> bool:
        """Take a record of our site in as a candidate. Returns True if the node was not known here, and is now."""
        ground = self._ground
        old = self.candidates.entries.get(record.node_id)
        if old is not None:
            if record.seq > old.record.seq or (met and not old.met):
                newest = record if record.seq > old.record.seq else old.record
                self.candidates.put(newest, via, met=met)
                if record.node_id in ground.members:
                    ground.members[record.node_id] = newest
            return False
        if not met:
            bits = shared_bits(head(record.key), self.candidates.own_head)
            if self.candidates.is_spare(bits) and ground.rng.random() >= ground.config.far_share:
                return False
        member = ground.members.get(record.node_id)
        if member is not None and member.seq >= record.seq:
            record = member  # it lost its place among the candidates a moment ago
        new = self.candidates.put(record, via, met=met)
        if new is None:
            return False
        if member is not None:
            ground.members[record.node_id] = record
        if new.bits >= self.depth:
            self._zone_s = min(self._zone_s, now_s + ground.config.zone_gap_s)
        elif new.bits == self.depth - 1:
            # The sibling grew: no news for us, but our mates should hear of it.
            self._soon(now_s)
        fresh = self.candidates.entries.get(self._fresh) if self._fresh is not None else None
        if not met and record.node_id not in self._search and (fresh is None or new.bits > fresh.bits):
            self._fresh = record.node_id
        return True

    def remove(self, node: NodeId, now_s: float, out: Outbox) -> None:
        """Forget a node that died, left or moved; it is no zone mate from now on."""
        if self.candidates.drop(node) is not None:
            self._zone_s = min(self._zone_s, now_s + self._ground.config.zone_gap_s)
        if self._ground.members.pop(node, None) is not None:
            self._ground.settle(node, now_s, out)
            self._soon(now_s)

    def answered(self, node: NodeId) -> None:
        """Note that a node spoke to us: no doubt that it lives."""
        if self._doubts:
            self._doubts.pop(node, None)

    def search(self, now_s: float, out: Outbox) -> None:
        """Look for the nodes nearest to our own key, from those that are known."""
        if now_s > self._search_s + _SEARCH_S:
            self._search = {}
            self._search_s = now_s
        self._advance(now_s, out)

    # -- messages --

    def on_near_ask(self, peer: NodeId, message: NearAsk, now_s: float, out: Outbox) -> None:
        """Answer with the records nearest to the asker that it lacks; want those of its that we lack."""
        marks = message.marks
        if len(marks) % MARK_BYTES or len(marks) > MARKS_MAX * MARK_BYTES:
            out.emit(PeerMisbehaved(peer, "overlay.marks", f"{len(marks)} bytes of marks"))
            return
        ground, candidates = self._ground, self.candidates
        if ground.record is None:
            return
        theirs = [marks[at : at + MARK_BYTES] for at in range(0, len(marks), MARK_BYTES)]
        records = self._lacking(peer, frozenset(theirs), max(0, min(message.depth, 64) - 1))
        known = candidates.by_mark
        strange = [mark for mark in theirs if mark not in known]
        gone: list[bytes] = []
        if ground.tombs and strange:
            dead = {mark_of(tomb.record) for tomb in ground.tombs.values()}
            gone = [mark for mark in strange if mark in dead][:RECORDS_MAX]
            strange = [mark for mark in strange if mark not in dead]
        # Heads of 48 bits here: so much of a key is in a mark. Our own mark is at distance 0.
        own, limit = candidates.own_head >> 16, 1 << (48 - min(48, max(0, self.depth - 1)))
        wanted = [mark for mark in strange if 0 < int.from_bytes(mark[:6], "big") ^ own < limit][:RECORDS_MAX]
        if strange and strange[0] == theirs[0] and strange[0] not in wanted:
            wanted = [strange[0], *wanted[: RECORDS_MAX - 1]]
        if wanted:
            self._expect(peer, now_s)
        out.send(peer, NearReply([record.raw for record in records], b"".join(wanted), b"".join(gone)))

    def on_near_reply(self, peer: NodeId, message: NearReply, now_s: float, out: Outbox) -> None:
        """Take in what we asked for, and send what the peer wants."""
        ground = self._ground
        for at in range(0, min(len(message.gone), RECORDS_MAX * MARK_BYTES) - MARK_BYTES + 1, MARK_BYTES):
            node = self.candidates.by_mark.get(message.gone[at : at + MARK_BYTES])
            if node is not None:
                self._doubt(node, now_s, out)
        if self._asked.pop(peer, None) is None:
            return
        before = len(self.candidates.entries)
        ground.hear_all(message.records, peer, False, now_s, out)
        if message.records and len(self.candidates.entries) > before:
            self._soon(now_s)
        wanted = message.wanted[: RECORDS_MAX * MARK_BYTES]
        raws: list[bytes] = []
        for at in range(0, len(wanted) - MARK_BYTES + 1, MARK_BYTES):
            mark = wanted[at : at + MARK_BYTES]
            node = self.candidates.by_mark.get(mark)
            if node is not None:
                raws.append(self.candidates.entries[node].record.raw)
            elif ground.record is not None and mark == mark_of(ground.record):
                raws.append(ground.record.raw)
        stale = b"".join(self._dead_among(message.records))
        if raws or stale:
            out.send(peer, NearReply(raws, gone=stale))
        self._advance(now_s, out)

    def on_here(self, peer: NodeId, message: Here, now_s: float, out: Outbox) -> None:
        """Take in the peer's newest record; show ours if it asks."""
        ground = self._ground
        record = ground.read_own(message.record, peer, now_s, out)
        if record is None:
            return
        if message.reply and ground.record is not None and not ground.record.leaving:
            out.send(peer, Here(ground.record.raw))
        ground.hear(record, peer, False, now_s, out)

    # -- the zone --

    def _form(self, now_s: float, out: Outbox) -> None:
        """Work out depth and members, and tell what changed."""
        ground, config = self._ground, self._ground.config
        if ground.record is None:
            return
        if self._searching(now_s) and now_s < self._search_s + _SEARCH_PATIENCE_S:
            self._zone_s = min(self._search_s + _SEARCH_PATIENCE_S, now_s + config.zone_gap_s)
            self._merge_s = max(self._merge_s, self._zone_s)
            return
        self._zone_s = math.inf
        depth = self.candidates.depth()
        if depth < self.depth and not self._may_merge(depth, now_s):
            depth = self.depth
        elif depth >= self.depth:
            self._merge_s = math.inf
            if depth > self.depth and now_s < self._merged_s + config.flap_s:
                self._flaps, self._merged_s = min(self._flaps + 1, 16), -math.inf
        self.depth = depth
        members = {c.record.node_id: c for c in self.candidates.within(depth)}
        for node in [node for node in ground.members if node not in members]:
            del ground.members[node]
            ground.settle(node, now_s, out)
        for node, candidate in members.items():
            if node not in ground.members:
                ground.members[node] = candidate.record
                ground.settle(node, now_s, out)
                if not candidate.met:
                    out.send(node, Here(ground.record.raw), candidate.record.addresses)
                self._soon(now_s)
        self._tell(out)

    def _may_merge(self, depth: int, now_s: float) -> bool:
        """Say whether the zone may grow into its parent: when the reason held long enough, at once if it is all but empty."""
        config = self._ground.config
        if self._merge_s == math.inf:
            if now_s > self._flap_s + config.flap_s:
                self._flaps = 0
            self._merge_s = now_s + min(config.merge_hold_s * 2.0**self._flaps, config.merge_hold_s_max)
        if now_s < self._merge_s and sum(1 for _ in self.candidates.within(self.depth)) >= 2:
            return False
        self._merge_s = math.inf
        self._merged_s = self._flap_s = now_s
        return True

    def _tell(self, out: Outbox) -> None:
        ground = self._ground
        assert ground.record is not None
        told = ZoneChanged(ground.record.site, self.depth, self.zone_members())
        if told != self._told:
            self._told = told
            out.emit(told)

    def zone_members(self) -> tuple[NodeId, ...]:
        """Return all members, this node included, by rising key."""
        ground = self._ground
        keys: list[tuple[Key, NodeId]] = [(r.key, node) for node, r in ground.members.items()]
        keys.append((dht_key(public_key_of(ground.node_id)), ground.node_id))
        return tuple(node for _, node in sorted(keys))

    # -- the exchange --

    def _soon(self, now_s: float) -> None:
        """Go back to the short interval: there is news."""
        config = self._ground.config
        self._near_wait_s = config.near_fast_s
        self._near_s = min(self._near_s, now_s + config.near_fast_s * (0.5 + self._ground.rng.random()))

    def _round(self, now_s: float, out: Outbox) -> None:
        """Ask one zone mate, now and then one of the sibling zone, and the nearest of those newly heard of."""
        ground, config = self._ground, self._ground.config
        rng = ground.rng
        self._near_s = now_s + self._near_wait_s * (0.8 + 0.4 * rng.random())
        self._near_wait_s = min(2 * self._near_wait_s, config.near_s_max)
        self._rounds += 1
        for node in [node for node, until_s in self._asked.items() if until_s + _ASKED_S < now_s]:
            del self._asked[node]
            if node in self.candidates.entries:
                self._doubt(node, now_s, out)
        pool = list(ground.members)
        if self._rounds % _SIBLING_EVERY == 0 or not pool:
            siblings = [n for n, c in self.candidates.entries.items() if c.bits == self.depth - 1]
            pool = siblings or pool or list(self.candidates.entries)
        if pool:
            self._ask(pool[int(rng.random() * len(pool))], now_s, out)
        fresh, self._fresh = self._fresh, None
        if fresh is not None and fresh in self.candidates.entries and fresh not in self._asked:
            self._ask(fresh, now_s, out)

    def _ask(self, node: NodeId, now_s: float, out: Outbox) -> None:
        ground = self._ground
        assert ground.record is not None
        candidate = self.candidates.entries.get(node)
        self._expect(node, now_s)
        marks = mark_of(ground.record) + self.candidates.marks()
        out.send(node, NearAsk(marks, self.depth), candidate.record.addresses if candidate is not None else ())

    def _dead_among(self, raws: list[bytes]) -> list[bytes]:
        """Return the marks of those records whose nodes are dead to us."""
        tombs = self._ground.tombs
        known = {tomb.record.raw: tomb.record for tomb in tombs.values()} if tombs and raws else {}
        return [mark_of(known[raw]) for raw in raws[:RECORDS_MAX] if raw in known]

    def _doubt(self, node: NodeId, now_s: float, out: Outbox, tries: int = 1) -> None:
        """Ask a candidate that nobody here watches whether it lives."""
        ground = self._ground
        if node in self._doubts or len(self._doubts) >= ground.config.doubts_max or ground.is_watched(node):
            return
        if ground.record is None or ground.record.leaving:
            return
        self._doubts[node] = (now_s + ground.config.doubt_s * 2.0 ** (tries - 1), tries)
        out.send(node, Here(ground.record.raw, reply=True), self.candidates.entries[node].record.addresses)

    def _expect(self, node: NodeId, now_s: float) -> None:
        self._asked.pop(node, None)
        if len(self._asked) >= _ASKED_MAX:
            del self._asked[next(iter(self._asked))]
        self._asked[node] = now_s + _SEARCH_WAIT_S

    def _searching(self, now_s: float) -> bool:
        return any(self._asked.get(node, -math.inf) > now_s for node in self._search)

    def _advance(self, now_s: float, out: Outbox) -> None:
        """Carry a search on: ask the nearest nodes that were not asked yet."""
        config = self._ground.config
        if now_s > self._search_s + _SEARCH_S or len(self._search) >= config.search_asks_max:
            return
        running = sum(self._asked.get(node, -math.inf) > now_s for node in self._search)
        for candidate in self.candidates.nearest(_SEARCH_WIDTH):
            node = candidate.record.node_id
            if running < _SEARCH_AT_ONCE and node not in self._search:
                self._search[node] = None
                self._ask(node, now_s, out)
                running += 1

    def _lacking(self, peer: NodeId, theirs: frozenset[bytes], bits_min: int) -> list[NodeRecord]:
        """Return the records nearest to a peer whose marks it did not name: nearer than we are, or of its own region."""
        ground, candidates = self._ground, self.candidates
        assert ground.record is not None
        try:
            peer_head = head(dht_key(public_key_of(peer)))
        except DecodeError:
            return []
        shared = shared_bits(peer_head, candidates.own_head)
        # Distances below this: of the peer's own region, or nearer to it than we are.
        limit = 1 << max(0, 64 - min(bits_min, shared + 1))
        found = {
            candidate.record.node_id: (distance, candidate.record)
            for candidate in candidates.entries.values()
            if 0 < (distance := candidate.head ^ peer_head) < limit and candidate.mark not in theirs
        }
        if shared < self.depth:
            # A stranger, looking for its region: everybody we know may be of help. What is near us is a candidate anyway.
            site = ground.record.site
            links = (link.record for link in ground.long.values())
            spares = (spare.record for spare in self._passive.entries.values())
            for record in chain(links, spares):
                distance = head(record.key) ^ peer_head
                if 0 < distance < limit and record.site == site and mark_of(record) not in theirs:
                    found.setdefault(record.node_id, (distance, record))
        if mark_of(ground.record) not in theirs and candidates.own_head ^ peer_head < limit:
            found[ground.node_id] = (candidates.own_head ^ peer_head, ground.record)
        nearest = sorted(found.values(), key=itemgetter(0))
        return [record for _, record in nearest[:RECORDS_MAX]]

    def candidate(self, node: NodeId) -> Candidate | None:
        """Return what is known of a candidate."""
        return self.candidates.entries.get(node)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of this view is broken."""
        ground = self._ground
        self.candidates.assert_invariants()
        assert ground.node_id not in self.candidates.entries
        assert not self.candidates.entries.keys() & ground.tombs.keys()
        for node, record in ground.members.items():
            candidate = self.candidates.entries.get(node)
            assert candidate is None or candidate.record is record
        assert len(self._asked) <= _ASKED_MAX
        assert len(self._doubts) <= ground.config.doubts_max
        assert len(self._search) <= ground.config.search_asks_max


#: Message class → method, for the machine.
HANDLERS: dict[type[Any], Any] = {
    NearAsk: ZoneView.on_near_ask,
    NearReply: ZoneView.on_near_reply,
    Here: ZoneView.on_here,
}
