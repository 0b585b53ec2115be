"""Local reads and writes that wait for others: QUORUM and CAUSAL (docs/spec/state.md §5).

A QUORUM read asks the holders and takes in what a majority of them tells; what one of them lacks is sent to it. A QUORUM
write reads first, so that it stands for all that was acknowledged before, and then waits until a majority has it on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from agentmesh.core.machine import Outbox, Timer
from agentmesh.core.state.ground import Ground
from agentmesh.core.state.inputs import Done, LocalRead, LocalWrite
from agentmesh.core.state.levels import ConsistencyLevel
from agentmesh.core.state.messages import Ask
from agentmesh.core.state.placement import majority
from agentmesh.core.state.space import Space
from agentmesh.errors import Busy, MeshError, NoRoute, Timeout
from agentmesh.ids import NodeId

Stage = Literal["seen", "holders", "reading", "writing"]


@dataclass(slots=True, eq=False)
class Wait:
    """One read or write that waits.

    Attributes:
        number: Names it in messages and timers.
        wanted: What was asked.
        stage: seen: what its token names · holders: enough of them reachable · reading, writing: a majority.
        told: Holders that answered in this stage.
        failed: Holders that cannot.
        n: Of the write, once it is made.
    """

    number: int
    wanted: LocalRead | LocalWrite
    stage: Stage
    told: dict[NodeId, None] = field(default_factory=dict[NodeId, None])
    failed: dict[NodeId, None] = field(default_factory=dict[NodeId, None])
    n: int = 0


class Waits:
    """The part of a replica that waits.

    Args:
        ground: Shared.
        write: Does a local write: (what, now_s, out); returns its number. Raises MeshError: nothing was done.
        compare: Begins to compare a space with whoever is there.
    """

    def __init__(
        self,
        ground: Ground,
        write: Callable[[LocalWrite, float, Outbox], int],
        compare: Callable[[Space, float, Outbox], None],
    ) -> None:
        self._ground, self._write, self._compare = ground, write, compare
        self._waits: dict[int, Wait] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._waits)

    def begin(self, wanted: LocalRead | LocalWrite, space: Space, now_s: float, out: Outbox) -> None:
        """Begin a read or write above LOCAL, or end it at once."""
        if wanted.level == ConsistencyLevel.CAUSAL and (wanted.vector is None or space.seen.descends(wanted.vector)):
            self._finish_local(wanted, now_s, out)
            return
        if len(self._waits) >= self._ground.config.waiting_max:
            out.emit(Done(wanted.ref, Busy("too many reads and writes wait already", code="state.busy")))
            return
        self._next += 1
        causal = wanted.vector is not None and not space.seen.descends(wanted.vector)
        wait = self._waits[self._next] = Wait(self._next, wanted, "seen" if causal else "holders")
        out.after(self._ground.config.answer_s, Timer("state.wait", wait.number))
        if causal:
            self._compare(space, now_s, out)
        else:
            self._try_holders(wait, space, now_s, out)

    def _finish_local(self, wanted: LocalRead | LocalWrite, now_s: float, out: Outbox) -> None:
        try:
            if isinstance(wanted, LocalWrite):
                self._write(wanted, now_s, out)
        except MeshError as error:
            out.emit(Done(wanted.ref, error))
        else:
            out.emit(Done(wanted.ref))

    def on_seen(self, space: Space, now_s: float, out: Outbox) -> None:
        """Go on with what waited for this space to see more, or for its holders."""
        for wait in [w for w in self._waits.values() if w.wanted.space == space.name]:
            if wait.stage == "seen" and wait.wanted.vector is not None and space.seen.descends(wait.wanted.vector):
                if wait.wanted.level == ConsistencyLevel.CAUSAL:
                    del self._waits[wait.number]
                    self._finish_local(wait.wanted, now_s, out)
                else:
                    wait.stage = "holders"
            if wait.stage == "holders":
                self._try_holders(wait, space, now_s, out)

    def _try_holders(self, wait: Wait, space: Space, now_s: float, out: Outbox) -> None:
        """Ask the holders if enough of them can be reached."""
        ground = self._ground
        if len(space.holders) < ground.config.holders or wait.number not in self._waits:
            return
        up = ground.up_holders(space)
        answers = ground.answers(space)
        if len(up) + answers < majority(len(space.holders)):
            return
        wait.stage = "reading"
        wait.told, wait.failed = {ground.node_id: None} if answers else {}, {}
        held = space.keys.get(wait.wanted.key)
        marks = () if held is None else held.marks()
        for node in up:
            out.send(node, Ask(space.name, wait.number, wait.wanted.key, marks, space.place))

    def on_told(self, peer: NodeId, number: int, status: int, space: Space, now_s: float, out: Outbox) -> None:
        """Count a holder's answer to a read whose writes are taken in."""
        wait = self._waits.get(number)
        if wait is None or wait.stage != "reading" or wait.wanted.space != space.name or peer not in space.holders:
            return
        if not self._count(wait, peer, status, space):
            return
        if isinstance(wait.wanted, LocalRead):
            self._end(wait, None, out)
            return
        try:
            wait.n = self._write(wait.wanted, now_s, out)
        except MeshError as error:
            self._end(wait, error, out)
            return
        wait.stage, wait.told, wait.failed = "writing", {}, {}

    def _count(self, wait: Wait, peer: NodeId, status: int, space: Space) -> bool:
        (wait.failed if status else wait.told)[peer] = None
        return len(wait.told) >= majority(len(space.holders))

    def key_of(self, number: int) -> str:
        """Return the key of a read or write that waits, "" if it is none."""
        wait = self._waits.get(number)
        return "" if wait is None else wait.wanted.key

    def asks_of(self, space: Space, base: int, top: int) -> list[Wait]:
        """Return the writes of this space in a run of numbers that wait to be acknowledged."""
        return [
            wait
            for wait in self._waits.values()
            if wait.stage == "writing" and wait.wanted.space == space.name and base < wait.n <= top
        ]

    def on_acked(self, peer: NodeId, space: Space, base: int, top: int, status: int, out: Outbox) -> None:
        """Count a holder that has, or cannot have, this node's writes of a run of numbers on disk."""
        if peer not in space.holders:
            return
        for wait in self.asks_of(space, base, top):
            if self._count(wait, peer, status, space):
                self._end(wait, None, out)
            elif len(space.holders) - len(wait.failed) < majority(len(space.holders)):
                self._end(wait, self._unknown(wait, space), out)

    def on_time(self, number: int, out: Outbox) -> None:
        """End what did not come in time."""
        wait = self._waits.get(number)
        if wait is None:
            return
        space = self._ground.spaces.get(wait.wanted.space)
        if wait.stage == "seen":
            error: MeshError = Timeout(
                f"this node has not yet seen what the token of space {wait.wanted.space!r} names",
                code="state.not_seen",
                why="the nodes that have it cannot be reached, or are slow",
                hint="try again, or read at level local",
            )
        elif wait.stage == "writing":
            error = self._unknown(wait, space)
        else:
            error = self._no_quorum(wait, space)
        self._end(wait, error, out)

    def _end(self, wait: Wait, error: MeshError | None, out: Outbox) -> None:
        del self._waits[wait.number]
        out.emit(Done(wait.wanted.ref, error, len(wait.told)))

    def _no_quorum(self, wait: Wait, space: Space | None) -> NoRoute:
        ground = self._ground
        holders = () if space is None else space.holders
        count = len(wait.told) if wait.stage == "reading" else 0
        if wait.stage != "reading" and space is not None:
            count = len(ground.up_holders(space)) + ground.answers(space)
        wanted = ground.config.holders
        if not holders:
            why = f"nobody is known to hold the space; QUORUM needs {wanted} nodes"
        elif len(holders) < wanted:
            why = f"the space has {len(holders)} holders; QUORUM needs {wanted} nodes in the mesh"
        else:
            why = f"{count} of {len(holders)} holders answer, {majority(len(holders))} are needed"
        return NoRoute(
            f"no quorum for space {wait.wanted.space!r}; nothing was done",
            code="state.no_quorum",
            why=why,
            hint="levels local and causal work on; agentmesh peers   shows who is there",
            extra={"answered": count, "holders": len(holders)},
        )

    def _unknown(self, wait: Wait, space: Space | None) -> Timeout:
        count = 0 if space is None else len(space.holders)
        return Timeout(
            f"the write is on {len(wait.told)} of {count} holders, not on a majority",
            code="state.unknown_outcome",
            why="it stands at this node and will spread to the others when they can be reached",
            hint="read at level quorum to see whether it is there; writing again may do it twice",
            extra={"acked": len(wait.told), "holders": count},
        )
