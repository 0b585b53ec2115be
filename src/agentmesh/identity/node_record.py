"""Node records: what a node says of itself, signed by its key (docs/spec/records.md §2).

One record serves every machine: it is the SWIM incarnation (``seq``), the signed peer exchange of the overlay, the
graceful leave (``leaving``) and the health of the node's agents (``sick``). Of two records of one node the higher ``seq``
wins. Nobody but the node can raise its own ``seq``, so nobody else can say that it left, moved or is well.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from agentmesh.errors import DecodeError, ReplayError, UsageError
from agentmesh.identity.claims import SET_CLOCKS
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.statement import read_statement, sign_statement
from agentmesh.ids import Key, NodeId, dht_key, public_key_of

CONTEXT = b"node"
#: Longest life of a record, seconds; nodes sign afresh at half of it.
LIFE_S_MAX = 86_400
#: How far ahead of ours the node's clock may be, seconds (as for manifests).
SKEW_S_MAX = 300
ADDRESSES_MAX = 8
#: Agents of one node that may be told sick at once; who has more sick agents tells the first ones.
SICK_MAX = 64
#: Capacity tiers 0 … 4: the number of long links they stand for is in ``core.overlay.config``.
CAPACITY_MAX = 4
_SEQ_MAX = 2**53 - 1
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{0,15}:[!-~]{1,239}")
_SITE = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}|")


class _Body(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    seq: int
    iat: int
    life_s: int
    wire: int
    addresses: list[str]
    site: str
    capacity: int
    leaving: bool
    sick: list[bytes]
    name: str


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)


@dataclass(frozen=True, slots=True, eq=False)
class NodeRecord:
    """A verified record of a node; made by ``read_node_record`` only.

    Attributes:
        node_id: The node; its key signed this.
        key: Its place in the DHT and in zones, SHA-256 of the public key.
        seq: Rises with every record; SWIM calls it the incarnation.
        iat, exp: Unix seconds, valid from and until.
        wire: Wire version the node speaks.
        addresses: Where it can be reached, best first, with their schemes ("udp:…", "iroh:…").
        site: Label of the place it belongs to, "" by default; zones never span sites.
        capacity: Tier 0 … 4 of how many long links it carries.
        leaving: It leaves on purpose: the last record of this run.
        sick: First 8 bytes of the DHT key of each of its agents that fails its health check.
        name: For people; never trusted.
        raw: The statement, what travels.
    """

    node_id: NodeId
    key: Key
    seq: int
    iat: int
    exp: int
    wire: int
    addresses: tuple[str, ...]
    site: str
    capacity: int
    leaving: bool
    sick: tuple[bytes, ...]
    name: str
    raw: bytes


def node_body(
    *,
    seq: int,
    iat: int,
    wire: int,
    addresses: tuple[str, ...],
    life_s: int = LIFE_S_MAX,
    site: str = "",
    capacity: int = 0,
    leaving: bool = False,
    sick: tuple[bytes, ...] = (),
    name: str = "",
) -> bytes:
    """Encode the body of a node record, to be signed with ``CONTEXT``. Fields as in ``NodeRecord``.

    Raises:
        UsageError: a value is out of range (codes "node_record.*").
    """
    body = _Body(
        seq,
        iat,
        life_s,
        wire,
        list(addresses[:ADDRESSES_MAX]),
        site,
        capacity,
        leaving,
        list(sick[:SICK_MAX]),
        name[:32],
    )
    try:
        _check(body)
    except DecodeError as error:
        raise UsageError(f"cannot sign this node record: {error}", code=error.code) from error
    return _encoder.encode(body)


def sign_node_record(key: KeyPair, body: bytes) -> bytes:
    """Sign a body made by ``node_body``. Raises LimitError."""
    return sign_statement(key, CONTEXT, body)


def read_node_record(raw: bytes, *, now: int) -> NodeRecord:
    """Check a record of any origin and return what it says.

    Args:
        raw: The statement.
        now: Unix seconds.

    Raises:
        DecodeError: oversized, malformed or out of range (codes "statement.*", "node_record.*").
        SignatureError: forged (codes "signature.*").
        ReplayError: its time is over or has not come (codes "node_record.expired", "node_record.not_yet_valid").
    """
    node, payload = read_statement(raw, CONTEXT)
    try:
        body = _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a node record: {error}", code="node_record.malformed") from error
    _check(body)
    record = NodeRecord(
        node_id=node,
        key=dht_key(public_key_of(node)),
        seq=body.seq,
        iat=body.iat,
        exp=body.iat + body.life_s,
        wire=body.wire,
        addresses=tuple(body.addresses),
        site=body.site,
        capacity=body.capacity,
        leaving=body.leaving,
        sick=tuple(body.sick),
        name=body.name,
        raw=raw,
    )
    check_time(record, now)
    return record


def check_time(record: NodeRecord, now: int) -> None:
    """Raise ReplayError unless the record is valid at unix second ``now``."""
    if record.iat - SKEW_S_MAX > now:
        raise ReplayError(
            f"a node record is valid only in {record.iat - now} s",
            code="node_record.not_yet_valid",
            why="the clock of that node is ahead of this one, or this one is behind",
            hint=SET_CLOCKS,
        )
    if now > record.exp:
        raise ReplayError(
            f"a node record expired {now - record.exp} s ago",
            code="node_record.expired",
            why="its node has not signed a fresh one, or a clock is wrong",
            hint="compare the clocks of both machines (date -u)",
        )


def _check(body: _Body) -> None:
    """Raise DecodeError for what no honest node would sign."""
    if not 1 <= body.seq <= _SEQ_MAX or body.iat <= 0 or not 0 < body.life_s <= LIFE_S_MAX or body.wire < 1:
        raise DecodeError("a number of a node record is out of range", code="node_record.number")
    if len(body.addresses) > ADDRESSES_MAX or not all(_ADDRESS.fullmatch(a) for a in body.addresses):
        raise DecodeError("an address of a node record is unusable", code="node_record.address")
    if not _SITE.fullmatch(body.site):
        raise DecodeError(
            f"{body.site[:40]!r} is no site",
            code="node_record.site",
            hint="use 1 to 32 of a-z 0-9 . _ -, or leave it empty",
        )
    if not 0 <= body.capacity <= CAPACITY_MAX:
        raise DecodeError(f"capacity {body.capacity} is no tier", code="node_record.capacity")
    if len(body.sick) > SICK_MAX or not all(len(mark) == 8 for mark in body.sick):
        raise DecodeError("the marks of sick agents are malformed", code="node_record.sick")
    if len(body.name) > 32 or not all(c.isprintable() for c in body.name):
        raise DecodeError("the name of a node record is unprintable or too long", code="node_record.name")
