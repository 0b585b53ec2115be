"""Orders: what an operator signs for every node that obeys it – stop, go on, lists, revoked keys (docs/spec/orders.md).

An order is a security event token (RFC 8417) with exactly one event and a ``seq`` that rises with every order of its operator.
Orders of one kind replace each other: "switch" (stop and resume), "list" and "revoke" each have one newest order, which stays
in force until a newer one replaces it; so there is no ``exp``, and an order that has one is refused rather than guessed at.

Reading goes from cheap to dear: ``parse_order`` looks at size, shape and header, ``verify_order`` at the signature.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from agentmesh.errors import DecodeError, ReplayError
from agentmesh.identity.claims import (
    SET_CLOCKS,
    count_in,
    did_in,
    id_in,
    is_did,
    list_in,
    object_in,
    parse_claims,
    seconds_in,
    text_in,
)
from agentmesh.identity.jws import check_kid, kid_in, sign_checked, split_compact, verify_compact
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import EXT
from agentmesh.ids import public_key_of

ORDER_TYP = "secevent+jwt"
#: Longest order, characters: a list of 500 keys. A stop has about 750.
ORDER_CHARS_MAX = 48 * 1024
#: Nodes that one order can be addressed to by name; a larger group needs an operator of its own.
AUDIENCE_MAX = 64
#: Entries of the three lists of one order together, and revoked keys of one order.
ENTRIES_MAX = 512
#: Stops that one resume can release besides its own operator's.
RELEASES_MAX = 32
SEQ_MAX = 2**53 - 1
#: How far ahead of ours the operator's clock may be, seconds. Nothing limits the other side: an order has no age.
SKEW_S = 30

STOP_EVENT = f"{EXT}/emergency-stop"
RESUME_EVENT = f"{EXT}/resume"
LIST_EVENT = f"{EXT}/list"
REVOKE_EVENT = f"{EXT}/revoke"

#: Which orders replace each other.
Kind = Literal["switch", "list", "revoke"]
KINDS: tuple[Kind, ...] = ("switch", "list", "revoke")

_LISTS = ("allow", "deny", "grey")
_ENTRY = re.compile(r"[!-~]{1,128}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Stop:
    """Be read-only.

    Attributes:
        reason: For people; may be empty.
        until: Unix second at which it ends by itself; None = when it is released.
    """

    reason: str = ""
    until: int | None = None


@dataclass(frozen=True, slots=True)
class Resume:
    """Go on.

    Attributes:
        releases: ``jti`` of stops of other operators that this one releases as well; its own end because it replaces them.
    """

    releases: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lists:
    """Whom to trust more or less: entries as the policy of a node reads them (did:keys, organisations, tags)."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    grey: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Revoke:
    """All keys that this operator holds for revoked; those of its former orders that are not among them are so no longer."""

    keys: tuple[str, ...] = ()
    reason: str = ""


Body = Stop | Resume | Lists | Revoke


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """An order as it was read; made by ``parse_order`` and ``read_order`` only.

    Attributes:
        operator: did:key of who is said to have signed; who did once ``verify_order`` returned.
        kind: Orders of one operator, kind and audience replace each other by ``seq``.
        seq: Of two the higher is in force.
        iat: Unix seconds.
        jti: Names this order.
        txn: Names what it is part of: the stop that a resume belongs to, else ``jti``.
        audience: Node ids it is for, sorted; empty = every node that obeys the operator.
        body: What is ordered.
        raw: The compact JWS, what travels.
        mark: First 8 bytes of its SHA-256: of two orders with one ``seq``, which an operator should never sign, the higher
            wins, so that all nodes agree.
    """

    operator: str
    kind: Kind
    seq: int
    iat: int
    jti: str
    txn: str
    audience: tuple[str, ...]
    body: Body
    raw: str
    mark: bytes = field(repr=False)

    @property
    def rank(self) -> tuple[int, bytes]:
        """What decides which of two orders is the newer one."""
        return self.seq, self.mark

    def is_for(self, node: str) -> bool:
        """Say whether a node is to obey this."""
        return not self.audience or node in self.audience


def sign_order(
    key: KeyPair, body: Body, *, seq: int, iat: int, jti: str, txn: str = "", audience: tuple[str, ...] = ()
) -> str:
    """Return an order as a compact JWS.

    Args:
        key: The operator's.
        body: What is ordered.
        seq: Above that of every order this key signed before; unix milliseconds do.
        iat: Unix seconds.
        jti: Fresh, at least 96 random bits.
        txn: What it is part of; ``jti`` if left out.
        audience: Node ids; empty = every node that obeys.

    Raises:
        UsageError: a value breaks a rule of docs/spec/orders.md; ``code`` names it. Nothing was signed.
    """
    claims: dict[str, Any] = {
        "iss": key.did,
        "aud": sorted(set(audience)) if audience else "*",
        "iat": iat,
        "jti": jti,
        "txn": txn or jti,
        "sub_id": {"format": "did", "url": key.did},
        "seq": seq,
        "events": _events_of(body),
    }
    return sign_checked(
        key,
        claims,
        lambda read: _read(read, "", b""),
        typ=ORDER_TYP,
        what="order",
        chars_max=ORDER_CHARS_MAX,
        hint="shorten the list; organisations and tags take less room than keys",
    )


