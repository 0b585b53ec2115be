"""The multiplexer core against any cutting of its bytes, any order of its users, and any hostile peer."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.codec.frame import DATA, END, FIN, HEADER, OPEN, PING, RESET, U32, WINDOW, encode_frame
from agentmesh.errors import DecodeError
from agentmesh.net.mux_core import MuxCore
from agentmesh.net.mux_stream import WINDOW_BYTES, Limits

_sizes = st.one_of(st.integers(0, 300), st.integers(60_000, 140_000), st.integers(1_000_000, 2_500_000))


def _cut(data: bytes, rng: random.Random) -> list[bytes]:
    """Cut bytes into pieces as a pipe might."""
    pieces: list[bytes] = []
    at = 0
    while at < len(data):
        size = rng.choice((1, 3, 10, 11, 4096, 70_000, 500_000))
        pieces.append(data[at : at + size])
        at += size
    return pieces


def _pump(source: MuxCore, target: MuxCore, rng: random.Random) -> bool:
    """Move what ``source`` wants to write now; False if there was nothing."""
    data = b"".join(source.take(rng.choice((1, 5_000, 262_144))))
    source.drained.clear()
    for piece in _cut(data, rng):
        target.receive(piece)
        target.assert_invariants()
    return bool(data)


@settings(max_examples=60, deadline=None)
@given(
    plan=st.lists(st.lists(_sizes, max_size=4), min_size=1, max_size=5),
    seed=st.integers(0, 2**32),
    lazy=st.booleans(),
)
def test_any_cutting_and_interleaving_delivers_the_same_messages(plan: list[list[int]], seed: int, lazy: bool) -> None:
    rng = random.Random(seed)
    near, far = MuxCore(True), MuxCore(False)
    outgoing = {}
    for sizes in plan:
        stream = near.open()
        outgoing[stream.id] = (stream, [rng.randbytes(size) for size in sizes])
    expected = {number: list(messages) for number, (_, messages) in outgoing.items()}
    received: dict[int, list[bytes]] = {number: [] for number in outgoing}
    accepted: dict[int, Any] = {}
    for _ in range(100_000):
        for stream, messages in rng.sample(list(outgoing.values()), len(outgoing)):
            if not stream.is_sending and messages:
                near.send(stream, messages.pop(0))
            elif not stream.is_sending and not stream.fin_sent:
                near.finish(stream)
        moved = _pump(near, far, rng)
        while (stream := far.accept()) is not None:
            accepted[stream.id] = stream
        took = False
        for stream in accepted.values():
            if stream.inbox and not (lazy and rng.random() < 0.5):
                received[stream.id].append(far.take_message(stream))
                took = True
            elif not stream.inbox and not stream.fin_received:
                far.want(stream)
        moved = _pump(far, near, rng) or moved
        near.assert_invariants()
        if received == expected and all(s.fin_received for s in accepted.values()) and len(accepted) == len(plan):
            break
        assert moved or took or lazy, "the link stalled"
    assert received == expected
    for stream in accepted.values():
        far.finish(stream)
    _pump(far, near, rng)
    assert near.streams == far.streams == []
    assert far.held == 0


_frames = st.one_of(
    st.builds(lambda n: encode_frame(OPEN, n), st.integers(0, 40)),
    st.builds(
        lambda n, p, f: encode_frame(DATA, n, p, f), st.integers(0, 9), st.binary(max_size=200), st.integers(0, 2)
    ),
    st.builds(lambda n, c: encode_frame(DATA, n, bytes(c), END), st.integers(0, 9), st.integers(0, 70_000)),
    st.builds(lambda n, c: encode_frame(WINDOW, n, U32.pack(c)), st.integers(0, 9), st.integers(0, 2**32 - 1)),
    st.builds(lambda n: encode_frame(FIN, n), st.integers(0, 9)),
    st.builds(lambda n, c: encode_frame(RESET, n, U32.pack(c)), st.integers(0, 9), st.integers(0, 2**32 - 1)),
    st.builds(lambda n, p: encode_frame(PING, n, p), st.integers(0, 1), st.binary(min_size=7, max_size=9)),
    st.builds(
        HEADER.pack, st.integers(0, 255), st.integers(0, 255), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1)
    ),
    st.binary(max_size=30),
)


@settings(max_examples=400, deadline=None)
@given(hostile=st.lists(_frames, max_size=40), seed=st.integers(0, 2**32), dialed=st.booleans())
def test_hostile_bytes_raise_nothing_but_decode_error_and_hold_no_more_than_the_caps(
    hostile: list[bytes], seed: int, dialed: bool
) -> None:
    rng = random.Random(seed)
    core = MuxCore(dialed, Limits(streams_max=4, buffer_bytes_max=150_000, message_bytes_max=100_000))
    mine = [core.open() for _ in range(3)]
    core.send(mine[0], bytes(99_000))
    try:
        for piece in _cut(b"".join(hostile), rng):
            core.receive(piece)
            core.assert_invariants()
            if (stream := core.accept()) is not None:
                core.want(stream)
    except DecodeError:
        try:
            core.receive(b"")
        except DecodeError:
            pass
        else:
            raise AssertionError("a broken link accepted more bytes")
    assert core.held <= 150_000
    assert sum(len(p) for p in core.take(10_000_000)) < 1_100_000 + 100_000


@settings(max_examples=30, deadline=None)
@given(cuts=st.integers(1, 7))
def test_a_peer_that_sends_byte_by_byte_costs_no_more_memory_than_it_sends(cuts: int) -> None:
    core = MuxCore(False)
    core.receive(encode_frame(OPEN, 1) + HEADER.pack(DATA, 0, 1, 60_000))
    stream = core.streams[0]
    for at in range(0, 60_000, cuts):
        core.receive(bytes(min(cuts, 60_000 - at)))
    assert len(stream.parts) <= 60_000 // 4096 + 1


def test_credit_never_lets_more_under_way_than_the_window() -> None:
    near, far = MuxCore(True), MuxCore(False)
    stream = near.open()
    near.send(stream, bytes(4 * WINDOW_BYTES))
    total = 0
    while data := b"".join(near.take(1 << 20)):
        total += len(data)
        far.receive(data)
    assert total <= WINDOW_BYTES
    assert far.held <= WINDOW_BYTES
