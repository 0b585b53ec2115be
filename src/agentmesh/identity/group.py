"""Groups: who is in one, signed by the node that made it and numbered (docs/spec/mail.md, docs/spec/sealed.md §8).

A statement names all members. Of two statements of one group the one with the higher epoch counts; only the owner can sign one,
so anybody may pass it on. One without members ends the group for ever.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import msgspec

from agentmesh.errors import DecodeError, LimitError, UsageError
from agentmesh.identity.claims import SECONDS_MAX
from agentmesh.identity.keys import PUBLIC_KEY_BYTES, KeyPair
from agentmesh.identity.senderkey import GROUP_BYTES
from agentmesh.identity.statement import read_statement, sign_statement
from agentmesh.ids import NodeId, is_name, public_key_of

CONTEXT = b"group"
#: Members of one group: their keys fit one statement of 8 KB. More are reached by a topic.
MEMBERS_MAX = 200
_EPOCH_MAX = 0xFFFF_FFFF


class _Body(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    name: str
    epoch: int
    iat: int
    members: list[bytes]


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Body)


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """A verified statement; made by ``read_group`` only.

    Attributes:
        id: 16 bytes: the owner's groups have each their own name.
        owner: The node that made it.
        name: What people type after ``group:``.
        epoch: Rises with every change of the members.
        iat: Unix second.
        members: Raw keys of agents, in the owner's order; none when the group has ended.
        raw: The statement, what travels.
    """

    id: bytes
    owner: NodeId
    name: str
    epoch: int
    iat: int
    members: tuple[bytes, ...]
    raw: bytes


def group_id(owner: str, name: str) -> bytes:
    """Return what names a group for ever: its owner and its name, without letter case."""
    text = b"agentmesh group\n" + public_key_of(owner) + name.casefold().encode("utf-8", "surrogatepass")
    return hashlib.sha256(text).digest()[:GROUP_BYTES]


def sign_group(key: KeyPair, *, name: str, epoch: int, iat: int, members: tuple[bytes, ...]) -> bytes:
    """Return the statement of who is in a group.

    Args:
        key: The owner's.
        name, epoch, iat, members: As in ``Group``.

    Raises:
        UsageError: a reader would refuse it (codes "group.name", "group.malformed"). Nothing was signed.
        LimitError: more than ``MEMBERS_MAX`` members (code "group.too_large").
    """
    if len(members) > MEMBERS_MAX:
        raise LimitError(
            f"{len(members)} members, at most {MEMBERS_MAX} are in a group",
            code="group.too_large",
            hint="publish to a topic that they follow:   agentmesh pub SUBJECT TEXT",
        )
    body = _Body(name, epoch, iat, list(members))
    try:
        _check(body)
    except DecodeError as error:
        raise UsageError(str(error), code=error.code, hint=error.hint) from error
    return sign_statement(key, CONTEXT, _encoder.encode(body))


def read_group(raw: bytes) -> Group:
    """Check a statement of any origin.

    Raises:
        DecodeError: oversized or malformed (codes "statement.*", "group.*").
        SignatureError: forged (codes "signature.*").
    """
    owner, payload = read_statement(raw, CONTEXT)
    try:
        body = _decoder.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise DecodeError(f"not a group: {error}", code="group.malformed") from error
    _check(body)
    return Group(group_id(owner, body.name), owner, body.name, body.epoch, body.iat, tuple(body.members), raw)


def _check(body: _Body) -> None:
    """Raise DecodeError for what no honest owner signs."""
    if not is_name(body.name):
        raise DecodeError(
            f"{body.name[:80]!r} cannot be a group's name",
            code="group.name",
            hint="use 1 to 64 letters, digits, - or _, with dots only inside",
        )
    if not 1 <= body.epoch <= _EPOCH_MAX or not 0 < body.iat <= SECONDS_MAX or len(body.members) > MEMBERS_MAX:
        raise DecodeError("a number of a group is out of range", code="group.malformed")
    if any(len(member) != PUBLIC_KEY_BYTES for member in body.members) or len(set(body.members)) < len(body.members):
        raise DecodeError("members are different keys of 32 bytes", code="group.malformed")
