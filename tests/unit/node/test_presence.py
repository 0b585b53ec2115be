"""Who is there, who left, and who was lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from agentmesh.core.directory.messages import AgentChanged, AgentGone
from agentmesh.core.directory.nodes import LEFT
from agentmesh.ids import AgentId
from agentmesh.node.topics import presence as module
from agentmesh.node.topics.presence import Presence
from agentmesh.wire.message_views import PresenceView


class World:
    """Agents as the directory has them, and what was told of them."""

    def __init__(self) -> None:
        self.agents: dict[str, Any] = {}
        self.told: list[PresenceView] = []
        self.now_us = 0
        self.presence = Presence(self.agents.get, self.told.append, self.clock)

    def clock(self) -> int:
        self.now_us += 1
        return self.now_us

    def put(self, agent: str, *, up: bool = True, left: bool = False, local: bool = False) -> None:
        node = SimpleNamespace(up=up, best=(1, LEFT if left else 5, not left))
        manifest = SimpleNamespace(name=f"name-{agent}", node_id="node")
        self.agents[agent] = SimpleNamespace(local=local, node=node, manifest=manifest)
        self.presence.changed(AgentChanged(AgentId(agent)))

    def gone(self, agent: str, why: Any) -> None:
        self.presence.gone(AgentGone(AgentId(agent), f"name-{agent}", why))

    def states(self, agent: str) -> list[str]:
        return [view.state for view in self.told if view.agent_id == agent]


def test_an_agent_whose_node_does_not_answer_is_lost_and_joins_again() -> None:
    world = World()
    world.put("a")
    world.put("a")
    world.put("a", up=False)
    world.put("a")
    assert world.states("a") == ["join", "lost", "join"]
    world.put("b", local=True, up=False)
    assert world.states("b") == ["join"]


def test_a_goodbye_is_no_loss() -> None:
    world = World()
    world.put("a")
    world.gone("a", "withdrawn")
    world.put("b")
    world.put("b", up=False, left=True)
    world.gone("b", "lease")
    world.put("c")
    world.gone("c", "expired")
    assert (world.states("a"), world.states("b"), world.states("c")) == (
        ["join", "leave"],
        ["join", "leave"],
        ["join", "lost"],
    )


def test_one_that_only_made_room_for_another_left_nobody() -> None:
    world = World()
    world.put("a")
    world.gone("a", "evicted")
    world.gone("never-seen", "lease")
    assert world.states("a") == ["join"]
    assert world.presence.views() == []


def test_the_newest_change_comes_first_and_what_is_remembered_is_bounded(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "PRESENCE_MAX", 20)
    monkeypatch.setattr(module, "_GONE_MAX", 5)
    world = World()
    for i in range(15):
        world.put(f"a{i}")
    for i in range(10):
        world.gone(f"a{i}", "lease")
    views = world.presence.views()
    assert [view.agent_id for view in views[:2]] == ["a9", "a8"]
    assert sum(view.state == "lost" for view in views) == 5
    for i in range(40):
        world.put(f"b{i}")
    assert len(world.presence.views()) == 20
