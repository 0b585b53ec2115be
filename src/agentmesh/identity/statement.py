"""Statements: short binary texts signed by a node's key (docs/spec/records.md §1).

A statement is a MessagePack array ``[public key, body, signature]``. The signature covers ``"agentmesh/1 " + context + "\\n" +
body``, so that what was signed for one purpose never counts for another. Bodies are MessagePack too; their shapes are in
``node_record`` and ``provider``. JSON and JWS stay for what outsiders read (manifests); statements travel in datagrams.

There is one spelling: a statement whose outer MessagePack is not the shortest is refused, though its signature would hold.
Else anybody could make new bytes of an old statement, and whoever knows things by their bytes (the reader's memory, ids of
broadcasts) would take each for a new one.
"""

from __future__ import annotations

import msgspec

from agentmesh.errors import DecodeError, LimitError, UsageError
from agentmesh.identity.keys import KeyPair, verify
from agentmesh.ids import NodeId, node_id

#: Largest statement, bytes. The DHT keeps records of up to 8 KB (research: p2p-reliability §6).
STATEMENT_BYTES_MAX = 8 * 1024
_PREFIX = b"agentmesh/1 "


class _Statement(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    public: bytes
    body: bytes
    signature: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Statement)


def sign_statement(key: KeyPair, context: bytes, body: bytes) -> bytes:
    """Return the signed statement.

    Args:
        key: The node's key.
        context: What the statement is for; no newline.
        body: MessagePack bytes.

    Raises:
        UsageError: the context holds a newline (code "statement.context"). Nothing was signed.
        LimitError: larger than ``STATEMENT_BYTES_MAX`` (code "statement.too_large").
    """
    raw = _encoder.encode(_Statement(key.public, body, key.sign(_covered(context, body))))
    if len(raw) > STATEMENT_BYTES_MAX:
        raise LimitError(f"a statement of {len(raw)} bytes, at most {STATEMENT_BYTES_MAX}", code="statement.too_large")
    return raw


def read_statement(raw: bytes, context: bytes) -> tuple[NodeId, bytes]:
    """Check a statement of any origin; return who signed it, and its body.

    Raises:
        DecodeError: oversized or malformed (codes "statement.too_large", "statement.malformed").
        SignatureError: the signature does not hold for this context (codes "signature.*").
    """
    if len(raw) > STATEMENT_BYTES_MAX:
        raise DecodeError(f"a statement of {len(raw)} bytes is not read", code="statement.too_large")
    try:
        statement = _decoder.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise DecodeError(f"not a statement: {error}", code="statement.malformed") from error
    if _encoder.encode(statement) != raw:
        raise DecodeError("a statement spelled in another way than the one", code="statement.malformed")
    verify(statement.public, _covered(context, statement.body), statement.signature)
    return node_id(statement.public), statement.body


def _covered(context: bytes, body: bytes) -> bytes:
    if b"\n" in context:
        raise UsageError("a context is one line", code="statement.context")
    return _PREFIX + context + b"\n" + body