def parse_order(raw: str) -> Order:
    """Read an order of any origin without checking its signature: whatever it says may be a lie.

    Raises:
        DecodeError: oversized or malformed (codes "order.*", "claims.*", "jws.*", "json.*").
        SignatureError: another algorithm, type or key than its operator's (codes "signature.*").
    """
    if len(raw) > ORDER_CHARS_MAX:
        raise DecodeError(
            f"an order of {len(raw)} characters", code="order.too_large", why=f"at most {ORDER_CHARS_MAX} are read"
        )
    protected, payload, _ = split_compact(raw, payload_bytes_max=ORDER_CHARS_MAX)
    kid = kid_in(protected, ORDER_TYP)
    mark = hashlib.sha256(raw.encode("utf-8", "surrogatepass")).digest()[:8]
    order = _read(parse_claims(payload, bytes_max=ORDER_CHARS_MAX), raw, mark)
    check_kid(kid, order.operator)
    return order


def verify_order(order: Order) -> None:
    """Check that its operator signed an order. Raises SignatureError, DecodeError (codes "signature.*", "jws.base64")."""
    verify_compact(order.raw, public_key_of(order.operator))


def read_order(raw: str) -> Order:
    """Return a verified order. Whether its time has come is judged by ``check_time``. Raises as the two above."""
    order = parse_order(raw)
    verify_order(order)
    return order


def check_time(order: Order, now: int) -> None:
    """Raise ReplayError (code "order.not_yet_valid") for an order from the future, unless it only restricts.

    For the node that an operator hands an order to. A stop and a revocation are taken whatever the clocks say: there is no
    time to set them.
    """
    if isinstance(order.body, Resume | Lists) and order.iat > now + SKEW_S:
        raise ReplayError(
            f"an order is valid only in {order.iat - now} s",
            code="order.not_yet_valid",
            hint=SET_CLOCKS,
        )


def _events_of(body: Body) -> dict[str, Any]:
    if isinstance(body, Stop):
        until = {} if body.until is None else {"until": body.until}
        return {STOP_EVENT: {"mode": "read-only", "reason": body.reason, **until}}
    if isinstance(body, Resume):
        return {RESUME_EVENT: {"releases": list(body.releases)}}
    if isinstance(body, Lists):
        return {LIST_EVENT: {name: list(getattr(body, name)) for name in _LISTS}}
    return {REVOKE_EVENT: {"keys": list(body.keys), "reason": body.reason}}


def _read(claims: dict[str, Any], raw: str, mark: bytes) -> Order:
    """Return the order that claims describe. Raises DecodeError."""
    if "exp" in claims or "nbf" in claims:
        raise DecodeError(
            "an order has no exp and no nbf",
            code="order.exp",
            why="it stays in force until a newer one replaces it; a stop may name the second at which it ends (until)",
        )
    operator = did_in(claims, "iss")
    subject = object_in(claims, "sub_id")
    if subject.get("format") != "did" or subject.get("url") != operator:
        raise DecodeError("the subject of an order is its operator", code="order.subject")
    kind, body = _body_in(object_in(claims, "events"))
    return Order(
        operator=operator,
        kind=kind,
        seq=count_in(claims, "seq", at_most=SEQ_MAX),
        iat=seconds_in(claims, "iat"),
        jti=id_in(claims, "jti"),
        txn=id_in(claims, "txn"),
        audience=_audience_in(claims),
        body=body,
        raw=raw,
        mark=mark,
    )


def _audience_in(claims: dict[str, Any]) -> tuple[str, ...]:
    if claims.get("aud") == "*":
        return ()
    named = list_in(claims, "aud", items_max=AUDIENCE_MAX)
    if not named or not all(map(is_did, named)) or named != sorted(set(named)):
        raise DecodeError(
            'the audience of an order is "*" or a list of node ids',
            code="order.audience",
            why="node ids are did:keys; they are sorted, and none is there twice",
        )
    return tuple(named)


def _body_in(events: dict[str, Any]) -> tuple[Kind, Body]:
    if len(events) != 1:
        raise DecodeError(f"an order has one event, not {len(events)}", code="order.events")
    ((uri, event),) = events.items()
    if not isinstance(event, dict):
        raise DecodeError("the event of an order is no object", code="order.events")
    members = cast("dict[str, Any]", event)
    if uri == STOP_EVENT:
        if members.get("mode") != "read-only":
            raise DecodeError("an emergency stop of an unknown mode", code="order.mode")
        until = seconds_in(members, "until") if "until" in members else None
        return "switch", Stop(text_in(members, "reason"), until)
    if uri == RESUME_EVENT:
        return "switch", Resume(_texts_in(members, "releases", RELEASES_MAX))
    if uri == LIST_EVENT:
        lists = [_texts_in(members, name, ENTRIES_MAX) for name in _LISTS]
        if sum(map(len, lists)) > ENTRIES_MAX:
            raise DecodeError(f"more than {ENTRIES_MAX} entries in the lists of one order", code="order.entries")
        return "list", Lists(*lists)
    if uri == REVOKE_EVENT:
        keys = _texts_in(members, "keys", ENTRIES_MAX)
        if not all(map(is_did, keys)):
            raise DecodeError("a revoked key is no did:key", code="order.key")
        return "revoke", Revoke(keys, text_in(members, "reason"))
    raise DecodeError(
        f"an order of an unknown event {uri[:100]!r}", code="order.events", hint="upgrade agentmesh on this machine"
    )


def _texts_in(members: dict[str, Any], name: str, items_max: int) -> tuple[str, ...]:
    """Return a list of short printable texts, none of them twice. Raises DecodeError."""
    texts = list_in(members, name, items_max=items_max)
    if not all(isinstance(text, str) and _ENTRY.fullmatch(text) for text in texts) or len(set(texts)) != len(texts):
        raise DecodeError(
            f"{name} of an order is no list of different texts",
            code="order.texts",
            why="each has 1 to 128 printable ASCII characters without spaces",
        )
    return tuple(texts)
