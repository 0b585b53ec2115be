"""Budgets and usage: four amounts that a call may use, and those it did use.

On the wire both are objects of the same members (docs/spec/tokens.md §2); money is an integer in a text.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from agentmesh.errors import DecodeError, UsageError
from agentmesh.identity.claims import AMOUNT_MAX, amount_in, amount_out


@dataclass(frozen=True, slots=True)
class Budget:
    """What a call may use at most, its own further calls included. None: the caller sets no bound, the callee's own hold.

    Attributes:
        calls: Further calls that the callee may make for it.
        tokens: Tokens of language models, in and out together.
        usd_micros: Millionths of a US dollar.
        wall_ms: Milliseconds from acceptance to the last answer.

    Raises:
        UsageError: a value that is no integer from 0 to ``AMOUNT_MAX`` (code "token.budget").
    """

    calls: int | None = None
    tokens: int | None = None
    usd_micros: int | None = None
    wall_ms: int | None = None

    def __post_init__(self) -> None:
        for name in BUDGET_KEYS:
            value = getattr(self, name)
            if value is not None and (type(value) is not int or not 0 <= value <= AMOUNT_MAX):
                raise UsageError(
                    f"the budget's {name} is out of range",
                    code="token.budget",
                    why=f"{str(value)[:40]!r} is no integer from 0 to 10^15",
                    hint="give money in millionths of a US dollar: 1.50 USD is usd_micros=1500000",
                )

    def to_claim(self) -> dict[str, int | str]:
        """Return it as it travels: bounds that are not set are left out, money is a text."""
        return {name: amount_out(name, value) for name in BUDGET_KEYS if (value := getattr(self, name)) is not None}

    @classmethod
    def from_claim(cls, members: dict[str, Any]) -> Budget:
        """Read a budget. Raises DecodeError (codes "claims.amount", "token.budget_key")."""
        for name in members:
            if name not in BUDGET_KEYS:
                raise DecodeError(
                    f"the budget bounds {name[:40]!r}, which is not known here",
                    code="token.budget_key",
                    why="a bound that is not understood cannot be kept",
                    hint=f"known are {', '.join(BUDGET_KEYS)}",
                )
        return cls(**{name: amount_in(members, name) for name in members})


#: Names of what is bounded and counted, in their order.
BUDGET_KEYS: tuple[str, ...] = tuple(field.name for field in fields(Budget))
#: The budget of a caller that sets no bounds.
UNBOUNDED = Budget()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a call has used, as the callee says. Fields as in ``Budget``; nothing used is 0.

    Raises:
        UsageError: a value that is no integer from 0 to ``AMOUNT_MAX`` (code "token.budget").
    """

    calls: int = 0
    tokens: int = 0
    usd_micros: int = 0
    wall_ms: int = 0

    def __post_init__(self) -> None:
        Budget(self.calls, self.tokens, self.usd_micros, self.wall_ms)

    def to_claim(self) -> dict[str, int | str]:
        """Return it as it travels, all members present."""
        return {name: amount_out(name, getattr(self, name)) for name in BUDGET_KEYS}

    @classmethod
    def from_claim(cls, members: dict[str, Any]) -> Usage:
        """Read a usage; unknown members are ignored. Raises DecodeError (codes "claims.missing", "claims.amount")."""
        return cls(**{name: amount_in(members, name) for name in BUDGET_KEYS})
