"""The judges of histories: right about known good and bad ones, the same as brute force, and not blind to broken stores."""

from __future__ import annotations

from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.core.state import types
from agentmesh.core.state.causality import Dot, of_dots
from agentmesh.core.state.cell import Cell, Entry
from agentmesh.errors import LimitError
from agentmesh.sim.__main__ import main
from agentmesh.sim.histories import critical, linear, locking, replicas, suite
from agentmesh.sim.histories.linear import Call
from agentmesh.sim.histories.sessions import Act, check_causal, check_end, check_regular


def put(start: float, end: float, value: object, answer: linear.Answer = "ok", **more: object) -> Call:
    return Call("w", "put", "k", start, end, answer, value, **more)  # type: ignore[arg-type]


def get(start: float, end: float, value: object, revision: int = 0) -> Call:
    return Call("r", "get", "k", start, end, "ok", value, revision)


GOOD: dict[str, list[Call]] = {
    "nothing": [],
    "porcupine register 1": [put(0, 10, 100), get(2.5, 7.5, 100), get(3, 8, None)],
    "a read may overlap a write and see either": [put(0, 1, 1), put(2, 6, 2), get(3, 4, 1), get(3, 5, 2)],
    "touching calls may stand in either order": [put(0, 1, 1), put(2, 3, 2), get(3, 4, 1)],
    "unknown, never done": [put(0, 1, 1), put(2, 3, 2, "unknown"), get(4, 5, 1), get(9, 10, 1)],
    "unknown, done late": [put(0, 1, 1), put(2, 3, 2, "unknown"), get(4, 5, 1), get(9, 10, 2)],
    "unknown, seen while it runs": [put(0, 9, 1, "unknown"), get(1, 2, 1)],
    "compare and set": [
        put(0, 1, "a", revision=3, expect=0),
        put(2, 3, "b", "conflict", expect=0),
        put(4, 5, "c", revision=4, expect=3),
        get(6, 7, "c", 4),
    ],
    "one of two wins": [
        put(0, 5, "a", revision=1, expect=0),
        put(0, 5, "b", "conflict", expect=0),
        get(6, 7, "a", 1),
    ],
    "gone and made anew": [
        put(0, 1, "a", revision=1),
        Call("w", "delete", "k", 2, 3, "ok", expect=1),
        get(4, 5, None),
        Call("w", "delete", "k", 6, 7, "ok", found=False),
        put(8, 9, "b", revision=9, expect=0),
    ],
    "the revision of an unknown write is learnt from a read": [
        put(0, 1, "a", "unknown"),
        get(2, 3, "a", 5),
        put(4, 5, "b", revision=6, expect=5),
    ],
    "keys are apart": [put(0, 1, 1), Call("r", "get", "other", 2, 3, "ok", None)],
}
BAD: dict[str, list[Call]] = {
    "porcupine register 2": [put(0, 10, 200), get(1, 3, 200), get(4, 7, None)],
    "a stale read": [put(0, 1, 1), put(2, 3, 2), get(4, 5, 1)],
    "a read from nowhere": [put(0, 1, 1), get(2, 3, 7)],
    "readers that disagree about the order": [
        put(0, 9, 1),
        put(0, 9, 2),
        get(1, 2, 1),
        get(3, 4, 2),
        get(5, 6, 1),
    ],
    "a write that is gone": [put(0, 1, 1), get(2, 3, None)],
    "two winners of one revision": [
        put(0, 1, "a", revision=1, expect=0),
        put(2, 6, "b", revision=2, expect=1),
        put(2, 6, "c", revision=3, expect=1),
    ],
    "a false success": [put(0, 1, "a", revision=1), put(2, 3, "b", revision=2, expect=0)],
    "a conflict with nothing": [put(0, 1, "a", revision=1), put(2, 3, "b", "conflict", expect=1)],
    "an unknown write that comes, goes and comes": [
        put(0, 1, 1),
        put(2, 3, 2, "unknown"),
        get(4, 5, 2),
        get(6, 7, 1),
    ],
    "an unknown write that was there before it was sent": [get(0, 1, 2), put(2, 3, 2, "unknown")],
    "another revision for the same value": [put(0, 1, "a", revision=1), get(2, 3, "a", 2)],
    "revisions that fall": [put(0, 1, "a", revision=5), put(2, 3, "b", revision=4)],
    "deleted, and there": [put(0, 1, "a"), Call("w", "delete", "k", 2, 3, "ok"), get(4, 5, "a")],
    "deleted, and it was not there": [Call("w", "delete", "k", 2, 3, "ok", found=True)],
}


