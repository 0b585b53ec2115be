"""Messages of the DHT (docs/spec/dht.md §3): four questions, each with its answer, all datagrams of at most 1 200 bytes.

``rpc`` is chosen by the asker at random and comes back in the answer; who answers is proven by the datagram's signature.
"""

from __future__ import annotations

import msgspec


class Hint(msgspec.Struct, array_like=True, frozen=True):
    """A node that may be nearer to what is looked for. Unsigned: nothing but a reason to ask it.

    Attributes:
        public: Its 32 raw key bytes.
        address: Where it may be reached, "" = unknown.
    """

    public: bytes
    address: str


class Item(msgspec.Struct, array_like=True, frozen=True):
    """A provider record and the 32-byte key it belongs under."""

    key: bytes
    value: bytes


class FindNode(msgspec.Struct, tag="dht.find_node", kw_only=True):
    """Which nodes do you know nearest to ``target``? ``FindReply`` answers.

    Attributes:
        rpc: Comes back in the answer.
        target: 32 bytes.
        at: Where the asker says it can be reached; "" = do not put me into your table.
    """

    rpc: int
    target: bytes
    at: str = ""


class FindValue(msgspec.Struct, tag="dht.find_value", kw_only=True):
    """Which providers of ``key`` do you hold, and which nodes do you know nearest to it? ``FindReply`` answers.

    Attributes:
        rpc: Comes back in the answer.
        key: 32 bytes.
        skip: Start at this place, modulo their number, among the providers: other places show others.
        at: As in ``FindNode``.
    """

    rpc: int
    key: bytes
    skip: int = 0
    at: str = ""


class FindReply(msgspec.Struct, tag="dht.found", kw_only=True):
    """Answer to ``FindNode`` and ``FindValue``.

    Attributes:
        rpc: Of the question.
        hints: The nearest nodes known, nearest first; what fits beside the values.
        values: Provider records under the key, at most 6.
        total: How many such records are held.
    """

    rpc: int
    hints: list[Hint] = []
    values: list[bytes] = []
    total: int = 0


class Store(msgspec.Struct, tag="dht.store", kw_only=True):
    """Keep these provider records. ``Stored`` answers.

    Attributes:
        rpc: Comes back in the answer.
        items: Records of any signer, at most ``ITEMS_MAX``.
        at: As in ``FindNode``.
    """

    rpc: int
    items: list[Item]
    at: str = ""


class Stored(msgspec.Struct, tag="dht.stored", kw_only=True):
    """Answer to ``Store``: how many of the records are held now, these or newer ones."""

    rpc: int
    kept: int


class Check(msgspec.Struct, tag="dht.check", kw_only=True):
    """Are you there, and how many of *my* records do you hold under each of these keys? ``Checked`` answers.

    Attributes:
        rpc: Comes back in the answer.
        keys: 32 bytes each, at most ``CHECK_KEYS_MAX``; none = a ping.
        at: As in ``FindNode``.
    """

    rpc: int
    keys: list[bytes] = []
    at: str = ""


class Checked(msgspec.Struct, tag="dht.checked", kw_only=True):
    """Answer to ``Check``.

    Attributes:
        rpc: Of the question.
        held: For each key how many live records of the asker are held.
        at: Where the answering node says it can be reached; "" = not to be put into tables.
    """

    rpc: int
    held: list[int] = []
    at: str = ""


#: The classes that travel; ``wire.v1`` lists them.
DhtMessage = FindNode | FindValue | FindReply | Store | Stored | Check | Checked
#: Most records in one ``Store``, values in one ``FindReply``, and keys in one ``Check``; more is misbehaviour.
ITEMS_MAX = 8
VALUES_MAX = 6
CHECK_KEYS_MAX = 24
