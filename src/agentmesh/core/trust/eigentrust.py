"""EigenTrust: how far each node's word counts, given who saw whom do well (Kamvar, Schlosser, Garcia-Molina, WWW 2003).

The basic algorithm of the paper (§4.5) at one node: every node divides one unit of trust among those it saw do well, in
proportion; a node that saw nobody gives it to the roots; in every round the roots get a share ``restart`` of all trust beside.
That is personalised PageRank with the roots as personalisation and as target of dangling nodes, which the tests use as oracle.
Nobody that the roots cannot reach by such steps has any trust, however many they are and whatever they say of each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def eigentrust(
    seen: Mapping[str, Mapping[str, float]],
    roots: Sequence[str],
    *,
    restart: float,
    rounds_max: int = 100,
    change_min: float = 1e-9,
) -> dict[str, float]:
    """Return the trust of every node that is named; it sums to 1.

    Args:
        seen: Node → what it saw of others, each 0 or more; what is not above 0 is left out.
        roots: Nodes that are trusted beforehand, at least one, each with an equal share.
        restart: Share of trust that goes to the roots in every round, above 0, at most 1.
        rounds_max, change_min: When to stop: after so many rounds, or when no more trust than this moves in one.
    """
    places: dict[str, int] = {}
    for node in roots:
        places.setdefault(node, len(places))
    roots_count = len(places)
    for node, others in seen.items():
        places.setdefault(node, len(places))
        for other in others:
            places.setdefault(other, len(places))
    count = len(places)
    shares: list[list[tuple[int, float]]] = [[] for _ in range(count)]
    for node, others in seen.items():
        whole = sum(value for value in others.values() if value > 0.0)
        if whole > 0.0:
            shares[places[node]] = [(places[o], value / whole) for o, value in others.items() if value > 0.0]
    each = 1.0 / roots_count
    trust = [each] * roots_count + [0.0] * (count - roots_count)
    for _ in range(rounds_max):
        after = [0.0] * count
        unspent = 0.0
        for place, held in enumerate(trust):
            if not held:
                continue
            if not shares[place]:
                unspent += held
            for other, share in shares[place]:
                after[other] += held * share
        to_root = ((1.0 - restart) * unspent + restart) * each
        for place in range(count):
            after[place] = (1.0 - restart) * after[place] + (to_root if place < roots_count else 0.0)
        moved = sum(abs(a - b) for a, b in zip(after, trust, strict=True))
        trust = after
        if moved <= change_min:
            break
    return dict(zip(places, trust, strict=True))
