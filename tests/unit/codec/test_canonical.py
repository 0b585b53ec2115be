"""Strict JSON: one spelling out, one reading in."""

from __future__ import annotations

import json
from enum import IntEnum, StrEnum
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.codec.canonical import DEPTH_MAX, INTEGER_MAX, _parse, canonical, parse_strict
from agentmesh.errors import DecodeError, LimitError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-INTEGER_MAX, INTEGER_MAX) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_canonical_bytes_are_those_of_rfc_8785(value: Any) -> None:
    assert canonical(value) == rfc8785.dumps(value)


def test_every_character_is_spelled_as_rfc_8785_spells_it() -> None:
    every = [chr(code) for code in range(0x11000) if not 0xD800 <= code < 0xE000] + ["\U0010ffff"]
    assert canonical(every) == rfc8785.dumps(every)
    assert canonical({c: c for c in every[:0x80]}) == rfc8785.dumps({c: c for c in every[:0x80]})


class _Text(str):
    pass


class _Number(int):
    pass


class _List(list[Any]):
    pass


class _Object(dict[Any, Any]):
    pass


class _Color(StrEnum):
    RED = "red"


class _Level(IntEnum):
    HIGH = 3


def test_derived_types_are_written_and_refused_as_their_bases() -> None:
    odd = {
        "a": _Text("x"),
        "b": _Number(3),
        "c": _List([_Object(d=_Text("é"))]),
        "e": (1, "z"),
        "f": _Color.RED,
        "g": _Level.HIGH,
    }
    assert canonical(odd) == b'{"a":"x","b":3,"c":[{"d":"\xc3\xa9"}],"e":[1,"z"],"f":"red","g":3}'
    assert canonical({_Text("b"): 1, "a": 2}) == b'{"a":2,"b":1}'
    for value, code in (
        (_Number(2**53), "integer"),
        (_Text("\ud800"), "surrogate"),
        (_Object({1: 2}), "key"),
        (_List([1.5]), "float"),
    ):
        with pytest.raises(LimitError) as caught:
            canonical([value])
        assert caught.value.code == f"canonical.{code}"


@given(values)
def test_what_is_written_reads_back_equal(value: Any) -> None:
    assert parse_strict(canonical(value), bytes_max=100_000) == value


def test_members_are_sorted_by_utf_16_units_as_in_the_rfc() -> None:
    # RFC 8785 §3.2.3: U+1F600 (D83D DE00) sorts before U+FB33, though its code point is the larger.
    assert (
        canonical({"\ufb33": 1, "\U0001f600": 2, "\r": 3, "1": 4}).decode()
        == '{"\\r":3,"1":4,"\U0001f600":2,"\ufb33":1}'
    )


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (1.0, "canonical.float"),
        ({"a": [float("nan")]}, "canonical.float"),
        (2**53, "canonical.integer"),
        (-(2**53), "canonical.integer"),
        ({1: "a"}, "canonical.key"),
        ({"a": "\ud800"}, "canonical.surrogate"),
        ({"\udc00": 1}, "canonical.surrogate"),
        (b"bytes", "canonical.type"),
        ({"a": {1, 2}}, "canonical.type"),
    ],
)
def test_values_without_one_spelling_are_refused(value: Any, code: str) -> None:
    with pytest.raises(LimitError) as caught:
        canonical(value)
    assert caught.value.code == code


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def test_nesting_is_bounded_when_writing() -> None:
    assert canonical(nested(DEPTH_MAX)) == b"[" * DEPTH_MAX + b"1" + b"]" * DEPTH_MAX
    for depth in (DEPTH_MAX + 1, 200, 50_000):
        with pytest.raises(LimitError) as caught:
            canonical(nested(depth))
        assert caught.value.code == "canonical.depth"


@pytest.mark.parametrize("depth", [DEPTH_MAX + 1, 200, 5_000, 2_000_000])
@pytest.mark.parametrize("closed", [True, False])
@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_a_decode_error_and_never_a_recursion_error(
    depth: int, closed: bool, opening: bytes, closing: bytes
) -> None:
    raw = opening * depth + b"1" + (closing * depth if closed else b"")
    with pytest.raises(DecodeError) as caught:
        parse_strict(raw, bytes_max=len(raw))
    assert caught.value.code == "json.too_deep"


def test_nesting_is_counted_exactly_and_brackets_in_texts_do_not_count() -> None:
    raw = b"[" * DEPTH_MAX + b'"[[[[{{{{\\"[[\\\\"' + b"]" * DEPTH_MAX
    parse_strict(raw, bytes_max=1000)
    with pytest.raises(DecodeError, match="deeper"):
        parse_strict(b"[" + raw + b"]", bytes_max=1000)


