"""What SWIM sends between nodes (docs/spec/swim.md §2; tags are listed in ``wire.v1``).

All but ``Tell`` with a big record travel as datagrams of at most ``SwimConfig.packet_bytes_max``. Nodes are 32 raw key
bytes. Doubts are first-hand: the accuser is always the sender, whom its key proves.
"""

from __future__ import annotations

import msgspec

#: Lists longer than these are refused before any of it is read; honest packets cannot hold so many.
RECORDS_MAX = 12
DOUBTS_MAX = 24


class Doubt(msgspec.Struct, array_like=True):
    """The sender itself got no answer from a node.

    Attributes:
        node: 32 key bytes.
        seq: Incarnation that is doubted; a record with a higher one refutes it.
        dead: The sender declared it dead.
    """

    node: bytes
    seq: int
    dead: bool


class Ping(msgspec.Struct, tag="sp", array_like=True):
    """Ask for an ``Ack`` with the same nonce; any node answers any other.

    Attributes:
        nonce: Chosen by the sender.
        seq: Of the sender's own record.
        held: The ``seq`` of the receiver's record that the sender holds; 0 = it holds none and wants none.
        clock_ms: The sender's wall clock, unix milliseconds (of whole seconds).
        records: Node records that the receiver may not have yet, as signed.
        doubts: What the sender holds against nodes, the receiver included.
    """

    nonce: int
    seq: int
    held: int
    clock_ms: int
    records: tuple[bytes, ...] = ()
    doubts: tuple[Doubt, ...] = ()


class Ack(msgspec.Struct, tag="sa", array_like=True):
    """Answer to ``Ping``; fields alike."""

    nonce: int
    seq: int
    held: int
    clock_ms: int
    records: tuple[bytes, ...] = ()
    doubts: tuple[Doubt, ...] = ()


class PingReq(msgspec.Struct, tag="sr", array_like=True):
    """Ask the receiver to ping a third node.

    Attributes:
        nonce: Chosen by the sender; comes back in ``Vouch``.
        target: 32 key bytes.
        wait_ms: If the target did not answer after so long, say so (Lifeguard's nack).
    """

    nonce: int
    target: bytes
    wait_ms: int


class Vouch(msgspec.Struct, tag="sv", array_like=True):
    """Answer to ``PingReq``: whether the target answered. A late True may follow a False."""

    nonce: int
    alive: bool


class Tell(msgspec.Struct, tag="st", array_like=True):
    """Rumours that cannot wait for a ping; not answered."""

    records: tuple[bytes, ...] = ()
    doubts: tuple[Doubt, ...] = ()
