"""Find the daemon: its address in ``$AGENTMESH_HOME/daemon.json``, its token in ``$AGENTMESH_API_KEY`` or
``$AGENTMESH_HOME/api.token``.

Used by the client and by agent processes. Reads two small files; never connects.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from agentmesh.errors import ConfigError, NoRoute, Unauthorized

_FILE_BYTES_MAX = 65536
#: Environment variables that may hold an API key, a JWT or the token; the first that is set counts.
TOKEN_VARIABLES = ("AGENTMESH_API_KEY", "AGENTMESH_TOKEN")


class _DaemonFile(msgspec.Struct):
    port: int
    pid: int = 0


def home_dir(home: str | os.PathLike[str] | None = None) -> Path:
    """Return the home directory: the argument, else ``$AGENTMESH_HOME``, else the platform's user data directory."""
    if home is not None:
        return Path(home).expanduser()
    if env := os.environ.get("AGENTMESH_HOME"):
        return Path(env).expanduser()
    import platformdirs

    return Path(platformdirs.user_data_dir("agentmesh", appauthor=False))


def locate(
    home: str | os.PathLike[str] | None = None, url: str | None = None, token: str | None = None
) -> tuple[str, str]:
    """Return (base URL without a slash at its end, token) of the daemon.

    Args:
        home: Home directory; see ``home_dir``.
        url: Overrides the address in the file.
        token: Overrides ``$AGENTMESH_API_KEY``, ``$AGENTMESH_TOKEN`` and the token in the file, of which the first that is
            there counts.

    Raises:
        NoRoute: no daemon has written its address there (code "daemon.not_running").
        ConfigError: the file makes no sense (code "daemon.bad_file").
        Unauthorized: the token file is missing or closed to us (code "daemon.no_token").
    """
    base = home_dir(home)
    url = url or f"http://127.0.0.1:{_port(base / 'daemon.json')}"
    token = token or _from_environment() or _token(base / "api.token")
    return url.rstrip("/"), token


def not_running(where: str) -> NoRoute:
    """Build the error for a daemon that is not there; ``where`` says what was looked at."""
    return NoRoute(
        "no AgentMesh daemon is running here",
        code="daemon.not_running",
        why=where,
        hint="agentmesh up",
    )


def _port(path: Path) -> int:
    try:
        raw = _read(path)
    except FileNotFoundError:
        raise not_running(f"{path} does not exist") from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}", code="daemon.bad_file", why=str(error)) from error
    try:
        port = msgspec.json.decode(raw, type=_DaemonFile).port
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path} makes no sense", code="daemon.bad_file", why=str(error), hint="agentmesh down && agentmesh up"
        ) from error
    if not 0 < port < 65536:
        raise ConfigError(f"{path} names port {port}", code="daemon.bad_file", hint="agentmesh down && agentmesh up")
    return port


def _from_environment() -> str | None:
    for name in TOKEN_VARIABLES:
        if token := os.environ.get(name, "").strip():
            if not (token.isascii() and token.isprintable()) or " " in token:
                raise Unauthorized(f"${name} holds no key", code="daemon.no_token", hint=f"unset {name}")
            return token
    return None


def _token(path: Path) -> str:
    try:
        text = _read(path).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unauthorized(
            "cannot read the daemon's API token",
            code="daemon.no_token",
            why=f"{path}: {error}",
            hint="run as the user that started the daemon, or agentmesh down && agentmesh up",
        ) from error
    if not text or any(c.isspace() for c in text):
        raise Unauthorized(f"{path} holds no token", code="daemon.no_token", hint="agentmesh down && agentmesh up")
    return text


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_FILE_BYTES_MAX)
