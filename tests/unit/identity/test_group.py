"""Statements of groups: signed by their owner, numbered, bounded, refused when anything is odd."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import DecodeError, LimitError, MeshError, SignatureError, UsageError
from agentmesh.identity.group import CONTEXT, MEMBERS_MAX, group_id, read_group, sign_group
from agentmesh.identity.statement import STATEMENT_BYTES_MAX, sign_statement
from tests.support.records import EPOCH, key

OWNER, OTHER = key(1), key(2)
MEMBERS = (key(3).public, key(4).public)


def signed(**over: Any) -> bytes:
    parts: dict[str, Any] = {"name": "team", "epoch": 1, "iat": EPOCH, "members": MEMBERS}
    return sign_group(over.pop("key", OWNER), **{**parts, **over})


def refusal(call: Any, *args: Any, **over: Any) -> tuple[type[MeshError], str]:
    with pytest.raises(MeshError) as caught:
        call(*args, **over)
    return type(caught.value), caught.value.code


def test_a_statement_says_who_made_the_group_and_who_is_in_it() -> None:
    group = read_group(signed(epoch=7))
    assert (group.owner, group.name, group.epoch, group.members) == (OWNER.did, "team", 7, MEMBERS)
    assert group.id == group_id(OWNER.did, "TEAM")
    assert read_group(signed(key=OTHER)).id != group.id, "each owner has names of its own"
    assert read_group(signed(members=())).members == ()


def test_the_largest_group_fits_one_statement_and_a_larger_one_is_refused() -> None:
    members = tuple(n.to_bytes(32, "big") for n in range(MEMBERS_MAX + 1))
    raw = signed(name="团" * 64, members=members[:-1], epoch=0xFFFF_FFFF)
    assert len(raw) <= STATEMENT_BYTES_MAX
    assert read_group(raw).members == members[:-1]
    assert refusal(signed, members=members) == (LimitError, "group.too_large")


@pytest.mark.parametrize(
    "over",
    [{"name": "a b"}, {"name": ""}, {"epoch": 0}, {"epoch": 1 << 32}, {"iat": 0}, {"members": (b"short",)}],
    ids=str,
)
def test_what_nobody_may_sign_is_neither_signed_nor_read(over: dict[str, Any]) -> None:
    assert refusal(signed, **over)[0] is UsageError
    parts: dict[str, Any] = {"name": "team", "epoch": 1, "iat": EPOCH, "members": MEMBERS, **over}
    raw = sign_statement(OWNER, CONTEXT, msgspec.msgpack.encode(list(parts.values())))
    assert refusal(read_group, raw)[0] is DecodeError


def test_a_member_named_twice_is_refused() -> None:
    assert refusal(signed, members=(*MEMBERS, MEMBERS[0])) == (UsageError, "group.malformed")


@given(st.data())
def test_a_statement_altered_in_any_byte_is_refused(data: st.DataObject) -> None:
    raw = bytearray(signed())
    raw[data.draw(st.integers(0, len(raw) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises((DecodeError, SignatureError)):
        read_group(bytes(raw))


@given(st.binary(max_size=200))
def test_garbage_is_no_statement(raw: bytes) -> None:
    with pytest.raises((DecodeError, SignatureError)):
        read_group(raw)


def test_what_was_signed_for_something_else_is_no_group() -> None:
    raw = sign_statement(OWNER, b"node", msgspec.msgpack.encode(["team", 1, EPOCH, list(MEMBERS)]))
    assert refusal(read_group, raw) == (SignatureError, "signature.invalid")
