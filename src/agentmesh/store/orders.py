"""The orders a node obeys, on disk: one small file, so that a stopped node starts stopped.

It is read before anything else is served and never guessed at: a file that does not make sense is told apart from one that is
not there, since a node that forgot a stop would go on working. The signatures in it are judged by the reader of the orders.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

import msgspec

from agentmesh.errors import Corrupt
from agentmesh.store.jsonl import full_error, sync_directory

#: Largest file that is read: 16 operators with 12 orders of 48 KB would be 9 MB; ours have one of each kind.
FILE_BYTES_MAX = 12 * 1024 * 1024
_VERSION = 1


class _Body(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    version: int
    orders: list[str]


class OrderFile:
    """Read and replace the file.

    Args:
        path: Of the file; its directory must exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> list[str]:
        """Return the orders as they were signed, unverified; [] if there is no file.

        Raises:
            Corrupt: code "orders.corrupt": it cannot be read or makes no sense. The file is as it was.
        """
        try:
            with open(self.path, "rb") as file:
                raw = file.read(FILE_BYTES_MAX + 1)
            if len(raw) > FILE_BYTES_MAX:
                raise msgspec.DecodeError(f"it is larger than {FILE_BYTES_MAX >> 20} MB")
            body = msgspec.json.decode(raw, type=_Body)
            if body.version != _VERSION:
                raise msgspec.DecodeError(f"it is of version {body.version}, this program knows {_VERSION}")
        except FileNotFoundError:
            return []
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Corrupt(
                f"{self.path} cannot be read: {error}",
                code="orders.corrupt",
                why="it says whether this node was stopped, so the node stays read-only until an operator releases it",
                hint="agentmesh killswitch off   on the machine that holds the operator's key",
            ) from error
        return body.orders

    def save(self, orders: list[str]) -> None:
        """Replace what is kept; on disk when this returns.

        Raises:
            Full: it cannot be written. The file is as it was.
        """
        temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(8)}.tmp")
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(fd, "wb") as file:
                    file.write(msgspec.json.encode(_Body(version=_VERSION, orders=orders)))
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self.path)
                sync_directory(self.path.parent)
            except OSError:
                with contextlib.suppress(OSError):
                    temporary.unlink()
                raise
        except OSError as error:
            raise full_error(error, self.path.parent) from error
