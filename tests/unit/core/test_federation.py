"""The federation machine: rounds, budgets, backoff, what of a page is kept; against a dumb model, and in simulated time."""

from __future__ import annotations

import heapq
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.core.federation.config import FederationConfig
from agentmesh.core.federation.machine import Federation
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
from agentmesh.errors import MeshError
from agentmesh.node.federation.feed import Feed

URL = "https://seed.example:7443"
LATER = 2_000_000_000


def card(agent: str, seq: int, mark: int = 0, **more: Any) -> Item:
    return Item("card", agent, seq, mark, more.pop("exp", LATER), **more)


class Bench:
    """A machine with one seed, a clock that stands still, and a diary."""

    def __init__(self, added: SeedAdded | None = None, **knobs: Any) -> None:
        self.machine = Federation(FederationConfig(**knobs), random.Random(7))
        self.now_s = 0.0
        self.wanted: list[PullWanted] = []
        self.kept: list[Any] = []
        self.timers: list[tuple[float, Timer]] = []
        self.give(added or SeedAdded(URL))

    @property
    def state(self) -> Any:
        return self.machine.seeds[URL]

    @property
    def held(self) -> dict[str, int]:
        return {agent: item.seq for agent, item in self.state.held.items()}

    def give(self, incoming: object) -> None:
        out = Outbox()
        self.machine.handle(incoming, self.now_s, out)
        self.machine.assert_invariants()
        self.wanted += out.events
        self.kept += out.records
        self.timers += [(self.now_s + delay_s, timer) for delay_s, timer in out.timers]

    def until_asked(self) -> PullWanted:
        """Let time pass until a page is wanted, and return the wish."""
        before = len(self.wanted)
        for _ in range(1_000):
            if len(self.wanted) > before:
                return self.wanted[-1]
            self.timers.sort(key=lambda one: one[0])
            at_s, timer = self.timers.pop(0)
            self.now_s = max(self.now_s, at_s)
            self.give(timer)
        raise AssertionError("nothing is asked any more")

    def page(self, *items: Item, cursor: str = "c", more: bool = False, size: int = 100, unix_s: int = 1) -> None:
        """Answer the last wish."""
        wish = self.wanted[-1]
        self.give(PageCame(URL, wish.token, items, cursor, more, size, unix_s))


def test_a_round_goes_from_page_to_page_and_the_next_one_goes_on_where_it_ended() -> None:
    bench = Bench()
    assert bench.until_asked().cursor == ""
    bench.page(card("a", 1), card("b", 1), cursor="1", more=True)
    assert bench.wanted[-1].cursor == "1"
    bench.page(card("c", 1), cursor="2")
    assert bench.held == {"a": 1, "b": 1, "c": 1}
    assert bench.until_asked().cursor == "2"
    assert bench.now_s >= 24  # 30 s, give or take a fifth


def test_a_pull_from_the_beginning_drops_what_the_seed_did_not_name_and_a_later_one_does_not() -> None:
    old = tuple(card(agent, 1) for agent in ("a", "b"))
    bench = Bench(SeedAdded(URL, "", old))
    bench.until_asked()
    bench.page(card("a", 1), cursor="1")
    assert bench.held == {"a": 1}
    assert Drop(URL, "b", "gone") in bench.kept
    bench.until_asked()
    bench.page(cursor="2")
    assert bench.held == {"a": 1}


def test_a_first_pull_that_broke_off_begins_anew_after_a_restart() -> None:
    bench = Bench()
    bench.until_asked()
    bench.page(card("a", 1), cursor="1", more=True)
    assert [one.cursor for one in bench.kept if isinstance(one, KeepCursor)] == [""]
    bench.page(card("b", 1), cursor="2")
    assert [one.cursor for one in bench.kept if isinstance(one, KeepCursor)] == ["", "2"]


def test_the_higher_seq_of_the_owner_wins_whatever_comes_when() -> None:
    bench = Bench()
    bench.until_asked()
    bench.page(card("a", 5, 9), card("a", 4), card("a", 5, 8), card("a", 5, 9))
    assert bench.held == {"a": 5}
    assert bench.state.refused["manifest.replay"][0] == 1
    bench.until_asked()
    bench.page(card("a", 6))
    assert bench.held == {"a": 6}


