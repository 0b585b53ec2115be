"""What other nodes ask us (docs/spec/dht.md §3, §6)."""

from __future__ import annotations

from agentmesh.core.dht.config import DhtConfig
from agentmesh.core.dht.messages import (
    CHECK_KEYS_MAX,
    ITEMS_MAX,
    VALUES_MAX,
    Check,
    Checked,
    FindNode,
    FindReply,
    FindValue,
    Hint,
    Store,
    Stored,
)
from agentmesh.core.dht.place import hint_of
from agentmesh.core.dht.push import ITEM_BYTES, STORE_BYTES
from agentmesh.core.dht.roster import Roster
from agentmesh.core.dht.values import Values
from agentmesh.core.machine import Outbox, PeerMisbehaved, WallTime
from agentmesh.errors import MeshError, ReplayError
from agentmesh.identity.reader import Reader
from agentmesh.ids import Key, NodeId

#: Bytes of a ``FindReply`` apart from hints and values, and of each of these apart from its texts.
_REPLY_BYTES = 64
_HINT_BYTES = 36
_VALUE_BYTES = 3
#: Beside values at least so many bytes are left to hints, so that a node with many values still leads on.
_HINTS_BYTES_MIN = 200


class Answers:
    """The side of a node that answers.

    Args:
        roster, values: Of the same machine.
        config: Sizes.
        reader, wall: To verify what is to be stored.
    """

    __slots__ = ("_config", "_reader", "_roster", "_values", "_wall")

    def __init__(self, roster: Roster, values: Values, config: DhtConfig, reader: Reader, wall: WallTime) -> None:
        self._roster, self._values, self._config, self._reader, self._wall = roster, values, config, reader, wall

    def on_find_node(self, peer: NodeId, question: FindNode, out: Outbox) -> None:
        """Name the nearest nodes we know."""
        if len(question.target) != 32:
            out.emit(PeerMisbehaved(peer, "dht.malformed", "a target that is no key"))
            return
        out.send(peer, FindReply(rpc=question.rpc, hints=self._hints(peer, question.target, _REPLY_BYTES)))

    def on_find_value(self, peer: NodeId, question: FindValue, now_s: float, out: Outbox) -> None:
        """Show up to six of the providers we hold, from the asked place on, and the nearest nodes beside them."""
        if len(question.key) != 32 or question.skip < 0:
            out.emit(PeerMisbehaved(peer, "dht.malformed", "a question for what is no key"))
            return
        held = self._values.of(Key(question.key), self._wall.unix_s(now_s))
        values: list[bytes] = []
        size = _REPLY_BYTES
        start = question.skip % len(held) if held else 0
        for step in range(min(VALUES_MAX, len(held))):
            raw = held[(start + step) % len(held)].raw
            if values and size + len(raw) + _VALUE_BYTES + _HINTS_BYTES_MIN > self._config.reply_bytes_max:
                break
            size += len(raw) + _VALUE_BYTES
            values.append(raw)
        hints = self._hints(peer, question.key, size)
        out.send(peer, FindReply(rpc=question.rpc, hints=hints, values=values, total=len(held)))

    def on_store(self, peer: NodeId, question: Store, now_s: float, out: Outbox) -> None:
        """Keep what verifies; whoever passes on a forged record pays for it."""
        if len(question.items) > ITEMS_MAX or any(len(item.key) != 32 for item in question.items):
            out.emit(PeerMisbehaved(peer, "dht.malformed", "too much to store at once, or under what is no key"))
            return
        kept = 0
        unix_s = self._wall.unix_s(now_s)
        for item in question.items:
            if len(item.value) + STORE_BYTES + ITEM_BYTES > self._config.reply_bytes_max:
                continue  # could never be passed on
            try:
                provider = self._reader.provider(item.value, Key(item.key), unix_s)
            except ReplayError:
                continue  # just over, or a clock is wrong
            except MeshError as error:
                out.emit(PeerMisbehaved(peer, "dht.forged", error.detail))
                self._roster.expel(peer, now_s, out)
                self._roster.shun(peer, now_s)
                return
            kept += self._values.admit(provider, unix_s) != "full"
        out.send(peer, Stored(rpc=question.rpc, kept=kept))

    def on_check(self, peer: NodeId, question: Check, now_s: float, out: Outbox) -> None:
        """Say that we are there, and how many of the asker's own records we hold."""
        if len(question.keys) > CHECK_KEYS_MAX or any(len(key) != 32 for key in question.keys):
            out.emit(PeerMisbehaved(peer, "dht.malformed", "too many keys to check, or what is no key"))
            return
        unix_s = self._wall.unix_s(now_s) if question.keys else 0
        held = [sum(p.node_id == peer for p in self._values.of(Key(key), unix_s)) for key in question.keys]
        out.send(peer, Checked(rpc=question.rpc, held=held, at=self._roster.calls.at))

    def _hints(self, peer: NodeId, target: bytes, size: int) -> list[Hint]:
        """Return the nearest contacts, the asker left out, as many as fit beside ``size`` bytes."""
        hints: list[Hint] = []
        for contact in self._roster.table.nearest(int.from_bytes(target, "big"), self._config.k + 1):
            place = contact.place
            if place.node == peer:
                continue
            # MessagePack spells the length of up to 31 characters in one byte, of up to 255 in two.
            size += _HINT_BYTES + len(contact.address) + (len(contact.address) > 31) + (len(contact.address) > 255)
            if size > self._config.reply_bytes_max or len(hints) >= self._config.k:
                break
            hints.append(hint_of(place.public, contact.address))
        return hints
