"""Two real mDNS speakers on one segment."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from agentmesh.errors import NoRoute
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.net.mdns import Mdns

pytestmark = [pytest.mark.multicast, pytest.mark.e2e]


def multicast_interface() -> str | None:
    """Return the address of an interface on which this host hears its own multicast, or None."""
    import ifaddr

    found = [str(ip.ip) for adapter in ifaddr.get_adapters() for ip in adapter.ips if ip.is_IPv4]
    return next((ip for ip in sorted(found, key=lambda ip: not ip.startswith("127.")) if _hears_itself(ip)), None)


def _hears_itself(ip: str) -> bool:
    group = "224.0.0.251"
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ear,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mouth,
    ):
        try:
            ear.bind(("", 0))
            ear.settimeout(0.5)
            ear.setsockopt(
                socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("4s4s", *map(socket.inet_aton, (group, ip)))
            )
            mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(ip))
            mouth.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            mouth.sendto(b"agentmesh?", (group, ear.getsockname()[1]))
            return ear.recv(64) == b"agentmesh?"
        except OSError:
            return False


@contextlib.asynccontextmanager
async def speaking(seed: int, ip: str) -> AsyncIterator[tuple[NodeId, asyncio.Queue[tuple[NodeId, list[str]]]]]:
    heard: asyncio.Queue[tuple[NodeId, list[str]]] = asyncio.Queue()
    node = NodeId(KeyPair(bytes([seed]) * 32).did)
    mdns = Mdns(
        node,
        f"node {seed}",
        6374,
        [f"tls:{ip}:{6374 + seed}"],
        lambda who, where: heard.put_nowait((who, where)),
        interfaces=[ip],
    )
    try:
        await mdns.open()
    except NoRoute as error:
        pytest.skip(f"mDNS cannot be opened here: {error}")
    try:
        yield node, heard
    finally:
        await mdns.aclose()


async def test_two_nodes_on_one_segment_hear_each_others_addresses() -> None:
    ip = multicast_interface()
    if ip is None:
        pytest.skip("no interface of this machine delivers multicast to itself")
    async with speaking(1, ip) as (first, heard_by_first), speaking(2, ip) as (second, heard_by_second):
        async with asyncio.timeout(20):
            assert await heard_by_first.get() == (second, [f"tls:{ip}:6376"])
            assert await heard_by_second.get() == (first, [f"tls:{ip}:6375"])
