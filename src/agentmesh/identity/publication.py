"""Publications: what an agent or node says under a subject, signed by its key (docs/spec/topics.md §3).

On the wire: 64 bytes of signature, then a MessagePack array. The signature covers the line ``agentmesh/1 topic`` and the array.
There is one spelling: an array that is not the shortest is refused, or anybody could make a new broadcast of an old one.
Publications are signed and not encrypted: whoever is in the mesh may read them.
"""

from __future__ import annotations

import msgspec

from agentmesh.errors import DecodeError, LimitError, MeshError, UsageError
from agentmesh.identity.keys import PUBLIC_KEY_BYTES, SIGNATURE_BYTES, KeyPair, verify
from agentmesh.ids import did_of

PAYLOAD_BYTES_MAX = 64 * 1024
#: Of one publication in all: what one broadcast carries.
PUBLICATION_BYTES_MAX = 66_560
SUBJECT_CHARS_MAX = 256
CONTENT_TYPE_CHARS_MAX = 128
HEADERS_MAX = 16
HEADER_CHARS_MAX = 512
ID_BYTES = 16
_COVERED = b"agentmesh/1 topic\n"
_TS_MAX = 2**53


class Publication(msgspec.Struct, array_like=True, frozen=True):
    """What was published. Fields are only ever added at the end.

    Attributes:
        id: 16 bytes, made by the publisher; with its key the name of the publication for ever.
        publisher: Raw public key of an agent or node.
        ts_ms: The publisher's wall clock, unix milliseconds.
        subject: See ``core.topics.subjects``.
        payload: At most ``PAYLOAD_BYTES_MAX``.
        content_type: MIME type of the payload.
        retain: It is the last value of its subject from now on; with an empty payload, there is none any more.
        headers: Small texts.
    """

    id: bytes
    publisher: bytes
    ts_ms: int
    subject: str
    payload: bytes
    content_type: str = "text/plain"
    retain: bool = False
    headers: dict[str, str] = {}

    @property
    def did(self) -> str:
        """did:key of the publisher."""
        return did_of(self.publisher)

    @property
    def rank(self) -> tuple[int, bytes]:
        """What decides which of two values of a subject is the last: the higher one."""
        return self.ts_ms, self.id


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Publication)


def check_publication(one: Publication) -> None:
    """Raise unless a publication is within all bounds; its subject is checked for length only.

    Raises:
        UsageError: something is malformed (code "publication.malformed").
        LimitError: payload or headers are too large (codes "publication.too_large", "publication.headers").
    """
    if len(one.payload) > PAYLOAD_BYTES_MAX:
        raise LimitError(
            f"a payload of {len(one.payload)} bytes, at most {PAYLOAD_BYTES_MAX} are published",
            code="publication.too_large",
            hint="put it somewhere and publish where it lies, or send it as a message",
        )
    if (
        len(one.id) != ID_BYTES
        or len(one.publisher) != PUBLIC_KEY_BYTES
        or not 0 < one.ts_ms < _TS_MAX
        or not 0 < len(one.subject) <= SUBJECT_CHARS_MAX
        or not 0 < len(one.content_type) <= CONTENT_TYPE_CHARS_MAX
        or not one.content_type.isprintable()
    ):
        raise UsageError("an id, time, subject or content type that is none", code="publication.malformed")
    if len(one.headers) > HEADERS_MAX or any(
        len(name) + len(value) > HEADER_CHARS_MAX for name, value in one.headers.items()
    ):
        raise LimitError(
            f"more than {HEADERS_MAX} headers, or one of more than {HEADER_CHARS_MAX} characters",
            code="publication.headers",
        )


def sign_publication(key: KeyPair, one: Publication) -> bytes:
    """Return a publication as it travels. Raises UsageError and LimitError as ``check_publication``; nothing was signed."""
    check_publication(one)
    if key.public != one.publisher:
        raise UsageError("the key is not the publisher's", code="publication.malformed")
    body = _encoder.encode(one)
    if len(body) + SIGNATURE_BYTES > PUBLICATION_BYTES_MAX:
        raise LimitError(
            f"a publication of {len(body) + SIGNATURE_BYTES} bytes with its headers, at most {PUBLICATION_BYTES_MAX}",
            code="publication.too_large",
        )
    return key.sign(_COVERED + body) + body


def read_publication(raw: bytes, *, trusted: bool = False) -> Publication:
    """Check a publication of any origin.

    Args:
        raw: As it travels.
        trusted: It was checked before and kept by this node: do not verify the signature again.

    Raises:
        DecodeError: malformed or out of bounds (code "publication.malformed").
        SignatureError: the signature does not hold (codes "signature.*").
    """
    if not SIGNATURE_BYTES < len(raw) <= PUBLICATION_BYTES_MAX:
        raise DecodeError(f"{len(raw)} bytes are no publication", code="publication.malformed")
    body = raw[SIGNATURE_BYTES:]
    try:
        one = _decoder.decode(body)
        if not trusted:
            check_publication(one)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, MeshError) as error:
        raise DecodeError(f"not a publication: {error}", code="publication.malformed") from error
    if not trusted:
        if _encoder.encode(one) != body:
            raise DecodeError("a publication spelled in another way than the one", code="publication.malformed")
        verify(one.publisher, _COVERED + body, raw[:SIGNATURE_BYTES])
    return one
