"""Bytes of shared state from outside: read or refused, and never harmful; documents made in malice part nobody."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.core.state import docs, types
from agentmesh.core.state.causality import Dot, of_dots
from agentmesh.core.state.cell import Cell, Entry
from agentmesh.core.state.clock import pack
from agentmesh.core.state.ops import Op
from agentmesh.errors import DecodeError, LimitError, MeshError, StateError

A, B = b"a" * 16, b"b" * 16


def cells() -> list[Cell]:
    made: list[Cell] = []
    for change in (
        Op(value={"a": 1}),
        Op(type="lww", value=1),
        Op(op="put", field="f", value=2),
        Op(op="increment"),
        Op(op="add", value=3),
    ):
        cell, _ = types.apply(None, change, Dot(A, 3), 5)
        cell, _ = types.apply(cell, change, Dot(B, 9), 6)
        made += [cell, types.apply(cell, Op(op="delete"), Dot(A, 4), 7)[0]]
    return made


def read(raw: bytes) -> Cell | None:
    try:
        cell = types.decode(raw)
    except (DecodeError, LimitError) as error:
        assert error.code.startswith("state.")  # noqa: PT017
        return None
    assert types.decode(types.encode(cell)) == cell
    try:
        types.value(cell)
        types.siblings(cell)
    except MeshError as error:
        assert error.code in ("state.no_docs", "state.too_large")  # noqa: PT017
    types.pasts(cell)
    return cell


@given(st.binary(max_size=200))
def test_any_bytes_are_a_key_or_an_error(raw: bytes) -> None:
    read(raw)


def test_keys_with_bytes_turned_are_read_or_refused_and_join_in_any_order() -> None:
    chance = random.Random(7)
    good = cells()
    accepted = 0
    for _ in range(4000):
        raw = bytearray(types.encode(chance.choice(good)))
        for _ in range(chance.randint(1, 3)):
            raw[chance.randrange(len(raw))] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
        cell = read(bytes(raw[: chance.choice([len(raw), len(raw), chance.randrange(len(raw))])]))
        if cell is not None:
            accepted += 1
            other = chance.choice(good)
            assert types.merge(cell, other) == types.merge(other, cell)
    assert accepted > 100  # or nothing was tried


def document(kind: str, edits: int, writer: bytes = A) -> Cell:
    cell: Cell | None = None
    for number in range(1, edits + 1):
        cell, _ = types.apply(cell, Op(op="insert", type=kind, value=f"edit {number} "), Dot(writer, number), number)
    assert cell is not None
    return cell


@pytest.mark.parametrize("kind", ["text", "list"])
def test_updates_made_in_malice_part_no_replicas_and_hide_nothing(kind: str) -> None:
    pytest.importorskip("loro")
    chance = random.Random(11)
    honest = document(kind, 3)
    shown = types.value(honest)
    updates = [entry.value for _, _, _, entry in honest.live()]
    for _ in range(400):
        raw = bytearray(chance.choice(updates))
        for _ in range(chance.randint(1, 8)):
            raw[chance.randrange(1, len(raw))] = chance.randrange(256)
        raw = raw[: chance.choice([len(raw), chance.randrange(1, len(raw))])]
        dot = Dot(B, 1)
        evil = Cell(of_dots([dot]), {kind: {b"": {dot: Entry(chance.randint(0, 9), bytes(raw))}}}, 9)
        one, two = types.merge(honest, types.decode(types.encode(evil))), types.merge(evil, honest)
        assert types.value(one) == types.value(two) == shown  # each update carries a checksum
        after, _ = types.apply(one, Op(op="insert", type=kind, value="on"), Dot(A, 9), 99)
        assert "on" in types.value(after)


def checksum(data: bytes) -> bytes:
    """Return what loro puts before its updates: xxHash32 with the seed "LORO"."""
    one, two, three, four, five, mask = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D, 0x27D4EB2F, 0x165667B1, 0xFFFFFFFF
    seed = int.from_bytes(b"LORO", "little")

    def turn(value: int, bits: int) -> int:
        return (value << bits | value >> 32 - bits) & mask

    at, total = 0, (seed + five) & mask
    if len(data) >= 16:
        lanes = [(seed + one + two) & mask, (seed + two) & mask, seed, (seed - one) & mask]
        while at <= len(data) - 16:
            for lane in range(4):
                word = int.from_bytes(data[at : at + 4], "little")
                lanes[lane] = turn((lanes[lane] + word * two) & mask, 13) * one & mask
                at += 4
        total = sum(turn(lanes[lane], bits) for lane, bits in enumerate((1, 7, 12, 18))) & mask
    total = (total + len(data)) & mask
    while at <= len(data) - 4:
        total = turn((total + int.from_bytes(data[at : at + 4], "little") * three) & mask, 17) * four & mask
        at += 4
    for byte in data[at:]:
        total = turn((total + byte * five) & mask, 11) * one & mask
    for shift, factor in ((15, two), (13, three), (16, 1)):
        total = (total ^ total >> shift) * factor & mask
    return total.to_bytes(4, "little")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # loro, when a broken document goes
@pytest.mark.parametrize("kind", ["text", "list"])
def test_updates_with_a_right_checksum_and_wrong_contents_part_no_replicas_either(kind: str) -> None:
    pytest.importorskip("loro")
    chance = random.Random(13)
    honest = document(kind, 3)
    updates = [entry.value for _, _, _, entry in honest.live()]
    updates.append(types.apply(honest, Op(op="delete"), Dot(A, 8), 8)[1].parts[kind][b""][Dot(A, 8)].value)
    assert all(update[17:21] == checksum(update[21:]) for update in updates)  # or nothing below gets past it
    taken = 0
    for number in range(400):
        cell = honest
        for writer in range(1, 3):
            raw = bytearray(chance.choice(updates))
            for _ in range(chance.randint(1, 4)):
                raw[chance.randrange(21, len(raw))] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
            raw[17:21] = checksum(bytes(raw[21:]))
            dot = Dot(bytes([writer]) * 16, 1)
            evil = Cell(of_dots([dot]), {kind: {b"": {dot: Entry(chance.randint(0, 9), bytes(raw))}}}, 9)
            one, two = types.merge(cell, evil), types.merge(evil, cell)
            assert shown(one) == shown(two)
            cell = one
        taken += shown(cell) != shown(honest)
        after, _ = types.apply(cell, Op(op="insert", type=kind, value="on"), Dot(A, 9), 99 + number)
        assert types.merge(cell, after) == after
    assert taken > 5


def shown(cell: Cell) -> object:
    try:
        return types.value(cell)
    except MeshError as error:
        return error.code


def test_many_edits_are_taken_together_and_late_ones_still_fit() -> None:
    pytest.importorskip("loro")
    start = document("text", 1)
    late, late_delta = types.apply(start, Op(op="insert", at=0, value="LATE "), Dot(B, 1), 2)
    cell = start
    for number in range(2, 200):
        cell, _ = types.apply(cell, Op(op="insert", value="x"), Dot(A, number), number + 5)
        assert len(list(cell.live())) <= docs.UPDATES_MAX + 1
    both = types.merge(cell, late_delta)
    assert types.value(both) == "LATE edit 1 " + "x" * 198
    assert both == types.merge(late, cell)


def test_a_document_that_is_broken_beyond_help_says_so_and_can_be_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("loro")

    def panic(doc: object, update: bytes) -> None:
        raise docs._Panic("as loro does on some updates")  # pyright: ignore[reportPrivateUsage]

    text = document("text", 20)
    monkeypatch.setattr(docs, "_import", panic)
    for call in (lambda: types.value(text), lambda: types.apply(text, Op(op="insert", value="x"), Dot(A, 99), 99)):
        with pytest.raises(StateError) as caught:
            call()
        assert caught.value.code == "state.document"
    gone, _ = types.apply(text, Op(op="delete"), Dot(A, 99), 99)
    assert not types.exists(gone)
    monkeypatch.undo()
    anew, _ = types.apply(gone, Op(op="insert", type="text", value="anew"), Dot(A, 100), 100)
    assert types.value(anew) == "anew"


@pytest.mark.parametrize("kind", ["text", "list"])
def test_the_history_of_a_document_goes_when_nobody_can_build_on_it_any_more(kind: str) -> None:
    pytest.importorskip("loro")
    cell: Cell | None = None
    for number in range(1, 200):
        cell, _ = types.apply(cell, Op(op="insert", type=kind, value="word ", at=0), Dot(A, number), pack(number))
        if number > 4:
            cell, _ = types.apply(
                cell, Op(op="cut", at=0, count=1 if kind == "list" else 5), Dot(B, number), pack(number)
            )
    assert cell is not None
    text, before = types.value(cell), len(types.encode(cell))
    later = pack(types.LEASE_MS + 1_000)
    one, first = types.apply(cell, Op(op="insert", value="one "), Dot(A, 500), later)
    assert len(types.encode(one)) < before / 2
    two, second = types.apply(cell, Op(op="insert", value="two "), Dot(B, 500), later + 1)  # at the same time
    both = types.merge(one, second)
    assert both == types.merge(two, first)
    shown = types.value(both)
    assert sorted(shown) == sorted([*text, *(["one ", "two "] if kind == "list" else "one two ")])
    on, _ = types.apply(both, Op(op="insert", value="on"), Dot(A, 501), later + 2)
    assert len(types.value(on)) == len(shown) + (1 if kind == "list" else 2)
    recent, _ = types.apply(cell, Op(op="insert", value="x"), Dot(A, 500), pack(1_000))
    assert len(types.encode(recent)) >= before  # too soon


@pytest.mark.parametrize("kind", ["text", "list"])
def test_an_edit_that_comes_after_the_lease_hides_nothing(kind: str) -> None:
    pytest.importorskip("loro")
    start = document(kind, 3)
    _, late = types.apply(start, Op(op="insert", value="late"), Dot(B, 1), pack(1))
    cell, _ = types.apply(start, Op(op="insert", value="on"), Dot(A, 9), pack(types.LEASE_MS + 1_000))
    cell, _ = types.apply(cell, Op(op="insert", value="off"), Dot(A, 10), pack(3 * types.LEASE_MS))
    shown = types.value(cell)
    assert types.value(types.merge(cell, late)) == types.value(types.merge(late, cell))
    assert len(types.value(types.merge(cell, late))) >= len(shown)
    garbage = Cell(of_dots([Dot(B, 1)]), {kind: {b"": {Dot(B, 1): Entry(1, b"ugarbage")}}}, 1)
    anew, _ = types.apply(garbage, Op(op="insert", type=kind, value="anew"), Dot(A, 1), pack(2 * types.LEASE_MS))
    assert "anew" in types.value(anew)


def test_an_edit_made_while_another_deleted_the_text_is_what_is_left_of_it() -> None:
    pytest.importorskip("loro")
    start = document("text", 2)
    gone, _ = types.apply(start, Op(op="delete"), Dot(A, 9), 50)
    edited, delta = types.apply(start, Op(op="insert", value="mine"), Dot(B, 1), 40)
    assert not types.exists(gone)
    assert types.value(types.merge(gone, delta)) == types.value(types.merge(edited, gone)) == "mine"


def test_places_outside_a_document_and_values_that_do_not_fit_are_refused() -> None:
    pytest.importorskip("loro")
    text = document("text", 1)
    for change, code in (
        (Op(op="insert", at=999, value="x"), "state.value"),
        (Op(op="insert", value=3, type="text"), "state.value"),
        (Op(op="cut", at=999), "state.value"),
        (Op(op="cut"), "state.value"),
    ):
        with pytest.raises(MeshError) as caught:
            types.apply(text, change, Dot(A, 9), 9)
        assert caught.value.code == code
    cut, _ = types.apply(text, Op(op="cut", at=0, count=5), Dot(A, 9), 9)
    assert types.value(cut) == "1 "
    umlauts, _ = types.apply(None, Op(op="insert", value="äöü😀x"), Dot(A, 1), 1)
    cut, _ = types.apply(umlauts, Op(op="cut", at=3, count=1), Dot(A, 2), 2)
    assert types.value(cut) == "äöüx"  # places count characters, not bytes
    rows, _ = types.apply(None, Op(op="insert", type="list", value={"deep": [1, 2.5, None, 2**53]}), Dot(A, 1), 1)
    assert types.value(rows) == [{"deep": [1, 2.5, None, 2**53]}]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.text(max_size=5), st.integers(0, 9)), max_size=8))
def test_a_text_edited_by_one_is_what_a_string_would_be(edits: list[tuple[int, str, int]]) -> None:
    pytest.importorskip("loro")
    model, cell = "", None
    for number, (place, piece, count) in enumerate(edits, 1):
        at = min(place, len(model))
        if count and model:
            change, after = Op(op="cut", at=at, count=count), model[:at] + model[at + count :]
        else:
            change, after = Op(op="insert", type="text", at=at, value=piece), model[:at] + piece + model[at:]
        cell, _ = types.apply(cell, change, Dot(A, number), number)
        model = after
        assert types.value(cell) == model
