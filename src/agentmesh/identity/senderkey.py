"""Sender keys: one encryption for a whole group, and a signature by which its members cannot speak for each other
(docs/spec/sealed.md §7).

Each sender has a chain for each epoch of a group: 32 random bytes that it gives to every member of that epoch through sessions.
Each letter is encrypted under the next key of the chain and signed. The chain goes forward only, so who gets it late, a
newcomer, opens nothing earlier; when somebody leaves, a new epoch begins with new chains that the one who left never sees.

    letter = version 1 | group 16 | epoch 4 | chain 8 | index 4 | signature 64 | AES-256-GCM

A key is used for one letter only, so its nonce is zero. A sender's chain is never stored: after a restart there is a new one.
Pure; chance is an argument. ``cryptography`` loads with the first letter.
"""

from __future__ import annotations

import hmac
import struct
from typing import NamedTuple, NoReturn

from agentmesh.errors import DecodeError, LimitError, StateError
from agentmesh.identity.keys import SIGNATURE_BYTES, KeyPair, verify
from agentmesh.identity.session import aead

VERSION = 1
GROUP_BYTES = 16
CHAIN_BYTES = 8
SECRET_BYTES = 32
#: Letters of one chain; then the sender begins another.
LETTERS_MAX = 65_536
#: How far a letter may be ahead of what was opened: what lies between costs one HMAC each.
AHEAD_MAX = 4_096
#: How far a letter may be behind those that are kept already: one of low priority is overtaken by many.
BEHIND_MAX = 4_096
#: Keys at hand; those of older letters are computed again.
_KEYS_MAX = 256
_EPOCH_MAX = 0xFFFF_FFFF
_head = struct.Struct(f">B{GROUP_BYTES}sI{CHAIN_BYTES}sI")
HEAD_BYTES = _head.size
#: What a letter grows by.
OVERHEAD_BYTES = HEAD_BYTES + SIGNATURE_BYTES + 16
_LABEL = b"agentmesh/1 group letter\n"
_NONCE = bytes(12)


class Head(NamedTuple):
    """What anybody can read on a letter, unproven.

    Attributes:
        group: 16 bytes that name the group.
        epoch: Of the member set.
        chain: Name of the sender's chain, random.
        number: Of the letter in it.
    """

    group: bytes
    epoch: int
    chain: bytes
    number: int


def read_head(raw: bytes) -> Head:
    """Return the head of a letter. Raises DecodeError (code "group.malformed")."""
    if len(raw) < OVERHEAD_BYTES or raw[0] != VERSION:
        raise DecodeError("not a letter to a group", code="group.malformed")
    _, group, epoch, chain, index = _head.unpack_from(raw)
    if epoch < 1 or index >= LETTERS_MAX:
        raise DecodeError("not a letter to a group", code="group.malformed")
    return Head(group, epoch, chain, index)


class SendingChain:
    """The chain of one sender here, in one epoch of a group.

    Args:
        key: Who sends.
        group, epoch: Which members.
        entropy: 40 secret random bytes, never used before: the chain's name and its beginning.

    Raises:
        LimitError: an argument has another size (code "group.size").

    Attributes:
        chain: Its name.
        index: Number of the next letter.
    """

    __slots__ = ("_key", "_secret", "chain", "epoch", "group", "index")

    def __init__(self, key: KeyPair, group: bytes, epoch: int, entropy: bytes) -> None:
        if len(group) != GROUP_BYTES or len(entropy) != CHAIN_BYTES + SECRET_BYTES or not 1 <= epoch <= _EPOCH_MAX:
            raise LimitError("a chain needs a group of 16 bytes, an epoch and 40 bytes of entropy", code="group.size")
        self._key, self.group, self.epoch = key, group, epoch
        self.chain, self._secret = entropy[:CHAIN_BYTES], entropy[CHAIN_BYTES:]
        self.index = 0

    @property
    def share(self) -> tuple[int, bytes]:
        """What a member needs to open all letters from now on, and none before: the next index, and the secret there."""
        return self.index, self._secret

    @property
    def is_worn(self) -> bool:
        """Whether another chain must be begun."""
        return self.index >= LETTERS_MAX

    def seal(self, aad: bytes, plain: bytes) -> bytes:
        """Encrypt and sign a letter for all members.

        Args:
            aad: What is not hidden but covered.
            plain: What is hidden; ``OVERHEAD_BYTES`` are added.

        Raises:
            StateError: the chain is worn (code "group.worn"). Nothing was encrypted.
        """
        if self.is_worn:
            raise StateError("this chain is used up", code="group.worn")
        head = _head.pack(VERSION, self.group, self.epoch, self.chain, self.index)
        key, self._secret = _step(self._secret)
        self.index += 1
        hidden = aead()[0](key).encrypt(_NONCE, plain, head + aad)
        return head + self._key.sign(_covered(head, aad, hidden)) + hidden

    def __repr__(self) -> str:
        return f"<SendingChain {self.chain.hex()} at {self.index}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a chain is never pickled or copied")


