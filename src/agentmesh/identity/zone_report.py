"""Zone reports: one member's signed word on who of its zone lives and who died (docs/spec/directory.md §5).

One report of about 300 bytes per zone and five minutes stands for the heartbeats of all its members. Its signer can speak of
its own zone only: the DHT keys of all rows must begin as its own key does. A member reported dead refutes with a node
record of a higher ``seq``, which nobody else can sign.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import msgspec

from agentmesh.errors import DecodeError, ReplayError, UsageError
from agentmesh.identity.claims import SET_CLOCKS
from agentmesh.identity.statement import read_statement
from agentmesh.ids import Key, NodeId, dht_key, public_key_of

CONTEXT = b"zone"
#: How long a report counts, seconds after ``iat``: three of the keep-alives of 300 s.
LIFE_S = 900
#: How far ahead of ours the reporter's clock may be, seconds (as for node records).
SKEW_S_MAX = 300
#: Members of the largest zone that one report can speak of.
ROWS_MAX = 256
#: Rows carry 8 bytes of a key, so no deeper prefix can be checked.
DEPTH_MAX = 64
_SEQ_MAX = 2**53 - 1
_SITE = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}|")

#: What a row says of a member: that it is not known to be dead; that it is; that it was said to be and has been heard since.
LIVES, DEAD, CLEARED = 0, 1, 2
#: First 8 bytes of a member's DHT key, its node record's ``seq`` (0 = not known), and ``LIVES``, ``DEAD`` or ``CLEARED``.
Row = tuple[bytes, int, int]


class _Body(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    site: str
    depth: int
    seq: int
    iat: int
    rows: list[tuple[bytes, int, int]]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)


@dataclass(frozen=True, slots=True, eq=False)
class ZoneReport:
    """A verified report; made by ``read_zone_report`` only.

    Attributes:
        reporter: Who signed it.
        reporter_key: Its DHT key.
        zone_key: Names the zone: equal for all reports of one site, depth and prefix.
        site: Label of the place.
        depth: Number of leading bits that the DHT keys of all members share.
        seq: Of two reports of a zone the higher wins, then the lower ``mark``. At most 1,000 per second of ``iat``. A
            reporter's is above all it has heard of its members, so that it also orders reports by what their signers knew.
        iat: Unix seconds.
        rows: The members, those that died lately included.
        mark: First 6 bytes of the reporter's key as an integer; tells two reports of one ``seq`` apart.
        grave: True if it says of anybody that it is dead, or no longer: what everybody should know.
        raw: The statement, what travels.
    """

    reporter: NodeId
    reporter_key: Key
    zone_key: Key
    site: str
    depth: int
    seq: int
    iat: int
    rows: tuple[Row, ...]
    mark: int
    grave: bool
    raw: bytes

    @property
    def exp(self) -> int:
        """Unix second after which it counts no longer."""
        return self.iat + LIFE_S


def zone_report_body(*, site: str, depth: int, seq: int, iat: int, rows: tuple[Row, ...]) -> bytes:
    """Encode the body of a report, to be signed with ``CONTEXT``. Fields as in ``ZoneReport``.

    Raises:
        UsageError: a value is out of range (codes "zone_report.*").
    """
    body = _Body(site, depth, seq, iat, list(rows))
    try:
        _check(body)
    except DecodeError as error:
        raise UsageError(f"cannot sign this zone report: {error}", code=error.code) from error
    return _encoder.encode(body)


def read_zone_report(raw: bytes, *, now: int) -> ZoneReport:
    """Check a report of any origin.

    Raises:
        DecodeError: oversized, malformed, out of range, or about nodes outside the reporter's zone (codes "statement.*",
            "zone_report.*").
        SignatureError: forged (codes "signature.*").
        ReplayError: its time is over or has not come (codes "zone_report.expired", "zone_report.not_yet_valid").
    """
    reporter, payload = read_statement(raw, CONTEXT)
    try:
        body = _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a zone report: {error}", code="zone_report.malformed") from error
    _check(body)
    key = dht_key(public_key_of(reporter))
    prefix = prefix_of(key, body.depth)
    if any(prefix_of(row[0], body.depth) != prefix for row in body.rows):
        raise DecodeError("a zone report speaks of nodes outside its reporter's zone", code="zone_report.outside")
    report = ZoneReport(
        reporter=reporter,
        reporter_key=key,
        zone_key=zone_key(body.site, body.depth, key),
        site=body.site,
        depth=body.depth,
        seq=body.seq,
        iat=body.iat,
        rows=tuple(body.rows),
        mark=int.from_bytes(key[:6], "big"),
        grave=any(said != LIVES for _, _, said in body.rows),
        raw=raw,
    )
    check_time(report, now)
    return report


def check_time(report: ZoneReport, now: int) -> None:
    """Raise ReplayError unless the report counts at unix second ``now``."""
    if report.iat - SKEW_S_MAX > now:
        raise ReplayError(
            f"a zone report is valid only in {report.iat - now} s",
            code="zone_report.not_yet_valid",
            hint=SET_CLOCKS,
        )
    if now > report.exp:
        raise ReplayError(f"a zone report expired {now - report.exp} s ago", code="zone_report.expired")


def prefix_of(key: bytes, depth: int) -> int:
    """Return the first ``depth`` bits (0 … 64) of a key of at least 8 bytes, as an integer."""
    return int.from_bytes(key[:8], "big") >> (64 - depth)


def zone_key(site: str, depth: int, key: bytes) -> Key:
    """Return the name of the zone that a DHT key belongs to at this depth."""
    text = f"agentmesh zone\n{site}\n{depth}\n{prefix_of(key, depth)}"
    return Key(hashlib.sha256(text.encode("ascii")).digest())


def _check(body: _Body) -> None:
    """Raise DecodeError for what no honest node would sign."""
    if not 0 <= body.depth <= DEPTH_MAX or body.iat <= 0 or not 1 <= body.seq <= min(_SEQ_MAX, (body.iat + 1) * 1000):
        raise DecodeError("a number of a zone report is out of range", code="zone_report.number")
    if not _SITE.fullmatch(body.site):
        raise DecodeError(f"{body.site[:40]!r} is no site", code="zone_report.site")
    if len(body.rows) > ROWS_MAX:
        raise DecodeError(f"{len(body.rows)} rows, at most {ROWS_MAX}", code="zone_report.rows")
    if not all(len(mark) == 8 and 0 <= seq <= _SEQ_MAX and LIVES <= said <= CLEARED for mark, seq, said in body.rows):
        raise DecodeError("a row of a zone report is malformed", code="zone_report.rows")
