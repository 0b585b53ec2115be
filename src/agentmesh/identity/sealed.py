"""Sealed mail: a message that anybody may carry and keep, and only one agent can open (docs/spec/sealed.md §6).

    JWE compact, ECDH-ES (X25519) + A256GCM         RFC 7516, RFC 8037 §3.2; by joserfc
      └ JWS compact, EdDSA, claims {aud, body, iat}  RFC 7515, RFC 7519; by ``identity.jws``

ECDH-ES proves nothing about the sender, so the signature is inside, and it covers the recipient (``aud``): who gets a letter
cannot seal it anew for somebody else as if it had been written to them. ``apu`` and ``apv`` are the two did:key; they enter the
key derivation, so they cannot be altered either. A carrier reads them: it must know for whom it keeps what.

The header has exactly the members that are written here. Compression, other algorithms and curves, critical extensions and second
recipients are refused before anything is computed. joserfc draws the ephemeral key and the nonce itself, the one place on this
floor where chance does not come from the caller: two letters under one pair of them would open both.
It loads with the first letter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple, cast

from nacl.bindings import crypto_scalarmult_base

from agentmesh.codec.canonical import parse_strict
from agentmesh.errors import DecodeError, LimitError, ReplayError, SignatureError, UsageError
from agentmesh.identity.agreement import Agreement, jwk_of
from agentmesh.identity.claims import SET_CLOCKS, did_in, is_did, parse_claims, seconds_in
from agentmesh.identity.jws import (
    HEADER_CHARS_MAX,
    b64url,
    check_kid,
    kid_in,
    sign_compact,
    split_compact,
    unb64url,
    verify_compact,
)
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import AgentId, public_key_of

TYP = "agentmesh-sealed+jwt"
#: Largest body: the largest message (``core.courier.message``) and room to grow.
BODY_BYTES_MAX = 1024 * 1024 + 64 * 1024
_CLAIMS_BYTES_MAX = BODY_BYTES_MAX * 4 // 3 + 1024
_SIGNED_BYTES_MAX = _CLAIMS_BYTES_MAX * 4 // 3 + 1024
#: Largest sealed letter, bytes; looked at before anything else. Base64 three times makes 2.4 of 1.
SEALED_BYTES_MAX = _SIGNED_BYTES_MAX * 4 // 3 + 2048
#: How far ahead of ours the sender's clock may be, seconds, and how old a letter may be: the longest life of a message and a day.
SKEW_S_MAX = 7_200
AGE_S_MAX = 8 * 86_400
_HEADER = {"alg", "enc", "epk", "kid", "apu", "apv", "cty"}
_ALG, _ENC, _CTY = "ECDH-ES", "A256GCM", "JWT"


class Unsealed(NamedTuple):
    """An opened letter.

    Attributes:
        sender: Who signed it.
        body: What it says.
        iat: Unix second at which it was sealed, by the sender's clock.
    """

    sender: AgentId
    body: bytes
    iat: int


class Outside(NamedTuple):
    """What anybody can read on a sealed letter, unproven.

    Attributes:
        sender, recipient: did:key.
        kid: Thumbprint of the recipient's agreement key.
    """

    sender: AgentId
    recipient: AgentId
    kid: str


def seal(body: bytes, *, sender: KeyPair, recipient: str, agreement: Agreement, iat: int) -> bytes:
    """Return a letter that only the recipient can open.

    Args:
        body: At most ``BODY_BYTES_MAX``.
        sender: Who signs.
        recipient: did:key of the agent it is for.
        agreement: The recipient's current key, from its verified manifest.
        iat: Unix second.

    Raises:
        LimitError: the body is too large (code "sealed.too_large"). Nothing was sealed.
        UsageError: the key is past its time, or no key at all (codes "sealed.key_old", "sealed.key").
    """
    if len(body) > BODY_BYTES_MAX:
        raise LimitError(f"a body of {len(body)} bytes, at most {BODY_BYTES_MAX} are sealed", code="sealed.too_large")
    if iat > agreement.exp:
        raise UsageError(
            f"the recipient's key ended {iat - agreement.exp} s ago",
            code="sealed.key_old",
            why="its manifest here is old; nothing is sealed to a key that may be lost or stolen by now",
            hint="wait until its node is seen again, or compare the clocks (date -u)",
        )
    claims = {"aud": recipient, "body": b64url(body), "iat": iat, "iss": sender.did}
    header = {
        "alg": _ALG,
        "enc": _ENC,
        "kid": agreement.kid,
        "apu": b64url(sender.did.encode("ascii")),
        "apv": b64url(recipient.encode("ascii")),
        "cty": _CTY,
    }
    jose = _jose()
    try:
        raw = jose.encrypt(header, sign_compact(sender, claims, typ=TYP), jose.key(jwk_of(agreement.x)))
    except (jose.error, ValueError) as error:  # ValueError: a point of low order
        raise UsageError("the recipient's key is not usable", code="sealed.key", why=str(error)) from error
    return raw.encode("ascii")


def read_outside(raw: bytes) -> Outside:
    """Return what is written on a letter, for carriers; nothing of it is proven.

    Raises:
        DecodeError: oversized or malformed (codes "sealed.too_large", "sealed.malformed", "jws.base64", "json.*").
        SignatureError: sealed in another way than the one (code "sealed.header").
    """
    if len(raw) > SEALED_BYTES_MAX:
        raise DecodeError(f"a sealed letter of {len(raw)} bytes is not read", code="sealed.too_large")
    parts = raw.split(b".")
    if len(parts) != 5 or parts[1] or len(parts[0]) > HEADER_CHARS_MAX or not raw.isascii():
        raise DecodeError("not a sealed letter", code="sealed.malformed")
    # joserfc is lenient about base64; here each letter has one spelling.
    head, nonce, _, tag = (unb64url(parts[i].decode("ascii")) for i in (0, 2, 3, 4))
    if len(nonce) != 12 or len(tag) != 16:
        raise DecodeError("not a sealed letter", code="sealed.malformed")
    header = parse_strict(head, bytes_max=HEADER_CHARS_MAX, depth_max=2)
    if not isinstance(header, dict):
        raise DecodeError("not a sealed letter", code="sealed.malformed")
    return _judged(cast("dict[str, Any]", header))


def _judged(header: dict[str, Any]) -> Outside:
    """Check a header member by member."""
    if set(header) != _HEADER or (header["alg"], header["enc"], header["cty"]) != (_ALG, _ENC, _CTY):
        raise SignatureError(
            "the letter is not sealed with ECDH-ES and A256GCM as agreed",
            code="sealed.header",
            why="compression, other algorithms and extensions are not accepted",
        )
    epk, kid = header["epk"], header["kid"]
    members = cast("dict[str, Any]", epk) if isinstance(epk, dict) else {}
    x = members.get("x")
    if set(members) != {"crv", "kty", "x"} or (members["kty"], members["crv"]) != ("OKP", "X25519"):
        raise SignatureError("the ephemeral key is no X25519 key", code="sealed.header")
    if not isinstance(x, str) or len(x) != 43 or not isinstance(kid, str) or len(kid) > 128:
        raise DecodeError("not a sealed letter", code="sealed.malformed")
    unb64url(x)
    return Outside(_did(header["apu"]), _did(header["apv"]), kid)


def _did(value: object) -> AgentId:
    """Return the did:key that ``apu`` or ``apv`` spells."""
    text = unb64url(value).decode("ascii", "replace") if isinstance(value, str) and len(value) <= 128 else ""
    if not is_did(text):
        raise DecodeError("sender and recipient of a letter are did:key", code="sealed.malformed")
    return AgentId(text)


def unseal(raw: bytes, *, recipient: str, keys: Mapping[str, bytes], now: int) -> Unsealed:
    """Open a letter.

    Args:
        raw: As it came.
        recipient: did:key of the agent here.
        keys: Its private agreement keys, by kid.
        now: Unix seconds.

    Raises:
        DecodeError: oversized, malformed, altered, or sealed to a key that is not here any more (codes "sealed.too_large",
            "sealed.malformed", "sealed.ciphertext", "sealed.key_gone", "jws.*", "json.*", "claims.*").
        SignatureError: sealed in another way, for another agent, or not signed by whom it names (codes "sealed.header",
            "sealed.recipient", "sealed.sender", "signature.*").
        ReplayError: too old or from the future (code "sealed.time"). No state changed.
    """
    outside = read_outside(raw)
    if outside.recipient != recipient:
        raise SignatureError("the letter is for another agent", code="sealed.recipient")
    secret = keys.get(outside.kid)
    if secret is None:
        raise DecodeError(
            "the letter is sealed to a key that is not here",
            code="sealed.key_gone",
            why="the key was destroyed after its time, or the agent's keys were lost",
        )
    inner = _decrypted(raw, secret)
    protected, payload, _ = split_compact(inner, payload_bytes_max=_CLAIMS_BYTES_MAX)
    kid = kid_in(protected, TYP)
    claims = parse_claims(payload, bytes_max=_CLAIMS_BYTES_MAX)
    sender, iat = AgentId(did_in(claims, "iss")), seconds_in(claims, "iat")
    if claims.get("aud") != recipient:
        raise SignatureError(
            "the letter was written to somebody else and sealed anew for this agent", code="sealed.recipient"
        )
    if sender != outside.sender:
        raise SignatureError("the letter names two senders", code="sealed.sender")
    check_kid(kid, sender)
    if not now - AGE_S_MAX <= iat <= now + SKEW_S_MAX:
        raise ReplayError(
            f"the letter was sealed {abs(now - iat)} s {'ago' if iat < now else 'ahead of now'}",
            code="sealed.time",
            hint=SET_CLOCKS,
        )
    verify_compact(inner, public_key_of(sender))
    body = claims.get("body")
    if not isinstance(body, str):
        raise DecodeError("the letter has no body", code="sealed.malformed")
    return Unsealed(sender, unb64url(body) if body else b"", iat)


def _decrypted(raw: bytes, secret: bytes) -> str:
    jose = _jose()
    private = {**jwk_of(crypto_scalarmult_base(secret)), "d": b64url(secret)}
    try:
        return jose.decrypt(raw, jose.key(private)).decode("ascii")
    except (jose.error, ValueError) as error:
        raise DecodeError(
            "the letter does not open",
            code="sealed.ciphertext",
            why="it was altered on the way, or sealed to another key",
        ) from error


class _Jose(NamedTuple):
    """What is used of joserfc."""

    encrypt: Callable[[dict[str, Any], str, Any], str]
    decrypt: Callable[[bytes, Any], bytes]
    key: Callable[[dict[str, str]], Any]
    error: type[Exception]


@lru_cache(maxsize=1)
def _jose() -> _Jose:
    """Load joserfc, told the one pair of algorithms and how long a letter may be."""
    from joserfc import jwe
    from joserfc.errors import JoseError
    from joserfc.jwk import OKPKey

    registry = jwe.JWERegistry(algorithms=[_ALG, _ENC])
    registry.max_protected_header_length = HEADER_CHARS_MAX
    registry.max_ciphertext_length = SEALED_BYTES_MAX

    def encrypt(header: dict[str, Any], text: str, key: Any) -> str:
        return jwe.encrypt_compact(header, text, key, registry=registry)

    def decrypt(raw: bytes, key: Any) -> bytes:
        return jwe.decrypt_compact(raw, key, registry=registry).plaintext or b""

    def key(jwk: dict[str, str]) -> OKPKey:
        return OKPKey.import_key({**jwk})

    return _Jose(encrypt, decrypt, key, JoseError)
