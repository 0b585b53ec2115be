"""Which call tokens were accepted and are still good: looked up in memory, and safe from the process's death.

One small file per span of 16 seconds in which tokens end, named by the number of that span: 16 bytes for each token, a hash of
who signed it and its id. A file goes when its span is over, so nothing is ever rewritten. What ``note`` took was handed to the
operating system before it returned; a crash of the machine may lose the last moments.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

from agentmesh.errors import Busy
from agentmesh.store.jsonl import full_error

#: Tokens that may be remembered at once; more are refused. 1,000 calls a second are 90,000 (research: standards §4.4), of
#: about 120 bytes each.
TOKENS_MAX = 400_000
#: Seconds in which the tokens of one file end.
SPAN_S = 16
#: Files at once. Tokens end within two minutes; only a clock that was set back leaves more than nine.
_SPANS_MAX = 64
_KEY_BYTES = 16
_FILE = re.compile(r"tokens-(\d{1,15})\.bin")


class UsedTokens:
    """Open with ``UsedTokens.open(directory)``; calls must not overlap."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._spans: dict[int, set[bytes]] = {}
        self._files: dict[int, int] = {}
        self._count = 0

    @classmethod
    def open(cls, directory: Path) -> UsedTokens:
        """Read what is remembered; ``directory`` is there.

        Raises:
            OSError: it cannot be read.
        """
        self = cls(directory)
        for span, path in _files_in(directory):
            raw = path.read_bytes()
            keys = {raw[at : at + _KEY_BYTES] for at in range(0, len(raw) - _KEY_BYTES + 1, _KEY_BYTES)}
            self._spans[span] = keys
            self._count += len(keys)
        return self

    def __len__(self) -> int:
        return self._count

    def is_noted(self, caller: str, jti: str) -> bool:
        """Say whether a token was accepted before."""
        key = _key_of(caller, jti)
        return any(key in keys for keys in self._spans.values())

    def note(self, caller: str, jti: str, until: int, *, now: int) -> bool:
        """Remember a token that is accepted now; False if it was remembered already.

        Args:
            caller: did:key of who signed it.
            jti: Its id.
            until: Unix second after which it is refused as expired anyway.
            now: Unix seconds.

        Raises:
            Busy: ``TOKENS_MAX`` tokens are remembered. Nothing was noted: none that is still good may be forgotten.
            Full: it cannot be written. Nothing was noted.
        """
        key, span = _key_of(caller, jti), until // SPAN_S
        if any(key in keys for keys in self._spans.values()):
            return False
        keys = self._spans.get(span)
        if keys is None or span not in self._files or self._count >= TOKENS_MAX:
            self._forget(now)
            if self._count >= TOKENS_MAX or (keys is None and len(self._spans) >= _SPANS_MAX):
                raise Busy(f"{self._count} call tokens are in use", code="refused.busy.tokens", retry_after_s=30.0)
            keys = self._spans.setdefault(span, set())
        try:
            fd = self._files.get(span)
            if fd is None:
                fd = self._files[span] = self._open(span)
            if os.write(fd, key) != _KEY_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            if (fd := self._files.pop(span, None)) is not None:
                os.close(fd)  # it is cut to whole keys when it is opened again
            raise full_error(error, self._directory) from error
        keys.add(key)
        self._count += 1
        return True

    def _open(self, span: int) -> int:
        fd = os.open(_path_of(self._directory, span), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:  # half a key was never acknowledged, and all behind it would be misread
            if (size := os.fstat(fd).st_size) % _KEY_BYTES:
                os.ftruncate(fd, size - size % _KEY_BYTES)
        except OSError:
            os.close(fd)
            raise
        return fd

    def _forget(self, now: int) -> None:
        """Drop the spans that are over."""
        for span in [s for s in self._spans if (s + 1) * SPAN_S <= now]:
            self._count -= len(self._spans.pop(span))
            if (fd := self._files.pop(span, None)) is not None:
                os.close(fd)
            with contextlib.suppress(OSError):  # a file that stays is read at the next start, and dropped then
                _path_of(self._directory, span).unlink()

    def close(self) -> None:
        """Close the files. Idempotent."""
        while self._files:
            os.close(self._files.popitem()[1])


def _key_of(caller: str, jti: str) -> bytes:
    """Return what a token is remembered by: neither part has a space, and nobody can make two tokens of others meet."""
    return blake2b(f"{caller} {jti}".encode("utf-8", "surrogatepass"), digest_size=_KEY_BYTES).digest()


def _path_of(directory: Path, span: int) -> Path:
    return directory / f"tokens-{span}.bin"


def _files_in(directory: Path) -> Iterator[tuple[int, Path]]:
    with os.scandir(directory) as entries:
        for entry in entries:
            if match := _FILE.fullmatch(entry.name):
                yield int(match[1]), directory / entry.name
