"""The shapes in which the HTTP API and files show the audit log (docs/spec/audit.md)."""

from __future__ import annotations

from typing import Any, Literal

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


#: Of the token of a call: this node checked that it holds; it sent the call itself; it does not hold, so that the caller is a
#: claim; "" for what is no call.
TokenState = Literal["verified", "own", "claimed", ""]


class AuditRow(msgspec.Struct, kw_only=True):
    """One audit record as a line of who called whom. Names are from the directory as it is now; keys are from the record.

    Attributes:
        seq: Its number in the log.
        time: RFC 3339, UTC, of this node's clock.
        action, decision: What was asked for, and whether it was allowed.
        caller, caller_name: did:key of who asked, for a token that does not hold the node that sent it.
        claimed: Who the sender of such a token says it is.
        callee, callee_name: What was asked for: did:key of an agent, or a name.
        node, node_name: The node at the other end.
        skill, purpose: What for, in the caller's words.
        task, run: Ids.
        outcome, code: How it ended, and the code of an error.
        token: Whether the signed token of the call holds.
        receipt: Hash of the callee's signed receipt; "" for none.
        kept: Whether that receipt is kept here.
        signed: Whether this node's signed checkpoint covers the record.
        count: Calls that this record stands for.
    """

    seq: int
    time: str
    action: str
    decision: str
    caller: str
    caller_name: str = ""
    claimed: str = ""
    callee: str = ""
    callee_name: str = ""
    node: str = ""
    node_name: str = ""
    skill: str = ""
    purpose: str = ""
    task: str = ""
    run: str = ""
    outcome: str = ""
    code: str = ""
    token: TokenState = ""
    receipt: str = ""
    kept: bool = False
    signed: bool = False
    count: int = 1


class AuditRows(msgspec.Struct, kw_only=True):
    """``GET /api/v1/audit/rows``: records that fit, newest first.

    Attributes:
        rows: The newest of them.
        matching, digest: How many fit among the records looked at, and the digest over those; the CLI prints the same.
        begin, end: Which were looked at: from ``begin`` to before ``end``.
        next: ``before`` of the next page; null when nothing older is left.
        signed: Records that this node's signed checkpoint covers.
    """

    rows: list[AuditRow]
    matching: int
    digest: str
    begin: int
    end: int
    next: int | None = None
    signed: int = 0


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
