"""The further calls that one call may make, shared among those that its agent makes while it serves it (guard.md §4.6).

A call inside takes one, and all that it may pass on in its turn, and gives back at its end what it did not use. So the sum over
the whole tree below is never more than what the caller allowed, whatever runs side by side.
"""

from __future__ import annotations

from agentmesh.errors import BudgetExceeded


class Purse:
    """What is left of one call's ``calls``.

    Attributes:
        used: Calls that were made, those below them included, as far as their ends are known.
    """

    __slots__ = ("_taken", "used")

    def __init__(self) -> None:
        self.used = 0
        self._taken = 0

    @property
    def spent(self) -> int:
        """Calls that were made, and all that those may make that still run."""
        return self.used + self._taken

    def take(self, bound: int | None, wanted: int | None) -> int | None:
        """Take one call and what it may pass on.

        Args:
            bound: What may be used in all; None: it is counted only.
            wanted: What the call inside asks for; None for as much as there is.

        Returns:
            What the call inside may pass on at most; None without a bound.

        Raises:
            BudgetExceeded: nothing is left (code "budget.calls"). Nothing was taken.
        """
        if bound is None:
            self.used += 1
            return wanted
        left = bound - self.spent
        if left < 1:
            held = f", and {self._taken} are held for calls that run" if self._taken else ""
            raise BudgetExceeded(
                "the call may make no further calls",
                code="budget.calls",
                why=f"its budget allows {bound}, {self.used} were made{held}",
                hint="let calls that run side by side name their own budget of calls, 0 for those that make none",
            )
        share = left - 1 if wanted is None else min(wanted, left - 1)
        self.used += 1
        self._taken += share
        return share

    def give_back(self, bound: int | None, share: int | None, used: int | None) -> None:
        """Take note that a call inside ended.

        Args:
            bound: As given to ``take``.
            share: What ``take`` returned.
            used: Further calls that it made; None if that is not known, which counts as all it might.
        """
        if bound is None:
            self.used += used or 0
            return
        held = share or 0
        self._taken -= held
        self.used += held if used is None else min(used, held)
