"""Sessions: two agents agree on keys with one signed handshake, then encrypt each letter by itself (docs/spec/sealed.md §2–4).

    initiator → offer    version, both identities, ephemeral X25519 key, time, signature
    responder → answer   version, ephemeral X25519 key, signature over the offer and the answer

Both signatures also cover ``context`` (both node ids), so an offer cannot be carried to another pair of nodes. Nobody but the two
named identities can know the keys: each ephemeral key is signed together with both names (no unknown key share), the two texts
that are signed begin differently (no reflection), and who replays an offer gets an answer whose secret needs the
ephemeral key that the initiator has forgotten. A responder knows that the initiator lives when the first letter opens.

Letters are AES-256-GCM under one key per direction and *era* of 65,536 letters. The key of an era is derived from a chain that
only goes forward (HKDF); what is two eras old is forgotten, so that a stolen memory opens nothing older.

Pure: entropy and time are arguments. ``cryptography`` loads with the first session.
"""

from __future__ import annotations

import hashlib
import hmac
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

from nacl.bindings import crypto_scalarmult, crypto_scalarmult_base
from nacl.exceptions import CryptoError

from agentmesh.errors import DecodeError, LimitError, ReplayError, SignatureError, StateError
from agentmesh.identity.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, KeyPair, verify

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

VERSION = 1
ENTROPY_BYTES = 32
OFFER_BYTES = 1 + 3 * 32 + 8 + SIGNATURE_BYTES
ANSWER_BYTES = 1 + 32 + SIGNATURE_BYTES
#: What a letter grows by: the count of its repetition (4) and the tag (16).
OVERHEAD_BYTES = 20
#: How far the two clocks may differ, milliseconds: those of ``core.courier.message``, since a message would be refused anyway.
SKEW_MS_MAX = 2 * 3_600_000
#: After so long or so many letters a session wants a new handshake: fresh ephemeral keys heal a stolen memory.
AGE_MS_MAX = 3_600_000
LETTERS_MAX = 1 << 31
#: A clock that is set back so far makes a session old too: its age cannot be known.
_BACK_MS_MAX = 60_000
#: Letters of one key: 2^16. Both ends keep the keys of the newest era and of the one before.
ERA_BITS = 16
_SEQ_MAX = 1 << 40
_REPEATS_MAX = 0xFFFF_FFFF
_FIRST = bytes(4)
_OFFER_LABEL = b"agentmesh/1 session offer\n"
_ANSWER_LABEL = b"agentmesh/1 session answer\n"
_KEYS_LABEL = b"agentmesh/1 session keys"
_ERA_LABEL = b"agentmesh/1 session era"
_CHAIN_LABEL = b"agentmesh/1 session chain"


class Initiator:
    """The side that asks for a session. Its ephemeral key is forgotten with it: keep it only until the answer is there.

    Args:
        key: Whose session.
        to: Raw public key of the agent to talk with.
        entropy: 32 secret random bytes, never used before.
        now_ms: Unix milliseconds.
        context: What the session is bound to, equal on both sides: both node ids, the initiator's first.

    Raises:
        LimitError: ``to`` or ``entropy`` has another size (code "session.size").
        SignatureError: ``to`` is this key itself (code "session.self").
    """

    __slots__ = ("_context", "_key", "_now_ms", "_secret", "_to", "offer")

    offer: bytes

    def __init__(self, key: KeyPair, to: bytes, entropy: bytes, now_ms: int, context: bytes = b"") -> None:
        _check_sizes(to, entropy)
        if to == key.public:
            raise SignatureError("a session with oneself", code="session.self")
        self._key, self._to, self._now_ms, self._context = key, bytes(to), now_ms, bytes(context)
        self._secret = bytes(entropy)
        said = b"".join(
            (bytes((VERSION,)), key.public, self._to, crypto_scalarmult_base(self._secret), now_ms.to_bytes(8, "big"))
        )
        self.offer = said + key.sign(_OFFER_LABEL + said + self._context)

    def finish(self, answer: bytes) -> Channel:
        """Return the channel that an answer opens. An answer that is refused changes nothing: a true one may still come.

        Raises:
            DecodeError: not an answer, or a key of low order (codes "session.malformed", "session.low_order").
            SignatureError: not signed by ``to`` for this offer and context (codes "signature.*").
        """
        said, signature = _split(answer, ANSWER_BYTES, "answer")
        verify(self._to, _ANSWER_LABEL + self.offer + said + self._context, signature)
        ours, theirs = _keys(_agree(self._secret, said[1:33]), self.offer, answer, self._context)
        return Channel(self._to, ours, theirs, self._now_ms)


