"""Signed datagrams: what SWIM and the DHT travel in over plain UDP (docs/spec/wire.md §6). Pure: no socket, no clock.

A datagram proves who sent it, for whom, and when; it hides nothing. The checks go from cheap to dear: length, magic,
version, receiver, time, replay, and only then the signature (60 µs, the price a flood would make us pay).

    magic 2 │ version 1 │ kind 1 │ receiver mark 8 │ sender key 32 │ sent_ms 6 │ nonce 8 │ payload │ signature 64

The signature covers ``"agentmesh/1 datagram\\n"``, the receiver's whole public key (of which only a mark travels) and all
bytes before the signature. A *notice* is the one unsigned kind: a few bytes that tell a sender why nobody listens to it.
"""

from __future__ import annotations

from hashlib import sha256
from struct import Struct
from typing import Literal, NamedTuple

from agentmesh.errors import DecodeError, LimitError, ReplayError, VersionError
from agentmesh.identity.keys import SIGNATURE_BYTES, KeyPair, verify
from agentmesh.ids import NodeId, node_id, public_key_of

MAGIC = b"\xa6M"
#: Layout of signed datagrams; raised when it changes. Notices keep their layout in every version.
DATAGRAM_VERSION = 1
#: Largest payload, bytes: with what is around it, a datagram stays below the 1,400 that nearly every path carries.
PAYLOAD_BYTES_MAX = 1_200
#: How far a datagram's time may lie from ours, milliseconds, either way. Within it, nonces tell replays.
WINDOW_MS = 60_000
#: Nonces below the highest one of a sender that may still come: more reordering than a path makes in a second.
NONCES_BEHIND_MAX = 1_024

_HEADER = Struct(">2sBB8s32sHIQ")  # sent_ms is a u48: its high 16 and low 32 bits
_NOTICE = Struct(">2sBBB8sq")
_SIGNED, _NOTICED = 0, 1
_CONTEXT = b"agentmesh/1 datagram\n"
_BITS = (1 << NONCES_BEHIND_MAX) - 1
OVERHEAD_BYTES = _HEADER.size + SIGNATURE_BYTES
DATAGRAM_BYTES_MAX = OVERHEAD_BYTES + PAYLOAD_BYTES_MAX
NOTICE_BYTES = _NOTICE.size
_NOTICE_KINDS: tuple[Literal["version", "clock"], ...] = ("version", "clock")


class Opened(NamedTuple):
    """A datagram that holds.

    Attributes:
        sender: Proven by its key.
        payload: An encoded message.
        nonce: Never used twice by the sender within the window.
        sent_ms: The sender's wall clock, unix milliseconds.
    """

    sender: NodeId
    payload: bytes
    nonce: int
    sent_ms: int


class Notice(NamedTuple):
    """Unsigned: somebody who got a datagram of ours says why it dropped it.

    Attributes:
        kind: "version": it speaks another one; "clock": our time and its differ by more than the window.
        version: The datagram version it speaks.
        ahead_ms: How far its clock was ahead of the time in our datagram; meaningless for "version".
        echo: Last 8 bytes of the datagram it answers: who did not see that datagram cannot know them.
    """

    kind: Literal["version", "clock"]
    version: int
    ahead_ms: int
    echo: bytes


