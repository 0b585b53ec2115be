"""The features of an agent's passages as bytes, for the exact score; and the tokens by which its agent is listed."""

from __future__ import annotations

import hashlib
import struct
import sys
from array import array
from collections.abc import Callable, Iterable, Mapping

import msgspec

from agentmesh.core.search.model import Document, Filters
from agentmesh.core.search.text import clean
from agentmesh.node.search.score import Packed

#: Features of one passage; a text of 2,000 characters has fewer, unless it was written to have more.
FEATURES_MAX = 600
_TRAIT_CHARS_MAX = 80
_TRAITS_MAX = 400
_KEYS_MAX = 262_144
_HEAD = struct.Struct("<H")
_decode: Callable[[bytes], Document] = msgspec.msgpack.Decoder(Document).decode


class Keys:
    """Gives each feature a number of 32 bits, which depends on a secret of this index.

    Nobody outside can therefore choose a made-up word whose number is that of a word that many ask for.
    """

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._known: dict[str, int] = {}

    def __call__(self, feature: str) -> int:
        """Return the number of a feature."""
        found = self._known.get(feature)
        if found is None:
            if len(self._known) >= _KEYS_MAX:
                self._known.clear()
            made = hashlib.blake2b(feature.encode("utf-8", "replace"), digest_size=4, key=self._salt).digest()
            found = self._known[feature] = int.from_bytes(made, "little")
        return found


def read_document(raw: bytes) -> Document:
    """Return the document that msgspec wrote as MessagePack."""
    return _decode(raw)


def packed(passages: Iterable[Mapping[str, float]], keys: Keys) -> bytes:
    """Return the bytes of passages, each a table feature → strength 0 … 1."""
    parts: list[bytes] = []
    for features in passages:
        rows = sorted((keys(name), max(1, min(255, round(strength * 255)))) for name, strength in features.items())[
            :FEATURES_MAX
        ]
        numbers = array("I", [key for key, _ in rows])
        if sys.byteorder == "big":
            numbers.byteswap()
        parts += (_HEAD.pack(len(rows)), numbers.tobytes(), bytes(strength for _, strength in rows))
    return b"".join(parts)


def unpacked(raw: bytes) -> list[Packed]:
    """Return what ``packed`` made. Raises ValueError or struct.error: damaged bytes."""
    found: list[Packed] = []
    at = 0
    while at < len(raw):
        (count,) = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        numbers: array[int] = array("I")
        numbers.frombytes(raw[at : at + 4 * count])
        if sys.byteorder == "big":
            numbers.byteswap()
        at += 4 * count
        found.append(Packed(numbers, raw[at : at + count]))
        at += count
    return found


def traits_of(document: Document) -> list[str]:
    """Return the tokens of what filters ask for."""
    found = [
        *(_trait("p", one) for one in document.protocols),
        *(_trait("t", one) for one in document.tags),
        *(_trait("s", one) for one in document.skills),
        *(_trait("m", one) for one in document.models),
        _trait("o", document.organisation),
        _trait("l", document.location),
        _trait("n", document.node_id),
    ]
    return [one for one in dict.fromkeys(found) if one][:_TRAITS_MAX]


def traits_asked(filters: Filters) -> list[str]:
    """Return the tokens that an agent must have to meet the filters; ``*`` at the end means the beginning of one."""
    found = [
        _trait("p", filters.protocol),
        _trait("t", filters.tag),
        _trait("s", filters.skill),
        _trait("m", filters.model) + "*" if filters.model else "",
        _trait("o", filters.organisation),
        _trait("l", filters.location) + "*" if filters.location else "",
        _trait("n", filters.node_id),
    ]
    return [one for one in found if one]


def missed_by(document: Document, filters: Filters) -> tuple[str, ...]:
    """Return the names of the filters that an agent does not meet."""
    missed: list[str] = []
    for name, asked, own in (
        ("protocol", filters.protocol, document.protocols),
        ("tag", filters.tag, document.tags),
        ("skill", filters.skill, document.skills),
        ("organisation", filters.organisation, (document.organisation,)),
        ("node_id", filters.node_id, (document.node_id,)),
    ):
        if asked and _plain(asked) not in {_plain(one) for one in own}:
            missed.append(name)
    for name, asked, own in (
        ("model", filters.model, document.models),
        ("location", filters.location, (document.location,)),
    ):
        if asked and not any(_plain(one).startswith(_plain(asked)) for one in own):
            missed.append(name)
    if document.context_window < filters.context_window_min:
        missed.append("context_window_min")
    most = filters.price_micros_max
    if most is not None and (document.price_micros is None or document.price_micros > most):
        missed.append("price_micros_max")
    return tuple(missed)


def _plain(text: str) -> str:
    return clean(text).strip().casefold()[:_TRAIT_CHARS_MAX]


def _trait(kind: str, value: str) -> str:
    """Return a token; signs that the tokenizer would cut at are written as numbers, so that a beginning stays a beginning."""
    text = _plain(value)
    if not text:
        return ""
    return f"={kind}" + "".join(
        one if not one.isascii() or (one.isalnum() and one.islower()) or one.isdigit() else f"_{ord(one):02x}"
        for one in text
    )
