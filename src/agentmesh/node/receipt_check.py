"""Check receipts that are kept with the tokens of their calls: what ``agentmesh receipt verify`` and the console tell of them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import msgspec

from agentmesh.errors import MeshError, SignatureError
from agentmesh.identity.receipt import Receipt, check_links, check_receipt, read_receipt
from agentmesh.identity.token import CallToken, read_kept_token
from agentmesh.wire.proof_views import ReceiptCheck, ReceiptChecks, ReceiptView


def check_kept(one: ReceiptView) -> tuple[Receipt, CallToken]:
    """Check a receipt against its own token, with no key but those in the ids. Raises PeerError: something does not hold."""
    receipt, token = read_receipt(one.receipt), read_kept_token(one.token)
    check_receipt(receipt, token, res_digest=None)
    said = (receipt.hash, receipt.claims.task_id, receipt.issuer, token.caller)
    if said != (one.hash, one.task_id, one.callee, one.caller):
        raise SignatureError(
            "a receipt is listed under other names than it was signed with",
            code="receipt.listing",
            why=f"it is for task {receipt.claims.task_id[:64]} of {receipt.issuer}",
            hint="whoever wrote this list changed it; ask for the receipts at the node that called",
        )
    return receipt, token


def follow_each_other(chains: Iterable[Sequence[Receipt]]) -> bool:
    """Say whether each of these, all of one callee for one caller, follow each other without a gap."""
    try:
        for chain in chains:
            check_links(chain)
    except SignatureError:
        return False
    return True


def checks_of(kept: Sequence[ReceiptView], name_of: Callable[[str], str]) -> ReceiptChecks:
    """Check receipts and show what they say; about half a millisecond each."""
    chains: dict[tuple[str, str], list[Receipt]] = {}
    rows: list[ReceiptCheck] = []
    for one in kept:
        row = ReceiptCheck(
            **msgspec.structs.asdict(one),
            callee_name=name_of(one.callee),
            caller_name=name_of(one.caller),
            token_claims=_claims(one.token),
            receipt_claims=_claims(one.receipt),
        )
        rows.append(row)
        try:
            receipt, token = check_kept(one)
        except MeshError as error:
            row.why = f"{error.detail} ({error.why})" if error.why else error.detail
            continue
        row.verified = True
        chains.setdefault((receipt.issuer, token.caller), []).append(receipt)
    return ReceiptChecks(receipts=rows, linked=follow_each_other(chains.values()))


def _claims(compact: str) -> dict[str, Any]:
    """Return what a compact JWS says, whether or not it holds; {} for what cannot be read."""
    payload = compact.split(".")[1:2]
    try:
        value: Any = msgspec.json.decode(base64.urlsafe_b64decode(payload[0] + "=" * (-len(payload[0]) % 4)))
    except (IndexError, binascii.Error, ValueError, msgspec.DecodeError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}
