"""Real daemons for tests and bench: processes of their own, on loopback, in homes that are thrown away.

They are started and stopped by the product's own ``daemon.launch``, so what the tests exercise is what people run.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from agentmesh.daemon import launch
from agentmesh.daemon.home import Home
from agentmesh.daemon.lock import process_start
from agentmesh.daemon.settings import load

#: An agent of one file, as the README shows it.
ECHO = """
from agentmesh import agent, run

@agent
async def echo(text: str) -> str:
    "Says what it hears."
    return text

run(echo)
"""


class Done(NamedTuple):
    """Outcome of one command line."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Return stdout as JSON; fails with everything the command said."""
        assert self.code == 0, f"exit {self.code}\n{self.out}\n{self.err}"
        return json.loads(self.out)


class Daemon:
    """One running node.

    Attributes:
        home: Its home directory.
        pid, port, node_id, name: As in its ``daemon.json``.
        token: Its API token.
    """

    def __init__(self, home: Home, given: dict[str, Any]) -> None:
        self.home = home
        self.given = given
        self.open()

    def open(self) -> None:
        """Start it, also again after ``kill`` or ``aclose``; fails with the end of its log."""
        settings = load({**self.given, "home": self.home.path}, environ={}).settings
        try:
            run = launch.start(settings, self.given, timeout_s=30).run
        except Exception as error:
            raise AssertionError(f"the daemon did not start: {error!r}\n{self.log()}") from error
        self.pid, self.port, self.node_id, self.name = run.pid, run.port, run.node_id, run.name
        self.token = self.home.api_token.read_text("ascii").strip()

    @property
    def url(self) -> str:
        """Base URL of its HTTP API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """Environment in which ``agentmesh`` talks to this node."""
        keep = {k: v for k, v in os.environ.items() if not k.startswith("AGENTMESH_")}
        return {**keep, "AGENTMESH_HOME": str(self.home.path), "NO_COLOR": "1"}

    def ask(self, method: str, path: str, body: Any = None, timeout_s: float = 30.0) -> tuple[int, Any]:
        """Send one request with the token; return status and decoded JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            payload = None if body is None else json.dumps(body)
            headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
            connection.request(method, path, payload, headers)
            answer = connection.getresponse()
            raw = answer.read()
            return answer.status, json.loads(raw) if raw else None

    def get(self, path: str) -> Any:
        """GET a path that must answer 200."""
        status, body = self.ask("GET", path)
        assert status == 200, f"GET {path} answered {status}: {body}\n{self.log()}"
        return body

    def post(self, path: str, body: Any, timeout_s: float = 30.0) -> Any:
        """POST to a path that must answer 2xx."""
        status, answer = self.ask("POST", path, body, timeout_s)
        assert 200 <= status < 300, f"POST {path} answered {status}: {answer}\n{self.log()}"
        return answer

    def seed(self) -> str:
        """Return what another node passes to ``--seed``."""
        seed = self.get("/api/v1/status")["seed"]
        assert seed, f"the node listens nowhere\n{self.log()}"
        return seed

    def cli(self, *args: str, timeout_s: float = 60.0, stdin: str = "") -> Done:
        """Run ``agentmesh`` against this node."""
        return run_cli(*args, env=self.env, timeout_s=timeout_s, stdin=stdin)

    def log(self, lines: int = 40) -> str:
        """Return the end of its log."""
        return "\n".join(launch.log_tail(self.home, lines))

    def stay(self) -> None:
        """Come back at the same addresses when started again: with all of them new at once nobody would find anybody."""
        status = self.get("/api/v1/status")
        self.given.update(
            listen=status["addresses"][0].partition(":")[2], listen_udp=status["udp"]["address"].partition(":")[2]
        )

    def kill(self) -> None:
        """End it with SIGKILL, as a crash would, and wait until it is gone."""
        token = process_start(self.pid)
        os.kill(self.pid, signal.SIGKILL)
        wait_until(lambda: self._gone(token), "the killed daemon to be gone")

    def _gone(self, token: str | None) -> bool:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.pid, os.WNOHANG)
        return process_start(self.pid) != token or token is None

    def aclose(self) -> None:
        """Stop it as ``agentmesh down`` does. Idempotent."""
        launch.stop(self.home, grace_s=10)


def wait_until(holds: Callable[[], Any], what: str, timeout_s: float = 20.0) -> Any:
    """Ask again and again until ``holds()`` is true, and return what it gave; fails by name when time is up."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = holds()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.02)


def run_cli(*args: str, env: dict[str, str], timeout_s: float = 60.0, stdin: str = "") -> Done:
    """Run ``agentmesh`` from this interpreter's environment."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / "agentmesh"), *args],
        env=env,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Mesh:
    """Starts daemons below one directory and stops them all.

    Args:
        root: Directory for the homes.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.daemons: list[Daemon] = []

    def node(self, name: str, *, seeds: tuple[str, ...] = (), **given: Any) -> Daemon:
        """Start one node on loopback with free ports and without mDNS; ``given`` are settings by key."""
        base = {
            "name": name,
            "port": 0,
            "listen": "127.0.0.1:0",
            "listen_udp": "127.0.0.1:0",
            "mdns": False,
            "seeds": seeds or None,
        }
        daemon = Daemon(Home(self.root / name), {**base, **given})
        self.daemons.append(daemon)
        return daemon

    def pair(self, **given: Any) -> tuple[Daemon, Daemon]:
        """Start nodes "a" and "b", b seeded with a, and wait until each sees the other."""
        a = self.node("a", **given)
        b = self.node("b", seeds=(a.seed(),), **given)
        for one, other in ((a, b), (b, a)):
            wait_until(lambda one=one, other=other: connected(one, other), f"{one.name} to see {other.name}")
        return a, b

    def aclose(self) -> None:
        """Stop every node, the last one first."""
        for daemon in reversed(self.daemons):
            daemon.aclose()
        self.daemons.clear()


def connected(one: Daemon, other: Daemon) -> bool:
    """Say whether a link from one node to the other is up."""
    peers = one.get("/api/v1/peers")["peers"]
    return any(peer["node_id"] == other.node_id and peer["connected"] for peer in peers)


def sees_agent(daemon: Daemon, name: str) -> Any:
    """Return the healthy agent of that name as the node lists it, or None."""
    agents = daemon.get("/api/v1/agents")["agents"]
    return next((a for a in agents if a["name"] == name and a["status"] == "healthy"), None)


@contextlib.contextmanager
def script(
    argv: list[str], env: dict[str, str] | None = None, cwd: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Run a helper process with its output at hand; it is ended by its pid when the block ends."""
    process = subprocess.Popen(
        argv, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()
