"""The federation machine: when to pull from each seed, what of its answers to keep, and when to leave it alone.

Entries come in verified (``Item.refused`` says what does not hold); here only order counts: of two records of an agent the one
with the higher ``seq`` that its owner signed, never a clock. A seed can tell, withdraw and end what it brought itself, and
nothing that another seed brought: each has a table of its own. A pull from the beginning ends with a sweep: what the seed did
not name any more is dropped. docs/spec/federation.md §5.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from agentmesh.core.federation.config import FederationConfig
from agentmesh.core.federation.messages import (
    Drop,
    Hinted,
    Item,
    Keep,
    KeepCursor,
    PageCame,
    PullFailed,
    PullWanted,
    Pushed,
    SeedAdded,
    SeedRemoved,
)
from agentmesh.core.machine import Outbox, Timer

_PULL = "federation.pull:"
_STUCK = "federation.stuck:"
#: After these a seed is left alone, whatever it says.
_GIVEN_UP = ("federation.flood", "federation.loop")


@dataclass(slots=True, eq=False)
class SeedState:
    """What is known of one seed.

    Attributes:
        seed: Its address.
        cursor: Where the next pull goes on.
        held: The newest record of each agent that it told; tombstones too, until they end.
        floors: ``seq`` of agents that it told of before and that are gone.
        refused: How many entries were refused, by code, and the last detail of each.
        failures: Failed pulls since the last whole round.
        error, error_detail: Code and words of the last failure; "" after a whole round.
        pulling: Token of the pull that is under way; 0 = none.
        sweep: Agents named so far in a pull from the beginning; None in any other.
        done_s: Monotonic time of the last whole round; None before the first.
        due_s: Monotonic time of the next pull, while none is under way.
        admitted: Records taken so far.
    """

    seed: str
    cursor: str = ""
    held: dict[str, Item] = field(default_factory=dict[str, Item])
    floors: dict[str, int] = field(default_factory=dict[str, int])
    refused: dict[str, tuple[int, str]] = field(default_factory=dict[str, tuple[int, str]])
    failures: int = 0
    error: str = ""
    error_detail: str = ""
    pulling: int = 0
    sweep: dict[str, None] | None = None
    done_s: float | None = None
    due_s: float = 0.0
    admitted: int = 0
    token: int = 0
    timer: int = 0
    again: bool = False
    pages: int = 0
    entries: int = 0
    size_bytes: int = 0
    cursors: dict[str, None] = field(default_factory=dict[str, None])


class Federation:
    """Pull from seeds.

    Args:
        config: Knobs.
        rng: For jitter.
    """

    def __init__(self, config: FederationConfig, rng: random.Random) -> None:
        self.config = config
        self._rng = rng
        self.seeds: dict[str, SeedState] = {}

    def handle(self, incoming: object, now_s: float, out: Outbox) -> None:
        """Take one input at monotonic time ``now_s`` (seconds) and write effects; what names no seed of ours is ignored."""
        if isinstance(incoming, SeedAdded):
            self._add(incoming, now_s, out)
        elif isinstance(incoming, Timer):
            self._on_timer(incoming, now_s, out)
        elif isinstance(incoming, SeedRemoved | Hinted | PageCame | PullFailed | Pushed):
            state = self.seeds.get(incoming.seed)
            if state is None:
                return
            if isinstance(incoming, SeedRemoved):
                self._drop_all(state, "removed", out)
                del self.seeds[incoming.seed]
            elif isinstance(incoming, Hinted):
                self._on_hint(state, now_s, out)
            elif isinstance(incoming, Pushed):
                for item in incoming.items[: self.config.page_limit]:
                    self._take(state, item, out)
            elif incoming.token != state.pulling:
                return  # given up meanwhile
            elif isinstance(incoming, PageCame):
                self._on_page(state, incoming, now_s, out)
            else:
                self._on_failure(state, incoming, now_s, out)

    # Time

    def _add(self, added: SeedAdded, now_s: float, out: Outbox) -> None:
        if added.seed in self.seeds or len(self.seeds) >= self.config.seeds_max:
            return
        state = self.seeds[added.seed] = SeedState(added.seed, added.cursor)
        for item in added.held[: self.config.entries_max]:
            state.held[item.agent] = item
        self._schedule(state, self._rng.uniform(0.0, self.config.hint_gap_s), now_s, out)

    def _on_timer(self, timer: Timer, now_s: float, out: Outbox) -> None:
        stuck = timer.name.startswith(_STUCK)
        state = self.seeds.get(timer.name.removeprefix(_STUCK if stuck else _PULL))
        if state is None:
            return
        if stuck and timer.token == state.pulling:
            detail = f"no answer within {self.config.answer_s:g} s"
            self._on_failure(state, PullFailed(state.seed, timer.token, "unreached.timeout", detail), now_s, out)
        elif not stuck and timer.token == state.timer and not state.pulling:
            self._begin(state, now_s, out)

    def _schedule(self, state: SeedState, delay_s: float, now_s: float, out: Outbox) -> None:
        state.timer += 1
        state.due_s = now_s + delay_s
        out.after(delay_s, Timer(f"{_PULL}{state.seed}", state.timer))

    def _on_hint(self, state: SeedState, now_s: float, out: Outbox) -> None:
        """Pull soon. A seed that hints is alive, so a backoff ends as well; but no faster than ``hint_gap_s``."""
        if state.error in _GIVEN_UP:
            return
        if state.pulling:
            state.again = True
        elif state.due_s > now_s + self.config.hint_gap_s:
            self._schedule(state, self.config.hint_gap_s, now_s, out)

    def _begin(self, state: SeedState, now_s: float, out: Outbox) -> None:
        if not state.cursor:
            state.sweep = {}
        state.pages = state.entries = state.size_bytes = 0
        state.cursors = {state.cursor: None}
        self._ask(state, now_s, out)

    def _ask(self, state: SeedState, now_s: float, out: Outbox) -> None:
        state.token += 1
        state.pulling = state.token
        out.emit(PullWanted(state.seed, state.cursor, self.config.page_limit, state.token))
        out.after(self.config.answer_s, Timer(f"{_STUCK}{state.seed}", state.token))

    # Answers

    def _on_page(self, state: SeedState, page: PageCame, now_s: float, out: Outbox) -> None:
        config = self.config
        state.pages += 1
        state.entries += len(page.items)
        state.size_bytes += page.size_bytes
        if (
            len(page.items) > config.page_limit
            or state.pages > config.round_pages_max
            or state.entries > config.round_entries_max
            or state.size_bytes > config.round_bytes_max
        ):
            detail = f"{state.entries} entries and {state.size_bytes >> 10} KB on {state.pages} pages without an end"
            self._give_up(state, "federation.flood", detail, now_s, out)
            return
        if page.more and (not page.next_cursor or page.next_cursor in state.cursors):
            self._give_up(state, "federation.loop", "its cursor leads back to where it was", now_s, out)
            return
        for item in page.items:
            self._take(state, item, out)
        if page.next_cursor:
            state.cursor = page.next_cursor
            state.cursors[page.next_cursor] = None
            # A first pull that is not whole knows nothing of what is missing: after a restart it begins anew.
            out.store(KeepCursor(state.seed, "" if page.more and state.sweep is not None else state.cursor))
        if page.more:
            self._ask(state, now_s, out)
        else:
            self._finish(state, page.unix_s, now_s, out)

    def _finish(self, state: SeedState, unix_s: int, now_s: float, out: Outbox) -> None:
        """End a whole round."""
        if state.sweep is not None:
            for agent in [a for a, item in state.held.items() if a not in state.sweep and item.kind == "card"]:
                self._let_go(state, agent, "gone", out)
            state.sweep = None
        for agent in [a for a, item in state.held.items() if item.exp < unix_s]:
            self._let_go(state, agent, "expired", out)
        state.pulling, state.failures, state.error, state.error_detail = 0, 0, "", ""
        state.done_s = now_s
        if state.again:
            state.again = False
            self._schedule(state, self.config.hint_gap_s, now_s, out)
        else:
            part = self.config.jitter
            self._schedule(state, self.config.interval_s * self._rng.uniform(1 - part, 1 + part), now_s, out)

    def _on_failure(self, state: SeedState, failed: PullFailed, now_s: float, out: Outbox) -> None:
        if failed.restart:
            state.cursor, state.sweep = "", None
            out.store(KeepCursor(state.seed, ""))
        if failed.drop:
            self._drop_all(state, "refused", out)
            state.cursor, state.sweep = "", None
            out.store(KeepCursor(state.seed, ""))
        state.pulling, state.again = 0, False
        state.failures += 1
        state.error, state.error_detail = failed.code, failed.detail
        most = min(self.config.backoff_max_s, self.config.backoff_base_s * 2.0 ** min(state.failures - 1, 30))
        asked_s = min(max(0.0, failed.retry_after_s), self.config.backoff_max_s)
        self._schedule(state, max(asked_s, self._rng.uniform(0.0, most)), now_s, out)

    def _give_up(self, state: SeedState, code: str, detail: str, now_s: float, out: Outbox) -> None:
        """Leave a seed alone that sends what no honest one does; it is asked again after the longest backoff, from the start."""
        state.failures = max(state.failures, 30)
        state.cursor, state.sweep = "", None
        out.store(KeepCursor(state.seed, ""))
        rest_s = self.config.backoff_max_s / 2
        self._on_failure(state, PullFailed(state.seed, state.pulling, code, detail, rest_s), now_s, out)

    # Entries

    def _take(self, state: SeedState, item: Item, out: Outbox) -> None:
        if item.refused:
            self._refuse(state, item.refused, item.detail)
            return
        held = state.held.get(item.agent)
        if item.kind == "withdrawn":
            if held is not None and held.kind == "card":
                self._let_go(state, item.agent, "withdrawn", out)
            return
        if state.sweep is not None:
            state.sweep[item.agent] = None
        same = held is not None and (item.seq, item.mark) == (held.seq, held.mark)
        if (
            held is not None
            and (item.seq, item.mark) <= (held.seq, held.mark)
            and not (same and item.terms != held.terms)
        ):
            if item.seq < held.seq:
                self._refuse(state, "manifest.replay", f"seq {item.seq} was superseded by {held.seq}")
            return
        if item.seq < state.floors.get(item.agent, 0):
            self._refuse(state, "manifest.replay", f"seq {item.seq} of an agent that went with a later one")
            return
        if held is None and len(state.held) >= self.config.entries_max:
            self._refuse(state, "federation.full", f"{self.config.entries_max} agents of this seed are held")
            return
        state.floors.pop(item.agent, None)
        state.held[item.agent] = item
        state.admitted += 1
        out.store(Keep(state.seed, item))

    def _refuse(self, state: SeedState, code: str, detail: str) -> None:
        count, _ = state.refused.get(code, (0, ""))
        if count or len(state.refused) < self.config.reasons_max:
            state.refused[code] = (count + 1, detail)

    def _let_go(self, state: SeedState, agent: str, why: str, out: Outbox) -> None:
        item = state.held.pop(agent)
        state.floors.pop(agent, None)
        while len(state.floors) >= self.config.floors_max:
            del state.floors[next(iter(state.floors))]
        state.floors[agent] = item.seq
        out.store(Drop(state.seed, agent, why))  # pyright: ignore[reportArgumentType] one of its words

    def _drop_all(self, state: SeedState, why: str, out: Outbox) -> None:
        for agent in list(state.held):
            self._let_go(state, agent, why, out)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound or rule is broken."""
        config = self.config
        assert len(self.seeds) <= config.seeds_max
        for seed, state in self.seeds.items():
            assert state.seed == seed
            assert len(state.held) <= config.entries_max
            assert len(state.floors) <= config.floors_max
            assert len(state.refused) <= config.reasons_max
            assert len(state.cursors) <= config.round_pages_max + 1
            assert not state.held.keys() & state.floors.keys()
            assert all(not item.refused and item.kind != "withdrawn" for item in state.held.values())
