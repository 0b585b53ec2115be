"""The home directory: where everything of one node lives, so that many nodes run side by side on one machine.

    config.toml  bootstrap.json  policies/  what people write
    issuers.toml  guard.toml               … and may: whose tokens count, who may have how much
    identity/    api.token  operator.key   secrets, mode 0600 in a 0700 directory
    keys.sqlite  tenants.sqlite            hashes of API keys; tenants and their tasks
    sessions.sqlite                        hashes of who is logged in to the console
    orders.json                            orders of operators in force, so that a stopped node starts stopped
    events/      state.sqlite              what the node remembers
    calls.sqlite  calls/                   receipts; those of the last second, and tokens that were used
    ledger.sqlite                          what calls have cost
    audit/                                 the audit log, never deleted by this program
    trust.sqlite                           what it saw of others
    federation.toml  federation.sqlite     whom this node shows agents; what others showed it
    organisations/                         keys of organisations, where people made them
    models/                                local models that search by meaning
    daemon.json  daemon.lock  daemon.log   the running daemon
    home_version                           layout version, "1"

``$AGENTMESH_HOME`` moves it; otherwise it is the platform's user data directory.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping
from pathlib import Path

from agentmesh.errors import ConfigError, Full

HOME_VERSION = 1
_VERSION_BYTES_MAX = 32
_PROBE_BYTES = 4096


def default_home() -> Path:
    """Return the platform's user data directory for AgentMesh (no directory is made)."""
    import platformdirs

    return Path(platformdirs.user_data_dir("agentmesh", appauthor=False))


class Home:
    """Paths in one home directory. Making a ``Home`` touches nothing.

    Args:
        path: The directory; made absolute, ``~`` expanded.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(os.path.abspath(Path(path).expanduser()))
        self.config = self.path / "config.toml"
        self.bootstrap = self.path / "bootstrap.json"
        self.policies = self.path / "policies"
        self.identity = self.path / "identity"
        self.node_key = self.identity / "node.key"
        self.agent_keys = self.identity / "agents"
        self.tls_pem = self.identity / "tls.pem"
        self.root_key = self.identity / "root.key"
        self.credential = self.identity / "credential.jwt"
        self.revoked = self.identity / "revoked.txt"
        self.organisation = self.identity / "organisation.jwt"
        self.organisations = self.path / "organisations"
        self.federation = self.path / "federation.toml"
        self.federated = self.path / "federation.sqlite"
        self.operator_key = self.path / "operator.key"
        self.orders = self.path / "orders.json"
        self.api_token = self.path / "api.token"
        self.issuers = self.path / "issuers.toml"
        self.keys = self.path / "keys.sqlite"
        self.sessions = self.path / "sessions.sqlite"
        self.tenants = self.path / "tenants.sqlite"
        self.events = self.path / "events"
        self.state = self.path / "state.sqlite"
        self.calls = self.path / "calls.sqlite"
        self.ledger = self.path / "ledger.sqlite"
        self.audit = self.path / "audit"
        self.trust = self.path / "trust.sqlite"
        self.critical = self.path / "critical.sqlite"
        self.nats = self.path / "nats"
        self.models = self.path / "models"
        self.runfile = self.path / "daemon.json"
        self.lock = self.path / "daemon.lock"
        self.log = self.path / "daemon.log"
        self.version_file = self.path / "home_version"

    def __str__(self) -> str:
        return str(self.path)

    def check(self) -> None:
        """Refuse a home that a newer AgentMesh made. A home that does not exist yet is fine.

        Raises:
            ConfigError: newer layout, or no version number where one belongs. No state changed.
            Full: the home cannot be read. No state changed.
        """
        try:
            with open(self.version_file, "rb") as file:
                text = file.read(_VERSION_BYTES_MAX)
        except FileNotFoundError:
            return
        except NotADirectoryError as error:
            raise ConfigError(f"{self.path} is not a directory", code="home.not_a_directory") from error
        except OSError as error:
            raise storage_error(error, self.version_file) from error
        try:
            version = int(text.strip())
        except ValueError as error:
            raise ConfigError(
                f"{self.version_file} holds no version number",
                code="home.unreadable",
                hint=f"if this home was made by this version: echo {HOME_VERSION} > {self.version_file}",
            ) from error
        if version > HOME_VERSION:
            raise ConfigError(
                f"the home {self.path} was made by a newer AgentMesh",
                code="home.newer",
                why=f"its layout version is {version}, this program knows {HOME_VERSION}",
                hint="upgrade agentmesh on this machine, or pass --home DIR for another home",
            )

    def prepare(self) -> None:
        """Make the home (mode 0700) and its version file if they are missing; check that we may write there.

        Raises:
            ConfigError: made by a newer version, not a directory, or others may write there. No state changed.
            Full: read-only, no permission, or the disk is full.
        """
        self.check()
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._refuse_open_doors()
            if not self.version_file.exists():
                write_atomic(self.version_file, f"{HOME_VERSION}\n".encode())
            else:
                import tempfile

                with tempfile.TemporaryFile(dir=self.path) as probe:
                    probe.write(bytes(_PROBE_BYTES))
        except FileExistsError as error:
            raise ConfigError(f"{self.path} is not a directory", code="home.not_a_directory") from error
        except OSError as error:
            raise storage_error(error, self.path) from error

    def _refuse_open_doors(self) -> None:
        """Refuse a home in which others may write: they could replace the node's keys. An empty one of ours is closed."""
        status = self.path.stat()
        if not status.st_mode & 0o022:
            return
        if status.st_uid == os.geteuid() and not any(self.path.iterdir()):
            self.path.chmod(0o700)
            return
        raise ConfigError(
            f"others may write in {self.path} (mode {stat.S_IMODE(status.st_mode):04o})",
            code="home.permissions",
            why="whoever writes there could replace this node's keys",
            hint=f"chmod 700 {self.path}",
        )


def find_home(flag: str | Path | None = None, environ: Mapping[str, str] | None = None) -> tuple[Home, str]:
    """Return the home and where its path came from: the flag, ``AGENTMESH_HOME``, or the platform's default."""
    environ = os.environ if environ is None else environ
    if flag:
        return Home(flag), "flag --home"
    if environ.get("AGENTMESH_HOME"):
        return Home(environ["AGENTMESH_HOME"]), "environment AGENTMESH_HOME"
    return Home(default_home()), "default"


def storage_error(error: OSError, path: Path) -> Full:
    """Turn an OSError of the home into the error people see, with the cause and the next step."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Full(f"no space left for {path}", code="store.full", why=str(error), hint=f"df -h {path.parent}")
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return Full(
            f"cannot write to {path}" if error.errno != errno.EACCES else f"no permission for {path}",
            code="store.read_only",
            why=error.strerror or str(error),
            hint=f"ls -ld {path}    or use another home: --home DIR",
        )
    return Full(f"{path}: {error.strerror or error}", code="store.failed", hint=f"ls -ld {path}")


def write_atomic(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace a file so that readers see the old or the new content, never half of it.

    Raises:
        Full: disk full, read-only or no permission. The old content stays.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise storage_error(error, path) from error
