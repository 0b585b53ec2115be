"""Trust statements: what one node saw of others, signed, so that others can weigh it (docs/spec/trust.md §6).

A compact JWS like a receipt. It holds evidence, never a score, and nothing about the issuer or the agents behind it: what
somebody says of itself does not count, and a statement that says it anyway is refused whole. Amounts are integers, in
thousandths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from agentmesh.errors import DecodeError, ReplayError, UsageError
from agentmesh.identity.claims import SET_CLOCKS, did_in, parse_claims, seconds_in
from agentmesh.identity.jws import check_kid, kid_in, sign_compact, split_compact, verify_compact
from agentmesh.identity.keys import KeyPair
from agentmesh.ids import NodeId, public_key_of

TRUST_TYP = "agentmesh-trust+jwt"
#: Rows of one statement: the subjects of whom its issuer knows most.
ROWS_MAX = 256
#: Longest statement, characters: that many rows with both ids.
TRUST_CHARS_MAX = 96 * 1024
#: A statement is good for so long, seconds; its issuer makes a new one whenever it is asked and has seen more.
LIFE_S = 7 * 86_400
#: How far ahead of ours the issuer's clock may be, seconds (as for node records).
SKEW_S_MAX = 300
#: Most evidence of one sort that a row may claim, in thousandths: far above what decay and hourly limits leave to anybody.
EVIDENCE_MAX = 10_000_000
_SEQ_MAX = 2**53 - 1


class TrustRow(NamedTuple):
    """What the issuer saw of one subject.

    Attributes:
        subject: did:key of an agent or a node.
        node: did:key of the node that the agent lives behind; "" for a node.
        good, bad: Evidence for and against it, thousandths, decayed to the time of the statement.
        since: Unix seconds of the first of it.
    """

    subject: str
    node: str
    good: int
    bad: int
    since: int


@dataclass(frozen=True, slots=True)
class TrustStatement:
    """A verified statement; made by ``read_trust_statement`` only.

    Attributes:
        issuer: Who signed it.
        seq: Of two statements of an issuer the higher counts.
        iat: Unix seconds.
        rows: By subject, each once.
        raw: The compact JWS.
    """

    issuer: NodeId
    seq: int
    iat: int
    rows: tuple[TrustRow, ...]
    raw: str


def sign_trust_statement(key: KeyPair, rows: Sequence[TrustRow], *, seq: int, iat: int) -> str:
    """Return a signed statement.

    Args:
        key: The node's key.
        rows: At most ``ROWS_MAX``, any order, none about the node itself or its agents.
        seq: Above that of every earlier one.
        iat: Unix seconds.

    Raises:
        UsageError: a row or number is out of range (codes "trust_statement.*", "claims.*"). Nothing was signed.
    """
    listed: list[dict[str, Any]] = []
    for row in sorted(rows):
        members: dict[str, Any] = {"sub": row.subject, "good": row.good, "bad": row.bad, "since": row.since}
        listed.append({**members, "node": row.node} if row.node else members)
    claims: dict[str, Any] = {"iss": key.did, "iat": iat, "seq": seq, "rows": listed}
    try:
        _read_rows(claims, key.did)
        _read_seq(claims)
        seconds_in(claims, "iat")
    except DecodeError as error:
        raise UsageError(f"cannot sign this trust statement: {error}", code=error.code) from error
    return sign_compact(key, claims, typ=TRUST_TYP)


def read_trust_statement(raw: str, *, now: int) -> TrustStatement:
    """Check a statement of any origin.

    Raises:
        DecodeError: oversized, malformed, out of range, rows not in order, or about the issuer itself (codes
            "trust_statement.*", "claims.*", "jws.*", "json.*").
        ReplayError: its time is over or has not come (codes "trust_statement.expired", "trust_statement.not_yet_valid").
        SignatureError: another algorithm or type, or not signed by its issuer (codes "signature.*").
    """
    if len(raw) > TRUST_CHARS_MAX:
        raise DecodeError(f"a trust statement of {len(raw)} characters is not read", code="trust_statement.too_large")
    protected, payload, _ = split_compact(raw, payload_bytes_max=TRUST_CHARS_MAX)
    kid = kid_in(protected, TRUST_TYP)
    claims = parse_claims(payload, bytes_max=TRUST_CHARS_MAX)
    issuer = did_in(claims, "iss")
    check_kid(kid, issuer)
    iat, seq = seconds_in(claims, "iat"), _read_seq(claims)
    if iat - SKEW_S_MAX > now:
        raise ReplayError(
            f"a trust statement is from {iat - now} s in the future",
            code="trust_statement.not_yet_valid",
            hint=SET_CLOCKS,
        )
    if now > iat + LIFE_S:
        raise ReplayError(
            f"a trust statement expired {now - iat - LIFE_S} s ago",
            code="trust_statement.expired",
            hint="its issuer makes a new one when it is asked",
        )
    rows = _read_rows(claims, issuer)
    verify_compact(raw, public_key_of(issuer))
    return TrustStatement(NodeId(issuer), seq, iat, rows, raw)


def _read_seq(claims: dict[str, Any]) -> int:
    seq = claims.get("seq")
    if type(seq) is not int or not 0 < seq <= _SEQ_MAX:
        raise DecodeError("the seq of a trust statement is out of range", code="trust_statement.seq")
    return seq


def _read_rows(claims: dict[str, Any], issuer: str) -> tuple[TrustRow, ...]:
    listed = claims.get("rows")
    if not isinstance(listed, list) or len(cast("list[Any]", listed)) > ROWS_MAX:
        raise DecodeError(f"a trust statement has a list of at most {ROWS_MAX} rows", code="trust_statement.rows")
    rows: list[TrustRow] = []
    for members in cast("list[Any]", listed):
        if not isinstance(members, dict):
            raise DecodeError("a row of a trust statement is no object", code="trust_statement.rows")
        row = _read_row(cast("dict[str, Any]", members))
        if rows and row.subject <= rows[-1].subject:
            raise DecodeError("the rows of a trust statement are not in order", code="trust_statement.rows")
        if issuer in (row.subject, row.node):
            raise DecodeError("a trust statement praises or blames its own issuer", code="trust_statement.self")
        rows.append(row)
    return tuple(rows)


def _read_row(members: dict[str, Any]) -> TrustRow:
    subject = did_in(members, "sub")
    node = did_in(members, "node") if "node" in members else ""
    good, bad = (members.get(name) for name in ("good", "bad"))
    if type(good) is not int or type(bad) is not int or not (0 <= good <= EVIDENCE_MAX and 0 <= bad <= EVIDENCE_MAX):
        raise DecodeError("the evidence of a row is out of range", code="trust_statement.evidence")
    if node == subject:
        raise DecodeError("a row says that a node lives behind itself", code="trust_statement.rows")
    return TrustRow(subject, node, good, bad, seconds_in(members, "since"))
