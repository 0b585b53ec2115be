"""Read the directory of policy files: small, regular, ours, and inside it.

Whoever can write here decides who may call this node's agents, so a file that others may write is refused rather than read.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import NamedTuple

from agentmesh.errors import ConfigError

LISTS = "lists.toml"
SUFFIX = ".cedar"
#: Largest file and most files. A file of full length loads within a second (python -m bench policy).
FILE_BYTES_MAX = 256 * 1024
FILES_MAX = 64
_NAMES_MAX = 1_000

#: What tells one state of the directory from another: name, modification time, size, inode and mode of each file.
Stamp = tuple[tuple[str, int, int, int, int], ...]


class Source(NamedTuple):
    """One file that was read."""

    name: str
    text: str


class Listing(NamedTuple):
    """What lies in the directory, names that are not read, and the mode of the directory itself."""

    stamp: Stamp
    ignored: tuple[str, ...]
    mode: int = 0


def bad_file(name: str, what: str, *, line: int = 0, why: str = "", hint: str = "") -> ConfigError:
    """Build the error for a policy file, with its line if one is known."""
    where = f"{name}:{line}" if line else name
    return ConfigError(
        f"{where}: {what}",
        code="policy.file",
        why=why or None,
        hint=hint or "agentmesh policy check",
        extra={"file": name, "line": line},
    )


def listing(directory: Path) -> Listing:
    """Return which policy files there are now; no file is opened. A directory that does not exist is empty.

    Raises:
        ConfigError: it cannot be listed, or holds too many files (code "policy.file").
    """
    found: list[tuple[str, int, int, int, int]] = []
    ignored: list[str] = []
    try:
        mode = directory.stat().st_mode
        with os.scandir(directory) as entries:
            for count, entry in enumerate(entries, 1):
                if count > _NAMES_MAX:
                    raise bad_file(directory.name, f"more than {_NAMES_MAX} names lie there")
                if entry.name.startswith("."):
                    continue
                if entry.name != LISTS and not entry.name.endswith(SUFFIX):
                    ignored.append(entry.name)
                    continue
                try:
                    status = entry.stat()
                    found.append((entry.name, status.st_mtime_ns, status.st_size, status.st_ino, status.st_mode))
                except FileNotFoundError:  # a link to nowhere is said when it is read; a file that just went, next time
                    found.append((entry.name, 0, 0, 0, 0))
    except FileNotFoundError:
        return Listing((), ())
    except OSError as error:
        raise bad_file(str(directory), "cannot be listed", why=error.strerror or str(error)) from error
    if len(found) > FILES_MAX:
        raise bad_file(directory.name, f"{len(found)} policy files, at most {FILES_MAX} are read")
    return Listing(tuple(sorted(found)), tuple(sorted(ignored)), mode)


def read_all(directory: Path, names: list[str]) -> list[Source]:
    """Read files of the directory.

    Raises:
        ConfigError: as ``read_one``. Nothing is kept.
    """
    if names:
        _refuse_open_door(directory)
    return [read_one(directory / name, inside=directory) for name in names]


def read_one(path: Path, *, inside: Path | None = None) -> Source:
    """Read one policy file.

    Args:
        path: The file.
        inside: Directory that it must lie in, links followed, with no one else able to write to it; None to read any file,
            as ``agentmesh policy check FILE`` does.

    Raises:
        ConfigError: gone, no regular file, outside, writable by others, too large, no UTF-8 text or with a NUL in it (code
            "policy.file").
    """
    name = path.name
    try:
        real = Path(os.path.realpath(path, strict=True))
        if inside is not None and not real.is_relative_to(os.path.realpath(inside)):
            raise bad_file(name, "is a link out of the directory of policies", why=f"it leads to {real}")
        # Without O_NONBLOCK a FIFO in its place would stop the daemon for ever.
        fd = os.open(real, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        raise bad_file(name, "cannot be read", why=error.strerror or str(error)) from error
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise bad_file(name, "is not a file")
        if inside is not None and (status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid())):
            raise bad_file(
                name,
                f"others may write to it (mode {stat.S_IMODE(status.st_mode):04o}, owner {status.st_uid})",
                why="whoever writes there decides who may call your agents",
                hint=f"chmod go-w {path}",
            )
        if status.st_size > FILE_BYTES_MAX:
            raise bad_file(name, f"has {status.st_size} bytes, at most {FILE_BYTES_MAX} are read")
        with os.fdopen(fd, "rb", closefd=False) as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise bad_file(name, "cannot be read", why=error.strerror or str(error)) from error
    finally:
        os.close(fd)
    if len(raw) > FILE_BYTES_MAX:
        raise bad_file(name, f"has more than {FILE_BYTES_MAX} bytes")
    if (at := raw.find(b"\0")) >= 0:
        raise bad_file(name, "holds a NUL byte", line=raw.count(b"\n", 0, at) + 1)
    try:
        return Source(name, raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise bad_file(
            name, "is not UTF-8 text", line=raw.count(b"\n", 0, error.start) + 1, why=error.reason
        ) from error


def _refuse_open_door(directory: Path) -> None:
    try:
        status = directory.stat()
    except OSError as error:
        raise bad_file(directory.name, "cannot be read", why=error.strerror or str(error)) from error
    if status.st_mode & 0o022:
        raise bad_file(
            directory.name,
            f"others may write there (mode {stat.S_IMODE(status.st_mode):04o})",
            why="whoever writes there decides who may call your agents",
            hint=f"chmod go-w {directory}",
        )
