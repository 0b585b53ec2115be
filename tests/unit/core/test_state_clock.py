"""The hybrid clock and version vectors: what they promise, and what they refuse."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.core.state.causality import Dot, Seen, VersionVector, of_dots, writer_of
from agentmesh.core.state.clock import DRIFT_MS_MAX, HybridClock, ms_of, pack, us_of
from agentmesh.errors import DecodeError, LimitError

NOW_MS = 1_790_000_000_000
A, B = b"a" * 16, b"b" * 16


@given(st.lists(st.integers(-(10**7), 10**7), max_size=50))
def test_stamps_rise_whatever_the_wall_clock_does(jumps: list[int]) -> None:
    clock, stamps = HybridClock(), [0]
    for jump in jumps:
        stamps.append(clock.tick(NOW_MS + jump))
    assert stamps == sorted(set(stamps))


def test_a_stamp_follows_the_wall_clock_and_tells_people_the_time() -> None:
    stamp = HybridClock().tick(NOW_MS)
    assert ms_of(stamp) == NOW_MS
    assert us_of(stamp) == NOW_MS * 1000
    assert us_of(pack(NOW_MS, 65_535)) < us_of(pack(NOW_MS + 1))


def test_what_was_seen_is_older_than_what_is_written_next() -> None:
    fast, slow = HybridClock(), HybridClock()
    stamp = fast.tick(NOW_MS + 200_000)
    slow.observe(stamp, NOW_MS)
    assert slow.tick(NOW_MS) > stamp


def test_a_clock_an_hour_ahead_is_refused_and_moves_nobody() -> None:
    clock = HybridClock()
    clock.tick(NOW_MS)
    with pytest.raises(DecodeError, match="3600 s ahead") as caught:
        clock.observe(pack(NOW_MS + 3_600_000), NOW_MS)
    assert caught.value.code == "state.clock"
    assert ms_of(clock.tick(NOW_MS)) == NOW_MS
    clock.observe(pack(NOW_MS + DRIFT_MS_MAX), NOW_MS)
    for stamp in (-1, 1 << 63):
        with pytest.raises(DecodeError, match="no stamp"):
            clock.observe(stamp, NOW_MS)


def test_a_clock_that_was_set_back_goes_on_above_what_it_made_before_the_restart() -> None:
    before = HybridClock()
    stamp = before.tick(NOW_MS)
    assert HybridClock(last=before.last).tick(NOW_MS - 3_600_000) > stamp


vectors = st.dictionaries(st.sampled_from([bytes([n]) * 16 for n in range(5)]), st.integers(1, 9)).map(VersionVector)


@given(vectors, vectors, vectors)
def test_vectors_join_in_any_order_and_order_what_was_seen(
    one: VersionVector, two: VersionVector, six: VersionVector
) -> None:
    assert one.join(two) == two.join(one)
    assert one.join(two).join(six) == one.join(two.join(six))
    assert one.join(one) == one
    assert one.join(two).descends(one)
    assert one.concurrent(two) == (not one.descends(two) and not two.descends(one))
    assert VersionVector.decode(one.encode()) == one
    assert {one: 1}[VersionVector(dict(one.items()))] == 1


def test_a_vector_knows_its_dots_and_forgets_writers_that_are_gone() -> None:
    vector = VersionVector({A: 3}).up_to(Dot(B, 7))
    assert vector.covers(Dot(A, 3))
    assert not vector.covers(Dot(A, 4))
    assert (vector.get(B), vector.get(b"c" * 16)) == (7, 0)
    assert vector.without([A]) == VersionVector({B: 7})


numbers = st.frozensets(st.integers(1, 30))


@given(numbers, numbers)
def test_what_was_seen_is_a_set_of_writes_however_it_is_kept(one: frozenset[int], two: frozenset[int]) -> None:
    joined = of_dots([Dot(A, n) for n in one]).join(of_dots([Dot(A, n) for n in two]))
    assert {n for n in range(40) if joined.covers(Dot(A, n))} == one | two
    assert joined == of_dots([Dot(A, n) for n in sorted(one | two)])
    assert joined.descends(of_dots([Dot(A, n) for n in one]))
    gaps = sum(n - 1 not in one | two for n in one | two)
    assert joined.runs == gaps  # neighbours are one run: what is complete costs as much as its number


def test_a_write_closes_the_gap_after_the_last_one_of_its_writer() -> None:
    seen = of_dots([], Dot(A, 10), 4).join(of_dots([], Dot(A, 4), 0))
    assert seen == Seen({A: (0, 10)})
    assert seen.vector() == VersionVector({A: 10})
    assert of_dots([], Dot(A, 10), 4).vector() == VersionVector()  # who misses a write has not seen all up to the last


@pytest.mark.parametrize(
    "pairs",
    [
        [[A, 0]],
        [[A, -1]],
        [[A, 1 << 63]],
        [[A[:15], 1]],
        [[A, 1], [A, 2]],
        [[B, 1], [A, 1]],
        [[A, 1.0]],
        [[A]],
        {"a": 1},
        [[n.to_bytes(16, "big"), 1] for n in range(1, 1026)],
    ],
)
def test_a_broken_version_vector_is_refused(pairs: object) -> None:
    with pytest.raises(DecodeError) as caught:
        VersionVector.decode(msgspec.msgpack.encode(pairs))
    assert caught.value.code == "state.version"


@given(st.binary(max_size=80))
def test_bytes_are_a_vector_or_an_error(raw: bytes) -> None:
    try:
        vector = VersionVector.decode(raw)
    except DecodeError as error:
        assert error.code == "state.version"  # noqa: PT017
    else:
        assert VersionVector.decode(vector.encode()) == vector


def test_a_vector_has_a_bound() -> None:
    big = VersionVector({n.to_bytes(16, "big"): 1 for n in range(1025)})
    with pytest.raises(LimitError) as caught:
        big.encode()
    assert caught.value.code == "state.writers"


def test_two_nodes_and_two_lives_of_a_node_never_write_as_one() -> None:
    ids = {writer_of(bytes([n]) * 32, birth) for n in range(50) for birth in (b"", b"1")}
    assert len(ids) == 100
    assert all(len(one) == 16 for one in ids)
