"""Everything that reads bytes of strangers, in one table, with valid examples to start from (issue 3 §6).

``property/test_decoders_fuzz.py`` and ``soak/test_fuzz.py`` try each of them. A decoder here takes bytes and returns or
raises; what it may raise is a PeerError, nothing else.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, get_args

import msgspec
from msgspec import inspect as shapes

from agentmesh.codec.canonical import canonical
from agentmesh.codec.frame import ShortReader, encode_frame, encode_short
from agentmesh.codec.merkle import EMPTY_ROOT
from agentmesh.core.courier.messages import Accept, Close, Letter, Open, Parcel, Refuse
from agentmesh.core.courier.messages import decode_frame as decode_mail
from agentmesh.core.courier.messages import encode_frame as encode_mail
from agentmesh.core.state.messages import StateMessage
from agentmesh.errors import PeerError
from agentmesh.identity.audit_record import body_of, write_record
from agentmesh.identity.audit_record import read_record as read_audit_record
from agentmesh.identity.checkpoint import CHECKPOINT_BYTES_MAX, read_checkpoint, sign_checkpoint
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import build_card, read_record, sign_card, sign_tombstone
from agentmesh.identity.node_record import node_body, read_node_record, sign_node_record
from agentmesh.identity.provider import read_provider, sign_provider
from agentmesh.identity.statement import read_statement, sign_statement
from agentmesh.identity.trust_statement import TrustRow, read_trust_statement, sign_trust_statement
from agentmesh.ids import AgentId, Key, NodeId
from agentmesh.net.mux_core import MuxCore
from agentmesh.wire import envelope, event, state, v1

EPOCH = 1_800_000_000
NEAR, FAR = KeyPair(bytes([1]) * 32), KeyPair(bytes([2]) * 32)
AT = Key(bytes(32))


class Target(NamedTuple):
    """One decoder: its name, what it does with bytes, and valid examples."""

    name: str
    decode: Callable[[bytes], Any]
    examples: tuple[bytes, ...]


def values(shape: Any, rng: random.Random, depth: int = 0) -> Any:
    """Return a value of a msgspec type, chosen by ``rng``: how an instance of any message is made."""
    match shape:
        case shapes.StructType():
            given = {f.name: values(f.type, rng, depth + 1) for f in shape.fields if f.required or rng.random() < 0.7}
            return shape.cls(**given)
        case shapes.UnionType():
            return values(rng.choice(shape.types), rng, depth)
        case shapes.ListType():
            return [values(shape.item_type, rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 5)))]
        case shapes.VarTupleType():
            return tuple(values(shape.item_type, rng, depth + 1) for _ in range(rng.choice((0, 1, 2, 5))))
        case shapes.TupleType():
            return tuple(values(item, rng, depth + 1) for item in shape.item_types)
        case shapes.DictType():
            return {
                values(shapes.StrType(), rng): values(shape.value_type, rng, depth + 1) for _ in range(rng.randrange(3))
            }
        case shapes.LiteralType():
            return rng.choice(shape.values)
        case shapes.IntType():
            return rng.choice((0, 1, rng.randrange(-(2**63), 2**64), 127, 128, 255, 65_536, 2**32, 2**53))
        case shapes.StrType():
            return rng.choice(("", "a", "did:key:z6Mk", "网络", "\x00\x1b", "x" * rng.randrange(300)))
        case shapes.BytesType():
            return rng.randbytes(rng.choice((0, 1, 8, 31, 32, 33, 300)))
        case shapes.BoolType():
            return rng.random() < 0.5
        case shapes.FloatType():
            return rng.choice((0.0, -1.5, 1e300))
        case shapes.RawType():
            return msgspec.Raw(msgspec.msgpack.encode(values(shapes.AnyType(), rng, depth)))
        case shapes.AnyType():
            pick = shapes.NoneType() if depth > 3 else rng.choice((shapes.IntType(), shapes.StrType(), _LIST, _DICT))
            return values(pick, rng, depth + 1)
        case shapes.NoneType():
            return None
        case _:
            raise AssertionError(f"no example for {shape}")


_LIST = shapes.ListType(shapes.AnyType())
_DICT = shapes.DictType(shapes.StrType(), shapes.AnyType())


def instances(union: Any, rng: random.Random) -> Iterator[Any]:
    """Return one instance of each message of a union."""
    for cls in get_args(union) or (union,):
        yield values(shapes.type_info(cls), rng)


def _encoded(union: Any, bytes_max: int) -> tuple[bytes, ...]:
    rng = random.Random(1)
    raws = [v1.encode(message) for _ in range(3) for message in instances(union, rng)]
    return tuple(raw for raw in raws if len(raw) <= bytes_max)


def _mux(raw: bytes) -> None:
    core = MuxCore(dialed=False)
    core.receive(raw)
    core.assert_invariants()


def _trust_statement(raw: bytes) -> None:
    read_trust_statement(raw.decode("latin-1"), now=EPOCH)


_TRUST_STATEMENT = sign_trust_statement(
    NEAR, [TrustRow(FAR.did, "", 1_500, 20, EPOCH - 60)], seq=EPOCH * 1_000, iat=EPOCH - 60
)


def _short(raw: bytes) -> None:
    reader = ShortReader(1_024)
    reader.feed(raw)
    while reader.take() is not None:
        pass


#: Frames of a mail stream; made by hand, because most numbers in them are bounded.
MAIL_FRAMES = tuple(
    encode_mail(frame)
    for frame in (
        Open(2**64 - 1, b"offer"),
        Accept(1, b"answer"),
        Refuse(1, "session.unknown"),
        Close(0, "idle"),
        Parcel(7, [], [], 256, 1, []),
        Parcel(7, [Letter(9, 3, 3, 1, True, b"x" * 300), Letter(10, 0, 0, 60_000, False, b"")], [1, 4, 7, 7], 0, 9, []),
        Parcel(2**63, [], [3, 2**53 - 1], 2**53 - 1, 2**53 - 1, [5, 0, 6, 5], ask=True),
    )
)


def _state_frames() -> tuple[bytes, ...]:
    """Return a frame for each message of shared state, and one of them all."""
    rng = random.Random(7)
    told = [
        state.encode_message(values(shapes.type_info(cls), rng)) for cls in get_args(StateMessage) for _ in range(2)
    ]
    return (*(state.frame_of([one]) for one in told), state.frame_of(told))


def targets() -> list[Target]:
    """Return every decoder."""
    own = NodeId(FAR.did)
    node = sign_node_record(NEAR, node_body(seq=3, iat=EPOCH, wire=1, addresses=("udp:192.0.2.7:6376",), name="n"))
    provider = sign_provider(NEAR, AT, agent=AgentId(FAR.did), seq=1, iat=EPOCH, addresses=("udp:192.0.2.7:1",))
    sealed = envelope.seal(NEAR, own, v1.encode(v1.swim.Ping(1, 2, 3, 4)), sent_ms=EPOCH * 1000, nonce=9)
    told = event.EventV1(id="a" * 32, ts=1, kind="message", run_id="b" * 32, payload={"parts": [{"text": "hello"}]})
    noted = body_of(
        "call",
        "allowed",
        agent=NEAR.did,
        resource=FAR.did,
        time="2027-01-15T08:00:00.000000Z",
        task="t",
        purpose="重复",
    )
    card = build_card(
        agent_key_did=FAR.did,
        node_id=NEAR.did,
        name="echo",
        description="Repeats. 重复",
        version="1.0",
        skills=[{"id": "say", "name": "Say", "description": "Says it again.", "tags": ["demo"]}],
        input_modes=["text/plain"],
        output_modes=["text/plain"],
        seq=1,
        iat=EPOCH,
        exp=EPOCH + 60,
    )
    manifests = (
        canonical(card),
        canonical(sign_card(FAR, card)),
        sign_tombstone(FAR, node_id=NEAR.did, name="echo", seq=2, iat=EPOCH, exp=EPOCH + 60),
    )
    frames = b"".join(
        (encode_frame(1, 1), encode_frame(2, 1, b"payload", 1), encode_frame(6, 0, bytes(8)), encode_frame(4, 1))
    )
    return [
        Target("control", v1.decode_control, _encoded(v1.ControlMessage, v1.CONTROL_BYTES_MAX)),
        Target("datagram", v1.decode_datagram, _encoded(v1.DatagramMessage, v1.DATAGRAM_BYTES_MAX)),
        Target("request", v1.decode_request, _encoded(v1.RequestMessage, v1.CALL_BYTES_MAX)),
        Target("call reply", v1.decode_call_reply, _encoded(v1.CallReply, v1.CALL_BYTES_MAX)),
        Target("call input", v1.decode_call_input, _encoded(v1.CallCancel, v1.CONTROL_BYTES_MAX)),
        Target("trace reply", v1.decode_trace_reply, _encoded(v1.TraceReply, v1.CALL_BYTES_MAX)),
        Target("net reply", v1.decode_net_reply, _encoded(v1.NetReply, v1.CALL_BYTES_MAX)),
        Target("audit reply", v1.decode_audit_reply, _encoded(v1.AuditReply, v1.CONTROL_BYTES_MAX)),
        Target("audit record", read_audit_record, (write_record(noted, NEAR.did, 0),)),
        Target(
            "checkpoint",
            lambda raw: read_checkpoint(raw[: CHECKPOINT_BYTES_MAX + 1].decode("utf-8", "surrogateescape")),
            (sign_checkpoint(NEAR, 0, EMPTY_ROOT).text.encode(), sign_checkpoint(NEAR, 7, bytes(32)).text.encode()),
        ),
        Target("trust reply", v1.decode_trust_reply, _encoded(v1.TrustReply, v1.CONTROL_BYTES_MAX)),
        Target("search reply", v1.decode_search_reply, _encoded(v1.SearchReply, v1.CONTROL_BYTES_MAX)),
        Target("topic reply", v1.decode_topic_reply, _encoded(v1.TopicReply, v1.CALL_BYTES_MAX)),
        Target("carry reply", v1.decode_carry_reply, _encoded(v1.CarryReply, v1.CONTROL_BYTES_MAX)),
        Target("trust statement", _trust_statement, (_TRUST_STATEMENT.encode("ascii"),)),
        Target("envelope", lambda raw: envelope.open_envelope(raw, own, EPOCH * 1000, envelope.Replays(4)), (sealed,)),
        Target("notice", envelope.read_notice, (envelope.notice_of("clock", sealed, 7),)),
        Target("statement", lambda raw: read_statement(raw, b"node"), (sign_statement(NEAR, b"node", b"x"),)),
        Target("node record", lambda raw: read_node_record(raw, now=EPOCH), (node,)),
        Target("provider", lambda raw: read_provider(raw, AT, now=EPOCH), (provider,)),
        Target("manifest", lambda raw: read_record(raw, now=EPOCH, require_signed=False), manifests),
        Target("event", event.decode_json, (event.encode_json(told),)),
        Target("multiplexer", _mux, (frames,)),
        Target("mail frame", decode_mail, MAIL_FRAMES),
        Target("state frame", state.decode_frame, _state_frames()),
        Target("short frame", _short, (encode_short(b"payload") * 3,)),
    ]


def attempt(target: Target, raw: bytes) -> bool:
    """Decode; True if it was read, False if it was refused as a peer's fault. Anything else is a finding and raises."""
    try:
        target.decode(raw)
    except PeerError:
        return False
    return True
