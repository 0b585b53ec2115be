"""Baggage: what goes along with a call, as W3C writes it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import UsageError
from agentmesh.node.baggage import baggage_of, check_baggage, read_baggage, write_baggage

keys = st.text(st.sampled_from("abcXYZ019-_.~!#$"), min_size=1, max_size=20)
values = st.text(st.characters(exclude_categories=("C", "Z")), max_size=40)


@given(st.dictionaries(keys, values, max_size=8))
def test_baggage_reads_back_from_its_header_as_what_was_put_in(baggage: dict[str, str]) -> None:
    header = write_baggage(baggage)
    assert header.isascii()
    assert read_baggage(header) == baggage


def test_the_example_of_the_recommendation_is_read() -> None:
    header = "key1=value1;property1;property2, key2 = value2, key3=value3; propertyKey=propertyValue"
    assert read_baggage(header) == {"key1": "value1", "key2": "value2", "key3": "value3"}


@given(st.text(max_size=200))
def test_any_header_is_read_without_harm(header: str) -> None:
    check_baggage(read_baggage(header))


@pytest.mark.parametrize(
    "baggage",
    [
        {"a b": "x"},
        {"": "x"},
        {"a": "line\nbreak"},
        {"a": "x" * 5_000},
        {f"k{n}": "" for n in range(33)},
        {"k" * 200: ""},
    ],
)
def test_what_no_header_could_carry_is_refused_from_here_and_dropped_from_elsewhere(baggage: dict[str, str]) -> None:
    with pytest.raises(UsageError) as error:
        check_baggage(baggage)
    assert error.value.code == "call.baggage"
    assert baggage_of(baggage) == {}
