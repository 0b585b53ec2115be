"""What a decision of policy costs: remembered, and asked anew with 10 and 500 Cedar policies; and reading 500 of them."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agentmesh.identity.keys import KeyPair
from agentmesh.node.policy.facts import Facts
from agentmesh.node.policy.policy import CACHE_MAX, Policy

_ROUNDS, _CALLS = 15, 2_000
HERE, CALLER, CALLEE = (KeyPair.generate(bytes([n]) * 32).did for n in (1, 2, 3))


def _policy(directory: Path, count: int) -> Policy:
    """Return a policy of so many rules, of which the last one lets the caller in."""
    directory.mkdir(mode=0o700)
    keys = [KeyPair.generate(n.to_bytes(32, "big")).did for n in range(1, count)]
    rules = [
        f'permit(principal == Caller::"{key}", action, resource) when {{ context.skill == "add" && context.trust > 40 }};'
        for key in keys
    ]
    rules.append(
        f'@id("last") permit(principal == Caller::"{CALLER}", action, resource) when {{ context.skill like "s*" }};'
    )
    for name, text in (("lists.toml", f'[organisations.own]\nkeys = ["{HERE}"]\n'), ("a.cedar", "\n".join(rules))):
        (directory / name).write_text(text)
        (directory / name).chmod(0o600)
    policy = Policy(HERE, directory, "closed", manifest_of=lambda _: None, name_of=str)
    policy.refresh()
    assert policy.error is None, policy.error
    return policy


def _median_us(work: Callable[[int], Any], calls: int) -> float:
    """Return the median over rounds of the microseconds of CPU per call."""
    rounds: list[float] = []
    for _ in range(_ROUNDS):
        started_s = time.process_time()
        for number in range(calls):
            work(number)
        rounds.append((time.process_time() - started_s) / calls * 1e6)
    return statistics.median(rounds)


def run() -> list[dict[str, Any]]:
    """Measure and return rows of the benchmark table."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as root:
        few, many = _policy(Path(root) / "few", 10), _policy(Path(root) / "many", 500)
        one = Facts(CALLER, CALLER, CALLER, CALLEE, "sum")
        assert few.rule(one).rule == many.rule(one).rule == "last"
        rows.append(
            {
                "what": "a remembered decision",
                "value": _median_us(lambda _: many.rule(one), _CALLS),
                "unit": "µs CPU",
                "goal": "≤ 20",
            }
        )
        for count, policy in ((10, few), (500, many)):
            fresh = iter(range(10**9))
            asked = _median_us(lambda _, p=policy, f=fresh: p.rule(one._replace(skill=f"s{next(f)}")), 200)
            rows.append({"what": f"a new decision, {count} policies", "value": asked, "unit": "µs CPU"})
        assert len(few._cache) <= CACHE_MAX  # pyright: ignore[reportPrivateUsage]
        started_s = time.process_time()
        _policy(Path(root) / "again", 500)
        rows.append(
            {"what": "reading 500 policies", "value": (time.process_time() - started_s) * 1e3, "unit": "ms CPU"}
        )
    return rows
