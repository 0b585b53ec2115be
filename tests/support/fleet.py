"""A fleet of real nodes: whole nodes over real sockets, several per process, several processes, driven line by line.

The test holds a ``Fleet``. Each process of it runs ``python -m tests.support.fleet`` and obeys one JSON object per line on
stdin, answering with one per line on stdout; its nodes are those of the daemon without the HTTP API: brain, links, calls,
event log and state store on disk, so that a killed process comes back with what it had stored. Agents are scripted echoes
inside the process.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop

from agentmesh.core.brain import BrainConfig
from agentmesh.errors import MeshError, ReadOnly
from agentmesh.net.base import Transport
from agentmesh.node.config import NodeConfig
from agentmesh.node.door import Door, Happening, Health, Invocation
from agentmesh.node.node import Node
from agentmesh.store.audit import AuditLog
from agentmesh.store.audit_files import AuditConfig
from agentmesh.store.calls import CallStore
from agentmesh.store.eventlog import EventLog
from agentmesh.store.keyfile import load_or_create_key
from agentmesh.store.ledger import Ledger
from agentmesh.store.state import StateStore
from agentmesh.store.trust import TrustStore
from agentmesh.wire.views import CallRequest, RegisterRequest
from tests.support.daemons import wait_until

ROOT = Path(__file__).resolve().parent.parent.parent

# -- inside a process of the fleet -------------------------------------------------------------------------------------


@dataclass
class Found:
    """An echo agent as the kit finds it."""

    name: str
    target: dict[str, Any]
    description: str = "Says what it hears."
    version: str = "1"
    skills: list[dict[str, Any]] = field(
        default_factory=lambda: [{"id": "echo", "name": "Echo", "description": "Says what it hears.", "tags": ["test"]}]
    )
    input_modes: list[str] = field(default_factory=lambda: ["text/plain"])
    output_modes: list[str] = field(default_factory=lambda: ["text/plain"])
    extra: dict[str, Any] = field(default_factory=dict)


class EchoDoor:
    """Answers with the first text it was given, and the name of its node."""

    def __init__(self, kit: EchoKit) -> None:
        self._kit = kit

    async def invoke(self, call: Invocation) -> AsyncIterator[Happening]:
        """Echo."""
        text = f"{self._kit.node_name}: {call.parts[0].get('text', '')}"
        yield Happening("message", {"role": "agent", "parts": [{"text": text}]})
        yield Happening("status", {"state": "completed"})

    async def cancel(self, task_id: str) -> None:
        """Nothing runs long enough."""

    async def health(self) -> Health:
        """Be as well as the test says."""
        return Health("unhealthy", "made sick by the test") if self._kit.sick else Health("healthy")

    async def aclose(self) -> None:
        """Hold nothing."""


class EchoKit:
    """Finds an echo of any name under ``http://NAME/``."""

    def __init__(self, node_name: str) -> None:
        self.node_name = node_name
        self.sick = False

    async def find(self, url: str, door: str, least: int = -1) -> tuple[str, Sequence[Found]]:
        """Find one agent named as the URL's host."""
        return "http", [Found(url.removeprefix("http://").strip("/"), {"url": url})]

    def open(self, door: str, target: dict[str, Any]) -> Door:
        """Open the echo."""
        return EchoDoor(self)

    async def aclose(self) -> None:
        """Hold nothing."""


