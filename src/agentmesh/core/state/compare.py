"""Bring two replicas of a space to the same, whatever was lost between them (docs/spec/state.md §8).

    a: Digest → b: Buckets → a: Lines → b: Offer → a: Writes that b lacks, Want → b: Writes that a lacks, Synced → a: Lines …

One part of the keys after the other, so that little waits on the way. What differs is found by cells, what is sent are
signed writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from agentmesh.core.machine import Outbox, PeerMisbehaved
from agentmesh.core.state.causality import VersionVector
from agentmesh.core.state.ground import Ground
from agentmesh.core.state.messages import (
    BUCKETS,
    MARK_BYTES,
    Buckets,
    Digest,
    Line,
    Lines,
    Offer,
    Placed,
    StateMessage,
    Synced,
    Want,
    Write,
    Writes,
)
from agentmesh.core.state.placement import majority, nodes_of
from agentmesh.core.state.space import Space
from agentmesh.errors import DecodeError
from agentmesh.ids import NodeId

#: Keys in one ``Lines``, unless one bucket alone has more.
_LINES_MAX = 512
#: A comparison that hangs is forgotten after this, seconds.
_STALE_S = 20.0


@dataclass(slots=True)
class _Talk:
    """A comparison with one peer.

    Attributes:
        seen: What was seen here when it began; the peer may take it over in the end.
        left: Buckets that are still to be compared; only on the side that began.
        flawed: Something that the peer sent was not let in: what it has seen must not be taken over.
        since_s: When it began.
        again: Another one was asked for meanwhile.
        compared: Its keys were looked at one by one, so that the peer has what this side had when it began.
    """

    seen: VersionVector
    since_s: float
    left: list[int] = field(default_factory=list[int])
    flawed: bool = False
    compared: bool = False
    again: bool = False


class Compare:
    """The part of a replica that compares it with others.

    Args:
        ground: Shared.
        on_seen: Called when a space has seen more, or was compared with a holder.
    """

    def __init__(
        self,
        ground: Ground,
        on_seen: Callable[[Space, float, Outbox], None],
    ) -> None:
        self._ground, self._on_seen = ground, on_seen
        #: Comparisons that began here, and those that a peer began. They may cross: what was seen when the one began says
        #: nothing of what the other has compared.
        self._talks: dict[tuple[NodeId, str], _Talk] = {}
        self._asked: dict[tuple[NodeId, str], _Talk] = {}

    def begin(self, peer: NodeId, space: Space, now_s: float, out: Outbox) -> None:
        """Compare with a peer, unless that is under way."""
        talk = self._talks.get((peer, space.name))
        if talk is not None and now_s - talk.since_s < _STALE_S and talk.compared:
            talk.again = True  # two at once would say of one what only the other has compared
            return
        self._talks[peer, space.name] = _Talk(space.seen, now_s)
        out.send(peer, Digest(space.name, space.total(), space.seen.encode(), space.place))

    def forget_peer(self, peer: NodeId) -> None:
        """Drop what was under way with a peer."""
        for talks in (self._talks, self._asked):
            for key in [key for key in talks if key[0] == peer]:
                del talks[key]

    def handle(self, peer: NodeId, space: Space, message: StateMessage, now_s: float, out: Outbox) -> None:
        """Take one step of a comparison."""
        match message:
            case Digest():
                self._on_digest(peer, space, message, now_s, out)
            case Buckets():
                self._on_buckets(peer, space, message, now_s, out)
            case Lines():
                self._on_lines(peer, space, message, out)
            case Offer():
                self._on_offer(peer, space, message, out)
            case Want():
                self._on_want(peer, space, message, out)
            case Synced():
                self._on_synced(peer, space, message, now_s, out)
            case _:
                pass

    def note_flaw(self, peer: NodeId, space: Space) -> None:
        """Say that a write of a peer was not let in."""
        for talks in (self._talks, self._asked):
            talk = talks.get((peer, space.name))
            if talk is not None:
                talk.flawed = True

    def _on_digest(self, peer: NodeId, space: Space, message: Digest, now_s: float, out: Outbox) -> None:
        theirs = self._vector(peer, message.seen, out)
        if theirs is None:
            return
        if message.place not in (0, space.place) and space.placement is not None:
            out.send(peer, Placed(space.name, space.placement))
        if message.total == space.total():
            self._agree(peer, space, theirs, now_s, out)
            if not theirs.descends(space.seen) or self._is_catching_up(space, peer):
                out.send(peer, Synced(space.name, space.seen.encode()))
            return
        self._asked[peer, space.name] = _Talk(space.seen, now_s)
        out.send(peer, Buckets(space.name, space.sums()))

    def _is_catching_up(self, space: Space, peer: NodeId) -> bool:
        placement = space.placement
        return placement is not None and peer in space.holders and peer not in nodes_of(placement.before)

    def _on_buckets(self, peer: NodeId, space: Space, message: Buckets, now_s: float, out: Outbox) -> None:
        if len(message.sums) != BUCKETS:
            self._misbehaved(peer, "a comparison without its buckets", out)
            return
        under_way = self._talks.get((peer, space.name))
        if under_way is not None and now_s - under_way.since_s < _STALE_S and under_way.compared:
            under_way.again = True
            return
        ours = space.sums()
        left = [at for at in range(BUCKETS) if ours[at] != message.sums[at]]
        if not left:  # what differed came by itself meanwhile; what the peer has seen is still to be taken over
            self._talks.pop((peer, space.name), None)
            self.begin(peer, space, now_s, out)
            return
        self._talks[peer, space.name] = _Talk(space.seen, now_s, left, compared=True)
        self._next_lines(peer, space, out)

    def _next_lines(self, peer: NodeId, space: Space, out: Outbox) -> bool:
        talk = self._talks.get((peer, space.name))
        if talk is None or not talk.left:
            return False
        counts = space.counts()
        taken, keys = 0, 0
        while taken < len(talk.left) and (taken == 0 or keys + counts[talk.left[taken]] <= _LINES_MAX):
            keys += counts[talk.left[taken]]
            taken += 1
        buckets, talk.left = tuple(talk.left[:taken]), talk.left[taken:]
        out.send(peer, Lines(space.name, buckets, space.lines(buckets)))
        return True

    def _on_lines(self, peer: NodeId, space: Space, message: Lines, out: Outbox) -> None:
        if len(message.buckets) > BUCKETS or any(not 0 <= bucket < BUCKETS for bucket in message.buckets):
            self._misbehaved(peer, "a comparison of buckets that are none", out)
            return
        theirs = {line.key: line.marks for line in message.lines}
        ours = {line.key: line.marks for line in space.lines(message.buckets)}
        differing = [key for key in dict.fromkeys((*ours, *theirs)) if ours.get(key) != theirs.get(key)]
        offered = [Line(key, space.keys[key].marks() if key in space.keys else ()) for key in differing]
        out.send(peer, Offer(space.name, offered))

    def _on_offer(self, peer: NodeId, space: Space, message: Offer, out: Outbox) -> None:
        wanted: list[Line] = []
        lacking: list[Write] = []
        for line in _once(message.lines):
            held = space.keys.get(line.key)
            ours = {} if held is None else held.writes
            marks = tuple(mark for mark in line.marks if mark not in ours and len(mark) == MARK_BYTES)
            if marks:
                wanted.append(Line(line.key, marks))
            theirs = frozenset(line.marks)
            lacking += [write for mark, write in ours.items() if mark not in theirs]
        self.send_writes(peer, space, lacking, out)
        self._ground.send_flushed(peer, Want(space.name, wanted), out)

    def _on_want(self, peer: NodeId, space: Space, message: Want, out: Outbox) -> None:
        found: list[Write] = []
        for line in _once(message.lines):
            held = space.keys.get(line.key)
            if held is not None:
                wanted = frozenset(line.marks)
                is_whole = any(mark not in held.writes for mark in wanted)  # a later one stands for what was wanted
                found += [write for mark, write in held.writes.items() if is_whole or mark in wanted]
        self.send_writes(peer, space, found, out)
        talk = self._asked.get((peer, space.name))
        seen = talk.seen if talk is not None else VersionVector()
        self._ground.send_flushed(peer, Synced(space.name, seen.encode()), out)

    def _on_synced(self, peer: NodeId, space: Space, message: Synced, now_s: float, out: Outbox) -> None:
        if message.final:  # of a comparison that the peer began: one that began here may be under way still
            talk = self._asked.get((peer, space.name))
        elif self._next_lines(peer, space, out):
            return
        else:
            talk = self._talks.pop((peer, space.name), None)
        theirs = self._vector(peer, message.seen, out)
        if not message.final and talk is not None and talk.again:
            self.begin(peer, space, now_s, out)
        if theirs is None or (talk is not None and talk.flawed):
            return
        self._agree(peer, space, theirs, now_s, out)
        if not message.final and talk is not None and talk.compared and not theirs.descends(talk.seen):
            out.send(peer, Synced(space.name, talk.seen.encode(), True))

    def _agree(self, peer: NodeId, space: Space, theirs: VersionVector, now_s: float, out: Outbox) -> None:
        """Take over what a peer has seen: all that it held is here."""
        ground, placement = self._ground, space.placement
        if space.join_seen(theirs, ground.config.writers_max):
            ground.keep_space(space, out)
        if placement is not None and placement.before and not space.ready:
            before = nodes_of(placement.before)
            if peer in before:
                space.caught[peer] = None
            space.ready = sum(node in space.caught for node in before) >= majority(len(before))
        self._on_seen(space, now_s, out)

    def send_writes(self, peer: NodeId, space: Space, writes: Iterable[Write], out: Outbox) -> None:
        """Send writes in messages of a bounded size."""
        ground, config = self._ground, self._ground.config
        batch: list[Write] = []
        size = 0
        for write in writes:
            if batch and (len(batch) >= config.batch_max or size + write.size() > config.batch_bytes_max):
                ground.send_flushed(peer, Writes(space.name, batch, 0, space.place), out)
                batch, size = [], 0
            batch.append(ground.signed(space, write))
            size += write.size()
        if batch:
            ground.send_flushed(peer, Writes(space.name, batch, 0, space.place), out)

    def _vector(self, peer: NodeId, raw: bytes, out: Outbox) -> VersionVector | None:
        try:
            return VersionVector.decode(raw)
        except DecodeError as error:
            out.emit(PeerMisbehaved(peer, error.code, str(error)))
            return None

    def _misbehaved(self, peer: NodeId, detail: str, out: Outbox) -> None:
        out.emit(PeerMisbehaved(peer, "state.malformed", detail))


def _once(lines: Iterable[Line]) -> Iterable[Line]:
    """Return the last line of each key: one that is named a thousand times is not sent a thousand times."""
    return {line.key: line for line in lines}.values()
