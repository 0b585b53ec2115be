"""Routes of the audit log: its head, its records, and proofs of single ones."""

from __future__ import annotations

from agentmesh.api.table import Ask, Param, RouteRow
from agentmesh.errors import Corrupt, RecordNotFound, SignatureError, UsageError
from agentmesh.sdk.types import AuditProof, AuditRecords, AuditView


async def show_audit(ask: Ask) -> AuditView:
    """Answer ``GET /api/v1/audit``."""
    return ask.site.node.audit_log()


async def list_audit(ask: Ask) -> AuditRecords:
    """Answer ``GET /api/v1/audit/records``."""
    query = ask.query
    return await ask.site.node.audit_records(query["after"], query["limit"], query["run"], query["agent"])


async def prove_audit(ask: Ask) -> AuditProof:
    """Answer ``GET /api/v1/audit/proof/{ref}``."""
    return await ask.site.node.audit_proof(ask.path["ref"])


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
