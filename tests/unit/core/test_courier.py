"""The courier against a dumb model: what is submitted comes out once and in order, or comes back with a reason (spec/courier)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.core.courier.config import CourierConfig
from agentmesh.core.courier.inputs import Window
from tests.support.mail_net import MailNet, MailNode, Weather, check_accounts, unended

_SMALL = CourierConfig(
    queue_letters_max=400,
    queue_bytes_max=30_000,
    letters_max=500,
    bytes_max=40_000,
    flight_letters_max=300,
    window_letters=40,
    window_bytes=3_000,
    held_bytes_max=5_000,
    parcel_letters=5,
    quantum_bytes=300,
    ack_letters=4,
    probe_letters=3,
)


def _pair(
    seed: int = 0, weather: Weather | None = None, config: CourierConfig | None = None
) -> tuple[MailNet, MailNode, MailNode]:
    net = MailNet(seed, weather)
    a, b = net.node("a", config), net.node("b", config)
    net.session(1, a, b)
    net.link(a, b)
    return net, a, b


_weather = st.builds(
    Weather,
    loss=st.sampled_from([0.0, 0.05, 0.2, 0.5]),
    double=st.sampled_from([0.0, 0.3]),
    delay_s=st.sampled_from([0.001, 0.05]),
    jitter_s=st.sampled_from([0.0, 0.1, 1.0]),
    take_s=st.sampled_from([0.0, 0.005, 0.4]),
    room_s=st.sampled_from([0.0, 0.01, 0.3]),
    room_bytes=st.sampled_from([1, 200, 2_000, 65_536]),
)
_step = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 2), st.integers(0, 1), st.integers(1, 150), st.integers(1, 5)),
    st.tuples(st.just("large"), st.integers(1, 2), st.integers(0, 1), st.integers(100, 4_000)),
    st.tuples(st.just("once"), st.integers(1, 2), st.integers(0, 1), st.integers(1, 8)),
    st.tuples(st.just("short"), st.integers(1, 2), st.integers(0, 1), st.sampled_from([0.0, 0.02, 0.5, 3.0])),
    st.tuples(st.just("run"), st.sampled_from([0.001, 0.02, 0.3, 2.0])),
    st.tuples(st.just("cut")),
    st.tuples(st.just("link")),
    st.tuples(
        st.just("window"),
        st.integers(1, 2),
        st.integers(0, 1),
        st.sampled_from([0, 1, 7]),
        st.sampled_from([0, 90, 10_000]),
    ),
    st.tuples(st.just("weather"), _weather),
)


def _play(net: MailNet, nodes: tuple[MailNode, MailNode], steps: list[Any]) -> None:
    for step in steps:
        kind = step[0]
        if kind == "run":
            net.run(step[1])
        elif kind == "cut":
            net.cut(*nodes)
        elif kind == "link":
            net.link(*nodes)
        elif kind == "weather":
            net.weather = step[1]
        else:
            _, session, end, *rest = step
            node = nodes[end]
            if kind == "submit":
                node.submit(session, [f"c{net.rng.randrange(rest[1])}" for _ in range(rest[0])])
            elif kind == "large":
                node.submit(session, ["c0"], size=rest[0])
            elif kind == "once":
                node.submit(session, ["c0", "c1"] * rest[0], acked=False)
            elif kind == "short":
                node.submit(session, ["c0", "c1", "c2"], ttl_s=rest[0])
            elif kind == "window":
                node.feed(Window(session, rest[0], rest[1]))


@given(st.integers(0, 1 << 30), _weather, st.lists(_step, max_size=40))
@settings(max_examples=150, deadline=None)
def test_every_item_is_delivered_once_and_in_order_or_comes_back_with_a_reason(
    seed: int, weather: Weather, steps: list[Any]
) -> None:
    net = MailNet(seed, weather)
    a, b = net.node("a", _SMALL), net.node("b", _SMALL)
    net.session(1, a, b)
    net.session(2, b, a)
    net.link(a, b)
    _play(net, (a, b), steps)
    net.weather = Weather(room_bytes=2_000)
    net.link(a, b)
    for session in (1, 2):
        for node in (a, b):
            node.feed(Window(session, 1 << 20, 1 << 40))
    net.run(400)
    assert not net.blamed, net.blamed
    assert not unended(a), unended(a)
    assert not unended(b), unended(b)
    for session in (1, 2):
        check_accounts(a, b, session)
        check_accounts(b, a, session)
    for node in (a, b):
        assert node.courier.letters == node.courier.bytes == 0
        ended = [sent.ended[0] for sent in node.sent.values() if sent.acked]
        assert set(ended) <= {"Delivered", "Expired", "full"}


def test_what_a_session_still_had_comes_back_in_order_when_it_ends() -> None:
    net, a, b = _pair()
    net.run(0.1)
    first = a.submit(1, ["x", "y"] * 40)
    net.run(0.005)
    net.cut(a, b)
    second = a.submit(1, ["x", "y"] * 10, lane=3)
    net.close(1, "peer restarted")
    returned = [tag for event in a.events if type(event).__name__ == "Returned" for tag in event.tags]
    for parity in (0, 1):
        mine = [tag for tag in returned if tag % 2 == parity]
        assert mine == sorted(mine)
    assert sorted(returned) == first + second
    assert {a.sent[tag].ended[0] for tag in returned} == {"peer restarted"}
    assert a.courier.letters == 0


@pytest.mark.parametrize("lane", range(4))
def test_a_message_that_is_submitted_arrives_on_every_lane(lane: int) -> None:
    net, a, b = _pair()
    a.submit(1, ["c"], lane=lane)
    net.run(1)
    assert b.got == [(1, "c", 0)]
    assert a.sent[0].ended == ["Delivered"]