def test_the_same_record_on_other_terms_takes_the_place_of_the_one_that_is_held() -> None:
    bench = Bench()
    bench.until_asked()
    bench.page(card("a", 5, 1, terms=1))
    for terms in (0, 1):
        bench.until_asked()
        bench.page(card("a", 5, 1, terms=terms))
        assert bench.state.held["a"].terms == terms
    bench.until_asked()
    bench.page(card("a", 5, 0, terms=0), card("a", 4, 1, terms=0))
    assert bench.state.held["a"].terms == 1


def test_what_went_does_not_come_back_with_an_older_record_but_with_the_same_or_a_newer_one() -> None:
    bench = Bench()
    bench.until_asked()
    bench.page(card("a", 5), card("b", 5))
    bench.until_asked()
    bench.page(Item("withdrawn", "a"), Item("tombstone", "b", 6, 0, LATER), Item("withdrawn", "never-told"))
    assert {agent: item.kind for agent, item in bench.state.held.items()} == {"b": "tombstone"}
    bench.until_asked()
    bench.page(card("a", 4), card("b", 5), Item("withdrawn", "b"))
    assert bench.held == {"b": 6}  # who tells of an agent cannot take its owner's word back
    bench.until_asked()
    bench.page(card("a", 5), card("b", 7))
    assert bench.held == {"a": 5, "b": 7}


def test_entries_that_are_refused_are_counted_with_their_reason_and_nothing_else() -> None:
    bench = Bench(reasons_max=2)
    bench.until_asked()
    bench.page(*(card("x", 1, refused=code, detail="why") for code in ("one", "one", "two", "three")))
    assert bench.held == {}
    assert bench.state.refused == {"one": (2, "why"), "two": (1, "why")}


def test_a_seed_whose_cursor_leads_in_a_circle_is_left_alone_and_hints_do_not_change_that() -> None:
    bench = Bench()
    bench.until_asked()
    bench.page(card("a", 1), cursor="1", more=True)
    bench.page(cursor="2", more=True)
    asked = len(bench.wanted)
    bench.page(cursor="1", more=True)
    assert bench.state.error == "federation.loop"
    for _ in range(100):
        bench.give(Hinted(URL))
    assert len(bench.wanted) == asked
    began_s = bench.now_s
    assert bench.until_asked().cursor == ""
    assert bench.now_s - began_s >= 150


@pytest.mark.parametrize("knob", ["round_pages_max", "round_entries_max", "round_bytes_max"])
def test_a_seed_that_never_ends_is_given_up_within_its_budget(knob: str) -> None:
    bench = Bench(**{knob: {"round_pages_max": 50, "round_entries_max": 500, "round_bytes_max": 500_000}[knob]})
    bench.until_asked()
    for n in range(1_000):
        bench.page(*(card(f"{n}-{i}", 1) for i in range(20)), cursor=str(n), more=True, size=20_000)
        if bench.state.error:
            break
    assert bench.state.error == "federation.flood"
    assert len(bench.state.held) <= 1_000


def test_no_seed_fills_more_than_its_share() -> None:
    bench = Bench(entries_max=10)
    bench.until_asked()
    bench.page(*(card(str(i), 1) for i in range(30)))
    assert len(bench.held) == 10
    assert bench.state.refused["federation.full"][0] == 20
    bench.until_asked()
    bench.page(card("0", 2), Item("withdrawn", "1"), card("new", 1))
    assert bench.held["0"] == 2
    assert "new" in bench.held


def test_failures_are_waited_for_longer_and_longer_at_random_and_a_hint_ends_the_wait() -> None:
    bench = Bench()
    waits: list[float] = []
    for _ in range(40):
        wish = bench.until_asked()
        bench.give(PullFailed(URL, wish.token, "unreached"))
        waits.append(bench.state.due_s - bench.now_s)
    assert max(waits[:3]) <= 4
    assert 30 < max(waits[8:]) <= 300
    assert len({round(wait, 3) for wait in waits}) == len(waits)
    bench.give(Hinted(URL))
    assert bench.state.due_s - bench.now_s <= 0.2
    bench.until_asked()
    bench.page(card("a", 1))
    assert (bench.state.failures, bench.state.error) == (0, "")


