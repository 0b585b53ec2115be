"""Reading claims: typed members of a JWT payload that came from outside, each bounded (RFC 7519).

Shared by ``token``, ``grant`` and ``receipt``. Unknown claims are ignored, as RFC 7519 §4 asks; a known one of another type
or range is an error, never a default. Times are whole unix seconds; money is an integer in a text, in millionths of a US
dollar, since JSON readers differ about large and fractional numbers (research: standards (a)).
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any, cast

from agentmesh.codec.canonical import parse_strict
from agentmesh.errors import DecodeError
from agentmesh.identity.jws import b64url

#: Largest amount of anything that is counted: thousands of them add up without leaving 64 bits; a thousand million dollars.
AMOUNT_MAX = 10**15
#: Longest id (``jti``, idempotency key, trace id, nonce), characters.
ID_CHARS_MAX = 128
#: Longest free text (purpose, skill, address), characters.
TEXT_CHARS_MAX = 512
#: Unix seconds end here (year 9999).
SECONDS_MAX = 253_402_300_799
#: What helps where a time does not fit.
SET_CLOCKS = "compare the clocks of both machines (date -u) and set the wrong one"

_ID = re.compile(r"[!-~]{1,128}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_HASH = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_DIGEST = re.compile(r"sha-256=:[A-Za-z0-9+/]{43}=:", re.ASCII)
_DID = re.compile(r"did:key:z6Mk[1-9A-HJ-NP-Za-km-z]{44}", re.ASCII)
_MONEY = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)


def hash_of(raw: str) -> str:
    """Return the SHA-256 of a token's own characters, base64url (as ``ath`` in RFC 9449 §4.2)."""
    return b64url(hashlib.sha256(raw.encode("utf-8", "surrogatepass")).digest())


def content_digest(raw: bytes) -> str:
    """Return the SHA-256 of bytes in the spelling of RFC 9530: ``sha-256=:…:``."""
    return digest_text(hashlib.sha256(raw).digest())


def digest_text(sha256: bytes) -> str:
    """Spell 32 bytes as ``sha-256=:…:``."""
    return f"sha-256=:{base64.b64encode(sha256).decode('ascii')}:"


def parse_claims(payload: bytes, *, bytes_max: int) -> dict[str, Any]:
    """Return the members of a payload, strictly parsed. Raises DecodeError (codes "json.*", "claims.malformed")."""
    claims = parse_strict(payload, bytes_max=bytes_max, depth_max=8)
    if not isinstance(claims, dict):
        raise DecodeError("the payload is no object", code="claims.malformed", hint="a JWT payload is one JSON object")
    return cast("dict[str, Any]", claims)


def _wrong(claims: dict[str, Any], name: str, what: str) -> DecodeError:
    """Return the error for a claim that is missing or malformed."""
    if name not in claims:
        return DecodeError(
            f"the claim {name} is missing", code="claims.missing", hint="docs/spec/tokens.md lists what is required"
        )
    return DecodeError(
        f"the claim {name} is no {what}",
        code="claims.malformed",
        why="a claim of another type or size is never guessed at",
        hint="docs/spec/tokens.md lists types and bounds",
    )


def id_in(claims: dict[str, Any], name: str) -> str:
    """Return an id: 1 to 128 printable ASCII characters without spaces. Raises DecodeError, as all functions here."""
    value = claims.get(name)
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise _wrong(claims, name, f"id of 1 to {ID_CHARS_MAX} printable characters")
    return value


def text_in(claims: dict[str, Any], name: str) -> str:
    """Return a text of at most 512 characters without control characters; it may be empty."""
    value = claims.get(name)
    if not isinstance(value, str) or len(value) > TEXT_CHARS_MAX or _CONTROL.search(value):
        raise _wrong(claims, name, f"text of at most {TEXT_CHARS_MAX} characters without control characters")
    return value


def seconds_in(claims: dict[str, Any], name: str) -> int:
    """Return whole unix seconds, > 0."""
    value = claims.get(name)
    if type(value) is not int or not 0 < value <= SECONDS_MAX:
        raise _wrong(claims, name, "time in whole unix seconds")
    return value


def count_in(claims: dict[str, Any], name: str, *, at_most: int) -> int:
    """Return an integer 0 … ``at_most``."""
    value = claims.get(name)
    if type(value) is not int or not 0 <= value <= at_most:
        raise _wrong(claims, name, f"integer from 0 to {at_most}")
    return value


def did_in(claims: dict[str, Any], name: str) -> str:
    """Return a text in the form of an Ed25519 did:key; whether it decodes is found out by who takes the key."""
    value = claims.get(name)
    if not isinstance(value, str) or not _DID.fullmatch(value):
        raise _wrong(claims, name, "did:key of an Ed25519 key")
    return value


def is_did(value: object) -> bool:
    """Say whether a value has the form of an Ed25519 did:key; cheaper than decoding it, for lists of strangers."""
    return isinstance(value, str) and _DID.fullmatch(value) is not None


def hash_in(claims: dict[str, Any], name: str) -> str:
    """Return a SHA-256 in base64url, 43 characters."""
    value = claims.get(name)
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise _wrong(claims, name, "SHA-256 in base64url")
    return value


def digest_in(claims: dict[str, Any], name: str) -> str:
    """Return a digest as RFC 9530 spells it, ``sha-256=:…:``."""
    value = claims.get(name)
    if not isinstance(value, str) or not _DIGEST.fullmatch(value):
        raise _wrong(claims, name, "digest of the form sha-256=:…:")
    return value


def object_in(claims: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a nested object."""
    value = claims.get(name)
    if not isinstance(value, dict):
        raise _wrong(claims, name, "object")
    return cast("dict[str, Any]", value)


def list_in(claims: dict[str, Any], name: str, *, items_max: int) -> list[Any]:
    """Return an array of at most ``items_max`` items."""
    value = claims.get(name)
    if not isinstance(value, list) or len(cast("list[Any]", value)) > items_max:
        raise _wrong(claims, name, f"list of at most {items_max} items")
    return cast("list[Any]", value)


def amount_in(members: dict[str, Any], name: str) -> int:
    """Return an amount 0 … ``AMOUNT_MAX``: money (names that end in ``_micros``) from a text, anything else from an integer."""
    value = members.get(name)
    if value is None and name not in members:
        raise _wrong(members, name, "amount")
    if name.endswith("_micros"):
        number = int(value) if isinstance(value, str) and _MONEY.fullmatch(value) else -1
    else:
        number = value if type(value) is int else -1
    if not 0 <= number <= AMOUNT_MAX:
        raise DecodeError(
            f"the amount {name} is out of range",
            code="claims.amount",
            why="amounts are integers from 0 to 10^15; money is an integer in a text, in millionths of a US dollar",
            hint='write 1.50 USD as {"usd_micros": "1500000"}',
        )
    return number


def amount_out(name: str, value: int) -> int | str:
    """Return an amount as it travels."""
    return str(value) if name.endswith("_micros") else value
