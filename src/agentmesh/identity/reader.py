"""Reading signed things once: a bounded memory of what was verified, for machines that see the same bytes again and again.

Broadcasts, shuffles and lookups bring the same record many times; checking an Ed25519 signature costs 60 µs, looking it up
here under 1 µs. Only successes are remembered, under the exact bytes; time is judged at every reading. The simulator
shares one reader among all its nodes.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from agentmesh.identity import manifest as manifests
from agentmesh.identity import node_record as nodes
from agentmesh.identity import provider as providers
from agentmesh.identity import zone_report as zones
from agentmesh.identity.manifest import Manifest, read_record
from agentmesh.identity.node_record import NodeRecord, read_node_record
from agentmesh.identity.provider import Provider, read_provider
from agentmesh.identity.search_keys import search_keys
from agentmesh.identity.zone_report import ZoneReport, read_zone_report
from agentmesh.ids import Key

_K = TypeVar("_K")
_V = TypeVar("_V")


#: Bytes of records per remembered one, on average, above which old ones go before the count is reached.
_BYTES_EACH = 2_048


class _Memory(Generic[_K, _V]):
    """Values by key, bounded in number and in bytes; the oldest goes first."""

    __slots__ = ("_held", "_size", "_sizes", "get", "number_max")

    def __init__(self, number_max: int) -> None:
        self.number_max = number_max
        self._held: dict[_K, _V] = {}
        self._sizes: dict[_K, int] = {}
        self._size = 0
        self.get = self._held.get

    def put(self, key: _K, value: _V, size: int) -> None:
        """Remember a value of so many bytes under a key that is not there."""
        size_max = self.number_max * _BYTES_EACH
        if size > size_max:
            return
        while self._held and (len(self._held) >= self.number_max or self._size + size > size_max):
            oldest = next(iter(self._held))
            del self._held[oldest]
            self._size -= self._sizes.pop(oldest)
        self._held[key] = value
        self._sizes[key] = size
        self._size += size

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound is broken."""
        assert len(self._held) == len(self._sizes) <= self.number_max
        assert sum(self._sizes.values()) == self._size <= self.number_max * _BYTES_EACH


class Reader:
    """Verify records, remembering the last ones.

    Args:
        memory_max: Verified records of each kind remembered, and at most 2 KB times as many bytes of them, so that manifests
            of 64 KB, which anybody may sign, cannot fill the memory; the oldest goes first. A daemon's tables hold most of
            them anyway.
    """

    def __init__(self, memory_max: int = 1_024) -> None:
        self.memory_max = memory_max
        self._nodes: _Memory[bytes, NodeRecord] = _Memory(memory_max)
        self._providers: _Memory[tuple[Key, bytes], Provider] = _Memory(memory_max)
        self._manifests: _Memory[bytes, Manifest] = _Memory(memory_max)
        self._zones: _Memory[bytes, ZoneReport] = _Memory(memory_max)
        self._keys: _Memory[bytes, tuple[Key, ...]] = _Memory(memory_max)

    def node(self, raw: bytes, now: int) -> NodeRecord:
        """Return the verified node record. Raises as ``read_node_record``."""
        record = self._nodes.get(raw)
        if record is None:
            record = read_node_record(raw, now=now)
            self._nodes.put(raw, record, len(raw))
        else:
            nodes.check_time(record, now)
        return record

    def provider(self, raw: bytes, at: Key, now: int) -> Provider:
        """Return the verified provider record. Raises as ``read_provider``."""
        provider = self._providers.get((at, raw))
        if provider is None:
            provider = read_provider(raw, at, now=now)
            self._providers.put((at, raw), provider, len(raw))
        else:
            providers.check_time(provider, now)
        return provider

    def manifest(self, raw: bytes, now: int, *, require_signed: bool) -> Manifest:
        """Return the verified manifest or tombstone. Raises as ``read_record``; unsigned ones are not remembered."""
        manifest = self._manifests.get(raw)
        if manifest is None:
            manifest = read_record(raw, now=now, require_signed=require_signed)
            if manifest.signed:
                self._manifests.put(raw, manifest, len(raw))
        else:
            manifests.check_time(manifest, now)
        return manifest

    def zone(self, raw: bytes, now: int) -> ZoneReport:
        """Return the verified zone report. Raises as ``read_zone_report``."""
        report = self._zones.get(raw)
        if report is None:
            report = read_zone_report(raw, now=now)
            self._zones.put(raw, report, len(raw))
        else:
            zones.check_time(report, now)
        return report

    def keys(self, manifest: Manifest) -> tuple[Key, ...]:
        """Return ``search_keys`` of a manifest; those of signed ones are remembered, parsing the card is dear."""
        keys = self._keys.get(manifest.raw)
        if keys is None:
            keys = search_keys(manifest)
            if manifest.signed:
                self._keys.put(manifest.raw, keys, len(manifest.raw))
        return keys

    def assert_invariants(self) -> None:
        """Raise AssertionError if a bound is broken."""
        for memory in (self._nodes, self._providers, self._manifests, self._zones, self._keys):
            memory.assert_invariants()