def test_a_seed_that_asks_for_patience_gets_it() -> None:
    bench = Bench()
    wish = bench.until_asked()
    bench.give(PullFailed(URL, wish.token, "refused.busy", retry_after_s=77.0))
    assert 77 <= bench.state.due_s - bench.now_s <= 300
    wish = bench.until_asked()
    bench.give(PullFailed(URL, wish.token, "refused.busy", retry_after_s=1e9))
    assert bench.state.due_s - bench.now_s <= 300


def test_a_pull_that_is_never_answered_ends_and_its_late_answer_counts_for_nothing() -> None:
    bench = Bench()
    wish = bench.until_asked()
    again = bench.until_asked()
    assert again.token != wish.token
    assert bench.now_s >= 60
    bench.give(PageCame(URL, wish.token, (card("late", 1),), "c", False, 1, 1))
    assert bench.held == {}


def test_a_hint_during_a_pull_leads_to_another_one_at_once_and_no_hint_to_more_than_five_a_second() -> None:
    bench = Bench()
    bench.until_asked()
    bench.give(Hinted(URL))
    assert len(bench.wanted) == 1
    bench.page(card("a", 1))
    began_s = bench.now_s
    bench.until_asked()
    assert bench.now_s - began_s <= 0.2
    bench.page()
    for _ in range(50):
        bench.give(Hinted(URL))
    assert bench.state.due_s - bench.now_s == pytest.approx(0.2)


def test_an_unknown_cursor_begins_anew_and_a_refusal_drops_all() -> None:
    bench = Bench(SeedAdded(URL, "old", (card("a", 1),)))
    wish = bench.until_asked()
    assert wish.cursor == "old"
    bench.give(PullFailed(URL, wish.token, "federation.cursor_unknown", restart=True))
    assert bench.held == {"a": 1}
    wish = bench.until_asked()
    assert wish.cursor == ""
    bench.give(PullFailed(URL, wish.token, "refused.organisation", drop=True))
    assert bench.held == {}
    assert Drop(URL, "a", "refused") in bench.kept


def test_a_push_is_taken_like_a_page_and_a_seed_that_goes_takes_its_entries_along() -> None:
    bench = Bench()
    bench.give(Pushed(URL, (card("a", 2), card("b", 1, refused="manifest.expired"))))
    assert bench.held == {"a": 2}
    bench.give(SeedRemoved(URL))
    assert bench.machine.seeds == {}
    assert Drop(URL, "a", "removed") in bench.kept


def test_what_has_ended_is_dropped_at_the_end_of_a_round() -> None:
    bench = Bench()
    bench.until_asked()
    bench.page(card("a", 1, exp=100), card("b", 1, exp=200), unix_s=150)
    assert bench.held == {"b": 1}


_items = st.lists(
    st.tuples(
        st.sampled_from(["card", "card", "card", "tombstone", "withdrawn", "bad"]),
        st.sampled_from("abcd"),
        st.integers(1, 6),
        st.integers(0, 2),
    ),
    max_size=12,
)


@given(rounds=st.lists(st.tuples(_items, st.booleans()), max_size=12))
def test_the_machine_holds_what_a_dumb_model_holds(rounds: list[tuple[list[Any], bool]]) -> None:
    bench = Bench()
    visible: dict[str, tuple[str, int, int]] = {}
    floors: dict[str, int] = {}
    for number, (given_items, restart) in enumerate(rounds):
        wish = bench.until_asked()
        items = tuple(
            Item(kind, agent, seq, mark, LATER) if kind != "bad" else card(agent, seq, mark, refused="x")
            for kind, agent, seq, mark in given_items
        )
        named: set[str] = set()
        for kind, agent, seq, mark in given_items:
            held = visible.get(agent)
            if kind == "bad":
                continue
            if kind == "withdrawn":
                if held is not None and held[0] == "card":
                    floors[agent] = visible.pop(agent)[1]
                continue
            named.add(agent)
            if (held is None and seq >= floors.get(agent, 0)) or (held is not None and (seq, mark) > held[1:]):
                visible[agent] = (kind, seq, mark)
                floors.pop(agent, None)
        bench.page(*items, cursor=str(number))
        if not wish.cursor:
            for agent in [a for a, held in visible.items() if a not in named and held[0] == "card"]:
                floors[agent] = visible.pop(agent)[1]
        found = {agent: (item.kind, item.seq, item.mark) for agent, item in bench.state.held.items()}
        assert found == visible
        kept = {one.item.agent for one in bench.kept if isinstance(one, Keep)}
        assert set(visible) <= kept
        if restart:
            wish = bench.until_asked()
            bench.give(PullFailed(URL, wish.token, "federation.cursor_unknown", restart=True))


