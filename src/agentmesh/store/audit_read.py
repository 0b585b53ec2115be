"""Look into an audit log: find records, and prove one to somebody who has nothing but the id of the node.

Reads files only, so it works on a copy, and beside a running node; on its thread, since a log may be large.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from agentmesh.codec.merkle import (
    PROOF_MAX,
    Frontier,
    check_inclusion,
    inclusion_proof,
    leaf_hash,
    stored_at,
)
from agentmesh.errors import DecodeError, MeshError, RecordNotFound, SignatureError, UsageError
from agentmesh.identity.audit_record import AuditRecord, read_record
from agentmesh.identity.checkpoint import Checkpoint, read_checkpoint
from agentmesh.store.audit_files import TREE_NAME, read_head, records_from
from agentmesh.store.audit_survey import Wanted
from agentmesh.wire.audit_views import AuditProof

#: A file with one proof, bytes; ours have about 3,000.
PROOF_BYTES_MAX = 64 * 1024
EVERYTHING = Wanted()
_REF_CHARS_MIN = 4
_MEMBERS = ("task", "txn", "jti", "proof", "receipt")


def select(directory: Path, *, start: int = 0, end: int = 2**53, wanted: Wanted = EVERYTHING) -> Iterator[AuditRecord]:
    """Yield the records that fit, oldest first; what does not read as a record is passed over (``audit_check`` names it).

    Args:
        directory: Of the log.
        start, end: Numbers from … to before.
        wanted: Which of them.

    Raises:
        OSError, UsageError: it cannot be read.
    """
    for raw in records_from(directory, start, end):
        try:
            record = read_record(raw)
        except DecodeError:
            continue
        if wanted.fits(record.time, record.data):
            yield record


def find(directory: Path, ref: str, end: int = 2**53) -> AuditRecord:
    """Return one record: by its number, or the newest that names this task, run, token or receipt.

    Args:
        directory: Of the log.
        ref: A number; or the id of a task or run or its beginning, 4 characters or more; or "last".
        end: Number at which to stop.

    Raises:
        RecordNotFound: there is none.
        OSError, UsageError: it cannot be read.
    """
    if ref.isascii() and ref.isdecimal() and len(ref) < 16:
        for raw in records_from(directory, int(ref), end):
            return read_record(raw)
    found: AuditRecord | None = None
    if ref == "last" or len(ref) >= _REF_CHARS_MIN:
        for record in select(directory, end=end):
            if ref == "last" or any(str(record.data.get(name, "")).startswith(ref) for name in _MEMBERS):
                found = record
    if found is None:
        raise RecordNotFound(
            f"no audit record of {ref[:64]!r} here",
            code="audit.not_found",
            hint="agentmesh audit show   lists the newest",
        )
    return found


def prove(directory: Path, ref: str, *, node: str | None) -> AuditProof:
    """Return a record with the proof that it is in the log that the node signed.

    Args:
        directory: Of the log.
        ref: As for ``find``.
        node: Whose log it must be; None for whomever its checkpoint names.

    Raises:
        RecordNotFound: there is no such record among those that are signed.
        Corrupt: the checkpoint does not hold (code "audit.history").
        SignatureError: the log was changed (code "merkle.inclusion").
        OSError, UsageError: it cannot be read.
    """
    head = read_head(directory, node=node)
    record = find(directory, ref, head.size)
    proof = _proof(directory, record, head)
    return AuditProof(
        record=record.raw.decode("utf-8"),
        index=record.seq,
        size=head.size,
        hashes=[base64.b64encode(one).decode() for one in proof],
        checkpoint=head.text,
    )


def _proof(directory: Path, record: AuditRecord, head: Checkpoint) -> list[bytes]:
    """Return the proof from the stored hashes, or, if these do not lead to the root, from the records themselves."""
    leaf = leaf_hash(record.raw)
    try:
        with (directory / TREE_NAME).open("rb") as file:

            def read(level: int, number: int) -> bytes:
                file.seek(stored_at(level, number) * 32)
                return file.read(32)

            proof = inclusion_proof(record.seq, head.size, read)
        check_inclusion(leaf, record.seq, head.size, proof, head.root)
    except (OSError, MeshError):
        tree, hashes = Frontier(), list[bytes]()
        for raw in records_from(directory, 0, head.size):
            hashes += tree.append(leaf_hash(raw))
        if tree.size == head.size:
            proof = inclusion_proof(record.seq, head.size, lambda level, number: hashes[stored_at(level, number)])
        else:
            proof = []
        try:
            check_inclusion(leaf, record.seq, head.size, proof, head.root)
        except SignatureError as error:
            raise SignatureError(
                "the log does not hold what was signed, so nothing in it can be proven",
                code=error.code,
                why=error.why,
                hint="agentmesh audit verify   names what is wrong",
            ) from error
    return proof


def check_proof(proof: AuditProof, *, node: str | None) -> tuple[AuditRecord, Checkpoint]:
    """Check a proof from anywhere with nothing but the node's id.

    Args:
        proof: From ``prove``.
        node: Whose log it must be; None for whomever its checkpoint names.

    Returns:
        The record, and the checkpoint that it is shown to be in.

    Raises:
        DecodeError, SignatureError: it does not hold.
    """
    head = read_checkpoint(proof.checkpoint, node=node)
    if len(proof.hashes) > PROOF_MAX:
        raise DecodeError(f"a proof of {len(proof.hashes)} hashes is not read", code="audit.proof")
    try:
        hashes = [base64.b64decode(one, validate=True) for one in proof.hashes]
        raw = proof.record.encode("utf-8")
    except (binascii.Error, ValueError) as error:
        raise DecodeError("not a proof of an audit record", code="audit.proof", why=str(error)) from error
    record = read_record(raw)
    if (record.seq, proof.size) != (proof.index, head.size) or record.source != head.node_id:
        raise SignatureError(
            "record, proof and checkpoint are not of one log",
            code="audit.proof",
            why=f"record {record.seq} of {record.source[:80]}, checkpoint of {head.size} records of {head.node_id}",
        )
    check_inclusion(leaf_hash(raw), proof.index, head.size, hashes, head.root)
    return record, head


def read_proof(raw: bytes) -> AuditProof:
    """Read a file with a proof. Raises UsageError."""
    try:
        if len(raw) > PROOF_BYTES_MAX:
            raise msgspec.DecodeError(f"it is larger than {PROOF_BYTES_MAX >> 10} KB")
        return msgspec.json.decode(raw, type=AuditProof)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(
            "this file holds no proof of an audit record",
            code="audit.proof_file",
            why=str(error),
            hint="agentmesh audit prove last > proof.json",
        ) from error


def whole(record: AuditRecord) -> dict[str, Any]:
    """Return a record as people and programs see it: every member of what was written."""
    return msgspec.json.decode(record.raw, type=dict[str, Any])
