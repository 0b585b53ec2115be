"""From entries to messages and back: leases, digests and batches of records. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

from agentmesh.core.directory.messages import BATCH_MAX, Digest, Lease, Records
from agentmesh.core.directory.table import Entry
from agentmesh.errors import MeshError
from agentmesh.identity.manifest import LIFE_S_MAX
from agentmesh.ids import parse_agent_id

_SEQ_MAX = 2**53 - 1
_MARK_MAX = 2**48 - 1


def age_s(entry: Entry, now_s: float) -> float:
    """Return the age of an entry's lease, seconds; local agents and tombstones have none."""
    return 0.0 if entry.local or entry.manifest.tombstone else now_s - entry.renewed_s


def is_held(entry: Entry, now_s: float) -> bool:
    """Say whether an entry's lease still runs; one that ended is not told to anybody."""
    return age_s(entry, now_s) < entry.lease_s


def lease_of(entry: Entry, now_s: float) -> Lease:
    """Return what is told of an entry. Ages are rounded up: an echo never looks younger than its source."""
    manifest = entry.manifest
    return Lease(
        agent_id=manifest.agent_id,
        seq=manifest.seq,
        age_ms=math.ceil(age_s(entry, now_s) * 1000),
        healthy=entry.healthy is not False,
        gone=manifest.tombstone,
        signed=manifest.signed,
        mark=entry.mark,
    )


def digests(entries: Iterable[Entry], now_s: float, *, full: bool = False) -> Iterator[Digest]:
    """Yield the digest of entries in messages of at most ``BATCH_MAX``; one, empty, if there are none."""
    leases = [lease_of(entry, now_s) for entry in entries if is_held(entry, now_s)]
    for at in range(0, max(len(leases), 1), BATCH_MAX):
        yield Digest(leases=leases[at : at + BATCH_MAX], full=full and len(leases) <= BATCH_MAX)


def batches(entries: Iterable[Entry], now_s: float, bytes_max: int) -> Iterator[Records]:
    """Yield the records of entries in messages of at most ``BATCH_MAX`` and about ``bytes_max`` bytes; none if none."""
    batch: list[tuple[bytes, Lease]] = []
    size = 0
    for entry in entries:
        if not is_held(entry, now_s):
            continue
        raw = entry.manifest.raw
        if batch and (size + len(raw) > bytes_max or len(batch) >= BATCH_MAX):
            yield Records(records=batch)
            batch, size = [], 0
        batch.append((raw, lease_of(entry, now_s)))
        size += len(raw)
    if batch:
        yield Records(records=batch)


def flaw_of(lease: Lease, *, known: bool) -> str | None:
    """Say what no honest node would write into a lease, or return None.

    Args:
        lease: From a peer.
        known: The agent id is known to be one, which saves decoding it.
    """
    if not known:
        try:
            parse_agent_id(lease.agent_id)
        except MeshError as error:
            return error.detail
    if not 0 <= lease.age_ms <= LIFE_S_MAX * 1000:
        return f"a lease of age {lease.age_ms} ms"
    if not 1 <= lease.seq <= _SEQ_MAX or not 0 <= lease.mark <= _MARK_MAX:
        return f"a lease with seq {lease.seq} and mark {lease.mark}"
    return None
