"""Addresses and seeds: what is understood, what is refused, and what this machine offers of its own."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import ConfigError, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.net.addresses import (
    format_seed,
    local_addresses,
    parse_address,
    parse_bind,
    parse_seed,
    rank_addresses,
    reachable_at,
)
from agentmesh.net.base import Contact

DID = NodeId(KeyPair.generate(b"\7" * 32).did)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        (f"{DID}@192.0.2.7:6374", "iroh:192.0.2.7:6374"),
        (f"{DID}@node.example", "iroh:node.example:6374"),
        (f"iroh:{DID}@[2001:db8::7]:1", "iroh:[2001:db8::7]:1"),
        (f"{DID}@https://relay.example/", "iroh:https://relay.example/"),
        (f"tls:{DID}@host:6375", "tls:host:6375"),
        (f"ws:{DID}@wss://host/mesh", "ws:wss://host/mesh"),
        (f"  {DID}@ws://host:80/mesh\n", "ws:ws://host:80/mesh"),
        (f"memory:{DID}@bob", "memory:bob"),
    ],
)
def test_a_seed_gives_the_node_and_its_address_and_back(text: str, address: str) -> None:
    contact = parse_seed(text)
    assert contact == Contact(DID, (address,))
    assert parse_seed(format_seed(DID, address)) == contact


@pytest.mark.parametrize(
    "text",
    [
        "",
        "@",
        "hello",
        DID,
        f"{DID}@",
        f"{DID}@:6374",
        f"{DID}@host:0",
        f"{DID}@host:65536",
        f"{DID}@host:port",
        f"{DID}@2001:db8::7:6374",
        f"{DID}@[host]:6374",
        f"{DID}@999.1.1.1:6374",
        f"{DID}@ho st:6374",
        f"tls:{DID}@wss://host/mesh",
        f"ws:{DID}@host:80",
        f"ws:{DID}@wss://user:password@host/mesh",
        "did:key:z6MkNobody@host:6374",
        f"udp:{DID}@host:6374",
        f"{DID}@{'h' * 600}:6374",
    ],
)
def test_a_malformed_seed_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_seed(text)
    assert caught.value.code == "seed.malformed"
    assert "did:key:" in (caught.value.hint or "")
    assert caught.value.why


@given(st.text(max_size=80))
def test_any_text_is_parsed_or_refused_and_never_a_crash(text: str) -> None:
    for candidate in (text, f"{DID}@{text}", f"ws:{DID}@wss://{text}", f"iroh:{text}"):
        for parse in (parse_seed, parse_address):
            with contextlib.suppress(UsageError):
                parse(candidate)


@given(st.ip_addresses(), st.integers(1, 65535))
def test_every_ip_and_port_survives_the_round_trip(ip: object, port: int) -> None:
    from agentmesh.net.addresses import join_host_port

    address = parse_address(f"tls:{join_host_port(str(ip), port)}")
    assert (address.host, address.port) == (str(ip), port)
    assert parse_address(str(address)) == address


def test_a_bind_address_may_ask_for_any_port_and_is_a_setting() -> None:
    assert parse_bind("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_bind("[::]:6374") == ("::", 6374)
    with pytest.raises(ConfigError):
        parse_bind("nonsense:port")


def test_own_addresses_are_lan_first_without_bridges_loopback_or_link_local() -> None:
    found = [
        ("lo", "127.0.0.1"),
        ("lo", "::1"),
        ("docker0", "172.17.0.1"),
        ("br-1234", "172.18.0.1"),
        ("vethab", "10.9.9.9"),
        ("cni0", "10.42.0.1"),
        ("virbr0", "192.168.122.1"),
        ("eth0", "fe80::1"),
        ("eth0", "2a00::7"),
        ("eth1", "198.51.100.7"),
        ("eth2", "93.184.216.34"),
        ("eth0", "192.168.1.20"),
        ("eth0", "192.168.1.20"),
    ]
    assert rank_addresses(found)[0].startswith(("192.168.1.20", "198.51"))
    assert set(rank_addresses(found)) == {"192.168.1.20", "198.51.100.7", "93.184.216.34", "2a00::7"}
    assert rank_addresses(found)[-1] == "2a00::7"
    assert rank_addresses(found, loopback=True)[-1] == "127.0.0.1"


def test_this_machine_offers_loopback_only_when_asked() -> None:
    assert not any(host.startswith("127.") for host in local_addresses())
    assert local_addresses(loopback=True)[-1] == "127.0.0.1"


def test_a_wildcard_is_reached_at_real_addresses_and_a_host_at_itself() -> None:
    assert reachable_at("192.0.2.7", 5) == (("192.0.2.7", 5),)
    places = reachable_at("0.0.0.0", 5)
    assert places
    assert all(host != "0.0.0.0" and ":" not in host and port == 5 for host, port in places)