def peek_recipient(offer: bytes) -> bytes:
    """Return the raw key of the agent that an offer names, unverified. Raises DecodeError (code "session.malformed")."""
    said, _ = _split(offer, OFFER_BYTES, "offer")
    return said[33:65]


def respond(
    key: KeyPair, offer: bytes, entropy: bytes, now_ms: int, context: bytes = b""
) -> tuple[bytes, Channel, bytes]:
    """Answer an offer.

    Args:
        key: The agent that the offer names (``peek_recipient``).
        offer: As it came.
        entropy: 32 secret random bytes, never used before.
        now_ms: Unix milliseconds.
        context: As for ``Initiator``.

    Returns:
        The answer, the channel, and the raw key of who made the offer, proven.

    Raises:
        DecodeError: not an offer, or a key of low order (codes "session.malformed", "session.low_order").
        SignatureError: for another agent, by this agent itself, or not signed for this context (codes "session.recipient",
            "session.self", "signature.*").
        ReplayError: its time is too far from ours (code "session.clock"). No state changed.
        LimitError: ``entropy`` has another size (code "session.size").
    """
    said, signature = _split(offer, OFFER_BYTES, "offer")
    sender, recipient, theirs, sent_ms = said[1:33], said[33:65], said[65:97], int.from_bytes(said[97:], "big")
    _check_sizes(sender, entropy)
    if recipient != key.public:
        raise SignatureError("a session offered to another agent", code="session.recipient")
    if sender == key.public:
        raise SignatureError("a session with oneself", code="session.self")
    if abs(now_ms - sent_ms) > SKEW_MS_MAX:
        raise ReplayError(
            f"a session was offered {abs(now_ms - sent_ms) // 1000} s {'ago' if sent_ms < now_ms else 'ahead of now'}",
            code="session.clock",
            why=f"the clocks of both nodes may differ by {SKEW_MS_MAX // 1000} s",
            hint="set the clocks of both machines (date -u)",
        )
    verify(sender, _OFFER_LABEL + said + context, signature)
    shared = _agree(entropy, theirs)
    answer = bytes((VERSION,)) + crypto_scalarmult_base(entropy)
    answer += key.sign(_ANSWER_LABEL + offer + answer + context)
    there, back = _keys(shared, offer, answer, context)
    return answer, Channel(sender, back, there, now_ms), sender


class Channel:
    """One end of a session; made by ``Initiator.finish`` and ``respond`` only.

    No (key, nonce) ever covers two letters. The two directions have keys of their own. The nonce is a count of 4 bytes and the
    seq of 8: the count is 0 when a seq is higher than all before it, which happens once, and else the next number of a
    counter that this end never turns back. So a letter that is sent again, even changed, is a new ciphertext under a new nonce,
    whatever the caller does. Channels are never stored: after a restart there are new keys.

    Repeated letters open again: the caller drops them by seq (docs/spec/courier.md).

    Attributes:
        peer: Raw public key of the agent at the other end, proven.
        made_ms: Unix milliseconds of the handshake, this end's clock.
    """

    __slots__ = ("_open", "_repeats", "_seal", "made_ms", "peer")

    def __init__(self, peer: bytes, ours: bytes, theirs: bytes, made_ms: int) -> None:
        self.peer, self.made_ms = peer, made_ms
        self._seal, self._open = _Eras(ours), _Eras(theirs)
        self._repeats = 0

    def seal(self, seq: int, aad: bytes, plain: bytes) -> bytes:
        """Encrypt a letter.

        Args:
            seq: Its number in this direction, 0 … 2^40-1; at most an era above the highest before.
            aad: What is not hidden but covered.
            plain: What is hidden; ``OVERHEAD_BYTES`` are added.

        Raises:
            StateError: the number is out of range or the session is used up (code "session.worn"), or the letter is more than
                an era older than the newest ("session.forgotten"). Nothing was encrypted.
        """
        eras = self._seal
        cipher = eras.ciphers.get(seq >> ERA_BITS) or eras.cipher(seq)
        if cipher is None:
            if seq < eras.top:
                raise StateError("the key of an old letter is forgotten", code="session.forgotten")
            raise StateError(f"letter {seq} is too far ahead, or the session is used up", code="session.worn")
        if seq > eras.top:
            eras.seen(seq)
            repeat = _FIRST
        elif self._repeats == _REPEATS_MAX:
            raise StateError("the session is used up", code="session.worn")
        else:
            self._repeats += 1
            repeat = self._repeats.to_bytes(4, "big")
        return repeat + cipher.encrypt(repeat + seq.to_bytes(8, "big"), plain, aad)

    def open(self, seq: int, aad: bytes, sealed: bytes) -> bytes:
        """Decrypt a letter.

        Raises:
            DecodeError: altered, another session's, seq's or direction's, truncated, too old or too far ahead (code
                "session.ciphertext"). No state changed.
        """
        eras = self._open
        cipher = eras.ciphers.get(seq >> ERA_BITS) or eras.cipher(seq)
        if cipher is None or len(sealed) < OVERHEAD_BYTES:
            raise _no_letter(seq)
        try:
            plain = cipher.decrypt(sealed[:4] + seq.to_bytes(8, "big"), sealed[4:], aad)
        except aead()[1] as error:
            raise _no_letter(seq) from error
        if seq > eras.top:
            eras.seen(seq)
        return plain

    def is_old(self, now_ms: int) -> bool:
        """Say whether a new handshake is due: after an hour, or 2^31 letters. The channel goes on until it is there."""
        age_ms = now_ms - self.made_ms
        return not -_BACK_MS_MAX <= age_ms < AGE_MS_MAX or max(self._seal.top, self._open.top) >= LETTERS_MAX

    def __repr__(self) -> str:
        return f"<Channel with {self.peer.hex()[:8]}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a channel is never pickled or copied")


