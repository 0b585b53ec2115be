"""How far a node is: by its link, its address and its site."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from agentmesh.node.routes import DIRECT, DIRECT_LOW_TRUST, HOST, NETWORK, NOT_LINKED, RELAYED, Routes, host_of


@dataclass
class FakeLink:
    remote_address: str
    path: str = "direct"
    peer: str = "n"
    is_closed: bool = False


@dataclass
class FakePeer:
    link: FakeLink


class FakeLinks:
    addresses = ("tls:192.168.1.5:6375",)

    def __init__(self, link: FakeLink | None) -> None:
        self._peer = None if link is None else FakePeer(link)

    def peer(self, node_id: str) -> FakePeer | None:
        return self._peer


def distance(link: FakeLink | None, *, site: str = "", theirs: str = "", trust: float = 1.0) -> int:
    links: Any = FakeLinks(link)
    return Routes(links, site, lambda _: theirs).distance("n", trust)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("iroh:127.0.0.1:6374", HOST),
        ("tls:[::1]:6374", HOST),
        ("iroh:[::ffff:127.0.0.1]:6374", HOST),
        ("tls:192.168.1.5:40000", HOST),
        ("iroh:192.168.1.6:6374", NETWORK),
        ("ws:93.184.216.34:443", DIRECT),
        ("memory:n1", DIRECT),
        ("", DIRECT),
    ],
)
def test_the_address_says_whether_a_node_is_on_this_host_or_in_this_network(address: str, expected: int) -> None:
    assert distance(FakeLink(address)) == expected


def test_sites_decide_what_a_network_is_where_people_named_them() -> None:
    assert distance(FakeLink("iroh:10.0.0.7:1"), site="eu", theirs="us") == DIRECT
    assert distance(FakeLink("iroh:93.184.216.34:1"), site="eu", theirs="eu") == NETWORK
    assert distance(FakeLink("iroh:10.0.0.7:1"), site="", theirs="us") == DIRECT


def test_a_relay_is_farther_than_any_direct_way_and_no_link_is_farthest() -> None:
    assert distance(FakeLink("iroh:127.0.0.1:1", path="relayed")) == RELAYED
    assert distance(None) == distance(FakeLink("iroh:127.0.0.1:1", is_closed=True)) == NOT_LINKED


def test_little_trust_makes_a_distant_node_more_distant() -> None:
    assert distance(FakeLink("ws:93.184.216.34:443"), trust=0.1) == DIRECT_LOW_TRUST


@pytest.mark.parametrize("address", ["", ":", "tls:", "tls:host", "tls:[::1", "iroh:999.1.1.1:5", "a:b:c:d", "\x00"])
def test_what_is_no_address_is_none(address: str) -> None:
    assert host_of(address) is None
