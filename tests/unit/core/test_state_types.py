"""The types of shared state, one rule after the other (docs/spec/state.md §3); properties over all orders are in property/."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest

from agentmesh.core.state import types
from agentmesh.core.state.causality import Dot, Seen
from agentmesh.core.state.cell import Cell, Entry
from agentmesh.core.state.clock import pack
from agentmesh.core.state.ops import Op
from agentmesh.errors import DecodeError, LimitError, MeshError, StateError, UsageError

A, B = b"a" * 16, b"b" * 16


def do(cell: Cell | None, writer: bytes, op: str, value: Any = None, stamp: int = 1, **more: Any) -> Cell:
    return types.apply(cell, Op(op=op, value=value, **more), types.next_dot(cell, writer), stamp)[0]


def shown(cell: Cell) -> list[Any]:
    return [one.value for one in types.siblings(cell)]


def test_a_register_keeps_what_was_written_at_the_same_time_until_somebody_decides() -> None:
    start = do(None, A, "set", "start")
    both = types.merge(do(start, A, "set", "mine", 5), do(start, B, "set", "yours", 7))
    assert types.value(both) == "yours"
    assert shown(both) == ["yours", "mine"]
    later = do(both, A, "set", "later", 9)
    assert shown(later) == ["later", "mine"]  # a write replaces what it was shown, and nothing else
    assert shown(do(both, A, "resolve", "agreed", 9)) == []
    assert types.value(do(both, A, "resolve", "agreed", 9)) == "agreed"


def test_a_client_that_says_what_it_has_seen_replaces_exactly_that() -> None:
    first = do(None, A, "set", 1)
    seen = types.context(first)
    both = types.merge(first, do(None, B, "set", 2, 9))
    assert shown(do(both, A, "set", 3, 10, seen=seen)) == [3, 2]
    assert shown(do(both, A, "set", 3, 10, seen=types.context(both))) == []


def test_a_later_write_wins_over_an_earlier_one_and_over_a_clock_that_is_behind() -> None:
    first = do(None, A, "set", "old", pack(1_000_000), type="lww")
    second = do(
        first, B, "set", "new", pack(10), type="lww"
    )  # B's clock is far behind; it has seen the first all the same
    assert types.value(types.merge(first, second)) == "new"
    one, two = do(None, A, "set", 1, 5, type="lww"), do(None, B, "set", 2, 6, type="lww")
    assert types.value(types.merge(one, two)) == 2
    assert shown(types.merge(one, two)) == []
    gone = do(one, A, "delete", stamp=9)
    assert not types.exists(types.merge(gone, two))  # of an lww, a later deletion wins too
    assert types.exists(types.merge(do(one, A, "delete", stamp=5), do(None, B, "set", 2, 8, type="lww")))


def test_fields_merge_each_for_itself_and_put_wins_over_a_removal_that_did_not_see_it() -> None:
    start = do(do(None, A, "put", 1, field="x"), A, "put", 2, field="y")
    one, two = do(start, A, "remove", field="x"), do(start, B, "put", 9, field="x")
    assert types.value(types.merge(one, two)) == {"x": 9, "y": 2}
    assert types.value(one) == {"y": 2}
    both = types.merge(do(start, A, "put", 5, 5, field="y"), do(start, B, "put", 6, 6, field="y"))
    assert types.value(both) == {"x": 1, "y": 6}
    assert shown(both) == [{"y": 6}, {"y": 5}]
    assert shown(do(both, B, "resolve", 7, field="y")) == []


def test_a_counter_counts_every_increment_once() -> None:
    one, two = do(None, A, "increment", by=3), do(None, B, "increment", by=-5)
    both = types.merge(types.merge(one, two), one)
    assert types.value(both) == -2
    assert types.value(do(both, A, "increment", by=10)) == 8
    with pytest.raises(UsageError):
        do(one, A, "increment", by=(1 << 53) + 1)
    with pytest.raises(LimitError):
        do(do(None, A, "increment", by=1 << 53), A, "increment", by=1)


def test_adding_wins_over_a_removal_that_did_not_see_it() -> None:
    start = do(None, A, "add", {"b": 1, "a": [1.5, None]})
    again = do(start, B, "add", {"a": [1.5, None], "b": 1})  # the same item, however it is written
    assert types.value(again) == [{"a": [1.5, None], "b": 1}]
    gone = do(start, A, "discard", {"a": [1.5, None], "b": 1})
    assert not types.exists(gone)
    assert types.exists(types.merge(gone, again))
    assert not types.exists(types.merge(gone, start))


def test_a_deleted_key_is_remembered_until_its_lease_is_over_and_may_get_another_type() -> None:
    now_ms = 1_790_000_000_000
    for change in (
        Op(value=1),
        Op(type="lww", value=1),
        Op(op="increment"),
        Op(op="add", value=1),
        Op(op="put", field="f"),
    ):
        made, _ = types.apply(None, change, Dot(A, 1), pack(now_ms))
        gone = do(made, B, "delete", stamp=pack(now_ms))
        assert not types.exists(gone)
        assert types.value(gone) is None
        assert types.merge(gone, made) == gone
        assert not types.forgettable(gone, now_ms + types.LEASE_MS)
        assert types.forgettable(gone, now_ms + types.LEASE_MS + 2)
        assert not types.forgettable(made, now_ms * 2)
        assert types.value(do(gone, A, "add", "anew")) == ["anew"]


def test_two_types_for_one_new_key_stand_beside_each_other_until_somebody_decides() -> None:
    both = types.merge(do(None, A, "increment", by=4, stamp=1), do(None, B, "add", "x", 2))
    assert types.shown(both) == "set"
    assert shown(both) == [["x"], 4]
    with pytest.raises(StateError) as caught:
        do(both, A, "increment")
    assert caught.value.code == "state.type"
    assert types.value(do(both, A, "add", "y")) == ["x", "y"]
    assert len(shown(do(both, A, "add", "y"))) == 2
    assert shown(do(both, A, "delete")) == []
    register = types.merge(do(None, A, "increment", by=4, stamp=1), do(None, B, "set", "x", 2))
    assert shown(do(register, A, "resolve", "x")) == []


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (Op(op="fly"), "state.op"),
        (Op(type="tree"), "state.op"),
        (Op(op="put", value=1), "state.op"),
        (Op(op="set", value=1, field="f"), "state.op"),
        (Op(op="add", type="counter", value=1), "state.type"),
        (Op(op="put", field="\ud800", value=1), "state.value"),
        (Op(value="\ud800"), "state.value"),
        (Op(value=object()), "state.value"),
        (Op(value="x" * 65_535), "state.too_large"),
        (Op(op="put", field="f" * 1025), "state.too_large"),
        (Op(op="cut", type="text", count=-1), "state.value"),
        (Op(op="insert", type="text", value="x", at=-2), "state.value"),
    ],
)
def test_an_operation_that_makes_no_sense_is_refused(change: Op, code: str) -> None:
    with pytest.raises(MeshError) as caught:
        types.apply(None, change, Dot(A, 1), 1)
    assert caught.value.code == code


def test_a_number_is_used_once() -> None:
    cell = do(None, A, "set", 1)
    with pytest.raises(UsageError) as caught:
        types.apply(cell, Op(value=2), Dot(A, 1), 1)
    assert caught.value.code == "state.dot"
    assert types.next_dot(cell, A, after=7) == Dot(A, 8)


def test_a_key_has_bounds_and_room_is_left_for_what_others_write() -> None:
    cell: Cell | None = None
    for number in range(13):
        cell = do(cell, A, "put", "x" * 60_000, field=f"f{number}")
    with pytest.raises(LimitError) as caught:
        do(cell, A, "put", "x" * 60_000, field="one more")
    assert caught.value.code == "state.cell_full"
    assert cell is not None
    assert types.value(do(cell, A, "remove", field="f0"))  # what makes it smaller is done
    other = None
    for number in range(10):
        other = do(other, B, "put", "x" * 60_000, field=f"g{number}")
    assert other is not None
    with pytest.raises(LimitError, match="would take"):
        types.merge(cell, other)
    full = None
    for number in range(1000):
        full = do(full, A, "put", number, field=f"{number}")
    with pytest.raises(LimitError, match="1000 fields"):
        do(full, A, "put", 1, field="one more")
    assert types.value(do(full, A, "put", "new", field="7"))["7"] == "new"


def test_history_says_what_became_of_each_write() -> None:
    old = types.apply(None, Op(value="old"), Dot(A, 1), 1)
    new_change = Op(value="new")
    new, delta = types.apply(old[0], new_change, Dot(A, 2), 2)
    first = types.past_of(None, Op(value="old"), old[1], Dot(A, 1))
    second = types.past_of(old[0], new_change, delta, Dot(A, 2))
    assert (types.fate(new, first), types.fate(new, second)) == ("superseded", "stands")
    both = types.merge(new, do(None, B, "set", "other", 9))
    assert types.fate(both, second) == "stands"  # a sibling stands
    gone = do(new, A, "delete", stamp=5)
    assert types.fate(gone, second) == "superseded"
    assert types.fate(None, second) == "superseded"
    one, two = (
        types.apply(None, Op(value=1, type="lww"), Dot(A, 1), 1),
        types.apply(None, Op(value=2, type="lww"), Dot(B, 1), 2),
    )
    lost = types.past_of(None, Op(value=1, type="lww"), one[1], Dot(A, 1))
    assert types.fate(types.merge(one[0], two[0]), lost) == "superseded"
    count = types.apply(None, Op(op="increment", by=2), Dot(A, 1), 1)
    line = types.past_of(None, Op(op="increment", by=2), count[1], Dot(A, 1))
    assert types.fate(do(count[0], A, "increment"), line) == "merged"
    assert types.fate(do(count[0], B, "delete"), line) == "superseded"
    kept = do(None, A, "add", "x")
    discard = types.past_of(kept, Op(op="discard", value="x"), kept, Dot(A, 2))
    assert types.fate(do(kept, A, "discard", "x"), discard) == "stands"
    assert types.fate(kept, discard) == "superseded"
    assert [(past.op, past.value) for past in types.pasts(both)] == [("set", b'"other"'), ("set", b'"new"')]


def wire(**more: Any) -> bytes:
    good: dict[str, Any] = {
        "format": 1,
        "stamp": 9,
        "writers": [A, B],
        "seen": [[0, 3], [0, 1, 4, 5]],
        "parts": [["register", [[b"", [[0, 2, 5, b"1"], [1, 5, 9, b"2"]]]]]],
    }
    return msgspec.msgpack.encode(list((good | more).values()))


def part(kind: str, path: bytes, *rows: tuple[int, int, int, bytes]) -> bytes:
    return wire(parts=[[kind, [[path, list(rows)]]]])


def test_the_cell_of_the_cases_below_is_a_good_one() -> None:
    assert types.value(types.decode(wire())) == 2
    assert types.value(types.decode(part("set", b'"x"', (0, 1, 1, b"")))) == ["x"]


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "state.malformed"),
        (b"\xc1", "state.malformed"),
        (wire(format=2), "state.malformed"),
        (wire(stamp=-1), "state.malformed"),
        (wire(writers=[A]), "state.version"),
        (wire(writers=[B, A]), "state.version"),
        (wire(writers=[A, A]), "state.version"),
        (wire(writers=[A, B[:15]]), "state.version"),
        (wire(seen=[[0, 3], [0]]), "state.version"),
        (wire(seen=[[0, 3], []]), "state.version"),
        (wire(seen=[[3, 0], [0, 5]]), "state.version"),
        (wire(seen=[[0, 3], [0, 5, 5, 6]]), "state.version"),
        (wire(seen=[[-1, 3], [0, 5]]), "state.version"),
        (wire(seen=[[0, 1 << 63], [0, 5]]), "state.version"),
        (wire(seen=[[0, 1], [0, 5]]), "state.version"),
        (wire(seen=[[0, 3], [0, 4]]), "state.version"),
        (wire(stamp=8), "state.version"),
        (wire(parts=[["tree", [[b"", [[0, 2, 5, b"1"]]]]]]), "state.malformed"),
        (wire(parts=[["set", []]]), "state.malformed"),
        (wire(parts=[["map", [[b"f", []]]]]), "state.malformed"),
        (wire(parts=[["map", [[b"f", [[0, 2, 5, b"1"]]], [b"f", [[0, 3, 5, b"1"]]]]]]), "state.malformed"),
        (wire(parts=[["map", [[b"f", [[0, 2, 5, b"1"]]], [b"g", [[0, 2, 5, b"1"]]]]]]), "state.version"),
        (part("register", b"", (2, 1, 1, b"1")), "state.version"),
        (part("register", b"", (0, 0, 1, b"1")), "state.version"),
        (part("register", b"", (0, 1, -1, b"1")), "state.version"),
        (part("register", b"x", (0, 1, 1, b"1")), "state.malformed"),
        (part("register", b"", (0, 1, 1, b"")), "state.malformed"),
        (part("register", b"", (0, 1, 1, b"{")), "state.malformed"),
        (part("register", b"", (0, 1, 1, b"[" * 5000)), "state.malformed"),
        (part("map", b"", (0, 1, 1, b"1")), "state.malformed"),
        (part("map", b"\xff", (0, 1, 1, b"1")), "state.malformed"),
        (part("set", b'{"b":1,"a":2}', (0, 1, 1, b"")), "state.malformed"),
        (part("set", b' "x"', (0, 1, 1, b"")), "state.malformed"),
        (part("set", b'"x"', (0, 1, 1, b"1")), "state.malformed"),
        (part("counter", b"", (0, 1, 1, b"007")), "state.malformed"),
        (part("counter", b"", (0, 1, 1, b"1_0")), "state.malformed"),
        (part("counter", b"", (0, 1, 1, b"%d" % (1 << 60))), "state.malformed"),
        (part("text", b"", (0, 1, 1, b"?")), "state.malformed"),
        (part("text", b"", (0, 1, 1, b"")), "state.malformed"),
    ],
)
def test_a_key_that_no_honest_node_sends_is_refused(raw: bytes, code: str) -> None:
    with pytest.raises(DecodeError) as caught:
        types.decode(raw)
    assert caught.value.code == code


def test_a_key_over_a_bound_is_refused_before_it_is_read() -> None:
    for raw in (
        bytes(1024 * 1024 + 1),
        wire(writers=[n.to_bytes(16, "big") for n in range(1025)], seen=[[0, 1]] * 1025, parts=[]),
        wire(seen=[[0, 3], list(range(40_000))]),
        wire(seen=[[0, 40_000], [0, 1]], parts=[["lww", [[b"", [[0, n, 1, b""] for n in range(1, 32_770)]]]]]),
    ):
        with pytest.raises(LimitError) as caught:
            types.decode(raw)
        assert caught.value.code in ("state.cell_full", "state.writers")


def test_documents_need_their_package_only_where_they_are_read_or_edited() -> None:
    pytest.importorskip("loro")
    text = do(None, A, "insert", "hello")
    script = f"""
