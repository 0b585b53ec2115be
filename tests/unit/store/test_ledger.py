"""The ledger: spent and reserved never exceed a bound, whatever dies in between (docs/spec/guard.md §4)."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.errors import BudgetExceeded, Busy, ConfigError, Corrupt, Full, StoreError
from agentmesh.identity.budget import BUDGET_KEYS, UNBOUNDED, Budget, Usage
from agentmesh.store import ledger as module
from agentmesh.store.ledger import Ledger, Line

LATER = 2**33


def line(account: str, tokens: int, bound: int | None, until: int = LATER) -> Line:
    return Line(account, Usage(tokens=tokens), Budget(tokens=bound), until)


@dataclass
class Model:
    """Accounts as anybody would keep them."""

    spent: dict[str, int] = field(default_factory=dict)
    holds: dict[str, dict[str, int]] = field(default_factory=dict)

    def held(self, account: str) -> int:
        return sum(hold.get(account, 0) for hold in self.holds.values())


amounts = st.integers(0, 12)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("reserve"), st.dictionaries(st.sampled_from("xyz"), amounts, min_size=1)),
        st.tuples(st.just("commit"), st.integers(0, 9), st.none() | amounts),
        st.tuples(st.just("release"), st.integers(0, 9)),
        st.tuples(st.just("restart"), st.booleans()),
    ),
    max_size=40,
)


@given(steps)
@settings(max_examples=60)
def test_spent_and_reserved_never_exceed_the_bound_and_are_what_a_simple_book_says(
    steps: list[tuple[object, ...]],
) -> None:
    bounds = {"x": 20, "y": 5, "z": 0}
    model, number = Model(), 0
    with tempfile.TemporaryDirectory() as temp:
        path = Path(temp) / "ledger.sqlite"
        ledger = Ledger.open(path)
        for step in steps:
            match step:
                case ("reserve", dict() as wanted):
                    number += 1
                    fits = all(model.spent.get(a, 0) + model.held(a) + n <= bounds[a] for a, n in wanted.items())
                    lines = [line(a, n, bounds[a]) for a, n in wanted.items()]
                    if fits:
                        ledger.reserve(f"h{number}", lines)
                        model.holds[f"h{number}"] = dict(wanted)
                    else:
                        with pytest.raises(BudgetExceeded):
                            ledger.reserve(f"h{number}", lines)
                case ("commit" | "release", int(n), *used) if model.holds:
                    hold = sorted(model.holds)[n % len(model.holds)]
                    tokens = used[0] if used else 0
                    ledger.commit(hold, None if tokens is None else Usage(tokens=int(str(tokens))))
                    for account, held in model.holds.pop(hold).items():
                        count = held if tokens is None else min(held, int(str(tokens)))
                        model.spent[account] = model.spent.get(account, 0) + count
                case ("restart", _):
                    ledger.close()
                    ledger = Ledger.open(path)
                    assert ledger.settled == len(model.holds)
                    for hold in model.holds.values():
                        for account, held in hold.items():
                            model.spent[account] = model.spent.get(account, 0) + held
                    model.holds.clear()
                case _:
                    pass
            for account, bound in bounds.items():
                now = ledger.account(account)
                assert (now.spent.tokens, now.held.tokens) == (model.spent.get(account, 0), model.held(account))
                assert now.spent.tokens + now.held.tokens <= bound
        ledger.close()


def test_all_lines_of_a_call_are_reserved_or_none(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "l.sqlite")
    with pytest.raises(BudgetExceeded) as error:
        ledger.reserve("h", [line("wide", 5, 10), line("narrow", 5, 4)])
    assert error.value.code == "budget.exceeded"
    assert error.value.extra["budget"] == {"key": "tokens", "bound": 4, "left": 4, "wanted": 5}
    assert ledger.account("wide").held == Usage()
    ledger.close()


def test_every_amount_is_kept_apart_and_what_is_not_bounded_is_still_counted(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "l.sqlite")
    used = Usage(1, 20, 300, 4000)
    ledger.reserve("h", [Line("a", used, UNBOUNDED, LATER)])
    ledger.commit("h", used)
    assert ledger.account("a").spent == used
    for key in BUDGET_KEYS:
        with pytest.raises(BudgetExceeded):
            ledger.reserve("i", [Line("a", Usage(**{key: 1}), Budget(**{key: getattr(used, key)}), LATER)])
    ledger.close()


def test_more_than_was_reserved_is_never_charged(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "l.sqlite")
    ledger.reserve("h", [line("a", 5, 10)])
    ledger.commit("h", Usage(tokens=10**15))
    ledger.commit("h", Usage(tokens=5))  # twice is once
    assert ledger.account("a").spent.tokens == 5
    ledger.close()


_DIES = """
import os, signal, sys
from pathlib import Path
from agentmesh.identity.budget import Budget, Usage
from agentmesh.store.ledger import Ledger, Line
ledger = Ledger.open(Path(sys.argv[1]))
for n in range(3):
    ledger.reserve(f"h{n}", [Line("a", Usage(tokens=10), Budget(tokens=100), 2**33)])
