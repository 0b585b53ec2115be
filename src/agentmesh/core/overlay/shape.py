"""The shape of a mesh: how clustered, how wide, how its degrees fall, how it holds together. Pure functions.

For the simulator and ``agentmesh net``. Nodes are anything hashable; an edge named by one end only counts for both. Equal
graphs give equal numbers whatever the hash seed; chance comes from the ``rng`` passed in.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

_N = TypeVar("_N", bound=Hashable)

#: Fewest nodes that a tail must hold to be fitted, and fewest different degrees among them.
_TAIL_MIN = 25
_TAIL_KINDS_MIN = 4
_EXPONENT_MAX = 8.0


@dataclass(frozen=True, slots=True)
class Shape:
    """What ``shape_of`` measures.

    Attributes:
        nodes, edges: Counts; an edge counts once.
        clustering: Mean over all nodes of the share of pairs of its neighbours that are neighbours (Watts &
            Strogatz 1998); a node
            with fewer than two neighbours counts 0.
        path_length: Mean number of edges between a sampled node and every other it reaches.
        diameter_seen: Longest such shortest path.
        tail_exponent: Exponent α of p(degree) ∝ degree^-α above ``tail_from``; nan if there are too few nodes or degrees.
        tail_fit: Kolmogorov–Smirnov distance between that tail and the law: 0 = exact.
        tail_from: Smallest degree that counts as tail, chosen to make ``tail_fit`` smallest.
        tail_nodes: Nodes in the tail.
        degree_p50, degree_p99, degree_max: Of the degrees.
        components: Connected components.
        largest_component: Share of all nodes that are in the largest one, 0 … 1.
    """

    nodes: int
    edges: int
    clustering: float
    path_length: float
    diameter_seen: int
    tail_exponent: float
    tail_fit: float
    tail_from: int
    tail_nodes: int
    degree_p50: int
    degree_p99: int
    degree_max: int
    components: int
    largest_component: float


def shape_of(adjacency: Mapping[_N, Sequence[_N]], rng: random.Random, samples: int = 200) -> Shape:
    """Measure a graph.

    Args:
        adjacency: Node → its neighbours. Neighbours that are no keys count as nodes too.
        rng: Draws the sources of paths.
        samples: From how many nodes paths are measured.
    """
    nodes, graph = _indexed(adjacency)
    degrees = sorted(len(row) for row in graph)
    sizes = _component_sizes(graph)
    path_length, diameter = _paths(graph, rng, samples)
    exponent, fit, start, tail = tail_of(degrees)
    count = len(nodes)
    return Shape(
        nodes=count,
        edges=sum(degrees) // 2,
        clustering=_clustering(graph),
        path_length=path_length,
        diameter_seen=diameter,
        tail_exponent=exponent,
        tail_fit=fit,
        tail_from=start,
        tail_nodes=tail,
        degree_p50=degrees[count // 2] if count else 0,
        degree_p99=degrees[min(count - 1, count * 99 // 100)] if count else 0,
        degree_max=degrees[-1] if count else 0,
        components=len(sizes),
        largest_component=max(sizes, default=0) / count if count else 0.0,
    )


def largest_component_after(adjacency: Mapping[_N, Sequence[_N]], removed: Collection[_N]) -> float:
    """Return which share of the remaining nodes is in one component when some are removed at once, 0 … 1."""
    gone = frozenset(removed)
    rest = {node: [peer for peer in peers if peer not in gone] for node, peers in adjacency.items() if node not in gone}
    nodes, graph = _indexed(rest)
    return max(_component_sizes(graph), default=0) / len(nodes) if nodes else 0.0


def tail_of(degrees: Sequence[int]) -> tuple[float, float, int, int]:
    """Fit a discrete power law to the upper tail (Clauset, Shalizi & Newman 2009, §3.3 and appendix B).

    Returns:
        Exponent, KS distance, smallest degree of the tail, nodes in it; (nan, nan, 0, 0) if there is no tail to fit.
    """
    counts = sorted(Counter(degree for degree in degrees if degree > 0).items())
    best = (math.nan, math.nan, 0, 0)
    for at in range(len(counts) - _TAIL_KINDS_MIN + 1):
        tail = counts[at:]
        total = sum(count for _, count in tail)
        if total < _TAIL_MIN:
            break
        start = tail[0][0]
        logs = sum(count * math.log(degree) for degree, count in tail)
        exponent = _most_likely(total, logs, start)
        distance = _ks(tail, total, exponent, start)
        if math.isnan(best[1]) or distance < best[1]:
            best = (exponent, distance, start, total)
    return best


def _most_likely(total: int, logs: float, start: int) -> float:
    """Return the exponent of greatest likelihood by golden section; the likelihood has one maximum."""
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    low, high = 1.01, _EXPONENT_MAX

    def badness(exponent: float) -> float:
        return total * math.log(_zeta(exponent, start)) + exponent * logs

    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = badness(left), badness(right)
    while high - low > 1e-4:
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = badness(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = badness(right)
    return (low + high) / 2.0


def _ks(tail: Sequence[tuple[int, int]], total: int, exponent: float, start: int) -> float:
    """Return the largest gap between the two cumulative distributions, looked at on both sides of every step."""
    norm = _zeta(exponent, start)
    seen, worst = 0, 0.0
    for degree, count in tail:
        below = 1.0 - _zeta(exponent, degree) / norm
        worst = max(worst, abs(seen / total - below))
        seen += count
        upto = 1.0 - _zeta(exponent, degree + 1) / norm
        worst = max(worst, abs(seen / total - upto))
    return worst


def _zeta(exponent: float, start: int) -> float:
    """Return the sum of n^-exponent for n ≥ start (Hurwitz), by Euler–Maclaurin after ten terms; error below 1e-9."""
    head = sum(n**-exponent for n in range(start, start + 10))
    n = start + 10
    last = n**-exponent
    curve = exponent * last / n
    return (
        head
        + last * n / (exponent - 1.0)
        + last / 2.0
        + curve / 12.0
        - curve * (exponent + 1) * (exponent + 2) / (720.0 * n * n)
    )


def _indexed(adjacency: Mapping[_N, Sequence[_N]]) -> tuple[list[_N], list[list[int]]]:
    """Number the nodes in order of appearance; return them, and per node its neighbours, each once, both ways."""
    index: dict[_N, int] = {node: at for at, node in enumerate(adjacency)}
    rows: list[dict[int, None]] = [{} for _ in index]
    for node, peers in adjacency.items():
        at = index[node]
        for peer in peers:
            to = index.setdefault(peer, len(index))
            if to == len(rows):
                rows.append({})
            if to != at:
                rows[at][to] = None
                rows[to][at] = None
    return list(index), [list(row) for row in rows]


def _clustering(graph: Sequence[Sequence[int]]) -> float:
    rows = [frozenset(row) for row in graph]
    total = 0.0
    for row in rows:
        degree = len(row)
        if degree > 1:
            # Every linked pair is met twice; sums of lengths do not depend on the order of a set.
            total += sum(len(row & rows[peer]) for peer in row) / (degree * (degree - 1))
    return total / len(rows) if rows else 0.0


def _paths(graph: Sequence[Sequence[int]], rng: random.Random, samples: int) -> tuple[float, int]:
    """Return mean and longest distance from sampled sources, all searched at once: one bit per source."""
    count = len(graph)
    sources = list(range(count)) if count <= samples else rng.sample(range(count), samples)
    seen = [0] * count
    for bit, node in enumerate(sources):
        seen[node] = 1 << bit
    front = {node: seen[node] for node in sources}
    level = reached = steps = 0
    while front:
        level += 1
        new: dict[int, int] = {}
        for node, bits in front.items():
            for peer in graph[node]:
                fresh = bits & ~seen[peer]
                if fresh:
                    new[peer] = new.get(peer, 0) | fresh
        for node, bits in new.items():
            seen[node] |= bits
            count_bits = bits.bit_count()
            reached += count_bits
            steps += level * count_bits
        front = new
    return (steps / reached if reached else 0.0), max(0, level - 1)


def _component_sizes(graph: Sequence[Sequence[int]]) -> list[int]:
    seen = bytearray(len(graph))
    sizes: list[int] = []
    for start in range(len(graph)):
        if seen[start]:
            continue
        seen[start] = 1
        stack, size = [start], 0
        while stack:
            size += 1
            for peer in graph[stack.pop()]:
                if not seen[peer]:
                    seen[peer] = 1
                    stack.append(peer)
        sizes.append(size)
    return sizes
