"""The retained values of a node."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.errors import MeshError
from agentmesh.store.topics import EMPTY_MS, Retained, RetainedStore, subject_key
from agentmesh.wire.topics import LINE_BYTES

_writes = st.lists(
    st.tuples(st.sampled_from(["a", "a.b", "c"]), st.integers(1, 4), st.integers(0, 3), st.booleans()), max_size=12
)


def value(
    subject: str, ts_ms: int, id_: int = 0, *, empty: bool = False, private: bool = False, size: int = 1
) -> Retained:
    return Retained(subject, ts_ms, bytes([id_]) * 16, b"x" * size, empty, private, b"p" * 32)


@settings(max_examples=40, deadline=None)
@given(_writes, st.randoms())
def test_the_same_values_in_any_order_leave_the_same_last_values_and_sums(
    writes: list[tuple[str, int, int, bool]], shuffle: object
) -> None:
    with tempfile.TemporaryDirectory() as root:
        stores = [RetainedStore(Path(root) / name) for name in ("one", "two")]
        other = list(writes)
        shuffle.shuffle(other)  # type: ignore[attr-defined]
        for store, order in zip(stores, (writes, [*other, *writes]), strict=True):
            for subject, ts, id_, empty in order:
                store.put(value(subject, ts, id_, empty=empty)._replace(raw=b"%d %d" % (ts, id_)))
        one, two = stores
        assert one.sums() == two.sums()
        assert one.lines(two.sums()) == b""
        for subject in ("a", "a.b", "c"):
            ranks = [(ts, bytes([id_]) * 16) for s, ts, id_, _ in writes if s == subject]
            held = one.get(subject)
            assert (held is None) is (not ranks)
            assert held is None or (held.ts_ms, held.id) == max(ranks)
        again = RetainedStore(Path(root) / "one")
        assert again.sums() == one.sums()
        assert len(again) == len(one)
        for store in (*stores, again):
            store.close()


def test_no_file_is_made_before_the_first_value(tmp_path: Path) -> None:
    path = tmp_path / "topics.sqlite"
    store = RetainedStore(path)
    assert store.get("a") is None
    assert list(store.values()) == []
    assert store.wants(b"k" * LINE_BYTES) == [b"k" * 8]
    assert not path.exists()
    store.put(value("a", 1))
    assert path.exists()
    store.close()


def test_a_million_tiny_subjects_take_bounded_room_and_the_longest_unused_go(tmp_path: Path) -> None:
    store = RetainedStore(tmp_path / "t", values_max=50, bytes_max=10_000)
    store.put(value("$topics.jobs", 1))
    for i in range(300):
        store.put(value(f"t.{i}", 1))
        store.touch("t.0")
    assert len(store) == 50
    assert store.get("t.0")
    assert store.get("$topics.jobs")
    assert store.get("t.299")
    assert store.get("t.1") is None
    for i in range(30):
        store.put(value(f"big.{i}", 1, size=1_000))
    assert sum(len(one.raw) for one in store.values()) <= 10_000
    assert store.evicted > 250
    store.close()


def test_a_neighbour_is_told_and_asked_for_what_differs_only(tmp_path: Path) -> None:
    one, two = RetainedStore(tmp_path / "1"), RetainedStore(tmp_path / "2")
    for i in range(40):
        one.put(value(f"s.{i}", 1))
        two.put(value(f"s.{i}", 1))
    one.put(value("s.7", 2))
    one.put(value("new", 1))
    one.put(value("secret", 1, private=True))
    lines = one.lines(two.sums())
    assert len(lines) < 40 * LINE_BYTES
    assert sorted(two.wants(lines)) == sorted([subject_key("s.7"), subject_key("new")])
    found = one.by_key(subject_key("s.7"))
    assert found is not None
    assert found.ts_ms == 2
    assert one.by_key(subject_key("secret")) is None
    assert one.lines(b"short") == b""
    assert two.wants(b"cut") == []
    one.close()
    two.close()


def test_an_emptied_subject_is_remembered_for_a_week(tmp_path: Path) -> None:
    store = RetainedStore(tmp_path / "t")
    store.put(value("a", 1_000, empty=True))
    assert list(store.values()) == []
    assert not store.put(value("a", 999))
    store.forget_empty(1_000 + EMPTY_MS)
    assert store.get("a") is not None
    store.forget_empty(1_001 + EMPTY_MS)
    assert store.get("a") is None
    store.close()


def test_a_damaged_file_is_said_to_be_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "topics.sqlite"
    path.write_bytes(b"junk" * 1_000)
    with pytest.raises(MeshError):
        RetainedStore(path)
    assert path.read_bytes() == b"junk" * 1_000
