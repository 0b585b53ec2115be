"""Provider records: a node's signed word that an agent behind it answers to a key (docs/spec/records.md §3).

They are the values of the DHT. One says: "agent A, behind me, is to be found under key K, and I can be reached there." It
is small enough that six fit into a datagram; the agent's manifest, signed by the agent itself, is then fetched from the
node and must agree. So a node can lie about agents only until somebody asks for the manifest.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import msgspec

from agentmesh.errors import DecodeError, ReplayError, UsageError
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.statement import read_statement, sign_statement
from agentmesh.ids import AgentId, Key, NodeId, agent_id, public_key_of

#: Longest life, seconds: the DHT's record life (research: p2p-reliability §2.3: 1 h, republished every 20 min).
LIFE_S_MAX = 3_600
SKEW_S_MAX = 300
ADDRESSES_MAX = 3
_SEQ_MAX = 2**53 - 1
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]{0,15}:[!-~]{1,239}")


class _Body(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    agent: bytes
    seq: int
    iat: int
    life_s: int
    addresses: list[str]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)


@dataclass(frozen=True, slots=True, eq=False)
class Provider:
    """A verified provider record; made by ``read_provider`` only.

    Attributes:
        key: The key it is stored under; covered by the signature.
        agent_id: The agent.
        node_id: Who says so: the node it lives behind.
        seq: Rises with every record of this agent and key; the highest wins.
        iat, exp: Unix seconds.
        addresses: Where the node can be reached.
        raw: The statement, what travels.
    """

    key: Key
    agent_id: AgentId
    node_id: NodeId
    seq: int
    iat: int
    exp: int
    addresses: tuple[str, ...]
    raw: bytes


def sign_provider(
    key: KeyPair, at: Key, *, agent: AgentId, seq: int, iat: int, addresses: tuple[str, ...], life_s: int = LIFE_S_MAX
) -> bytes:
    """Return the provider record of an agent for the key ``at``.

    Raises:
        UsageError: a value is out of range (codes "provider.*"). Nothing was signed.
    """
    body = _Body(public_key_of(agent), seq, iat, life_s, list(addresses[:ADDRESSES_MAX]))
    try:
        _check(body)
    except DecodeError as error:
        raise UsageError(f"cannot sign this provider record: {error}", code=error.code) from error
    return sign_statement(key, _context(at), _encoder.encode(body))


def read_provider(raw: bytes, at: Key, *, now: int) -> Provider:
    """Check a record of any origin that is said to belong under the key ``at``.

    Raises:
        DecodeError: oversized, malformed or out of range (codes "statement.*", "provider.*").
        SignatureError: forged, or signed for another key (codes "signature.*").
        ReplayError: its time is over or has not come (codes "provider.expired", "provider.not_yet_valid").
    """
    node, payload = read_statement(raw, _context(at))
    try:
        body = _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a provider record: {error}", code="provider.malformed") from error
    _check(body)
    provider = Provider(
        at, agent_id(body.agent), node, body.seq, body.iat, body.iat + body.life_s, tuple(body.addresses), raw
    )
    check_time(provider, now)
    return provider


def check_time(provider: Provider, now: int) -> None:
    """Raise ReplayError unless the record is valid at unix second ``now``."""
    if provider.iat - SKEW_S_MAX > now:
        raise ReplayError(f"a provider record is valid only in {provider.iat - now} s", code="provider.not_yet_valid")
    if now > provider.exp:
        raise ReplayError(f"a provider record expired {now - provider.exp} s ago", code="provider.expired")


def _context(at: Key) -> bytes:
    return b"provider " + at.hex().encode("ascii")


def _check(body: _Body) -> None:
    """Raise DecodeError for what no honest node would sign."""
    if len(body.agent) != 32:
        raise DecodeError("the agent of a provider record is no key", code="provider.agent")
    if not 1 <= body.seq <= _SEQ_MAX or body.iat <= 0 or not 0 < body.life_s <= LIFE_S_MAX:
        raise DecodeError("a number of a provider record is out of range", code="provider.number")
    if len(body.addresses) > ADDRESSES_MAX or not all(_ADDRESS.fullmatch(a) for a in body.addresses):
        raise DecodeError("an address of a provider record is unusable", code="provider.address")
