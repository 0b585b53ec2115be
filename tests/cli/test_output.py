"""Text on a terminal: widths, clipping, hostile characters, tables, and a run as lines."""

from __future__ import annotations

import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.cli.checks import redact
from agentmesh.cli.output import Output, age, cells, clip, pad, printable
from agentmesh.cli.timeline import Timeline, describe
from agentmesh.wire.event import EventV1
from agentmesh.wire.views import TraceView


def output(**flags: bool) -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Output(stdout=out, stderr=err, **flags), out, err


@given(st.text(max_size=60), st.integers(1, 40))
def test_a_clipped_text_fits_and_holds_nothing_that_moves_the_cursor(text: str, width: int) -> None:
    shown = clip(text, width)
    assert cells(shown) <= max(width, 1)
    assert all(char.isprintable() for char in shown)
    assert cells(pad(shown, width)) >= width or cells(shown) >= width


@given(st.text(max_size=60))
def test_text_from_afar_cannot_control_the_terminal(text: str) -> None:
    assert all(char.isprintable() or char in "\n\t" for char in printable(text))
    assert "\x1b" not in printable("\x1b]0;title\x07 \x1b[2J")


def test_a_table_is_aligned_by_what_a_terminal_shows() -> None:
    out, stdout, _ = output()
    out.table(["NAME", "X"], [["计算", "1"], ["abcdef", ("2", "ok")]])
    assert stdout.getvalue() == "NAME    X\n计算    1\nabcdef  2\n"


def test_quiet_and_json_keep_hints_away() -> None:
    for flags in ({"quiet": True}, {"json": True}):
        out, stdout, stderr = output(**flags)
        out.note("a")
        out.next("b")
        assert (stdout.getvalue(), stderr.getvalue()) == ("", "")


def test_nobody_is_asked_without_a_terminal() -> None:
    assert output()[0].confirm("really?") is False
    assert output(yes=True)[0].confirm("really?") is True


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (59, "59 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d")]
)
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    assert age(seconds) == text


def event(number: int, kind: str, payload: dict[str, object], task: str = "t1", parent: str | None = None) -> EventV1:
    return EventV1(
        id=f"{number:032x}",
        ts=1_000_000 + number * 1000,
        kind=kind,  # pyright: ignore[reportArgumentType]
        run_id="r1",
        task_id=task,
        parent_task_id=parent,
        node_id="did:key:zA",
        agent="calc" if task == "t1" else "echo",
        lamport=number,
        payload=payload,
    )


STORY = [
    event(0, "status", {"state": "submitted", "from": "anna", "input": [{"text": "1+1"}]}),
    event(1, "tool", {"name": "add", "args": {"a": 1, "b": 1}, "result": 2}),
    event(2, "status", {"state": "submitted", "from": "calc", "input": [{"text": "2"}]}, "t2", "t1"),
    event(3, "message", {"role": "agent", "parts": [{"text": "2\x1b[31m\nlines"}]}, "t2", "t1"),
    event(4, "status", {"state": "completed"}, "t2", "t1"),
    event(5, "artifact", {"artifact_id": "sum", "parts": [{"data": {"n": 2}}]}),
    event(6, "reasoning", {"text": "easy"}),
    event(7, "error", {"code": "agent.failed", "message": "tired"}),
    event(8, "status", {"state": "failed", "detail": "tired"}),
]
VIEW = TraceView(run_id="r1", count=9, digest="d", events=STORY, nodes={"did:key:zA": "anna"})


def test_a_run_is_shown_line_by_line_in_order() -> None:
    out, stdout, _ = output()
    timeline = Timeline(out)
    timeline.add(VIEW)
    timeline.add(VIEW)
    assert timeline.ended
    lines = [" ".join(line.split()) for line in stdout.getvalue().splitlines()]
    assert lines == [
        "+0.000 anna status you → calc submitted: 1+1",
        "+0.001 anna tool calc add(a=1, b=1) → 2",
        "+0.002 anna status calc → echo submitted: 2",
        '+0.003 anna message echo → calc "2·[31m␤lines"',
        "+0.004 anna status echo completed",
        '+0.005 anna artifact calc sum: {"n":2}',
        "+0.006 anna reasoning calc easy",
        "+0.007 anna error calc agent.failed: tired",
        "+0.008 anna status calc failed: tired",
    ]


def test_a_run_has_ended_only_when_every_task_has() -> None:
    timeline = Timeline(output()[0])
    assert not timeline.ended
    for one in STORY[:8]:
        timeline.event(one)
        assert not timeline.ended
    timeline.event(STORY[8])
    assert timeline.ended


@given(
    st.sampled_from(["status", "message", "artifact", "tool", "reasoning", "error"]),
    st.dictionaries(
        st.sampled_from(
            ["state", "text", "parts", "args", "name", "result", "message", "code", "detail", "input", "role"]
        ),
        st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x, max_size=2), max_leaves=4),
    ),
)
def test_any_payload_can_be_described(kind: str, payload: dict[str, object]) -> None:
    assert isinstance(describe(event(0, kind, payload)), str)
    out, stdout, _ = output()
    Timeline(out).event(event(0, kind, payload))
    assert stdout.getvalue().count("\n") == 1


def test_json_follow_prints_events_one_per_line() -> None:
    out, stdout, _ = output(json=True)
    timeline = Timeline(out)
    timeline.event(STORY[0])
    assert msgspec.json.decode(stdout.getvalue(), type=EventV1) == STORY[0]


def test_a_report_for_strangers_names_no_node_home_or_address() -> None:
    did = "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK"
    from pathlib import Path

    shown = redact(f"{did} {Path.home()}/x 192.0.2.7:6374 127.0.0.1:6374")
    assert did not in shown
    assert str(Path.home()) not in shown
    assert "192.0.2.7" not in shown
    assert "127.0.0.1:6374" in shown
