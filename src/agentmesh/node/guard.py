"""The guard at every agent beside this node: is it well, has it room, and can the call be paid for (docs/spec/guard.md).

A ``Check`` of ``node.callee``, and the last of them, since it takes what others would have to give back: a place at the agent's
gate (``core.budget.gate``), perhaps after a wait, and a reservation in the ledger (``store.ledger``) where an account bounds
the call. Limits come from ``guard.toml``, else from the agent's manifest, else from the settings.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from agentmesh.core.budget.bucket import RATE_MAX
from agentmesh.core.budget.gate import Gate, Ticket
from agentmesh.core.budget.limits import GateLimits
from agentmesh.errors import BudgetExceeded, Busy, MeshError, NoRoute, StoreError
from agentmesh.identity.budget import BUDGET_KEYS, Budget, Usage
from agentmesh.identity.grant_claims import Kind, limit_of
from agentmesh.identity.token import SKEW_S
from agentmesh.node.callee import Ended, Visit
from agentmesh.node.config import NodeConfig
from agentmesh.node.guardfile import AgentEntry, Bounds, GuardFile
from agentmesh.node.registry import LocalAgent, Registry
from agentmesh.obs.meters import CALL_S, Histogram
from agentmesh.store.ledger import Ledger, Line

_log = logging.getLogger("agentmesh.guard")

_DAY_S = 86_400
_WAKE_S_MIN = 0.001
_SUMS: tuple[Kind, ...] = ("max_subtree", "max_lifetime")
_DECIMAL = re.compile(r"[0-9]{1,7}(\.[0-9]{1,6})?", re.ASCII)


class _Post(NamedTuple):
    """The gate of one agent name, and what its limits were made from."""

    gate: Gate
    manifest: object
    version: int


class _Pass(NamedTuple):
    """What a call holds that was let in."""

    gate: Gate
    ticket: Ticket
    hold: str


class Guard:
    """Let calls in as limits and budgets allow.

    Args:
        config: Default limits.
        registry: Asked to look again at an agent that is not well.
        ledger: Accounts, shared by all agents of this node.
        file: What the operator says.
        now_s: Monotonic clock.
        unix_s: Wall clock; it decides which day it is, nothing else.
    """

    def __init__(
        self,
        config: NodeConfig,
        registry: Registry,
        ledger: Ledger,
        file: GuardFile,
        *,
        now_s: Callable[[], float] = time.monotonic,
        unix_s: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._registry, self._ledger, self._file = config, registry, ledger, file
        self._now_s, self._unix_s = now_s, unix_s
        #: How long calls that were let in were at the guard, for ``/metrics``.
        self.waits = Histogram(CALL_S)
        self._posts: dict[str, _Post] = {}
        self._passes: dict[Visit, _Pass] = {}
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._timers: dict[Gate, asyncio.TimerHandle] = {}

    @property
    def warnings(self) -> list[str]:
        """What the operator should know, one sentence each."""
        warnings = [self._file.warning] if self._file.warning else []
        if self._ledger.settled:
            warnings.append(
                f"{self._ledger.settled} calls were under way when this node died; their whole budgets count as spent"
            )
        return warnings

    async def enter(self, visit: Visit) -> None:
        """Let a call in, perhaps after a wait (see ``Check``).

        Raises:
            NoRoute: the agent does not answer its health check. Nothing was taken.
            Busy: no room now; ``retry_after_s`` says when. Nothing was taken.
            BudgetExceeded: it does not fit into a budget. Nothing was taken.
            StoreError: the ledger cannot be written. Nothing was taken.
        """
        agent = visit.agent
        self._check_health(agent)
        now_s = self._now_s()
        self._file.look(now_s)
        of_caller, of_agent = self._file.caller(visit.token.caller), self._file.agent(agent.manifest.name)
        visit.budget = visit.budget.within(of_caller.per_call).within(of_agent.per_call)
        if visit.budget.wall_ms is not None:
            wall_s = visit.budget.wall_ms / 1000
            if wall_s < visit.deadline_s:
                visit.deadline_s, visit.late = wall_s, "budget.wall"
            if not wall_s:
                raise BudgetExceeded("the call may take no time at all", code="budget.wall")
        gate = self._gate(agent, now_s)
        ticket, changed = gate.ask(
            visit.token.caller,
            now_s,
            until_s=now_s + visit.deadline_s,
            priority=min(visit.message.priority, visit.priority_max),
            limits=of_caller.limits if visit.priority_max else replace(of_caller.limits, last=True),
            may_wait=visit.message.may_wait,
        )
        self._tell(gate, changed)
        if ticket.state == "refused":
            raise self._busy(agent, gate, ticket)
        hold = ""
        try:
            hold = self._reserve(visit, of_caller, of_agent)
            if ticket.state == "waiting":
                await self._wait(ticket)
                visit.deadline_s -= self._now_s() - now_s
            if ticket.state != "running" or visit.deadline_s <= 0:
                raise self._busy(agent, gate, ticket)
        except BaseException:
            self._tell(gate, gate.leave(ticket, self._now_s()))
            self._settle(hold, Usage())
            raise
        self._passes[visit] = _Pass(gate, ticket, hold)
        self.waits.observe(self._now_s() - now_s)

    def leave(self, visit: Visit, ended: Ended) -> None:
        """Give back the place, and commit what was used: what the agent says, or all if it says nothing."""
        held = self._passes.pop(visit, None)
        if held is None:
            return
        self._tell(held.gate, held.gate.leave(held.ticket, self._now_s()))
        if ended.state == "rejected" or isinstance(ended.error, NoRoute):
            self._settle(held.hold, Usage())  # no work was done
        else:
            self._settle(held.hold, visit.charge)

    def _check_health(self, agent: LocalAgent) -> None:
        if agent.health is not None and agent.health.status != "healthy":
            self._registry.check_soon(agent)
            raise NoRoute(
                f"agent {agent.manifest.name!r} does not answer its health check",
                code="agent.unhealthy",
                why=agent.health.detail or None,
                extra={"untouched": True},
            )

    @property
    def waiting(self) -> int:
        """Number of calls that wait for room at their agent."""
        return len(self._waiting)

    # The gate

    def _gate(self, agent: LocalAgent, now_s: float) -> Gate:
        """Return the gate of an agent's name: one that registers again meets the limits where it left them."""
        name = agent.manifest.name.casefold()
        post = self._posts.get(name)
        if post is not None and post.manifest is agent.manifest and post.version == self._file.version:
            return post.gate
        limits = self._limits(agent)
        if post is None:
            if len(self._posts) >= 2 * self._config.agents_max:
                idle = [n for n, p in self._posts.items() if not p.gate.running and not p.gate.waiting]
                for old in idle:
                    del self._posts[old]
            gate = Gate(limits, now_s)
        else:
            gate = post.gate
            self._tell(gate, gate.change(limits, now_s))
        self._posts[name] = _Post(gate, agent.manifest, self._file.version)
        return gate

    def _limits(self, agent: LocalAgent) -> GateLimits:
        entry = self._file.agent(agent.manifest.name).entry
        assert isinstance(entry, AgentEntry)
        params = agent.manifest.params
        qps, burst = entry.qps, entry.burst
        if qps is None:
            qps, burst = rate_of(params.get("qps_budget")), entry.burst or count_of(params.get("qps_burst"))
        return GateLimits(
            concurrency=entry.concurrency or agent.limit,
            qps=qps,
            burst=burst,
            queue=self._config.agent_queue_max if entry.queue is None else entry.queue,
            wait_s=entry.wait_s or self._config.agent_queue_wait_s,
        )

    async def _wait(self, ticket: Ticket) -> None:
        self._waiting[ticket] = told = asyncio.get_running_loop().create_future()
        try:
            await told
        finally:
            self._waiting.pop(ticket, None)

    def _tell(self, gate: Gate, changed: list[Ticket]) -> None:
        """Wake whoever waits for a ticket that changed, and look again when the gate says so."""
        for ticket in changed:
            told = self._waiting.get(ticket)
            if told is not None and not told.done():
                told.set_result(None)
        if (timer := self._timers.pop(gate, None)) is not None:
            timer.cancel()
        now_s = self._now_s()
        if (wake_s := gate.wake_s(now_s)) is not None:
            loop = asyncio.get_running_loop()
            self._timers[gate] = loop.call_later(max(_WAKE_S_MIN, wake_s - now_s), self._wake, gate)

    def _wake(self, gate: Gate) -> None:
        self._tell(gate, gate.settle(self._now_s()))

    def _busy(self, agent: LocalAgent, gate: Gate, ticket: Ticket) -> Busy:
        name, limits = agent.manifest.name, gate.limits
        retry_s = round(ticket.retry_after_s or 1.0, 3)
        extra: dict[str, Any] = {"untouched": True}
        match ticket.why:
            case "qps":
                detail, code = f"agent {name!r} takes no more calls of this caller a second", "refused.busy.rate"
                if limits.qps is not None:
                    detail = f"agent {name!r} takes {limits.qps:g} calls a second"
                    extra["rate_limit"] = {"qps": limits.qps, "remaining": 0, "reset_s": retry_s}
            case "queue":
                detail, code = f"the queue of agent {name!r} is full: {limits.queue} calls wait", "refused.busy.queue"
            case "waited" | "":
                detail, code = f"agent {name!r} had no room in time", "refused.busy.waited"
            case "callers":
                detail, code = f"{limits.callers} callers of agent {name!r} are remembered", "refused.busy.callers"
            case _:
                detail, code = f"agent {name!r} is at its limit of {limits.concurrency} calls", "refused.busy"
        return Busy(detail, code=code, hint=f"try again in {retry_s:g} s", retry_after_s=retry_s, extra=extra)

    # The ledger

    def _reserve(self, visit: Visit, of_caller: Bounds, of_agent: Bounds) -> str:
        """Reserve what the call may use in every account that bounds it; "" if none does."""
        lines = self._lines(visit, of_caller, of_agent)
        if not lines:
            return ""
        hold = f"{visit.token.caller} {visit.token.claims.jti}"
        self._ledger.reserve(hold, lines)
        return hold

    def _lines(self, visit: Visit, of_caller: Bounds, of_agent: Bounds) -> list[Line]:
        lines: list[Line] = []
        day = int(self._unix_s() // _DAY_S)
        name = visit.agent.manifest.name
        until = (day + 2) * _DAY_S
        if of_caller.per_day:
            amount = _amount(visit, of_caller.per_day)
            lines.append(
                Line(f"caller {visit.token.caller} {day}", amount, of_caller.per_day, until, "the day of this caller")
            )
        if of_agent.per_day:
            amount = _amount(visit, of_agent.per_day)
            lines.append(
                Line(f"agent {name.casefold()} {day}", amount, of_agent.per_day, until, "the day of this agent")
            )
        return lines + self._grant_lines(visit)

    def _grant_lines(self, visit: Visit) -> list[Line]:
        """Return what the chain of grants bounds: each grant the sum over it and all made from it, the last its own calls."""
        if visit.delegation is None:
            return []
        lines: list[Line] = []
        for grant in visit.delegation.grants:
            is_leaf = grant is visit.delegation.leaf
            for kind in _SUMS if is_leaf else _SUMS[:1]:
                bound = Budget(*(limit_of(grant.claims, key, kind) for key in BUDGET_KEYS))
                if bound:
                    account = f"{kind} {grant.issuer} {grant.claims.jti}"
                    until = grant.claims.exp + SKEW_S
                    lines.append(Line(account, _amount(visit, bound), bound, until, f"the {kind} of a grant"))
        return lines

    def _settle(self, hold: str, used: Usage | None) -> None:
        if hold:
            try:
                self._ledger.commit(hold, used)
            except StoreError as error:
                _log.error("a reservation stays until the node starts again: %s", error)
            except MeshError as error:
                _log.error("the ledger is gone: %s", error)


def _amount(visit: Visit, bound: Budget) -> Usage:
    """Return what a call may use at most of an account.

    Raises:
        BudgetExceeded: the account bounds what the call leaves open (code "budget.open"). Nothing was reserved.
    """
    budget = visit.budget
    for key in BUDGET_KEYS:
        if key not in ("calls", "wall_ms") and getattr(bound, key) is not None and getattr(budget, key) is None:
            raise BudgetExceeded(
                f"the call does not say how many {key} it may use, and here they are bounded",
                code="budget.open",
                why=f"at most {getattr(bound, key)} {key} may be used over all calls",
                hint="name a budget: agentmesh run --budget usd=0.05,tokens=2000 …",
            )
    return Usage(
        calls=1 + (budget.calls or 0),
        tokens=budget.tokens or 0,
        usd_micros=budget.usd_micros or 0,
        wall_ms=int(visit.deadline_s * 1000),
    )


def rate_of(value: object) -> float | None:
    """Return the calls a second that a manifest declares, an integer or a decimal in a text; None for anything else."""
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= RATE_MAX:
        return None
    return float(value)


def count_of(value: object) -> int | None:
    """Return a count that a manifest declares, an integer or the same in a text; None for anything else."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 7:
        value = int(value)
    return value if type(value) is int and 0 < value <= 1_000_000 else None
