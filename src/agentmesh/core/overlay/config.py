"""What can be tuned about the overlay."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OverlayConfig:
    """Knobs of the two views (docs/spec/overlay.md §5).

    Attributes:
        long_by_tier: Long links that a node of capacity tier 0 … 4 carries. Raise the last ones on relays with
            bandwidth to spare. Default 3/7/15/30/60 (research: p2p-reliability §2.4).
        long_spread: The target of one node lies between tier ÷ √spread and tier × √spread, drawn by its key from a
            power law of ``long_exponent``, so that degrees fall smoothly and not in five steps. 1 = exactly the tier.
            Default 2: the bands of neighbouring tiers just touch.
        long_exponent: Exponent of that law. Default 2.5 (research: §2.4).
        long_min: Fewest long links wanted by any node. Default 5 and
            not 3 as tier 0 says: with 3, only 90 % of the rest hang together after 80 % of 10,000 nodes die at once, with
            4 some 95, with 5 some 97 (measured, docs/spec/overlay.md §7). Raising it lowers clustering.
        long_few: Who has fewer links than this is taken in beyond a full node's target. Default 3: random graphs of degree 3
            hold together. With 5, most nodes would end one above their target, and clustering lower.
        passive_max: Nodes kept in reserve for long links; a node with many links keeps twice their number. Default 42
            (research: §2.2).
        told_share: Largest part of the reserve that one peer's word may fill. Default 0.25 (guess).
        join_walk, passive_walk, shuffle_walk: Steps of a join, the step count at which it is noted in passing, and
            steps of a shuffle. Defaults 6, 3, 6 (HyParView).
        join_walks: Walks that one Join starts. Default 4: HyParView starts one per link, which a hub would pay
            dearly.
        walks_per_s, walks_burst: Joins and walks passed on, sustained and at once; the rest is dropped. Defaults 100
            and 400 (guess: a mesh of 10,000 that starts at once brings each node some 25).
        join_gap_s: A second Join of one peer within this time is a flood. Default 0.5; must stay below
            ``join_retry_s``.
        join_retry_s, join_retry_s_max: Shortest wait between two Joins of our own while nobody takes us in, doubling
            up to the longest. Defaults 2 and 30 (guess).
        shuffle_long, shuffle_passive: Nodes of each view in a shuffle, besides the sender. Defaults 3 and 4
            (HyParView).
        shuffle_s, shuffle_s_max: Between two shuffles for a minute after links changed, and when nothing has changed for
            longer; ± 20 %. Raise the latter on metered links: a shuffle is 2 KB on each of 7 links. Defaults 10 (research:
            §2.2) and 60 (10 throughout would take 1.4 KB/s of the 5 KB/s, and half the CPU, that an idle node may use).
        ask_timeout_s: A node asked for a link that does not answer within this time is dropped from the reserve.
            Default 0.5 (HyParView as coded by others; research: §2.2).
        asks_at_once: Requests for a link under way. Default 4 (guess).
        refused_s: Who refused is not asked again for so long. Default 10 (guess).
        insert_gap_s: A full node lets itself be put between two others at most this often. Default 0.5 (guess: slow
            enough that one flood of requests does not turn all links over).
        fill_s, fill_s_max: Wait before looking for links again when nobody suitable is known, doubling. Defaults 0.5,
            30.
        bad_s: A neighbour that plumtree scored out is not taken back for so long. Default 60 (gossipsub prune
            backoff).
        bad_max: Such nodes remembered. Default 64.
        zone_split_above: A zone with more members splits. Default 26: sizes then lie between 9 and 30, mean 16 to 19 with the
            size of the mesh. 20 would cost less probing, but clustering falls to 0.52 (measured, §7).
        zone_half_min: … if each half keeps at least so many. Default 9: a failover set that survives half of it.
        zone_sure: An own half of so many members proves that the other half is populated too, though it is not known.
            Default 40 = far above any zone.
        zone_gap_s: Changes within this time make one change of the zone. Default 0.25 (guess: some round trips).
        merge_hold_s, merge_hold_s_max: A zone grows into its parent when the reason has held for so long; doubled each time
            it split again within ``flap_s`` of doing so. Defaults 3 and 80 (guess: bounds flapping to one change per 80 s).
        flap_s: How long such a relapse counts. Default 300.
        candidates_max: Nodes of the site remembered for zones. Default 96: a zone, its sibling and their parent's
            sibling with room. ≤ 150.
        bucket_keep: … of which so many of every shorter common prefix are kept, as a way to any part of the mesh.
            Default 4.
        told_max: Candidates that one peer may have told of and that have not been met. Default 64.
        near_fast_s, near_s_max: Between two exchanges with zone mates while they bring news, and when they do not.
            Defaults 0.5 and 20 (≥ 10 to stay idle).
        search_asks_max: Requests of one search for the own zone. Default 12: 3–4 steps of 3 bits lead across 10,000
            nodes.
        tombs_max: Dead nodes remembered. Default 128.
        tomb_probe_s, tomb_probe_s_max: A dead neighbour is asked whether it is back after so long, doubling. Defaults
            2, 60: a healed partition re-mixes within seconds, for a few messages per dead neighbour.
        tomb_probes_max: … and so many times. Default 14, about 10 minutes.
        tomb_ask_gap_s: One of whom somebody else says that it lives is asked at most this often. Default 15 (guess).
        doubt_s, doubt_tries: A candidate that others hold for dead, or that did not answer, is asked so often; the waits
            double from the first. If it stays silent it is dead to us too. Defaults 1 and 3 (guess: a dial and an answer).
        far_share: When the table of candidates is full, this share of the unmet nodes that are too far to matter still gets
            the place of another far one, so that ways into other parts stay fresh. Default 0.1 (guess; each costs 10 µs).
        doubts_max: Such candidates at once. Default 8: twice as many kept overloaded nodes busy with such questions (measured).
        revive_s, revive_s_max: A node that died is not taken back on the strength of a message within this time of
            its death, doubling with every death while it is remembered. Defaults 1 and 60.
    """

    long_by_tier: tuple[int, int, int, int, int] = (3, 7, 15, 30, 60)
    long_spread: float = 2.0
    long_exponent: float = 2.5
    long_min: int = 5
    long_few: int = 3
    passive_max: int = 42
    told_share: float = 0.25
    join_walk: int = 6
    passive_walk: int = 3
    shuffle_walk: int = 6
    join_walks: int = 4
    walks_per_s: float = 100.0
    walks_burst: float = 400.0
    join_gap_s: float = 0.5
    join_retry_s: float = 2.0
    join_retry_s_max: float = 30.0
    shuffle_long: int = 3
    shuffle_passive: int = 4
    shuffle_s: float = 10.0
    shuffle_s_max: float = 60.0
    ask_timeout_s: float = 0.5
    asks_at_once: int = 4
    refused_s: float = 10.0
    insert_gap_s: float = 0.5
    fill_s: float = 0.5
    fill_s_max: float = 30.0
    bad_s: float = 60.0
    bad_max: int = 64
    zone_split_above: int = 26
    zone_half_min: int = 9
    zone_sure: int = 40
    zone_gap_s: float = 0.25
    merge_hold_s: float = 3.0
    merge_hold_s_max: float = 80.0
    flap_s: float = 300.0
    candidates_max: int = 96
    bucket_keep: int = 4
    told_max: int = 64
    near_fast_s: float = 0.5
    near_s_max: float = 20.0
    search_asks_max: int = 12
    tombs_max: int = 128
    tomb_probe_s: float = 2.0
    tomb_probe_s_max: float = 60.0
    tomb_probes_max: int = 14
    tomb_ask_gap_s: float = 15.0
    doubt_s: float = 1.0
    doubt_tries: int = 3
    far_share: float = 0.1
    doubts_max: int = 8
    revive_s: float = 1.0
    revive_s_max: float = 60.0

    def long_target(self, capacity: int, key: bytes) -> int:
        """Return how many long links a node wants, which anybody can tell from its record.

        Args:
            capacity: Tier 0 … 4.
            key: Its DHT key; the last four bytes decide within the tier's band, the first ones decide on zones.
        """
        centre = self.long_by_tier[capacity]
        if self.long_spread <= 1.0:
            return max(self.long_min, centre)
        root = self.long_spread**0.5
        power = 1.0 - self.long_exponent
        low, high = (centre / root) ** power, (centre * root) ** power
        drawn = int.from_bytes(key[-4:], "big") / 2**32
        return max(self.long_min, int((low - drawn * (low - high)) ** (1.0 / power)))

    def long_room(self, target: int) -> int:
        """Return the most long links that a node with this target ever has."""
        return target + 1 + target // 8