@pytest.mark.parametrize("name", GOOD)
def test_a_history_of_one_copy_passes(name: str) -> None:
    assert linear.check(GOOD[name]) == []


@pytest.mark.parametrize("name", BAD)
def test_a_history_of_no_single_copy_is_caught(name: str) -> None:
    (violation,) = linear.check(BAD[name])
    assert violation.key == "k"
    assert violation.call in BAD[name]
    assert str(violation).startswith("key k: ")


def brute(calls: list[Call]) -> bool:
    """Say whether any order of any of the unknown writes and all the others explains every answer."""
    sure = [call for call in calls if call.answer != "unknown"]
    unknown = [call for call in calls if call.answer == "unknown"]
    for mask in range(1 << len(unknown)):
        chosen = sure + [call for at, call in enumerate(unknown) if mask >> at & 1]
        for order in permutations(chosen):
            if _explains(order):
                return True
    return False


def _explains(order: tuple[Call, ...]) -> bool:
    held: object = None
    for at, call in enumerate(order):
        if any(later.answer != "unknown" and later.end_s < call.start_s for later in order[at + 1 :]):
            return False
        if call.verb == "put":
            held = call.value
        elif call.value != held:
            return False
    return True


small = st.integers(0, 6)
calls = st.lists(
    st.tuples(st.sampled_from(["get", "put", "put?"]), small, st.integers(1, 4), st.integers(0, 2)), max_size=5
)


@settings(max_examples=300, deadline=None)
@given(calls)
def test_the_judge_says_what_trying_every_order_says(rows: list[tuple[str, int, int, int]]) -> None:
    history = [
        get(start, start + length, value or None)
        if verb == "get"
        else put(start, start + length, value, "unknown" if verb == "put?" else "ok")
        for verb, start, length, value in rows
    ]
    assert (linear.check(history) == []) == brute(history)


@pytest.mark.parametrize("flaw", critical.FLAWS)
def test_a_store_broken_on_purpose_is_caught(flaw: critical.Flaw) -> None:
    assert sum(bool(linear.check(critical.record(seed, flaw))) for seed in range(30)) >= 10


def test_a_right_store_is_never_accused() -> None:
    histories = [critical.record(seed) for seed in range(200)]
    assert [linear.check(history) for history in histories] == [[]] * 200
    answers = {call.answer for history in histories for call in history}
    assert answers == {"ok", "conflict", "unknown"}  # or the judge was not asked much


def test_what_cannot_be_judged_is_said_and_not_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "WORLDS_MAX", 100)
    history = [put(0, 1, at, "unknown") for at in range(12)]
    with pytest.raises(LimitError) as caught:
        linear.check([*history, get(2, 3, "x")])
    assert caught.value.code == "history.undecided"


def test_a_thousand_histories_break_no_rule(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["histories", "--count", "1000", "--seed", "1"]) == 0
    printed = capsys.readouterr().out
    assert "1000 histories" in printed
    assert "no violation" in printed
    assert all(kind in printed for kind in suite.KINDS)


@pytest.mark.parametrize(("kind", "flaw"), [(kind, flaw) for kind in suite.KINDS for flaw in suite.KINDS[kind].flaws])
def test_whatever_is_broken_on_purpose_is_caught_and_can_be_played_again(kind: str, flaw: str) -> None:
    summary = suite.run(30, kinds=(kind,), flaw=flaw)
    assert summary.broken >= 8
    _, seed, what = summary.wrong[0]
    again = suite.run(1, seed, (kind,), flaw)
    assert again.wrong[0] == (kind, seed, what)


