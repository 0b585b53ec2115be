"""What people see of the network: peers, the shape of the mesh, and that this node is cut off; wide, narrow, JSON, Chinese."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentmesh.cli.commands.status import cut_off_text
from agentmesh.cli.main import main
from agentmesh.wire.net_views import CutOffView, NetNodeView, NetView, PeerView, UdpView
from agentmesh.wire.trust_views import TrustBin, TrustList, TrustRow
from agentmesh.wire.views import StatusView

IDS = [f"did:key:z6Mk{letter * 40}" for letter in "abcdefg"]


def status(**more: Any) -> StatusView:
    return StatusView(
        node_id=IDS[0], node_name="me", pid=1, port=2, version="0", uptime_s=1.0, rss_bytes=1, peers=3, agents=2,
        zone="eu/01", members=13, long_links=4, network_size=640, **more,
    )  # fmt: skip


PEERS = [
    PeerView(
        node_id=IDS[1], node_name="anna", connected=True, scheme="iroh", path="direct", rtt_ms=1.23, agents=2,
        zone="eu/01", role="zone", state="alive", seq=7, site="eu", capacity=1, address="iroh:192.0.2.7:6374",
    ),
    PeerView(node_id=IDS[2], node_name="ben", path="udp", role="zone", state="suspect", suspect_s=3.2, zone="eu/01"),
    PeerView(node_id=IDS[3], node_name="cleo", role="long", state="dead", zone="us/1"),
    PeerView(node_id=IDS[4], node_name="dora", role="known", state="unreached", last_error="connection refused"),
    PeerView(node_id=IDS[5], node_name="emil", role="known", state="left"),
    PeerView(node_id=IDS[6], node_name="\x1b[31mevil", connected=True, scheme="tls", path="relayed", role="link"),
]  # fmt: skip


class FakeMesh:
    """The node behind the command."""

    def __init__(self) -> None:
        self.view = status()
        self.found = list(PEERS)
        self.shape = NetView(nodes=1, edges=0)
        self.asked: dict[str, Any] = {}

    def status(self) -> StatusView:
        return self.view

    def peers(self) -> list[PeerView]:
        return self.found

    def net(self) -> NetView:
        return self.shape

    def trust_list(self, *, tier: str = "", query: str = "", limit: int = 500) -> TrustList:
        self.asked = {"tier": tier, "query": query, "limit": limit}
        bars = [TrustBin(low=at / 10, high=(at + 1) / 10, count=at % 3, own=1 if at == 8 else 0) for at in range(10)]
        rows = [
            TrustRow(agent_id=IDS[1], name="\x1b[31mevil", score=0.1, tier="low", node_name="anna", receipts=7),
            TrustRow(agent_id=IDS[2], name="calc", score=0.8, tier="high", organisation=IDS[3]),
        ]
        tiers = {"low": 1, "unknown": 0, "medium": 0, "high": 1, "own": 0}
        return TrustList(
            agents=rows, count=9, digest="1234-abcd", matching=4, histogram=bars, tiers=tiers, half_life_s=30 * 86_400.0
        )


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> FakeMesh:
    """A node that answers every command of this process."""
    fake = FakeMesh()

    @contextlib.contextmanager
    def connect(_out: object) -> Iterator[FakeMesh]:
        yield fake

    monkeypatch.setattr("agentmesh.cli.connect.connect", connect)
    monkeypatch.setattr("agentmesh.daemon.lock.require_running", lambda _home: None)
    return fake


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Run a command line that must succeed; return what it said on stdout and stderr."""

    def run(*args: str) -> tuple[str, str]:
        assert main(list(args)) == 0
        said = capsys.readouterr()
        return said.out, said.err

    return run


Say = Callable[..., tuple[str, str]]


def row(text: str, name: str) -> str:
    return next(" ".join(line.split()) for line in text.splitlines() if name in line)


def test_peers_tells_zone_role_state_path_and_rtt_of_each(node: FakeMesh, say: Say) -> None:
    out, err = say("peers")
    anna = row(out, "anna")
    for part in ("eu/01 zone mate alive direct iroh 1.2 ms 2", "192.0.2.7:6374"):
        assert part in anna
    assert "zone mate suspect 3 s udp" in row(out, "ben")
    assert "us/1 long link dead" in row(out, "cleo")
    assert "unreached: connection refused" in row(out, "dora")
    assert "known left" in row(out, "emil")
    assert "linked" in row(out, "evil")
    assert "eu/01 · members 13 · long links 4 · nodes in all: about 640" in err


def test_a_name_from_afar_does_not_control_the_terminal(node: FakeMesh, say: Say) -> None:
    assert "\x1b" not in say("peers")[0]


