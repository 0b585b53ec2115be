"""Shared state: random nodes write to one space at two levels; what is refused or lost, and do all agree in the end?"""

from __future__ import annotations

from agentmesh.core.state.config import StateConfig
from agentmesh.core.state.inputs import LocalRead, LocalWrite
from agentmesh.core.state.levels import ConsistencyLevel
from agentmesh.core.state.ops import Op
from agentmesh.core.state.types import value
from agentmesh.sim.boards import Board, Boards
from agentmesh.sim.node import UP
from agentmesh.sim.probes.base import Figures, Probe, spread_ms

_SPACE = "board"
#: Nodes that use the space, at most.
_USERS = 12
#: Of all writes: those at QUORUM.
_QUORUM = 0.4
_CHECK_S = 0.25


class StateProbe(Probe):
    """Let some nodes count up and add to a set, ``count`` times ``interval_s`` apart, and compare their replicas in the end.

    Missed is: a write that was acknowledged and is in no replica in the end, and replicas that differ then.
    """

    def open(self) -> None:
        """Plan the writes."""
        self.boards = Boards(self.world, StateConfig())
        rng = self.world.rng
        nodes = range(len(self.world.nodes))
        self._users = sorted(rng.sample(nodes, min(len(nodes), _USERS)))
        self._asked: dict[int, tuple[float, ConsistencyLevel, str]] = {}
        self._agreed_s: float | None = None
        self._end_s = 0.0
        for number in range(self.measure.count):
            self.world.call(self.at(number * self.measure.interval_s), lambda number=number: self._write(number))
        for index in self._users:
            self.world.call(self.at(-2.0), lambda index=index: self._read(index))
        self.world.every(_CHECK_S, self._check)

    def _board(self, index: int) -> Board | None:
        board = self.boards.boards[index]
        fine = board.node.state == UP and board.replica is not None and board.life == board.node.life
        return board if fine else None

    def _read(self, index: int) -> None:
        board = self._board(index)
        if board is not None:
            self.boards.feed(board, LocalRead(-1 - index, _SPACE, "items"))

    def _write(self, number: int) -> None:
        rng = self.world.rng
        board = self._board(rng.choice(self._users))
        if board is None:
            return
        quorum = rng.random() < _QUORUM
        level = ConsistencyLevel.QUORUM if quorum else ConsistencyLevel.LOCAL
        self._asked[number] = (self.world.now_s, level, f"{number}")
        op = Op(op="add", value=f"{number}")
        self.boards.feed(board, LocalWrite(number, _SPACE, "items", op, level))

    def _check(self) -> None:
        try:
            self.boards.assert_invariants()
        except AssertionError as error:
            self.world.violate(f"invariant of a replica: {error}")
        for index in self._users:
            board = self._board(index)
            if board is not None and board.replica is not None and _SPACE not in board.replica.spaces:
                self._read(index)  # it was started anew before it had written anything down
        if len(self._digests()) > 1:
            self._agreed_s = None
        elif self._agreed_s is None:
            self._agreed_s = self.world.now_s

    def _replicas(self) -> list[Board]:
        return [
            board for board in self.boards.running() if board.replica is not None and _SPACE in board.replica.spaces
        ]

    def _digests(self) -> set[int]:
        return {b.replica.spaces[_SPACE].total() for b in self._replicas() if b.replica is not None}

    def _lost(self) -> int:
        """Return how many acknowledged writes of nodes that live are in no replica."""
        found: set[str] = set()
        for board in self._replicas():
            held = None if board.replica is None else board.replica.spaces[_SPACE].keys.get("items")
            if held is not None:
                found |= {*value(held.cell)}
        lost = 0
        for number, (_, level, item) in self._asked.items():
            done = self.boards.done.get(number)
            if done is None or done[1].error is not None or item in found:
                continue
            if level == ConsistencyLevel.QUORUM:
                lost += 1
                self.world.note(f"write {number} was acknowledged at quorum and is gone")
        return lost

    def figures(self) -> Figures:
        """Return how writes ended and how long QUORUM took, when all agreed, and what it cost."""
        took_s: list[float] = []
        refused = unknown = acked = 0
        for number, (asked_s, level, _) in self._asked.items():
            done = self.boards.done.get(number)
            if level != ConsistencyLevel.QUORUM or done is None:
                continue
            error = done[1].error
            if error is None:
                acked += 1
                took_s.append(done[0] - asked_s)
            elif error.code == "state.no_quorum":
                refused += 1
            else:
                unknown += 1
        digests = self._digests()
        figures: Figures = {
            "state_writes": len(self._asked),
            "state_quorum": acked,
            "state_refused": refused,
            "state_unknown": unknown,
            **spread_ms("state_quorum", took_s),
            "state_lost": self._lost(),
            "state_versions": len(digests),
            "state_replicas": len(self._replicas()),
            "state_messages": self.boards.messages,
        }
        healed_s = self.faults.healed_s
        if healed_s is not None and self._agreed_s is not None:
            figures["state_heal_s"] = round(max(0.0, self._agreed_s - healed_s), 2)
        return figures

    def misses(self) -> int:
        """Return the writes that were lost, and the replicas that differ."""
        return self._lost() + max(0, len(self._digests()) - 1)
