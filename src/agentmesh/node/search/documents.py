"""From a manifest to what is searched of it. Every member is its owner's word; what is not of the expected form is left out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from agentmesh.core.search.model import PASSAGES_MAX, TEXT_CHARS_MAX, Document, Passage
from agentmesh.identity.manifest import EXT, Manifest

#: Of each list of a card, entries read.
_LIST_MAX = 64
_WORD_CHARS_MAX = 200
#: What A2A calls its bindings; all of them are the one protocol to people.
_A2A_BINDINGS = {"JSONRPC", "GRPC", "HTTP+JSON"}
#: Stable coins of one dollar, all with six decimals: their smallest unit is a millionth.
_DOLLAR_COINS = {"usdc", "usd coin", "usd", "usdt", "tether", "tether usd", "pyusd", "usdp"}
_MICROS_MAX = 10**15
_MICROS_DIGITS = 6


def document_of(
    manifest: Manifest, *, protocols: Sequence[str] = (), organisation: str = "", location: str = "", named: str = ""
) -> Document:
    """Return what is searched of an agent.

    Args:
        manifest: A verified one, no tombstone.
        protocols: By which it can be called beyond what its card says.
        organisation: did:key of the organisation that vouches for it; "" for none.
        location: Site of its node; its card's own ``location`` is taken if this is "".
        named: Its name, if people know it by another one here.
    """
    card, params = manifest.card, manifest.params
    passages = [Passage("agent", "", _joined(card.get("description"), params.get("vector_desc")))]
    tags: list[str] = _words(params.get("tags"))
    skills: list[str] = []
    for skill in _objects(card.get("skills")):
        name = _text(skill.get("id"))[:_WORD_CHARS_MAX]
        skills.append(name)
        tags += _words(skill.get("tags"))
        passages.append(Passage("skill", name, _named(_text(skill.get("name")), _text(skill.get("description")))))
        passages += [
            Passage("example", name, one[:TEXT_CHARS_MAX]) for one in _words(skill.get("examples"), TEXT_CHARS_MAX)
        ]
    own = [one for one in passages[1:] if one.text]
    own.sort(key=lambda one: one.kind == "example")  # of one that says too much, the skills stay
    found = Document(
        agent_id=manifest.agent_id,
        version="",
        name=named or manifest.name,
        passages=(passages[0], *own)[:PASSAGES_MAX],
        tags=tuple(dict.fromkeys(tags))[:_LIST_MAX],
        skills=tuple(dict.fromkeys(one for one in skills if one))[:_LIST_MAX],
        protocols=tuple(dict.fromkeys((*_bindings(card), *_words(params.get("protocols")), *protocols)))[:_LIST_MAX],
        models=tuple(dict.fromkeys(_words(params.get("models")))),
        context_window=_whole(params.get("context_window")),
        price_micros=_price(params.get("pricing")),
        node_id=manifest.node_id,
        organisation=organisation,
        location=location or _text(params.get("location"))[:_WORD_CHARS_MAX],
    )
    return msgspec.structs.replace(found, version=version_of(found))


def version_of(document: Document) -> str:
    """Return a name for what a document says, whatever its ``version``: a manifest that was only signed again keeps it."""
    said = msgspec.msgpack.encode(msgspec.structs.replace(document, version=""))
    return hashlib.blake2b(said, digest_size=12).hexdigest()


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""


def _joined(*values: Any) -> str:
    return "\n".join(text for value in values if (text := _text(value)))[:TEXT_CHARS_MAX]


def _named(name: str, text: str) -> str:
    return (f"{name}: {text}" if name and text else name or text)[:TEXT_CHARS_MAX]


def _objects(value: Any) -> list[dict[str, Any]]:
    found = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("dict[str, Any]", one) for one in found[:_LIST_MAX] if isinstance(one, dict)]


def _words(value: Any, most: int = _WORD_CHARS_MAX) -> list[str]:
    """Return the texts of a list, or of a text its only one."""
    found = cast("list[Any]", value) if isinstance(value, list) else [value]
    return [text[:most] for one in found[:_LIST_MAX] if (text := _text(one))]


def _whole(value: Any) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 15:
        value = int(value)
    return value if type(value) is int and 0 < value < 2**53 else 0


def _bindings(card: dict[str, Any]) -> list[str]:
    found: list[str] = []
    for one in _objects(card.get("supportedInterfaces")):
        binding = _text(one.get("protocolBinding"))[:_WORD_CHARS_MAX]
        if binding:
            found.append("mesh" if binding == EXT else "a2a" if binding in _A2A_BINDINGS else binding.lower())
    return found


def _price(value: Any) -> int | None:
    """Return the dearest of the prices that are dollars, in millionths; None if none is.

    Read are x402's ``accepts`` (whole numbers of the smallest unit of a dollar coin) and
    ``{"amount": "0.02", "currency": "USD"}``.
    """
    entries = _objects(value) if isinstance(value, list) else _objects([value])
    prices = [price for one in entries if (price := _micros(one)) is not None]
    return max(prices, default=None)


def _micros(entry: dict[str, Any]) -> int | None:
    extra = entry.get("extra")
    coin = cast("dict[str, Any]", extra).get("name") if isinstance(extra, dict) else None
    if _text(entry.get("currency")).upper() == "USD" and "network" not in entry and "asset" not in entry:
        return _decimal(_text(entry.get("amount")))
    if not any(_text(one).casefold() in _DOLLAR_COINS for one in (coin, entry.get("asset"), entry.get("currency"))):
        return None
    for member in ("maxAmountRequired", "amount"):
        text = _text(entry.get(member))
        if text.isascii() and text.isdigit() and len(text) <= 15:
            return min(int(text), _MICROS_MAX)
    return None


def _decimal(text: str) -> int | None:
    """Return "0.02" as 20,000; None for what is no such number. Fractions of a millionth round up: a price is no less."""
    whole, _, part = text.partition(".")
    if not text.isascii() or not (whole + part).isdigit() or len(text) > 24:
        return None
    micros = int(whole or "0") * 10**_MICROS_DIGITS + int((part + "0" * _MICROS_DIGITS)[:_MICROS_DIGITS])
    return min(_MICROS_MAX, micros + bool(part[_MICROS_DIGITS:].strip("0")))
