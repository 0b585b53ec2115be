"""Accounts of what calls may cost: reserved before work, committed or released after it (docs/spec/guard.md §4).

An account is a name with four sums (``identity.budget``): what was spent, and what is reserved by calls under way. Whoever
reserves says the bound, and spent, reserved and wanted together never exceed it. There is one file for all agents of a node,
so replicas share their accounts. What was written survives the death of the process; a crash of the machine may lose the
last moments.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agentmesh.errors import BudgetExceeded, Busy
from agentmesh.identity.budget import BUDGET_KEYS, Budget, Usage
from agentmesh.store.database import Database

#: Accounts kept; further ones are refused until old ones end.
ACCOUNTS_MAX = 200_000
_VERSION = 1
_TRIM_EVERY = 1_000
_SPENT = tuple(f"spent_{key}" for key in BUDGET_KEYS)
_HELD = tuple(f"held_{key}" for key in BUDGET_KEYS)
_SCHEMA = f"""
CREATE TABLE accounts(
  account TEXT PRIMARY KEY, until INTEGER NOT NULL,
  {", ".join(f"{name} INTEGER NOT NULL DEFAULT 0" for name in (*_SPENT, *_HELD))}) WITHOUT ROWID;
CREATE INDEX accounts_until ON accounts(until);
CREATE TABLE holds(
  hold TEXT NOT NULL, account TEXT NOT NULL, {", ".join(f"{key} INTEGER NOT NULL" for key in BUDGET_KEYS)},
  PRIMARY KEY(hold, account)) WITHOUT ROWID;
