"""From what the machines know to what people see: roles, states, ages; pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from agentmesh.core.contacts.messages import CutOff
from agentmesh.core.swim.members import MemberView
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.node_record import NodeRecord, node_body, read_node_record, sign_node_record
from agentmesh.ids import NodeId
from agentmesh.node.links import Attempt
from agentmesh.node.views import Life, Standing, cut_off_view, in_order, peer_view, standings, state_of_peer, zone_name
from agentmesh.wire.views import PeerView

NOW = 1_800_000_000


def record(number: int, **more: Any) -> NodeRecord:
    pair = KeyPair.generate(number.to_bytes(32, "big"))
    body = node_body(seq=5, iat=NOW, wire=1, addresses=(), **more)
    return read_node_record(sign_node_record(pair, body), now=NOW)


ANNA, BEN, CLEO, DORA = (record(i, site="eu" if i < 4 else "us", capacity=i % 5) for i in (1, 2, 3, 4))


@dataclass
class FakeSight:
    """A brain of which one can see what the views need."""

    mates: tuple[NodeId, ...] = (ANNA.node_id, BEN.node_id)
    far: list[NodeId] = field(default_factory=lambda: [CLEO.node_id])
    watching: list[MemberView] = field(default_factory=list)
    lives: dict[NodeId, Life] = field(default_factory=dict)
    zone_name: str = "eu/01"

    def zone(self) -> tuple[str, int, tuple[NodeId, ...]]:
        return "eu", 2, self.mates

    def long_links(self) -> list[NodeId]:
        return self.far

    def members(self) -> list[MemberView]:
        return self.watching

    def life_of(self, node: NodeId) -> Life | None:
        return self.lives.get(node)

    def record_of(self, node: NodeId) -> NodeRecord | None:
        return {one.node_id: one for one in (ANNA, BEN, CLEO, DORA)}.get(node)


def show(node: NodeRecord, standing: Standing, now_s: float = 100.0) -> PeerView:
    attempt = Attempt("tls:h:1", "refused")
    return peer_view(
        node.node_id, ("tls:h:1",), peer=None, attempt=attempt, name="x", source="peer", agents=0,
        standing=standing, now_s=now_s,
    )  # fmt: skip


def test_zone_mates_long_links_and_others_are_told_apart_with_their_zones() -> None:
    found = standings(FakeSight(), [one.node_id for one in (ANNA, CLEO, DORA)])
    assert [one.role for one in found.values()] == ["zone", "long", "known"]
    assert found[ANNA.node_id].zone == "eu/01"
    assert found[CLEO.node_id].zone == zone_name("eu", 2, CLEO.key)
    assert found[DORA.node_id].zone == "us/", "how another site is divided is not known here"


def test_a_zone_mate_that_is_also_a_long_link_is_shown_as_zone_mate() -> None:
    assert standings(FakeSight(far=[ANNA.node_id]), [ANNA.node_id])[ANNA.node_id].role == "zone"


def test_a_suspected_member_shows_for_how_long_and_its_round_trip_before() -> None:
    sight = FakeSight(watching=[MemberView(ANNA.node_id, "suspect", 5, 0.004, 97.5)])
    view = show(ANNA, standings(sight, [ANNA.node_id])[ANNA.node_id])
    assert (view.state, view.suspect_s, view.rtt_ms, view.seq, view.capacity) == ("suspect", 2.5, 4.0, 5, 1)
    assert view.path != "udp"


def test_a_member_that_is_only_probed_is_alive_over_udp_and_its_old_dial_error_is_not_shown() -> None:
    sight = FakeSight(watching=[MemberView(BEN.node_id, "alive", 5, None, 3.0)])
    view = show(BEN, standings(sight, [BEN.node_id])[BEN.node_id])
    assert (view.state, view.path, view.last_error, view.suspect_s) == ("alive", "udp", "", None)


@pytest.mark.parametrize(
    ("life", "leaving", "connected", "state"),
    [
        (None, False, False, "unreached"),
        (None, True, False, "left"),
        (None, False, True, "alive"),
        ("dead", False, False, "dead"),
        ("dead", False, True, "alive"),
        ("left", False, False, "left"),
        ("suspect", False, True, "suspect"),
        ("alive", False, False, "alive"),
    ],
)
def test_every_mix_of_what_is_known_has_one_state(
    life: Life | None, leaving: bool, connected: bool, state: str
) -> None:
    standing = Standing(record=record(9, leaving=leaving), life=life)
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
