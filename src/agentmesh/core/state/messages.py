"""What replicas of a space say to each other (docs/spec/state.md §7; ``wire.state`` has the bounds of a frame).

Every message names its space. Arrays with a small number for a tag, as many of them are sent. ``Write`` is what is signed, kept
and passed on: nobody can change another's write, whoever hands it over.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import msgspec

from agentmesh.core.state.causality import Dot, writer_of
from agentmesh.errors import UsageError

SPACE_CHARS_MAX = 64
KEY_CHARS_MAX = 256
#: Bytes of what is random in a writer's id (``causality.writer_of``).
BIRTH_BYTES = 8
#: A space of this name or below stays on its node.
LOCAL_SPACE = "local"
#: Of the note in a write: what the history says of it.
NOTE_BYTES_MAX = 1_024
#: Of a mark: the digest of what a replica holds of a key, or of a write.
MARK_BYTES = 8
BUCKETS = 256
_WRITE_CONTEXT = b"agentmesh state write 1\n"
_PLACE_CONTEXT = b"agentmesh state placement 1\n"
_SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.")
_encoder = msgspec.msgpack.Encoder()


@lru_cache(maxsize=4096)
def is_space(name: str) -> bool:
    """Say whether a text can name a space: 1–64 letters, digits, ``_ - .``, the first a letter or digit."""
    return 0 < len(name) <= SPACE_CHARS_MAX and _SAFE.issuperset(name) and name[0] not in "_-."


@lru_cache(maxsize=16_384)
def is_key(name: str) -> bool:
    """Say whether a text can name a key: as a space, in parts joined by ``/``, 256 characters in all; no part is ``..``."""
    if not 0 < len(name) <= KEY_CHARS_MAX:
        return False
    return all(part and _SAFE.issuperset(part) and part.strip(".") for part in name.split("/"))


def check_names(space: str, key: str | None = None) -> None:
    """Raise UsageError (code "state.name") for what can be no space or key."""
    if not is_space(space):
        raise UsageError(
            f"{space[:80]!r} can be no space",
            code="state.name",
            hint=f"1–{SPACE_CHARS_MAX} letters, digits, '_', '-' and '.', such as   team-a",
        )
    if key is not None and not is_key(key):
        raise UsageError(
            f"{key[:80]!r} can be no key",
            code="state.name",
            hint=f"like a file path: letters, digits, '_', '-', '.' and '/', at most {KEY_CHARS_MAX}, such as   plan/next",
        )


def is_local(space: str) -> bool:
    """Say whether a space stays on its node: ``local`` and ``local.…``."""
    return space == LOCAL_SPACE or space.startswith(LOCAL_SPACE + ".")


class Write(msgspec.Struct, array_like=True, frozen=True):
    """One write as its node signed it.

    Attributes:
        writer: The public key of the node, 32 bytes.
        birth: Of the store that it was made in (``causality.writer_of``).
        n: Number of the write: with the two before, its dot. Rises by one with each write of this writer in this space.
        stamp: Hybrid clock.
        key: Which.
        delta: What it does, an encoded cell (``types``).
        note: For the history: a ``types.Past``, its value left out where it is long.
        signature: Ed25519 of all before and the name of the space.
    """

    writer: bytes
    birth: bytes
    n: int
    stamp: int
    key: str
    delta: bytes
    note: bytes
    signature: bytes = b""

    @property
    def dot(self) -> Dot:
        """The dot of the write."""
        return Dot(writer_id(self.writer, self.birth), self.n)

    def signed_bytes(self, space: str) -> bytes:
        """Return what the signature covers."""
        body = [space, self.writer, self.birth, self.n, self.stamp, self.key, self.delta, self.note]
        return _WRITE_CONTEXT + _encoder.encode(body)

    def mark(self) -> bytes:
        """Return what tells this write from all others, 8 bytes; the signature is not in it."""
        body = [self.writer, self.birth, self.n, self.delta]
        return hashlib.sha256(_encoder.encode(body)).digest()[:MARK_BYTES]

    def size(self) -> int:
        """Return about how many bytes it takes."""
        return len(self.delta) + len(self.note) + len(self.key) + 160


@lru_cache(maxsize=8192)
def writer_id(public: bytes, birth: bytes) -> bytes:
    """Return ``causality.writer_of``; remembered, as the same few writers come again and again."""
    return writer_of(public, birth)


class Run(msgspec.Struct, array_like=True, frozen=True):
    """Writes of one writer: all after ``base`` up to ``top`` are in this message, or superfluous with what is."""

    writer: bytes
    base: int
    top: int


class Vote(msgspec.Struct, array_like=True, frozen=True):
    """A holder's signature on the placement that follows the one it is a holder of; it gives one for each epoch."""

    voter: bytes
    signature: bytes


