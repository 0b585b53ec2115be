"""The broadcast machine: push along a tree, announce beside it, fetch what is missing (docs/spec/plumtree.md).

After Leitão, Pereira & Rodrigues, "Epidemic Broadcast Trees" (2007), with a shared tree for all senders. Departures: a
first miss is fetched without changing the tree, large payloads are fetched by id, recent ids are compared with a random
neighbour after traffic, and neighbours are scored in the manner of gossipsub 1.1.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from agentmesh.core.machine import Outbox, PeerMisbehaved, Timer
from agentmesh.core.messages import Delivered, NeighbourBad, NeighbourDown, NeighbourUp, Publish, Received
from agentmesh.core.plumtree.config import PlumtreeConfig
from agentmesh.core.plumtree.fetching import FETCH, Fetching
from agentmesh.core.plumtree.messages import (
    HOPS_MAX,
    ID_BYTES,
    IDS_MAX,
    KIND_MAX,
    PREFIX_BYTES,
    RECENT_MAX,
    Gossip,
    Graft,
    IDontWant,
    IHave,
    Offer,
    Prune,
    Recent,
    Verdict,
    message_id,
)
from agentmesh.core.plumtree.missing import Missing
from agentmesh.core.plumtree.neighbours import Neighbour, Neighbours
from agentmesh.core.plumtree.recent import Kept, RecentTable
from agentmesh.ids import NodeId

ANNOUNCE = "plumtree.announce"
SYNC = "plumtree.sync"
EXPIRE = "plumtree.expire"
#: Copies that were under way when a neighbour was told to stop are no offence for so long.
_GRACE_S = 3.0
#: Two neighbours get the same message within this time, as a rule.
_SPAN_SLACK_S = 1.0
_SPAN_MS_MAX = 600_000
#: Invalid messages remembered, so that everybody who brings one is charged and none is judged twice.
_INVALID_MAX = 256

Judge = Callable[[str, bytes, float], Verdict]


class Plumtree:
    """Broadcast of one node.

    Args:
        node_id: This node.
        config: Waits, bounds and scores.
        rng: Picks first eager zone mates and partners for comparison.
        judge: Says of a kind and payload at monotonic seconds whether it is "new" (deliver and pass on), "stale" (drop
            in silence) or "bad" (drop and charge who brought it). Own messages are not judged.
    """

    def __init__(self, node_id: NodeId, config: PlumtreeConfig, rng: random.Random, judge: Judge) -> None:
        self.node_id = node_id
        self.config = config
        self.received = self.duplicates = self.published = self.delivered = 0
        self.refused = self.fetched = self.grafts = self.prunes = self.promotions = 0
        self._judge = judge
        self._rng = rng
        self._neighbours = Neighbours(node_id, config, rng)
        self._recent = RecentTable(config)
        self._fetching = Fetching(config, self._neighbours)
        self._declined: dict[bytes, list[NodeId]] = {}
        self._queue: list[bytes] = []
        self._sync_left = 0
        self._syncing = self._expiring = False
        self._invalid: dict[bytes, None] = {}
        self._holes = 0.0
        self._optimised_s = -1e9
        self._on: dict[type, Callable[[Neighbour, Any, float, Outbox], None]] = {
            Gossip: self._on_gossip,
            IHave: self._on_i_have,
            Graft: self._on_graft,
            Prune: self._on_prune,
            IDontWant: self._on_i_dont_want,
            Offer: self._on_offer,
            Recent: self._on_recent,
        }

    # What others may ask

    def eager(self) -> tuple[NodeId, ...]:
        """Return the neighbours that payloads are pushed to."""
        return tuple(self._neighbours.eager())

    def lazy(self) -> tuple[NodeId, ...]:
        """Return the neighbours that messages are announced to."""
        return tuple(self._neighbours.lazy())

    def score(self, node: NodeId, now_s: float) -> float:
        """Return a neighbour's score at monotonic ``now_s``; of a former one what is held against it, else 0.0."""
        neighbour = self._neighbours.known.get(node)
        return self._neighbours.former_score(node, now_s) if neighbour is None else neighbour.score(now_s)

    def seen(self, message: bytes) -> bool:
        """Say whether a message with this id arrived or was published here lately."""
        return message in self._recent.seen

    def counters(self) -> dict[str, int]:
        """Return totals since the start.

        ``received`` payloads from peers, of these ``duplicates``, ``delivered`` and ``refused`` (bad, stale or over the
        allowance); messages ``published`` here; payloads first got by ``fetched``; ``grafts`` and ``prunes`` sent;
        ``promotions`` of announcers to eager parents.
        """
        names = (
            "received",
            "duplicates",
            "delivered",
            "refused",
            "published",
            "fetched",
            "grafts",
            "prunes",
            "promotions",
        )
        return {name: getattr(self, name) for name in names}

    # Inputs

    def handle(self, incoming: Any, now_s: float, out: Outbox) -> None:
        """Take one input (``core.messages``) and write effects; what it does not know it ignores."""
        kind: type = type(incoming)  # pyright: ignore[reportUnknownVariableType]
        if kind is Received:
            handler = self._on.get(type(incoming.message))  # pyright: ignore[reportUnknownArgumentType]
            if handler is not None:
                neighbour = self._neighbours.known.get(incoming.peer)
                if neighbour is None:
                    self._on_stranger(incoming.peer, incoming.message, now_s, out)
                elif not neighbour.bad:
                    handler(neighbour, incoming.message, now_s, out)
                    self._fetching.arm(now_s, out)
        elif kind is Timer:
            self._on_timer(incoming, now_s, out)
        elif kind is Publish:
            self._on_publish(incoming, now_s, out)
        elif kind is NeighbourUp:
            self._on_neighbour_up(incoming, now_s, out)
        elif kind is NeighbourDown:
            self._on_neighbour_down(incoming.node, now_s, out)
        elif kind is PeerMisbehaved:
            neighbour = self._neighbours.known.get(incoming.peer)
            if neighbour is not None and not incoming.code.startswith("plumtree."):
                self._charge(neighbour, self.config.score_outside, now_s, out)

    def _on_timer(self, timer: Timer, now_s: float, out: Outbox) -> None:
        if timer.name == FETCH and self._fetching.wakes(timer):
            self._fetch_due(now_s, out)
            self._fetching.arm(now_s, out)
        elif timer.name == ANNOUNCE:
            self._announce(now_s, out)
        elif timer.name == SYNC:
            self._sync(now_s, out)
        elif timer.name == EXPIRE:
            self._expire(now_s, out)

    def _on_neighbour_up(self, up: NeighbourUp, now_s: float, out: Outbox) -> None:
        if up.node == self.node_id:
            return
        known = up.node in self._neighbours.known
        neighbour = self._neighbours.admit(up.node, up.zone, now_s)
        if neighbour.score(now_s) <= self.config.score_bad and not neighbour.bad:
            self._charge(neighbour, 0.0, now_s, out)
        elif not known:
            recent = self._recent_of(self.config.cache_s * 0.8, now_s)
            if recent.prefixes:
                out.send(up.node, recent)

    def _on_neighbour_down(self, node: NodeId, now_s: float, out: Outbox) -> None:
        self._neighbours.expire(node, now_s)
        self._fetching.part(node, now_s)
        self._fetching.arm(now_s, out)

    def _on_publish(self, publish: Publish, now_s: float, out: Outbox) -> None:
        assert len(publish.payload) <= self.config.payload_bytes_max, "a payload that no neighbour would accept"
        assert 0 < len(publish.kind) <= KIND_MAX
        id_ = message_id(publish.kind, publish.payload)
        if id_ in self._recent.seen:
            return
        self.published += 1
        kept = Kept(publish.kind, publish.payload, 0, now_s, None, True, [])
        missing = self._fetching.close(id_)
        if missing is not None:
            kept.holders.extend(announcer for announcer, _ in missing.announcers)
        self._spread(id_, kept, now_s, out)
        self._fetching.arm(now_s, out)

    # Spreading

    def _spread(self, id_: bytes, kept: Kept, now_s: float, out: Outbox, *, push: bool = True) -> None:
        """Keep a message, push or offer it along the tree, and queue its announcement."""
        config = self.config
        declined = self._declined.pop(id_, None)
        # Whoever declined may still fail to get it elsewhere: it is announced to, below.
        skip = kept.holders + declined if declined else kept.holders
        small = push and len(kept.payload) <= config.inline_bytes_max
        hops = min(kept.hops + 1, HOPS_MAX)
        pushed: Gossip | Offer | None = None
        sends = out.sends
        size = len(sends)
        for node in self._neighbours.eager():
            if node in skip:
                continue
            if pushed is None:
                pushed = (
                    Gossip(kind=kept.kind, hops=hops, payload=kept.payload, tree=kept.tree)
                    if small
                    else Offer(kind=kept.kind, id=id_, hops=hops, size_bytes=len(kept.payload))
                )
            out.send(node, pushed)
        if kept.via is None and small:
            flooded = Gossip(kind=kept.kind, hops=hops, payload=kept.payload, tree=False)
            for node in self._neighbours.lazy_long()[: config.flood_publish_max]:
                if node not in skip:
                    out.send(node, flooded)
        for send in sends[size:]:
            kept.note_holder(send.to)
        self._recent.admit(id_, now_s, kept)
        if not self._queue:
            out.after(config.announce_delay_s, Timer(ANNOUNCE))
        self._queue.append(id_)
        self._sync_left = config.sync_rounds
        if not self._syncing:
            self._syncing = True
            out.after(self._sync_wait_s(), Timer(SYNC))
        if not self._expiring:
            self._expiring = True
            out.after(config.cache_s, Timer(EXPIRE))

    def _announce(self, now_s: float, out: Outbox) -> None:
        """Tell the lazy neighbours, and who declined a push, what came since the last time."""
        kept_of = self._recent.kept
        queue: list[tuple[bytes, Kept]] = []
        for id_ in self._queue:
            kept = kept_of.get(id_)
            if kept is None:
                continue
            if len(kept.payload) <= self.config.inline_bytes_max:
                queue.append((id_, kept))
                continue
            # Large payloads are not pushed, so there is nothing to wait for: everybody fetches from who offers first.
            hops = min(kept.hops + 1, HOPS_MAX)
            offer = Offer(kind=kept.kind, id=id_, hops=hops, size_bytes=len(kept.payload))
            for node in self._told():
                if node not in kept.holders:
                    out.send(node, offer)
        self._queue = []
        for start in range(0, len(queue), IDS_MAX):
            part = queue[start : start + IDS_MAX]
            whole = IHave(ids=[i for i, _ in part], hops=[min(k.hops + 1, HOPS_MAX) for _, k in part])
            single = part[0][1].holders if len(part) == 1 else None
            for neighbour in self._told():
                if single is not None:
                    if neighbour not in single:
                        out.send(neighbour, whole)
                    continue
                news = [(i, k) for i, k in part if neighbour not in k.holders]
                if len(news) == len(part):
                    out.send(neighbour, whole)
                elif news:
                    hops = [min(k.hops + 1, HOPS_MAX) for _, k in news]
                    out.send(neighbour, IHave(ids=[i for i, _ in news], hops=hops))

    def _told(self) -> list[NodeId]:
        """Return all to be told; eager ones count, since one that declined was not pushed to."""
        return self._neighbours.lazy() + self._neighbours.eager()

    # Payloads

    def _on_gossip(self, peer: Neighbour, gossip: Gossip, now_s: float, out: Outbox) -> None:
        config = self.config
        self.received += 1
        payload, kind = gossip.payload, gossip.kind
        if not 0 < gossip.hops <= HOPS_MAX or len(payload) > config.payload_bytes_max or len(kind) > KIND_MAX:
            self.refused += 1
            self._abuse(peer, "a payload out of bounds", now_s, out)
            return
        if not peer.takes_bytes(len(payload) + 64, now_s):
            self.refused += 1
            self._flood(peer, now_s, out)
            return
        id_ = message_id(kind, payload)
        if id_ in self._recent.seen:
            self._on_duplicate(peer, id_, gossip, now_s, out)
            return
        if not peer.takes_ids(1, now_s):
            self.refused += 1
            self._flood(peer, now_s, out)
            return
        verdict = self._judge(kind, payload, now_s)
        missing = self._fetching.close(id_)
        if verdict != "new":
            self.refused += 1
            self._recent.admit(id_, now_s, None)
            self._declined.pop(id_, None)
            if verdict == "bad":
                if len(self._invalid) >= _INVALID_MAX:
                    del self._invalid[next(iter(self._invalid))]
                self._invalid[id_] = None
                self._on_invalid(peer, kind, now_s, out)
            return
        self._accept(peer, id_, gossip, missing, now_s, out)

    def _accept(
        self, peer: Neighbour, id_: bytes, gossip: Gossip, missing: Missing | None, now_s: float, out: Outbox
    ) -> None:
        """Take a new, good payload: score, shape the tree, deliver, pass on."""
        config = self.config
        kept = Kept(gossip.kind, gossip.payload, gossip.hops, now_s, peer.node, gossip.tree, [], holders=[peer.node])
        kept.asked = self._fetching.asked(id_, missing)
        if missing is not None:
            kept.holders.extend(announcer for announcer, _ in missing.announcers if announcer != peer.node)
        peer.credit(config.score_first, now_s)
        peer.late = 0
        # Fetched from beside the tree: the eager parent, wherever it is, most likely has it too, so do not push to it.
        push = peer.eager or not gossip.asked
        if gossip.asked:
            kept.tree, kept.fetched = False, True
            self.fetched += 1
            self._fetching.note_answer(peer, missing, len(gossip.payload), now_s)
            self._holes += 1.0
            if self._holes >= config.promote_holes and not peer.eager:
                self._promote(peer, out)
        else:
            self._holes = max(0.0, self._holes - config.promote_mend)
            if missing is not None and missing.waiting is not None:
                self._fetching.wait_longer()
            if gossip.tree:
                self._neighbours.set_eager(peer, True)
            if missing is not None and peer.eager:
                self._optimise(peer, gossip.hops, missing, now_s, out)
        self.delivered += 1
        out.emit(Delivered(gossip.kind, gossip.payload, peer.node, gossip.hops))
        if len(gossip.payload) > config.unwanted_bytes_min:
            self._decline([id_], kept.holders, out)
        self._spread(id_, kept, now_s, out, push=push)

    def _on_duplicate(self, peer: Neighbour, id_: bytes, gossip: Gossip, now_s: float, out: Outbox) -> None:
        """Take a copy that came second: the link it came by is no part of the tree, if the tree brought both."""
        self.duplicates += 1
        if id_ in self._invalid:
            self._on_invalid(peer, gossip.kind, now_s, out)
            return
        kept = self._recent.kept.get(id_)
        if kept is not None:
            kept.note_holder(peer.node)
            if kept.fetched and not gossip.asked:
                self._fetching.wait_longer()
        if gossip.asked:
            if kept is not None and kept.via is not None and peer.node not in kept.asked:
                self._abuse(peer, "an answer to no question", now_s, out)
            return
        if not peer.eager:
            if gossip.hops == 1 and not gossip.tree:
                return  # its author told all its long links
            # It was told, or the word got lost; once more, and whoever goes on is charged.
            if now_s - peer.pruned_s > _GRACE_S:
                again = peer.pruned_s > -1e9
                self._prune(peer, now_s, out)
                if again and now_s - peer.pruned_s < 10 * _GRACE_S:
                    self._charge(peer, self.config.score_broken, now_s, out)
            return
        peer.late += 1
        via = self._neighbours.known.get(kept.via) if kept is not None and kept.via is not None else None
        proven = (
            kept is not None and kept.tree and gossip.tree and (kept.via is None or (via is not None and via.eager))
        )
        if (proven and via is not peer) or peer.late >= self.config.late_max:
            self._prune(peer, now_s, out)

    def _prune(self, peer: Neighbour, now_s: float, out: Outbox) -> None:
        self._neighbours.set_eager(peer, False)
        peer.pruned_s = now_s
        self.prunes += 1
        out.send(peer.node, Prune())

    def _promote(self, peer: Neighbour, out: Outbox) -> None:
        """Make an announcer an eager parent."""
        self._holes = 0.0
        self.promotions += 1
        self.grafts += 1
        self._neighbours.set_eager(peer, True)
        out.send(peer.node, Graft(ids=[], keep=True))

    def _optimise(self, peer: Neighbour, hops: int, missing: Missing, now_s: float, out: Outbox) -> None:
        """Swap an eager parent for an announcer that is much nearer to the sender (paper §3.8)."""
        config = self.config
        if now_s - self._optimised_s < config.optimise_pause_s:
            return
        for node, told_hops in missing.announcers:
            nearer = self._neighbours.known.get(node)
            if nearer is None or nearer.eager or nearer.bad or hops - told_hops < config.optimise_hops:
                continue
            self._optimised_s = now_s
            self._promote(nearer, out)
            self._prune(peer, now_s, out)
            return

    def _decline(self, ids: list[bytes], but: list[NodeId], out: Outbox) -> None:
        """Tell the eager neighbours not to push these."""
        message = IDontWant(ids=ids)
        for node in self._neighbours.eager():
            if node not in but:
                out.send(node, message)

    # Announcements

    def _on_i_have(self, peer: Neighbour, have: IHave, now_s: float, out: Outbox) -> None:
        if len(have.ids) > IDS_MAX or len(have.hops) != len(have.ids):
            self._abuse(peer, "an announcement out of bounds", now_s, out)
            return
        kept_of, seen, wait_s = self._recent.kept, self._recent.seen, self._fetching.wait_s()
        for id_, hops in zip(have.ids, have.hops, strict=True):
            if id_ in seen:
                kept = kept_of.get(id_)
                if kept is not None and now_s - kept.at_s < 1.0:
                    kept.note_holder(peer.node)
            elif len(id_) != ID_BYTES or not 0 < hops <= HOPS_MAX:
                self._abuse(peer, "an announcement that is none", now_s, out)
                return
            elif not self._fetching.admit(peer, id_, hops, wait_s, 0, now_s):
                self._flood(peer, now_s, out)
                return

    def _on_offer(self, peer: Neighbour, offer: Offer, now_s: float, out: Outbox) -> None:
        size = offer.size_bytes
        if len(offer.id) != ID_BYTES or not 0 < offer.hops <= HOPS_MAX or not 0 < size <= self.config.payload_bytes_max:
            self._abuse(peer, "an offer out of bounds", now_s, out)
            return
        kept = self._recent.kept.get(offer.id)
        if kept is not None:
            kept.note_holder(peer.node)
        if offer.id in self._recent.seen:
            return
        if not self._fetching.admit(peer, offer.id, offer.hops, 0.0, size, now_s):
            self._flood(peer, now_s, out)

    def _fetch_due(self, now_s: float, out: Outbox) -> None:
        """Fetch what is due, all ids of one announcer in one message, and charge who did not deliver."""
        plan = self._fetching.plan(now_s)
        eager = self._neighbours.eager()
        for node, ids in plan.wanted.items():
            keep = not eager
            if keep:
                self.promotions += 1
                self._neighbours.set_eager(self._neighbours.known[node], True)
            for start in range(0, len(ids), IDS_MAX):
                self.grafts += 1
                out.send(node, Graft(ids=ids[start : start + IDS_MAX], keep=keep))
        for start in range(0, len(plan.declined), IDS_MAX):
            self._decline(plan.declined[start : start + IDS_MAX], list(plan.wanted), out)
        for node in plan.broken:
            neighbour = self._neighbours.known.get(node)
            if neighbour is not None and neighbour.may_fault(now_s):
                self._charge(neighbour, self.config.score_broken, now_s, out)

    # What neighbours ask

    def _on_graft(self, peer: Neighbour, graft: Graft, now_s: float, out: Outbox) -> None:
        if len(graft.ids) > IDS_MAX:
            self._abuse(peer, "a fetch out of bounds", now_s, out)
            return
        if graft.keep:
            self._neighbours.set_eager(peer, True)
        for id_ in graft.ids:
            kept = self._recent.kept.get(id_)
            if kept is None:
                continue
            if not peer.serves_bytes(len(kept.payload) + 64, now_s):
                self._flood(peer, now_s, out)
                return
            kept.note_holder(peer.node)
            hops = min(kept.hops + 1, HOPS_MAX)
            out.send(peer.node, Gossip(kind=kept.kind, hops=hops, payload=kept.payload, tree=False, asked=True))

    def _on_prune(self, peer: Neighbour, prune: Prune, now_s: float, out: Outbox) -> None:
        self._neighbours.set_eager(peer, False)

    def _on_i_dont_want(self, peer: Neighbour, unwanted: IDontWant, now_s: float, out: Outbox) -> None:
        if len(unwanted.ids) > IDS_MAX:
            self._abuse(peer, "too many ids declined", now_s, out)
            return
        declined = self._declined
        for id_ in unwanted.ids:
            if id_ in self._recent.seen or len(id_) != ID_BYTES:
                continue
            nodes = declined.get(id_)
            if nodes is None:
                if len(declined) >= self.config.unwanted_max:
                    del declined[next(iter(declined))]
                declined[id_] = [peer.node]
            elif peer.node not in nodes:
                nodes.append(peer.node)

    # Comparison after traffic

    def _sync_wait_s(self) -> float:
        return self.config.sync_interval_s * (0.7 + 0.6 * self._rng.random())

    def _recent_of(self, span_s: float, now_s: float, *, answer: bool = False) -> Recent:
        return Recent(prefixes=self._recent.prefixes(span_s, now_s), span_ms=int(span_s * 1000), answer=answer)

    def _sync(self, now_s: float, out: Outbox) -> None:
        """Compare recent ids with some neighbours; stop when nothing new came for some rounds."""
        if self._sync_left <= 0:
            self._syncing = False
            return
        self._sync_left -= 1
        recent = self._recent_of(self.config.sync_span_s, now_s)
        if recent.prefixes:
            for node in self._neighbours.pick_partners():
                out.send(node, recent)
        out.after(self._sync_wait_s(), Timer(SYNC))

    def _expire(self, now_s: float, out: Outbox) -> None:
        """Drop payloads whose time is over; wake again only while there are any."""
        self._recent.expire(now_s)
        self._expiring = bool(self._recent.kept)
        if self._expiring:
            out.after(self.config.cache_s, Timer(EXPIRE))

    def _on_recent(self, peer: Neighbour, recent: Recent, now_s: float, out: Outbox) -> None:
        size = len(recent.prefixes)
        if size % PREFIX_BYTES or size > RECENT_MAX * PREFIX_BYTES or not 0 < recent.span_ms <= _SPAN_MS_MAX:
            self._abuse(peer, "a comparison out of bounds", now_s, out)
            return
        raw = recent.prefixes
        theirs = {raw[i : i + PREFIX_BYTES] for i in range(0, size, PREFIX_BYTES)}
        # What came here just within the span came there just before it, perhaps.
        span_s = min(recent.span_ms / 1000, self.config.cache_s * 0.8)
        lacking = self._recent.lacking(theirs, span_s - _SPAN_SLACK_S, now_s, IDS_MAX)
        if lacking:
            kept = self._recent.kept
            hops = [min(kept[id_].hops + 1, HOPS_MAX) for id_ in lacking]
            out.send(peer.node, IHave(ids=lacking, hops=hops))
        if not recent.answer and not self._recent.knows_all(theirs, now_s):
            out.send(peer.node, self._recent_of(span_s, now_s, answer=True))

    # Standing

    def _on_stranger(self, peer: NodeId, message: Any, now_s: float, out: Outbox) -> None:
        """Take a message of a node that is no neighbour: ours ended first, or theirs began first; no offence.

        A payload is not taken, but one who pushes learns that it is not wanted, and a fetch is not served.
        """
        if type(message) is Gossip and not message.asked:
            out.send(peer, Prune())

    def _on_invalid(self, peer: Neighbour, kind: str, now_s: float, out: Outbox) -> None:
        out.emit(PeerMisbehaved(peer.node, "plumtree.invalid", f"an invalid {kind!r} message"))
        self._charge(peer, self.config.score_invalid, now_s, out)

    def _abuse(self, peer: Neighbour, detail: str, now_s: float, out: Outbox) -> None:
        out.emit(PeerMisbehaved(peer.node, "plumtree.malformed", detail))
        self._charge(peer, self.config.score_abuse, now_s, out)

    def _flood(self, peer: Neighbour, now_s: float, out: Outbox) -> None:
        if peer.may_fault(now_s):
            out.emit(PeerMisbehaved(peer.node, "plumtree.flood", "more ids or bytes than agreed"))
            self._charge(peer, self.config.score_flood, now_s, out)

    def _charge(self, peer: Neighbour, points: float, now_s: float, out: Outbox) -> None:
        score = peer.credit(points, now_s)
        if score <= self.config.score_bad and not peer.bad:
            peer.bad = True
            peer.eager = peer.fresh = False
            self._neighbours.changed()
            out.emit(NeighbourBad(peer.node, round(score, 1)))

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule is broken."""
        self._neighbours.assert_invariants()
        self._recent.assert_invariants()
        self._fetching.assert_invariants()
        assert len(self._declined) <= self.config.unwanted_max
        assert len(self._invalid) <= _INVALID_MAX
        for id_ in self._fetching.missing.by_id:
            assert id_ not in self._recent.seen, "an id is awaited that arrived"
