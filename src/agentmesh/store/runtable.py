"""One run without its payloads, in columns: what count, digest, order and filters need, about 190 bytes an event.

Filled in order of arrival, from the log or from a list of events; used by one thread at a time. Texts of anybody are cut.
"""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, islice
from typing import Any, NamedTuple

import msgspec

from agentmesh.store.index import Spot
from agentmesh.store.roworder import Key, RowOrder
from agentmesh.store.runtasks import RunTasks
from agentmesh.wire.event import KINDS, EventV1, state_of
from agentmesh.wire.rows import RowQuery, label, one_line

#: Distinct names that are told apart; later ones are "…" (states), none (nodes), or nobody that a filter finds (agents).
STATES_MAX, NODES_MAX, AGENTS_MAX = 1_000, 4_096, 65_000
_NAME_CHARS_MAX = 200
_STATE_CHARS_MAX = 40
#: A label is kept if its line is longer than this, so that a huge payload is read once; others are read again when asked for.
_LINE_BYTES_SMALL = 4_096
#: Bits of a place that are the offset; the segment stands above.
OFFSET_BITS = 40
#: Filters whose matches are kept.
_FILTERS_MAX = 4
#: Rows of which only those that came since are sorted; more are picked out of the whole order.
_SORTED_MAX = 20_000
#: Memory of a row in all columns and of a kept label, bytes (measured).
_ROW_BYTES, _LABEL_BYTES = 190, 400
#: What columns hold for none.
NO_STATE = NO_NODE = 0xFFFF
_OTHER_AGENT = 0xFFFF
_encode = msgspec.json.Encoder(order="deterministic").encode
_sha256 = hashlib.sha256
_KINDS = {kind: kind.encode() for kind in KINDS}


class Window(NamedTuple):
    """Rows that were asked for: their numbers in order, where they stand, and what follows.

    Attributes:
        rows: Row numbers.
        positions: In the whole run.
        indexes: Among those that match; [] without filters.
        matching: How many rows match in all.
        more: Whether further rows that are asked for follow.
    """

    rows: list[int]
    positions: list[int]
    indexes: list[int]
    matching: int
    more: bool


class _Filtered:
    """The rows that match one filter."""

    __slots__ = ("arrived", "order", "seen")

    def __init__(self, key_of: Callable[[int], Key]) -> None:
        self.order = RowOrder(key_of)
        #: The same rows as they came.
        self.arrived = array("I")
        self.seen = 0


