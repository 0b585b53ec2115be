"""Manifests: an A2A 1.0 AgentCard with our extension, signed by the agent's own key; and the tombstone that ends one.

docs/spec/manifest.md is the specification. The signature follows A2A §8.4 (JWS over JCS), so any A2A client can check it;
cards outside the canonical-safe rule (``safe.py``) are neither signed nor taken in. Reading is strict and goes from cheap
to dear: size, parse, shape, key, time, and the signature last.

An unsigned card, where the node admits one, has the same members but no ``signatures``; nothing in it is proven.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from dataclasses import dataclass, replace
from typing import Any, NoReturn, cast

from agentmesh.codec.canonical import INTEGER_MAX, canonical, parse_strict
from agentmesh.errors import DecodeError, LimitError, MeshError, ReplayError, SignatureError, UsageError
from agentmesh.identity.claims import SET_CLOCKS
from agentmesh.identity.jws import sign_compact, sign_detached, split_compact, verify_detached
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.safe import CARD_REQUIRED, INTERFACE_REQUIRED, SKILL_REQUIRED, check_safe, tidied
from agentmesh.ids import EXT, AgentId, NodeId, is_name, parse_agent_id, parse_node_id

#: Largest record, bytes of JSON; ``wire.v1`` keeps the same figure for its readers.
MANIFEST_BYTES_MAX = 64 * 1024
#: Longest ``exp`` - ``iat`` of any record, seconds. A tombstone that lives this long outlives every manifest it ends.
LIFE_S_MAX = 7 * 86_400
#: How far ahead of ours the owner's clock may be, seconds.
SKEW_S_MAX = 300
TOMBSTONE_TYP = "agentmesh-tombstone+jwt"

_CARD_TYP = "JOSE"
_SEQ = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)
_TOMBSTONE_CLAIMS = {"agent_id", "node_id", "name", "seq", "iat", "exp"}


@dataclass(frozen=True, slots=True)
class Manifest:
    """One verified record of an agent; made by ``read_record`` only.

    Attributes:
        agent_id: The agent's key; it signed the record if ``signed``.
        node_id: The node the agent lives behind, as the agent says.
        name: What people type; several agents of one name are replicas.
        description, version: For people; empty in a tombstone.
        seq: Rises with every record of this agent; the highest wins.
        iat, exp: Unix seconds, valid from and until.
        raw: The record in canonical JSON, what travels and is hashed.
        signed: False for an unsigned card: nobody has proven anything.
        tombstone: True when the agent is withdrawn.

    ``card``, ``skills`` and ``params`` are parsed from ``raw`` at each use: a table of 10 000 manifests then takes 20 MB
    and not 80.
    """

    agent_id: AgentId
    node_id: NodeId
    name: str
    description: str
    version: str
    seq: int
    iat: int
    exp: int
    raw: bytes
    signed: bool
    tombstone: bool

    @property
    def card(self) -> dict[str, Any]:
        """The whole AgentCard with ``signatures``, a new copy; empty in a tombstone."""
        return {} if self.tombstone else json.loads(self.raw)

    @property
    def skills(self) -> list[dict[str, Any]]:
        """A2A skills, a new copy; empty in a tombstone."""
        return self.card.get("skills", [])

    @property
    def params(self) -> dict[str, Any]:
        """Members of our extension, a new copy; empty in a tombstone."""
        return {} if self.tombstone else _extension(self.card)

    @property
    def mark(self) -> int:
        """The first 6 bytes of the record's SHA-256 as an integer; tells two records of one seq apart."""
        return int.from_bytes(hashlib.sha256(self.raw).digest()[:6], "big")


def interface_url(node: str, agent: str) -> str:
    """Return the address of an agent inside the mesh. The authority is empty: hosts lose their letter case, keys must not."""
    return f"agentmesh:///{node}/{agent}"


