"""The newest report of each zone that is known here, bounded (docs/spec/directory.md §5)."""

from __future__ import annotations

import math

from agentmesh.core.directory.messages import ZONE, Line
from agentmesh.core.directory.table import Rank
from agentmesh.identity.zone_report import Row, ZoneReport, zone_key
from agentmesh.ids import Key, NodeId

#: Pairs of site and depth that are tried when the zone of a node is looked for; more exist only where somebody invents them.
_SHAPES_MAX = 32


class Reports:
    """Zone reports by ``zone_key``; one of each reporter.

    Args:
        reports_max: Most reports held; the one taken in first goes first.
    """

    def __init__(self, reports_max: int) -> None:
        self.reports_max = reports_max
        self.held: dict[Key, ZoneReport] = {}
        self._by_reporter: dict[NodeId, Key] = {}
        self._shapes: dict[tuple[str, int], int] = {}

    def __len__(self) -> int:
        return len(self.held)

    def get(self, position: bytes) -> ZoneReport | None:
        """Return the report of a zone."""
        return self.held.get(Key(position))

    def is_newer(self, report: ZoneReport) -> bool:
        """Say whether a report outranks what is held of its zone and of its reporter."""
        held = self.held.get(report.zone_key)
        if held is not None and report_rank(held) >= report_rank(report):
            return False
        former = self._by_reporter.get(report.reporter)
        return former is None or self.held[former].seq < report.seq

    def put(self, report: ZoneReport) -> list[ZoneReport]:
        """Hold a report that ``is_newer``; return those that went for it."""
        gone: list[ZoneReport] = []
        for key in (report.zone_key, self._by_reporter.get(report.reporter)):
            if key is not None and key in self.held:
                gone.append(self.held[key])
                self.remove(self.held[key])
        if len(self.held) >= self.reports_max:
            oldest = next(iter(self.held.values()))
            gone.append(oldest)
            self.remove(oldest)
        self.held[report.zone_key] = report
        self._by_reporter[report.reporter] = report.zone_key
        shape = (report.site, report.depth)
        self._shapes[shape] = self._shapes.get(shape, 0) + 1
        return gone

    def remove(self, report: ZoneReport) -> None:
        """Forget a report that is held."""
        del self.held[report.zone_key]
        del self._by_reporter[report.reporter]
        shape = (report.site, report.depth)
        self._shapes[shape] -= 1
        if not self._shapes[shape]:
            del self._shapes[shape]

    def words_on(self, key: Key) -> list[tuple[Row, ZoneReport]]:
        """Return what the reports held say of the node with this DHT key, oldest word first."""
        found: list[tuple[Row, ZoneReport]] = []
        for site, depth in list(self._shapes)[:_SHAPES_MAX]:
            report = self.held.get(zone_key(site, depth, key))
            if report is not None:
                found += [(row, report) for row in report.rows if row[0] == key[:8]]
        return sorted(found, key=lambda pair: pair[1].iat)

    def expired(self, unix_s: int) -> list[ZoneReport]:
        """Return the reports whose time is over."""
        return [report for report in self.held.values() if report.exp < unix_s]

    def next_exp(self) -> float:
        """Return the unix second at which the first report expires; infinite if none is held."""
        return min((report.exp for report in self.held.values()), default=math.inf)

    def assert_invariants(self) -> None:
        """Raise AssertionError if index or bounds are off."""
        assert len(self.held) == len(self._by_reporter) <= self.reports_max
        assert sum(self._shapes.values()) == len(self.held)
        for key, report in self.held.items():
            assert report.zone_key == key == self._by_reporter[report.reporter]


def report_rank(report: ZoneReport) -> Rank:
    """Return what decides between two reports of one zone, to be compared with ``rank_of`` a line."""
    return True, report.seq, False, -report.mark


def report_line(report: ZoneReport) -> Line:
    """Return the line of a report."""
    return Line(ZONE, report.zone_key, report.seq, report.mark)
