"""The UDP socket: what proven senders say arrives, all else is counted and costs little."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agentmesh.core.plumtree.messages import Prune
from agentmesh.core.swim.messages import Ping
from agentmesh.errors import ConfigError, MeshError, NoRoute, StateError, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.net.addresses import parse_address, parse_seed
from agentmesh.net.udp import REASONS, Told, UdpLimits, UdpSocket
from agentmesh.wire import envelope, v1

NEAR, FAR = KeyPair(bytes([1]) * 32), KeyPair(bytes([2]) * 32)
OWN = NodeId(FAR.did)
NOW = 1_800_000_000_000
PING = Ping(1, 2, 3, 4)


class Clock:
    """Both clocks, moved by hand."""

    def __init__(self) -> None:
        self.s, self.ms = 100.0, NOW


class Ends:
    """A socket under test and what it told."""

    def __init__(self, key: KeyPair, bind: str = "127.0.0.1:0", limits: UdpLimits | None = None) -> None:
        self.clock = Clock()
        self.messages: asyncio.Queue[tuple[NodeId, Any, str]] = asyncio.Queue()
        self.told: asyncio.Queue[Told] = asyncio.Queue()
        self.bad: list[tuple[NodeId, str]] = []
        self.socket = UdpSocket(
            key,
            bind,
            on_message=lambda *seen: self.messages.put_nowait(seen),
            on_notice=self.told.put_nowait,
            on_bad=lambda peer, code, detail: self.bad.append((peer, code)),
            limits=limits,
            monotonic_s=lambda: self.clock.s,
            wall_ms=lambda: self.clock.ms,
        )

    @property
    def drops(self) -> dict[str, int]:
        return {reason: count for reason, count in self.socket.drops.items() if count}

    def take(self, raw: bytes, source: str = "192.0.2.1", port: int = 9) -> None:
        """Let the kernel bring these bytes."""
        self.socket.datagram_received(raw, (source, port))
        self.socket.assert_invariants()


@asynccontextmanager
async def opened(*ends: Ends) -> AsyncIterator[None]:
    for end in ends:
        await end.socket.open()
    try:
        yield
    finally:
        for end in ends:
            await end.socket.aclose()


def sealed(nonce: int = 1, *, payload: bytes | None = None, sent_ms: int = NOW, key: KeyPair = NEAR) -> bytes:
    return envelope.seal(key, OWN, v1.encode(PING) if payload is None else payload, sent_ms=sent_ms, nonce=nonce)


async def test_a_message_arrives_with_its_proven_sender_and_where_it_came_from() -> None:
    near, far = Ends(NEAR), Ends(FAR)
    async with opened(near, far):
        (there,), (here,) = far.socket.addresses, near.socket.addresses
        assert there.startswith("udp:127.0.0.1:")
        assert near.socket.send(OWN, there, PING)
        assert await far.messages.get() == (NEAR.did, PING, here)
        assert far.socket.send(NodeId(NEAR.did), here, PING)
        assert await near.messages.get() == (FAR.did, PING, there)
        assert (near.drops, far.drops) == ({}, {})


async def test_ipv6_and_a_socket_for_both_families() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    six, both, four = Ends(NEAR, "[::1]:0"), Ends(FAR, "[::]:0"), Ends(NEAR)
    four.clock.ms += 1  # a later run of the same node
    async with opened(six, both, four):
        port = parse_address(both.socket.addresses[0]).port
        assert six.socket.send(OWN, f"udp:[::1]:{port}", PING)
        assert await both.messages.get() == (NEAR.did, PING, six.socket.addresses[0])
        assert four.socket.send(OWN, f"udp:127.0.0.1:{port}", PING)
        assert await both.messages.get() == (NEAR.did, PING, four.socket.addresses[0])
        assert both.socket.send(NodeId(NEAR.did), four.socket.addresses[0], PING)
        assert (await four.messages.get())[0] == FAR.did
        assert not four.socket.send(OWN, f"udp:[::1]:{port}", PING)
        assert four.drops == {"send.family": 1}


@pytest.mark.parametrize(
    "address",
    ["udp:localhost:1", "udp:192.0.2.1:0", "udp:192.0.2.1:99999", "iroh:192.0.2.1:1", "", "udp:", "udp:224.0.0.1:1",
     "udp:0.0.0.0:1", "udp:255.255.255.255:1", "udp:[ff02::1]:1", "udp:" + "1" * 600],
)  # fmt: skip
async def test_an_address_that_is_no_unicast_ip_is_refused_without_a_lookup(address: str) -> None:
    end = Ends(NEAR)
    async with opened(end):
        assert not end.socket.send(OWN, address, PING)
        assert end.drops == {"send.address": 1}


async def test_what_cannot_be_sent_is_counted_and_never_raised() -> None:
    end = Ends(NEAR)
    assert not end.socket.send(OWN, "udp:127.0.0.1:9", PING)
    async with opened(end):
        assert not end.socket.send(OWN, "udp:127.0.0.1:9", Ping(1, 2, 3, 4, records=(bytes(1_200),)))
        assert end.drops == {"send.error": 1, "send.too_large": 1}
    assert not end.socket.send(OWN, "udp:127.0.0.1:9", PING)
    await end.socket.aclose()


class _Wire:
    """A transport whose kernel says no, as asyncio's does: through ``error_received``, before ``sendto`` returns."""

    def __init__(self, end: Ends, error: int = 0, full: int = 0) -> None:
        self.end, self.error, self.full, self.put = end, error, full, list[bytes]()

    def is_closing(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.full

    def sendto(self, raw: bytes, target: Any) -> None:
        self.put.append(raw)
        if self.error:
            self.end.socket.error_received(OSError(self.error, "no"))


def wired(end: Ends, **kinds: int) -> _Wire:
    end.socket._transport = wire = _Wire(end, **kinds)
    return wire


@pytest.mark.parametrize("error", [errno.ENETUNREACH, errno.EMSGSIZE, errno.EPERM])
async def test_an_error_of_the_kernel_means_false_so_that_a_link_is_used(error: int) -> None:
    end = Ends(NEAR)
    wired(end, error=error)
    assert not end.socket.send(OWN, "udp:192.0.2.1:9", PING)
    assert end.drops == {"send.error": 1}


async def test_a_full_buffer_drops_instead_of_growing() -> None:
    end = Ends(NEAR)
    wire = wired(end, full=65 * 1024)
    assert not end.socket.send(OWN, "udp:192.0.2.1:9", PING)
    assert (end.drops, wire.put) == ({"send.full": 1}, [])


async def test_every_sent_datagram_has_a_nonce_of_its_own_above_those_of_an_earlier_run() -> None:
    async def nonces(end: Ends) -> list[int]:
        async with opened(end):
            real, wire = end.socket._transport, wired(end)
            for _ in range(3):
                assert end.socket.send(OWN, "udp:192.0.2.1:9", PING)
            end.socket._transport = real
        return [envelope.open_envelope(raw, OWN, NOW).nonce for raw in wire.put]

    first, later = Ends(NEAR), Ends(NEAR)
    later.clock.ms += 1
    found = await nonces(first) + await nonces(later)
    assert found == sorted(set(found))
    assert found[-1] < 2**63


async def test_a_port_that_is_taken_and_an_address_that_is_not_here_are_named() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        for bind, kind, code in [
            (f"127.0.0.1:{taken.getsockname()[1]}", StateError, "port.taken"),
            ("192.0.2.1:0", NoRoute, "transport.unavailable"),
            ("localhost:0", UsageError, "address.malformed"),
        ]:
            with pytest.raises(kind) as caught:
                await Ends(NEAR, bind).socket.open()
            assert caught.value.code == code
    with pytest.raises(ConfigError):
        Ends(NEAR, "127.0.0.1:x")


# -- what arrives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: b"", "datagram.malformed"),
        (lambda: b"\xa6M", "datagram.malformed"),
        (lambda: bytes(65_507), "datagram.malformed"),
        (lambda: sealed()[:-1] + b"\x00", "signature.invalid"),
        (lambda: envelope.seal(NEAR, NodeId(NEAR.did), b"", sent_ms=NOW, nonce=1), "datagram.misdirected"),
        (lambda: sealed(sent_ms=NOW - 61_000), "datagram.stale"),
        (lambda: b"\xa6M\x02" + bytes(99), "datagram.version"),
        (lambda: envelope.notice_of("clock", bytes(99)), "notice.forged"),
    ],
)
async def test_bad_datagrams_are_counted_by_reason_and_charged_to_nobody(
    make: Callable[[], bytes], reason: str
) -> None:
    end = Ends(FAR)
    end.take(make())
    assert end.drops == {reason: 1}
    assert end.bad == []
    assert end.messages.empty()
    assert end.told.empty()


