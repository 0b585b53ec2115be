"""Strict JSON: one spelling out, one reading in."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.codec.canonical import DEPTH_MAX, INTEGER_MAX, canonical, parse_strict
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
