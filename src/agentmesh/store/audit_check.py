"""Check a whole audit log with nothing but its files and the id of its node, and name what is wrong.

That something is wrong is decided by the signed root alone. Which record it is follows from their numbers, and from the
leaf hashes in ``tree.bin``, which are nobody's word but cost whoever changes a record a second change.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from agentmesh.codec.merkle import EMPTY_ROOT, HASH_BYTES, Frontier, leaf_hash, stored_at
from agentmesh.errors import Corrupt, DecodeError, UsageError
from agentmesh.identity.audit_record import read_record
from agentmesh.identity.checkpoint import Checkpoint
from agentmesh.store.audit_files import TREE_NAME, lines_of, read_head, segment_path, segments_of
from agentmesh.store.jsonl import full_error

#: Findings told in full; more are counted.
FINDINGS_MAX = 100


class Finding(NamedTuple):
    """One thing that is wrong: the number of the record, and a sentence."""

    seq: int
    text: str


@dataclass
class Checked:
    """What a check found.

    Attributes:
        head: The checkpoint it was made against; None if none holds.
        size: Records that are there.
        unsigned: Those of them that came after the checkpoint: a moment's worth, if the node was killed.
        findings: What is wrong, at most ``FINDINGS_MAX``; none when all is well.
        more: Findings beyond these.
    """

    head: Checkpoint | None = None
    size: int = 0
    unsigned: int = 0
    findings: list[Finding] = field(default_factory=list[Finding])
    more: int = 0

    def add(self, seq: int, text: str) -> None:
        """Note what is wrong."""
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(seq, text))
        else:
            self.more += 1


def check_log(directory: Path, *, node: str | None, pinned: Sequence[Checkpoint] = ()) -> Checked:
    """Read every record and compare them with the last checkpoint, and with older ones that others kept.

    Args:
        directory: Of the log, or of a copy; nothing is changed.
        node: Whose log it must be; None for whomever its checkpoint names.
        pinned: Checkpoints of the same node from elsewhere.

    Raises:
        UsageError: there is no log (code "audit.none").
        Full: it cannot be read.
    """
    checked = Checked()
    try:
        firsts = segments_of(directory)
        try:
            checked.head = read_head(directory, node=node)
        except Corrupt as error:
            if not firsts and not (directory / "checkpoint").exists():
                raise UsageError(
                    f"there is no audit log in {directory}", code="audit.none", hint="agentmesh audit verify HOME/audit"
                ) from error
            checked.add(0, str(error.why))
        with contextlib.ExitStack() as stack:
            _check_records(checked, directory, firsts, node, pinned, stack)
    except FileNotFoundError as error:
        raise UsageError(
            f"there is no audit log in {directory}", code="audit.none", hint="agentmesh audit verify HOME/audit"
        ) from error
    except OSError as error:
        raise full_error(error, directory) from error
    return checked


def _check_records(
    checked: Checked,
    directory: Path,
    firsts: list[int],
    node: str | None,
    pinned: Sequence[Checkpoint],
    stack: contextlib.ExitStack,
) -> None:
    head = checked.head
    owner = node or (head.node_id if head is not None else None)
    suspects = Checked()
    tree = Frontier()
    wanted = {one.size: one for one in (*pinned, *([head] if head is not None else []))}
    roots = {0: EMPTY_ROOT}
    expected = 0
    stored = _leaves_of(stack, directory)
    for line in _lines(checked, directory, firsts):
        tree.append(leaf_hash(line))
        if tree.size in wanted:
            roots[tree.size] = tree.root()
        seq = _check_line(suspects, line, expected, owner)
        leaf = stored(seq)
        if leaf is not None and leaf != leaf_hash(line):
            suspects.add(seq, f"record {seq} was changed: it has another hash than when it was written")
        expected = max(expected, seq + 1)
    checked.size = tree.size
    signed = head.size if head is not None else 0
    checked.unsigned = max(0, tree.size - signed)
    if tree.size < signed:
        suspects.add(
            tree.size, _missing(expected, signed - 1) if expected < signed else f"{signed - tree.size} missing"
        )
    bad = [one for size, one in wanted.items() if roots.get(size) != one.root]
    if bad:
        checked.findings += suspects.findings
        checked.more += suspects.more
        for one in bad:
            checked.add(one.size, f"the first {one.size} records are not those that the node signed")
    else:
        # What was signed is whole; what came after it is judged by its numbers only.
        for finding in suspects.findings:
            if finding.seq >= signed and "another hash" not in finding.text:
                checked.add(*finding)


def _check_line(suspects: Checked, line: bytes, expected: int, owner: str | None) -> int:
    """Look at one record, and return its number, or what it should be when it has none."""
    try:
        record = read_record(line)
    except DecodeError as error:
        suspects.add(expected, f"record {expected} was changed: {error} ({error.why or error.code})")
        return expected
    if owner is not None and record.source != owner:
        suspects.add(record.seq, f"record {record.seq} is of another node, {record.source[:80]}")
    if record.seq > expected:
        suspects.add(expected, _missing(expected, record.seq - 1))
    elif record.seq < expected:
        suspects.add(record.seq, f"record {record.seq} stands after record {expected - 1}: moved, or there twice")
    return record.seq


def _missing(first: int, last: int) -> str:
    return f"record {first} is missing" if first == last else f"records {first} to {last} are missing"


def _lines(checked: Checked, directory: Path, firsts: list[int]) -> Iterator[bytes]:
    count = 0
    for first in firsts:
        if first != count:
            checked.add(min(first, count), f"segment {first:012d}.jsonl should begin with record {count}")
        for line in lines_of(segment_path(directory, first)):
            count += 1
            yield line


def _leaves_of(stack: contextlib.ExitStack, directory: Path) -> Callable[[int], bytes | None]:
    """Return a reader of stored leaf hashes; it gives None for those that are not stored."""
    try:
        fd = os.open(directory / TREE_NAME, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return lambda seq: None
    stack.callback(os.close, fd)
    return lambda seq: os.pread(fd, HASH_BYTES, stored_at(0, seq) * HASH_BYTES) or None