def test_a_narrow_terminal_gets_the_columns_that_matter_and_no_line_is_longer(
    node: FakeMesh, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agentmesh.cli.output.Output.width", 80)
    out, _ = say("peers", "--no-color")
    assert out.splitlines()[0].split() == ["NODE", "ROLE", "STATE", "PATH", "RTT", "AGENTS"]
    assert max(map(len, out.splitlines())) <= 80
    assert "zone mate suspect 3 s udp" in row(out, "ben")
    assert "unreached:" in row(out, "dora")


def test_peers_as_json_has_every_field(node: FakeMesh, say: Say) -> None:
    peers = json.loads(say("peers", "--json")[0])["peers"]
    assert [p["state"] for p in peers] == ["alive", "suspect", "dead", "unreached", "left", "unreached"]
    assert (peers[0]["role"], peers[0]["zone"], peers[0]["seq"], peers[0]["capacity"]) == ("zone", "eu/01", 7, 1)
    assert peers[1]["suspect_s"] == 3.2


def test_a_node_that_is_cut_off_says_so_in_status_and_peers(
    node: FakeMesh, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(os.environ, "TZ", "UTC")
    __import__("time").tzset()
    node.view = status(cut_off=CutOffView(lost=5, known=8, since=1_700_000_000.0))
    text = "cut off: 5 of 8 known nodes unreachable since 22:13 (still trying; agents here go on working)"
    assert text in say("status")[0]
    assert text in say("peers")[1]
    zh = say("status", "--lang", "zh")[0]
    assert "自 22:13 起,8 个已知节点中有 5 个无法到达" in zh
    assert json.loads(say("status", "--json")[0])["cut_off"] == {
        "lost": 5, "known": 8, "since": 1_700_000_000.0, "isolated": False,
    }  # fmt: skip


def test_a_node_that_is_alone_says_that_nobody_answers() -> None:
    assert "none of 8 known nodes answers" in cut_off_text(CutOffView(lost=8, known=8, since=0.0, isolated=True))


def test_status_of_a_connected_node_names_zone_and_size_and_no_cut(node: FakeMesh, say: Say) -> None:
    node.view = status(udp=UdpView(address="192.0.2.1:6375", sent=10, received=9, dropped={"signature": 2, "rate": 1}))
    out, _ = say("status")
    assert "cut off" not in out
    assert "eu/01 · members 13 · long links 4 · nodes in all: about 640" in row(out, "zone")
    assert "10 sent, 9 taken, dropped: 1 rate, 2 signature" in out
    assert "成员 13" in say("status", "--lang", "zh")[0]


def big() -> NetView:
    return NetView(
        nodes=200, edges=1500, clustering=0.587, path_length=2.31, tail_exponent=2.4, tail_fit=0.031, degree_p50=15,
        degree_p99=40, degree_max=44, components=1, largest_component=1.0, zones={"eu/0": 100, "eu/1": 100},
        neighbours=[IDS[1], IDS[2]], asked=200, answered=200, seconds=1.4,
        map=[NetNodeView(node_id=IDS[0], node_name="me"), NetNodeView(node_id=IDS[1], node_name="anna")],
    )  # fmt: skip


def test_net_shows_clustering_path_tail_zones_and_own_neighbours(node: FakeMesh, say: Say) -> None:
    node.shape = big()
    out, _ = say("net")
    for part in ("200 asked, 200 answered", "C = 0.587", "L = 2.31", "2.40 (fit 0.031)", "eu/0 100 · eu/1 100", "anna"):
        assert part in out
    assert "partial" not in out
    assert "few nodes" not in out
    assert json.loads(say("net", "--json")[0])["tail_exponent"] == 2.4


def test_net_of_a_tiny_mesh_says_which_figures_mean_nothing(node: FakeMesh, say: Say) -> None:
    node.shape = NetView(nodes=2, edges=1, zones={"/": 2}, asked=2, answered=2)
    out, _ = say("net")
    assert "C =" not in out
    assert "with 2 nodes, C, L and degrees say nothing yet" in out
    assert "needs 100 nodes" in out
    assert "只有 2 个节点" in say("net", "--lang", "zh")[0]


def test_net_that_stopped_early_or_is_in_parts_says_so(node: FakeMesh, say: Say) -> None:
    node.shape = big()
    node.shape.complete, node.shape.components = False, 3
    out, _ = say("net")
    assert "the survey stopped at its limit" in out
    assert "! nodes" in out


def test_trust_without_an_agent_shows_all_of_them_with_histogram_count_and_digest(node: FakeMesh, say: Say) -> None:
    out, err = say("trust")
    assert "\x1b" not in out
    assert "0.8 - 0.9" in out
    assert row(out, "calc").startswith("calc 0.80 high")
    assert "low 1 · unknown 0 · medium 0 · high 1 · own 0" in out
    assert "2 of 4 that match, 9 agents · digest 1234-abcd" in err
    assert "30 days" in err
    assert say("trust", "list", "--tier", "low", "--query", "ev", "-n", "5")
    assert node.asked == {"tier": "low", "query": "ev", "limit": 5}
    told = json.loads(say("trust", "--json")[0])
    assert (told["count"], told["digest"], [one["name"] for one in told["agents"]]) == (
        9, "1234-abcd", ["\x1b[31mevil", "calc"],
    )  # fmt: skip
