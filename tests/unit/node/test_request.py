"""What a call may say about itself before it starts, whatever door it came through (docs/spec/tokens.md §2)."""

from __future__ import annotations

import pytest

from agentmesh.errors import UsageError
from agentmesh.node.request import parts_of
from agentmesh.wire.views import CallRequest


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("run_id", "", "call.bad_id"),
        ("run_id", "two words", "call.bad_id"),
        ("run_id", "line\nbreak", "call.bad_id"),
        ("task_id", "zażółć", "call.bad_id"),
        ("task_id", "t" * 129, "call.bad_id"),
        ("context_id", "c" * 129, "call.bad_id"),
        ("purpose", "one line\nand another", "call.bad_purpose"),
        ("purpose", "p" * 513, "call.bad_purpose"),
        ("skill", "esc\x1b[2J", "call.bad_skill"),
        ("skill", "s" * 513, "call.bad_skill"),
        ("lamport", -1, "call.bad_id"),
    ],
)
def test_what_no_token_or_header_could_carry_is_refused_by_name(field: str, value: str | int, code: str) -> None:
    request = CallRequest(to="echo", text="hello")
    setattr(request, field, value)
    with pytest.raises(UsageError) as error:
        parts_of(request)
    assert error.value.code == code


def test_ids_of_other_programs_and_words_of_any_language_are_taken() -> None:
    request = CallRequest(
        to="echo", text="hello", run_id="a/b?c=%20", task_id="{7}", context_id="два слова", purpose="为了测试"
    )
    assert parts_of(request) == [{"text": "hello"}]