import sys
sys.modules["loro"] = None  # as if it were not installed
from agentmesh.core.state import types
from agentmesh.core.state.causality import Dot, Seen
from agentmesh.core.state.ops import Op
from agentmesh.errors import StateError
cell = types.decode(bytes.fromhex("{types.encode(text).hex()}"))
assert types.merge(cell, cell) is cell and types.exists(cell) and types.shown(cell) == "text"
for call in (lambda: types.value(cell), lambda: types.apply(cell, Op(op="insert", value="x"), Dot(b"b" * 16, 1), 1)):
    try:
        call()
    except StateError as error:
        assert error.code == "state.no_docs" and "agentmeshd[docs]" in error.hint
    else:
        raise AssertionError
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_types_load_no_documents_until_there_is_one() -> None:
    script = "import sys; from agentmesh.core.state import types; sys.exit('loro' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_a_key_spoiled_by_claims_about_writes_that_were_never_made_is_said_to_be_so() -> None:
    mine = do(None, A, "set", "mine")
    spoiled = types.merge(
        mine, Cell(Seen({A: (0, 1 << 40), B: (0, 1)}), {"register": {b"": {Dot(B, 1): Entry(2, b'"evil"')}}}, 2)
    )
    assert types.value(spoiled) == "evil"
    with pytest.raises(UsageError) as caught:
        types.apply(spoiled, Op(value="again"), Dot(A, 2), 3)
    assert caught.value.code == "state.dot"
    assert "another key" in (caught.value.hint or "")
    assert [past.writer for past in types.pasts(spoiled)] == [B]
