"""Checkpoints: what a node signs of its audit log, its size and root (C2SP tlog-checkpoint in a C2SP signed note).

    did:key:z6Mk…/audit          origin, also the name of the key
    1042                         records
    Fq3…=                        root of the Merkle tree over them, base64
                                 an empty line
    — did:key:z6Mk…/audit AbC…   the signature line

The origin holds the key, so a checkpoint is checked with nothing else. Any witness of C2SP tlogs can read one. Two that one
key signed and of which none continues the other prove that its owner shows different pasts to different people.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from agentmesh.codec.merkle import EMPTY_ROOT, HASH_BYTES, SIZE_MAX
from agentmesh.errors import DecodeError, SignatureError
from agentmesh.identity.keys import SIGNATURE_BYTES, KeyPair, verify
from agentmesh.ids import NodeId, parse_node_id, public_key_of

#: Largest checkpoint, bytes. Ours have about 300; further signature lines are those of witnesses.
CHECKPOINT_BYTES_MAX = 4096
_SUFFIX = "/audit"
_ED25519 = b"\x01"
_KEY_ID_BYTES = 4
_SIZE = re.compile(r"0|[1-9][0-9]{0,15}", re.ASCII)
_LINE = re.compile(r"— ([^ +\s]{1,200}) ([A-Za-z0-9+/]+={0,2})")
#: The note format forbids control characters; a newline ends a line.
_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A verified checkpoint; made by ``read_checkpoint`` and ``sign_checkpoint`` only.

    Attributes:
        node_id: Whose log.
        size: Records.
        root: Of the tree over them.
        text: The signed note.
    """

    node_id: NodeId
    size: int
    root: bytes
    text: str


def origin_of(node: str) -> str:
    """Return the first line of a node's checkpoints."""
    return node + _SUFFIX


def key_hash(name: str, public: bytes) -> bytes:
    """Return the 4 bytes by which a signature line names its key: SHA-256(name ‖ 0x0a ‖ 0x01 ‖ key)[:4]."""
    return hashlib.sha256(name.encode() + b"\n" + _ED25519 + public).digest()[:_KEY_ID_BYTES]


def sign_checkpoint(key: KeyPair, size: int, root: bytes) -> Checkpoint:
    """Return the signed checkpoint of a log."""
    origin = origin_of(key.did)
    body = f"{origin}\n{size}\n{base64.b64encode(root).decode()}\n"
    signature = base64.b64encode(key_hash(origin, key.public) + key.sign(body.encode())).decode()
    return Checkpoint(NodeId(key.did), size, root, f"{body}\n— {origin} {signature}\n")


def read_checkpoint(text: str, *, node: str | None = None) -> Checkpoint:
    """Check a checkpoint of any origin.

    Args:
        text: The signed note.
        node: Whose it must be; None for whomever its origin names.

    Raises:
        DecodeError: oversized or malformed (code "audit.checkpoint").
        SignatureError: not signed by the key in its origin (codes "signature.*", "audit.unsigned"), or of another node
            (code "audit.other_key").
    """
    if len(text) > CHECKPOINT_BYTES_MAX or _CONTROL.search(text):
        raise _malformed("it is too long, or holds control characters")
    body, empty, signatures = text.rpartition("\n\n")
    lines = body.split("\n")
    if not empty or len(lines) < 3 or not all(lines) or not signatures.endswith("\n"):
        raise _malformed("it is no note of three lines, an empty one and signatures")
    origin = lines[0]
    owner = parse_node_id(origin.removesuffix(_SUFFIX))
    root = _base64(lines[2])
    if origin != origin_of(owner) or not _SIZE.fullmatch(lines[1]) or int(lines[1]) > SIZE_MAX:
        raise _malformed("its origin or size is none")
    size = int(lines[1])
    if len(root) != HASH_BYTES or (size == 0 and root != EMPTY_ROOT):
        raise _malformed("its root is none")
    if node is not None and owner != node:
        raise SignatureError(
            "the checkpoint is of another node",
            code="audit.other_key",
            why=f"it is of {owner}, asked for was {node}",
            hint="get the checkpoint of that node, or check with the other key",
        )
    public = public_key_of(owner)
    raw = _signature_of(origin, key_hash(origin, public), signatures)
    verify(public, (body + "\n").encode(), raw)
    return Checkpoint(owner, size, root, text)


def _signature_of(origin: str, key: bytes, lines: str) -> bytes:
    """Return the owner's signature; lines of other keys are those of witnesses and are passed over."""
    for line in lines.split("\n")[:-1]:
        match = _LINE.fullmatch(line)
        if match is None:
            raise _malformed("a signature line is none")
        raw = _base64(match[2])
        if match[1] == origin and raw[:_KEY_ID_BYTES] == key:
            if len(raw) != _KEY_ID_BYTES + SIGNATURE_BYTES:
                raise _malformed("the signature has another length")
            return raw[_KEY_ID_BYTES:]
    raise SignatureError("the checkpoint is not signed by the key in its origin", code="audit.unsigned")


def _base64(text: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed("a line is not base64") from error
    if base64.b64encode(raw).decode() != text:
        raise _malformed("a line is spelled in another way than the one")
    return raw


def _malformed(why: str) -> DecodeError:
    return DecodeError("not a checkpoint of an audit log", code="audit.checkpoint", why=why)
