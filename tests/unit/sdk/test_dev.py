"""The dev runner: reload on save, syntax errors, and no stale registration."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agentmesh.errors import UsageError
from agentmesh.sdk.dev import run_dev
from tests.agents.fake_daemon import FakeDaemon

BARE = """
from agentmesh import agent

@agent
async def hello(name: str) -> str:
    return name
"""
RUNNING = BARE + "\nif __name__ == '__main__':\n    from agentmesh import run\n    run(hello)\n"


@pytest.fixture
async def daemon(tmp_path: Path) -> AsyncIterator[FakeDaemon]:
    fake = FakeDaemon(tmp_path / "home")
    await fake.start()
    yield fake
    await fake.stop()


@asynccontextmanager
async def dev(file: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setenv("AGENTMESH_HOME", str(daemon.home))
    stop = threading.Event()
    running = asyncio.ensure_future(asyncio.to_thread(run_dev, file, stop=stop))  # noqa: TID251 - a test's own task
    try:
        yield
    finally:
        stop.set()
        assert await asyncio.wait_for(running, 10) == 0


@pytest.mark.parametrize("source", [BARE, RUNNING])
async def test_a_file_is_served_whether_or_not_it_calls_run(
    tmp_path: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    file = tmp_path / "hello.py"
    file.write_text(source)
    async with dev(file, daemon, monkeypatch):
        await daemon.until("register")
    assert daemon.agents == {}
    assert daemon.log.count("register") == 1


async def test_saving_withdraws_the_old_agent_before_the_new_one_registers(
    tmp_path: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "hello.py"
    file.write_text(RUNNING)
    async with dev(file, daemon, monkeypatch):
        await daemon.until("register")
        first = daemon.agents["did:key:hello"]["url"]
        file.write_text(RUNNING + "\n# changed\n")
        await daemon.until("register", 2)
        assert daemon.agents["did:key:hello"]["url"] != first
        assert [entry for entry in daemon.log if entry != "renew"] == ["register", "delete", "register"]


async def test_a_file_beside_it_counts_too(tmp_path: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch) -> None:
    file, helper = tmp_path / "hello.py", tmp_path / "helper.py"
    helper.write_text("WORD = 1\n")
    file.write_text("import helper\n" + RUNNING)
    async with dev(file, daemon, monkeypatch):
        await daemon.until("register")
        helper.write_text("WORD = 222\n")
        await daemon.until("register", 2)


async def test_a_syntax_error_is_shown_and_the_running_agent_goes_on(
    tmp_path: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hello.py"
    file.write_text(RUNNING)
    said = ""
    async with dev(file, daemon, monkeypatch):
        await daemon.until("register")
        file.write_text("def broken(:\n")
        async with asyncio.timeout(5):
            while "goes on" not in said:
                said += capfd.readouterr().err
                await asyncio.sleep(0.02)
        assert "SyntaxError" in said
        assert "did:key:hello" in daemon.agents
        file.write_text(RUNNING + "# mended\n")
        await daemon.until("register", 2)


async def test_a_file_that_fails_is_started_again_when_it_changes(
    tmp_path: Path, daemon: FakeDaemon, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "hello.py"
    file.write_text("raise RuntimeError('not yet')\n")
    said = ""
    async with dev(file, daemon, monkeypatch):
        async with asyncio.timeout(10):
            while "waiting for a change" not in said:
                said += capfd.readouterr().err
                await asyncio.sleep(0.02)
        assert "not yet" in said
        file.write_text(RUNNING)
        await daemon.until("register")


@pytest.mark.parametrize("name", ["missing.py", "notes.txt"])
def test_what_is_no_python_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError) as caught:
        run_dev(tmp_path / name)
    assert caught.value.code == "dev.no_file"


async def runner(file: Path, daemon: FakeDaemon) -> asyncio.subprocess.Process:
    code = f"import sys; from agentmesh.sdk.dev import run_dev; sys.exit(run_dev({str(file)!r}))"
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, env={**os.environ, "AGENTMESH_HOME": str(daemon.home)}
    )
    await daemon.until("register")
    return child


async def test_ctrl_c_ends_the_runner_and_withdraws_the_agent(tmp_path: Path, daemon: FakeDaemon) -> None:
    file = tmp_path / "hello.py"
    file.write_text(RUNNING)
    child = await runner(file, daemon)
    child.send_signal(signal.SIGINT)
    async with asyncio.timeout(10):
        assert await child.wait() == 0
    assert daemon.agents == {}


async def test_a_killed_runner_takes_its_agent_with_it(tmp_path: Path, daemon: FakeDaemon) -> None:
    file = tmp_path / "hello.py"
    file.write_text(RUNNING)
    child = await runner(file, daemon)
    child.kill()
    await child.wait()
    await daemon.until("delete")
    assert daemon.agents == {}
