"""The home directory: everything a node keeps, under one path (docs/reference/files.md).

``AGENTMESH_HOME`` moves it, so that many nodes run on one machine.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from agentmesh.errors import ConfigError, Full, MeshError, UsageError
from agentmesh.ids import is_name
from agentmesh.store.jsonl import sync_directory
from agentmesh.store.keyfile import make_private

#: The layout that this version writes. A home of a higher version is left alone.
HOME_VERSION = 1
_PROBE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Home:
    """Where each file is. Making one touches nothing on disk; ``open_home`` does.

    Attributes:
        path: The directory itself.
    """

    path: Path

    @property
    def config(self) -> Path:
        """Settings, TOML."""
        return self.path / "config.toml"

    @property
    def bootstrap(self) -> Path:
        """Seeds to connect to, JSON."""
        return self.path / "bootstrap.json"

    @property
    def identity(self) -> Path:
        """Directory of keys."""
        return self.path / "identity"

    @property
    def node_key(self) -> Path:
        """The node's key."""
        return self.identity / "node.key"

    @property
    def tls_pem(self) -> Path:
        """Certificate and key of the TLS transport."""
        return self.identity / "tls.pem"

    def agent_key(self, name: str) -> Path:
        """Return where the key of an agent is.

        Raises:
            UsageError: not an agent's name, so no file's either. No state changed.
        """
        if not is_name(name):
            raise UsageError(f"{name[:80]!r} is no agent name", code="usage.name")
        return self.identity / "agents" / f"{name}.key"

    @property
    def api_token(self) -> Path:
        """The token that guards the HTTP API."""
        return self.path / "api.token"

    @property
    def daemon_json(self) -> Path:
        """The running daemon's pid, port, node id and version."""
        return self.path / "daemon.json"

    @property
    def daemon_lock(self) -> Path:
        """Held by the running daemon."""
        return self.path / "daemon.lock"

    @property
    def daemon_log(self) -> Path:
        """The daemon's log, JSON lines."""
        return self.path / "daemon.log"

    @property
    def events(self) -> Path:
        """Directory of the event log."""
        return self.path / "events"

    @property
    def state(self) -> Path:
        """Registrations, contacts and counters, SQLite."""
        return self.path / "state.sqlite"

    @property
    def version_file(self) -> Path:
        """The version of this layout."""
        return self.path / "home_version"


def default_home() -> Path:
    """Return ``$AGENTMESH_HOME``, else the platform's directory for user data."""
    given = os.environ.get("AGENTMESH_HOME", "").strip()
    return Path(given).expanduser().absolute() if given else Path(platformdirs.user_data_dir("agentmesh"))


def open_home(path: Path | None = None) -> Home:
    """Make or check the home directory and prove that it can be written.

    Args:
        path: The directory; ``default_home()`` when left out. Links are followed.

    Raises:
        ConfigError: "home.newer", "home.not_directory", "home.permissions" (others may write there), "home.permission"
            (we may not), "home.malformed", "home.unusable". Nothing was changed.
        Full: "home.read_only" or "store.full". Nothing of use was changed.
    """
    home = Home((path or default_home()).expanduser().absolute())
    try:
        if home.path.exists() and not home.path.is_dir():
            raise ConfigError(
                f"{home.path} is not a directory", code="home.not_directory", hint="set AGENTMESH_HOME to a directory"
            )
        make_private(home.path)
        version = _version(home)
        if version is not None and version > HOME_VERSION:
            raise ConfigError(
                f"{home.path} was written by a newer agentmesh (layout {version}, this one knows {HOME_VERSION})",
                code="home.newer",
                hint="upgrade agentmesh here, or use another home:   export AGENTMESH_HOME=~/agentmesh-old",
            )
        _check_mode(home.path)
        _probe(home.path)
        if version is None:
            _write_version(home)
    except OSError as error:
        raise _home_error(error, home.path) from error
    return home


def _version(home: Home) -> int | None:
    try:
        with home.version_file.open("rb") as file:
            text = file.read(32).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    if not text.isascii() or not text.isdigit():
        raise ConfigError(
            f"{home.version_file} holds no version number",
            code="home.malformed",
            hint=f"if this is a home of agentmesh:   echo {HOME_VERSION} > {home.version_file}",
        )
    return int(text)


def _check_mode(path: Path) -> None:
    """See that nobody else can put files here. An empty directory of ours is closed, any other is left to its owner."""
    status = path.stat()
    if status.st_mode & 0o022 == 0:
        return
    with os.scandir(path) as entries:
        empty = next(entries, None) is None
    if empty and status.st_uid == os.geteuid():
        path.chmod(0o700)
        return
    raise ConfigError(
        f"others may write in {path} (mode {stat.S_IMODE(status.st_mode):04o})",
        code="home.permissions",
        why="whoever writes there could replace this node's keys",
        hint=f"chmod 700 {path}",
    )


def _probe(path: Path) -> None:
    """Write and remove a small file: permission bits, mount options and free space in one question. Raises OSError."""
    probe = path / f".probe-{os.getpid()}.tmp"
    fd = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        if os.write(fd, bytes(_PROBE_BYTES)) != _PROBE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    finally:
        os.close(fd)
        probe.unlink(missing_ok=True)


def _write_version(home: Home) -> None:
    temporary = home.path / f".home_version-{os.getpid()}.tmp"
    try:
        temporary.write_text(f"{HOME_VERSION}\n")
        temporary.rename(home.version_file)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(home.path)


def _home_error(error: OSError, path: Path) -> MeshError:
    reason = error.strerror or str(error)
    if error.errno == errno.EROFS:
        return Full(
            f"{path} is on a read-only file system",
            code="home.read_only",
            hint="use another home:   export AGENTMESH_HOME=/somewhere/writable",
        )
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Full(f"no space left for {path}", code="store.full", hint=f"free some space:   df -h {path}")
    if error.errno in (errno.EACCES, errno.EPERM):
        return ConfigError(
            f"no permission to use {path}",
            code="home.permission",
            hint=f"make it yours, or use another:   ls -ld {path}; export AGENTMESH_HOME=~/agentmesh",
        )
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        return ConfigError(
            f"{path} is not a directory", code="home.not_directory", hint="set AGENTMESH_HOME to a directory"
        )
    return ConfigError(
        f"cannot use {path}: {reason}", code="home.unusable", hint="use another:   export AGENTMESH_HOME=~/agentmesh"
    )
