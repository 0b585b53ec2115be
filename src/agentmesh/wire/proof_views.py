"""The shapes of the HTTP API that prove something: receipts, grants. As in ``wire.views``."""

from __future__ import annotations

from typing import Any

import msgspec


class ReceiptView(msgspec.Struct, kw_only=True):
    """A receipt that is kept here, with the token of the call that it is about: enough to check both offline.

    Attributes:
        hash: SHA-256 of the receipt, base64url: what the next one of the same two names as ``prev``.
        task_id, run_id: The call.
        callee, caller: did:keys of who signed the receipt and who signed the token.
        receipt, token: Compact JWS (docs/spec/tokens.md).
    """

    hash: str
    task_id: str
    run_id: str
    callee: str
    caller: str
    receipt: str
    token: str


class ReceiptList(msgspec.Struct, kw_only=True):
    """``GET /api/v1/receipts/{ref}``, oldest first."""

    receipts: list[ReceiptView]


class ReceiptCheck(msgspec.Struct, kw_only=True):
    """One receipt with its token, read, and checked by this node just now.

    Attributes:
        hash, task_id, run_id, callee, caller: As in ``ReceiptView``.
        callee_name, caller_name: As this node knows them.
        verified: Whether both signatures hold, and the receipt is about the call of this token.
        why: What does not hold; "" if all does.
        token_claims, receipt_claims: What the caller and the callee signed.
        token, receipt: As they were signed.
    """

    hash: str
    task_id: str
    run_id: str
    callee: str
    caller: str
    callee_name: str = ""
    caller_name: str = ""
    verified: bool = False
    why: str = ""
    token_claims: dict[str, Any] = {}
    receipt_claims: dict[str, Any] = {}
    token: str = ""
    receipt: str = ""


class ReceiptChecks(msgspec.Struct, kw_only=True):
    """``GET /api/v1/receipts/{ref}/check``, oldest first.

    Attributes:
        receipts: Each with what was found.
        linked: Whether those of each two follow each other without a gap; false is normal where other calls lie between.
    """

    receipts: list[ReceiptCheck]
    linked: bool = False


class GrantRequest(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """``POST /api/v1/grants``: let an agent act in one's name.

    Attributes:
        to: Name or id of the agent that may act.
        audience: Names or ids of the agents that it may call with this grant, 1 … 8.
        scopes: What it may do there: ``call.SKILL``, or ``call.*`` for every skill; at most 32.
        maker: Name or id of the local agent that grants; "" = the person at this node, with the node's key.
        life_s: Seconds until it ends, 1 … 86400.
        max: Bounds of one call: ``calls``, ``tokens``, ``usd_micros``, ``wall_ms``, each an integer.
        max_lifetime: Bounds of all calls with this very grant together.
        max_subtree: Bounds of all calls with it and with all grants made from it.
        depth_max: How deep further grants may be made from it, 0 … 7; 0 = none. null: as its parent says.
        parents: The grants it is made from, root first; its maker is the holder of the last. Empty for a new root.
        principal: For whom it all is; "" = the maker, or as the parents say.
    """

    to: str
    audience: list[str]
    scopes: list[str]
    maker: str = ""
    life_s: int = 300
    max: dict[str, int] = {}
    max_lifetime: dict[str, int] = {}
    max_subtree: dict[str, int] = {}
    depth_max: int | None = None
    parents: list[str] = []
    principal: str = ""


class GrantView(msgspec.Struct, kw_only=True):
    """A grant as it was made: what to hand to its holder, and what it says.

    Attributes:
        chain: Compact JWS, root first: the value of ``CallRequest.grants``.
        root, maker, holder: did:keys of who granted first, who granted last, and who may act.
        principal: For whom it all is.
        audience: did:keys of the agents it is good at.
        scopes, limits: What it allows; limits as "KEY.KIND" → bound.
        exp: Unix second at which it ends.
        depth: Number of grants above it.
    """

    chain: list[str]
    root: str
    maker: str
    holder: str
    principal: str
    audience: list[str]
    scopes: list[str]
    limits: dict[str, int] = {}
    exp: int
    depth: int = 0
