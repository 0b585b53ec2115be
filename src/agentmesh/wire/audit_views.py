"""The shapes in which the HTTP API and files show the audit log (docs/spec/audit.md)."""

from __future__ import annotations

from typing import Any

import msgspec


class AuditPeerView(msgspec.Struct, kw_only=True):
    """What another node's audit log looked like when it last continued what it showed before.

    Attributes:
        node_id, node_name: Whose.
        size: Records.
        checkpoint: Signed note (docs/spec/audit.md §3).
        seen: Unix second of its last answer.
        forked: How it broke with its past since; "" if it did not.
        other: The checkpoint that does not continue ``checkpoint``; "" if there is none.
    """

    node_id: str
    node_name: str
    size: int
    checkpoint: str
    seen: int
    forked: str = ""
    other: str = ""


class AuditView(msgspec.Struct, kw_only=True):
    """``GET /api/v1/audit``: this node's audit log.

    Attributes:
        node_id: Whose.
        size, checkpoint: Records in the last checkpoint, and the checkpoint; "" while the log does not match it.
        refusal: Why no call is served now; "" when all is well.
        peers: Logs of other nodes that this one watches, those that broke with their past first.
    """

    node_id: str
    size: int
    checkpoint: str
    refusal: str = ""
    peers: list[AuditPeerView] = []


class AuditRecords(msgspec.Struct, kw_only=True):
    """``GET /api/v1/audit/records``: CloudEvents, oldest first.

    Attributes:
        records: The records.
        next: Where to go on; null at the end.
    """

    records: list[dict[str, Any]]
    next: int | None = None


class AuditProof(msgspec.Struct, kw_only=True):
    """``GET /api/v1/audit/proof/{ref}``: one record, and the proof that it is in the log that its node signed.

    Attributes:
        record: The record, exactly as it is hashed.
        index, size: Its number, and the number of records in the checkpoint.
        hashes: RFC 9162 inclusion proof, base64.
        checkpoint: Signed note (docs/spec/audit.md §3).
    """

    record: str
    index: int
    size: int
    hashes: list[str]
    checkpoint: str
