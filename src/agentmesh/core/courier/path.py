"""Who goes next on the way to one node: lanes by weight, sessions in turn (docs/spec/courier.md §8)."""

from __future__ import annotations

from agentmesh.core.courier.config import CourierConfig
from agentmesh.core.courier.sending import REPEATS
from agentmesh.core.courier.session import Session

QUEUES = REPEATS + 1


class Path:
    """The way to one node and the sessions that share it.

    Deficit round robin (Shreedhar, Varghese 1995): in each round a queue may send its weight times the quantum, and who sent
    more, because a letter is not divided, sits out until that is made up for.

    Attributes:
        up: Whether there is a way now.
        ready: ``Ready`` was told and there was no ``Room`` since.
        sessions: Of this path.
    """

    __slots__ = ("_config", "_left", "_queues", "_turn", "ready", "sessions", "up")

    def __init__(self, config: CourierConfig) -> None:
        self._config = config
        self.up = self.ready = False
        self.sessions: dict[int, Session] = {}
        self._queues: list[list[Session]] = [[] for _ in range(QUEUES)]
        self._left = [0] * QUEUES
        self._turn = REPEATS

    def stand(self, session: Session) -> None:
        """Put a session into the queues in which it has something and does not stand."""
        new = session.sending.open_lanes() & ~session.listed
        if new:
            session.listed |= new
            for lane in range(QUEUES):
                if new >> lane & 1:
                    self._queues[lane].append(session)

    def leave(self, session: Session) -> None:
        """Take a session out of all queues."""
        for queue in self._queues:
            if session in queue:
                queue.remove(session)
        session.listed = 0

    def __bool__(self) -> bool:
        return any(self._queues)

    def next(self) -> tuple[int, Session] | None:
        """Take the session whose turn it is out of its queue; None if nobody waits. Say what it sent with ``spend``."""
        queues, left = self._queues, self._left
        if not any(queues):
            return None
        quantum = self._config.quantum_bytes
        while True:
            turn = self._turn
            queue = queues[turn]
            if queue and left[turn] > 0:
                session = queue.pop(0)
                allowance = -session.debt  # of a turn that it has begun
                if allowance <= 0:
                    allowance += quantum
                    if allowance <= 0 and queue:
                        session.debt -= quantum
                        queue.append(session)
                        continue
                session.allowance = allowance if allowance > 0 else quantum
                session.debt = 0
                session.listed &= ~(1 << turn)
                return turn, session
            if not queue:
                left[turn] = 0
            turn = self._turn = (turn - 1) % QUEUES
            if queues[turn]:
                left[turn] += quantum * self._config.weights[turn]

    def spend(self, lane: int, session: Session, size: int) -> None:
        """Note what a session sent; it keeps its turn while it has not used it up and has more."""
        self._left[lane] -= size
        session.debt = size - session.allowance
        if session.debt < 0:
            session.debt = 0
            if session.sending.open_lanes() >> lane & 1:
                self._keep(lane, session, session.allowance - size)

    def put_back(self, lane: int, session: Session) -> None:
        """Let a session that could not send begin with its turn again."""
        self._keep(lane, session, session.allowance)

    def _keep(self, lane: int, session: Session, allowance: int) -> None:
        session.debt = -allowance
        session.listed |= 1 << lane
        self._queues[lane].insert(0, session)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a rule or bound is broken."""
        for lane, queue in enumerate(self._queues):
            assert len({session.id for session in queue}) == len(queue) <= len(self.sessions)
            assert all(session.listed >> lane & 1 for session in queue)
        assert all(session.id in self.sessions for queue in self._queues for session in queue)
        assert self.up or not self
        assert not self or self.ready
