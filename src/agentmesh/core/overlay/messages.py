"""What the overlay sends between nodes (docs/spec/overlay.md §2; tags are listed in ``wire.v1``). All of it goes over links.

Records are raw statements of ``identity.node_record``: signed by the node they speak of, so that whoever passes one on
can withhold it but not change it. Lists are read up to their ``_MAX`` and no further.
"""

from __future__ import annotations

import msgspec

#: Records read from one message; about 250 bytes each.
RECORDS_MAX = 16
#: Length of one mark: first 6 bytes of a node's DHT key, then the low 16 bits of its seq, big-endian.
MARK_BYTES = 8
#: Marks read from one message: the largest table of candidates there is.
MARKS_MAX = 160


class Join(msgspec.Struct, tag="o.join"):
    """A newcomer, or a node that lost its links, asks for places in the overlay. ``record`` is the sender's."""

    record: bytes


class JoinReply(msgspec.Struct, tag="o.join_reply"):
    """Nodes for a newcomer to ask: the sender's own record first, then near and random ones."""

    records: list[bytes]


class ForwardJoin(msgspec.Struct, tag="o.forward_join"):
    """A join on its random walk along long links; ``ttl`` steps are left."""

    record: bytes
    ttl: int


class Neighbour(msgspec.Struct, tag="o.neighbour"):
    """Ask for a long link.

    Attributes:
        record: The sender's.
        links: How many long links it has; with none it must not be refused.
        free: How many more it wants; with two or more it can be put between two neighbours.
    """

    record: bytes
    links: int
    free: int


class NeighbourReply(msgspec.Struct, tag="o.neighbour_reply"):
    """Answer to ``Neighbour``; a refusal names other nodes that may have room."""

    accepted: bool
    records: list[bytes] = []


class Disconnect(msgspec.Struct, tag="o.disconnect"):
    """The sender no longer lists the receiver as a long link.

    Attributes:
        instead: Record of a node that has a free place for the receiver, or empty.
    """

    instead: bytes = b""


class LinkCheck(msgspec.Struct, tag="o.link_check"):
    """The sender lists the receiver as a long link; ``Disconnect`` answers if that is one-sided."""


class Shuffle(msgspec.Struct, tag="o.shuffle"):
    """A sample of the origin's views on its random walk along long links; the first record is the origin's own."""

    records: list[bytes]
    ttl: int


class ShuffleReply(msgspec.Struct, tag="o.shuffle_reply"):
    """A sample in return, from where the walk ended."""

    records: list[bytes]


class NearAsk(msgspec.Struct, tag="o.near_ask"):
    """Ask for records of nodes near the sender's DHT key; ``marks`` are the ones it has, itself first."""

    marks: bytes
    depth: int


class NearReply(msgspec.Struct, tag="o.near_reply"):
    """Records that the receiver lacks.

    Attributes:
        records: Nearest first.
        wanted: Those of its marks that the sender would like the records of.
        gone: Those of its marks that the sender holds for dead; a hint, the receiver asks them itself.
    """

    records: list[bytes]
    wanted: bytes = b""
    gone: bytes = b""


class Here(msgspec.Struct, tag="o.here"):
    """The sender's newest record, told to neighbours and to those it thinks are zone mates.

    Attributes:
        record: The sender's own.
        reply: It wants the receiver's record in return: "are you (still) there?".
    """

    record: bytes
    reply: bool = False