class RunTable:
    """A run.

    Attributes:
        upto: All its events up to this position are in.
        kinds, states, node_ids: What the columns point into, in order of first appearance.
        nodes: Nodes that took part, those that events only name too.
        tasks: Its calls.
        seq, ts, kind, state, task, node, size, place: Columns by row.
        labels: Row → label, of events with large payloads.
    """

    def __init__(self) -> None:
        self.upto = 0
        self.kinds: list[str] = []
        self.states: list[str] = []
        self.node_ids: list[str] = []
        self.nodes: dict[str, None] = {}
        self.tasks = RunTasks()
        self.seq, self.ts, self._lamport = array("q"), array("q"), array("q")
        self.kind = bytearray()
        self.state, self.node, self._agent = array("H"), array("H"), array("H")
        self.task, self.size = array("i"), array("I")
        self.place = array("Q")
        self.labels: dict[int, str] = {}
        self._agents: dict[tuple[str | None, str | None], int] = {}
        self._seen: set[int] = set()
        #: Of every event what its digest is made of: id, kind, ts, hash of the payload; and where that begins.
        self._pieces = bytearray()
        self._starts = array("Q", (0,))
        self._id_bytes = array("H")
        self._kind_at: dict[str, int] = {}
        self._state_at: dict[str, int] = {}
        self._node_at: dict[str, int] = {}
        self._order = RowOrder(self._key)
        self._sums: list[Any] = []
        self._filtered: dict[tuple[Any, ...], _Filtered] = {}

    @property
    def count(self) -> int:
        """Events, each id once."""
        return len(self.seq)

    @property
    def bytes(self) -> int:
        """Estimate of the memory that it takes."""
        matches = sum(len(one.arrived) for one in self._filtered.values())
        return self.count * _ROW_BYTES + len(self.labels) * _LABEL_BYTES + self.tasks.bytes + 8 * matches

    def _key(self, row: int) -> Key:
        start = self._starts[row]
        return self._lamport[row], self.ts[row], bytes(self._pieces[start : start + self._id_bytes[row]])

    # Filling

    def add(self, events: list[EventV1], spots: list[Spot]) -> None:
        """Take the next events in order of arrival; one whose id is known changes nothing.

        Columns are filled one by one, which costs half of what filling rows one by one does.

        Args:
            events: With a higher position than any before.
            spots: Their rows in the index: position, place and size of the line, hash of the id.
        """
        events, spots = self._new(events, spots)
        if not events:
            return
        row = self.count
        ids = [event.id.encode() for event in events]
        ts = [event.ts for event in events]
        lamport = [event.lamport for event in events]
        pieces = [
            b"%b\n%b\n%d\n%b" % (key, _KINDS[event.kind], event.ts, _sha256(_encode(event.payload)).digest())
            for key, event in zip(ids, events, strict=True)
        ]
        self._starts.extend(islice(accumulate(map(len, pieces), initial=len(self._pieces)), 1, None))
        self._pieces += b"".join(pieces)
        self._id_bytes.extend(map(len, ids))
        self.seq.extend([spot[0] for spot in spots])
        self.ts.extend(ts)
        self._lamport.extend(lamport)
        self.size.extend([spot[3] for spot in spots])
        self.place.extend([spot[1] << OFFSET_BITS | spot[2] for spot in spots])
        kinds = self._kind_at
        self.kind.extend(
            [kinds[kind] if (kind := event.kind) in kinds else self._number_of_kind(kind) for event in events]
        )
        nodes, agents = self._node_at, self._agents
        self.node.extend(
            [nodes[name] if (name := event.node_id) in nodes else self._number_of_node(name) for event in events]
        )
        self._agent.extend(
            [
                agents[pair] if (pair := (event.agent, event.agent_id)) in agents else self._number_of_agent(pair)
                for event in events
            ]
        )
        states = [state_of(event.payload) if event.kind == "status" else None for event in events]
        self.state.extend([NO_STATE if state is None else self._number_of_state(state) for state in states])
        keys = list(zip(lamport, ts, ids, strict=True))
        self.task.extend(self.tasks.add(events, keys, states))
        self._order.extend(row, keys)
        self._note_nodes([event.payload["to_node"] for event in events if "to_node" in event.payload])
        self._note_nodes([event.metadata["caller_node"] for event in events if "caller_node" in event.metadata])
        for at in [at for at, spot in enumerate(spots) if spot[3] > _LINE_BYTES_SMALL]:
            self.labels[row + at] = label(events[at])

    def _new(self, events: list[EventV1], spots: list[Spot]) -> tuple[list[EventV1], list[Spot]]:
        """Return the events whose id is not known yet, and know it from now on."""
        seen = self._seen
        hashes = [spot[4] for spot in spots]
        if len(set(hashes)) == len(hashes) and seen.isdisjoint(hashes):
            seen.update(hashes)
            return events, spots
        new: list[int] = []
        for at, id_hash in enumerate(hashes):
            if id_hash not in seen:
                seen.add(id_hash)
                new.append(at)
        return [events[at] for at in new], [spots[at] for at in new]

    def labels_kept(self, rows: Sequence[int]) -> dict[int, str]:
        """Return the labels of those rows whose label is kept."""
        return {row: self.labels[row] for row in rows if row in self.labels}

    def spots(self, rows: Sequence[int]) -> list[Spot]:
        """Return where the lines of rows are; in the place of the position stands the row."""
        mask = (1 << OFFSET_BITS) - 1
        return [(row, self.place[row] >> OFFSET_BITS, self.place[row] & mask, self.size[row], 0) for row in rows]

    def _number_of_kind(self, kind: str) -> int:
        self.kinds.append(kind)
        return self._kind_at.setdefault(kind, len(self._kind_at))

    def _number_of_state(self, state: str) -> int:
        known = self._state_at
        if state in known:
            return known[state]
        shown = one_line(state, _STATE_CHARS_MAX)
        if shown not in known and len(self.states) >= STATES_MAX:
            shown = "…"
        if shown not in known:
            known[shown] = len(self.states)
            self.states.append(shown)
        return known[shown]

    def _number_of_node(self, node: str) -> int:
        if not node or len(node) > _NAME_CHARS_MAX or len(self.node_ids) >= NODES_MAX:
            return NO_NODE
        self._node_at[node] = len(self.node_ids)
        self.node_ids.append(node)
        self.nodes[node] = None
        return self._node_at[node]

    def _note_nodes(self, named: list[Any]) -> None:
        """Note nodes that events name beside the one that they happened on."""
        for node in named:
            if isinstance(node, str) and 0 < len(node) <= _NAME_CHARS_MAX and len(self.nodes) < 2 * NODES_MAX:
                self.nodes[node] = None

    def _number_of_agent(self, pair: tuple[str | None, str | None]) -> int:
        if len(self._agents) >= AGENTS_MAX or max(len(text or "") for text in pair) > _NAME_CHARS_MAX:
            return _OTHER_AGENT
        return self._agents.setdefault(pair, len(self._agents))

    # Reading

    def digest(self) -> str:
        """Return the digest of the whole run (``wire.event.digest``); what was hashed before is not hashed again."""
        sums, order = self._sums, self._order
        del sums[order.clean :]
        total = sums[-1].copy() if sums else hashlib.sha256()
        pieces, starts = self._pieces, self._starts
        for block in order.blocks[len(sums) :]:
            total.update(b"".join([pieces[starts[row] : starts[row + 1]] for row in block]))
            sums.append(total.copy())
        order.settle()
        text = total.hexdigest()
        return f"{text[:4]}-{text[4:8]}"

    def window(self, query: RowQuery, upto: int) -> Window:
        """Return the rows that a query asks for.

        Args:
            query: What is asked for.
            upto: Of the run as it was at this position.
        """
        first = bisect_right(self.seq, upto)
        after = min(first, bisect_right(self.seq, query.after)) if query.after else 0
        newer = range(first, self.count)
        lacking = self._order.newer(newer)
        if not any(query.filters):
            rows, more = self._pick(self._order, range(after, first), newer, lacking, query, from_start=after == 0)
            return Window(rows, self._stand(self._order, rows, lacking), [], first, more)
        found = self._matches(query)
        cut, low = bisect_left(found.arrived, first), bisect_left(found.arrived, after)
        newer = found.arrived[cut:]
        cut_off = found.order.newer(newer)
        rows, more = self._pick(found.order, found.arrived[low:cut], newer, cut_off, query, from_start=low == 0)
        indexes = self._stand(found.order, rows, cut_off)
        return Window(rows, self._stand(self._order, rows, lacking), indexes, cut, more)

    def _pick(
        self,
        order: RowOrder,
        wanted: Sequence[int],
        newer: Sequence[int],
        lacking: Sequence[int],
        query: RowQuery,
        *,
        from_start: bool,
    ) -> tuple[list[int], bool]:
        """Return the part of the wanted rows that a query asks for, in order, and whether more follow."""
        start, end = query.start, query.start + query.limit
        if start >= len(wanted):
            return [], False
        lowest = wanted[0]
        if from_start:
            rows = list(islice(order.walk(start, newer, lacking), query.limit))
        elif len(wanted) > _SORTED_MAX:
            rows = list(islice((row for row in order.walk(0, newer, lacking) if row >= lowest), start, end))
        else:
            rows = sorted(wanted, key=self._key)[start:end]
        return rows, end < len(wanted)

    @staticmethod
    def _stand(order: RowOrder, rows: list[int], lacking: list[int]) -> list[int]:
        """Return where rows, given in order, stand in the snapshot that lacks some."""
        stand = order.positions(rows)
        return [at - bisect_left(lacking, at) for at in stand] if lacking else stand

    def _matches(self, query: RowQuery) -> _Filtered:
        """Return all rows that match a filter; rows that were looked at before are not looked at again."""
        found = self._filtered.pop(query.filters, None) or _Filtered(self._key)
        while len(self._filtered) >= _FILTERS_MAX:
            del self._filtered[next(iter(self._filtered))]
        self._filtered[query.filters] = found
        for row in self._fitting(query, found.seen):
            found.arrived.append(row)
            found.order.add(row, self._key(row))
        found.seen = self.count
        return found

    def _fitting(self, query: RowQuery, start: int) -> Iterable[int]:
        """Yield the rows from a number on that match."""
        rows: Iterable[int] = range(start, self.count)
        if query.kinds:
            kinds, column = {at for kind, at in self._kind_at.items() if kind in query.kinds}, self.kind
            rows = [row for row in rows if column[row] in kinds]
        if query.states:
            states, state = {at for at, name in enumerate(self.states) if name in query.states}, self.state
            rows = [row for row in rows if state[row] in states]
        if query.tasks:
            tasks, task = {self.tasks.number(one) for one in query.tasks} - {None}, self.task
            rows = [row for row in rows if task[row] in tasks]
        if query.agent:
            name = query.agent.casefold()
            agents = {
                n for (one, key), n in self._agents.items() if key == query.agent or (one or "").casefold() == name
            }
            agent = self._agent
            rows = [row for row in rows if agent[row] in agents]
        if query.since or query.until:
            low, high, ts = query.since, query.until or 1 << 62, self.ts
            rows = [row for row in rows if low <= ts[row] <= high]
        return rows
