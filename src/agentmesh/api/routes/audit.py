"""Routes of the audit log: its head, its records, and proofs of single ones."""

from __future__ import annotations

from typing import Any

from agentmesh.api.table import Ask, Download, Param, RouteRow
from agentmesh.errors import Corrupt, RecordNotFound, SignatureError, UsageError
from agentmesh.sdk.types import AuditProof, AuditRecords, AuditRows, AuditView
from agentmesh.store.audit_survey import Wanted


async def show_audit(ask: Ask) -> AuditView:
    """Answer ``GET /api/v1/audit``."""
    return ask.site.node.audit_log()


async def list_audit(ask: Ask) -> AuditRecords:
    """Answer ``GET /api/v1/audit/records``."""
    query = ask.query
    return await ask.site.node.audit_records(query["after"], query["limit"], query["run"], query["agent"])


def _wanted(query: dict[str, Any]) -> Wanted:
    return Wanted(**{param.name: query[param.name] for param in _FILTERS})


async def row_audit(ask: Ask) -> AuditRows:
    """Answer ``GET /api/v1/audit/rows``."""
    query = ask.query
    return await ask.site.node.audit_rows(_wanted(query), query["limit"], query["before"])


async def export_audit(ask: Ask) -> Download:
    """Answer ``GET /api/v1/audit/export``."""
    return Download(ask.site.node.audit_export(_wanted(ask.query)), NDJSON, "audit.ndjson")


async def prove_audit(ask: Ask) -> AuditProof:
    """Answer ``GET /api/v1/audit/proof/{ref}``."""
    return await ask.site.node.audit_proof(ask.path["ref"])


NDJSON = "application/x-ndjson"
_FILTERS = (
    Param("action", "string", "", "Only these: call for calls both ways, or another action.", chars_max=64),
    Param("caller", "string", "", "Only of this caller: its did:key or the beginning of it.", chars_max=128),
    Param("callee", "string", "", "Only of this callee: its did:key, the beginning of it, or its name.", chars_max=128),
    Param("agent", "string", "", "Only with this agent on either side: its id or name.", chars_max=128),
    Param("result", "string", "", "Only with this decision, outcome, or code of an error.", chars_max=64),
    Param("run", "string", "", "Only of this run, by its id or the beginning of it.", chars_max=128),
    Param("task", "string", "", "Only of this task, by its id or the beginning of it.", chars_max=128),
    Param("since", "string", "", "RFC 3339 time or its beginning, UTC; not before it.", chars_max=40),
    Param("until", "string", "", "RFC 3339 time or its beginning, UTC; before it.", chars_max=40),
)

ROWS = (
    RouteRow(
        "GET",
        "/api/v1/audit",
        show_audit,
        "Show the audit log's signed head, and what is known of other nodes' logs",
        AuditView,
    ),
    RouteRow(
        "GET",
        "/api/v1/audit/records",
        list_audit,
        "List audit records, oldest first",
        AuditRecords,
        errors=(UsageError,),
        params=(
            Param("after", "integer", 0, "Number of the first record."),
            Param("limit", "integer", 100, "At most so many.", low=1, high=1000),
            Param("run", "string", "", "Only of this run, by its id or the beginning of it.", chars_max=128),
            Param("agent", "string", "", "Only with this agent on either side: its id or name.", chars_max=128),
        ),
        description="CloudEvents 1.0 (docs/spec/audit.md). `next`, when it is not null, is the `after` of the next page.",
    ),
    RouteRow(
        "GET",
        "/api/v1/audit/rows",
        row_audit,
        "Show who called whom, newest first",
        AuditRows,
        params=(
            *_FILTERS,
            Param("limit", "integer", 100, "At most so many rows.", low=1, high=1000),
            Param("before", "integer", 2**53, "Only records with a lower number."),
        ),
        description="One answer looks at no more than 50,000 records and says which; `next`, when it is not null, is the "
        "`before` of the next one.",
    ),
    RouteRow(
        "GET",
        "/api/v1/audit/export",
        export_audit,
        "Export the audit records that fit, oldest first, one per line as they are hashed",
        None,
        params=_FILTERS,
        download=NDJSON,
        description="What `agentmesh audit export` prints. An answer that breaks off was not ended by the server.",
    ),
    RouteRow(
        "GET",
        "/api/v1/audit/proof/{ref}",
        prove_audit,
        "Prove that a record is in the log that this node signed",
        AuditProof,
        errors=(RecordNotFound, UsageError, Corrupt, SignatureError),
        path_params={
            "ref": "Number of the record; or task or run id, or 4 or more characters of its beginning; or last."
        },
        description="`agentmesh audit verify-proof` checks the answer with nothing but the node's id.",
    ),
)
