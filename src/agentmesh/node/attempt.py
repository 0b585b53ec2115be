"""One try of a call at one replica, and what its node told of it."""

from __future__ import annotations

import time
from collections.abc import Callable

from agentmesh.errors import Busy, MeshError, NoRoute
from agentmesh.identity.budget import UNBOUNDED, Budget
from agentmesh.node.record import TaskStory
from agentmesh.node.resolve import Candidate
from agentmesh.wire import v1
from agentmesh.wire.event import EventV1, is_end, state_of

#: Events that say something of the answer; the others only tell how the call goes.
ANSWERS = frozenset({"message", "artifact", "tool", "reasoning"})


class Untouched(Exception):
    """A replica was not reached, and nothing says that it began; ``reason`` says why. Never leaves ``node``."""

    def __init__(self, reason: MeshError) -> None:
        super().__init__(str(reason))
        self.reason = reason


class Attempt:
    """One try.

    Args:
        candidate: The replica.
        message: The opening, its own copy.
        story: Makes the events of this node, if the agent is beside it.
        hear: Takes every event that is told; may raise LimitError.
        budget: What the call may use at most.

    Attributes:
        path: Way to the replica: "local", "direct" or "relayed".
        transport: Scheme of the link to it, "local", or "none" while there is no link.
        receipt: What its agent signed; "" if nothing.
        state: How it ended, once that was told.
        told: Whether something of an answer was told.
        held: What it told and readers have not heard, with the size of each in bytes (``node.effort``).
        muted: Set when its outcome does not count any more; nothing that it tells is heard then.
        quiet: Set when its node stopped answering.
        began_s: Monotonic seconds.
    """

    __slots__ = (
        "_hear",
        "began_s",
        "budget",
        "candidate",
        "held",
        "held_bytes",
        "message",
        "muted",
        "path",
        "quiet",
        "receipt",
        "state",
        "story",
        "told",
        "transport",
    )

    def __init__(
        self,
        candidate: Candidate,
        message: v1.CallOpen,
        story: TaskStory,
        hear: Callable[[Attempt, EventV1, int], None],
        budget: Budget = UNBOUNDED,
    ) -> None:
        self.budget = budget
        self.candidate, self.message, self.story, self._hear = candidate, message, story, hear
        self.path = "local"
        self.transport = "none"
        self.receipt = ""
        self.state = ""
        self.told = self.muted = self.quiet = False
        self.held: list[tuple[EventV1, int]] = []
        self.held_bytes = 0
        self.began_s = time.monotonic()

    def add(self, event: EventV1, size_bytes: int = 256) -> bool:
        """Take the next event; False if nobody listens any more.

        Raises:
            LimitError: the call produced more than it may. The event was not heard.
        """
        if self.muted:
            return False
        if event.kind == "status" and is_end(state := state_of(event.payload)):
            self.state = state
        self._hear(self, event, size_bytes)
        self.told = self.told or event.kind in ANSWERS
        return True

    def unless_untouched(self, error: MeshError | None) -> MeshError | None:
        """Return the error, or raise Untouched if it says that no work was done and nothing in the story contradicts it."""
        said = error is not None and error.extra.pop("untouched", False) and isinstance(error, NoRoute | Busy)
        if error is not None and said and not self.state and not self.told:
            raise Untouched(error)
        return error
