"""Ed25519 keys: sign and verify, nothing else.

All Ed25519 arithmetic of the project is done here, by libsodium (PyNaCl), so that one library decides what a valid
signature is: RFC 8032, and beyond it libsodium refuses S ≥ L, non-canonical encodings and small-order A or R. Other
libraries accept more, and two honest nodes would then disagree (research: standards §4.2).

Random seeds enter from outside; this floor draws no randomness.
"""

from __future__ import annotations

from typing import NoReturn, Self

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import CryptoError

from agentmesh.errors import LimitError, SignatureError
from agentmesh.ids import did_of

SEED_BYTES = 32
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64


class KeyPair:
    """One Ed25519 key pair. Neither ``repr``, ``str`` nor a pickle ever shows the seed.

    Args:
        seed: 32 secret bytes from a cryptographic random source (RFC 8032 §5.1.5).

    Raises:
        LimitError: the seed is not 32 bytes (code "key.seed_size").
    """

    __slots__ = ("_secret", "did", "public")

    public: bytes
    did: str

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise LimitError(f"an Ed25519 seed has {SEED_BYTES} bytes, not {len(seed)}", code="key.seed_size")
        self.public, self._secret = crypto_sign_seed_keypair(bytes(seed))
        self.did = did_of(self.public)

    @classmethod
    def generate(cls, seed: bytes) -> Self:
        """Derive the key pair of a seed; the same seed always gives the same pair. Raises LimitError."""
        return cls(seed)

    @property
    def seed(self) -> bytes:
        """The 32 secret bytes, for the key file and transports that take a raw key; never log or send them."""
        return self._secret[:SEED_BYTES]

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of a message (RFC 8032 §5.1.6, pure Ed25519: no context, no pre-hash)."""
        return crypto_sign(bytes(message), self._secret)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"<KeyPair {self.did}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, KeyPair) and other.public == self.public

    def __hash__(self) -> int:
        return hash(self.public)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key pair is never pickled or copied")


def verify(public: bytes, message: bytes, signature: bytes) -> None:
    """Check a signature strictly (see the module text for what "valid" means).

    Raises:
        SignatureError: wrong length of key or signature (codes "signature.key_size", "signature.size"), or the
            signature does not hold (code "signature.invalid"). No state changed.
    """
    if len(public) != PUBLIC_KEY_BYTES:
        raise SignatureError(f"a public key has {PUBLIC_KEY_BYTES} bytes, not {len(public)}", code="signature.key_size")
    if len(signature) != SIGNATURE_BYTES:
        raise SignatureError(f"a signature has {SIGNATURE_BYTES} bytes, not {len(signature)}", code="signature.size")
    try:
        crypto_sign_open(bytes(signature) + bytes(message), bytes(public))
    except CryptoError as error:
        raise SignatureError(
            "the signature does not match the key and the message", code="signature.invalid"
        ) from error
