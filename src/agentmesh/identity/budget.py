"""Budgets and usage: four amounts that a call may use, and those it did use.

On the wire both are objects of the same members (docs/spec/tokens.md §2); money is an integer in a text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, cast

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
        return cls(**{name: amount_in(members, name) for name in members}) if members else UNBOUNDED

    @classmethod
    def from_text(cls, text: str) -> Budget:
        """Read what a person writes: ``usd=0.05,tokens=2000,calls=3,wall=30s``; "" bounds nothing.

        Raises:
            UsageError: another name, one twice, no number, or finer than a millionth of a dollar (code "token.budget").
        """
        amounts: dict[str, int] = {}
        for piece in text.split(",") if text.strip() else ():
            name, _, value = (side.strip() for side in piece.partition("="))
            found = _SPOKEN.get(name)
            if found is None or found[0] in amounts:
                raise _unreadable(piece, f"known are {', '.join(_SPOKEN)}, each once")
            key, form, factor = found
            number = form.fullmatch(value)
            unit = number[2] if number is not None and number.re.groups > 1 else None
            amount = None if number is None else Decimal(number[1]) * (factor if unit is None else _UNITS_MS[unit])
            if amount is None or amount != amount.to_integral_value() or amount > AMOUNT_MAX:
                raise _unreadable(piece, "it is no such amount, or too large or too fine a one")
            amounts[key] = int(amount)
        return cls(**amounts) if amounts else UNBOUNDED

    def within(self, other: Budget) -> Budget:
        """Return the narrower of two in every amount."""
        if other is UNBOUNDED:
            return self
        return Budget(*(_least(getattr(self, name), getattr(other, name)) for name in BUDGET_KEYS))

    def __bool__(self) -> bool:
        """Say whether it bounds anything."""
        return self != UNBOUNDED


def _least(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)


_WHOLE, _DECIMAL = re.compile(r"([0-9]{1,16})", re.ASCII), re.compile(r"([0-9]{1,10}(?:\.[0-9]{1,6})?)", re.ASCII)
_TIME = re.compile(r"([0-9]{1,10}(?:\.[0-9]{1,3})?)(ms|s|m|h)?", re.ASCII)
_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
#: What a person writes → amount, form, and what one of it is.
_SPOKEN: dict[str, tuple[str, re.Pattern[str], int]] = {
    "usd": ("usd_micros", _DECIMAL, 1_000_000),
    "tokens": ("tokens", _WHOLE, 1),
    "calls": ("calls", _WHOLE, 1),
    "wall": ("wall_ms", _TIME, 1_000),
}


def _unreadable(piece: str, why: str) -> UsageError:
    return UsageError(
        f"{piece.strip()[:60]!r} is no part of a budget",
        code="token.budget",
        why=why,
        hint="write for example usd=0.05,tokens=2000,calls=3,wall=30s",
    )


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
        return {
            "calls": self.calls,
            "tokens": self.tokens,
            "usd_micros": str(self.usd_micros),
            "wall_ms": self.wall_ms,
        }

    @classmethod
    def from_claim(cls, members: dict[str, Any]) -> Usage:
        """Read a usage; unknown members are ignored. Raises DecodeError (codes "claims.missing", "claims.amount")."""
        return cls(**{name: amount_in(members, name) for name in BUDGET_KEYS})

    @classmethod
    def reported(cls, value: object) -> Usage | None:
        """Read what an agent says it has used so far: any of ``tokens``, ``usd_micros`` and ``calls``; None if it makes no sense.

        Unknown members are ignored, and so is its time, which its node measures.
        """
        if not isinstance(value, dict):
            return None
        said: dict[str, int] = {}
        for name in ("calls", "tokens", "usd_micros"):
            amount = cast("dict[object, object]", value).get(name)
            if name == "usd_micros" and isinstance(amount, str) and _WHOLE.fullmatch(amount):
                amount = int(amount)
            if type(amount) is int and 0 <= amount <= AMOUNT_MAX:
                said[name] = amount
            elif amount is not None:
                return None
        return cls(**said) if said else None

    def at_least(self, other: Usage) -> Usage:
        """Return the larger of two in every amount."""
        return Usage(*(max(getattr(self, name), getattr(other, name)) for name in BUDGET_KEYS))

    def beyond(self, budget: Budget) -> str | None:
        """Return the first amount that exceeds a budget, None if all are within."""
        for name in BUDGET_KEYS:
            bound = getattr(budget, name)
            if bound is not None and getattr(self, name) > bound:
                return name
        return None