class Replays:
    """Nonces seen, per sender, as a sliding bitmap; bounded.

    A sender is forgotten as soon as all it sent is older than the window, since its time then refuses a replay; so a node
    that restarts with lower nonces is heard again. When the table is full the sender heard longest ago goes: who signs with
    thousands of keys can so replay a packet of somebody else within the window. Control messages bear that: they are
    idempotent, and what they carry is signed and numbered.

    Args:
        senders_max: Senders remembered, about 500 bytes each.
    """

    __slots__ = ("_senders", "senders_max")

    def __init__(self, senders_max: int = 2_048) -> None:
        self.senders_max = senders_max
        #: sender key → (highest nonce, bits of the nonces below it, latest sent_ms); heard longest ago first.
        self._senders: dict[bytes, tuple[int, int, int]] = {}

    def __len__(self) -> int:
        return len(self._senders)

    def check(self, sender: bytes, nonce: int, now_ms: int) -> None:
        """Raise ReplayError (code "datagram.replayed") if the nonce was seen, or is too far behind to tell."""
        seen = self._senders.get(sender)
        if seen is None or seen[2] < now_ms - WINDOW_MS:
            return
        behind = seen[0] - nonce
        if behind >= NONCES_BEHIND_MAX or (behind >= 0 and seen[1] >> behind & 1):
            raise ReplayError("a datagram came a second time", code="datagram.replayed")

    def admit(self, sender: bytes, nonce: int, sent_ms: int, now_ms: int) -> None:
        """Remember a nonce; only after its signature held, else anybody could block a sender's nonces."""
        seen = self._senders.pop(sender, None)
        if seen is None or seen[2] < now_ms - WINDOW_MS:
            self._senders[sender] = (nonce, 1, sent_ms)
            if len(self._senders) > self.senders_max:
                del self._senders[next(iter(self._senders))]
            return
        highest, bits, latest_ms = seen
        if nonce > highest:
            ahead = nonce - highest
            bits = (bits << ahead & _BITS | 1) if ahead < NONCES_BEHIND_MAX else 1
            highest = nonce
        else:
            bits |= 1 << (highest - nonce)
        self._senders[sender] = (highest, bits, max(latest_ms, sent_ms))

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound is broken."""
        assert len(self._senders) <= self.senders_max
        for highest, bits, _ in self._senders.values():
            assert 0 <= highest < 2**64
            assert bits & 1
            assert bits <= _BITS


def mark_of(public_key: bytes) -> bytes:
    """Return the 8 bytes by which a receiver knows that a datagram is for it."""
    return sha256(public_key).digest()[:8]


def seal(key: KeyPair, to: NodeId, payload: bytes, *, sent_ms: int, nonce: int) -> bytes:
    """Return the signed datagram.

    Args:
        key: The sender's.
        to: The receiver; nobody else will read it.
        payload: An encoded message.
        sent_ms: Wall clock, unix milliseconds.
        nonce: u64, above all nonces this key used before (within the window at least).

    Raises:
        LimitError: the payload is over ``PAYLOAD_BYTES_MAX`` (code "datagram.too_large"). Nothing was signed.
    """
    if len(payload) > PAYLOAD_BYTES_MAX:
        raise LimitError(f"a datagram carries {PAYLOAD_BYTES_MAX} bytes, not {len(payload)}", code="datagram.too_large")
    receiver = public_key_of(to)
    header = _HEADER.pack(
        MAGIC,
        DATAGRAM_VERSION,
        _SIGNED,
        mark_of(receiver),
        key.public,
        sent_ms >> 32 & 0xFFFF,
        sent_ms & 0xFFFFFFFF,
        nonce,
    )
    body = header + payload
    return body + key.sign(_CONTEXT + receiver + body)


def open_envelope(raw: bytes, own: NodeId, now_ms: int, replays: Replays | None = None) -> Opened:
    """Check a datagram of any origin, cheapest checks first.

    Args:
        raw: What arrived.
        own: This node.
        now_ms: Our wall clock, unix milliseconds.
        replays: What was seen; remembers this one if it holds. None = replays are not judged.

    Raises:
        DecodeError: no datagram of ours (code "datagram.malformed") or for somebody else (code "datagram.misdirected").
        VersionError: another layout (code "datagram.version"); a notice may answer it.
        ReplayError: its time is too far from ours (code "datagram.stale"; ``extra["ahead_ms"]`` says how far our clock is
            ahead; a notice may answer it), or it came before (code "datagram.replayed").
        SignatureError: the sender did not sign this for us (codes "signature.*").
            Nothing was remembered in any of these cases.
    """
    if not NOTICE_BYTES < len(raw) <= DATAGRAM_BYTES_MAX or raw[:2] != MAGIC:
        raise DecodeError(f"{len(raw)} bytes that are no datagram of ours", code="datagram.malformed")
    if raw[2] != DATAGRAM_VERSION:
        raise VersionError(
            f"a datagram of version {raw[2]}, this node speaks {DATAGRAM_VERSION}",
            code="datagram.version",
            hint="upgrade agentmesh on the machine with the older version",
        )
    if len(raw) < OVERHEAD_BYTES or raw[3] != _SIGNED:
        raise DecodeError("a datagram cut short or of an unknown kind", code="datagram.malformed")
    _, _, _, mark, sender, high, low, nonce = _HEADER.unpack_from(raw)
    receiver = public_key_of(own)
    if mark != mark_of(receiver) or sender == receiver:
        raise DecodeError("a datagram for another node", code="datagram.misdirected")
    sent_ms = high << 32 | low
    ahead_ms = now_ms - sent_ms
    if not -WINDOW_MS <= ahead_ms <= WINDOW_MS:
        raise ReplayError(
            f"a datagram whose time differs from ours by {abs(ahead_ms) // 1000} s",
            code="datagram.stale",
            hint="compare the clocks of both machines (date -u)",
            extra={"ahead_ms": ahead_ms},
        )
    if replays is not None:
        replays.check(sender, nonce, now_ms)
    verify(sender, _CONTEXT + receiver + raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:])
    if replays is not None:
        replays.admit(sender, nonce, sent_ms, now_ms)
    return Opened(node_id(sender), raw[_HEADER.size : -SIGNATURE_BYTES], nonce, sent_ms)


def notice_of(kind: Literal["version", "clock"], answered: bytes, ahead_ms: int = 0) -> bytes:
    """Return the notice that answers a datagram: 21 bytes, always less than what it answers.

    Args:
        kind: Why the datagram was dropped.
        answered: The datagram, as it came, longer than ``NOTICE_BYTES``.
        ahead_ms: How far our clock is ahead of the time it names.
    """
    return _NOTICE.pack(
        MAGIC,
        DATAGRAM_VERSION,
        _NOTICED,
        _NOTICE_KINDS.index(kind),
        answered[-8:],
        max(-(2**63), min(ahead_ms, 2**63 - 1)),
    )


def is_notice(raw: bytes) -> bool:
    """Say whether this is a notice and not a signed datagram, of whichever version."""
    return len(raw) == NOTICE_BYTES and raw[:2] == MAGIC and raw[3] == _NOTICED


def read_notice(raw: bytes) -> Notice:
    """Decode a notice. It is unsigned: compare ``echo`` with what was really sent, and believe it as far as a hint goes.

    Raises:
        DecodeError: no notice (code "datagram.malformed").
    """
    if not is_notice(raw) or raw[4] >= len(_NOTICE_KINDS):
        raise DecodeError("not a notice", code="datagram.malformed")
    _, version, _, kind, echo, ahead_ms = _NOTICE.unpack(raw)
    return Notice(_NOTICE_KINDS[kind], version, ahead_ms, echo)
