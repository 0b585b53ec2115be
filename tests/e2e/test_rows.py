"""One read model: the API, the SDK and the CLI of a real daemon tell the same list, count and digest of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentmesh.errors import RecordNotFound
from agentmesh.sdk.sync import SyncMesh
from agentmesh.wire.event import KINDS, EventV1, digest, order_key
from agentmesh.wire.rows import label
from tests.support.daemons import Daemon, Mesh

pytestmark = pytest.mark.e2e

HOSTILE = ["<script>alert(1)</script>", "a\u202eb\u2066c", "two\nlines\x1b[31m", "é" * 400, "字" * 200, "\U0001f600"]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemon]:
    mesh = Mesh(tmp_path_factory.mktemp("rows"))
    try:
        yield mesh.node("rows")
    finally:
        mesh.aclose()


@pytest.fixture(scope="module")
def sdk(node: Daemon) -> Iterator[SyncMesh]:
    with SyncMesh(home=node.home.path) as mesh:
        yield mesh


@st.composite
def traces(draw: st.DrawFn) -> list[list[EventV1]]:
    """Runs of several nodes, with ties, clocks that jump and copies that come again, in batches."""
    run_id = f"{draw(st.integers(1, 2**127)):032x}"
    ids = st.integers(0, 30).map(lambda n: f"{run_id[:16]}{n:016x}")
    event = st.builds(
        EventV1,
        id=ids,
        ts=st.sampled_from([0, 1_700_000_000_000_000, 1_800_000_000_000_000]),
        kind=st.sampled_from(KINDS),  # pyright: ignore[reportArgumentType]
        run_id=st.just(run_id),
        task_id=st.sampled_from([f"{run_id[:30]}t1", f"{run_id[:30]}t2", None]),
        node_id=st.sampled_from(["", "did:key:other"]),
        agent=st.sampled_from(["Calc", "echo", *HOSTILE[:2], None]),
        lamport=st.integers(0, 3),
        payload=st.fixed_dictionaries(
            {"text": st.sampled_from(HOSTILE), "state": st.sampled_from(["working", "failed"])}
        ),
    )
    return draw(st.lists(st.lists(event, min_size=1, max_size=12), min_size=1, max_size=3))


@given(traces())
@settings(
    max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
def test_api_sdk_and_cli_tell_the_same_list_count_and_digest(
    node: Daemon, sdk: SyncMesh, batches: list[list[EventV1]]
) -> None:
    ref = batches[0][0].run_id
    held: list[int] = []
    after = 0
    for batch in batches:
        sdk.store_events(batch)
        came = sdk.rows(ref, remote=False, after=after)
        for place, seq in zip(came.rows.position, came.rows.seq, strict=True):
            held.insert(place, seq)
        after = came.upto
    view = node.get(f"/api/v1/runs/{ref}/events?remote=false")
    rows = node.get(f"/api/v1/runs/{ref}/rows?remote=false")
    seqs = [event["seq"] for event in view["events"]]
    assert held == seqs == rows["rows"]["seq"]
    assert rows["rows"]["position"] == list(range(len(seqs)))
    traced = sdk.trace(ref, remote=False)
    assert traced.events == sorted(traced.events, key=order_key)
    assert rows["digest"] == view["digest"] == digest(traced.events)
    assert rows["count"] == view["count"] == rows["matching"] == len(seqs)
    assert rows["rows"]["label"] == [label(event) for event in traced.events]
    assert [rows["tasks"][at]["task_id"] if at >= 0 else None for at in rows["rows"]["task"]] == [
        event.task_id for event in traced.events
    ]
    printed = node.cli("trace", ref, "--rows", "--local", "--json").json()
    assert printed == rows
    text = node.cli("trace", ref, "--rows", "--local").out.splitlines()
    assert text[-1] == node.cli("trace", ref, "--local").out.splitlines()[-1]
    assert text[-1] == f"{rows['count']} events · digest {rows['digest']}"
    assert len(text) == len(seqs) + 1


def made(run: str, number: int, **fields: Any) -> EventV1:
    return EventV1(**{
        "id": f"{run[:16]}{number:016x}", "ts": 1_700_000_000_000_000 + number * 1_000_000, "kind": "message",
        "run_id": run, "task_id": run[::-1], "agent": "calc", "lamport": number, **fields,
    })  # fmt: skip


def test_filters_mean_the_same_in_api_and_cli_and_pages_go_on_where_they_ended(node: Daemon, sdk: SyncMesh) -> None:
    run = "5eed" * 8
    events = [made(run, n, kind="tool" if n % 3 else "error", agent="Calc" if n % 2 else "echo") for n in range(40)]
    sdk.store_events(events)
    for flags, query in (
        (["--kind", "tool,error", "--agent", "CALC"], "kind=tool,error&agent=CALC"),
        (["--kind", "error"], "kind=error"),
        (
            ["--since", "1700000010000000", "--until", "2023-11-14T22:13:50"],
            "since=1700000010000000&until=1700000030000000",
        ),
        (["--task", run[::-1], "--limit", "7"], f"task={run[::-1]}&limit=7"),
        (["--agent", "nobody"], "agent=nobody"),
    ):
        printed = node.cli("trace", run, "--local", "--json", *flags).json()
        assert printed == node.get(f"/api/v1/runs/{run}/rows?remote=false&{query}")
        assert printed["count"] == 40
    pages: list[int] = []
    while True:
        page = sdk.rows(run, remote=False, kind="tool", start=len(pages), limit=5)
        assert page.rows.index == list(range(len(pages), len(pages) + len(page.rows.seq)))
        pages += page.rows.seq
        if not page.more:
            break
    assert len(pages) == page.matching == sum(event.kind == "tool" for event in events)
    assert "7 of 40 rows that fit" in node.cli("trace", run, "--limit", "7", "--local").out
    assert node.cli("trace", run, "--kind", "nix").code == 2
    assert node.cli("trace", run, "--since", "whenever").code == 2
    assert node.cli("trace", run, "--rows", "-f").code == 2


def test_one_event_is_told_whole_and_an_unknown_one_is_not_found(node: Daemon, sdk: SyncMesh) -> None:
    run = "cafe" * 8
    stored = sdk.store_events([made(run, 1, payload={"parts": [{"text": "x" * 1_000_000}]})])
    rows = sdk.rows(run, remote=False)
    assert [len(text) for text in rows.rows.label] == [160]
    assert rows.rows.bytes[0] > 1_000_000
    one = sdk.event(rows.rows.seq[0])
    assert (one.run_id, len(one.payload["parts"][0]["text"])) == (run, 1_000_000)
    with pytest.raises(RecordNotFound):
        sdk.event(stored.last_seq + 1_000)
    for bad in ("0", "-1", "x", "9" * 30, "1.5"):
        status, problem = node.ask("GET", f"/api/v1/events/{bad}")
        assert (status, problem["code"]) == (404, "not_found.record"), bad


def test_runs_are_listed_by_agent_state_kind_and_time_with_their_number(node: Daemon, sdk: SyncMesh) -> None:
    """All three doors give the same list; pages go on where the last one ended."""
    begin = 1_600_000_000_000_000
    runs = [f"{n:02x}" * 16 for n in range(160, 172)]
    for n, run in enumerate(runs):
        at, end = begin + n * 60_000_000, {"state": "failed" if n % 2 else "completed"}
        sdk.store_events([
            made(run, 1, kind="status", agent=f"Lister{n % 3}", ts=at, payload={"state": "submitted"}),
            made(run, 2, kind="tool" if n % 4 else "error", agent=f"Lister{n % 3}", ts=at + 5),
            made(run, 3, kind="status", agent="common-lister", task_id=f"{n}-other", ts=at + 9, payload=end),
        ])  # fmt: skip
    newest = list(reversed(runs))
    everyone = sdk.find_runs(agent="COMMON-lister")
    assert ([run.run_id for run in everyone.runs], everyone.total, everyone.next) == (newest, 12, 0)
    first = everyone.runs[0]
    assert (first.count, first.tasks, first.agents, first.state) == (3, 2, ["common-lister", "Lister2"], "failed")
    for flags, query, expected in (
        (["--agent", "lister1"], "agent=lister1", newest[1::3]),
        (["--agent", "common-lister", "--state", "failed"], "agent=common-lister&state=failed", newest[::2]),
        (["--agent", "common-lister", "--kind", "error"], "agent=common-lister&kind=error", newest[3::4]),
        (
            ["--agent", "common-lister", "--since", "2020-09-13T12:28:40", "--until", str(begin + 4 * 60_000_000)],
            f"agent=common-lister&since={begin + 2 * 60_000_000}&until={begin + 4 * 60_000_000}",
            newest[7:10],
        ),
        (["--agent", "common-lister", "--limit", "5"], "agent=common-lister&limit=5", newest[:5]),
    ):
        limit = "" if "limit" in query else "&limit=20"
        listed = node.get(f"/api/v1/runs?{query}{limit}")
        assert [run["run_id"] for run in listed["runs"]] == expected, query
        assert node.cli("trace", "--list", "--json", *flags).json() == listed
    seen: list[str] = []
    before = 0
    while True:
        page = sdk.find_runs(5, agent="common-lister", before=before)
        assert page.total == 12
        seen += [run.run_id for run in page.runs]
        before = page.next
        if not before:
            break
    assert seen == newest
    shown = node.cli("trace", "--list", "--agent", "common-lister", "--limit", "3")
    assert f"run_{newest[0][:8]}" in shown.out
    assert "3 of 12 runs" in shown.err
    assert json.loads(node.cli("trace", "--list", "--agent", "nobody-at-all", "--json").out)["total"] == 0
    assert "no run fits" in (nobody := node.cli("trace", "--list", "--agent", "nobody-at-all")).out + nobody.err
