"""What the parts of a replica share: the spaces, who is there, clock and keys, and what waits for the disk."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

import msgspec

from agentmesh.core.machine import Outbox
from agentmesh.core.state.clock import HybridClock
from agentmesh.core.state.config import StateConfig
from agentmesh.core.state.inputs import FlushWanted, KeepSpace, KeepWrite
from agentmesh.core.state.messages import Placement, StateMessage, Vote, Write, is_local, writer_id
from agentmesh.core.state.space import Space
from agentmesh.ids import NodeId, public_key_of

#: (public key, message, signature); raises SignatureError.
Verify = Callable[[bytes, bytes, bytes], None]
Sign = Callable[[bytes], bytes]


class Ground:
    """Shared by ``Replica``, ``Holders``, ``Compare`` and ``Waits``.

    Attributes:
        spaces: By name.
        up: Peers to which a stream is open.
        members: Nodes that are there, this one left out.
        gone_s: Since when a node that was there is not.
        sure, whole: See ``Members``.
        made, flushed: Records made, and brought to disk.
    """

    def __init__(
        self, node_id: NodeId, config: StateConfig, rng: random.Random, birth: bytes, sign: Sign, verify: Verify
    ) -> None:
        self.node_id, self.config, self.rng = node_id, config, rng
        self.public, self.birth = public_key_of(node_id), birth
        self.writer = writer_id(self.public, birth)
        self.sign, self.verify = sign, verify
        self.clock = HybridClock()
        self.spaces: dict[str, Space] = {}
        self.up: dict[NodeId, None] = {}
        self.members: dict[NodeId, None] = {}
        self.gone_s: dict[NodeId, float] = {}
        self.sure = self.whole = True
        self.keys = self.bytes = 0
        self.made = self.flushed = 0
        self._asked = 0
        self._later: deque[tuple[int, NodeId, StateMessage]] = deque(
            maxlen=config.waiting_max
        )  # a lost answer is no answer
        self._unix_ms, self._unix_at_s = 0.0, 0.0

    def set_clock(self, unix_s: float, now_s: float) -> None:
        """Note what the wall clock shows."""
        self._unix_ms, self._unix_at_s = unix_s * 1000, now_s

    def wall_ms(self, now_s: float) -> int:
        """Return unix milliseconds."""
        return int(self._unix_ms + (now_s - self._unix_at_s) * 1000)

    def holds(self, space: Space) -> bool:
        """Say whether this node is one of the holders."""
        return self.node_id in space.holders

    def answers(self, space: Space) -> bool:
        """Say whether this node may answer for a space at QUORUM now."""
        return space.ready and space.voted is None and self.holds(space)

    def up_holders(self, space: Space) -> list[NodeId]:
        """Return the other holders that can be reached now."""
        return [node for node in space.holders if node in self.up]

    def vote(self, space: Space, placement: Placement) -> Vote:
        """Return this node's vote."""
        return Vote(self.public, self.sign(placement.signed_bytes(space.name)))

    def signed(self, space: Space, write: Write) -> Write:
        """Return a write with its signature: this node's own are signed when they first leave it."""
        if write.signature or write.writer != self.public:
            return write
        signed = msgspec.structs.replace(write, signature=self.sign(write.signed_bytes(space.name)))
        held = space.keys.get(write.key)
        if held is not None and (mark := write.mark()) in held.writes:
            held.writes[mark] = signed
        return signed

    # The disk

    def keep(self, record: KeepWrite | KeepSpace, out: Outbox) -> None:
        """Write something down."""
        self.made += 1
        out.store(record)

    def keep_space(self, space: Space, out: Outbox) -> None:
        """Write down who holds a space and what was seen of it."""
        if not is_local(space.name):
            self.keep(KeepSpace(space.name, space.placement, space.voted, space.seen.encode()), out)

    def send_flushed(self, to: NodeId, message: StateMessage, out: Outbox) -> None:
        """Send a message once all records so far are on disk."""
        if self.flushed >= self.made:
            out.send(to, message)
        else:
            self._later.append((self.made, to, message))

    def drop_later(self, name: str) -> None:
        """Forget what waited for the disk of a space whose writes the disk did not take."""
        kept = [one for one in self._later if one[2].space != name]
        self._later.clear()
        self._later.extend(kept)

    def want_flush(self, out: Outbox) -> None:
        """Ask for what was made to be brought to disk, unless that is under way."""
        if self._asked <= self.flushed < self.made:
            self._asked = self.made
            out.emit(FlushWanted(self.made))

    def on_flushed(self, upto: int, out: Outbox) -> None:
        """Send what waited for the disk."""
        self.flushed = max(self.flushed, upto)
        while self._later and self._later[0][0] <= self.flushed:
            _, to, message = self._later.popleft()
            out.send(to, message)
