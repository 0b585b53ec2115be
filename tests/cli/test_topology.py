"""What ``agentmesh topology`` prints: tables, the line to compare, what is missing, figures; hostile names, Chinese, JSON."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agentmesh.cli.commands.topology import seconds_of
from agentmesh.cli.main import main
from agentmesh.errors import UsageError
from agentmesh.wire.topology_views import (
    EdgeView,
    FailingAgent,
    MachineView,
    MinuteView,
    ReasonView,
    StatsView,
    TopologyAgent,
    TopologyView,
)

ME, ANNA, ECHO = "did:key:z6MkMe", "did:key:z6MkAnna", "did:key:z6MkEcho"


def whole() -> TopologyView:
    return TopologyView(
        node_id=ME, window_s=300, covered_s=312.0, count=5, digest="9c1f-77e0", calls=12, edges_more=4,
        machines=[
            MachineView(node_id=ME, name="me", own=True, state="alive", sources=["own"], path="local", agents=1),
            MachineView(
                node_id=ANNA, name="\x1b[31manna", state="alive", sources=["mdns", "wan"], path="relayed", rtt_ms=31.25
            ),
        ],
        agents=[TopologyAgent(agent_id=ECHO, name="echo", node_id=ANNA, kind="mesh", health="healthy", trust_score=0.5)],
        edges=[
            EdgeView(
                caller=ME, caller_kind="you", caller_name="me", caller_node=ME, callee=ECHO, callee_name="echo",
                callee_node=ANNA, calls=11, failures=2, per_minute=2.1, p50_ms=12.5, p99_ms=12_500.0, path="relayed",
            ),
            EdgeView(
                caller=ANNA, caller_kind="node", caller_name="anna", caller_node=ANNA, callee=ECHO, callee_name="echo",
                callee_node=ANNA, calls=1,
            ),
        ],
    )  # fmt: skip


class FakeMesh:
    """The node behind the command."""

    def __init__(self) -> None:
        self.view = whole()
        self.asked: dict[str, Any] = {}

    def topology(self, **asked: Any) -> TopologyView:
        self.asked = asked
        return self.view

    def stats(self) -> StatsView:
        return StatsView(
            agents=3, agents_local=2, machines=2, machines_alive=1, calls_per_minute=4.0, runs_per_minute=2.0,
            hour=MinuteView(calls=7, failures=1), refusals=[ReasonView(code="policy.denied", count=3)],
            failing=[FailingAgent(agent_id=ECHO, name="echo", node_id=ME, node_name="me", detail="connection refused")],
        )  # fmt: skip


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> FakeMesh:
    """A node that answers every command of this process."""
    fake = FakeMesh()

    @contextlib.contextmanager
    def connect(_out: object) -> Iterator[FakeMesh]:
        yield fake

    monkeypatch.setattr("agentmesh.cli.connect.connect", connect)
    return fake


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[str, str]]:
    """Run a command line that must succeed; return what it said on stdout and stderr."""

    def run(*args: str) -> tuple[str, str]:
        assert main(list(args)) == 0
        said = capsys.readouterr()
        return said.out, said.err

    return run


def test_machines_agents_and_edges_are_tables_with_the_line_to_compare(
    node: FakeMesh, say: Callable[..., tuple[str, str]]
) -> None:
    out, err = say("topology", "--window", "10m", "--source", "mdns", "--zone", "eu/01")
    assert node.asked == {"window_s": 600, "source": "mdns", "zone": "eu/01"}
    lines = out.splitlines()
    assert lines[-1] == "2 machines · 1 agents · 2 edges · 12 calls in 5 min · digest 9c1f-77e0"
    edge = next(line for line in lines if line.startswith("you"))
    assert edge.split() == ["you", "echo@·[31manna", "11", "2", "2.1", "12.5", "ms", "12.5", "s", "relayed", "0", "0"]
    assert any(line.startswith("@anna") for line in lines), "people and programs at another node"
    assert "\x1b" not in out
    assert "4 more edges are not shown" in err


def test_json_is_the_answer_of_the_node(node: FakeMesh, say: Callable[..., tuple[str, str]]) -> None:
    view = json.loads(say("topology", "--json")[0])
    assert node.asked["window_s"] == 300
    assert (view["count"], view["digest"]) == (5, "9c1f-77e0")
    assert view["edges"][0]["p99_ms"] == 12_500.0


def test_a_mesh_without_agents_says_which_command_makes_some(
    node: FakeMesh, say: Callable[..., tuple[str, str]]
) -> None:
    node.view.agents, node.view.edges = [], []
    assert "agentmesh demo --keep" in say("topology")[1]
    node.view.agents = whole().agents
    assert "agentmesh run --to" in say("topology")[1]


def test_figures_name_reasons_and_agents_that_fail(node: FakeMesh, say: Callable[..., tuple[str, str]]) -> None:
    out, _ = say("topology", "--stats")
    assert "3 policy.denied" in out
    assert "7 in the last hour" in out
    assert "echo@me  connection refused" in out
    assert json.loads(say("topology", "--stats", "--json")[0])["machines_alive"] == 1


def test_it_speaks_chinese(node: FakeMesh, say: Callable[..., tuple[str, str]]) -> None:
    out, err = say("topology", "--lang", "zh")
    assert out.index("您") > 0
    assert "另有 4 个调用边未显示" in err


@pytest.mark.parametrize(("text", "seconds"), [("300", 300), ("90s", 90), ("5m", 300), ("1h", 3_600)])
def test_a_window_is_seconds_minutes_or_hours(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "m", "-5m", "5 min", "1.5h", "9999999", "5m5"])
def test_what_is_no_window_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        seconds_of(text)
    assert refused.value.code == "topology.window"
