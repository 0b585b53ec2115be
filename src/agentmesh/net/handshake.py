"""The handshake that proves both node keys on a channel whose engine does not (TLS, WebSocket, memory).

Specification: docs/spec/wire.md §3. Four short frames; each side signs, with its node key, one text that names its role,
the channel (SHA-256 of the server's certificate), both nonces and both ids:

    client → Hello(id, nonce)
    server → Hello(id, nonce, signature)      the client checks id and signature first: it sends no proof to a stranger
    client → Proof(signature)
    server → Welcome()                        or, at any point, Refusal(code)

A recorded proof is useless (nonces), cannot be sent back (roles), cannot be carried to another server (the certificate
differs) and cannot be claimed by another key (ids). No I/O, no clock, no randomness: nonces come from the caller.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from agentmesh.codec.frame import ShortReader, encode_short
from agentmesh.errors import DecodeError, MeshError, SignatureError, VersionError
from agentmesh.identity.keys import KeyPair, verify
from agentmesh.ids import NodeId, parse_node_id, public_key_of, short

HANDSHAKE_VERSION = 1
NONCE_BYTES = 32
#: Largest handshake message in bytes; honest ones have fewer than 250.
HANDSHAKE_BYTES_MAX = 1024
#: Most bytes read from an unproven client, in all, TLS included.
PREAUTH_BYTES_MAX = 4096
#: Longest a handshake may take, in seconds.
HANDSHAKE_TIMEOUT_S = 10.0

_LABEL = b"agentmesh/handshake/1\0"

Role = Literal["client", "server"]


class _ClientHello(msgspec.Struct, tag="hello", kw_only=True):
    v: int
    id: str
    nonce: bytes


class _ServerHello(msgspec.Struct, tag="hello", kw_only=True):
    v: int
    id: str
    nonce: bytes
    sig: bytes


class _Proof(msgspec.Struct, tag="proof", kw_only=True):
    sig: bytes


class _Welcome(msgspec.Struct, tag="welcome", kw_only=True):
    pass


class _Refusal(msgspec.Struct, tag="refusal", kw_only=True):
    code: str


_encode = msgspec.msgpack.Encoder().encode
_decoders = {
    "client_hello": msgspec.msgpack.Decoder(_ClientHello | _Refusal),
    "server_hello": msgspec.msgpack.Decoder(_ServerHello | _Refusal),
    "proof": msgspec.msgpack.Decoder(_Proof | _Refusal),
    "welcome": msgspec.msgpack.Decoder(_Welcome | _Refusal),
}


def transcript(role: Role, binding: bytes, nonces: tuple[bytes, bytes], ids: tuple[str, str]) -> bytes:
    """Return the text that ``role`` signs: every part has a length before it, so that no two choices spell the same.

    Args:
        role: Who signs.
        binding: SHA-256 of the server's certificate (DER), or empty where there is no channel below.
        nonces: The client's and the server's.
        ids: The client's and the server's node id.
    """
    parts = (role.encode(), binding, *nonces, *(i.encode() for i in ids))
    return _LABEL + b"".join(len(p).to_bytes(2, "big") + p for p in parts)


class Handshake:
    """One side of one handshake.

    Args:
        role: "client" is who dialled.
        key: This node's key.
        nonce: 32 fresh random bytes, never used before.
        binding: The channel this runs in; both sides see the same value or the handshake fails.
        expected: On the client, the id it dialled.
    """

    def __init__(
        self, role: Role, key: KeyPair, nonce: bytes, *, binding: bytes = b"", expected: NodeId | None = None
    ) -> None:
        assert len(nonce) == NONCE_BYTES
        self.role: Role = role
        self._key = key
        self._nonce = nonce
        self._binding = binding
        self._expected = expected
        self._reader = ShortReader(HANDSHAKE_BYTES_MAX)
        self._awaits = "server_hello" if role == "client" else "client_hello"
        self._signed: tuple[tuple[bytes, bytes], tuple[str, str]] | None = None
        #: The peer's id; to be believed only once ``is_done``.
        self.peer = NodeId("")
        self.is_done = False

    def start(self) -> bytes:
        """Return the first bytes to send: the client's Hello, nothing on the server."""
        if self.role == "server":
            return b""
        return encode_short(_encode(_ClientHello(v=HANDSHAKE_VERSION, id=self._key.did, nonce=self._nonce)))

    @property
    def rest(self) -> bytes:
        """Bytes that came behind the handshake."""
        return self._reader.rest

    def receive(self, data: bytes) -> bytes:
        """Digest bytes from the peer and return the bytes to answer with; look at ``is_done`` afterwards.

        Raises:
            DecodeError: not a handshake message, out of order or oversized.
            VersionError: another version of the handshake.
            SignatureError: another key than dialled, or a proof that does not hold.
            MeshError: the peer refused; the error carries its code.
        """
        self._reader.feed(data)
        answer = b""
        while not self.is_done and (payload := self._reader.take()) is not None:
            try:
                message = _decoders[self._awaits].decode(payload)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise DecodeError(f"not a handshake: {error}", code="handshake.malformed") from error
            answer += self._on_message(message)
        return answer

    def refusal(self, error: MeshError) -> bytes:
        """Return the bytes that tell the peer why it was refused."""
        return encode_short(_encode(_Refusal(code=error.code)))

    def _on_message(self, message: object) -> bytes:
        if isinstance(message, _Refusal):
            code = message.code[:64]
            if code.startswith(("peer.signature", "signature", "handshake.")):
                raise SignatureError(f"the peer refused this node's proof ({code})", code="handshake.refused")
            raise DecodeError(f"the peer refused the handshake ({code})", code="handshake.refused")
        if isinstance(message, _ClientHello):
            self._on_hello(message.v, message.id, message.nonce)
            self._signed = ((message.nonce, self._nonce), (message.id, self._key.did))
            self._awaits = "proof"
            hello = _ServerHello(v=HANDSHAKE_VERSION, id=self._key.did, nonce=self._nonce, sig=self._sign())
            return encode_short(_encode(hello))
        if isinstance(message, _ServerHello):
            self._on_hello(message.v, message.id, message.nonce)
            if self._expected is not None and self.peer != self._expected:
                raise SignatureError(
                    f"dialled {short(self._expected)} but {short(self.peer)} answered",
                    code="handshake.wrong_peer",
                    why="another node has that address now, or someone is in between",
                    hint="agentmesh status   on the other machine prints its node id and addresses",
                )
            self._signed = ((self._nonce, message.nonce), (self._key.did, message.id))
            self._check(message.sig)
            self._awaits = "welcome"
            return encode_short(_encode(_Proof(sig=self._sign())))
        if isinstance(message, _Proof):
            self._check(message.sig)
            self.is_done = True
            return encode_short(_encode(_Welcome()))
        self.is_done = True
        return b""

    def _on_hello(self, version: int, peer: str, nonce: bytes) -> None:
        if version != HANDSHAKE_VERSION:
            raise VersionError(
                f"the peer speaks handshake version {version}, this node version {HANDSHAKE_VERSION}",
                hint="upgrade agentmesh on the machine with the older version",
            )
        if len(nonce) != NONCE_BYTES:
            raise DecodeError(f"a nonce has {NONCE_BYTES} bytes, not {len(nonce)}", code="handshake.malformed")
        self.peer = parse_node_id(peer)
        if peer == self._key.did or nonce == self._nonce:
            raise SignatureError("the peer claims this node's own key", code="handshake.self")

    def _sign(self) -> bytes:
        assert self._signed is not None
        return self._key.sign(transcript(self.role, self._binding, *self._signed))

    def _check(self, signature: bytes) -> None:
        assert self._signed is not None
        other: Role = "server" if self.role == "client" else "client"
        text = transcript(other, self._binding, *self._signed)
        try:
            verify(public_key_of(self.peer), text, signature)
        except SignatureError as error:
            raise SignatureError(
                f"the {other} could not prove to be {short(self.peer)} on this channel",
                code="handshake.proof",
                why="its key is another one, or the connection was redirected on the way",
            ) from error