class Member:
    """One node of the process, running or stopped; its home outlives it."""

    def __init__(self, name: str, home: Path, args: argparse.Namespace) -> None:
        self.name, self.home, self.args = name, home, args
        self.kit = EchoKit(name)
        self.node: Node | None = None
        self.stopped_at: float | None = None
        self._stack = contextlib.AsyncExitStack()

    async def open(self, seeds: Sequence[str]) -> None:
        """Start it, with what its home holds."""
        self.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        key = load_or_create_key(self.home / "node.key")
        log = await EventLog.open(self.home / "events", key.did)
        self._stack.push_async_callback(log.aclose)
        state = StateStore.open(self.home / "state.sqlite")
        self._stack.callback(state.close)
        calls = CallStore.open(self.home / "calls.sqlite")
        self._stack.callback(calls.close)
        ledger = Ledger.open(self.home / "ledger.sqlite")
        self._stack.callback(ledger.close)
        audit = AuditLog.open(self.home / "audit", key, AuditConfig(reserve_bytes=1 << 16))
        self._stack.push_async_callback(audit.aclose)
        trust = TrustStore.open(self.home / "trust.sqlite")
        self._stack.callback(trust.close)
        node = Node(
            key,
            NodeConfig(
                name=self.name, version="0", health_interval_s=2.0, site=self.args.site, operators=self.args.operators
            ),
            BrainConfig(),
            [self._transport(key)],
            self.kit,
            log,
            state,
            calls,
            ledger,
            audit,
            keys_dir=self.home / "keys",
            home=self.home,
            http_port=lambda: 1,
            trust_store=trust,
            udp_listen=f"{self.args.host}:0",
        )
        self._stack.push_async_callback(node.aclose)
        await node.open(seeds)
        self.node, self.stopped_at = node, None
        end_calls = node.switch.on_stop

        def on_stop(error: ReadOnly) -> None:
            self.stopped_at = time.time()
            assert end_calls is not None
            end_calls(error)

        node.switch.on_stop = on_stop

    def _transport(self, key: Any) -> Transport:
        listen = f"{self.args.host}:0"
        if self.args.transport == "iroh":
            from agentmesh.net.iroh import IrohTransport

            return IrohTransport(key, listen)
        from agentmesh.net.tls import TlsTransport

        return TlsTransport(key, listen, cert_path=self.home / "tls.pem")

    async def aclose(self) -> None:
        """Leave as a daemon does that is told to stop."""
        self.node = None
        stack, self._stack = self._stack, contextlib.AsyncExitStack()
        await stack.aclose()

    def facts(self) -> dict[str, Any]:
        """Return who it is and how it sees the mesh."""
        assert self.node is not None
        status = self.node.status()
        peers = self.node.peers()
        agents = {v.agent_id: [v.seq, v.status] for v in self.node.agents()}
        raw = json.dumps(sorted(agents.items())).encode()
        records = json.dumps(sorted((agent, seq) for agent, (seq, _) in agents.items())).encode()
        return {
            "name": self.name,
            "node_id": self.node.node_id,
            "seed": status.seed,
            "agents": len(agents),
            "healthy": sum(status == "healthy" for _, status in agents.values()),
            "records": hashlib.sha256(records).hexdigest()[:16],
            "directory": hashlib.sha256(raw).hexdigest()[:16],
            "names": sorted(v.name for v in self.node.agents() if v.status == "healthy"),
            "known": len(peers),
            "links": sum(p.connected for p in peers),
            "alive": sorted(p.node_name for p in peers if p.state == "alive"),
            "states": {p.node_name: p.state for p in peers},
            "zone": status.zone,
            "members": status.members,
            "long_links": status.long_links,
            "cut_off": [status.cut_off.lost, status.cut_off.known, status.cut_off.isolated] if status.cut_off else None,
            "warnings": status.warnings,
            "read_only": status.read_only,
            "stopped_at": self.stopped_at,
        }