"""


class Line(NamedTuple):
    """What one call asks of one account.

    Attributes:
        account: Its name.
        amount: What the call may use of it at most.
        bound: What the account may reach; None = no bound for that amount.
        until: Unix second after which nobody asks for it any more.
        about: What it is, for people: "the grant", "the day of this caller".
    """

    account: str
    amount: Usage
    bound: Budget
    until: int
    about: str = "the account"


class Account(NamedTuple):
    """One account as it stands."""

    spent: Usage
    held: Usage


class Ledger:
    """Open with ``Ledger.open(path)``; calls must not overlap.

    Args:
        db: The file.
        unix_s: The wall clock; it only decides which accounts are so old that they can go.
    """

    def __init__(self, db: Database, unix_s: Callable[[], float] = time.time) -> None:
        self.path = db.path
        self._db, self._unix_s = db, unix_s
        self._reserved = 0
        #: Reservations of a process that died: nobody knows what they used, so all of it counts as used.
        self.settled = self._settle()

    @classmethod
    def open(cls, path: Path, unix_s: Callable[[], float] = time.time) -> Ledger:
        """Open or make the file; what a dead process had reserved is committed in full.

        Raises:
            ConfigError: "ledger.newer": written by a newer version. The file is as it was.
            Corrupt: damaged. The file is as it was: without it budgets would begin anew.
            Full: it cannot be written.
        """
        damaged = f"it holds what was spent: move it away to begin anew:   mv {path} {path}.damaged"
        return cls(Database(path, _SCHEMA, _VERSION, name="ledger", damaged=damaged, check=True), unix_s)

    def _settle(self) -> int:
        with self._db.transaction():
            (count,) = self._db.read("SELECT count(DISTINCT hold) FROM holds")[0]
            if count:
                self._db.write(
                    f"UPDATE accounts SET {', '.join(f'{s}={s}+{h}, {h}=0' for s, h in zip(_SPENT, _HELD, strict=True))}"  # noqa: S608 own names
                )
                self._db.write("DELETE FROM holds")
        return int(count)

    def reserve(self, hold: str, lines: Sequence[Line]) -> None:
        """Reserve all lines of a call, or nothing.

        Args:
            hold: Name of the reservation, new.
            lines: Each of another account.

        Raises:
            BudgetExceeded: an account would exceed its bound (code "budget.exceeded"). Nothing was reserved.
            Busy: ``ACCOUNTS_MAX`` accounts are in use. Nothing was reserved.
            StoreError: it cannot be written. Nothing was reserved.
        """
        if not lines:
            return
        self._trim()
        with self._db.transaction():
            for line in lines:
                now = self.account(line.account)
                for key in BUDGET_KEYS:
                    bound: int | None = getattr(line.bound, key)
                    wanted: int = getattr(line.amount, key)
                    if bound is None:
                        continue
                    left: int = bound - getattr(now.spent, key) - getattr(now.held, key)
                    if wanted > left:
                        raise _exceeded(line, key, wanted, max(0, left), bound)
                amounts = [getattr(line.amount, key) for key in BUDGET_KEYS]
                self._db.write(
                    f"INSERT INTO accounts(account,until,{','.join(_HELD)}) VALUES (?,?,?,?,?,?) "  # noqa: S608 own names
                    f"ON CONFLICT(account) DO UPDATE SET until=max(until,excluded.until), "
                    f"{', '.join(f'{h}={h}+excluded.{h}' for h in _HELD)}",
                    line.account, line.until, *amounts,
                )  # fmt: skip
                self._db.write("INSERT INTO holds VALUES (?,?,?,?,?,?)", hold, line.account, *amounts)

    def commit(self, hold: str, used: Usage | None) -> None:
        """End a reservation: what was used counts, at most what was reserved; the rest is free again.

        Args:
            hold: As reserved; an unknown one changes nothing.
            used: None for all that was reserved.

        Raises:
            StoreError: it cannot be written. It stays reserved, and counts in full once the process ends.
        """
        with self._db.transaction():
            for account, *held in self._db.read(
                f"SELECT account,{','.join(BUDGET_KEYS)} FROM holds WHERE hold=?", hold  # noqa: S608 own names
            ):  # fmt: skip
                spent = (
                    held if used is None else [min(getattr(used, k), h) for k, h in zip(BUDGET_KEYS, held, strict=True)]
                )
                self._db.write(
                    f"UPDATE accounts SET {', '.join(f'{name}={name}+?' for name in _SPENT)}, "  # noqa: S608 own names
                    f"{', '.join(f'{name}={name}-?' for name in _HELD)} WHERE account=?",
                    *spent, *held, account,
                )  # fmt: skip
            self._db.write("DELETE FROM holds WHERE hold=?", hold)

    def release(self, hold: str) -> None:
        """End a reservation of which nothing was used. Raises StoreError."""
        self.commit(hold, Usage())

    def account(self, account: str) -> Account:
        """Return one account; an unknown one is empty. Raises StoreError."""
        rows: list[Any] = self._db.read(
            f"SELECT {','.join((*_SPENT, *_HELD))} FROM accounts WHERE account=?", account  # noqa: S608 own names
        )  # fmt: skip
        if not rows:
            return Account(Usage(), Usage())
        return Account(Usage(*rows[0][:4]), Usage(*rows[0][4:]))

    def _trim(self) -> None:
        """Forget accounts that nobody asks for any more, now and then; make sure that there is room."""
        self._reserved += 1
        if self._reserved % _TRIM_EVERY != 1 % _TRIM_EVERY:
            return
        no_holds = " AND ".join(f"{name}=0" for name in _HELD)
        self._db.write(f"DELETE FROM accounts WHERE until<? AND {no_holds}", int(self._unix_s()))  # noqa: S608 own names
        (count,) = self._db.read("SELECT count(*) FROM accounts")[0]
        if count >= ACCOUNTS_MAX:
            self._reserved -= 1
            raise Busy(f"{ACCOUNTS_MAX} accounts are in use", code="refused.busy.accounts", retry_after_s=60.0)

    def close(self) -> None:
        """Close; further calls raise StateError. Idempotent."""
        self._db.close()


def _exceeded(line: Line, key: str, wanted: int, left: int, bound: int) -> BudgetExceeded:
    return BudgetExceeded(
        f"{line.about} has {left} {key} left, the call may use {wanted}",
        why=f"the bound is {bound} {key}; what calls under way have reserved counts",
        hint="ask with a smaller budget, or when the bound is renewed",
        extra={"budget": {"key": key, "bound": bound, "left": left, "wanted": wanted}},
    )