ledger.commit("h0", Usage(tokens=2))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_had_reserved_counts_as_spent(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    died = subprocess.run([sys.executable, "-c", _DIES, str(path)], check=False, env=dict(os.environ), timeout=60)
    assert died.returncode == -signal.SIGKILL
    ledger = Ledger.open(path)
    assert ledger.settled == 2
    assert ledger.account("a").spent.tokens == 2 + 10 + 10
    assert ledger.account("a").held == Usage()
    ledger.close()


def test_a_file_that_is_damaged_or_newer_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "l.sqlite"
    path.write_bytes(b"no database, but long enough to be read as one" * 100)
    before = path.read_bytes()
    with pytest.raises(Corrupt) as corrupt:
        Ledger.open(path)
    assert "mv " in str(corrupt.value.hint)
    assert path.read_bytes() == before
    newer = tmp_path / "newer.sqlite"
    Ledger.open(newer).close()
    with sqlite3.connect(newer) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(ConfigError) as error:
        Ledger.open(newer)
    assert error.value.code == "ledger.newer"


def test_a_full_disk_refuses_what_cannot_be_written_down_and_keeps_the_books_right(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "l.sqlite")
    ledger.reserve("h", [line("a", 5, 10)])
    db = ledger._db  # pyright: ignore[reportPrivateUsage]
    pages = db.read("PRAGMA page_count")[0][0]
    db.read(f"PRAGMA max_page_count={pages}")

    def fill() -> None:
        for n in range(2_000):
            ledger.reserve(f"more {n}", [line(f"account {n} {'x' * 100}", 1, 10)])

    with pytest.raises(StoreError) as error:
        fill()
    assert isinstance(error.value, Full)
    db.read("PRAGMA max_page_count=1000000")
    ledger.commit("h", Usage(tokens=3))
    assert ledger.account("a").spent.tokens == 3
    ledger.close()


def test_accounts_that_nobody_asks_for_go_and_those_in_use_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ACCOUNTS_MAX", 3)
    monkeypatch.setattr(module, "_TRIM_EVERY", 1)
    now = 100.0
    ledger = Ledger.open(tmp_path / "l.sqlite", unix_s=lambda: now)
    ledger.reserve("open", [line("old but open", 1, 9, until=50)])
    ledger.reserve("h", [line("old", 1, 9, until=150)])
    ledger.commit("h", None)
    ledger.reserve("i", [line("new", 1, 9)])
    with pytest.raises(Busy):
        ledger.reserve("j", [line("one more", 1, 9)])
    now = 200.0
    ledger.reserve("j", [line("one more", 1, 9)])
    assert ledger.account("old").spent.tokens == 0
    assert ledger.account("old but open").held.tokens == 1
    ledger.close()
