"""What is piggybacked on SWIM's packets: signed records to pass on, own doubts, each sent a few times (docs/spec/swim.md §4)."""

from __future__ import annotations

from dataclasses import dataclass

from agentmesh.core.swim.messages import DOUBTS_MAX, RECORDS_MAX, Doubt
from agentmesh.ids import NodeId

#: Upper bounds of encoded sizes, bytes: a packet without rumours; what a record costs beside its own bytes; a doubt.
HEAD_BYTES = 48
RECORD_BYTES = 3
DOUBT_BYTES = 48
_NO_RECORDS: tuple[bytes, ...] = ()
_NO_DOUBTS: tuple[Doubt, ...] = ()


@dataclass(slots=True, eq=False)
class _Record:
    raw: bytes
    sent: int = 0


@dataclass(slots=True, eq=False)
class _Doubt:
    key: bytes
    seq: int
    dead: bool
    sent: int = 0


class Rumours:
    """Rumours that still have to be sent; those sent least come first.

    Args:
        rumours_max: Records kept, and doubts kept; the one sent most gives way.
        packet_bytes_max: Size of a packet, encoded.
    """

    __slots__ = ("_doubts", "_records", "packet_bytes_max", "rumours_max")

    def __init__(self, rumours_max: int, packet_bytes_max: int) -> None:
        self.rumours_max = rumours_max
        self.packet_bytes_max = packet_bytes_max
        self._records: dict[NodeId, _Record] = {}
        self._doubts: dict[NodeId, _Doubt] = {}

    def fits(self, raw: bytes) -> bool:
        """Say whether a record can travel in a datagram at all."""
        return HEAD_BYTES + RECORD_BYTES + len(raw) <= self.packet_bytes_max

    def pass_on(self, node: NodeId, raw: bytes) -> None:
        """Send this record of a node with the next packets, instead of any older one."""
        if self.fits(raw):
            if node not in self._records and len(self._records) >= self.rumours_max:
                del self._records[max(self._records, key=lambda known: self._records[known].sent)]
            self._records[node] = _Record(raw)

    def doubt(self, node: NodeId, key: bytes, seq: int, *, dead: bool) -> None:
        """Say with the next packets that a node does not answer, or is dead."""
        if node not in self._doubts and len(self._doubts) >= self.rumours_max:
            del self._doubts[max(self._doubts, key=lambda known: self._doubts[known].sent)]
        self._doubts[node] = _Doubt(key, seq, dead)

    def drop_doubt(self, node: NodeId) -> None:
        """Say no longer that a node does not answer."""
        self._doubts.pop(node, None)

    def drop(self, node: NodeId) -> None:
        """Say nothing about a node any longer."""
        self._doubts.pop(node, None)
        self._records.pop(node, None)

    def pick(
        self, to: NodeId, first_record: bytes | None, first_doubt: Doubt | None, times_max: int
    ) -> tuple[tuple[bytes, ...], tuple[Doubt, ...]]:
        """Take what goes into one packet.

        Args:
            to: The receiver; its own record is not sent to it as a rumour.
            first_record, first_doubt: Go in before all others (a record must fit, else it is left out).
            times_max: A rumour sent so often is dropped.

        Returns:
            Records and doubts; in the idle case two shared empty tuples.
        """
        if not self._records and not self._doubts and first_record is None and first_doubt is None:
            return _NO_RECORDS, _NO_DOUBTS
        room = self.packet_bytes_max - HEAD_BYTES
        records: list[bytes] = []
        doubts: list[Doubt] = []
        if first_doubt is not None:
            doubts.append(first_doubt)
            room -= DOUBT_BYTES
        if first_record is not None and RECORD_BYTES + len(first_record) <= room:
            records.append(first_record)
            room -= RECORD_BYTES + len(first_record)
        for node in sorted(self._doubts, key=lambda known: self._doubts[known].sent):
            if room < DOUBT_BYTES or len(doubts) >= DOUBTS_MAX:
                break
            rumour = self._doubts[node]
            if node != to:
                doubts.append(Doubt(rumour.key, rumour.seq, rumour.dead))
                room -= DOUBT_BYTES
                rumour.sent += 1
                if rumour.sent >= times_max:
                    del self._doubts[node]
        for node in sorted(self._records, key=lambda known: self._records[known].sent):
            record = self._records[node]
            if len(records) >= RECORDS_MAX:
                break
            if node != to and RECORD_BYTES + len(record.raw) <= room and record.raw is not first_record:
                records.append(record.raw)
                room -= RECORD_BYTES + len(record.raw)
                record.sent += 1
                if record.sent >= times_max:
                    del self._records[node]
        return tuple(records), tuple(doubts)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound is broken."""
        assert len(self._records) <= self.rumours_max
        assert len(self._doubts) <= self.rumours_max