def build_card(
    *,
    agent_key_did: str,
    node_id: str,
    name: str,
    description: str,
    version: str,
    skills: list[dict[str, Any]],
    input_modes: list[str],
    output_modes: list[str],
    seq: int,
    iat: int,
    exp: int,
    params: dict[str, Any] | None = None,
    streaming: bool = True,
) -> dict[str, Any]:
    """Compose an unsigned AgentCard. Empties and control characters of the agent's own description are left out.

    Args:
        agent_key_did: did:key of the agent.
        node_id: did:key of the node beside it.
        name, description, version: All required.
        skills: A2A skills; each needs ``id``, ``name``, ``description`` and ``tags``.
        input_modes, output_modes: MIME types, at least one each.
        seq: Higher than in any earlier record of this agent, 1 … 2^53-1.
        iat, exp: Unix seconds; at most ``LIFE_S_MAX`` apart.
        params: Further members of our extension (``models``, ``context_window``, ``pricing``, ``qps_budget``,
            ``concurrency_limit``, ``vector_desc``, …; RQ0 §4.1). Amounts are texts.
        streaming: Whether the agent can stream.

    Returns:
        A new card that shares nothing with the arguments. ``sign_card`` and ``read_record`` judge whether it is valid.
    """
    own = {"agent_id": agent_key_did, "node_id": node_id, "seq": str(seq), "iat": iat, "exp": exp}
    return {
        "name": name,
        "description": tidied(description) or "",
        "version": tidied(version) or "",
        "supportedInterfaces": [
            {"url": interface_url(node_id, agent_key_did), "protocolBinding": EXT, "protocolVersion": "1"}
        ],
        "capabilities": {
            **({"streaming": True} if streaming else {}),
            "extensions": [
                {
                    "uri": EXT,
                    "description": "Reach this agent over AgentMesh, by key.",
                    "params": {**(tidied(params) or {}), **own},
                }
            ],
        },
        "securitySchemes": {"dpop": {"httpAuthSecurityScheme": {"scheme": "DPoP"}}},
        "defaultInputModes": tidied(input_modes) or [],
        "defaultOutputModes": tidied(output_modes) or [],
        "skills": tidied(skills) or [],
    }


def sign_card(key: KeyPair, card: dict[str, Any]) -> dict[str, Any]:
    """Return the card with its signature; a former signature is replaced.

    Args:
        key: The agent's own key; ``params.agent_id`` must be its did:key.
        card: As ``build_card`` makes it.

    Raises:
        UsageError: the card breaks a rule of docs/spec/manifest.md; ``code`` names it ("manifest.*"). Nothing was signed.
        LimitError: the signed card is larger than ``MANIFEST_BYTES_MAX`` (code "manifest.too_large").
    """
    bare = {name: value for name, value in card.items() if name != "signatures"}
    try:
        manifest = _read_card(bare)
    except MeshError as error:
        raise UsageError(f"cannot sign this manifest: {error}", code=error.code, hint=error.hint) from error
    if manifest.agent_id != key.did:
        raise UsageError("cannot sign this manifest: it is another agent's", code="manifest.other_key")
    protected, signature = sign_detached(key, manifest.raw, typ=_CARD_TYP)
    signed = {**bare, "signatures": [{"protected": protected, "signature": signature}]}
    size = len(canonical(signed))
    if size > MANIFEST_BYTES_MAX:
        raise LimitError(
            f"the manifest has {size} bytes, at most {MANIFEST_BYTES_MAX} travel",
            code="manifest.too_large",
            hint="shorten the description or the list of skills",
        )
    return signed


def sign_tombstone(key: KeyPair, *, node_id: str, name: str, seq: int, iat: int, exp: int) -> bytes:
    """Return the record that withdraws an agent.

    Args:
        key: The agent's own key.
        node_id: The node it lived behind.
        name: Its name.
        seq: Higher than in the manifest it ends.
        iat: Unix seconds.
        exp: Until when it is kept; not before the ``exp`` of any manifest it ends, or that one could be replayed.

    Raises:
        UsageError: a claim breaks a rule (code "manifest.*"). Nothing was signed.
    """
    claims = {"agent_id": key.did, "node_id": node_id, "name": name, "seq": str(seq), "iat": iat, "exp": exp}
    try:
        _identity(claims)
        if not is_name(name):
            _refuse("the name is not usable", "manifest.name")
        return canonical({"tombstone": sign_compact(key, claims, typ=TOMBSTONE_TYP)})
    except (DecodeError, LimitError) as error:
        raise UsageError(f"cannot sign this tombstone: {error}", code=error.code) from error


