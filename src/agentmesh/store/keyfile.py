"""Secrets on disk: the seed of a key and the API token, each in a file that only its owner can read.

A file is made whole or not at all, never overwritten, and its mode is 0600 from its first moment, whatever the umask.
One that others can read is refused, not mended: the secret may be out already, and only a person can judge that.
Secrets appear in no message.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from agentmesh.errors import ConfigError
from agentmesh.identity.keys import KeyPair
from agentmesh.store.jsonl import full_error, sync_directory

_HEADER = "agentmesh ed25519 seed v1"
_KEY = re.compile(_HEADER + r"\n([0-9a-f]{64})\n?")
_TOKEN = re.compile(r"([A-Za-z0-9_-]{32,256})\n?")
_FILE_BYTES_MAX = 1024
#: How files of other programs begin that keep a key under a passphrase.
_ENCRYPTED = re.compile(r"-----BEGIN (?:ENCRYPTED|PGP|AGE ENCRYPTED|OPENSSH PRIVATE)|age-encryption\.org/|Salted__")


def load_or_create_key(path: Path) -> KeyPair:
    """Return the key pair kept in a file, making both on first use.

    Raises:
        ConfigError: "key.permissions" (others can read it), "key.encrypted", "key.malformed", "key.unreadable". The file is as
            it was.
        Full: it could not be written. Nothing is left behind.
    """
    return _key_in(path, _load_or_create(path, "key", _new_key))


def load_key(path: Path) -> KeyPair:
    """Return the key pair kept in a file, which must be there.

    Raises:
        ConfigError: "key.missing", and as ``load_or_create_key``.
    """
    try:
        text = load_secret(path, "key", _FILE_BYTES_MAX)
    except FileNotFoundError as error:
        raise ConfigError(f"there is no key in {path}", code="key.missing", hint=f"ls -l {path.parent}") from error
    return _key_in(path, text)


def _new_key() -> str:
    return f"{_HEADER}\n{secrets.token_hex(32)}\n"


def _key_in(path: Path, text: str) -> KeyPair:
    match = _KEY.fullmatch(text)
    if not match and _ENCRYPTED.match(text):
        raise ConfigError(
            f"{path} is encrypted",
            code="key.encrypted",
            why="agentmesh reads keys in its own form only, and asks nobody for a passphrase",
            hint=f"decrypt it where only you can read it, use it, and lock it away again:   chmod 600 {path}",
        )
    if not match:
        raise ConfigError(
            f"{path} is no key file of agentmesh",
            code="key.malformed",
            hint=f"put the right file back, or start with a new identity:   mv {path} {path}.old",
        )
    return KeyPair.generate(bytes.fromhex(match[1]))


def load_or_create_token(path: Path) -> str:
    """Return the API token kept in a file, making it on first use (256 random bits).

    Raises:
        ConfigError: "token.permissions", "token.malformed", "token.unreadable". The file is as it was.
        Full: it could not be written. Nothing is left behind.
    """
    text = _load_or_create(path, "token", lambda: f"{secrets.token_urlsafe(32)}\n")
    match = _TOKEN.fullmatch(text)
    if not match:
        raise ConfigError(
            f"{path} holds no API token",
            code="token.malformed",
            hint=f"have a new one made at the next start:   rm {path}",
        )
    return match[1]


def make_private(directory: Path) -> None:
    """Make a directory with mode 0700, and its missing parents likewise. Raises OSError."""
    if directory.is_dir():
        return
    make_private(directory.parent)
    with contextlib.suppress(FileExistsError):
        directory.mkdir(0o700)
        directory.chmod(0o700)


def _load_or_create(path: Path, what: str, content: Callable[[], str]) -> str:
    try:
        return load_secret(path, what, _FILE_BYTES_MAX)
    except FileNotFoundError:
        pass
    try:
        make_private(path.parent)
        _create(path, content().encode("ascii"), _place)
    except OSError as error:
        raise full_error(error, path.parent) from error
    try:
        return load_secret(path, what, _FILE_BYTES_MAX)
    except FileNotFoundError as error:
        raise full_error(error, path.parent) from error


def load_secret(path: Path, what: str, bytes_max: int) -> str:
    """Return the text of a secret file, at most so many bytes of it.

    Raises:
        ConfigError: "WHAT.permissions" (others can read it), "WHAT.unreadable". The file is as it was.
        FileNotFoundError: there is none.
    """
    try:
        # Without O_NONBLOCK a FIFO in its place would stop the daemon for ever.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(
            f"cannot read {path}: {error.strerror}", code=f"{what}.unreadable", hint=f"look at it:   ls -l {path}"
        ) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path} is not a file", code=f"{what}.unreadable", hint=f"look at it:   ls -ld {path}")
        if status.st_mode & 0o077:
            raise ConfigError(
                f"{path} can be read by others (mode {stat.S_IMODE(status.st_mode):04o})",
                code=f"{what}.permissions",
                why="whoever reads it can act as this node",
                hint=f"chmod 600 {path}",
            )
        return os.read(fd, bytes_max).decode("ascii", "replace")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", code=f"{what}.unreadable") from error
    finally:
        os.close(fd)


def replace_secret(path: Path, text: str) -> None:
    """Write a secret file whole, in place of the one that is there.

    Raises:
        Full: it could not be written. The file is as it was.
    """
    try:
        make_private(path.parent)
        _create(path, text.encode("ascii"), os.replace)
    except OSError as error:
        raise full_error(error, path.parent) from error


def _create(path: Path, data: bytes, place: Callable[[Path, Path], None]) -> None:
    """Write a new file and put it in place. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.fchmod(fd, 0o600)
            if os.write(fd, data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(fd)
        finally:
            os.close(fd)
        place(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_directory(path.parent)


def _place(temporary: Path, path: Path) -> None:
    """Put a file in place unless there is one by now."""
    # A link never replaces what another process put there meanwhile; a rename would.
    try:
        os.link(temporary, path)
    except FileExistsError:
        return
    except OSError:
        # No hard links on this file system.
        if not path.exists():
            temporary.rename(path)