class Placement(msgspec.Struct, array_like=True, frozen=True):
    """Who holds a space.

    Attributes:
        epoch: Rises by one with each change.
        holders: Public keys, nearest first.
        before: The holders of the epoch before; empty for the first.
        votes: Of a majority of ``before``; of the founder for the first.
    """

    epoch: int
    holders: tuple[bytes, ...]
    before: tuple[bytes, ...] = ()
    votes: tuple[Vote, ...] = ()

    def signed_bytes(self, space: str) -> bytes:
        """Return what a vote covers."""
        return _PLACE_CONTEXT + _encoder.encode([space, self.epoch, self.holders, self.before])

    def mark(self) -> int:
        """Return a number that tells it from all others, also of the same epoch; never 0."""
        digest = hashlib.sha256(self.signed_bytes("")).digest()
        return (int.from_bytes(digest[:MARK_BYTES], "big") >> 1) | 1


class Line(msgspec.Struct, array_like=True, frozen=True):
    """A key and what is held of it: one mark of the whole, or the marks of all writes."""

    key: str
    marks: tuple[bytes, ...]


class Writes(msgspec.Struct, tag=1, array_like=True):
    """Take these writes; if ``ask`` is not 0, say when they are on disk.

    ``place`` names the placement that the sender knows (``Placement.mark``), 0 = none; ``run`` says what was left out.
    """

    space: str
    writes: list[Write]
    ask: int = 0
    place: int = 0
    run: Run | None = None


class Acked(msgspec.Struct, tag=2, array_like=True):
    """Answer to ``Writes``.

    ``status``: 0 = they are on disk here, and the sender of this holds the space by that placement · 1 = another placement ·
    2 = not yet caught up after a change of holders · 3 = they could not be kept.
    """

    space: str
    ask: int
    status: int = 0


class Ask(msgspec.Struct, tag=3, array_like=True):
    """QUORUM read: what do you hold of this key? ``marks`` are the asker's writes of it."""

    space: str
    ask: int
    key: str
    marks: tuple[bytes, ...]
    place: int = 0


class Told(msgspec.Struct, tag=4, array_like=True):
    """Answer to ``Ask``: the writes that the asker lacks, the marks of those that the sender lacks, and as ``Acked``."""

    space: str
    ask: int
    writes: list[Write]
    lacks: tuple[bytes, ...] = ()
    status: int = 0


class Follow(msgspec.Struct, tag=5, array_like=True):
    """Send me what is new in this space from now on (``on``), or no longer."""

    space: str
    on: bool = True


class Seek(msgspec.Struct, tag=6, array_like=True):
    """Who holds this space? ``Placed`` answers, or ``Unplaced``."""

    space: str


class Unplaced(msgspec.Struct, tag=7, array_like=True):
    """I know of no such space."""

    space: str


class Placed(msgspec.Struct, tag=8, array_like=True):
    """Who holds this space, as far as the sender knows."""

    space: str
    placement: Placement


class Propose(msgspec.Struct, tag=9, array_like=True):
    """Vote for this placement, which follows the one of which you are a holder. ``Voted`` or ``Placed`` answers."""

    space: str
    placement: Placement


class Voted(msgspec.Struct, tag=10, array_like=True):
    """The vote asked for, or the one that the sender gave another placement of this epoch before."""

    space: str
    placement: Placement
    vote: Vote


class Digest(msgspec.Struct, tag=11, array_like=True):
    """What I hold of this space, in one number, what I have seen (an encoded version vector), and the placement that I know."""

    space: str
    total: int
    seen: bytes
    place: int = 0


class Buckets(msgspec.Struct, tag=12, array_like=True):
    """Answer to a ``Digest`` that differs: one number for each 256th of all keys, by the first byte of their SHA-256."""

    space: str
    sums: tuple[int, ...]


class Lines(msgspec.Struct, tag=13, array_like=True):
    """Answer to ``Buckets``: all keys of some buckets that differ, each with the mark of the whole."""

    space: str
    buckets: tuple[int, ...]
    lines: list[Line]


class Offer(msgspec.Struct, tag=14, array_like=True):
    """Answer to ``Lines``: keys that differ, with the marks of all writes held of each."""

    space: str
    lines: list[Line]


class Want(msgspec.Struct, tag=15, array_like=True):
    """Answer to ``Offer``, whose writes that the other lacks go before it: send those with these marks, then ``Synced``."""

    space: str
    lines: list[Line]


class Synced(msgspec.Struct, tag=16, array_like=True):
    """All writes of these lines are sent. If it was the last: you hold all that I held when this comparison began.

    ``seen`` says what that was, as a version vector; ``final`` comes from the side that began, after all else: comparisons
    that both sides began may cross.
    """

    space: str
    seen: bytes
    final: bool = False


StateMessage = (
    Writes
    | Acked
    | Ask
    | Told
    | Follow
    | Seek
    | Unplaced
    | Placed
    | Propose
    | Voted
    | Digest
    | Buckets
    | Lines
    | Offer
    | Want
    | Synced
)