def test_sessions_were_refused_waited_and_met_partitions() -> None:
    plays = [replicas.record(seed) for seed in range(20)]
    assert sum(play.refused for play in plays) > 0  # a token that was not met in time
    assert all(len(play.acts) > 30 for play in plays)
    siblings = sum(len(types.siblings(cell)) > 1 for play in plays for cell in play.ends[0].values())
    assert siblings > 5  # writes did happen at the same time


def test_locks_changed_hands_and_old_holders_were_turned_away() -> None:
    plays = [locking.record(seed) for seed in range(1, 40, 2)]
    assert all(len({hold.token for hold in play.holds}) > 2 for play in plays)
    beliefs = [(one, two) for play in plays for one in play.holds for two in play.holds if one.token < two.token]
    assert any(one.to_s > two.from_s for one, two in beliefs)  # two did believe it, and only the fence kept them apart


def act(
    session: str, start: float, dot: Dot | None = None, cell: Cell | None = None, key: str = "k", level: str = "causal"
) -> Act:
    return Act(session, key, start, start + 1, level, dot, cell=cell)


A, B = Dot(b"a" * 16, 1), Dot(b"b" * 16, 1)


def cell(*dots: Dot) -> Cell:
    live = {dot: Entry(1, b"1") for dot in dots}
    return Cell(of_dots(dots), {"register": {b"": live}}, 1)


@pytest.mark.parametrize(
    ("rule", "acts"),
    [
        ("read your writes", [act("one", 0, A), act("one", 2)]),
        ("monotonic reads", [act("one", 0, A), act("two", 2, cell=cell(A)), act("two", 4)]),
        (
            "monotonic writes",
            [act("one", 0, A, key="j"), act("one", 2, B), act("two", 4, cell=cell(B)), act("two", 6, key="j")],
        ),
        (
            "writes follow reads",
            [
                act("one", 0, A, key="j"),
                act("two", 2, cell=cell(A), key="j"),
                act("two", 4, B),
                act("six", 6, cell=cell(B)),
                act("six", 8, key="j"),
            ],
        ),
    ],
)
def test_each_guarantee_of_a_session_has_its_name(rule: str, acts: list[Act]) -> None:
    assert [breach.rule for breach in check_causal(acts)] == [rule]
    last = acts[-1]
    assert check_causal([*acts[:-1], last._replace(level="local")]) == []  # LOCAL promises none of it
    assert check_causal([*acts[:-1], last._replace(cell=cell(A, B))]) == []


def test_a_quorum_read_must_show_what_was_answered_before_it_began() -> None:
    write = act("one", 0, A, level="quorum")
    assert [breach.rule for breach in check_regular([write, act("two", 2, level="quorum")])] == ["regular"]
    assert check_regular([write, act("two", 0.5, level="quorum")]) == []  # it overlaps: old and new are both right
    assert check_regular([write._replace(end_s=float("inf")), act("two", 9, level="quorum")]) == []  # never answered
    assert [breach.rule for breach in check_regular([act("two", 2, cell=cell(B))])] == ["out of thin air"]


def test_the_end_is_judged_replica_by_replica_and_write_by_write() -> None:
    write = act("one", 0, A)
    assert check_end([write], [{"k": cell(A)}, {"k": cell(A)}]) == []
    assert [one.rule for one in check_end([write], [{"k": cell(A)}, {}])] == ["converged"]
    assert [one.rule for one in check_end([write], [{}, {}])] == ["kept"]
    assert check_end([write._replace(end_s=float("inf"))], [{}]) == []
    replaced = act("one", 2, B)._replace(covered=(A,))
    assert [one.rule for one in check_end([write, replaced], [{"k": cell(A, B)}])] == ["value"]
