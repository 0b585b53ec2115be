"""The long view: HyParView with a number of links that follows capacity (docs/spec/overlay.md §3).

Departures from Leitao, Pereira & Rodrigues 2007: a joiner asks for its links itself, among the nodes that its walks name; a
full node that is asked by one who lacks two or more links lets itself be put between two of them and so keeps its number
(as when regular random graphs are grown: Law & Siu 2003), which is how nodes with many links fill up; candidates are
drawn by the number of links they want.
"""

from __future__ import annotations

import math
from typing import Any

from agentmesh.core.machine import Outbox, PeerMisbehaved
from agentmesh.core.overlay.ground import Ground, Link
from agentmesh.core.overlay.messages import (
    RECORDS_MAX,
    Disconnect,
    ForwardJoin,
    Join,
    JoinReply,
    LinkCheck,
    Neighbour,
    NeighbourReply,
    Shuffle,
    ShuffleReply,
)
from agentmesh.core.overlay.passive import Passive
from agentmesh.identity.node_record import NodeRecord
from agentmesh.ids import NodeId

#: Records in an answer to a join or a refusal.
_SAMPLE = 8
#: Joiners remembered, to tell a flood.
_JOINERS_MAX = 64
#: Each refusal doubles the wait before the same node is asked again, so many times at most.
_REFUSALS_MAX = 5
#: After so many refusals in a row a node that has enough links to live on waits before it asks again.
_REFUSALS_IN_A_ROW = 8
#: Shuffles at the short interval after links changed.
_SHUFFLES_SOON = 6


