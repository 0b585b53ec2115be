"""Types to schema, and a caller's parts to arguments."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import AgentFailed, UsageError
from agentmesh.sdk.agent import Context
from agentmesh.sdk.signature import Signature, describe


class Order(msgspec.Struct):
    item: str
    count: int = 1


@dataclass
class Point:
    x: float
    y: float


def one_text(text: str) -> None: ...
def maybe_text(text: str | None = None) -> None: ...
def one_number(n: int) -> None: ...
def two(a: int, b: int = 2) -> None: ...
def nothing() -> None: ...
def order(order: Order) -> None: ...
def point(p: Point, unit: Literal["m", "km"] = "m") -> None: ...
def listed(items: list[str], *, tags: dict[str, int] = {}) -> None: ...  # noqa: B006
def untyped(a, b) -> None: ...  # type: ignore[no-untyped-def]
def with_context(text: str, ctx: Context) -> None: ...
def positional(a: int, /) -> None: ...
def rest(*values: int) -> None: ...
def uncarried(f: type[Signature]) -> None: ...


def arguments(function: Any, *parts: dict[str, Any]) -> dict[str, Any]:
    return Signature(function, Context).arguments(list(parts))


def said(text: str) -> dict[str, Any]:
    return {"text": text}


def test_the_schema_says_types_defaults_and_what_is_required() -> None:
    schema = Signature(two, Context).schema
    assert schema["properties"] == {"a": {"type": "integer"}, "b": {"type": "integer"}}
    assert schema["required"] == ["a"]
    assert "$defs" in Signature(order, Context).schema


@given(st.text())
def test_one_text_parameter_gets_the_text_as_it_is(text: str) -> None:
    assert arguments(one_text, said(text)) == {"text": text}


def test_one_text_parameter_takes_json_text_unread_and_data_by_name() -> None:
    assert arguments(one_text, said('{"text": "x"}')) == {"text": '{"text": "x"}'}
    assert arguments(one_text, {"data": {"text": "x"}}) == {"text": "x"}
    assert arguments(one_text, {"data": {"other": 1}}) == {"text": '{"other":1}'}


@pytest.mark.parametrize(
    ("function", "parts", "expected"),
    [
        (two, [{"data": {"a": 1}}], {"a": 1, "b": 2}),
        (two, [said('{"a": 1, "b": 5}')], {"a": 1, "b": 5}),
        (two, [said('{"a": "7"}')], {"a": 7, "b": 2}),
        (two, [said("please add"), {"data": {"a": 3}}], {"a": 3, "b": 2}),
        (one_number, [said("5")], {"n": 5}),
        (one_number, [{"data": 5}], {"n": 5}),
        (one_number, [{"data": {"n": 5}}], {"n": 5}),
        (nothing, [said("whatever")], {}),
        (order, [{"data": {"item": "tea"}}], {"order": Order("tea")}),
        (order, [{"data": {"order": {"item": "tea", "count": 2}}}], {"order": Order("tea", 2)}),
        (point, [{"data": {"p": {"x": 1, "y": 2}}}], {"p": Point(1.0, 2.0), "unit": "m"}),
        (listed, [said('{"items": ["a"]}')], {"items": ["a"], "tags": {}}),
        (maybe_text, [said("hello")], {"text": "hello"}),
        (maybe_text, [], {"text": None}),
        (untyped, [{"data": {"a": "1", "b": "2"}}], {"a": "1", "b": "2"}),
    ],
)
def test_parts_become_arguments(function: Any, parts: list[dict[str, Any]], expected: dict[str, Any]) -> None:
    assert arguments(function, *parts) == expected


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        (two, [said("1+1")]),
        (two, [said("[1, 2]")]),
        (two, [said("")]),
        (two, [{"data": {"a": 1, "c": 3}}]),
        (two, [{"data": {"a": "one"}}]),
        (two, [said("[" * 100_000)]),
        (one_number, [said("five")]),
        (point, [{"data": {"p": {"x": 1, "y": 2}, "unit": "mile"}}]),
    ],
)
def test_what_does_not_fit_is_refused_with_what_is_expected(function: Any, parts: list[dict[str, Any]]) -> None:
    with pytest.raises(AgentFailed) as caught:
        arguments(function, *parts)
    assert caught.value.code == "agent.bad_input"
    assert "expected {" in caught.value.detail
    assert caught.value.hint


def test_a_mutable_default_is_not_shared_between_calls() -> None:
    first = arguments(listed, said('{"items": []}'))["tags"]
    first["x"] = 1
    assert arguments(listed, said('{"items": []}'))["tags"] == {}


def test_the_context_is_not_asked_of_the_caller() -> None:
    signature = Signature(with_context, Context)
    assert signature.names == ["text"]
    assert signature.context_names == ["ctx"]


@pytest.mark.parametrize("function", [positional, rest, uncarried])
def test_functions_that_json_cannot_call_are_refused_when_defined(function: Any) -> None:
    with pytest.raises(UsageError) as caught:
        Signature(function, Context)
    assert caught.value.code == "agent.bad_function"


def test_the_description_is_the_first_paragraph_or_the_name() -> None:
    def greet_person() -> None:
        """Greets
        a person.

        Not this.
        """

    assert describe(greet_person) == "Greets a person."
    assert describe(two) == "Two."
