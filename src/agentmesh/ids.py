"""Names of nodes, agents, tasks and runs.

A node and an agent are each one Ed25519 key, written ``did:key:z6Mk…`` (multicodec 0xed01, base58btc; W3C did:key).
The DHT key is SHA-256 of the 32 raw bytes; the iroh endpoint id is the same 32 bytes (research: standards (a)).
The URI of our A2A extension stands here too, for rooms that read cards and check no signature.
Ids of runs, tasks and events are 128 random bits in hex, made by the caller of these functions: no randomness here.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from functools import lru_cache
from typing import NewType

import base58

from agentmesh.errors import DecodeError

NodeId = NewType("NodeId", str)
AgentId = NewType("AgentId", str)
Key = NewType("Key", bytes)

#: URI of our AgentCard extension and of the protocol binding between nodes. A breaking change needs a new one (A2A §4.6.3).
EXT = "https://agentmesh.dev/ext/mesh/v1"
#: Base58 costs 10 µs each way, and control messages name the same few hundred nodes over and over. 300 bytes each; worlds
#: of 10,000 simulated nodes must fit, or every look-up of theirs would miss.
_CACHE_MAX = 16_384
DID_PREFIX = "did:key:z"
_ED25519_MULTICODEC = b"\xed\x01"
#: A did:key of an Ed25519 key has exactly this form: 'z' and 47 base58 characters that start with 6Mk.
_DID = re.compile(r"did:key:z6Mk[1-9A-HJ-NP-Za-km-z]{44}")
#: Agent names as people type them: 1 to 64 characters, a letter or digit first, then also - _ and a dot inside.
_NAME = re.compile(r"[^\W_](?:[\w\-.]{0,62}[\w\-])?")


@lru_cache(maxsize=_CACHE_MAX)
def did_of(public_key: bytes) -> str:
    """Spell a 32-byte Ed25519 public key as did:key.

    Raises:
        DecodeError: the key is not 32 bytes. No state changed.
    """
    if len(public_key) != 32:
        raise DecodeError(f"an Ed25519 public key has 32 bytes, not {len(public_key)}", code="id.malformed")
    return "did:key:z" + base58.b58encode(_ED25519_MULTICODEC + public_key).decode("ascii")


@lru_cache(maxsize=_CACHE_MAX)
def public_key_of(did: str) -> bytes:
    """Return the 32 raw key bytes of a did:key.

    Raises:
        DecodeError: not a did:key of an Ed25519 key. No state changed.
    """
    if not isinstance(did, str) or not _DID.fullmatch(did):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise DecodeError(f"{str(did)[:80]!r} is no did:key of an Ed25519 key", code="id.malformed")
    raw = base58.b58decode(did[len(DID_PREFIX) :])
    if len(raw) != 34 or raw[:2] != _ED25519_MULTICODEC:
        raise DecodeError(f"{did[:80]!r} is no did:key of an Ed25519 key", code="id.malformed")
    return raw[2:]


def node_id(public_key: bytes) -> NodeId:
    """Return the id of the node that holds this key."""
    return NodeId(did_of(public_key))


def agent_id(public_key: bytes) -> AgentId:
    """Return the id of the agent that holds this key."""
    return AgentId(did_of(public_key))


def parse_node_id(text: str) -> NodeId:
    """Check and return a node id. Raises DecodeError."""
    public_key_of(text)
    return NodeId(text)


def parse_agent_id(text: str) -> AgentId:
    """Check and return an agent id. Raises DecodeError."""
    public_key_of(text)
    return AgentId(text)


def dht_key(public_key: bytes) -> Key:
    """Return the 32-byte DHT key: SHA-256 of the public key (RQ1)."""
    return Key(hashlib.sha256(public_key).digest())


def capability_key(text: str) -> Key:
    """Return the DHT key under which providers of a capability are found: an agent's name, a skill id or a tag.

    Letter case and Unicode spelling do not matter: the text is NFKC-normalised and case-folded first. The prefix keeps such
    keys apart from those of nodes and agents.
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold()).strip()
    return Key(hashlib.sha256(b"agentmesh capability\n" + folded.encode("utf-8", "surrogatepass")).digest())


def key_id(did: str) -> str:
    """Return the DID URL used as ``kid``: ``did:key:z6Mk…#z6Mk…``."""
    return f"{did}#{did[len('did:key:') :]}"


def short(did: str) -> str:
    """Return the form for people: first 4 and last 6 characters after ``did:key:z6Mk`` (``k7qf…3m2xab``)."""
    body = did.removeprefix("did:key:z6Mk")
    return body if len(body) <= 10 else f"{body[:4]}…{body[-6:]}"


def is_name(text: str) -> bool:
    """Say whether a text can be an agent's name (1–64 characters, letters, digits, ``-``, ``_``, inner dots)."""
    return bool(_NAME.fullmatch(text))
