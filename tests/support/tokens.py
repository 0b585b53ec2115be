"""Small call tokens for tests, honest and forged."""

from __future__ import annotations

import json
from typing import Any

from agentmesh.errors import MeshError
from agentmesh.identity.jws import b64url, jwk_of, unb64url
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.token import CallClaims, CallToken, digest_of, read_kept_token, sign_call_token
from tests.support.records import EPOCH, key

CALLER, CALLEE, OTHER = key(11), key(12), key(13)
HTM, HTU = "CALL", f"agentmesh:///{key(14).did}/{CALLEE.did}"
PARTS: list[dict[str, Any]] = [{"text": "你好"}]


def claims(**over: Any) -> CallClaims:
    """Return the claims of a small call from CALLER to CALLEE at EPOCH."""
    members: dict[str, Any] = {
        "jti": "jti-0123456789abcdef",
        "htm": HTM,
        "htu": HTU,
        "iat": EPOCH,
        "exp": EPOCH + 60,
        "aud": CALLEE.did,
        "purpose": "to test 测试",
        "skill": "say",
        "digest": digest_of(PARTS, "say", None),
        "idem": "idem-1",
        "trace_id": "ab" * 16,
    }
    return CallClaims(**{**members, **over})


def token(**over: Any) -> CallToken:
    """Return a verified token."""
    return read_kept_token(sign_call_token(CALLER, claims(**over)))


def header(**over: Any) -> dict[str, Any]:
    """Return the header of CALLER's tokens."""
    return {"alg": "EdDSA", "typ": "dpop+jwt", "jwk": jwk_of(CALLER.public), **over}


def payload(raw: str) -> dict[str, Any]:
    """Return the payload of a compact JWS."""
    return json.loads(unb64url(raw.split(".")[1]))


def forged(head: dict[str, Any] | bytes, body: dict[str, Any] | bytes, pair: KeyPair = CALLER) -> str:
    """Sign anything at all, as a hostile owner of a key could."""
    parts = [b64url(part if isinstance(part, bytes) else json.dumps(part).encode()) for part in (head, body)]
    covered = ".".join(parts)
    return f"{covered}.{b64url(pair.sign(covered.encode()))}"


def refusal(call: Any, *args: Any, **kwargs: Any) -> tuple[str, str]:
    """Return class and code of the MeshError that a call raises; ("", "") if none."""
    try:
        call(*args, **kwargs)
    except MeshError as error:
        return type(error).__name__, error.code
    return "", ""