def read_record(raw: bytes, *, now: int, require_signed: bool) -> Manifest:
    """Check a record of any origin and return what it says.

    Args:
        raw: JSON bytes: a card, or ``{"tombstone": "<compact JWS>"}``.
        now: Unix seconds.
        require_signed: Refuse unsigned cards.

    Raises:
        DecodeError: oversized, malformed, or outside a rule (codes "json.*", "jws.*", "manifest.*", "id.malformed").
        SignatureError: signed by another key, not signed though required, or forged (codes "signature.*",
            "manifest.unsigned").
        ReplayError: its time is over or has not come (codes "manifest.expired", "manifest.not_yet_valid").
    """
    value = parse_strict(raw, bytes_max=MANIFEST_BYTES_MAX)
    if not isinstance(value, dict):
        _refuse("a record is a JSON object", "manifest.malformed")
    record = cast("dict[str, Any]", value)
    if "tombstone" in record:
        return _read_tombstone(record, now)
    signatures = record.pop("signatures", None)
    manifest = _read_card(record)
    if signatures is None:
        if require_signed:
            raise SignatureError(
                f"the manifest of {manifest.name!r} is not signed",
                code="manifest.unsigned",
                hint="admit unsigned agents with require_signed_registration = false, or let its owner sign",
            )
        check_time(manifest, now)
        return manifest
    protected, signature = _only_signature(signatures)
    check_time(manifest, now)
    verify_detached(
        protected, manifest.raw, signature, did=manifest.agent_id, typ=_CARD_TYP, typ_required=False
    )  # signed bytes: the card without ``signatures``
    return replace(manifest, raw=canonical({**record, "signatures": signatures}), signed=True)


def _read_card(card: dict[str, Any]) -> Manifest:
    """Check everything about a card except time and signature; the result is marked unsigned."""
    check_safe(card)
    for member in CARD_REQUIRED:
        _present(card, member, "the card")
    for member in ("name", "description", "version"):
        if not isinstance(card[member], str):
            _refuse(f"{member} is no text", "manifest.malformed")
    if not is_name(card["name"]):
        raise DecodeError(
            f"{card['name'][:80]!r} cannot be an agent's name",
            code="manifest.name",
            hint="use 1 to 64 letters, digits, - or _, with dots only inside",
        )
    _objects(card["skills"], "skills", SKILL_REQUIRED)
    interfaces = _objects(card["supportedInterfaces"], "supportedInterfaces", INTERFACE_REQUIRED)
    for member in ("defaultInputModes", "defaultOutputModes"):
        _texts(card[member], member)
    params = _extension(card)
    agent, node, seq, iat, exp = _identity(params)
    if not any(i["protocolBinding"] == EXT and i["url"] == interface_url(node, agent) for i in interfaces):
        _refuse("no interface leads to this agent over the mesh", "manifest.interface")
    raw = canonical(card)
    if len(raw) > MANIFEST_BYTES_MAX:
        _refuse(f"the manifest has {len(raw)} bytes, at most {MANIFEST_BYTES_MAX} travel", "manifest.too_large")
    return Manifest(
        agent_id=agent,
        node_id=node,
        name=card["name"],
        description=card["description"],
        version=card["version"],
        seq=seq,
        iat=iat,
        exp=exp,
        raw=raw,
        signed=False,
        tombstone=False,
    )


def _read_tombstone(record: dict[str, Any], now: int) -> Manifest:
    token = record["tombstone"]
    if len(record) != 1 or not isinstance(token, str):
        _refuse("a tombstone has one member, a text", "manifest.malformed")
    protected, payload, signature = split_compact(token, payload_bytes_max=2048)
    value = parse_strict(payload, bytes_max=2048, depth_max=1)
    if not isinstance(value, dict):
        _refuse("the claims of a tombstone are an object", "manifest.malformed")
    claims = cast("dict[str, Any]", value)
    if set(claims) != _TOMBSTONE_CLAIMS or not isinstance(claims["name"], str) or not is_name(claims["name"]):
        _refuse("a tombstone has other claims than agreed", "manifest.malformed")
    agent, node, seq, iat, exp = _identity(claims)
    tombstone = Manifest(
        agent_id=agent,
        node_id=node,
        name=claims["name"],
        description="",
        version="",
        seq=seq,
        iat=iat,
        exp=exp,
        raw=canonical(record),
        signed=True,
        tombstone=True,
    )
    check_time(tombstone, now)
    verify_detached(protected, payload, signature, did=agent, typ=TOMBSTONE_TYP, typ_required=True)
    return tombstone


