"""Two hosts on one LAN segment: network namespaces of our own, joined by a veth pair; needs root and iproute2."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

READY = """
import http.client, json, sys, time
from pathlib import Path
home, name, timeout_s = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
begin = time.monotonic()
while time.monotonic() - begin < timeout_s:
    try:
        token = (home / "api.token").read_text().strip()
        port = json.loads((home / "daemon.json").read_text())["port"]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        connection.request("GET", "/api/v1/agents", headers={"Authorization": f"Bearer {token}"})
        agents = json.loads(connection.getresponse().read())["agents"]
        if any(a["name"] == name and a["status"] == "healthy" for a in agents):
            print(time.monotonic() - begin)
            sys.exit(0)
    except (OSError, ValueError, http.client.HTTPException):
        pass
    time.sleep(0.01)
sys.exit(f"no agent {name!r} within {timeout_s} s")
"""


def why_not() -> str:
    """Return why there can be no namespaces here; "" if there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2 (apt-get install iproute2)"
    probe = subprocess.run(["ip", "netns", "add", "am-probe"], capture_output=True, check=False)
    if probe.returncode:
        return "this machine refuses network namespaces"
    subprocess.run(["ip", "netns", "del", "am-probe"], check=True)
    return ""


class Host:
    """One machine of the LAN: a namespace, an address, a home.

    Args:
        namespace: Name of the namespace.
        home: AGENTMESH_HOME of its node.
    """

    def __init__(self, namespace: str, home: Path) -> None:
        self.namespace, self.home = namespace, home
        self._children: list[subprocess.Popen[bytes]] = []

    def argv(self, *command: str) -> list[str]:
        """Return the command line that runs a command on this host."""
        return ["ip", "netns", "exec", self.namespace, *command]

    @property
    def env(self) -> dict[str, str]:
        """Its environment."""
        return {**os.environ, "AGENTMESH_HOME": str(self.home), "NO_COLOR": "1"}

    def start(self, *command: str) -> subprocess.Popen[bytes]:
        """Start a process that lives as long as the LAN."""
        self.home.mkdir(parents=True, exist_ok=True)
        with open(self.home.parent / f"{self.home.name}.log", "ab") as log:
            child = subprocess.Popen(
                self.argv(*command), env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
            )
        self._children.append(child)
        return child

    def start_daemon(self, name: str) -> None:
        """Start a node with every default: mDNS on, the default ports."""
        self.start(sys.executable, "-m", "agentmesh.daemon", "--name", name)

    def start_agent(self, module: str) -> None:
        """Start an agent process beside the node, once that is up."""
        deadline = time.monotonic() + 20
        while not (self.home / "daemon.json").exists():
            assert time.monotonic() < deadline, f"the daemon of {self.namespace} did not come up"
            time.sleep(0.02)
        self.start(sys.executable, "-m", module)

    def seconds_until_it_sees(self, agent: str, timeout_s: float = 20.0) -> float:
        """Return how long from now it takes until its node lists the agent as healthy."""
        done = subprocess.run(
            self.argv(sys.executable, "-c", READY, str(self.home), agent, str(timeout_s)),
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout_s + 10,
            check=False,
        )
        assert done.returncode == 0, (
            f"{done.stderr}\n{(self.home.parent / f'{self.home.name}.log').read_text()[-3000:]}"
        )
        return float(done.stdout)

    def cli(self, *args: str) -> str:
        """Run ``agentmesh`` on this host and return what it printed."""
        done = subprocess.run(
            self.argv(sys.executable, "-m", "agentmesh.cli.main", *args),
            env=self.env,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def stop(self) -> None:
        """End what was started here, newest first."""
        for child in reversed(self._children):
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._children.clear()


@contextlib.contextmanager
def lan(root: Path) -> Iterator[tuple[Host, Host]]:
    """Make two hosts on one segment; everything is gone afterwards."""
    tag = f"am{os.getpid()}-{time.monotonic_ns() % 100_000}"
    names = (f"{tag}-a", f"{tag}-b")
    ends = (f"v{tag[-9:]}a", f"v{tag[-9:]}b")
    hosts = tuple(Host(name, root / name[-1]) for name in names)
    run = _run
    try:
        for name in names:
            run("ip", "netns", "add", name)
        run("ip", "link", "add", ends[0], "netns", names[0], "type", "veth", "peer", "name", ends[1], "netns", names[1])
        for name, end, address in zip(names, ends, ("10.77.0.1/24", "10.77.0.2/24"), strict=True):
            run("ip", "-n", name, "addr", "add", address, "dev", end)
            run("ip", "-n", name, "link", "set", "lo", "up")
            run("ip", "-n", name, "link", "set", end, "up")
            run("ip", "-n", name, "route", "add", "default", "dev", end)
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            host.stop()
        for name in names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True, capture_output=True)


class Cable:
    """Two network segments joined by a switch that can be taken apart: what is sent across is then lost without a word.

    Attributes:
        sides: For each segment, the start of a command line that runs a command there.
        hosts: The address of each.
    """

    hosts = ("10.78.0.1", "10.78.0.2")

    def __init__(self, tag: str) -> None:
        self._names = (f"{tag}-a", f"{tag}-b", f"{tag}-s")
        self._ends = (f"v{tag[-9:]}a", f"v{tag[-9:]}b")
        self.sides = tuple(["ip", "netns", "exec", name] for name in self._names[:2])

    def lay(self) -> None:
        """Make the namespaces and join them."""
        for name in self._names:
            _run("ip", "netns", "add", name)
            _run("ip", "-n", name, "link", "set", "lo", "up")
        switch = self._names[2]
        _run("ip", "-n", switch, "link", "add", "sw", "type", "bridge")
        _run("ip", "-n", switch, "link", "set", "sw", "up")
        for name, end, host in zip(self._names[:2], self._ends, self.hosts, strict=True):
            _run("ip", "link", "add", end, "netns", name, "type", "veth", "peer", "name", f"{end}p", "netns", switch)
            _run("ip", "-n", name, "addr", "add", f"{host}/24", "dev", end)
            _run("ip", "-n", name, "link", "set", end, "up")
            _run("ip", "-n", switch, "link", "set", f"{end}p", "up")
        self.join()

    def cut(self) -> None:
        """Part the two sides; both interfaces stay up."""
        _run("ip", "-n", self._names[2], "link", "set", f"{self._ends[1]}p", "nomaster")

    def join(self) -> None:
        """Bring them together again."""
        for end in self._ends:
            _run("ip", "-n", self._names[2], "link", "set", f"{end}p", "master", "sw")

    def remove(self) -> None:
        """Delete the namespaces, and with them everything in them."""
        for name in self._names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    """Give two joined segments; both are gone afterwards."""
    one = Cable(f"am{os.getpid()}-{time.monotonic_ns() % 100_000}")
    try:
        one.lay()
        yield one
    finally:
        one.remove()
