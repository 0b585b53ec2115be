"""Strict JSON: one way to write a value (RFC 8785, JCS) and a parser that lets no two readers differ.

``json.loads`` keeps the last of duplicate members, accepts NaN and breaks on deep nesting with ``RecursionError``; two
implementations would then see different values under one signature (research: standards §4.3; RFC 7493, I-JSON).
Used for everything that is signed.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, cast

import msgspec
import rfc8785

from agentmesh.errors import DecodeError, LimitError

#: Objects and arrays that may be open at once, the outermost counted as 1.
DEPTH_MAX = 32
#: Largest magnitude that every JSON reader keeps exact (RFC 7493 §2.2).
INTEGER_MAX = 2**53 - 1
#: A string, closed or not. Possessive, so that hostile input costs linear time.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_NOT_BRACKETS = bytes(b for b in range(256) if b not in b"[]{}")
#: Outside of texts: a number with a fraction or exponent, or one so long that it may be out of range.
_ODD_NUMBER = re.compile(rb"[0-9](?:[.eE]|[0-9]{15})")
_sorted_encoder = msgspec.json.Encoder(order="sorted")
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()


def canonical(value: Any, *, floats: bool = False) -> bytes:
    """Write a JSON value in the one canonical way of RFC 8785.

    Args:
        value: Objects with text keys, arrays, texts, integers, booleans, None. No floats: amounts are integer texts.
        floats: Accept finite floats all the same, for what others wrote and is only hashed. About 15 times slower when
            there is one.

    Returns:
        UTF-8 bytes; equal values give equal bytes.

    Raises:
        LimitError: a float, an integer beyond ±(2^53−1), nesting over 32, a key that is no text, a lone surrogate or
            another type (codes "canonical.*"). No state changed.
    """
    if _check(value, floats):
        # Without floats and with ASCII names msgspec writes the same bytes, 50 times faster (property-tested).
        return _sorted_encoder.encode(value)
    return rfc8785.dumps(value)


def _check(value: Any, floats: bool) -> bool:
    """Refuse what has no canonical form, without recursion, so that depth costs no stack.

    Returns:
        True if all member names are ASCII, no number is a float, and no type is derived from another.
    """
    level: list[Any] = [value]
    depth = 0
    plain = True
    while level:
        depth += 1
        deeper: list[Any] = []
        for item in level:
            kind = type(item)  # pyright: ignore[reportUnknownVariableType]
            if kind is str:
                if not item.isascii():
                    _check_text(item)
            elif kind is dict:
                for name in cast("dict[Any, Any]", item):
                    if type(name) is not str or not name.isascii():
                        plain = False
                        _check_name(name)
                deeper.extend(cast("dict[str, Any]", item).values())
            elif kind is list or kind is tuple:
                deeper.extend(item)
            elif kind is bool or item is None:
                continue
            elif kind is int:
                _check_integer(item)
            else:
                plain = False
                deeper.extend(_check_other(item, floats))
        if deeper and depth > DEPTH_MAX:
            raise LimitError(f"nested deeper than {DEPTH_MAX}", code="canonical.depth")
        level = deeper
    return plain


def _check_other(item: Any, floats: bool) -> list[Any]:
    """Refuse what is no JSON; return what is within an item of a derived type."""
    if isinstance(item, float):
        if not (floats and math.isfinite(item)):
            raise LimitError("a float has no single spelling; use an integer or a text", code="canonical.float")
    elif isinstance(item, str):
        _check_text(item)
    elif isinstance(item, int):
        _check_integer(item)
    elif isinstance(item, dict):
        for name in cast("dict[Any, Any]", item):
            _check_name(name)
        return list(cast("dict[str, Any]", item).values())
    elif isinstance(item, list | tuple):
        return list(cast("list[Any]", item))
    else:
        raise LimitError(f"JSON has no {type(item).__name__}", code="canonical.type")
    return []


def _check_integer(number: int) -> None:
    if not -INTEGER_MAX <= number <= INTEGER_MAX:
        raise LimitError("an integer beyond ±(2^53−1) is not exact everywhere", code="canonical.integer")


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise LimitError(f"a member name must be text, not {type(name).__name__}", code="canonical.key")
    _check_text(name)


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise LimitError("a lone surrogate is no text", code="canonical.surrogate") from error


def parse_strict(raw: bytes, *, bytes_max: int, depth_max: int = DEPTH_MAX, floats: bool = False) -> Any:
    """Parse JSON that came from outside, refusing whatever two parsers might read differently.

    Cheap checks come first: size, then nesting, both before anything is parsed.

    Args:
        raw: UTF-8 JSON without a byte-order mark.
        bytes_max: Largest accepted size, bytes.
        depth_max: Objects and arrays open at once, the outermost counted as 1.
        floats: Accept numbers with a fraction or exponent (finite ones).

    Returns:
        The value.

    Raises:
        DecodeError: codes "json.too_large", "json.too_deep", "json.utf8", "json.malformed", "json.duplicate",
            "json.constant", "json.float", "json.integer" or "json.surrogate". No state changed.
    """
    if len(raw) > bytes_max:
        raise DecodeError(f"JSON of {len(raw)} bytes, at most {bytes_max} are read", code="json.too_large")
    bare = _STRING.sub(b"", raw)
    if _depth(bare) > depth_max:
        raise DecodeError(f"JSON nested deeper than {depth_max}", code="json.too_deep")
    if _ODD_NUMBER.search(bare) is None:
        # What one parser reads and one writer spells the same again has one reading: nothing is there twice, nothing is hidden in
        # an escape. All that we sign ourselves is so; the rest is read slowly.
        try:
            value = _decoder.decode(raw)
            if _encoder.encode(value) == raw:
                return value
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            pass
    return _parse(raw, floats)


def _parse(raw: bytes, floats: bool) -> Any:
    """Parse JSON of any spelling. Raises DecodeError."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DecodeError("JSON must be UTF-8", code="json.utf8") from error
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float if floats else _no_float,
            parse_constant=_no_constant,
        )
    except ValueError as error:
        raise DecodeError(f"not JSON: {error}", code="json.malformed") from error
    if b"\\u" in raw:
        # Only an escape can make a lone surrogate: UTF-8 itself cannot carry one.
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise DecodeError("JSON text holds a lone surrogate", code="json.surrogate") from error
    return value


def _depth(bare: bytes) -> int:
    """Return the deepest nesting a parser could reach before it finds an error, given JSON without its texts."""
    depth = deepest = 0
    for byte in bare.translate(None, _NOT_BRACKETS):
        if byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        else:
            depth -= 1
    return deepest


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise DecodeError("a JSON object names a member twice", code="json.duplicate")
    return members


def _integer(digits: str) -> int:
    # The length is checked first: turning a million digits into an integer takes quadratic time.
    if len(digits) > 17 or not -INTEGER_MAX <= int(digits) <= INTEGER_MAX:
        raise DecodeError("an integer beyond ±(2^53−1) is not exact everywhere", code="json.integer")
    return int(digits)


def _float(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise DecodeError("a number too large to be finite", code="json.float")
    return number


def _no_float(digits: str) -> NoReturn:
    raise DecodeError("a number with a fraction or exponent where none may be", code="json.float")


def _no_constant(name: str) -> NoReturn:
    raise DecodeError(f"{name} is no JSON", code="json.constant")
