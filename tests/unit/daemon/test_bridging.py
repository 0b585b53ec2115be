"""Bridges as the daemon keeps them: in config.toml unless something outweighs it, and nothing of them loaded before the first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentmesh.daemon.bridging import Bridging, Hosted
from agentmesh.daemon.settings import load
from agentmesh.errors import ConfigError, LimitError, RecordNotFound, StateError
from agentmesh.node.door import Happening, Invocation
from agentmesh.node.registry import Owner
from agentmesh.wire.views import RegisterRequest
from tests.unit.node.world import Member, ScriptedAgent, until, world

ETCD = "etcd://127.0.0.1:1/agents"  # nothing listens there


async def play(call: Invocation) -> AsyncIterator[Happening]:
    yield Happening("status", {"state": "completed"})


def bridging(member: Member, home: Path) -> Bridging:
    return Bridging(member.node, load({"home": str(home)}, {}).settings, lambda: 6374)


async def test_a_bridge_is_kept_in_the_config_and_opened_again_from_there(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as [member]:
        first = bridging(member, tmp_path)
        assert first.bridges() == []
        assert (await first.add_bridge(f"{ETCD}?way=in")).kept
        assert (await first.add_bridge("consul://127.0.0.1:1/")).kept
        await first.aclose()
        again = bridging(member, tmp_path)
        again.open()
        assert [one.url for one in again.bridges()] == [f"{ETCD}?way=in", "consul://127.0.0.1:1/"]
        await until(lambda: len(member.node.status().warnings) == 2)
        assert ETCD in member.node.status().warnings[0], "a bridge that is down is a warning"
        assert (await again.remove_bridge(ETCD)).kept
        assert load({"home": str(tmp_path)}, {}).settings.bridges == ("consul://127.0.0.1:1/",)
        await again.remove_bridge("consul://127.0.0.1:1")
        assert "bridges" not in (tmp_path / "config.toml").read_text("utf-8")
        await again.aclose()


async def test_what_the_environment_says_is_not_written_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTMESH_BRIDGES", ETCD)
    async with world(tmp_path, 1) as [member]:
        one = Bridging(member.node, load({"home": str(tmp_path)}).settings, lambda: 6374)
        one.open()
        change = await one.add_bridge("consul://127.0.0.1:1/")
        assert (len(one.bridges()), change.kept) == (2, False)
        assert not (tmp_path / "config.toml").exists() or "consul" not in (tmp_path / "config.toml").read_text("utf-8")
        await one.aclose()


async def test_wrong_double_unknown_and_too_many_bridges_are_refused(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as [member]:
        one = bridging(member, tmp_path)
        with pytest.raises(RecordNotFound):
            await one.remove_bridge(ETCD)
        with pytest.raises(ConfigError):
            await one.add_bridge("zookeeper://127.0.0.1/")
        await one.add_bridge(ETCD)
        with pytest.raises(StateError):
            await one.add_bridge(f"{ETCD}?way=out")
        with pytest.raises(RecordNotFound):
            await one.remove_bridge("etcd://127.0.0.1:1/others")
        for number in range(2, 17):
            await one.add_bridge(f"consul://127.0.0.{number}:1/?way=out")
        with pytest.raises(LimitError):
            await one.add_bridge("consul://127.0.0.99:1/")
        assert len(load({"home": str(tmp_path)}, {}).settings.bridges) == 16
        await one.aclose()


async def test_only_what_is_the_operators_own_may_go_out(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as [member]:
        for name in ("own", "guest", "theirs"):
            member.kit.agents[name] = ScriptedAgent(name, play)
        await member.node.register(RegisterRequest(url="http://own/"))
        await member.node.take_in(RegisterRequest(url="http://guest/"), "etcd://h/agents/a", 0)
        await member.node.registry.register(RegisterRequest(url="http://theirs/"), Owner(tenant="acme"))
        host = Hosted(member.node, lambda: 6374)
        [posting] = host.own("")
        assert (posting.name, posting.url, posting.healthy) == ("own", "http://127.0.0.1:6374/a2a/own", True)
        assert posting.card["url"] == posting.url
        assert "signatures" not in posting.card, "they cover other addresses"
        assert [one.url for one in host.own("https://mesh.example/n1")] == ["https://mesh.example/n1/a2a/own"]


def test_a_daemon_without_bridges_loads_nothing_of_them() -> None:
    code = (
        "import sys, agentmesh.daemon.app\n"
        "print([m for m in sys.modules if m.startswith(('agentmesh.adapters.bridges', 'agentmesh.adapters.imports'))])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
