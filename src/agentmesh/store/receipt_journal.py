"""Receipts on their way into the database: one line each, handed to the operating system before anybody is told of them.

    receipts-000007.jsonl   lines that are not in the database yet; a file goes when all of its lines are

A line costs a thousandth of a database transaction, so receipts are filed many at once. What a dead process left here is filed by
the next one, and filing the same receipt twice changes nothing.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

_FILE = re.compile(r"receipts-(\d{1,12})\.jsonl")
#: Longest line that is read back: a receipt, a token and ids (``identity.token``, ``identity.receipt``), with room.
_LINE_BYTES_MAX = 64 * 1024


class KeptReceipt(NamedTuple):
    """A receipt and the token of the call that it is for, as they travelled.

    Attributes:
        hash: ``identity.claims.hash_of`` the receipt.
        task_id, run_id: The call.
        callee, caller: did:keys.
        receipt, token: Compact JWS.
    """

    hash: str
    task_id: str
    run_id: str
    callee: str
    caller: str
    receipt: str
    token: str


_decoder = msgspec.json.Decoder(KeptReceipt)
_encoder = msgspec.json.Encoder()


class ReceiptJournal:
    """The files of one directory; calls must not overlap, but ``drop`` may with ``append``.

    Args:
        directory: It is there.

    Raises:
        OSError: it cannot be read.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._numbers = sorted(self._found())
        self._next = max(self._numbers, default=0) + 1
        self._fd = -1

    def _found(self) -> Iterator[int]:
        with os.scandir(self._directory) as entries:
            for entry in entries:
                if match := _FILE.fullmatch(entry.name):
                    yield int(match[1])

    def read(self) -> Iterator[KeptReceipt]:
        """Yield what all files hold, oldest first; what was torn was never told to anybody. Raises OSError."""
        for number in self._numbers:
            with self._path(number).open("rb") as file:
                while line := file.readline(_LINE_BYTES_MAX):
                    try:
                        yield _decoder.decode(line)
                    except (msgspec.DecodeError, UnicodeDecodeError):
                        continue

    def append(self, kept: KeptReceipt) -> None:
        """Write one line. Raises OSError: it was not written."""
        line = _encoder.encode(kept) + b"\n"
        if self._fd < 0:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(self._path(self._next), flags, 0o600)
            self._numbers.append(self._next)
            self._next += 1
        if os.write(self._fd, line) != len(line):
            self.close()  # what is torn ends its file
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def turn(self) -> list[int]:
        """Close the file that is written, and return the numbers of all; what is appended from now on stands in another."""
        self.close()
        return list(self._numbers)

    def drop(self, numbers: list[int]) -> None:
        """Remove files whose lines are all in the database. Raises OSError: the rest is filed again, which changes nothing."""
        for number in numbers:
            self._path(number).unlink(missing_ok=True)
            self._numbers.remove(number)

    def close(self) -> None:
        """Close the file that is written. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _path(self, number: int) -> Path:
        return self._directory / f"receipts-{number:06d}.jsonl"
