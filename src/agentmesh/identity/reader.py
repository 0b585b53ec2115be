"""Reading signed things once: a bounded memory of what was verified, for machines that see the same bytes again and again.

Broadcasts, shuffles and lookups bring the same record many times; checking an Ed25519 signature costs 60 µs, looking it up
here under 1 µs. Only successes are remembered, under the exact bytes; time is judged at every reading. The simulator
shares one reader among all its nodes.
"""

from __future__ import annotations

from typing import TypeVar

from agentmesh.errors import ReplayError
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


class Reader:
    """Verify records, remembering the last ones.

    Args:
        memory_max: Verified records of each kind remembered; the oldest goes first. 1 KB each at most in a daemon, where
            the tables hold most of them anyway.
    """

    def __init__(self, memory_max: int = 1_024) -> None:
        self.memory_max = memory_max
        self._nodes: dict[bytes, NodeRecord] = {}
        self._providers: dict[tuple[Key, bytes], Provider] = {}
        self._manifests: dict[bytes, Manifest] = {}
        self._zones: dict[bytes, ZoneReport] = {}
        self._keys: dict[bytes, tuple[Key, ...]] = {}

    def node(self, raw: bytes, now: int) -> NodeRecord:
        """Return the verified node record. Raises as ``read_node_record``."""
        record = self._nodes.get(raw)
        if record is None:
            record = read_node_record(raw, now=now)
            _remember(self._nodes, raw, record, self.memory_max)
        else:
            nodes.check_time(record, now)
        return record

    def provider(self, raw: bytes, at: Key, now: int) -> Provider:
        """Return the verified provider record. Raises as ``read_provider``."""
        provider = self._providers.get((at, raw))
        if provider is None:
            provider = read_provider(raw, at, now=now)
            _remember(self._providers, (at, raw), provider, self.memory_max)
        else:
            providers.check_time(provider, now)
        return provider

    def manifest(self, raw: bytes, now: int, *, require_signed: bool) -> Manifest:
        """Return the verified manifest or tombstone. Raises as ``read_record``; unsigned ones are not remembered."""
        manifest = self._manifests.get(raw)
        if manifest is None:
            manifest = read_record(raw, now=now, require_signed=require_signed)
            if manifest.signed:
                _remember(self._manifests, raw, manifest, self.memory_max)
        elif not manifest.iat - manifests.SKEW_S_MAX <= now <= manifest.exp:
            raise ReplayError(f"the record of {manifest.name!r} is not valid now", code="manifest.expired")
        return manifest

    def zone(self, raw: bytes, now: int) -> ZoneReport:
        """Return the verified zone report. Raises as ``read_zone_report``."""
        report = self._zones.get(raw)
        if report is None:
            report = read_zone_report(raw, now=now)
            _remember(self._zones, raw, report, self.memory_max)
        else:
            zones.check_time(report, now)
        return report

    def keys(self, manifest: Manifest) -> tuple[Key, ...]:
        """Return ``search_keys`` of a manifest; those of signed ones are remembered, parsing the card is dear."""
        keys = self._keys.get(manifest.raw)
        if keys is None:
            keys = search_keys(manifest)
            if manifest.signed:
                _remember(self._keys, manifest.raw, keys, self.memory_max)
        return keys


def _remember(memory: dict[_K, _V], key: _K, value: _V, memory_max: int) -> None:
    if len(memory) >= memory_max:
        del memory[next(iter(memory))]
    memory[key] = value
