"""The demo: two real nodes and three toy agents, each in a process of its own, on loopback and in a temporary directory.

    node-a: reviewer ──iroh──► node-b: calc ──► echo

Nothing of the person's own node is touched: homes, ports and environment are the demo's. Whatever was started is stopped
again, also after Ctrl-C, unless it is to be kept.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from agentmesh.cli import i18n
from agentmesh.cli.output import Output
from agentmesh.daemon import launch, lock
from agentmesh.daemon.home import Home, write_atomic
from agentmesh.daemon.settings import load
from agentmesh.embed.models import MODELS, is_present
from agentmesh.errors import MeshError, StateError, Timeout, UsageError
from agentmesh.sdk.sync import SyncMesh
from agentmesh.wire.search_views import DiscoverView
from agentmesh.wire.views import AgentView, Reply, StatusView, TraceView

NODES = ("node-a", "node-b")
#: Agent → the node it lives behind. calc and echo are across the network from reviewer.
AGENTS = {"echo": "node-b", "calc": "node-b", "reviewer": "node-a"}
#: What somebody may need, in words that no card here has.
NEEDS = ("solve an equation", "verify a fact", "计算器")
CALLS = (("echo", "hello mesh"), ("calc", "1+1"), ("reviewer", "6 * 7 = 42"))
NOTE = "demo.json"
_WAIT_S, _POLL_S, _LOG_LINES = 20.0, 0.02, 8
#: How long the demo waits for the search by meaning before it shows what words alone find.
_MEANING_S = 10.0


class Toy(msgspec.Struct):
    """One agent process: its name, pid and the token that tells it from a later process of that pid."""

    name: str
    pid: int
    process_start: str


class Kept(msgspec.Struct):
    """Content of ``demo.json`` in the directory of a demo that was kept running."""

    toys: list[Toy]


class Outcome(NamedTuple):
    """What the demo saw."""

    nodes: list[StatusView]
    agents: list[AgentView]
    found: list[tuple[str, DiscoverView]]
    calls: list[tuple[str, str, Reply]]
    trace: TraceView


class Demo:
    """Run the demo in a directory of its own.

    Args:
        out: Where progress goes.
        root: An empty directory that the demo may fill.
    """

    def __init__(self, out: Output, root: Path) -> None:
        self._out = out
        self.root = root
        self.homes = {name: Home(root / name) for name in NODES}
        self._toys: dict[str, subprocess.Popen[bytes]] = {}
        self._wait_s = out.timeout_s or _WAIT_S
        # The person's own AGENTMESH_* settings are for the person's own node.
        self._environ = {k: v for k, v in os.environ.items() if not k.startswith("AGENTMESH_")}
        self._models = _models_of(out)

    def run(self) -> Outcome:
        """Start everything, let the agents be found and called, and return what was seen.

        Raises:
            StateError: code "demo.failed": something did not come up; carries the last lines of its log.
            MeshError: a call failed.
        """
        self._out.status(i18n.t("starting two nodes") + " …")
        first = self._start_node("node-a", [])
        self._start_toys("node-a")
        second = self._start_node("node-b", [first.seed])
        self._start_toys("node-b")
        self._out.status(i18n.t("starting three agents") + " …")
        with SyncMesh(home=self.homes["node-a"].path) as mesh:
            agents = self._await_agents(mesh)
            found = [(need, self._await_meaning(mesh, need)) for need in NEEDS]
            calls = [(to, text, mesh.call(to, text, timeout_s=self._wait_s)) for to, text in CALLS]
            trace = self._await_trace(mesh, calls[-1][2].run_id)
        self._out.clear_status()
        return Outcome([first, second], agents, found, calls, trace)

    def _start_node(self, name: str, seeds: list[str]) -> StatusView:
        flags: dict[str, Any] = {
            "home": self.homes[name].path,
            "name": name,
            "port": 0,
            "listen": "127.0.0.1:0",
            "listen_udp": "127.0.0.1:0",
            "mdns": False,
            "seeds": seeds,
            **({"models_dir": self._models} if self._models else {}),
        }
        settings = load(flags, self._environ).settings
        launch.start(settings, flags, timeout_s=self._wait_s, environ=self._environ)
        with SyncMesh(home=self.homes[name].path) as mesh:
            status = mesh.status()
        if not status.seed:
            raise self._failed(name, f"{name} can be reached by no other node", self.homes[name].log)
        return status

    def _start_toys(self, node: str) -> None:
        for name in (agent for agent, place in AGENTS.items() if place == node):
            home = self.homes[node]
            with open(self._log_of(name), "wb") as log, launch.held_back() as came:
                self._toys[name] = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                    [sys.executable, "-m", f"agentmesh.sdk.toys.{name}"],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    cwd=home.path,
                    env={**self._environ, "AGENTMESH_HOME": str(home), "PYTHONUNBUFFERED": "1"},
                )
            if came:
                raise KeyboardInterrupt

    def _await_agents(self, mesh: SyncMesh) -> list[AgentView]:
        """Wait until the first node offers all three agents."""
        deadline = time.monotonic() + self._wait_s
        while True:
            found = {agent.name: agent for agent in mesh.discover()}
            ready = [name for name in AGENTS if name in found and found[name].status == "healthy"]
            if len(ready) == len(AGENTS) and all(found[name].path != "unreached" for name in AGENTS):
                return [found[name] for name in AGENTS]
            for name, process in self._toys.items():
                if process.poll() is not None:
                    raise self._failed(
                        name, f"the agent {name} ended with code {process.returncode}", self._log_of(name)
                    )
            if time.monotonic() > deadline:
                missing = next(name for name in AGENTS if name not in ready)
                raise self._failed(missing, f"the agent {missing} was not found in time", self._log_of(missing))
            time.sleep(_POLL_S)

    def _await_meaning(self, mesh: SyncMesh, need: str) -> DiscoverView:
        """Search for a need; on a busy machine the search by meaning may take a while to start."""
        deadline = time.monotonic() + _MEANING_S
        while True:
            view = mesh.search(need, limit=1, near=0, scope="local")
            if view.embedder or time.monotonic() > deadline:
                return view
            time.sleep(_POLL_S)

    def _await_trace(self, mesh: SyncMesh, run_id: str) -> TraceView:
        """Return the trace of a run once every node has told its part."""
        deadline = time.monotonic() + self._wait_s
        while True:
            view = mesh.trace(run_id)
            if view.complete:
                return view
            if time.monotonic() > deadline:
                raise Timeout(
                    f"the trace of {run_id} is not complete",
                    why=f"missing nodes: {view.missing_nodes}",
                    hint="agentmesh doctor",
                )
            time.sleep(_POLL_S)

    def _log_of(self, agent: str) -> Path:
        return self.root / f"{agent}.log"

    def _failed(self, who: str, detail: str, log: Path) -> MeshError:
        with contextlib.suppress(OSError):
            lines = log.read_text("utf-8", "replace").splitlines()[-_LOG_LINES:]
            return StateError(
                detail,
                code="demo.failed",
                why=lines[-1] if lines else f"the log of {who} is empty",
                hint="agentmesh doctor",
                extra={"log": lines},
            )
        return StateError(detail, code="demo.failed", hint="agentmesh doctor")

    def keep(self) -> None:
        """Note in the directory what runs, for ``agentmesh demo --stop``."""
        toys = [Toy(name, p.pid, lock.process_start(p.pid) or "") for name, p in self._toys.items()]
        write_atomic(self.root / NOTE, msgspec.json.encode(Kept(toys)))

    def close(self) -> None:
        """Stop the agents and the nodes and remove the directory. Idempotent."""
        self._out.status(i18n.t("cleaning up") + " …")
        for process in self._toys.values():
            if process.poll() is None:
                process.terminate()
        for process in self._toys.values():
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        _stop_nodes(self.homes.values())
        shutil.rmtree(self.root, ignore_errors=True)
        self._out.clear_status()


def _models_of(out: Output) -> str:
    """Return the directory of the person's own models, which the demo only reads; "" if none is there."""
    try:
        models = load({"home": out.home} if out.home else {}, profile=out.profile or None).settings.models
    except MeshError:  # wrong settings of the person's own node are no matter of the demo's
        return ""
    return str(models) if any(is_present(model, models) for model in MODELS.values()) else ""


