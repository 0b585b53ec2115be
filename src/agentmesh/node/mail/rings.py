"""What this node knows of groups: who is in them, and the chains by which their members write (docs/spec/sealed.md §7–8).

No network and no loop here: ``groups`` sends and takes the messages.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from agentmesh.core.courier.message import Message
from agentmesh.errors import DecodeError, LimitError, RecordNotFound, Unauthorized, UsageError
from agentmesh.identity.group import Group, group_id, read_group
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.senderkey import CHAIN_BYTES, SECRET_BYTES, Head, ReceivingChain, SendingChain, read_head
from agentmesh.ids import public_key_of
from agentmesh.store.groups import CHAINS_MAX, ChainRow, GroupStore

#: Groups that a node knows, those included that ended or that its agents left: an old statement must not bring them back.
RINGS_MAX = 1_000
#: Of these, made by one other node.
OWNER_MAX = 100


class Copy(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Payload of one member's copy.

    Attributes:
        letter: The same for all members (``identity.senderkey``).
        share: Number and secret of the sender's chain as it stood before this letter; None once this member has it.
        statement: Who is in the group; b"" once this member has it.
    """

    letter: bytes
    share: tuple[int, bytes] | None = None
    statement: bytes = b""


class Inner(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """What a letter hides."""

    content_type: str
    payload: bytes


_encode = msgspec.msgpack.Encoder().encode
_copies = msgspec.msgpack.Decoder(Copy)
_inners = msgspec.msgpack.Decoder(Inner)


class Sending:
    """A sender's chain, and who has its key: member → id of the copy that carries it, b"" once that is delivered."""

    __slots__ = ("chain", "given")

    def __init__(self, chain: SendingChain) -> None:
        self.chain = chain
        self.given: dict[bytes, bytes] = {}


class Ring:
    """One group: its members, the chains of its senders here, and those of others by (sender, chain)."""

    __slots__ = ("group", "receiving", "sending")

    def __init__(self, group: Group) -> None:
        self.group = group
        self.sending: dict[bytes, Sending] = {}
        self.receiving: dict[tuple[bytes, bytes], ReceivingChain] = {}

    def may_write(self, sender: bytes) -> bool:
        """Say whether an agent is a member, or the node that made the group."""
        return sender in self.group.members or sender == public_key_of(self.group.owner)


class Missing(DecodeError):
    """A letter whose chain is not known here; its sender can be asked for it."""


class Rings:
    """Know groups; what is known survives restarts, but for the chains of senders here.

    Args:
        path: The file of the store; made with the first group.
        node_id: Own id.
        is_here: Whether an agent lives at this node, by raw key.
        entropy: Draws so many random bytes.
    """

    def __init__(
        self, path: Path, node_id: str, is_here: Callable[[bytes], bool], entropy: Callable[[int], bytes]
    ) -> None:
        self._path, self._node_id, self._is_here, self._entropy = path, node_id, is_here, entropy
        self._store: GroupStore | None = None
        self._rings: dict[bytes, Ring] | None = None
        self._moved: dict[tuple[bytes, bytes, bytes], tuple[ReceivingChain, int]] = {}

    def all(self) -> list[Ring]:
        """Return the groups that this node made or whose members live here, by name. Raises StoreError, ConfigError."""
        known = [ring for ring in self._load().values() if ring.group.members]
        ours = [r for r in known if r.group.owner == self._node_id or any(map(self._is_here, r.group.members))]
        return sorted(ours, key=lambda ring: (ring.group.name.casefold(), ring.group.owner))

    def of(self, group: bytes) -> Ring | None:
        """Return a group by its 16 bytes."""
        return self._load().get(group)

    def own(self, name: str) -> Ring | None:
        """Return the group of that name that this node made, also one that has ended."""
        return self._load().get(group_id(self._node_id, name))

    def named(self, ref: str) -> Ring:
        """Return the group that people mean by ``NAME`` or ``NAME@NODE_ID``: that which this node made comes first.

        Raises:
            RecordNotFound: there is none (code "not_found.group").
            UsageError: there are several (code "group.ambiguous").
        """
        name, _, owner = ref.partition("@")
        found = [r for r in self.all() if r.group.name.casefold() == name.casefold() and owner in ("", r.group.owner)]
        found = [ring for ring in found if ring.group.owner == self._node_id] or found
        if not found:
            raise RecordNotFound(
                f"no agent of this node is in a group {name[:80]!r}",
                code="not_found.group",
                hint="agentmesh group set NAME AGENT…   makes one",
            )
        if len(found) > 1:
            raise UsageError(
                f"{len(found)} groups are called {name[:80]!r}",
                code="group.ambiguous",
                hint=f"say whose:   group:{name}@{found[0].group.owner}",
            )
        return found[0]

    # Members

    def learn(self, raw: bytes) -> Ring | None:
        """Take in a statement of any origin; return the group, or None if it concerns nobody here.

        Raises:
            DecodeError, SignatureError: as ``read_group``.
            LimitError: too many groups are known (code "group.full"). StoreError. Nothing changed.
        """
        rings = self._load()
        group = read_group(raw)
        ring = rings.get(group.id)
        if ring is not None and group.epoch <= ring.group.epoch:
            return ring
        if ring is None and group.owner != self._node_id and not any(map(self._is_here, group.members)):
            return None
        is_own = group.owner == self._node_id
        if ring is None and not is_own and sum(r.group.owner == group.owner for r in rings.values()) >= OWNER_MAX:
            raise LimitError(f"{OWNER_MAX} groups of one other node are known here", code="group.full")
        if ring is None and len(rings) >= RINGS_MAX:
            gone = next((key for key, one in rings.items() if not one.group.members), None)
            if gone is None:
                raise LimitError(f"{RINGS_MAX} groups are known at this node", code="group.full")
            self._opened().drop(gone)
            del rings[gone]
        # Its own are on disk at once: no epoch may ever come twice. Those of others are told again.
        self._opened().keep(group.id, raw, durable=is_own)
        if ring is None:
            ring = rings[group.id] = Ring(group)
        ring.group = group
        ring.sending.clear()  # a new epoch, new chains: who left gets none of them
        if left := [key for key in ring.receiving if not ring.may_write(key[0])]:
            self._opened().drop_chains(group.id, [sender for sender, _ in left])
            for key in left:
                del ring.receiving[key]
        return ring

    # Writing

    def write(self, ring: Ring, key: KeyPair, message: Message) -> tuple[Sending, tuple[int, bytes], bytes]:
        """Encrypt a message for all members; return the chain, its share before this letter, and the letter."""
        sending = ring.sending.get(key.public)
        if sending is None or sending.chain.is_worn:
            entropy = self._entropy(CHAIN_BYTES + SECRET_BYTES)
            sending = Sending(SendingChain(key, ring.group.id, ring.group.epoch, entropy))
            ring.sending[key.public] = sending
        share = sending.chain.share
        return sending, share, sending.chain.seal(message.id, _encode(Inner(message.content_type, message.payload)))

    def copy(self, ring: Ring, letter: bytes, share: tuple[int, bytes] | None) -> bytes:
        """Return the payload of a copy; with the key also who is in the group."""
        return _encode(Copy(letter, share, ring.group.raw if share else b""))

    # Reading

    def head(self, message: Message) -> Head:
        """Return the head of the letter in a copy, unproven. Raises DecodeError."""
        return read_head(_copy_in(message).letter)

    def read(self, message: Message) -> Inner:
        """Open a member's copy.

        Raises:
            Missing: the sender's chain is not known here (code "group.key_missing").
            Unauthorized: the sender is no member, or the recipient is none (code "group.member").
            DecodeError, SignatureError: malformed or forged (codes "group.*", "statement.*", "signature.*").
            LimitError, StoreError: what came with it cannot be kept.
        """
        copy = _copy_in(message)
        head = read_head(copy.letter)
        ring = self.of(head.group)
        if copy.statement and (ring is None or ring.group.raw != copy.statement):
            self.learn(copy.statement)
            ring = self.of(head.group)
        if ring is None:
            raise Missing("a letter to a group that is not known here", code="group.key_missing")
        if not ring.may_write(message.sender) or message.recipient not in ring.group.members:
            raise Unauthorized("who is not in a group writes to nobody in it", code="group.member")
        known = chain = ring.receiving.get((message.sender, head.chain))
        if copy.share is not None and (known is None or copy.share[0] < known.share[0]):
            # Also the key of an earlier letter, which later ones have overtaken: it opens those too.
            chain = ReceivingChain(message.sender, head.group, head.epoch, head.chain, *copy.share)
        if chain is None:
            raise Missing("the key of a letter to a group has not come", code="group.key_missing")
        plain = chain.open(message.id, copy.letter)
        if chain is not known:  # proven now
            ring.receiving[message.sender, head.chain] = chain
            theirs = [key for key in ring.receiving if key[0] == message.sender]
            for key in theirs[:-CHAINS_MAX]:
                del ring.receiving[key]
        self._moved[head.group, message.sender, head.chain] = chain, head.number
        try:
            return _inners.decode(plain)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise DecodeError(f"not a letter to a group: {error}", code="group.malformed") from error

    def settle(self) -> None:
        """Hear that what ``read`` returned is kept: forget keys behind it, and keep the chains. Raises StoreError."""
        moved, self._moved = self._moved, {}
        rows: list[ChainRow] = []
        for (group, sender, name), (chain, number) in moved.items():
            chain.settle(number)
            rows.append(ChainRow(group, sender, chain.epoch, name, *chain.share))
        if rows:
            self._opened().keep_chains(rows)

    def close(self) -> None:
        """Close the store. Idempotent."""
        if self._store is not None:
            self._store.close()

    def _opened(self) -> GroupStore:
        if self._store is None:
            self._store = GroupStore.open(self._path)
        return self._store

    def _load(self) -> dict[bytes, Ring]:
        if self._rings is None:
            rings: dict[bytes, Ring] = {}
            if self._path.exists():
                for raw in self._opened().groups():
                    ring = Ring(read_group(raw))
                    rings[ring.group.id] = ring
                    for row in self._opened().chains(ring.group.id):
                        ring.receiving[row.sender, row.chain] = ReceivingChain(
                            row.sender, row.group, row.epoch, row.chain, row.number, row.secret
                        )
            self._rings = rings
        return self._rings


def _copy_in(message: Message) -> Copy:
    try:
        return _copies.decode(message.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"not a copy to a group: {error}", code="group.malformed") from error
