"""The UDP socket of a node: control messages of SWIM and the DHT as signed datagrams (docs/spec/wire.md §6).

No transport: it knows no links, streams or names. ``send`` seals one message and hands it to the kernel, or says False and
counts why; the driver then uses a link. What arrives is judged from cheap to dear: size, the rate of its source, the checks
of ``wire.envelope``, the message. Nothing that arrives raises; every drop is counted by reason; what a proven sender did
wrong is told, so that it is charged to that sender and to nobody else.

Limits against floods (`UdpLimits`): a token bucket per source address before anything costs more than a table lookup, and
one bucket for all sources that have not yet sent a good datagram, so that forged source addresses cannot buy more
signature checks than it holds, nor starve the sources that are known.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, NamedTuple

from agentmesh.errors import MeshError, NoRoute, StateError, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId
from agentmesh.net.addresses import join_host_port, parse_address, parse_bind, reachable_at
from agentmesh.wire import envelope, v1

SCHEME = "udp"
#: Reasons that are counted; any other is counted as "other", so that nobody makes the table grow.
REASONS = (
    "datagram.malformed",
    "datagram.misdirected",
    "datagram.version",
    "datagram.stale",
    "datagram.replayed",
    "signature.invalid",
    "wire.malformed",
    "wire.too_large",
    "rate.source",
    "rate.unknown",
    "notice.forged",
    "send.address",
    "send.family",
    "send.too_large",
    "send.full",
    "send.error",
    "error.received",
    "other",
)
#: What we keep of sent datagrams, to tell an answer to one of them from a forged notice.
_ECHOES_MAX = 512
_NOTICE_EACH_S = 5.0


@dataclass(frozen=True, slots=True)
class UdpLimits:
    """What one socket takes and holds. All defaults are guesses from the cost of a signature check, 60–90 µs.

    Attributes:
        source_per_s: Datagrams per second from one IPv4 address or IPv6 /64. Raise it where many nodes share one address
            (NAT, one machine); at the default, one source can cost 5 % of a core.
        unknown_per_s: Datagrams per second from all sources together that have not sent a good one yet: bounds what forged
            source addresses can cost, 10 % of a core at the default.
        burst_s: Seconds of either rate that may come at once.
        sources_max: Sources remembered, known and unknown each; the one heard longest ago goes first.
        senders_max: Senders whose nonces are remembered (``envelope.Replays``).
        notices_per_s: Notices sent per second to all; one per source in 5 s.
        buffer_bytes_max: Unsent bytes in user space above which a datagram is dropped.
    """

    source_per_s: float = 500.0
    unknown_per_s: float = 1_000.0
    burst_s: float = 2.0
    sources_max: int = 1_024
    senders_max: int = 2_048
    notices_per_s: float = 10.0
    buffer_bytes_max: int = 64 * 1024


class Told(NamedTuple):
    """A node answered a datagram of ours with a notice. The notice is unsigned: a hint for the operator, no more.

    Attributes:
        kind: "version" or "clock".
        node: To whom the datagram was sent that the notice answers.
        address: Where the notice came from.
        version: The datagram version spoken there.
        ahead_s: How far the clock there is ahead of ours, for "clock".
    """

    kind: str
    node: NodeId
    address: str
    version: int
    ahead_s: float


class _Bucket:
    """Tokens of one source. ``noticed_s`` is when it was last sent a notice."""

    __slots__ = ("at_s", "noticed_s", "tokens")

    def __init__(self, tokens: float, at_s: float) -> None:
        self.tokens, self.at_s, self.noticed_s = tokens, at_s, -_NOTICE_EACH_S

    def take(self, now_s: float, per_s: float, burst: float) -> bool:
        self.tokens = min(burst, self.tokens + (now_s - self.at_s) * per_s)
        self.at_s = now_s
        if self.tokens < 1.0:
            return False
        self.tokens -= 1.0
        return True


class UdpSocket(asyncio.DatagramProtocol):
    """One bound UDP socket.

    Args:
        key: The node's key.
        bind: ``host:port`` with an IP address as host; port 0 takes any free one. ``[::]`` takes IPv4 too.
        on_message: Called with the proven sender, the message and the address it came from.
        on_notice: Called when a node says that it drops what we send (``Told``).
        on_bad: Called with a proven sender, a code and a detail: it signed something that is no message.
        limits: See ``UdpLimits``.
        monotonic_s: Monotonic clock, seconds.
        wall_ms: Wall clock, unix milliseconds.

    Callbacks run on the event loop, must not block, and may call ``send``.
    """

    scheme = SCHEME

    def __init__(
        self,
        key: KeyPair,
        bind: str,
        *,
        on_message: Callable[[NodeId, Any, str], None],
        on_notice: Callable[[Told], None],
        on_bad: Callable[[NodeId, str, str], None],
        limits: UdpLimits | None = None,
        monotonic_s: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.limits = limits or UdpLimits()
        #: Drops by reason; keys are those of ``REASONS``.
        self.drops: dict[str, int] = dict.fromkeys(REASONS, 0)
        self.sent = self.received = 0
        self.bytes_sent = self.bytes_received = 0
        self._key, self._own = key, NodeId(key.did)
        self._bind = parse_bind(bind)
        self._on_message, self._on_notice, self._on_bad = on_message, on_notice, on_bad
        self._monotonic_s, self._wall_ms = monotonic_s, wall_ms
        self._transport: Any = None
        self._closed: asyncio.Future[None] | None = None
        self._family = socket.AF_INET
        self._mapped = False
        self._addresses: tuple[str, ...] = ()
        self._nonce = 0
        self._replays = envelope.Replays(self.limits.senders_max)
        self._known: dict[str | bytes, _Bucket] = {}
        self._unknown: dict[str | bytes, _Bucket] = {}
        now_s = monotonic_s()
        self._all_unknown = _Bucket(self.limits.unknown_per_s * self.limits.burst_s, now_s)
        self._notices = _Bucket(self.limits.notices_per_s, now_s)
        #: Tail of a sent datagram → to whom; oldest first.
        self._echoes: dict[bytes, NodeId] = {}

    # ---- life ------------------------------------------------------------------------------------------------------

    @property
    def addresses(self) -> tuple[str, ...]:
        """Where this node gets datagrams, most useful first; empty before ``open``."""
        return self._addresses

    async def open(self) -> None:
        """Bind.

        Raises:
            UsageError: the host is no IP address (code "address.malformed").
            StateError: the port is taken (code "port.taken").
            NoRoute: the machine does not have that address or family (code "transport.unavailable").
        """
        host, port = self._bind
        try:
            version = ip_address(host).version
        except ValueError as error:
            raise UsageError(f"{host[:60]!r} is no IP address", code="address.malformed") from error
        self._family = socket.AF_INET if version == 4 else socket.AF_INET6
        try:
            sock = socket.socket(self._family, socket.SOCK_DGRAM)
        except OSError as error:
            raise NoRoute(f"no UDP socket: {error}", code="transport.unavailable") from error
        try:
            sock.setblocking(False)
            if version == 6:
                self._mapped = host == "::"
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if self._mapped else 1)
            sock.bind((host, port))
            bound = sock.getsockname()[1]
            transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, sock=sock)
        except OSError as error:
            sock.close()
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                raise StateError(
                    f"UDP port {port} on {host} cannot be used: {error}",
                    code="port.taken",
                    hint="agentmesh config set listen_udp 0.0.0.0:0   takes any free port",
                ) from error
            raise NoRoute(f"cannot listen on {host}: {error}", code="transport.unavailable") from error
        except BaseException:
            sock.close()
            raise
        self._transport = transport
        self._addresses = tuple(f"{SCHEME}:{join_host_port(h, p)}" for h, p in reachable_at(host, bound))
        # Nonces go on rising over restarts as long as the clock does; Replays forgives a clock that was set back.
        self._nonce = max(self._nonce, max(self._wall_ms(), 0) << 20 & 2**63 - 1)

    async def aclose(self) -> None:
        """Close the socket. Idempotent."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()
            if self._closed is not None:
                with contextlib.suppress(asyncio.CancelledError):
                    await self._closed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._closed = asyncio.get_running_loop().create_future()

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by asyncio."""
        self._transport = None
        if self._closed is not None and not self._closed.done():
            self._closed.set_result(None)

    # ---- sending ---------------------------------------------------------------------------------------------------

    def send(self, to: NodeId, address: str, message: Any) -> bool:
        """Seal a message and send it; never blocks, never raises for what peers or networks do.

        Args:
            to: Who will be able to read it as sent to it.
            address: ``udp:ip:port``; names are refused, since looking one up takes time.
            message: One of ``wire.v1.DATAGRAMS``.

        Returns:
            False if it surely did not leave; then the reason was counted and a link may do.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return self._drop("send.error")
        target = _target(address, self._family == socket.AF_INET6, self._mapped)
        if target is None:
            return self._drop("send.address")
        if len(target) == 1:
            return self._drop("send.family")
        payload = v1.encode(message)
        if len(payload) > envelope.PAYLOAD_BYTES_MAX:
            return self._drop("send.too_large")
        if transport.get_write_buffer_size() > self.limits.buffer_bytes_max:
            return self._drop("send.full")
        self._nonce += 1
        raw = envelope.seal(self._key, to, payload, sent_ms=self._wall_ms(), nonce=self._nonce)
        self._echoes[raw[-8:]] = to
        if len(self._echoes) > _ECHOES_MAX:
            del self._echoes[next(iter(self._echoes))]
        return self._put(raw, target)

    def _put(self, raw: bytes, target: tuple[Any, ...]) -> bool:
        """Hand bytes to the kernel; an error of this very call is reported through ``error_received`` before it returns."""
        errors = self.drops["error.received"]
        try:
            self._transport.sendto(raw, target)
        except (OSError, ValueError, RuntimeError):
            return self._drop("send.error")
        if self.drops["error.received"] != errors:
            self.drops["error.received"] = errors
            return self._drop("send.error")
        self.sent += 1
        self.bytes_sent += len(raw)
        return True

    def error_received(self, exc: Exception) -> None:
        """Called by asyncio: the kernel refused a datagram, or told of one that came back."""
        self.drops["error.received"] += 1

    # ---- receiving -------------------------------------------------------------------------------------------------

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        """Called by asyncio: judge a datagram and hand on its message."""
        self.received += 1
        self.bytes_received += len(data)
        now_s = self._monotonic_s()
        source = _source_of(addr[0])
        bucket = self._admit(source, now_s)
        if bucket is None:
            return
        if envelope.is_notice(data):
            self._on_notice_bytes(data, addr)
            return
        now_ms = self._wall_ms()
        try:
            opened = envelope.open_envelope(data, self._own, now_ms, self._replays)
        except MeshError as error:
            self._drop(error.code)
            if error.code == "datagram.version" and data[2] < envelope.DATAGRAM_VERSION:
                self._answer("version", data, 0, bucket, addr, now_s)
            elif error.code == "datagram.stale":
                self._answer("clock", data, error.extra["ahead_ms"], bucket, addr, now_s)
            return
        if self._unknown.pop(source, None) is not None:
            _put_bounded(self._known, source, bucket, self.limits.sources_max)
        try:
            message = v1.decode_datagram(opened.payload)
        except MeshError as error:
            self._drop(error.code)
            self._on_bad(opened.sender, error.code, error.detail)
            return
        self._on_message(opened.sender, message, _address_of(addr))

    def _admit(self, source: str | bytes, now_s: float) -> _Bucket | None:
        """Return the bucket of a source that may send now, None (counted) otherwise."""
        limits = self.limits
        burst = limits.source_per_s * limits.burst_s
        bucket = self._known.pop(source, None)
        known = bucket is not None
        if bucket is None:
            bucket = self._unknown.pop(source, None) or _Bucket(burst, now_s)
        _put_bounded(self._known if known else self._unknown, source, bucket, limits.sources_max)
        if not bucket.take(now_s, limits.source_per_s, burst):
            self.drops["rate.source"] += 1
            return None
        if not known and not self._all_unknown.take(now_s, limits.unknown_per_s, limits.unknown_per_s * limits.burst_s):
            self.drops["rate.unknown"] += 1
            return None
        return bucket

    def _answer(
        self, kind: Any, data: bytes, ahead_ms: int, bucket: _Bucket, addr: tuple[Any, ...], now_s: float
    ) -> None:
        """Tell a sender why it is not heard, seldom."""
        if self._transport is None or now_s - bucket.noticed_s < _NOTICE_EACH_S:
            return
        if self._notices.take(now_s, self.limits.notices_per_s, self.limits.notices_per_s):
            bucket.noticed_s = now_s
            self._put(envelope.notice_of(kind, data, ahead_ms), addr)

    def _on_notice_bytes(self, data: bytes, addr: tuple[Any, ...]) -> None:
        try:
            notice = envelope.read_notice(data)
        except MeshError as error:
            self._drop(error.code)
            return
        to = self._echoes.pop(notice.echo, None)
        if to is None:
            self._drop("notice.forged")
            return
        self._on_notice(Told(notice.kind, to, _address_of(addr), notice.version, notice.ahead_ms / 1000))

    def _drop(self, reason: str) -> bool:
        self.drops[reason if reason in self.drops else "other"] += 1
        return False

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound is broken."""
        assert tuple(self.drops) == REASONS
        assert len(self._known) <= self.limits.sources_max
        assert len(self._unknown) <= self.limits.sources_max
        assert len(self._echoes) <= _ECHOES_MAX
        self._replays.assert_invariants()


def _put_bounded(table: dict[str | bytes, _Bucket], source: str | bytes, bucket: _Bucket, sources_max: int) -> None:
    if len(table) >= sources_max:
        del table[next(iter(table))]
    table[source] = bucket


@lru_cache(maxsize=4096)
def _target(address: str, six: bool, mapped: bool) -> tuple[Any, ...] | None:
    """Return where to send for an address text: None = unusable, one element = not reachable from this family."""
    if not address.startswith("udp:"):
        return None
    try:
        parsed = parse_address(address)
        ip = ip_address(parsed.host)
    except (UsageError, ValueError):
        return None
    if ip.is_multicast or ip.is_unspecified or str(ip) == "255.255.255.255":
        return None
    if ip.version == 4:
        if not six:
            return (str(ip), parsed.port)
        return (f"::ffff:{ip}", parsed.port, 0, 0) if mapped else ("family",)
    return (str(ip), parsed.port, 0, 0) if six else ("family",)


@lru_cache(maxsize=4096)
def _source_of(host: str) -> str | bytes:
    """Return what stands for a source: the IPv4 address, or the /64 of an IPv6 one, which one host owns whole."""
    if ":" not in host:
        return host
    if host.startswith("::ffff:") and "." in host:
        return host[7:]
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]


def _address_of(addr: tuple[Any, ...]) -> str:
    host = str(addr[0]).partition("%")[0]
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return f"{SCHEME}:{join_host_port(host, addr[1])}"
