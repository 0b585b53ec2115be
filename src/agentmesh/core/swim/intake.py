"""What packets carry beside their question or answer: records of nodes, and doubts (docs/spec/swim.md §4)."""

from __future__ import annotations

from agentmesh.core.machine import Outbox, PeerMisbehaved
from agentmesh.core.messages import MemberLeft, NodeHeard, NodeRecordWanted
from agentmesh.core.swim.ground import Ground
from agentmesh.core.swim.messages import DOUBTS_MAX, RECORDS_MAX, Doubt
from agentmesh.core.swim.probing import Probing
from agentmesh.core.swim.refutation import Refutation
from agentmesh.core.swim.verdicts import Verdicts
from agentmesh.errors import PeerError, ReplayError
from agentmesh.identity.node_record import NodeRecord
from agentmesh.identity.reader import Reader
from agentmesh.ids import NodeId, node_id


class Intake:
    """Takes rumours in.

    Args:
        ground: What all parts share.
        reader: Verifies node records.
        probing: Probes whom others doubt.
        verdicts: Count what others say.

    Attributes:
        refutation: Who doubts this very node.
    """

    __slots__ = ("_ground", "_probing", "_reader", "_verdicts", "refutation")

    def __init__(self, ground: Ground, reader: Reader, probing: Probing, verdicts: Verdicts) -> None:
        self._ground = ground
        self._reader = reader
        self._probing = probing
        self._verdicts = verdicts
        self.refutation = Refutation(ground.config.refute_interval_s)

    def read(
        self, peer: NodeId, records: tuple[bytes, ...], doubts: tuple[Doubt, ...], now_s: float, out: Outbox
    ) -> bool:
        """Take in what a packet carries; False if the packet is to be dropped."""
        ground = self._ground
        if len(records) > RECORDS_MAX or len(doubts) > DOUBTS_MAX:
            out.emit(PeerMisbehaved(peer, "swim.too_many", f"{len(records)} + {len(doubts)} rumours"))
            return False
        for raw in records:
            try:
                record = self._reader.node(raw, ground.wall.unix_s(now_s))
            except ReplayError:
                continue  # out of date, or a clock is wrong: the sender need not be at fault
            except PeerError as error:
                out.emit(PeerMisbehaved(peer, "swim.record", f"{error.code}: {error}"))
                return False
            if record.node_id == ground.node_id:
                self._on_own_record(record, now_s, out)
            else:
                self.note_record(record, peer, now_s, out)
        for doubt in doubts:
            if len(doubt.node) != 32:
                out.emit(PeerMisbehaved(peer, "swim.target", f"a node is 32 key bytes, not {len(doubt.node)}"))
                return False
            if doubt.node == ground.key:
                self._refute(peer, doubt, now_s, out)
            elif peer in ground.members:
                self._accuse(peer, doubt, now_s, out)
        return True

    def note_record(self, record: NodeRecord, via: NodeId | None, now_s: float, out: Outbox) -> None:
        """Take a record of another node in, if it is newer; ``via`` = the peer that sent it to this machine."""
        ground = self._ground
        gone = ground.gone
        node = record.node_id
        member = ground.members.get(node)
        if member is None:
            departed = gone.get(node) if gone else None
            if departed is None or record.seq <= departed.record.seq:
                return
            if record.leaving or departed.left:
                gone.drop(node)
                if record.leaving:
                    gone.admit(record, now_s, left=True)
            else:
                departed.record = record  # it signed something after it was given up
                ground.ping_departed(node, departed, now_s, out)
        elif record.seq <= member.record.seq:
            return
        else:
            member.record = record
            if record.leaving:
                ground.unwatch(node)
                gone.admit(record, now_s, left=True)
                out.emit(MemberLeft(node, record.seq))
            else:
                self._verdicts.on_newer_record(member, now_s)
        if via is not None:
            ground.rumours.pass_on(node, record.raw)
            out.emit(NodeHeard(record, via))

    def _on_own_record(self, record: NodeRecord, now_s: float, out: Outbox) -> None:
        """Sign above a record of an earlier self that this one forgot; only our own key could have made it."""
        ground = self._ground
        if record.seq < ground.seq or ground.record is None or record.raw == ground.record.raw:
            return
        if self.refutation.admit_forgotten(record.seq, now_s):
            out.emit(NodeRecordWanted(seq_min=record.seq))

    def _accuse(self, accuser: NodeId, doubt: Doubt, now_s: float, out: Outbox) -> None:
        """A member says that another gave it no answer: ask ourselves, and let it count if we get none either."""
        node = node_id(doubt.node)
        member = self._ground.members.get(node)
        if member is None or node == accuser:
            return
        if doubt.seq < member.record.seq:
            # The verdict does not hang on it: we ask ourselves anyway.
            self._ground.rumours.pass_on(node, member.record.raw)
        self._verdicts.confirm(member, accuser, now_s, out)
        if member.suspicion is None:
            self._probing.check(member, now_s, out)

    def _refute(self, accuser: NodeId, doubt: Doubt, now_s: float, out: Outbox) -> None:
        """Somebody doubts this node: show it a newer record, signed for this if need be."""
        ground = self._ground
        record = ground.record
        if record is None or record.leaving or ground.record_of(accuser) is None or doubt.seq > record.seq:
            return  # above our own seq: a lie, or our past is forgotten, and then the accuser shows it (``Swim._on_ping``)
        self.refutation.owe(accuser)
        if doubt.seq == record.seq and self.refutation.admit(accuser, doubt.seq, now_s, dead=doubt.dead):
            ground.raise_awareness()
            out.emit(NodeRecordWanted(seq_min=doubt.seq))
