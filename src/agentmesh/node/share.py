"""What a call may use that an agent makes while it serves another: a share of what that one may use."""

from __future__ import annotations

from dataclasses import dataclass, replace

from agentmesh.core.budget.purse import Purse
from agentmesh.errors import MeshError, NoRoute, Refused
from agentmesh.identity.budget import Budget
from agentmesh.identity.receipt import usage_in


@dataclass(frozen=True, slots=True)
class Share:
    """One share.

    Attributes:
        purse: The further calls of the call that is served.
        whole: What that call may use.
        budget: What the call inside may use: no amount is larger, and its ``calls`` are taken out of the purse.
    """

    purse: Purse
    whole: Budget
    budget: Budget

    @classmethod
    def of(cls, purse: Purse, whole: Budget, wanted: Budget) -> Share:
        """Take a share for a call that asks for ``wanted``. Raises BudgetExceeded (code "budget.calls"); nothing was taken."""
        calls = purse.take(whole.calls, wanted.calls)
        return cls(purse, whole, replace(wanted.within(whole), calls=calls))

    def give_back(self, used: int | None) -> None:
        """Give back what was not used (see ``Purse.give_back``)."""
        self.purse.give_back(self.whole.calls, self.budget.calls, used)

    def close(self, receipt: str, error: MeshError | None) -> None:
        """Give back what the call inside did not use, as its receipt says; without one, all of it if no work was done.

        Args:
            receipt: Verified, "" if there is none.
            error: How the call ended.
        """
        if receipt:
            self.give_back(usage_in(receipt).calls)
        else:
            self.give_back(0 if isinstance(error, NoRoute | Refused) else None)
