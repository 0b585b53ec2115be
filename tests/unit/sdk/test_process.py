"""Registration, renewal, withdrawal, and what is said when no daemon is there; against a tiny fake daemon."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agentmesh.adapters.sdk import SdkAdapter
from agentmesh.errors import EXIT_UNREACHABLE, ConfigError, NoRoute, StateError, Unauthorized
from agentmesh.sdk.agent import agent, serve
from agentmesh.sdk.locate import home_dir, locate
from agentmesh.sdk.process import AgentProcess
from tests.agents.fake_daemon import FakeDaemon

FILE = """
from agentmesh import agent, run

@agent
async def hello(name: str) -> str:
    "Greets."
    return name

run(hello)
"""


@agent
async def hello(name: str) -> str:
    """Greets."""
    return name


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    fake = FakeDaemon(tmp_path / "home")
    await fake.start()
    yield fake
    await fake.stop()


def process(daemon: FakeDaemon) -> AgentProcess:
    return AgentProcess([hello], home=daemon.home, renew_interval_s=0.02)


async def test_agents_are_registered_renewed_and_withdrawn(daemon: FakeDaemon) -> None:
    async with process(daemon) as running:
        registered = daemon.agents["did:key:hello"]
        assert registered["url"] == running.base_url
        assert (registered["door"], registered["ephemeral"]) == ("sdk", True)
        assert running.app.agent_ids == {"hello": "did:key:hello"}
        await daemon.until("renew", 2)
        assert daemon.log.count("register") == 1
    assert daemon.agents == {}
    assert "delete" in daemon.log


async def test_the_registered_url_answers_while_it_is_registered(daemon: FakeDaemon) -> None:
    adapter = SdkAdapter()
    async with process(daemon) as running:
        (found,) = await adapter.discover(running.base_url)
        assert found.name == "hello"
    with pytest.raises(NoRoute):
        await adapter.discover(running.base_url)
    await adapter.aclose()


async def test_a_daemon_that_forgot_the_agents_gets_them_again(daemon: FakeDaemon) -> None:
    async with process(daemon):
        daemon.forget()
        await daemon.until("register", 2)
        assert "did:key:hello" in daemon.agents


async def test_a_daemon_that_comes_back_on_another_port_with_another_token_is_found(
    daemon: FakeDaemon, capfd: pytest.CaptureFixture[str]
) -> None:
    async with process(daemon):
        await daemon.stop()
        other = FakeDaemon(daemon.home, token="another")
        await other.start()
        await other.until("register")
        assert "did:key:hello" in other.agents
        await other.until("renew")
    assert other.agents == {}
    await other.stop()


async def test_without_a_daemon_nothing_is_left_running(tmp_path: Path) -> None:
    running = AgentProcess([hello], home=tmp_path)
    with pytest.raises(NoRoute) as caught:
        await running.__aenter__()
    assert caught.value.code == "daemon.not_running"
    assert caught.value.hint == "agentmesh up"
    with pytest.raises(NoRoute):
        await SdkAdapter().discover(running.base_url)


async def test_a_refusal_of_the_daemon_arrives_as_it_was_said(daemon: FakeDaemon) -> None:
    daemon.refuse = "the node is read-only"
    with pytest.raises(StateError, match="read-only"):
        await serve(hello, home=daemon.home)


async def test_a_wrong_token_is_unauthorized(daemon: FakeDaemon) -> None:
    (daemon.home / "api.token").write_text("wrong")
    with pytest.raises(Unauthorized):
        await serve(hello, home=daemon.home)


def test_run_without_a_daemon_says_three_lines_and_exits(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILE],
        env={**os.environ, "AGENTMESH_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    lines = done.stderr.splitlines()
    assert done.returncode == EXIT_UNREACHABLE
    assert lines[0].startswith("error[daemon.not_running]")
    assert lines[1].startswith("why: ")
    assert lines[2] == "next: agentmesh up"
    assert len(lines) == 3


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_withdraws_the_agents_and_exits_with_zero(daemon: FakeDaemon, number: signal.Signals) -> None:
    import asyncio

    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", FILE, env={**os.environ, "AGENTMESH_HOME": str(daemon.home)}
    )
    await daemon.until("register")
    child.send_signal(number)
    async with asyncio.timeout(5):
        assert await child.wait() == 0
    assert daemon.agents == {}


def test_home_is_the_argument_then_the_environment_then_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENTMESH_HOME", str(tmp_path))
    assert home_dir() == tmp_path
    assert home_dir("/elsewhere") == Path("/elsewhere")
    monkeypatch.delenv("AGENTMESH_HOME")
    assert home_dir().name == "agentmesh"


def test_locate_reads_port_and_token(tmp_path: Path) -> None:
    (tmp_path / "daemon.json").write_text('{"pid": 1, "port": 6375, "node_id": "x", "more": []}')
    (tmp_path / "api.token").write_text("abc\n")
    assert locate(tmp_path) == ("http://127.0.0.1:6375", "abc")
    assert locate(tmp_path, url="http://127.0.0.1:1/", token="t") == ("http://127.0.0.1:1", "t")


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"port": "x"}', '{"port": 0}', '{"port": 70000}', "\x00" * 100_000]
)
def test_a_daemon_file_that_makes_no_sense_is_a_config_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "daemon.json").write_text(content)
    with pytest.raises(ConfigError) as caught:
        locate(tmp_path)
    assert caught.value.code == "daemon.bad_file"
    assert caught.value.hint


@pytest.mark.parametrize("content", [None, "", "two words", "ü"])
def test_a_missing_or_odd_token_is_unauthorized(tmp_path: Path, content: str | None) -> None:
    (tmp_path / "daemon.json").write_text('{"port": 6374}')
    if content is not None:
        (tmp_path / "api.token").write_text(content)
    with pytest.raises(Unauthorized) as caught:
        locate(tmp_path)
    assert caught.value.code == "daemon.no_token"
