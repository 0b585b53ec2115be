"""Messages on disk: batches are whole, ids are remembered, what is too old goes (docs/spec/mail.md §4–6)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.store import mail
from agentmesh.store.mail import (
    DELIVERED,
    EXPIRED,
    KEEP_MS,
    Batch,
    CarriedRow,
    DeadRow,
    Ended,
    InRow,
    MailStore,
    OutRow,
)

AGENT = b"a" * 32


@pytest.fixture
def store(tmp_path: Path) -> Iterator[MailStore]:
    opened = MailStore.open(tmp_path / "mail.sqlite")
    yield opened
    opened.close()


def out(tag: int) -> OutRow:
    return OutRow(tag, tag.to_bytes(16, "big"), "bob", AGENT, b"body", 0, "", 1, 2, 0, 0)


def came(cursor: int, mark: bytes = b"") -> InRow:
    return InRow(cursor, AGENT, b"body", 1, 1, 0, mark, 100)


def test_what_a_batch_holds_is_there_after_the_file_was_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "mail.sqlite"
    store = MailStore.open(path)
    assert store.commit(Batch(out=[out(1), out(2)], came=[came(7, b"m")], tally={"delivered": 3})) == []
    store.close()
    store = MailStore.open(path)
    assert [row.tag for row in store.waiting(10)] == [1, 2]
    assert [row.cursor for row in store.arrived(10)] == [7]
    assert (store.highest(), store.tally()) == (7, {"delivered": 3})
    store.close()


@given(marks=st.lists(st.binary(min_size=1, max_size=2), max_size=40), sizes=st.lists(st.integers(1, 5), max_size=40))
def test_a_mark_comes_once_whichever_batches_it_is_in(
    tmp_path_factory: pytest.TempPathFactory, marks: list[bytes], sizes: list[int]
) -> None:
    store = MailStore.open(tmp_path_factory.mktemp("mail") / "mail.sqlite")
    rows = [came(n, mark) for n, mark in enumerate(marks, 1)]
    again: list[int] = []
    at = 0
    for size in [*sizes, len(rows)]:
        again += store.commit(Batch(came=rows[at : at + size]))
        at += size
    first = {mark: n for n, mark in reversed(list(enumerate(marks, 1)))}
    assert [row.cursor for row in store.arrived(100)] == sorted(first.values())
    assert sorted([*again, *first.values()]) == list(range(1, len(marks) + 1))
    store.close()


def test_a_message_that_ended_waits_no_more_and_its_body_is_gone(store: MailStore) -> None:
    store.commit(Batch(out=[out(1), out(2)]))
    store.commit(
        Batch(ended=[Ended(DELIVERED, "", 5, 1, 1)], dead=[DeadRow(0, b"i" * 16, b"body", "bob", "mail.x", 5)])
    )
    assert [row.tag for row in store.waiting(10)] == [2]
    (row,) = store.sent((1).to_bytes(16, "big"))
    assert (row.state, row.body) == (DELIVERED, b"")
    ((number, letter),) = store.dead_of(b"i" * 16)
    assert letter.body == b"body"
    store.revive([number])
    assert store.dead(10, 0) == ([], 0)


def test_tidying_drops_what_is_past_its_time_and_nothing_else(store: MailStore) -> None:
    store.commit(Batch(out=[out(1), out(2)], came=[came(3, b"old")], dead=[DeadRow(1, b"i", b"", "", "", 10)]))
    store.commit(Batch(ended=[Ended(EXPIRED, "", 10, 0, 1)]))
    store.carry(CarriedRow(b"m", AGENT, AGENT, AGENT, b"x", 50))
    store.tidy(49)
    assert store.carried_for(AGENT, 10)
    store.tidy(KEEP_MS + 11)
    assert [row.tag for row in store.waiting(10)] == [2]
    assert [row.cursor for row in store.arrived(10)] == [3]
    assert not store.sent((1).to_bytes(16, "big"))
    assert not store.carried_for(AGENT, 10)
    assert store.dead(10, 0) == ([], 0)
    assert store.commit(Batch(came=[came(4, b"old")])) == []  # forgotten by now


def test_mail_of_others_is_kept_once_counted_by_who_left_it_and_dropped_by_its_mark(store: MailStore) -> None:
    row = CarriedRow(b"m", AGENT, AGENT, b"d" * 32, b"12345", 50)
    assert store.carry(row)
    assert not store.carry(row)
    assert store.carried_load(b"d" * 32) == (1, 5, 1, 5)
    assert store.carried_load(b"e" * 32) == (0, 0, 1, 5)
    assert store.drop_carried([b"m", b"other"], {b"m": b"signed"}) == [row]
    assert store.carried_load(b"d" * 32) == (1, 0, 0, 0)  # its receipt, until it has heard of it
    assert store.receipts_for(b"d" * 32, 10) == [(b"m", b"signed")]
    store.drop_receipts([b"m"])
    assert not store.receipts_for(b"d" * 32, 10)
    assert store.carried_load(b"d" * 32) == (0, 0, 0, 0)


def test_what_others_send_pushes_out_no_dead_letter_of_our_own_and_its_bytes_are_bounded(
    store: MailStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail, "DEAD_MAX", 5)
    monkeypatch.setattr(mail, "DEAD_BYTES_MAX", 2_500)
    monkeypatch.setattr(mail, "_TRIM_BYTES", 1)
    store.commit(Batch(dead=[DeadRow(0, b"ours" * 4, b"body", "bob", "mail.x", 5)]))
    for n in range(20):
        store.commit(Batch(dead=[DeadRow(1, n.to_bytes(16, "big"), b"x" * 10, "", "mail.expired", 5)]))
    rows, total = store.dead(100, 0)
    assert [row.id for _, row in rows][-1] == b"ours" * 4
    assert total == 6
    store.commit(Batch(dead=[DeadRow(1, bytes(16), b"x" * 1_000, "", "mail.expired", 5) for _ in range(4)]))
    kept = [len(row.body) for _, row in store.dead(100, 0)[0] if row.side == 1]
    assert kept == [1_000, 1_000]