class ReceivingChain:
    """The chain of another member, as far as this one may read.

    Args:
        sender: Raw public key of who sends.
        group, epoch, chain: As in the sender's letters.
        index, secret: The sender's ``share``.

    Raises:
        DecodeError: a part has another size (code "group.malformed").
    """

    __slots__ = ("_base", "_keys", "_next", "_secret", "_tail", "chain", "epoch", "group", "sender")

    def __init__(self, sender: bytes, group: bytes, epoch: int, chain: bytes, index: int, secret: bytes) -> None:
        if (
            len(group) != GROUP_BYTES
            or len(chain) != CHAIN_BYTES
            or len(secret) != SECRET_BYTES
            or not 0 <= index <= LETTERS_MAX
            or not 1 <= epoch <= _EPOCH_MAX
        ):
            raise DecodeError("not a chain of a group", code="group.malformed")
        self.sender, self.group, self.epoch, self.chain = sender, group, epoch, chain
        #: The secret at ``_base``, from which all kept keys follow: what is written to disk.
        self._base, self._tail = index, secret
        self._next, self._secret = index, secret
        self._keys: dict[int, bytes] = {}

    @property
    def share(self) -> tuple[int, bytes]:
        """The oldest index that still opens, and the secret there: what is kept on disk."""
        return self._base, self._tail

    def open(self, aad: bytes, raw: bytes) -> bytes:
        """Check and decrypt a letter of this chain. Letters that come again open again; the caller drops them by id.

        Raises:
            DecodeError: altered, another chain's, too far ahead, or its key is gone (codes "group.malformed",
                "group.ciphertext"). No letter that could be opened before cannot be now.
            SignatureError: not signed by the sender (code "signature.invalid").
        """
        head = read_head(raw)
        if (head.group, head.epoch, head.chain) != (self.group, self.epoch, self.chain):
            raise DecodeError("a letter of another chain", code="group.ciphertext")
        index = head.number
        if not self._base <= index <= self._next + AHEAD_MAX:
            raise DecodeError(
                f"letter {index} is out of reach", code="group.ciphertext", why="it is too old, or letters were lost"
            )
        hidden = raw[HEAD_BYTES + SIGNATURE_BYTES :]
        # The signature first: without the sender's word nobody makes this end run its chain forward.
        verify(self.sender, _covered(raw[:HEAD_BYTES], aad, hidden), raw[HEAD_BYTES : HEAD_BYTES + SIGNATURE_BYTES])
        aesgcm, invalid = aead()
        try:
            plain = aesgcm(self._key(index)).decrypt(_NONCE, hidden, raw[:HEAD_BYTES] + aad)
        except invalid as error:
            raise DecodeError("a letter to the group does not open", code="group.ciphertext") from error
        while self._base + BEHIND_MAX + AHEAD_MAX < self._next:
            self._forget()
        return plain

    def settle(self, index: int) -> None:
        """Hear that a letter is kept elsewhere: what opens letters more than ``BEHIND_MAX`` before it is forgotten."""
        while self._base < min(index, self._next) - BEHIND_MAX:
            self._forget()

    def _key(self, index: int) -> bytes:
        keys = self._keys
        while self._next <= index:
            keys[self._next], self._secret = _step(self._secret)
            self._next += 1
            if len(keys) > _KEYS_MAX:
                del keys[next(iter(keys))]
        if index in keys:
            return keys[index]
        secret = self._tail
        for _ in range(self._base, index):
            _, secret = _step(secret)
        return _step(secret)[0]

    def _forget(self) -> None:
        self._keys.pop(self._base, None)
        _, self._tail = _step(self._tail)
        self._base += 1

    def __repr__(self) -> str:
        return f"<ReceivingChain {self.chain.hex()} from {self._base}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a chain is never pickled or copied")


def _step(secret: bytes) -> tuple[bytes, bytes]:
    """Return the key of a letter, and the secret of the next (HMAC-SHA256, as in the symmetric ratchet of Signal)."""
    return hmac.digest(secret, b"\x01", "sha256"), hmac.digest(secret, b"\x02", "sha256")


def _covered(head: bytes, aad: bytes, hidden: bytes) -> bytes:
    return _LABEL + head + len(aad).to_bytes(4, "big") + aad + hidden
