"""What nodes ask each other about topics over a request stream (docs/spec/topics.md §7); ``wire.v1`` lists the tags.

One ``TopicQuery`` asks one thing and gets one ``TopicReply``. Publications travel as they were signed.
"""

from __future__ import annotations

from typing import Any

import msgspec

#: Ranges of retained subjects that are compared, and bytes of the sum of each.
BUCKETS, SUM_BYTES = 64, 8
#: Bytes of one line about a retained value: key of its subject, time, and the beginning of its id.
LINE_BYTES = 24
#: Retained values asked for at once, and bytes of one answer; one value always fits.
WANTED_MAX = 1_024
REPLY_BYTES_MAX = 512 * 1024
#: Records of one request about a durable topic, and tokens.
RECORDS_MAX = 256
#: Longest that the owner of a topic lets an asker wait for something new, seconds.
WAIT_S_MAX = 20.0


class Sums(msgspec.Struct, tag="sums", kw_only=True):
    """Which retained values do you hold in the ranges where our sums differ? Answered by ``lines``."""

    sums: bytes


class Wanted(msgspec.Struct, tag="wanted", kw_only=True):
    """Send the retained values of these subjects, by key of 8 bytes each. Answered by ``raws``, maybe not all."""

    keys: bytes


class Append(msgspec.Struct, tag="append", kw_only=True):
    """Keep these publications in a durable topic of yours. Answered by ``offsets`` when they are on disk."""

    topic: str
    raws: list[bytes]


class Read(msgspec.Struct, tag="read", kw_only=True):
    """Return records from an offset on; ``agent`` is in whose name, "" = the asking node's."""

    topic: str
    offset: int
    limit: int = 256
    wait_s: float = 0.0
    agent: str = ""


class Bounds(msgspec.Struct, tag="bounds", kw_only=True):
    """Return the oldest offset, the next one, and that of the first record at or after ``ts_ms`` (0 = the oldest)."""

    topic: str
    ts_ms: int = 0
    agent: str = ""


class Fetch(msgspec.Struct, tag="fetch", kw_only=True):
    """Take work of a consumer group (``engines.base.TopicStore.fetch``)."""

    topic: str
    group: str
    member: str
    limit: int = 16
    wait_s: float = 0.0
    ack_wait_s: float = 30.0
    agent: str = ""


class Ack(msgspec.Struct, tag="ack", kw_only=True):
    """Say that leased records are done, or give them back (``back``)."""

    topic: str
    group: str
    tokens: list[str]
    back: bool = False
    delay_s: float = 0.0


TopicAsk = Sums | Wanted | Append | Read | Bounds | Fetch | Ack


class TopicQuery(msgspec.Struct, tag="topics", kw_only=True):
    """First message of a stream about topics."""

    v: int
    ask: TopicAsk


class RecordLine(msgspec.Struct, array_like=True):
    """One record of a durable topic: ``token`` and ``tries`` only where it was leased."""

    offset: int
    ts_ms: int
    subject: str
    body: bytes
    token: str = ""
    tries: int = 0


class TopicReply(msgspec.Struct, tag="topics_reply", kw_only=True, omit_defaults=True):
    """Answer to ``TopicQuery``: what was asked for, or ``error`` (``errors.to_wire``)."""

    lines: bytes = b""
    raws: list[bytes] = []
    offsets: list[int] = []
    records: list[RecordLine] = []
    done: int = 0
    error: dict[str, Any] | None = None