class Story:
    """A seed that changes all the time, requests that fail, and the machine, in simulated time."""

    def __init__(self, seed: int, agents: int, failing: float, hints: bool) -> None:
        self.rng = random.Random(seed)
        self.feed = Feed("partner", b"secret of this run")
        self.truth: dict[str, int] = {}
        self.failing, self.hints = failing, hints
        self.machine = Federation(FederationConfig(page_limit=50), random.Random(seed + 1))
        self.now_s, self.order = 0.0, 0
        self.agenda: list[tuple[float, int, object]] = []
        self.told: list[float] = []
        self.open: dict[tuple[str, int], float] = {}
        for n in range(agents):
            self.change(f"a{n}", track=False)
        self.give(SeedAdded(URL))

    def later(self, delay_s: float, what: object) -> None:
        self.order += 1
        heapq.heappush(self.agenda, (self.now_s + delay_s, self.order, what))

    def change(self, agent: str, *, track: bool = True) -> None:
        seq = self.truth.get(agent, 0) + 1
        self.truth[agent] = seq
        self.feed.touch(agent, seq, 0)
        if track:
            self.open[agent, seq] = self.now_s
            if self.hints:
                self.later(0.15, Hinted(URL))

    def give(self, incoming: object) -> None:
        out = Outbox()
        self.machine.handle(incoming, self.now_s, out)
        self.machine.assert_invariants()
        for delay_s, timer in out.timers:
            self.later(delay_s, timer)
        for wish in out.events:
            self.later(self.rng.uniform(0.01, 0.1), wish)
        for record in out.records:
            if isinstance(record, Keep):
                for key in [k for k in self.open if k[0] == record.item.agent and k[1] <= record.item.seq]:
                    self.told.append(self.now_s - self.open.pop(key))

    def answer(self, wish: PullWanted) -> None:
        if self.rng.random() < self.failing:
            self.give(PullFailed(URL, wish.token, "unreached"))
            return
        try:
            rev = self.feed.read(wish.cursor)[0] if wish.cursor else 0
        except MeshError as error:
            self.give(PullFailed(URL, wish.token, error.code, restart=True))
            return
        changes = self.feed.after(rev)
        page = changes[: wish.limit]
        items = tuple(card(agent, place.seq) for agent, place in page)
        last = page[-1][1].rev if page else rev
        self.give(PageCame(URL, wish.token, items, self.feed.cursor(last), len(changes) > len(page), 1_000, 1))

    def run(self, seconds: float) -> None:
        end_s = self.now_s + seconds
        while self.agenda and self.agenda[0][0] <= end_s:
            self.now_s, _, what = heapq.heappop(self.agenda)
            if isinstance(what, PullWanted):
                self.answer(what)
            elif isinstance(what, Timer | Hinted):
                self.give(what)
            elif isinstance(what, str):
                self.change(what)
        self.now_s = end_s


@pytest.mark.parametrize("hints", [True, False])
@pytest.mark.parametrize("seed", range(5))
def test_all_changes_arrive_though_every_fifth_request_fails(seed: int, hints: bool) -> None:
    story = Story(seed, agents=400, failing=0.2, hints=hints)
    story.run(60)
    count = 1_500
    for _ in range(count):
        story.later(story.rng.uniform(0, 600), f"a{story.rng.randrange(400)}")
    story.run(600)
    assert len(story.told) + len(story.open) == count
    story.run(120)
    assert story.open == {}, "not one change is lost"
    assert {a: i.seq for a, i in story.machine.seeds[URL].held.items()} == story.truth
    lags = sorted(story.told)
    assert lags[int(0.5 * count)] < (1.5 if hints else 30)
    assert lags[int(0.999 * count) - 1] < (20 if hints else 90)
