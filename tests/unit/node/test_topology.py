"""What a node shows of who calls whom: edges of real calls, filters, figures, and who may not look."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentmesh.errors import AgentFailed, Busy, MeshError, Unauthorized, UsageError
from agentmesh.node import topology as topologies
from agentmesh.node.door import Happening, Invocation
from agentmesh.node.map_rows import is_wan, machine_of_peer, matches
from agentmesh.wire.net_views import PeerView
from agentmesh.wire.topology_views import EdgeView, MachineView, TopologyView, digest_of
from agentmesh.wire.views import CallRequest
from tests.unit.node.test_guard import write_guard
from tests.unit.node.test_tenants import two
from tests.unit.node.test_two_nodes import ask, echo, fail, hang, knows
from tests.unit.node.world import Member, until, world


async def shown(member: Member, **filters: str) -> TopologyView:
    return await member.node.topology(300, **filters)


def edge_of(view: TopologyView, callee: str) -> EdgeView:
    return next(edge for edge in view.edges if edge.callee_name == callee)


async def test_calls_become_an_edge_at_both_nodes_and_each_names_both_ends(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        for _ in range(3):
            await ask(a, "echo")
        here, there = await shown(a), await shown(b)
        edge = edge_of(here, "echo")
        assert (edge.caller_kind, edge.caller, edge.caller_node) == ("you", a.node.node_id, a.node.node_id)
        assert (edge.callee_node, edge.path, edge.calls, edge.failures) == (b.node.node_id, "local", 3, 0)
        assert edge.p50_ms is not None
        assert edge.p99_ms is not None
        assert 0 < edge.p50_ms <= edge.p99_ms
        other = edge_of(there, "echo")
        assert (other.caller_kind, other.caller, other.calls) == ("node", a.node.node_id, 3)
        assert other.path == "local", "the way of the memory transport"
        assert [m.own for m in here.machines] == [True, False]
        assert {m.node_id for m in here.machines} == {m.node_id for m in there.machines}
        assert [(agent.name, agent.kind) for agent in here.agents] == [("echo", "mesh")]
        assert [(agent.name, agent.kind) for agent in there.agents] == [("echo", "sdk")]
        assert (here.calls, here.edges_more) == (3, 0)


async def test_a_chain_has_an_edge_for_each_step(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):

        async def pass_on(call: Invocation) -> AsyncIterator[Happening]:
            further = await a.node.call(
                CallRequest(
                    to="echo", text="on", run_id=call.run_id, parent_task_id=call.task_id, from_agent="middle",
                    hops=list(call.hops),
                )
            )  # fmt: skip
            await further.reply()
            yield Happening("status", {"state": "completed"})

        await a.serve("middle", pass_on)
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        await ask(a, "middle")
        edges = {(e.caller_name, e.caller_kind, e.callee_name, e.path) for e in (await shown(a)).edges}
        assert edges == {(a.node.config.name, "you", "middle", "local"), ("middle", "agent", "echo", "local")}
        seen = edge_of(await shown(b), "echo")
        assert (seen.caller_kind, seen.caller_name, seen.caller_node) == ("agent", "middle", a.node.node_id)
        stats = await a.node.stats()
        assert (stats.hour.runs, stats.hour.calls) == (1, 2), "two calls, one run"
        assert stats.runs_per_minute > 0


async def test_failures_and_refusals_are_told_apart_and_counted(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("fail", fail)
        write_guard(a, '[callers."*"]\nqps = 0.001\nburst = 1\n')
        with pytest.raises(AgentFailed):
            await ask(a, "fail")
        with pytest.raises(Busy):
            await ask(a, "fail")
        view = await shown(a)
        edge = edge_of(view, "fail")
        assert (edge.calls, edge.failures, edge.refusals) == (2, 1, 1)
        stats = await a.node.stats()
        assert [(reason.count, reason.code.partition(".")[0]) for reason in stats.refusals] == [(1, "refused")]
        assert (view.calls, view.failures, view.refusals) == (2, 1, 1)


async def test_a_call_under_way_is_an_edge_before_it_ends(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("slow", hang)
        await until(lambda: knows(a, "slow"))
        call = await a.node.call(CallRequest(to="slow", text="x"))
        await until(lambda: a.node.traffic.running == 1 and b.node.traffic.running == 1)
        edge = edge_of(await shown(a), "slow")
        assert (edge.running, edge.calls, edge.p50_ms) == (1, 0, None)
        assert (await b.node.stats()).calls_running == 1
        call.cancel()
        await call.wait()
        await until(lambda: a.node.traffic.running == 0 and b.node.traffic.running == 0)
        edge = edge_of(await shown(a), "slow")
        assert (edge.running, edge.calls, edge.failures) == (0, 1, 0), "who gives up a call does not make it fail"


async def test_filters_keep_this_machine_and_drop_the_edges_of_others(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await a.serve("near", echo)
        await b.serve("far", echo)
        await until(lambda: knows(a, "far"))
        await ask(a, "near")
        await ask(a, "far")
        whole = await shown(a)
        assert {e.callee_name for e in whole.edges} == {"near", "far"}
        source = whole.machines[1].sources[0]
        assert (await shown(a, source=source)).digest == whole.digest
        alone = await shown(a, source="federation")
        assert [m.own for m in alone.machines] == [True]
        assert [e.callee_name for e in alone.edges] == ["near"]
        assert [agent.name for agent in alone.agents] == ["near"]
        assert alone.calls == 2, "the totals are of all calls"
        assert [m.own for m in (await shown(a, zone="nowhere/1")).machines] == [True]


async def test_an_agent_that_left_is_still_an_end_of_its_calls(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("brief", echo)
        await ask(a, "brief")
        await a.node.deregister("brief")
        view = await shown(a)
        assert [(agent.name, agent.kind, agent.health) for agent in view.agents] == [("brief", "gone", "gone")]
        assert edge_of(view, "brief").calls == 1


async def test_what_does_not_fit_into_an_answer_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topologies, "EDGES_MAX", 1)
    monkeypatch.setattr(topologies, "AGENTS_MAX", 2)
    async with world(tmp_path, 1) as (a,):
        for name in ("one", "two", "three", "four"):
            await a.serve(name, echo)
        for name in ("one", "one", "two"):
            await ask(a, name)
        view = await shown(a)
        assert [(edge.callee_name, edge.calls) for edge in view.edges] == [("one", 2)]
        assert (view.edges_more, len(view.agents), view.agents_more) == (1, 2, 2)
        assert view.agents[0].name == "one", "who takes part in calls goes first"
        assert view.count == len(view.machines) + 2 + 1
        assert view.calls == 3


async def test_the_digest_is_of_what_is_shown_and_not_of_the_time(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        await ask(a, "echo")
        first, second = await shown(a), await shown(a)
        assert first.digest == second.digest == digest_of(first)
        await ask(a, "echo")
        assert (await shown(a)).digest != first.digest


async def test_a_window_out_of_range_is_refused(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        for window_s in (0, 59, 3_601):
            with pytest.raises(UsageError) as refused:
                await a.node.topology(window_s)
            assert refused.value.code == "topology.window"


async def test_failing_agents_are_named_with_what_is_wrong(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        agent = await a.serve("ill", echo)
        agent.alive = False
        with pytest.raises(MeshError):
            await ask(a, "ill")
        await until(lambda: not knows(a, "ill"))
        stats = await a.node.stats()
        assert [(agent.name, agent.detail) for agent in stats.failing] == [("ill", "connection refused")]
        assert (stats.agents, stats.agents_local, stats.machines, stats.machines_alive) == (1, 1, 1, 1)
        assert len(stats.minutes) == 60


async def test_who_calls_whom_is_the_operators_to_know(tmp_path: Path) -> None:
    async with two(tmp_path) as t:
        with pytest.raises(Unauthorized):
            await t.a.topology(300, "", "")
        with pytest.raises(Unauthorized):
            await t.a.stats()


@pytest.mark.parametrize(
    ("address", "path", "connected", "wan"),
    [
        ("tls:192.168.1.7:6374", "direct", True, False),
        ("tls:127.0.0.1:6374", "direct", True, False),
        ("tls:8.8.8.8:6374", "direct", True, True),
        ("iroh:[2606:4700::1]:6374", "direct", True, True),
        ("iroh:relay", "relayed", True, True),
        ("tls:8.8.8.8:6374", "direct", False, False),
        ("memory:x", "direct", True, False),
    ],
)
def test_a_link_leaves_private_networks_or_not(address: str, path: str, connected: bool, wan: bool) -> None:
    peer = PeerView(node_id="n", address=address, path=path, connected=connected, state="alive", source="mdns")
    assert is_wan(peer) == wan
    machine = machine_of_peer(peer, abroad=True, agents=1)
    assert machine.sources == ["mdns", "federation", *(["wan"] if wan else [])]
    assert matches(machine, "MDNS", "")
    assert matches(machine, "wan", "") == wan


def test_the_dht_is_another_word_for_what_nodes_tell_each_other() -> None:
    machine = MachineView(node_id="n", name="n", sources=["exchange"], zone="eu/01")
    assert matches(machine, "dht", "")
    assert matches(machine, "exchange", "eu/01")
    assert not matches(machine, "mdns", "")
    assert not matches(machine, "", "eu/1")


def test_the_digest_is_the_one_that_is_written_down() -> None:
    """A vector for other readers: the console computes the same (console/src/pages/topology)."""
    view = TopologyView(node_id="did:a", window_s=300, covered_s=60.0)
    view.machines = [
        MachineView(node_id="did:a", name="ignored", own=True, state="alive", sources=["own"], path="local")
    ]
    view.edges = [
        EdgeView(
            caller="did:a", caller_kind="you", caller_name="", caller_node="did:a", callee="did:x", callee_name="",
            callee_node="did:a", calls=3, failures=1, path="local",
        )
    ]  # fmt: skip
    assert digest_of(view) == "c292-9dcd"