def stop_kept(root: Path) -> int:
    """Stop a demo that was kept running and remove its directory; return how many processes ended.

    Raises:
        UsageError: the directory is not that of a demo. Nothing was touched.
    """
    try:
        with open(root / NOTE, "rb") as file:
            kept = msgspec.json.decode(file.read(65_536), type=Kept)
    except (OSError, msgspec.DecodeError) as error:
        raise UsageError(
            f"{root} is not the directory of a demo", why=str(error), hint="agentmesh demo --keep"
        ) from error
    ended = 0
    for toy in kept.toys:
        if toy.pid > 1 and toy.process_start and lock.process_start(toy.pid) == toy.process_start:
            os.kill(toy.pid, signal.SIGTERM)
            deadline = time.monotonic() + 5
            while lock.process_start(toy.pid) == toy.process_start and time.monotonic() < deadline:
                time.sleep(_POLL_S)
            ended += 1
    ended += _stop_nodes([Home(root / name) for name in NODES])
    shutil.rmtree(root, ignore_errors=True)
    return ended


def _stop_nodes(homes: Any) -> int:
    """Stop the daemons of these homes together; return how many there were."""
    asked = [holder for home in homes if (holder := lock.live_holder(home)) is not None]
    for holder in asked:
        with contextlib.suppress(ProcessLookupError):
            os.kill(holder.pid, signal.SIGTERM)
    for home in homes:
        launch.stop(home, grace_s=10)
    return len(asked)


@contextlib.contextmanager
def running(out: Output, *, keep: bool) -> Generator[Demo]:
    """Give a demo that is stopped and removed at the end, whatever happens, unless it is to be kept and all went well."""
    demo = Demo(out, Path(tempfile.mkdtemp(prefix="agentmesh-demo-")))
    with _terminated_like_interrupted():
        try:
            yield demo
        except BaseException:
            demo.close()
            raise
        if keep:
            demo.keep()
        else:
            demo.close()


@contextlib.contextmanager
def _terminated_like_interrupted() -> Generator[None]:
    """Clean up on SIGTERM and SIGHUP as on Ctrl-C."""

    def interrupt(_number: int, _frame: Any) -> None:
        raise KeyboardInterrupt

    before: Sequence[tuple[int, Any]] = [(n, signal.signal(n, interrupt)) for n in (signal.SIGTERM, signal.SIGHUP)]
    try:
        yield
    finally:
        for number, handler in before:
            signal.signal(number, handler)
