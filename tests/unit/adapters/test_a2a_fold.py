"""Folding the events of one A2A task, in every spelling met so far."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.adapters.a2a_fold import TaskFold
from agentmesh.errors import AgentFailed, LimitError
from agentmesh.node.door import Happening
from agentmesh.wire.event import TERMINAL_STATES, EventV1
from agentmesh.wire.views import reply_from_events


def fold(*results: dict[str, Any]) -> list[Happening]:
    task = TaskFold()
    return [happening for result in results for happening in task.feed(result)]


def text(happenings: list[Happening]) -> str:
    return reply_from_events(
        [EventV1(id=str(n), ts=0, kind=h.kind, run_id="r", payload=h.payload) for n, h in enumerate(happenings)]
    )[0]


def status(state: str, said: str = "", message_id: str = "m") -> dict[str, Any]:
    body: dict[str, Any] = {"state": state, "timestamp": "2026-11-21T00:00:00"}
    if said:
        body["message"] = {"role": "ROLE_AGENT", "messageId": message_id, "parts": [{"text": said}]}
    return {"statusUpdate": {"taskId": "t", "contextId": "c", "status": body}}


def artifact(said: str, *, append: bool = False, key: str = "a") -> dict[str, Any]:
    return {
        "artifactUpdate": {"taskId": "t", "append": append, "artifact": {"artifactId": key, "parts": [{"text": said}]}}
    }


def test_a_message_alone_is_the_whole_answer() -> None:
    happenings = fold({"message": {"role": "ROLE_AGENT", "parts": [{"text": "hi"}]}}, status("TASK_STATE_WORKING"))
    assert [h.kind for h in happenings] == ["message", "status"]
    assert text(happenings) == "hi"


def test_appended_pieces_concatenate_and_a_replacement_replaces() -> None:
    pieces = [artifact("a"), artifact("b", append=True), artifact("ab")]
    assert text(fold(*pieces, status("TASK_STATE_COMPLETED"))) == "ab"
    assert text(fold(*pieces[:2], status("TASK_STATE_COMPLETED"))) == "ab"


def test_a_completion_message_that_repeats_the_artifact_counts_once() -> None:
    assert text(fold(artifact("42"), status("TASK_STATE_COMPLETED", "42"))) == "42"


def test_a_completion_remark_beside_an_artifact_is_no_answer() -> None:
    happenings = fold(artifact("42"), status("TASK_STATE_COMPLETED", "All done!"))
    assert text(happenings) == "42"
    assert any(h.payload.get("text") == "All done!" for h in happenings)


def test_progress_messages_are_status_and_the_answer_stands_alone() -> None:
    happenings = fold(status("TASK_STATE_WORKING", "thinking"), artifact("42"), status("TASK_STATE_COMPLETED"))
    assert text(happenings) == "42"
    assert happenings[0] == Happening(
        "status", {"state": "working", "text": "thinking", "parts": [{"text": "thinking"}]}
    )


@pytest.mark.parametrize(
    ("updates", "answer"),
    [
        ([("Looking", "1"), ("The answer is 42", "2")], "The answer is 42"),
        ([("4", "1"), ("42", "1"), ("42!", "1")], "42!"),
        ([("for", "1"), ("ty-two", "1")], "forty-two"),
    ],
)
def test_an_agent_that_only_ever_reports_progress_has_answered_by_it(
    updates: list[tuple[str, str]], answer: str
) -> None:
    assert text(fold(*(status("working", *u) for u in updates), status("completed"))) == answer


def test_a_snapshot_repeats_nothing_and_the_history_is_the_last_resort() -> None:
    snapshot = {
        "id": "t",
        "contextId": "c",
        "status": {"state": "TASK_STATE_COMPLETED"},
        "artifacts": [{"artifactId": "a", "parts": [{"text": "42"}]}],
    }
    happenings = fold(artifact("42"), {"task": snapshot})
    assert [h.kind for h in happenings] == ["artifact", "status"]
    bare = {
        "kind": "task",
        "id": "t",
        "status": {"state": "completed"},
        "history": [
            {"role": "agent", "parts": [{"kind": "text", "text": "old"}]},
            {"role": "user", "parts": [{"kind": "text", "text": "ask"}]},
            {"role": "agent", "parts": [{"kind": "text", "text": "new"}]},
        ],
    }
    assert text(fold(bare)) == "new"


def test_old_spellings_are_read() -> None:
    parts = [{"kind": "data", "data": {"n": 1}}, {"kind": "file", "file": {"uri": "http://h/x", "mimeType": "a/b"}}]
    happenings = fold(
        {"kind": "task", "id": "t", "contextId": "c", "status": {"state": "submitted"}},
        {"kind": "artifact-update", "taskId": "t", "artifact": {"artifactId": "a", "parts": parts}},
        {"kind": "status-update", "taskId": "t", "status": {"state": "completed"}, "final": True},
    )
    assert happenings[1].payload["parts"] == [{"data": {"n": 1}}, {"url": "http://h/x", "mediaType": "a/b"}]
    assert happenings[-1] == Happening("status", {"state": "completed", "context_id": "c"})


@pytest.mark.parametrize("state", ["TASK_STATE_FAILED", "failed"])
def test_a_failure_is_raised_with_the_agents_own_words(state: str) -> None:
    with pytest.raises(AgentFailed, match="no flour") as caught:
        fold(status(state, "no flour"))
    assert caught.value.code == "agent.failed"


def test_a_rejection_and_a_wordless_failure_say_what_they_are() -> None:
    with pytest.raises(AgentFailed) as caught:
        fold(status("TASK_STATE_REJECTED", "not my job"))
    assert caught.value.code == "agent.rejected"
    with pytest.raises(AgentFailed, match="without saying why"):
        fold(status("TASK_STATE_FAILED"))


@pytest.mark.parametrize("state", ["TASK_STATE_INPUT_REQUIRED", "input-required", "TASK_STATE_AUTH_REQUIRED"])
def test_a_question_ends_the_invocation_as_input_required(state: str) -> None:
    happenings = fold(status(state, "which one?"), status("TASK_STATE_COMPLETED"))
    assert text(happenings) == "which one?"
    assert happenings[-1].payload["state"] == "input-required"
    assert (happenings[-1].payload.get("reason") == "auth-required") == ("AUTH" in state)


def test_too_many_artifacts_are_refused() -> None:
    with pytest.raises(LimitError):
        fold(*(artifact("x", key=str(n)) for n in range(1001)))


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["kind", "task", "message", "statusUpdate", "artifactUpdate", "status", "state", "parts", "artifact",
                         "artifacts", "history", "id", "taskId", "text", "data", "file", "role", "append"])  # fmt: skip
shaped = st.dictionaries(
    names,
    json_like
    | st.dictionaries(names, json_like, max_size=5)
    | st.sampled_from(["task", "message", "status-update", "completed", "working"]),
    max_size=6,
)


@given(st.lists(shaped, max_size=6))
def test_no_input_breaks_the_fold_and_there_is_at_most_one_end(results: list[dict[str, Any]]) -> None:
    task = TaskFold()
    ends = 0
    for result in results:
        try:
            happenings = task.feed(result)
        except AgentFailed:
            assert task.ended
            ends += 1
            continue
        ends += sum(
            h.kind == "status" and (h.payload["state"] in TERMINAL_STATES or h.payload["state"] == "input-required")
            for h in happenings
        )
    assert ends <= 1


def test_what_would_undo_the_work_is_passed_on_once() -> None:
    undo = {"skill": "cancel_order", "arguments": {"order": "4711"}}
    said = {"metadata": {"https://agentmesh.dev/ext/mesh/v1": {"undo": undo}, "other": 1}}
    artifact = {"artifactId": "a", "parts": [{"text": "ordered"}], **said}
    message = {"role": "ROLE_AGENT", "messageId": "m", "parts": [{"text": "on it"}], **said}
    task = {"id": "t", "status": {"state": "TASK_STATE_WORKING", "message": message}, "artifacts": [artifact]}
    fold = TaskFold()
    told = [h for _ in range(2) for h in fold.feed({"task": task})]
    assert [h.payload["undo"] for h in told if "undo" in h.payload] == [undo]
    other = {**message, "messageId": "n", "metadata": {"https://agentmesh.dev/ext/mesh/v1": {"undo": {"skill": "x"}}}}
    more = fold.feed({"task": {**task, "status": {"state": "TASK_STATE_COMPLETED", "message": other}}})
    assert more[0].payload["undo"] == {"skill": "x"}
    assert fold.ended
    for metadata in (7, {"https://agentmesh.dev/ext/mesh/v1": 7}, {"https://agentmesh.dev/ext/mesh/v1": {"undo": "x"}}):
        hostile = {
            "id": "t",
            "status": {"state": "TASK_STATE_WORKING"},
            "artifacts": [{**artifact, "metadata": metadata}],
        }
        assert not any("undo" in h.payload for h in TaskFold().feed({"task": hostile}))


def test_what_the_agent_says_it_used_is_told_once_and_before_the_end() -> None:
    fold = TaskFold()
    update = {"taskId": "t", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}
    update["metadata"] = {"https://agentmesh.dev/ext/mesh/v1": {"usage": {"tokens": 5}}}
    first = fold.feed({"statusUpdate": update})
    assert first[0].payload == {"state": "working", "usage": {"tokens": 5}}
    assert not any("usage" in h.payload for h in fold.feed({"statusUpdate": update}))
    done = {**update, "status": {"state": "TASK_STATE_COMPLETED"}}
    done["metadata"] = {"https://agentmesh.dev/ext/mesh/v1": {"usage": {"tokens": 9}}}
    assert [h.payload.get("usage") for h in fold.feed({"statusUpdate": done})] == [{"tokens": 9}, None]