class Worker:
    """Obeys the test: one command per line."""

    def __init__(self, args: argparse.Namespace) -> None:
        names = [f"n{i}" for i in range(args.first, args.first + args.count)]
        self.members = {name: Member(name, args.root / name, args) for name in names}

    def _running(self, name: str) -> Node:
        node = self.members[name].node
        assert node is not None, f"{name} does not run"
        return node

    async def do(self, command: dict[str, Any]) -> Any:
        """Carry out one command and return its answer."""
        match command["do"]:
            case "open":
                await asyncio.sleep(command.get("wait_s", 0.0))
                for name in command.get("names") or self.members:
                    await self.members[name].open(command.get("seeds", ()))
                    await asyncio.sleep(command.get("pace_s", 0.0))
                return [m.facts() for m in self.members.values() if m.node]
            case "join":
                await self._running(command["name"]).add_seeds(command["seeds"])
                return None
            case "facts":
                return [m.facts() for m in self.members.values() if m.node]
            case "register":
                request = RegisterRequest(url=f"http://{command['agent']}/", door="http")
                return (await self._running(command["name"]).register(request))[0].agent_id
            case "sicken":
                self.members[command["name"]].kit.sick = command["sick"]
                return None
            case "call":
                request = CallRequest(to=command["to"], text=command.get("text", "hello"), timeout_s=10)
                reply = await (await self._running(command["name"]).call(request)).reply()
                return {"text": reply.text, "state": reply.state, "node_id": reply.node_id, "ms": reply.ms}
            case "net":
                view = await self._running(command["name"]).net()
                view.map = []
                return json.loads(__import__("msgspec").json.encode(view))
            case "order":
                at_s = time.time()
                await self._running(command["name"]).take_order(command["order"])
                return at_s
            case "write":
                return await self._refusals(command["name"], command["to"], command["count"])
            case "close":
                await self.members[command["name"]].aclose()
                return None
            case other:
                raise AssertionError(f"no command {other!r}")

    async def _refusals(self, name: str, to: str, count: int) -> int:
        """Try to call, register and withdraw so many times; return how often that was refused because of a stop."""
        node, refused = self._running(name), 0
        for number in range(count):
            with contextlib.suppress(ReadOnly):
                match number % 3:
                    case 0:
                        await (await node.call(CallRequest(to=to, text="x", timeout_s=10))).reply()
                    case 1:
                        await node.register(RegisterRequest(url=f"http://late-{number}/", door="http"))
                    case _:
                        await node.deregister(to)
                refused -= 1
            refused += 1
        return refused

    async def obey(self) -> None:
        """Read commands until stdin ends, then leave with every node."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=1 << 20)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            try:
                async with asyncio.timeout(1_200):
                    answer: dict[str, Any] = {"ok": await self.do(json.loads(line))}
            except (MeshError, AssertionError, TimeoutError, KeyError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            print(json.dumps(answer), flush=True)
        await asyncio.gather(*(m.aclose() for m in self.members.values()))


def main() -> None:
    """Run one process of a fleet."""
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=4)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--transport", default="tls")
    parser.add_argument("--site", default="")
    parser.add_argument("--operators", type=lambda text: tuple(text.split(",")), default=())
    args = parser.parse_args()
    args.root.mkdir(parents=True, exist_ok=True)
    logging.basicConfig(
        filename=args.root / f"worker-{args.first}.log",
        level=logging.INFO,
        format="%(asctime)s %(name)s %(message)s",
    )
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:  # the loop that the daemon runs on
        runner.run(Worker(args).obey())


# -- in the test -------------------------------------------------------------------------------------------------------


class Squad:
    """One process of the fleet, seen from the test."""

    def __init__(self, root: Path, first: int, count: int, options: Sequence[str]) -> None:
        self.names = [f"n{i}" for i in range(first, first + count)]
        self._root = root
        self._argv = [
            sys.executable, "-m", "tests.support.fleet", str(root), "--first", str(first), "--count", str(count),
            *options,
        ]  # fmt: skip
        self._process: subprocess.Popen[str] | None = None

    def place(self, prefix: Sequence[str], host: str) -> None:
        """Run behind a command prefix and listen on that address; before ``start``."""
        self._argv = [*prefix, *self._argv, "--host", host]

    @property
    def runs(self) -> bool:
        """Whether the process is there."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the process; its nodes are opened by the first command."""
        self._root.mkdir(parents=True, exist_ok=True)
        with open(self._root / f"worker-{self.names[0]}.err", "ab") as err:
            self._process = subprocess.Popen(
                self._argv, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True, bufsize=1
            )

    def say(self, do: str, **more: Any) -> None:
        """Send a command without waiting; ``hear`` returns its answer."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **more}) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """Return the answer to the oldest command that is not answered yet; fails with what went wrong there."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the process of {self.names[0]} … ended:\n{self._errors()}"
        answer = json.loads(line)
        assert "error" not in answer, f"{answer['error']}\n{self._errors()}"
        return answer["ok"]

    def _errors(self) -> str:
        return (self._root / f"worker-{self.names[0]}.err").read_text("utf-8", "replace")[-4000:]

    def ask(self, do: str, **more: Any) -> Any:
        """Send a command and return its answer."""
        self.say(do, **more)
        return self.hear()

    def kill(self) -> None:
        """End it with SIGKILL: every node of it is gone without a word."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._end()

    def close(self) -> None:
        """Let its nodes leave gracefully and end it."""
        if self._process is not None:
            if self._process.stdin is not None:
                with contextlib.suppress(OSError):
                    self._process.stdin.close()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
            self._end()

    def _end(self) -> None:
        assert self._process is not None
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        self._process = None


class Fleet:
    """Processes with several nodes each.

    Args:
        root: Homes and logs.
        processes, per_process: How many.
        options: Further options of every process (``--transport iroh``).
    """

    def __init__(self, root: Path, processes: int, per_process: int, options: Sequence[str] = ()) -> None:
        self.squads = [Squad(root, i * per_process, per_process, options) for i in range(processes)]

    def put(self, squad: int, side: Sequence[str], host: str) -> None:
        """Have a process run behind a command prefix (a network namespace) and listen on the address of that place."""
        self.squads[squad].place(side, host)

    def open(self, pace_s: float = 0.0) -> str:
        """Start every process and node; all know only the first one. Returns its seed.

        ``pace_s`` is the pause between any two of them: hundreds at once on two cores would spend their first minute
        declaring each other dead for being slow.
        """
        for squad in self.squads:
            squad.start()
        first = self.squads[0]
        seed = first.ask("open", names=first.names[:1])[0]["seed"]
        each_s = pace_s * len(self.squads)
        for index, squad in enumerate(self.squads):
            names = squad.names if index else squad.names[1:]
            squad.say("open", names=names, seeds=[seed], wait_s=index * pace_s, pace_s=each_s)
        for squad in self.squads:
            squad.hear()
        return seed

    def facts(self) -> list[dict[str, Any]]:
        """Return what every running node says of itself, asked in parallel."""
        running = [squad for squad in self.squads if squad.runs]
        for squad in running:
            squad.say("facts")
        return [one for squad in running for one in squad.hear()]

    def squad_of(self, name: str) -> Squad:
        """Return the process of a node."""
        return next(squad for squad in self.squads if name in squad.names)

    def ask(self, name: str, do: str, **more: Any) -> Any:
        """Send a command to one node."""
        return self.squad_of(name).ask(do, name=name, **more)

    def until(self, holds: Any, what: str, timeout_s: float = 30.0) -> float:
        """Ask every node again and again until ``holds(facts)``; return the seconds it took. Fails with what they say."""
        begin = time.monotonic()
        facts: list[dict[str, Any]] = []

        def check() -> bool:
            nonlocal facts
            asked = time.monotonic()
            facts = self.facts()
            if holds(facts):
                return True
            # To ask hundreds of nodes is work that they lack for what is waited for: at most a fifth of the time.
            time.sleep(4 * (time.monotonic() - asked))
            return False

        try:
            wait_until(check, what, timeout_s)
        except AssertionError as error:
            raise AssertionError("\n".join((str(error), *map(_line, facts)))) from None
        return time.monotonic() - begin

    def close(self) -> None:
        """Stop everything, the first process last."""
        for squad in reversed(self.squads):
            squad.close()


@contextlib.contextmanager
def fleet(root: Path, processes: int, per_process: int, *options: str) -> Iterator[Fleet]:
    """Give a fleet that is open, and stop it afterwards."""
    one = Fleet(root, processes, per_process, options)
    try:
        one.open()
        yield one
    finally:
        one.close()


def _line(facts: dict[str, Any]) -> str:
    """Return what one node says of itself in one line, for people who look into a failure."""
    states = Counter(facts["states"].values())
    numbers = [f"{key} {facts[key]}" for key in ("links", "known", "members", "long_links", "agents", "healthy")]
    return " · ".join(
        (facts["name"], *numbers, facts["records"][:6], facts["zone"], str(dict(states)), str(facts["cut_off"]))
    )


def same_records(facts: Sequence[dict[str, Any]], agents: int) -> bool:
    """Say whether every node holds the same records of agents, so many of them, whatever it thinks of their health."""
    return all(one["agents"] == agents for one in facts) and len({one["records"] for one in facts}) == 1


def same_directory(facts: Sequence[dict[str, Any]], agents: int) -> bool:
    """Say whether every node lists the same agents in the same state, so many of them."""
    return all(one["agents"] == agents for one in facts) and len({one["directory"] for one in facts}) == 1


if __name__ == "__main__":
    main()
