"""What can be tuned about broadcast trees (docs/spec/plumtree.md §3–§6)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PlumtreeConfig:
    """Knobs of the broadcast. "Measured" = 10,000 nodes in zones, links 10–50 ms, docs/spec/plumtree.md §7.

    Attributes:
        zone_eager: Zone mates that a fresh node pushes to besides its long links. Raise it where zones have few long
            links. Default 2 (RQ1 research §2.4).
        zone_lazy: Zone mates told of each message by announcement; keeps traffic independent of the zone's size. Every
            member is told by as many. Raise it where links lose whole messages. Default 5 (guess; 4 to 6 measure alike).
        flood_publish_max: Own messages go to so many lazy long links as well (gossipsub), outside the tree. Saves
            everybody about a hop and costs as many payloads received twice in all. Default 6.
        announce_delay_s: Announcements of so long a time travel together, and who announced meanwhile is left out.
            Raise it when many senders speak at once. Default 0.01 (research §6: 5 to 20 ms).
        fetch_wait_s: After the first announcement the push is awaited so long before the payload is fetched, at first.
            Lower means faster repair and more payloads received twice. Default 0.24 (measured, spec §4.1).
        fetch_wait_s_min, fetch_wait_s_max, fetch_wait_step_s: Each fetch takes a step off the wait, each push that comes
            after all adds two: where links repeat what they lose it pays to wait, where they do not it does not.
            Defaults 0.1, 0.3 and 0.01 (measured).
        fetch_wait_rtts: The wait is at least so many measured round trips; it counts on links slower than 100 ms one
            way. Raise it there if payloads come twice. Default 1 (guess; research §6 had 3, which is the same 180 ms
            on links of 30 ms).
        retry_wait_s, retry_wait_rtts: The same for the answer to a fetch, before the next announcer is asked. Defaults
            0.08 and 1.5 (research §6).
        fetch_bytes_per_s: A large payload is given its size divided by this on top. Default 131 072 = 1 Mbit/s.
        attempts_max: A payload is fetched so often in vain, then only the next announcement of it counts. Default 10: at
            10 % loss each way all ten fail once in 10⁷.
        rtt_first_s: Assumed round trip until one is measured. Default 0.06 = two links of 30 ms.
        promote_holes: So many messages that no eager link brought make their announcer an eager parent. Default 4.
        promote_mend: Each message that an eager link did bring takes so much off that count. Default 0.5: holes below
            one message in three, which is loss and not a broken tree, never add up.
        optimise_hops: An announcer that is so many hops nearer than the eager parent takes its place. Default 7 (paper).
        optimise_pause_s: At most one such change in so long. Default 5 (guess).
        late_max: An eager neighbour that came second so often in a row is pruned whatever the cause. Default 16 (guess).
        inline_bytes_max: Larger payloads are offered and fetched by id. Default 4 096 (RQ1 research §6).
        unwanted_bytes_min: Payloads above this are declined at the other eager neighbours on first receipt. Default
            1 024 (gossipsub 1.2).
        payload_bytes_max: Larger ones are refused. Default 66 560: the largest manifest and a kilobyte around it.
        cache_s, cache_bytes_max, cache_max: Payloads are handed out so long, so many bytes and so many of them are kept.
            Defaults 30 s (iroh-gossip), 4 MiB, 4 096.
        seen_s, seen_max: Ids are remembered so long and so many; an older copy counts as new and is left to the judge.
            Defaults 600 s (RQ1 research §6) and 20 000 (3 MB when full).
        missing_max, promised_max: Announced ids awaited, in all and per announcer. Defaults 4 096 and 512.
        unwanted_max: Ids declined by neighbours before they arrived here. Default 2 048.
        sync_interval_s: After traffic the recent ids are compared with some neighbours so often (± 30 %).
            Default 0.8: three rounds fit the 5 s in which everybody must be reached after a crash.
        sync_rounds: So many comparisons after the last new message; then silence. Default 3.
        sync_span_s: Only ids of so long a time are compared then; all that are kept at a new neighbour. Lower costs
            fewer bytes under traffic. Default 6: a crash, its slow broadcast, and three rounds.
        sync_untold: Zone mates among those neighbours that are never told by announcement; one more is picked at
            random. Default 2: three rounds cover a zone of 14.
        score_half_life_s: Points fade to half in so long. Default 120 (guess).
        score_max: Points that good deeds can pile up. Default 20.
        score_bad: At or below it a neighbour is ignored and the overlay is told. Default -20.
        score_first: Points for a payload that it brought first. Default 1.
        score_invalid: Points for an invalid payload. Default -12: two strikes, three after long good service.
        score_abuse: Points for a malformed message. Default -8.
        score_broken: Points for a promise not kept: announced, asked for, not delivered. Default -2, at most once a
            second, so that a link which stalls for some seconds costs nobody his neighbour.
        score_flood: Points per second of flood. Default -2.
        score_outside: Points when another machine or the transport calls it misbehaving. Default -4.
        scores_max: Scores kept of former neighbours, so that coming back washes nobody clean. Default 256.
        ids_per_s, ids_burst: New ids accepted from one neighbour, sustained and at once; announcing and bringing both
            count. Defaults 400 and 8 000 (guess: the tree may bring everything through one neighbour).
        bytes_per_s, bytes_burst: Payload bytes accepted from, and handed out to, one neighbour. Defaults 2 MiB and
            16 MiB (guess).
    """

    zone_eager: int = 2
    zone_lazy: int = 5
    flood_publish_max: int = 6
    announce_delay_s: float = 0.01
    fetch_wait_s: float = 0.24
    fetch_wait_s_min: float = 0.1
    fetch_wait_s_max: float = 0.3
    fetch_wait_step_s: float = 0.01
    fetch_wait_rtts: float = 1.0
    retry_wait_s: float = 0.08
    retry_wait_rtts: float = 1.5
    fetch_bytes_per_s: float = 131_072.0
    attempts_max: int = 10
    rtt_first_s: float = 0.06
    promote_holes: float = 4.0
    promote_mend: float = 0.5
    optimise_hops: int = 7
    optimise_pause_s: float = 5.0
    late_max: int = 16
    inline_bytes_max: int = 4_096
    unwanted_bytes_min: int = 1_024
    payload_bytes_max: int = 66_560
    cache_s: float = 30.0
    cache_bytes_max: int = 4_194_304
    cache_max: int = 4_096
    seen_s: float = 600.0
    seen_max: int = 20_000
    missing_max: int = 4_096
    promised_max: int = 512
    unwanted_max: int = 2_048
    sync_interval_s: float = 0.8
    sync_rounds: int = 3
    sync_span_s: float = 6.0
    sync_untold: int = 2
    score_half_life_s: float = 120.0
    score_max: float = 20.0
    score_bad: float = -20.0
    score_first: float = 1.0
    score_invalid: float = -12.0
    score_abuse: float = -8.0
    score_broken: float = -2.0
    score_flood: float = -2.0
    score_outside: float = -4.0
    scores_max: int = 256
    ids_per_s: float = 400.0
    ids_burst: float = 8_000.0
    bytes_per_s: float = 2_097_152.0
    bytes_burst: float = 16_777_216.0
