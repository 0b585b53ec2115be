"""Orders: an operator stops and releases the mesh at random nodes; when does every other node obey?"""

from __future__ import annotations

from agentmesh.core.orders.messages import LocalOrder, OrderHeard
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.order import Resume, Stop, read_order, sign_order
from agentmesh.sim.duties import UNIX_S
from agentmesh.sim.node import UP, SimNode
from agentmesh.sim.probes.base import Figures, Probe, spread_ms

#: The operator that the brains of a scenario name in ``brain.orders.operators``.
OPERATOR = KeyPair(b"O" * 32)


class _Shot:
    """One order: when it was given, who is to hear it in which of its runs, and when each did."""

    __slots__ = ("at_s", "cut", "due", "heard_s", "seq")

    def __init__(self, seq: int, at_s: float, due: dict[int, int], cut: set[int]) -> None:
        self.seq, self.at_s, self.due, self.cut = seq, at_s, due, cut
        self.heard_s: dict[int, float] = {}


class OrdersProbe(Probe):
    """Give orders at intervals, and watch them arrive at every honest node that lives through it.

    A node that a partition kept apart from the one that was given the order is timed from the heal. Who heard a later order
    has nothing to gain from an earlier one, and counts as reached.
    """

    def open(self) -> None:
        """Plan the orders."""
        self._shots: list[_Shot] = []
        self._near_s: list[float] = []
        self._cut_s: list[float] = []
        self.missed = 0
        self.world.on_event.setdefault(OrderHeard, []).append(self._on_heard)
        for number in range(self.measure.count):
            self.world.call(self.at(number * self.measure.interval_s), lambda number=number: self._fire(number))

    def _fire(self, number: int) -> None:
        world = self.world
        honest = world.honest()
        origin = world.rng.choice(honest)
        seq = world.now_us  # above that of every measure before
        body = Resume() if number % 2 else Stop("simulated")
        raw = sign_order(OPERATOR, body, seq=seq, iat=UNIX_S + int(world.now_s), jti=f"order-{seq}")
        due = {node.index: node.life for node in honest if node is not origin}
        cut = {node.index for node in honest if node.side != origin.side}
        shot = _Shot(seq, world.now_s, due, cut)
        self._shots.append(shot)
        world.feed(origin, LocalOrder(read_order(raw)))
        world.call(self.measure.deadline_s, lambda: self._judge(shot))

    def _on_heard(self, node: SimNode, heard: OrderHeard) -> None:
        for shot in self._shots:
            if heard.order.seq >= shot.seq:
                shot.heard_s.setdefault(node.index, self.world.now_s)

    def _judge(self, shot: _Shot) -> None:
        """At the deadline: who lived through it and has not heard?"""
        for index, life in shot.due.items():
            node = self.world.nodes[index]
            if node.state != UP or node.life != life:
                continue
            heard_s = shot.heard_s.get(index)
            if heard_s is None:
                self.missed += 1
                self.world.note(f"order {shot.seq} of {shot.at_s:.3f} s missed by {index}")
            elif index in shot.cut:
                self._cut_s.append(max(0.0, heard_s - max(shot.at_s, self.faults.healed_s or 0.0)))
            else:
                self._near_s.append(heard_s - shot.at_s)

    def figures(self) -> Figures:
        """Return how long orders took, to nodes that could be reached and to those that a partition kept apart."""
        return {
            **spread_ms("order", self._near_s),
            **spread_ms("order_healed", self._cut_s),
            "orders_missed": self.missed,
        }

    def misses(self) -> int:
        """Return the deliveries that did not happen by the deadline."""
        return self.missed
