"""What Plumtree says between neighbours (docs/spec/plumtree.md §2; tags are listed in ``wire.v1``).

A message id is never trusted: it is the first 16 bytes of SHA-256 over kind and payload (``message_id``), so a payload
travels without it and nobody can give it another name.
"""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

#: Bytes of a message id.
ID_BYTES = 16
#: Bytes of an id in ``Recent``.
PREFIX_BYTES = 4
#: Ids per message, both ways.
IDS_MAX = 256
#: Prefixes per ``Recent``, both ways.
RECENT_MAX = 1_024
#: Characters of a kind.
KIND_MAX = 16
#: Links that a payload may have crossed; more is no lawful path in any overlay we make.
HOPS_MAX = 255

#: What the judge says of a payload: deliver and pass on, drop in silence, drop and charge the sender.
Verdict = Literal["new", "stale", "bad"]


class Gossip(msgspec.Struct, tag="gossip", kw_only=True, omit_defaults=True):
    """A payload.

    Attributes:
        kind, payload: As published.
        hops: Links crossed when this arrives, from 1.
        tree: True while every link so far was an eager one. Only two copies that both came along the tree prove a
            cycle, so only they may prune.
        asked: It answers a ``Graft``.
    """

    kind: str
    hops: int
    payload: bytes
    tree: bool = True
    asked: bool = False


class Offer(msgspec.Struct, tag="gossip_offer", kw_only=True):
    """In place of a payload that is too large to be pushed: fetch it with ``Graft``.

    Attributes:
        kind: As published.
        id: Of the message.
        hops: Links crossed when the payload arrives.
        size_bytes: Of the payload.
    """

    kind: str
    id: bytes
    hops: int
    size_bytes: int


class IHave(msgspec.Struct, tag="ihave", kw_only=True):
    """The sender can hand these out; ``hops`` has one entry per id, the links crossed if it is fetched here."""

    ids: list[bytes]
    hops: list[int]


class Graft(msgspec.Struct, tag="graft", kw_only=True, omit_defaults=True):
    """Send me these payloads; with ``keep`` also push to me from now on."""

    ids: list[bytes]
    keep: bool = False


class Prune(msgspec.Struct, tag="prune", kw_only=True):
    """Announce to me from now on, do not push."""


class IDontWant(msgspec.Struct, tag="idontwant", kw_only=True):
    """Do not push these to me, I have them or am fetching them; announcing them is welcome."""

    ids: list[bytes]


class Recent(msgspec.Struct, tag="gossip_recent", kw_only=True, omit_defaults=True):
    """The first ``PREFIX_BYTES`` of every id that came to the sender in the last ``span_ms``, one after the other.

    The receiver announces what is missing in it, and answers with its own (``answer``) if it misses something itself.
    """

    prefixes: bytes
    span_ms: int
    answer: bool = False


def message_id(kind: str, payload: bytes) -> bytes:
    """Return the id of a message: 16 bytes."""
    return hashlib.sha256(kind.encode("utf-8", "surrogatepass") + b"\n" + payload).digest()[:ID_BYTES]
