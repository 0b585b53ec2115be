"""Wire messages between nodes, version 1 (docs/spec/wire.md).

Each message is a MessagePack map with a tag, or for the smallest and most frequent ones an array that begins with its tag;
decoding is strict about types and sizes. A link carries one control
stream (opened by the dialler, first message ``Hello`` on both sides) and any number of request streams whose first
message says what they are (``CallOpen``, ``TraceQuery``, ``NetQuery``, ``AuditQuery``, ``TrustQuery``, ``SearchQuery``,
``MailOpen``, ``CarryOpen``, ``TopicQuery``, ``StateOpen``).
Unknown tags close the stream with ``VersionError``; unknown fields are ignored, so that fields can be added. Messages of the
core machines are defined beside the machine that sends them; this module says under which tags they travel.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from agentmesh.core.dht import messages as dht
from agentmesh.core.directory.messages import BATCH_MAX as BATCH_MAX
from agentmesh.core.directory.messages import Listing, Ranges, Records, Seek, Sought, Want
from agentmesh.core.orders.messages import Orders, OrdersHeld, OrdersWanted
from agentmesh.core.overlay import messages as overlay
from agentmesh.core.plumtree import messages as plumtree
from agentmesh.core.swim import messages as swim
from agentmesh.errors import DecodeError, VersionError
from agentmesh.wire.budget import has_too_many_containers
from agentmesh.wire.topics import TopicQuery, TopicReply

WIRE_VERSION = 1
#: Control messages are small; what is larger is refused before decoding.
CONTROL_BYTES_MAX = 1024 * 1024
#: One call message: an event or the opening of a call.
CALL_BYTES_MAX = 9 * 1024 * 1024
#: Largest message in a datagram; with its envelope it stays below what nearly every path carries (wire.md §6.2).
DATAGRAM_BYTES_MAX = 1_200
#: Largest manifest record, in bytes of JSON.
MANIFEST_BYTES_MAX = 64 * 1024
#: Neighbours that one node may name in a survey: a zone twice its usual size, and the long links of the largest tier.
NEIGHBOURS_MAX = 128
#: Trust statements in one answer: the sender's own, and of those it keeps the ones that count most.
STATEMENTS_MAX = 8


#: Emergency stops that one node may name in a survey, and characters of one name.
STOPS_MAX = 16
STOP_CHARS_MAX = 128
#: Characters of a search by text, records in one answer to it, and their bytes in all.
SEARCH_CHARS_MAX = 1_000
SEARCH_RECORDS_MAX = 32
SEARCH_BYTES_MAX = 512 * 1024
#: Records that an asker may name as known.
SEARCH_KNOWN_MAX = 64
#: Letters in one carry message, and their bytes in all.
CARRIED_MAX = 64
CARRY_BYTES_MAX = 4 * 1024 * 1024


class Hello(msgspec.Struct, tag="hello", kw_only=True, forbid_unknown_fields=False):
    """First message on the control stream, from both sides; once more when the sender's credential was renewed.

    Attributes:
        v: Wire version.
        version: AgentMesh version, for people.
        name: Node name, for people; never trusted.
        addresses: Where the sender can be dialled.
        clock_ms: Sender's wall clock, to tell the operator of skew; never used to decide.
        credential: The sender's device credential (``identity.credential``), "" if it has none.
        organisation: The voucher of the sender's organisation for it (``identity.voucher``), "" if it has none.
        calls_only: The sender's mesh and ours are two: nothing but calls goes over this link, either way.
    """

    v: int
    version: str = ""
    name: str = ""
    addresses: list[str] = []
    clock_ms: int = 0
    credential: str = ""
    organisation: str = ""
    calls_only: bool = False


class Bye(msgspec.Struct, tag="bye", kw_only=True):
    """Last message on the control stream: the sender closes the link on purpose."""

    reason: str = ""


class CallOpen(msgspec.Struct, tag="call", kw_only=True):
    """First message of a call stream (see ``node.door.Invocation`` for the fields).

    Attributes:
        purpose: Why, in the caller's words.
        token: Call token (``identity.token``); a call without one is refused.
        grants: What the caller may do in the name of others (``identity.grant``), root first; empty when it acts for itself.
        priority: 0 … 9, which of the caller's own calls goes first where they wait.
        may_wait: It may wait for room; False while another replica can be tried.
        traceparent, tracestate: W3C trace context (docs/spec/wire.md §5.5): the caller's span of this call.
        baggage: W3C baggage: what goes along with every call of a run, such as a language.
    """

    v: int
    task_id: str
    run_id: str
    agent_id: str
    parts: list[dict[str, Any]]
    skill: str | None = None
    context_id: str | None = None
    parent_task_id: str | None = None
    caller: str = ""
    caller_name: str = ""
    deadline_ms: int = 60_000
    lamport: int = 0
    hops: list[str] = []
    traceparent: str | None = None
    tracestate: str = ""
    metadata: dict[str, Any] = {}
    purpose: str = ""
    token: str = ""
    grants: list[str] = []
    priority: int = 5
    may_wait: bool = False
    baggage: dict[str, str] = {}


class CallEvent(msgspec.Struct, tag="event", kw_only=True):
    """One or more events of the call, each an encoded EventV1.

    The first one, status "working", is told when the agent is asked, or with the whole answer if that is there within
    milliseconds. It says that the callee's node took the call: the caller must not try a replica any more.
    """

    events: list[msgspec.Raw]


class CallCancel(msgspec.Struct, tag="cancel", kw_only=True):
    """The caller wants the task stopped."""

    reason: str = ""


class CallEnd(msgspec.Struct, tag="end", kw_only=True):
    """Last message of a call: the last events, the terminal state, and the error (``errors.to_wire``) if there was one.

    ``receipt`` is what the callee signs of it (``identity.receipt``); "" if no agent was reached.
    """

    state: str
    error: dict[str, Any] | None = None
    events: list[msgspec.Raw] = []
    receipt: str = ""


class TraceQuery(msgspec.Struct, tag="trace", kw_only=True):
    """First message of a trace stream: the events of a run that the asking node took part in."""

    v: int
    run_id: str


class TraceEvents(msgspec.Struct, tag="trace_events", kw_only=True):
    """Events of the run, and whether more follow."""

    events: list[msgspec.Raw]
    more: bool = False


class NetQuery(msgspec.Struct, tag="net", kw_only=True):
    """First message of a survey stream: who are you, and who are your neighbours?"""

    v: int


class NetNeighbour(msgspec.Struct, array_like=True):
    """One neighbour in the overlay, as its neighbour names it: 32 bytes of public key, and where it was last reached."""

    key: bytes
    address: str = ""


class NetReply(msgspec.Struct, tag="net_reply", kw_only=True):
    """Answer to NetQuery: at most ``NEIGHBOURS_MAX`` neighbours.

    Attributes:
        record: The node's own signed record (``identity.node_record``).
        depth: Number of leading bits of the DHT key that the members of its zone share.
        neighbours: Zone mates and long links.
        stops: ``jti`` of the emergency stops in force at this node, at most ``STOPS_MAX``.
    """

    record: bytes
    depth: int = 0
    neighbours: list[NetNeighbour] = []
    stops: list[str] = []


class AuditQuery(msgspec.Struct, tag="audit", kw_only=True):
    """First message of an audit stream: what does your audit log look like now?

    Attributes:
        pinned: The last checkpoint of the asked node that the asking one keeps (``identity.checkpoint``); "" if it has none.
    """

    v: int
    pinned: str = ""


class AuditReply(msgspec.Struct, tag="audit_reply", kw_only=True):
    """Answer to AuditQuery: the newest checkpoint, and the proof that it continues the pinned one."""

    checkpoint: str
    proof: list[bytes] = []


class TrustQuery(msgspec.Struct, tag="trust", kw_only=True):
    """First message of a trust stream: what did you see of others?"""

    v: int


class TrustReply(msgspec.Struct, tag="trust_reply", kw_only=True):
    """Answer to TrustQuery: at most ``STATEMENTS_MAX`` signed statements (``identity.trust_statement``).

    Attributes:
        statements: The sender's own first, then those of others that it keeps, most trusted first; empty when it is asked
            too often.
    """

    statements: list[str]


class MailOpen(msgspec.Struct, tag="mail", kw_only=True):
    """First message of a mail stream: behind it come frames of the courier, one way, from who opened it (mail.md §3)."""

    v: int


class Carried(msgspec.Struct, array_like=True):
    """One letter for somebody who is away, as carriers see it.

    Attributes:
        mark: By which sender and recipient know it: a hash that says nothing to others.
        recipient: Raw key of the agent it is for.
        expires_ms: Unix milliseconds; it is dropped then.
        sealed: ``identity.sealed``.
    """

    mark: bytes
    recipient: bytes
    expires_ms: int
    sealed: bytes


class CarryOpen(msgspec.Struct, tag="carry", kw_only=True):
    """First message of a carry stream (docs/spec/mail.md §9).

    Attributes:
        verb: "deposit": keep these letters · "hand": these letters are for agents of yours · "receipts": your letters arrived.
        letters: At most ``CARRIED_MAX`` of ``CARRY_BYTES_MAX`` bytes in all.
        receipts: (mark, signature of the recipient).
    """

    v: int
    verb: str
    letters: list[Carried] = []
    receipts: list[tuple[bytes, bytes]] = []


class CarryReply(msgspec.Struct, tag="carry_reply", kw_only=True):
    """Answer to CarryOpen.

    Attributes:
        taken: Marks of letters that are kept now, or of receipts that were heard.
        refused: Marks of letters that will never be taken.
        receipts: (mark, signature) for letters that were handed over.
    """

    taken: list[bytes] = []
    refused: list[bytes] = []
    receipts: list[tuple[bytes, bytes]] = []


class SearchQuery(msgspec.Struct, tag="search", kw_only=True):
    """First message of a search stream: which agents that you know fit this text?

    Attributes:
        text: What is needed, at most ``SEARCH_CHARS_MAX`` characters.
        limit: Most records wanted, 1 … ``SEARCH_RECORDS_MAX``.
        known: ``Manifest.mark`` of records that the asker holds, at most ``SEARCH_KNOWN_MAX``: they need not be sent.
    """

    v: int
    text: str
    limit: int = 16
    known: list[int] = []


class SearchReply(msgspec.Struct, tag="search_reply", kw_only=True):
    """Answer to SearchQuery.

    Attributes:
        records: Signed manifests, best first by the sender's own ranking, which the asker does not rely on; at most
            ``SEARCH_RECORDS_MAX`` of ``SEARCH_BYTES_MAX`` bytes in all.
        refused: Code of the refusal ("refused.busy"), "" if there is none.
    """

    records: list[bytes] = []
    refused: str = ""


class StateOpen(msgspec.Struct, tag="state", kw_only=True):
    """First message of the long stream on which two nodes speak about shared state; frames follow (``wire.state``)."""

    v: int


SwimMessage = swim.Ping | swim.Ack | swim.PingReq | swim.Vouch | swim.Tell
DhtMessage = dht.FindNode | dht.FindValue | dht.FindReply | dht.Store | dht.Stored | dht.Check | dht.Checked
OverlayMessage = (
    overlay.Join
    | overlay.JoinReply
    | overlay.ForwardJoin
    | overlay.Neighbour
    | overlay.NeighbourReply
    | overlay.Disconnect
    | overlay.LinkCheck
    | overlay.Shuffle
    | overlay.ShuffleReply
    | overlay.NearAsk
    | overlay.NearReply
    | overlay.Here
)
PlumtreeMessage = (
    plumtree.Gossip
    | plumtree.Offer
    | plumtree.IHave
    | plumtree.Graft
    | plumtree.Prune
    | plumtree.IDontWant
    | plumtree.Recent
)
#: What may travel in a datagram; where no datagram gets through, it goes over a link like every control message.
DatagramMessage = SwimMessage | DhtMessage | OverlayMessage | plumtree.IHave | plumtree.IDontWant
DirectoryMessage = Ranges | Listing | Want | Records | Seek | Sought
OrdersMessage = OrdersHeld | OrdersWanted | Orders
ControlMessage = Hello | Bye | DirectoryMessage | OrdersMessage | PlumtreeMessage | DatagramMessage
RequestMessage = (
    CallOpen
    | TraceQuery
    | NetQuery
    | AuditQuery
    | TrustQuery
    | SearchQuery
    | MailOpen
    | CarryOpen
    | TopicQuery
    | StateOpen
)
CallReply = CallEvent | CallEnd
TraceReply = TraceEvents | CallEnd
AnyMessage = (
    ControlMessage
    | RequestMessage
    | CallReply
    | CallCancel
    | TraceReply
    | NetReply
    | AuditReply
    | TrustReply
    | SearchReply
    | TopicReply
    | CarryReply
)
_DATAGRAMS: frozenset[type] = frozenset((*get_args(SwimMessage | DhtMessage), plumtree.IHave, plumtree.IDontWant))
_SPARE: frozenset[type] = frozenset(get_args(OverlayMessage))


class _BothForms:
    """Decode a union whose members are maps or arrays; one msgspec decoder reads only one of the two."""

    def __init__(self, union: Any) -> None:
        forms: dict[bool, Any] = {}
        for member in get_args(union):
            array: bool = member.__struct_config__.array_like
            forms[array] = forms[array] | member if array in forms else member
        self._maps: Any = msgspec.msgpack.Decoder(forms[False])
        self._arrays: Any = msgspec.msgpack.Decoder(forms[True]) if True in forms else self._maps

    def decode(self, payload: bytes) -> Any:
        """Decode by what the first byte says: an array (0x90 … 0x9f, 0xdc, 0xdd) or anything else."""
        array = payload and (payload[0] & 0xF0 == 0x90 or payload[0] in (0xDC, 0xDD))
        return (self._arrays if array else self._maps).decode(payload)


_encoder = msgspec.msgpack.Encoder()
_control = _BothForms(ControlMessage)
_datagram = _BothForms(DatagramMessage)
_request = msgspec.msgpack.Decoder(RequestMessage)
_call_reply = msgspec.msgpack.Decoder(CallReply)
_call_input = msgspec.msgpack.Decoder(CallCancel)
_trace_reply = msgspec.msgpack.Decoder(TraceReply)
_net_reply = msgspec.msgpack.Decoder(NetReply)
_audit_reply = msgspec.msgpack.Decoder(AuditReply)
_trust_reply = msgspec.msgpack.Decoder(TrustReply)
_search_reply = msgspec.msgpack.Decoder(SearchReply)
_topic_reply = msgspec.msgpack.Decoder(TopicReply)
_carry_reply = msgspec.msgpack.Decoder(CarryReply)


def encode(message: AnyMessage) -> bytes:
    """Encode any message."""
    return _encoder.encode(message)


def _decode(decoder: Any, payload: bytes, bytes_max: int) -> Any:
    if len(payload) > bytes_max:
        raise DecodeError(f"message of {len(payload)} bytes, at most {bytes_max} are read", code="wire.too_large")
    if has_too_many_containers(payload):
        raise DecodeError("a message of too many arrays and maps", code="wire.too_many")
    try:
        return decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a message of this protocol: {error}", code="wire.malformed") from error


def decode_control(payload: bytes) -> ControlMessage:
    """Decode a message of the control stream. Raises DecodeError."""
    return _decode(_control, payload, CONTROL_BYTES_MAX)


def is_datagram(message: object) -> bool:
    """Say whether a message is to travel in a datagram where that works."""
    return type(message) in _DATAGRAMS


def is_spare_datagram(message: object) -> bool:
    """Say whether a message that wants a link may travel in a datagram while there is none.

    The overlay asks many nodes once that never become neighbours; a dial for each would cost more than a lost question.
    """
    return type(message) in _SPARE


def decode_datagram(payload: bytes) -> DatagramMessage:
    """Decode the payload of a datagram, at most ``DATAGRAM_BYTES_MAX``. Raises DecodeError."""
    return _decode(_datagram, payload, DATAGRAM_BYTES_MAX)


def decode_request(payload: bytes) -> RequestMessage:
    """Decode the first message of a request stream.

    Raises:
        DecodeError: not a message.
        VersionError: a wire version we do not speak.
    """
    message: RequestMessage = _decode(_request, payload, CALL_BYTES_MAX)
    check_version(message.v)
    return message


def decode_call_reply(payload: bytes) -> CallReply:
    """Decode what the callee's node sends on a call stream. Raises DecodeError."""
    return _decode(_call_reply, payload, CALL_BYTES_MAX)


