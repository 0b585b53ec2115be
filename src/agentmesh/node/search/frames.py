"""What the node and its search process say to each other over pipes: a length, then MessagePack.

Both ends are this program, yet each reads with a cap: a damaged stream ends the process, not the node.
"""

from __future__ import annotations

import struct
from typing import Any

import msgspec

from agentmesh.core.search.model import Document, Filters, Found
from agentmesh.errors import DecodeError, MeshError, from_wire, to_wire

#: Of one frame. A batch of documents stays far below.
FRAME_BYTES_MAX = 32 * 1024 * 1024
LENGTH = struct.Struct(">I")


class Open(msgspec.Struct, array_like=True, tag="open"):
    """The first request: where the index is and by what vectors are made. Answered by ``State``."""

    path: str
    home: str
    embedder: str = "builtin"
    model: str = ""
    key_file: str = ""
    models_dir: str = ""


class Reconcile(msgspec.Struct, array_like=True, tag="reconcile"):
    """All agents there are, with their versions: others are taken out. Answered by ``Wanted``."""

    versions: dict[str, str]


class Update(msgspec.Struct, array_like=True, tag="update"):
    """Documents to index and agents to take out. Answered by ``State`` when both are done."""

    documents: list[Document] = []
    removed: list[str] = []


class Search(msgspec.Struct, array_like=True, tag="search"):
    """One query. Answered by ``Answer``."""

    query: str
    filters: Filters
    limit: int = 10
    near: int = 3


class Look(msgspec.Struct, array_like=True, tag="look"):
    """Asks for ``State``."""


class Wanted(msgspec.Struct, array_like=True, tag="wanted"):
    """Agents whose documents are to be sent: new ones, and those of another version."""

    agent_ids: list[str]


class State(msgspec.Struct, array_like=True, tag="state"):
    """How the index is.

    Attributes:
        agents: How many are indexed.
        embedder: By which vectors are compared.
        waiting: Texts that have no vector yet.
        notes: What people should know.
    """

    agents: int
    embedder: str
    waiting: int = 0
    notes: list[str] = []


class Answer(msgspec.Struct, array_like=True, tag="answer"):
    """What was found."""

    found: Found


class Failed(msgspec.Struct, array_like=True, tag="failed"):
    """An error in its wire form."""

    error: dict[str, Any]

    @classmethod
    def of(cls, error: MeshError) -> Failed:
        """Return the frame of an error."""
        return cls(to_wire(error))

    def raised(self) -> MeshError:
        """Return the error."""
        return from_wire(self.error)


Request = Open | Reconcile | Update | Search | Look
Reply = Wanted | State | Answer | Failed


class Asked(msgspec.Struct, array_like=True):
    """A request with its number."""

    number: int
    body: Request


class Told(msgspec.Struct, array_like=True):
    """A reply with the number of its request."""

    number: int
    body: Reply


_asked = msgspec.msgpack.Decoder(Asked)
_told = msgspec.msgpack.Decoder(Told)
_encoder = msgspec.msgpack.Encoder()


def framed(value: Asked | Told) -> bytes:
    """Return a frame with its length before it."""
    body = _encoder.encode(value)
    return LENGTH.pack(len(body)) + body


def length_of(head: bytes) -> int:
    """Read a length. Raises DecodeError: more than ``FRAME_BYTES_MAX`` (code "search.frame")."""
    (length,) = LENGTH.unpack(head)
    if length > FRAME_BYTES_MAX:
        raise DecodeError(f"a frame of {length} bytes between node and search process", code="search.frame")
    return length


def asked_of(raw: bytes) -> Asked:
    """Read a request. Raises DecodeError (code "search.frame")."""
    return _read(_asked, raw)


def told_of(raw: bytes) -> Told:
    """Read a reply. Raises DecodeError (code "search.frame")."""
    return _read(_told, raw)


def _read(decoder: msgspec.msgpack.Decoder[Any], raw: bytes) -> Any:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise DecodeError(f"unreadable words between node and search process: {error}", code="search.frame") from error