class LongView:
    """Long links and the reserve behind them. Args: ground: what both views share."""

    __slots__ = (
        "_asks",
        "_check",
        "_fill_s",
        "_fill_wait_s",
        "_ground",
        "_insert_s",
        "_join_s",
        "_join_wait_s",
        "_joiners",
        "_refused",
        "_rejoin_s",
        "_replies",
        "_shuffle_s",
        "_shuffles_soon",
        "_walks",
        "_walks_s",
        "_welcomes",
        "passive",
        "target",
    )

    def __init__(self, ground: Ground) -> None:
        config = ground.config
        self._ground = ground
        self.target = config.long_min
        self.passive = Passive(config.passive_max, int(config.passive_max * config.told_share))
        self._asks: dict[NodeId, tuple[float, NodeRecord]] = {}
        self._fill_s, self._fill_wait_s = 0.0, config.fill_s
        self._insert_s = -math.inf
        self._refused = 0
        self._join_s = self._rejoin_s = -math.inf
        self._join_wait_s = config.join_retry_s
        self._joiners: dict[NodeId, float] = {}
        self._replies = self._welcomes = self._check = 0
        self._shuffle_s, self._shuffles_soon = math.inf, _SHUFFLES_SOON
        self._walks, self._walks_s = config.walks_burst, 0.0

    # -- from the machine --

    def start(self, now_s: float) -> None:
        """Take the target from the own record; begin to shuffle."""
        ground = self._ground
        assert ground.record is not None
        config = ground.config
        self.target = config.long_target(ground.record.capacity, ground.record.key)
        self.passive.places = max(config.passive_max, 2 * self.target)
        self.passive.share = max(1, int(self.passive.places * config.told_share))
        if self._shuffle_s == math.inf:
            self._shuffle_s = now_s + config.shuffle_s * ground.rng.random()
        self._fill_s = now_s

    def due_s(self) -> float:
        """Return when ``tick`` wants to be called next."""
        ground, due_s, asks = self._ground, self._shuffle_s, len(self._asks)
        if asks:
            due_s = min(due_s, next(iter(self._asks.values()))[0])
        if not ground.long and self._lost():
            due_s = min(due_s, self._rejoin_s)
        if self._fill_s < due_s and self.target > len(ground.long) + asks and asks < ground.config.asks_at_once:
            due_s = self._fill_s
        return due_s

    def tick(self, now_s: float, out: Outbox) -> None:
        """Do what time asks for: give up requests, look for links, join again, shuffle."""
        for peer in [peer for peer, (until_s, _) in self._asks.items() if until_s <= now_s]:
            del self._asks[peer]
            self.passive.drop(peer)
            # It may have taken us in all the same: then its half of the link goes.
            out.send(peer, Disconnect())
        self.fill(now_s, out)
        if self._lost():
            self._join_anybody(now_s, out)
        if now_s >= self._shuffle_s:
            self._shuffle(now_s, out)

    def fill(self, now_s: float, out: Outbox) -> None:
        """Ask nodes of the reserve for the links that are missing."""
        ground, config = self._ground, self._ground.config
        lacking = self.target - len(ground.long) - len(self._asks)
        if lacking <= 0 or now_s < self._fill_s or ground.record is None or ground.record.leaving:
            return
        asked = 0
        while lacking > 0 and len(self._asks) < config.asks_at_once:
            record = self._pick(now_s)
            if record is None:
                break
            self._ask(record, lacking, now_s, out)
            # Each may bring two links: itself and the one it gives up.
            lacking -= 2
            asked += 1
        if asked or self._asks:
            self._fill_s = now_s + config.ask_timeout_s
        else:
            self._fill_s = now_s + self._fill_wait_s
            self._fill_wait_s = min(2 * self._fill_wait_s, config.fill_s_max)

    def wanted(self, now_s: float) -> None:
        """Note that there is somebody new to ask."""
        if len(self._ground.long) < self.target and self._refused < _REFUSALS_IN_A_ROW:
            self._fill_s = min(self._fill_s, now_s)

    def join(self, peer: NodeId, now_s: float, out: Outbox) -> None:
        """Ask a node to take us in, unless one was asked a moment ago."""
        ground = self._ground
        if ground.record is None or ground.record.leaving or now_s < self._join_s + ground.config.join_retry_s:
            return
        self._join_s = now_s
        self._welcomes = 2 + ground.config.join_walks
        out.send(peer, Join(ground.record.raw))

    def drop(self, node: NodeId, now_s: float, out: Outbox) -> bool:
        """Take a node out of the long links; a replacement is looked for at once. Returns whether it was one."""
        self._asks.pop(node, None)
        if self._ground.long.pop(node, None) is None:
            return False
        self._changed(now_s)
        self._ground.settle(node, now_s, out)
        return True

    def disconnect(self, node: NodeId, now_s: float, out: Outbox, instead: bytes = b"") -> None:
        """Give up a long link and say so."""
        if self.drop(node, now_s, out):
            out.send(node, Disconnect(instead))

    # -- messages --

    def on_join(self, peer: NodeId, message: Join, now_s: float, out: Outbox) -> None:
        """Name nodes to the joiner, and send its record on walks."""
        ground = self._ground
        record = ground.read_own(message.record, peer, now_s, out)
        if record is None or ground.record is None or ground.is_bad(peer, now_s):
            return
        if now_s < self._joiners.pop(peer, -math.inf) + ground.config.join_gap_s:
            self._joiners[peer] = now_s
            out.emit(PeerMisbehaved(peer, "overlay.join_flood", "joins again and again"))
            return
        if len(self._joiners) >= _JOINERS_MAX:
            del self._joiners[next(iter(self._joiners))]
        self._joiners[peer] = now_s
        out.send(peer, JoinReply(self._introduction(peer)))
        targets = [node for node in ground.long if node != peer]
        if len(targets) > ground.config.join_walks:
            targets = ground.rng.sample(targets, ground.config.join_walks)
        for node in targets:
            if self._may_walk(now_s):
                out.send(node, ForwardJoin(record.raw, ground.config.join_walk))
        ground.hear(record, peer, True, now_s, out)

    def on_join_reply(self, peer: NodeId, message: JoinReply, now_s: float, out: Outbox) -> None:
        """Take in the nodes that a join or its walks named."""
        if self._welcomes <= 0:
            return
        self._welcomes -= 1
        self._ground.hear_all(message.records, peer, True, now_s, out)

    def on_forward_join(self, peer: NodeId, message: ForwardJoin, now_s: float, out: Outbox) -> None:
        """Carry a join one step on; where the walk ends, introduce ourselves to the joiner."""
        ground, config = self._ground, self._ground.config
        if not self._is_link(peer, out):
            return
        record = ground.read(message.record, peer, now_s, out)
        if record is None or not self._may_walk(now_s):
            return
        ttl = min(message.ttl, config.join_walk) - 1
        onward = self._step(peer, record.node_id) if ttl > 0 else None
        if onward is not None:
            out.send(onward, ForwardJoin(message.record, ttl))
            if ttl == config.passive_walk:
                ground.hear(record, peer, True, now_s, out)
            return
        ground.hear(record, peer, True, now_s, out)
        if record.node_id not in ground.tombs and record.node_id not in ground.long:
            out.send(record.node_id, JoinReply(self._introduction(record.node_id)), record.addresses)

    def on_neighbour(self, peer: NodeId, message: Neighbour, now_s: float, out: Outbox) -> None:
        """Take the asker as a long link if there is a place, if it has too few, or between two others; else refuse."""
        ground, config = self._ground, self._ground.config
        record = ground.read_own(message.record, peer, now_s, out)
        if record is None or ground.record is None:
            return
        ground.hear(record, peer, False, now_s, out)
        if peer in ground.long:
            self._asks.pop(peer, None)
            out.send(peer, NeighbourReply(True))
            return
        if ground.is_bad(peer, now_s) or ground.record.leaving or record.leaving or peer in ground.tombs:
            out.send(peer, NeighbourReply(False))
            return
        have = len(ground.long)
        if have >= self.target and not (message.links < config.long_few and have < config.long_room(self.target)):
            free = min(message.free, config.long_target(record.capacity, record.key) - message.links)
            victim: NodeId | None = None
            if message.links <= 0:
                victim = self._victim(peer)
            elif free >= 2 and now_s >= self._insert_s:
                self._insert_s = now_s + config.insert_gap_s
                victim = self._victim(peer)
            if victim is None:
                out.send(peer, NeighbourReply(False, self._refusal(peer)))
                return
            self._reserve(victim, ground.long[victim].record, now_s)
            self.disconnect(victim, now_s, out, record.raw if free >= 2 else b"")
        self._asks.pop(peer, None)
        self._take(record, asked=False, now_s=now_s, out=out)
        out.send(peer, NeighbourReply(True))

    def on_neighbour_reply(self, peer: NodeId, message: NeighbourReply, now_s: float, out: Outbox) -> None:
        """Enter the link, or ask somebody else."""
        ground = self._ground
        ask = self._asks.pop(peer, None)
        if message.accepted:
            if peer in ground.long:
                return
            if ask is None or ground.is_bad(peer, now_s) or peer in ground.tombs or self._is_full():
                # Answered too late, or never asked.
                out.send(peer, Disconnect())
                return
            self._take(ask[1], asked=True, now_s=now_s, out=out)
        elif ask is not None:
            spare = self.passive.entries.get(peer)
            if spare is not None:
                spare.ask_s = now_s + ground.config.refused_s * 2.0**spare.refusals
                spare.refusals = min(spare.refusals + 1, _REFUSALS_MAX)
            ground.hear_all(message.records, peer, True, now_s, out)
            self._refused += 1
            if self._refused % _REFUSALS_IN_A_ROW == 0 and len(ground.long) >= ground.config.long_few:
                # Everybody seems to be full: a mesh at rest must not be asked over and over for the last link.
                self._fill_s = now_s + self._fill_wait_s
                self._fill_wait_s = min(2 * self._fill_wait_s, ground.config.fill_s_max)
                return
            if self._fill_s > now_s + ground.config.ask_timeout_s:
                return
        self._fill_s = min(self._fill_s, now_s)
        self.fill(now_s, out)

    def on_disconnect(self, peer: NodeId, message: Disconnect, now_s: float, out: Outbox) -> None:
        """Give the link up too; ask the node that is named instead, which has a free place."""
        ground = self._ground
        link = ground.long.get(peer)
        if link is None:
            self._asks.pop(peer, None)
            return
        self._reserve(peer, link.record, now_s)
        self.drop(peer, now_s, out)
        if message.instead:
            record = ground.read(message.instead, peer, now_s, out)
            if record is not None:
                ground.hear(record, peer, True, now_s, out)
                node = record.node_id
                if node not in ground.long and node not in ground.tombs and not ground.is_bad(node, now_s):
                    lacking = self.target - len(ground.long) - len(self._asks)
                    if lacking > 0 and len(self._asks) < ground.config.asks_at_once:
                        self._ask(record, lacking, now_s, out)
        self.fill(now_s, out)

    def on_link_check(self, peer: NodeId, message: LinkCheck, now_s: float, out: Outbox) -> None:
        """Answer only if the link is one-sided."""
        self._is_link(peer, out)

    def on_shuffle(self, peer: NodeId, message: Shuffle, now_s: float, out: Outbox) -> None:
        """Carry a shuffle one step on; where the walk ends, take the sample in and send one back."""
        ground, config = self._ground, self._ground.config
        if not self._is_link(peer, out) or not message.records or not self._may_walk(now_s):
            return
        if len(message.records) > RECORDS_MAX:
            out.emit(PeerMisbehaved(peer, "overlay.too_many", f"{len(message.records)} records in a shuffle"))
            return
        ttl = min(message.ttl, config.shuffle_walk) - 1
        onward = self._step(peer, None) if ttl > 0 else None
        if onward is not None:
            out.send(onward, Shuffle(message.records, ttl))
            return
        origin = ground.read(message.records[0], peer, now_s, out)
        if origin is None:
            return
        sample = self._sample(origin.node_id, config.shuffle_long, config.shuffle_passive)
        out.send(origin.node_id, ShuffleReply(sample), origin.addresses)
        ground.hear_all(message.records, peer, True, now_s, out)

    def on_shuffle_reply(self, peer: NodeId, message: ShuffleReply, now_s: float, out: Outbox) -> None:
        """Take in the sample that a shuffle of ours brought."""
        if self._replies > 0:
            self._replies -= 1
            self._ground.hear_all(message.records, peer, True, now_s, out)

    # -- inside --

    def _take(self, record: NodeRecord, *, asked: bool, now_s: float, out: Outbox) -> None:
        self.passive.drop(record.node_id)
        self._ground.long[record.node_id] = Link(record, asked)
        self._changed(now_s)
        self._ground.settle(record.node_id, now_s, out)

    def _changed(self, now_s: float) -> None:
        """Note that links changed: look for more, and shuffle soon."""
        ground = self._ground
        self._fill_s, self._fill_wait_s, self._refused = min(self._fill_s, now_s), ground.config.fill_s, 0
        if self._shuffles_soon < _SHUFFLES_SOON:
            self._shuffles_soon = _SHUFFLES_SOON
            self._shuffle_s = min(self._shuffle_s, now_s + ground.config.shuffle_s * (0.5 + ground.rng.random()))

    def _reserve(self, node: NodeId, record: NodeRecord, now_s: float) -> None:
        """Keep a former neighbour in reserve, not to be asked again at once."""
        ground = self._ground
        if node not in ground.tombs and not ground.is_bad(node, now_s):
            self.passive.put(record, node, ground.rng, tried=True, ask_s=now_s + ground.config.refused_s)

    def _ask(self, record: NodeRecord, lacking: int, now_s: float, out: Outbox) -> None:
        ground = self._ground
        assert ground.record is not None
        self._asks[record.node_id] = (now_s + ground.config.ask_timeout_s, record)
        out.send(record.node_id, Neighbour(ground.record.raw, len(ground.long), lacking), record.addresses)

    def _pick(self, now_s: float) -> NodeRecord | None:
        """Draw a node to ask, by the number of links it wants; zone mates only where there is nobody else."""
        ground, config = self._ground, self._ground.config
        taken, members = self._asks, ground.members
        pool = [
            spare.record
            for node, spare in self.passive.entries.items()
            if spare.ask_s <= now_s and node not in members and node not in taken and not ground.is_bad(node, now_s)
        ]
        if not pool and not any(node not in members for node in self.passive.entries):
            pool = [
                record
                for node, record in members.items()
                if node not in taken and node not in ground.long and not ground.is_bad(node, now_s)
                if (spare := self.passive.entries.get(node)) is None or spare.ask_s <= now_s
            ]
        if not pool:
            return None
        return ground.rng.choices(pool, [config.long_target(r.capacity, r.key) for r in pool])[0]

    def _victim(self, peer: NodeId) -> NodeId | None:
        """Draw the link that makes room: one that the other end asked for, as long as half of ours are our own choice."""
        long = self._ground.long
        pool = [node for node, link in long.items() if not link.asked]
        if not pool:
            pool = list(long)
        return pool[int(self._ground.rng.random() * len(pool))] if pool else None

    def _is_full(self) -> bool:
        return len(self._ground.long) >= self._ground.config.long_room(self.target)

    def _is_link(self, peer: NodeId, out: Outbox) -> bool:
        """Say whether a peer is a long link; if it thinks so in error, tell it."""
        if peer in self._ground.long:
            return True
        out.send(peer, Disconnect())
        return False

    def _lost(self) -> bool:
        ground = self._ground
        return not ground.long and not ground.members and ground.record is not None and not ground.record.leaving

    def _join_anybody(self, now_s: float, out: Outbox) -> None:
        ground = self._ground
        if now_s < self._rejoin_s:
            return
        self._rejoin_s = now_s + self._join_wait_s
        pool = (
            list(self.passive.entries)
            or list(ground.up)
            or [node for node, tomb in ground.tombs.items() if not tomb.left]
        )
        if not pool:
            return
        self._join_wait_s = min(2 * self._join_wait_s, ground.config.join_retry_s_max)
        self.join(pool[int(ground.rng.random() * len(pool))], now_s, out)

    def _may_walk(self, now_s: float) -> bool:
        """Take one from the allowance of walks."""
        config = self._ground.config
        self._walks = min(config.walks_burst, self._walks + (now_s - self._walks_s) * config.walks_per_s)
        self._walks_s = now_s
        if self._walks < 1.0:
            return False
        self._walks -= 1.0
        return True

    def _step(self, peer: NodeId, avoid: NodeId | None) -> NodeId | None:
        """Draw the next node of a walk that came from ``peer``."""
        pool = [node for node in self._ground.long if node != peer and node != avoid]
        return pool[int(self._ground.rng.random() * len(pool))] if pool else None

    def _sample(self, to: NodeId, long: int, passive: int) -> list[bytes]:
        """Return raw records of random nodes of both views, valid ones, none of them the receiver's."""
        ground = self._ground
        links = [link.record for link in ground.long.values()]
        if len(links) > long:
            links = ground.rng.sample(links, long)
        return [r.raw for r in (*links, *self.passive.sample(passive, ground.rng)) if r.node_id != to]

    def _introduction(self, to: NodeId) -> list[bytes]:
        record = self._ground.record
        assert record is not None
        return [record.raw, *self._sample(to, _SAMPLE // 2, _SAMPLE)]

    def _refusal(self, to: NodeId) -> list[bytes]:
        return self._sample(to, 1, 2)

    def _shuffle(self, now_s: float, out: Outbox) -> None:
        """Send a sample on its walk, look after some links, and plan the next time."""
        ground, config = self._ground, self._ground.config
        wait_s = config.shuffle_s
        if self._shuffles_soon > 0:
            self._shuffles_soon -= 1
        else:
            wait_s = config.shuffle_s_max
        self._shuffle_s = now_s + wait_s * (0.8 + 0.4 * ground.rng.random())
        if ground.record is None or not ground.long:
            return
        links = list(ground.long)
        peer = links[int(ground.rng.random() * len(links))]
        records = [ground.record.raw, *self._sample(peer, config.shuffle_long, config.shuffle_passive)]
        self._replies = min(self._replies + 1, 4)
        out.send(peer, Shuffle(records, config.shuffle_walk))
        for _ in range(1 + len(links) // 8):
            self._check += 1
            out.send(links[self._check % len(links)], LinkCheck())

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule of this view is broken."""
        ground = self._ground
        self.passive.assert_invariants()
        assert len(ground.long) <= ground.config.long_room(self.target)
        assert not ground.long.keys() & self.passive.entries.keys()
        assert not ground.long.keys() & ground.tombs.keys()
        assert not self.passive.entries.keys() & ground.tombs.keys()
        assert ground.node_id not in self.passive.entries
        assert len(self._asks) <= ground.config.asks_at_once
        assert len(self._joiners) <= _JOINERS_MAX


#: Message class → method, for the machine.
HANDLERS: dict[type[Any], Any] = {
    Join: LongView.on_join,
    JoinReply: LongView.on_join_reply,
    ForwardJoin: LongView.on_forward_join,
    Neighbour: LongView.on_neighbour,
    NeighbourReply: LongView.on_neighbour_reply,
    Disconnect: LongView.on_disconnect,
    LinkCheck: LongView.on_link_check,
    Shuffle: LongView.on_shuffle,
    ShuffleReply: LongView.on_shuffle_reply,
}