def test_a_hidden_opening_after_a_syntax_error_is_still_only_an_error() -> None:
    for raw in (b"]]]]" + b"[" * 10_000, b'[\\"' + b"[" * 10_000, b'"\\', b'["a', b"[] " + b"[" * 10_000):
        with pytest.raises(DecodeError):
            parse_strict(raw, bytes_max=len(raw))


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b'{"a":1,"a":2}', "json.duplicate"),
        (b'[{"b":{"a":1,"\\u0061":2}}]', "json.duplicate"),
        (b"NaN", "json.constant"),
        (b'{"a":-Infinity}', "json.constant"),
        (b"[1.5]", "json.float"),
        (b"[1e3]", "json.float"),
        (b"[1.0]", "json.float"),
        (b"9007199254740992", "json.integer"),
        (b"-9007199254740992", "json.integer"),
        (b"1" * 10_000, "json.integer"),
        (b'"\\ud800"', "json.surrogate"),
        (b'{"\\udc00":1}', "json.surrogate"),
        (b'"\xed\xa0\x80"', "json.utf8"),
        (b"\xff", "json.utf8"),
        (b"\xef\xbb\xbf{}", "json.malformed"),
        (b"", "json.malformed"),
        (b"{} {}", "json.malformed"),
        (b'{"a":1,}', "json.malformed"),
        (b"{'a':1}", "json.malformed"),
        (b'"tab\tinside"', "json.malformed"),
        (b"01", "json.malformed"),
    ],
)
def test_json_that_two_readers_could_read_differently_is_refused(raw: bytes, code: str) -> None:
    with pytest.raises(DecodeError) as caught:
        parse_strict(raw, bytes_max=20_000)
    assert caught.value.code == code


def test_size_is_checked_before_anything_is_parsed() -> None:
    raw = b"[" * 10_000_000
    with pytest.raises(DecodeError) as caught:
        parse_strict(raw, bytes_max=65_536)
    assert caught.value.code == "json.too_large"


def test_paired_surrogate_escapes_are_a_character() -> None:
    assert parse_strict(b'"\\ud83d\\ude00"', bytes_max=100) == "😀"


def test_floats_are_read_where_they_are_allowed_but_not_infinite_ones() -> None:
    assert parse_strict(b"[1.5,1e2]", bytes_max=100, floats=True) == [1.5, 100.0]
    with pytest.raises(DecodeError):
        parse_strict(b"[1e999]", bytes_max=100, floats=True)


@given(st.binary(max_size=200))
def test_any_bytes_give_a_value_or_a_decode_error(raw: bytes) -> None:
    try:
        value = parse_strict(raw, bytes_max=150)
    except DecodeError:
        return
    assert value == json.loads(raw)


@given(st.lists(st.sampled_from([b'"', b"\\", b"[", b"]", b"{", b"}", b",", b"a", b'"a":', b"\\u0041"]), max_size=80))
def test_json_shaped_noise_gives_a_value_or_a_decode_error(parts: list[bytes]) -> None:
    raw = b"".join(parts)
    try:
        parse_strict(raw, bytes_max=1000)
    except DecodeError:
        return
    json.loads(raw)


def test_a_text_of_a_million_escapes_takes_linear_time() -> None:
    # Quadratic scanning would take minutes here; the suite's timeout is the judge.
    raw = b'"' + b'\\"' * 1_000_000
    with pytest.raises(DecodeError):
        parse_strict(raw, bytes_max=len(raw))


def _same(one: Any, other: Any) -> bool:
    """Compare as JSON: 1, 1.0 and true are not the same."""
    return type(one) is type(other) and (
        (isinstance(one, dict) and list(one) == list(other) and all(_same(one[k], other[k]) for k in one))
        or (isinstance(one, list) and len(one) == len(other) and all(map(_same, one, other)))
        or (not isinstance(one, dict | list) and one == other)
    )


def _outcome(read: Any) -> Any:
    try:
        return read()
    except DecodeError as error:
        return error


_PIECES = [
    '{"a":',
    '"b":',
    "}",
    "[",
    "]",
    ",",
    "1",
    "-0",
    "0.5",
    "1e3",
    "12345678901234567",
    "9007199254740991",
    "true",
    "null",
    '"x"',
    '"\\u0061"',
    '"\\ud800"',
    '"\\/"',
    '"é"',
    '"\x7f"',
    '"\\n"',
    '"a":1',
    "NaN",
    '"',
    "\\",
]
pieces = st.sampled_from([*_PIECES, " ", "\n"])


@given(
    st.one_of(
        values.map(canonical),
        st.recursive(values | st.floats(), lambda v: st.lists(v) | st.dictionaries(texts, v)).map(
            lambda v: json.dumps(v, ensure_ascii=False).encode()
        ),
        st.lists(pieces, max_size=12).map(lambda ps: "".join(ps).encode()),
        st.binary(max_size=30),
    ),
    st.booleans(),
)
def test_the_quick_way_to_read_takes_nothing_that_the_careful_one_refuses_or_reads_otherwise(
    raw: bytes, floats: bool
) -> None:
    quick = _outcome(lambda: parse_strict(raw, bytes_max=1_000_000, floats=floats))
    careful = _outcome(lambda: _parse(raw, floats))
    if isinstance(quick, DecodeError):
        assert quick.code == "json.too_deep" or quick.code == careful.code
    else:
        assert _same(quick, careful)
