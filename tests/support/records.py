"""Small signed records for tests: the same key for the same number, manifests and tombstones that verify."""

from __future__ import annotations

from typing import Any

from agentmesh.codec.canonical import canonical
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest, build_card, read_record, sign_card, sign_tombstone

#: The wall clock at virtual second 0.
EPOCH = 1_800_000_000


def key(number: int) -> KeyPair:
    """Return the same key for the same number."""
    return KeyPair(number.to_bytes(32, "big"))


def card(
    agent: KeyPair,
    node: str,
    *,
    name: str = "echo",
    seq: int = 1,
    iat: int = EPOCH,
    exp: int = EPOCH + 86_400,
    **over: Any,
) -> dict[str, Any]:
    """Return a small unsigned card."""
    members: dict[str, Any] = {
        "agent_key_did": agent.did,
        "node_id": node,
        "name": name,
        "description": "Repeats what it hears. 重复所听。",
        "version": "1.0",
        "skills": [{"id": "say", "name": "Say", "description": "Says it again.", "tags": ["demo"]}],
        "input_modes": ["text/plain"],
        "output_modes": ["text/plain"],
        "seq": seq,
        "iat": iat,
        "exp": exp,
    }
    return build_card(**{**members, **over})


def record(agent: KeyPair, node: str, *, signed: bool = True, now: int = EPOCH, **members: Any) -> Manifest:
    """Return a small manifest, verified."""
    made = card(agent, node, **members)
    raw = canonical(sign_card(agent, made) if signed else made)
    return read_record(raw, now=now, require_signed=signed)


def tombstone(agent: KeyPair, node: str, *, name: str = "echo", seq: int = 2, iat: int = EPOCH) -> Manifest:
    """Return a verified tombstone."""
    raw = sign_tombstone(agent, node_id=node, name=name, seq=seq, iat=iat, exp=iat + 86_400)
    return read_record(raw, now=iat, require_signed=True)
