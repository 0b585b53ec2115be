"""Calls that are turned away by the thousand: the first ones of each peer are recorded one by one, the rest is counted.

Whoever sends calls whose tokens do not hold pays nothing for them, so they must not buy a record each in a log that is kept for
ever. No count is lost: what was counted is recorded when its minute is over, when the table is full and at the end, and stands
in the journal meanwhile, so that after the death of the process a record says that there was a flood.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from agentmesh.node.record import new_id

#: Calls of one peer that are recorded one by one, in one minute (guess: enough to see what it tries).
EACH_MAX = 20
WINDOW_S = 60.0
#: Peers that are counted at once; for a further one, the count that began first is recorded early.
PEERS_MAX = 1_000
#: Reasons that are told apart; further ones count as "other".
REASONS_MAX = 16
#: Callees that are named.
CALLEES_MAX = 8


class Timer(Protocol):
    """What runs later, unless it is canceled."""

    def cancel(self) -> None:
        """Let it not run."""
        ...


@dataclass(slots=True)
class Flood:
    """What one peer sent in one minute.

    Attributes:
        peer: did:key of the node that sent it.
        told: Calls that were recorded one by one.
        count: Calls that were not.
        reasons: Code of the refusal → how many of these.
        callees: Whom they were for; the first few.
        task: Id of its record, in the place of that of a task.
        begun: Number of the entry in the journal; None while nothing is counted, or if it could not be written.
    """

    peer: str
    told: int = 0
    count: int = 0
    reasons: dict[str, int] = field(default_factory=dict[str, int])
    callees: list[str] = field(default_factory=list[str])
    task: str = field(default_factory=lambda: f"flood-{new_id()}")
    begun: int | None = None
    timer: Timer | None = None


class Floods:
    """Count what is turned away.

    Args:
        begin: Notes in the journal that a flood begins and returns its number there, None if that is not possible.
        write: Records a flood that is over.
        later: Runs a function after so many seconds; the loop's ``call_later`` by default.
    """

    def __init__(
        self,
        begin: Callable[[Flood], int | None],
        write: Callable[[Flood], None],
        later: Callable[[float, Callable[[], None]], Timer] | None = None,
    ) -> None:
        self._begin, self._write, self._later = begin, write, later or _later
        self._floods: dict[str, Flood] = {}

    def note(self, peer: str, code: str, callee: str) -> bool:
        """Take note of a call that is turned away; True if it is to be recorded by itself, False if it was counted.

        Args:
            peer: did:key of the node that sent it.
            code: Of the refusal.
            callee: Whom the call was for.
        """
        flood = self._floods.get(peer)
        if flood is None:
            while len(self._floods) >= PEERS_MAX:
                self._end(next(iter(self._floods)))
            flood = self._floods[peer] = Flood(peer)
            flood.timer = self._later(WINDOW_S, lambda: self._end(peer))
        if flood.told < EACH_MAX:
            flood.told += 1
            return True
        flood.count += 1
        reason = code if code in flood.reasons or len(flood.reasons) < REASONS_MAX else "other"
        flood.reasons[reason] = flood.reasons.get(reason, 0) + 1
        if callee not in flood.callees and len(flood.callees) < CALLEES_MAX:
            flood.callees.append(callee)
        if flood.count == 1:
            flood.begun = self._begin(flood)
        return False

    def close(self) -> None:
        """Record what is counted so far. Idempotent."""
        for peer in list(self._floods):
            self._end(peer)

    def _end(self, peer: str) -> None:
        flood = self._floods.pop(peer)
        if flood.timer is not None:
            flood.timer.cancel()
        if flood.count:
            self._write(flood)


def _later(delay_s: float, run: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(delay_s, run)
