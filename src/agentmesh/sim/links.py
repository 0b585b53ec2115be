"""What lies between two nodes: how long a packet takes, whether it arrives, and the reliable links that run over it.

Each pair has a delay of its own, drawn by hashing the pair, so that nothing is stored per pair and round trips are stable;
packets stray from it by the jitter. docs/spec/simulator.md §4.
"""

from __future__ import annotations

import random
from statistics import NormalDist
from typing import TYPE_CHECKING

from agentmesh.sim.scenario import Links

if TYPE_CHECKING:
    from agentmesh.sim.node import SimNode

_STEPS = 1024
#: A lost packet of a link is noticed after 1.5 round trips and so much (QUIC's probe timeout with its usual granularity).
_NOTICED_US = 30_000
#: A packet is sent again so often before the model stops counting; with 90 % loss this is reached once in 3 000 packets.
_AGAIN_MAX = 8


class Link:
    """A reliable, ordered link between two running nodes, as QUIC or TLS give it.

    Attributes:
        dialler, acceptor: The ends.
        dialler_life, acceptor_life: Which run of each node it belongs to; a later run knows nothing of it.
        ready_us: When the last message in each direction arrives: from the dialler, from the acceptor.
        stalled: Messages sent while packets did not pass; delivered if they pass again before the link breaks.
    """

    __slots__ = ("acceptor", "acceptor_life", "dialler", "dialler_life", "ready_us", "stalled")

    def __init__(self, dialler: SimNode, acceptor: SimNode) -> None:
        self.dialler, self.acceptor = dialler, acceptor
        self.dialler_life, self.acceptor_life = dialler.life, acceptor.life
        self.ready_us = [0, 0]
        self.stalled: list[tuple[SimNode, object, int]] | None = None

    def other(self, end: SimNode) -> SimNode:
        """Return the other end."""
        return self.acceptor if end is self.dialler else self.dialler

    def is_current(self, end: SimNode) -> bool:
        """Say whether a node is still in the run that this link belongs to."""
        return end.life == (self.dialler_life if end is self.dialler else self.acceptor_life)


class Ether:
    """Delays and losses of all packets.

    Args:
        links: The scenario's settings; loss, duplication, reordering and bit flips may change while the world runs.
        rng: For everything that a packet meets.
        salt: Makes the delays of pairs those of this seed.
    """

    __slots__ = ("_random", "_salt", "_spread", "_table", "duplicate", "flip", "loss", "reorder")

    def __init__(self, links: Links, rng: random.Random, salt: int) -> None:
        self._random = rng.random
        self._salt = salt & 0xFFFFFFFF
        self._spread = links.jitter
        self._table = _quantiles_us(links)
        self.loss, self.duplicate, self.reorder, self.flip = links.loss, links.duplicate, links.reorder, links.flip

    def base_us(self, a: SimNode, b: SimNode) -> int:
        """Return the delay of a pair, the same both ways, microseconds."""
        low, high = (a.index, b.index) if a.index < b.index else (b.index, a.index)
        mixed = (low * 0x9E3779B1 + high * 0x85EBCA77 + self._salt) & 0xFFFFFFFF
        mixed = ((mixed ^ (mixed >> 15)) * 0x2C1B3C6D) & 0xFFFFFFFF
        mixed = ((mixed ^ (mixed >> 12)) * 0x297A2D39) & 0xFFFFFFFF
        return self._table[(mixed ^ (mixed >> 15)) >> 22]

    def delay_us(self, a: SimNode, b: SimNode) -> int:
        """Return how long a packet takes from ``a`` to ``b``, microseconds."""
        base = self.base_us(a, b) * (1 + self._spread * (2 * self._random() - 1))
        return int(base * a.slow * b.slow) + b.lag_us

    def is_lost(self) -> bool:
        """Draw whether a packet is lost."""
        return self.loss > 0 and self._random() < self.loss

    def is_doubled(self) -> bool:
        """Draw whether a datagram arrives twice."""
        return self.duplicate > 0 and self._random() < self.duplicate

    def is_flipped(self) -> bool:
        """Draw whether a packet arrives with a changed bit."""
        return self.flip > 0 and self._random() < self.flip

    def held_us(self, delay_us: int) -> int:
        """Draw how much longer a datagram takes because others overtake it; mostly 0."""
        return int(self._random() * 4 * delay_us) if self.reorder > 0 and self._random() < self.reorder else 0

    def resent_us(self, delay_us: int) -> int:
        """Draw how much later a message over a link comes because packets are lost or damaged, microseconds."""
        bad = self.loss + self.flip
        if bad <= 0 or self._random() >= bad:
            return 0
        late, wait = 0, 3 * delay_us + _NOTICED_US
        for _ in range(_AGAIN_MAX):
            late += wait
            wait *= 2
            if self._random() >= bad:
                break
        return late


def _quantiles_us(links: Links) -> tuple[int, ...]:
    """Return the pair delays at equal steps of probability; jitter stays within the distribution's ends."""
    low_ms, high_ms = links.min_ms / (1 - min(links.jitter, 0.9)), links.max_ms / (1 + links.jitter)
    if links.latency == "fixed" or low_ms > high_ms:
        middle_ms = links.median_ms if links.latency == "fixed" else (links.min_ms + links.max_ms) / 2
        return (int(middle_ms * 1000),) * _STEPS
    shares = [(i + 0.5) / _STEPS for i in range(_STEPS)]
    if links.latency == "uniform":
        return tuple(int(1000 * (low_ms + share * (high_ms - low_ms))) for share in shares)
    normal = NormalDist()
    scale = [links.median_ms * pow(2.718281828459045, links.sigma * normal.inv_cdf(share)) for share in shares]
    return tuple(int(1000 * min(max(value, low_ms), high_ms)) for value in scale)
