"""From what the machines know to what people see: roles, states, ages; pure."""

from __future__ import annotations

from typing import Any

import pytest

from agentmesh.core.contacts.messages import CutOff
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.node_record import NodeRecord, node_body, read_node_record, sign_node_record
from agentmesh.node.links import Attempt
from agentmesh.node.views import Standing, cut_off_view, in_order, peer_view, state_of_peer
from agentmesh.wire.net_views import PeerView

NOW = 1_800_000_000


def record(number: int, **more: Any) -> NodeRecord:
    pair = KeyPair.generate(number.to_bytes(32, "big"))
    body = node_body(seq=5, iat=NOW, wire=1, addresses=(), **more)
    return read_node_record(sign_node_record(pair, body), now=NOW)


def show(standing: Standing, now_s: float = 100.0) -> PeerView:
    attempt = Attempt("tls:h:1", "refused")
    return peer_view(
        "did:key:z6Mk", ("tls:h:1",), peer=None, attempt=attempt, name="x", source="peer", agents=0,
        standing=standing, now_s=now_s,
    )  # fmt: skip


def test_a_suspected_member_shows_for_how_long_and_its_round_trip_before() -> None:
    one = record(1, site="eu", capacity=1)
    view = show(Standing(one, "eu/01", "zone", watched=True, suspect_since_s=97.5, rtt_s=0.004))
    assert (view.state, view.suspect_s, view.rtt_ms) == ("suspect", 2.5, 4.0)
    assert (view.zone, view.role, view.seq, view.site, view.capacity) == ("eu/01", "zone", 5, "eu", 1)
    assert view.path != "udp"


def test_a_member_that_is_only_probed_is_alive_over_udp_and_its_old_dial_error_is_not_shown() -> None:
    view = show(Standing(record(2), role="long", watched=True))
    assert (view.state, view.path, view.last_error, view.suspect_s) == ("alive", "udp", "", None)


def test_a_node_that_nobody_watches_is_unreached_with_the_reason() -> None:
    view = show(Standing())
    assert (view.state, view.path, view.last_error, view.role) == ("unreached", "", "refused", "known")


@pytest.mark.parametrize(
    ("standing", "connected", "state"),
    [
        (Standing(), False, "unreached"),
        (Standing(), True, "alive"),
        (Standing(watched=True), False, "alive"),
        (Standing(dead=True), False, "dead"),
        (Standing(dead=True), True, "alive"),
        (Standing(record(9, leaving=True), dead=True), False, "left"),
        (Standing(record(9, leaving=True)), True, "alive"),
        (Standing(watched=True, suspect_since_s=1.0), True, "suspect"),
    ],
)
def test_every_mix_of_what_is_known_has_one_state(standing: Standing, connected: bool, state: str) -> None:
    assert state_of_peer(standing, connected=connected) == state


def test_what_was_lost_is_shown_with_its_time_on_the_wall_clock() -> None:
    view = cut_off_view(CutOff(5, 8, 40.0, isolated=False), now_s=100.0, unix_s=1_000.0)
    assert view is not None
    assert (view.lost, view.known, view.since, view.isolated) == (5, 8, 940.0, False)
    assert cut_off_view(CutOff(0, 0, 40.0, isolated=False), now_s=100.0, unix_s=1_000.0) is None
    assert cut_off_view(None, now_s=100.0, unix_s=1_000.0) is None


def test_peers_come_by_role_then_connected_then_name() -> None:
    views = [
        PeerView(node_id="1", node_name="z", role="known"),
        PeerView(node_id="2", node_name="b", role="long"),
        PeerView(node_id="3", node_name="c", role="zone"),
        PeerView(node_id="4", node_name="A", role="zone"),
        PeerView(node_id="5", node_name="z", role="zone", connected=True),
    ]
    assert [view.node_id for view in in_order(views)] == ["5", "4", "3", "2", "1"]