def _identity(params: dict[str, Any]) -> tuple[AgentId, NodeId, int, int, int]:
    """Check and return agent_id, node_id, seq, iat and exp."""
    agent = parse_agent_id(params.get("agent_id", ""))
    node = parse_node_id(params.get("node_id", ""))
    seq = params.get("seq")
    if not isinstance(seq, str) or not _SEQ.fullmatch(seq) or int(seq) > INTEGER_MAX:
        _refuse("seq is a text of a whole number, 1 … 2^53-1", "manifest.seq")
    iat, exp = params.get("iat"), params.get("exp")
    if type(iat) is not int or type(exp) is not int or not 0 < iat < exp:
        _refuse("iat and exp are unix seconds, exp the later", "manifest.time")
    if exp - iat > LIFE_S_MAX:
        _refuse(f"valid for {exp - iat} s, at most {LIFE_S_MAX} s are accepted", "manifest.life")
    return agent, NodeId(sys.intern(node)), int(seq), iat, exp


def check_time(manifest: Manifest, now: int) -> None:
    """Raise ReplayError unless the record is valid at unix second ``now``."""
    if manifest.iat - SKEW_S_MAX > now:
        raise ReplayError(
            f"the record of {manifest.name!r} is valid only in {manifest.iat - now} s",
            code="manifest.not_yet_valid",
            why="the clock of its node is ahead of this one, or this one is behind",
            hint=SET_CLOCKS,
        )
    if now > manifest.exp:
        raise ReplayError(
            f"the record of {manifest.name!r} expired {now - manifest.exp} s ago",
            code="manifest.expired",
            why="its owner has not signed a fresh one, or a clock is wrong",
            hint="compare the clocks of both machines (date -u); its owner signs again while its node runs",
        )


def _extension(card: dict[str, Any]) -> dict[str, Any]:
    capabilities = card["capabilities"]
    if not isinstance(capabilities, dict):
        _refuse("capabilities is no object", "manifest.malformed")
    extensions = _objects(cast("dict[str, Any]", capabilities).get("extensions", []), "extensions", ("uri",))
    ours = [extension for extension in extensions if extension["uri"] == EXT]
    if len(ours) != 1 or not isinstance(params := ours[0].get("params"), dict):
        _refuse("the card does not carry the mesh extension once, with params", "manifest.extension")
    return cast("dict[str, Any]", params)


def _only_signature(signatures: Any) -> tuple[str, str]:
    """One signature, nothing unprotected beside it: strangers must not be able to make variants of a record."""
    items = _objects(signatures, "signatures", ("protected", "signature"))
    if len(items) != 1 or set(items[0]) != {"protected", "signature"}:
        _refuse("a manifest has one signature, with protected and signature only", "manifest.signatures")
    return items[0]["protected"], items[0]["signature"]


def _objects(value: Any, what: str, required: tuple[str, ...]) -> list[dict[str, Any]]:
    """Check that a value is a list of objects whose required members are texts (``tags``: a list of texts)."""
    if not isinstance(value, list):
        _refuse(f"{what} is no list", "manifest.malformed")
    for item in cast("list[Any]", value):
        if not isinstance(item, dict):
            _refuse(f"{what} holds something that is no object", "manifest.malformed")
        for member in required:
            _present(cast("dict[str, Any]", item), member, what)
            if member == "tags":
                _texts(item[member], f"{what} tags")
            elif not isinstance(item[member], str):
                _refuse(f"{member} of {what} is no text", "manifest.malformed")
    return cast("list[dict[str, Any]]", value)


def _texts(value: Any, what: str) -> None:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in cast("list[Any]", value)):
        _refuse(f"{what} is no list of texts", "manifest.malformed")


def _present(value: dict[str, Any], member: str, what: str) -> None:
    if member not in value or value[member] in ("", [], {}):
        _refuse(f"{what} lacks the required member {member!r}", "manifest.required")


def _refuse(detail: str, code: str) -> NoReturn:
    raise DecodeError(detail, code=code)