async def test_a_replayed_datagram_is_dropped() -> None:
    end = Ends(FAR)
    end.take(sealed())
    end.take(sealed(), "198.51.100.7")
    assert (end.messages.qsize(), end.drops) == (1, {"datagram.replayed": 1})


@pytest.mark.parametrize(
    ("payload", "code"), [(b"\xc1", "wire.malformed"), (v1.encode(Prune()), "wire.malformed"), (b"", "wire.malformed")]
)
async def test_a_signed_payload_that_is_no_datagram_message_is_charged_to_its_signer(payload: bytes, code: str) -> None:
    end = Ends(FAR)
    end.take(sealed(payload=payload))
    assert (end.bad, end.drops) == ([(NodeId(NEAR.did), code)], {code: 1})


async def test_a_flood_from_one_source_costs_no_signature_checks_beyond_its_rate(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried: list[bytes] = []
    real = envelope.verify
    monkeypatch.setattr(envelope, "verify", lambda p, m, s: (tried.append(s), real(p, m, s))[1])
    end = Ends(FAR, limits=UdpLimits(source_per_s=10, burst_s=1))
    for n in range(1_000):
        end.take(sealed(n)[:-8] + bytes(8))
    assert len(tried) == 10
    assert end.drops == {"signature.invalid": 10, "rate.source": 990}
    end.take(sealed(), "198.51.100.7")
    assert end.messages.qsize() == 1
    end.clock.s += 0.5
    for n in range(20):
        end.take(sealed(n)[:-8] + bytes(8))
    assert len(tried) == 15


async def test_forged_sources_share_one_rate_and_take_nothing_from_known_ones() -> None:
    end = Ends(FAR, limits=UdpLimits(unknown_per_s=10, burst_s=1, sources_max=20))
    end.take(sealed(0), "198.51.100.7")
    for n in range(500):
        end.take(sealed()[:-8] + bytes(8), f"10.0.{n // 250}.{n % 250}")
    assert end.drops == {"signature.invalid": 9, "rate.unknown": 491}
    for n in range(1, 50):
        end.take(sealed(n), "198.51.100.7")
    assert end.messages.qsize() == 50


async def test_addresses_of_one_ipv6_network_are_one_source() -> None:
    end = Ends(FAR, limits=UdpLimits(source_per_s=10, burst_s=1))
    for n in range(100):
        end.take(bytes(99), f"2001:db8::{n:x}")
    end.take(bytes(99), "2001:db8:0:1::1")
    assert end.drops == {"datagram.malformed": 11, "rate.source": 90}


async def test_random_bytes_of_any_size_raise_nothing_and_leave_the_counters_bounded() -> None:
    import random

    rng = random.Random(7)
    end = Ends(FAR, limits=UdpLimits(source_per_s=1e6, unknown_per_s=1e6))
    good = sealed()
    for _ in range(3_000):
        raw = bytearray(rng.choice((good, rng.randbytes(rng.randrange(200)), envelope.notice_of("clock", good))))
        for _ in range(rng.randrange(1, 4)):
            if raw:
                raw[rng.randrange(len(raw))] = rng.randrange(256)
        if raw != good:
            end.take(bytes(raw[: rng.randrange(len(raw) + 1)]) if rng.random() < 0.3 else bytes(raw))
    assert end.messages.empty()
    assert tuple(end.socket.drops) == REASONS
    assert end.socket.drops["other"] == 0


# -- notices ----------------------------------------------------------------------------------------------------------


async def test_a_node_with_a_wrong_clock_is_told_so_and_by_how_much() -> None:
    near, far = Ends(NEAR), Ends(FAR)
    near.clock.ms -= 3_600_000
    async with opened(near, far):
        (there,) = far.socket.addresses
        assert near.socket.send(OWN, there, PING)
        assert await near.told.get() == Told("clock", OWN, there, 1, 3_600.0)
        assert far.drops == {"datagram.stale": 1}
        assert far.messages.empty()


async def test_an_older_version_is_told_ours_and_a_newer_one_is_left_to_tell_us() -> None:
    end = Ends(FAR)
    wire = wired(end)
    end.take(b"\xa6M\x02" + bytes(99))
    assert wire.put == []
    old = b"\xa6M\x00" + bytes(91) + b"the tail"
    end.take(old, "198.51.100.7")
    assert [envelope.read_notice(raw)[:2] for raw in wire.put] == [("version", 1)]
    assert envelope.read_notice(wire.put[0]).echo == b"the tail"


async def test_a_notice_counts_once_and_only_as_an_answer_to_what_was_sent() -> None:
    near = Ends(NEAR)
    wire = wired(near)
    near.socket.send(OWN, "udp:192.0.2.1:9", PING)
    notice = envelope.notice_of("clock", wire.put[0], 5_000)
    near.take(notice)
    near.take(notice)
    assert near.told.get_nowait() == Told("clock", OWN, "udp:192.0.2.1:9", 1, 5.0)
    assert near.told.empty()
    assert near.drops == {"notice.forged": 1}


async def test_notices_are_few() -> None:
    end = Ends(FAR, limits=UdpLimits(notices_per_s=3))
    wire = wired(end)
    for n in range(5):
        end.take(sealed(n, sent_ms=0))
    assert len(wire.put) == 1
    for n in range(30):
        end.take(sealed(n, sent_ms=0), f"198.51.100.{n}")
    assert len(wire.put) == 3
    assert all(len(raw) == envelope.NOTICE_BYTES for raw in wire.put)
    end.clock.s += 5
    end.take(sealed(9, sent_ms=0))
    assert len(wire.put) == 4


def test_a_udp_address_names_an_ip_and_is_no_seed() -> None:
    assert str(parse_address("udp:[2001:db8::7]:6376")) == "udp:[2001:db8::7]:6376"
    for text in ("udp:host:1", "udp:192.0.2.7", "udp:1.2.3:4"):
        with pytest.raises(MeshError) as caught:
            parse_address(text)
        assert caught.value.code == "address.malformed"
    with pytest.raises(MeshError) as caught:
        parse_seed(f"udp:{NEAR.did}@192.0.2.7:6376")
    assert caught.value.code == "seed.malformed"
