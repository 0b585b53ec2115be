"""The error tree and its one table: HTTP status, exit code, wire name of every leaf."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh import errors
from agentmesh.errors import ERROR_TABLE, AgentFailed, AgentNotFound, Busy, MeshError, from_wire, row_of, to_wire

#: Published in docs/reference/cli.md and relied on by scripts.
EXIT_CODES = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 130}


def tree(cls: type[MeshError] = MeshError) -> list[type[MeshError]]:
    """Return every error class that the module defines."""
    return [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, cls)]


def leaves() -> list[type[MeshError]]:
    return [c for c in tree() if not any(issubclass(d, c) and d is not c for d in tree())]


def test_every_leaf_is_in_the_table() -> None:
    assert [c.__name__ for c in leaves() if c not in ERROR_TABLE] == []


def test_every_class_is_drawn_in_the_docstring() -> None:
    drawn = set(re.findall(r"^[ │├└─]*([A-Z]\w+)", errors.__doc__ or "", flags=re.MULTILINE))
    assert {c.__name__ for c in tree()} <= drawn


def test_wire_names_are_unique_and_short() -> None:
    names = [row.wire for row in ERROR_TABLE.values()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z_]{2,20}", name) for name in names)


def test_codes_are_unique_and_dotted() -> None:
    codes = [c.code for c in tree()]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*(\.[a-z_]+)*", code) for code in codes)


def test_table_uses_published_exit_codes_and_error_statuses() -> None:
    for cls, row in ERROR_TABLE.items():
        assert row.exit in EXIT_CODES - {0, 130}, cls
        assert 400 <= row.http <= 599, cls


def test_a_subclass_without_a_row_takes_its_nearest_ancestors() -> None:
    class Special(errors.NoRoute):
        code = "unreached.special"

    assert row_of(Special("x")) == ERROR_TABLE[errors.NoRoute]
    assert row_of(MeshError("x")).http == 500


@pytest.mark.parametrize("cls", sorted(ERROR_TABLE, key=lambda c: c.__name__))
def test_every_error_survives_the_wire(cls: type[MeshError]) -> None:
    error = cls("what happened", code="some.code", why="the cause", hint="agentmesh doctor", extra={"n": [1, 2]})
    back = from_wire(to_wire(error))
    assert type(back) is cls
    assert (back.code, back.detail, back.why, back.hint) == (error.code, error.detail, error.why, error.hint)
    assert back.extra["n"] == [1, 2]


def test_busy_keeps_when_to_try_again() -> None:
    back = from_wire(to_wire(Busy("later", retry_after_s=7.5)))
    assert isinstance(back, Busy)
    assert back.retry_after_s == 7.5


def test_near_names_are_offered_when_an_agent_is_unknown() -> None:
    error = AgentNotFound.near("clac", ["calc", "echo", "reviewer"])
    assert error.extra["did_you_mean"] == ["calc"]
    assert "calc" in (error.hint or "")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=50),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=10), inner, max_size=5),
    max_leaves=20,
)


@given(
    st.dictionaries(
        st.sampled_from(["type", "code", "message", "why", "hint", "retry_after_s", "did_you_mean"])
        | st.text(max_size=20),
        json_values,
        max_size=10,
    )
)
def test_no_body_from_a_peer_can_break_the_decoder(body: dict[str, Any]) -> None:
    error = from_wire(body)
    assert isinstance(error, MeshError)
    assert isinstance(error.detail, str)
    assert isinstance(error.to_dict(), dict)
    assert type(from_wire(to_wire(error))) in {type(error), AgentFailed}


def test_overlong_members_from_a_peer_are_cut() -> None:
    body = {"type": "busy", "message": "m" * 10**6, "code": "c" * 10**4, "why": "w" * 10**5, "hint": "h" * 10**5}
    error = from_wire(body | {f"k{n}": n for n in range(1000)})
    assert len(error.detail) <= 4000
    assert len(error.code) <= 100
    assert len(error.why or "") <= 1000
    assert len(error.hint or "") <= 1000
    assert len(error.extra) <= 33


@pytest.mark.parametrize("value", ["soon", None, [], {}, float("nan"), -5])
def test_busy_from_a_hostile_peer_still_answers_when(value: object) -> None:
    error = from_wire({"type": "busy", "message": "no", "retry_after_s": value})
    assert isinstance(error, Busy)
    assert 0 <= error.retry_after_s < float("inf")