def decode_call_input(payload: bytes) -> CallCancel:
    """Decode what the caller's node sends after the opening. Raises DecodeError."""
    return _decode(_call_input, payload, CONTROL_BYTES_MAX)


def decode_trace_reply(payload: bytes) -> TraceReply:
    """Decode an answer to TraceQuery. Raises DecodeError."""
    return _decode(_trace_reply, payload, CALL_BYTES_MAX)


def decode_net_reply(payload: bytes) -> NetReply:
    """Decode an answer to NetQuery. Raises DecodeError."""
    return _decode(_net_reply, payload, CONTROL_BYTES_MAX)


def decode_audit_reply(payload: bytes) -> AuditReply:
    """Decode an answer to AuditQuery. Raises DecodeError."""
    return _decode(_audit_reply, payload, CONTROL_BYTES_MAX)


def decode_trust_reply(payload: bytes) -> TrustReply:
    """Decode an answer to TrustQuery. Raises DecodeError."""
    return _decode(_trust_reply, payload, CONTROL_BYTES_MAX)


def decode_search_reply(payload: bytes) -> SearchReply:
    """Decode an answer to SearchQuery. Raises DecodeError, also for more records than may be sent."""
    reply: SearchReply = _decode(_search_reply, payload, CONTROL_BYTES_MAX)
    if len(reply.records) > SEARCH_RECORDS_MAX:
        raise DecodeError(
            f"{len(reply.records)} records in one answer, at most {SEARCH_RECORDS_MAX}", code="search.too_many"
        )
    return reply


def decode_topic_reply(payload: bytes) -> TopicReply:
    """Decode an answer to TopicQuery. Raises DecodeError."""
    return _decode(_topic_reply, payload, CALL_BYTES_MAX)


def check_version(v: int) -> None:
    """Raise VersionError unless ``v`` is the version spoken here."""
    if v != WIRE_VERSION:
        raise VersionError(
            f"the peer speaks wire version {v}, this node version {WIRE_VERSION}",
            hint="upgrade agentmesh on the machine with the older version",
        )


def decode_carry_reply(payload: bytes) -> CarryReply:
    """Decode an answer to CarryOpen. Raises DecodeError."""
    reply: CarryReply = _decode(_carry_reply, payload, CONTROL_BYTES_MAX)
    if len(reply.taken) > CARRIED_MAX or len(reply.refused) > CARRIED_MAX or len(reply.receipts) > CARRIED_MAX:
        raise DecodeError("more marks than letters", code="wire.too_many")
    return reply