class _Eras:
    """The ciphers of one direction: of the newest era, the one before it and, once asked for, the one after it."""

    __slots__ = ("_chain", "_next", "ciphers", "top")

    def __init__(self, chain: bytes) -> None:
        #: What the key of era ``_next`` and all later ones are derived from; nothing leads back from it.
        self._chain, self._next = chain, 0
        self.ciphers: dict[int, AESGCM] = {}
        #: The highest letter that was sealed, or proven by opening.
        self.top = -1

    def cipher(self, seq: int) -> AESGCM | None:
        """Return the cipher of a letter; None if it is forgotten, more than an era above ``top``, or no number of a letter."""
        era = seq >> ERA_BITS
        if not 0 <= seq < _SEQ_MAX or era > (max(self.top, 0) >> ERA_BITS) + 1:
            return None
        while self._next <= era:  # twice at most
            self.ciphers[self._next] = aead()[0](_derive(self._chain, _ERA_LABEL))
            self._chain, self._next = _derive(self._chain, _CHAIN_LABEL), self._next + 1
        return self.ciphers.get(era)

    def seen(self, seq: int) -> None:
        """Note a letter above all before it, and forget what is more than an era behind it."""
        self.top = seq
        oldest = (seq >> ERA_BITS) - 1
        if oldest - 1 in self.ciphers:
            del self.ciphers[oldest - 1]


@lru_cache(maxsize=1)
def aead() -> tuple[type[AESGCM], type[Exception]]:
    """Load ``cryptography``: 5 MB that a node without mail never pays."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM, InvalidTag


def _keys(shared: bytes, offer: bytes, answer: bytes, context: bytes) -> tuple[bytes, bytes]:
    """Return the chains of initiator → responder and back (HKDF-SHA256, RFC 5869; salt: all that was said)."""
    salt = hashlib.sha256(offer + answer + context).digest()
    secret = hmac.digest(salt, shared, "sha256")
    first = _derive(secret, _KEYS_LABEL)
    return first, hmac.digest(secret, first + _KEYS_LABEL + b"\x02", "sha256")


def _derive(secret: bytes, label: bytes) -> bytes:
    """Return the first 32 bytes of HKDF-Expand (RFC 5869 §2.3)."""
    return hmac.digest(secret, label + b"\x01", "sha256")


def _agree(secret: bytes, theirs: bytes) -> bytes:
    try:
        return crypto_scalarmult(secret, theirs)
    except CryptoError as error:
        # libsodium refuses an all-zero result: whoever sends a point of low order would know the keys of both.
        raise DecodeError("the ephemeral key is a point of low order", code="session.low_order") from error


def _split(raw: bytes, size: int, what: str) -> tuple[bytes, bytes]:
    if len(raw) != size or raw[0] != VERSION:
        raise DecodeError(f"not a session {what} of version {VERSION}", code="session.malformed")
    return raw[:-SIGNATURE_BYTES], raw[-SIGNATURE_BYTES:]


def _check_sizes(public: bytes, entropy: bytes) -> None:
    if len(public) != PUBLIC_KEY_BYTES or len(entropy) != ENTROPY_BYTES:
        raise LimitError("a session needs a key of 32 bytes and 32 bytes of entropy", code="session.size")


def _no_letter(seq: int) -> DecodeError:
    return DecodeError(
        f"letter {seq} does not open",
        code="session.ciphertext",
        why="it was altered on the way, or sealed in another session",
    )
