"""What can be tuned about the DHT."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DhtConfig:
    """Knobs of the DHT (docs/spec/dht.md). "RN" is the research note p2p-reliability, §2.3.

    Attributes:
        k: Contacts per bucket, and how many nearest nodes a lookup ends with. Default 20 (Kademlia, RN).
        alpha: Requests of a lookup under way that are not late. Raise it for latency, at the cost of traffic. Default 3.
        alpha_max: Requests of one path under way, late ones included. Default 10 (Amino, RN).
        paths: Disjoint paths of a lookup that looks eclipsed or found nothing. Default 4 (S/Kademlia, RN).
        failures_max: Unanswered requests in a row after which a contact is dropped (Kademlia's β). Default 3 (RN).
        rpc_timeout_s: A request without an answer has failed after this long. Default 1 (RN).
        slow_s_min, slow_s_max: Between these, after mean round trip + 4 deviations, a request is late and another one
            goes out beside it. Default 0.03 and 0.5 (guess; a constant 0.2 until a round trip was measured).
        referral_credit: How many nodes that one node named may be asked and not have answered, beyond those that did
            answer. Lower starves liars sooner, higher finds more among dead nodes. Default 3 (measured: spec §5).
        candidates_max: Nodes one lookup remembers, the nearest. Default 300 (guess: 15 full answers).
        asked_max: Requests of one lookup. Default 160 (guess; measured p99 is below half of it).
        pages_max: How often one node is asked again for more of its many values in a lookup. Default 4 (guess).
        lookups_max: Lookups running at once. Default 32 (guess).
        queue_max: Lookups waiting; one more is answered at once with nothing. Default 512 (guess).
        store_set: Nodes a record is stored at. Default 20 for open networks; 8 in a federation (RN: loss 0.4 % after half
            of all nodes crash; 10^-6 with 20).
        replicas_min: Fewer acknowledgements than this and providing is tried again. Default 3 (RQ1).
        replicas_low: A share of ``store_set``: with fewer replicas known alive, the owner provides afresh. Default 0.6
            (guess: 40 % gone at once is no usual churn, and 8 of 20 would still be left).
        provides_max: Records being provided at once. Default 8 (guess).
        provide_retry_s: First wait before a failed providing is tried again; doubles up to a minute. Default 2 (guess).
        republish_s: Records are signed and provided afresh after this long, ± ``republish_jitter``. Keep it below a third
            of the record life of 1 h. Default 1 200 (RN).
        republish_jitter: A share of ``republish_s``. Default 0.1.
        advertised_max: Pairs of local agent and key. Default 8 192 (guess: 1 000 agents with 8 keys).
        tick_s: Pace of idle upkeep: one replica check, or one ping, per tick. Default 5: a dead replica set of one key is
            noticed in time to be back within 10 s, at two datagrams of 100 bytes per tick.
        check_burst: Further replicas asked at once when one did not answer. Default 6: a mass crash is known after two
            or three round trips, a single crash costs six datagrams.
        check_pause_s: The same node is not checked again within this time, in a burst not within two timeouts. Default 2
            (guess: below ``tick_s``, so that a single replica is checked at every tick).
        near_quiet_s: A near node that was heard within this time is not pinged. Default 30 (guess).
        push_delay_s: Records go to a new near node after this long, ± half. Collects changes. Default 1 (guess).
        push_rank: Only the so many nearest of the holders push. Default 2: one may be dead.
        pushes_max: Records waiting to be pushed. Default 4 096 (guess).
        pushes_per_tick: Datagrams pushed per ``push_gap_s``. Default 8.
        push_gap_s: Pause between two batches of pushes. Default 0.1: 80 datagrams/s at most.
        refresh_s: A bucket nobody used for so long is refreshed by a lookup in it. Default 3 600 (Kademlia §2.3).
        refresh_gap_s: Pause between two lookups that fill the table of a newcomer. Default 0.5 (guess).
        stale_s: The oldest contact of a full bucket is pinged in favour of a newcomer only if unheard for so long.
            Default 60 (guess).
        pings_max: Pings under way to nodes that would enter the table. Default 16 (guess).
        shun_s: A node that did not answer when it was to enter the table is not tried again for so long. Default 60.
        shunned_max: How many such are remembered. Default 256.
        group_bucket_max, group_table_max: Contacts per /24 (IPv4) or /48 (IPv6) of public addresses, in a bucket and in
            the table. Default 2 and 3 (RN). Raise both where all nodes sit behind few public addresses.
        values_max: Providers kept per key. Default 256 (guess).
        values_node_max: Of these, by one node. Default 64 (guess).
        records_max: Provider records kept in all; about 400 bytes each. Default 16 384 (guess).
        reply_bytes_max: Encoded size of an answer. Default 1 200: with UDP and IPv6 headers below 1 280, the smallest MTU.
    """

    k: int = 20
    alpha: int = 3
    alpha_max: int = 10
    paths: int = 4
    failures_max: int = 3
    rpc_timeout_s: float = 1.0
    slow_s_min: float = 0.03
    slow_s_max: float = 0.5
    referral_credit: int = 3
    candidates_max: int = 300
    asked_max: int = 160
    pages_max: int = 4
    lookups_max: int = 32
    queue_max: int = 512
    store_set: int = 20
    replicas_min: int = 3
    replicas_low: float = 0.6
    provides_max: int = 8
    provide_retry_s: float = 2.0
    republish_s: float = 1_200.0
    republish_jitter: float = 0.1
    advertised_max: int = 8_192
    tick_s: float = 5.0
    check_burst: int = 6
    check_pause_s: float = 2.0
    near_quiet_s: float = 30.0
    push_delay_s: float = 1.0
    push_rank: int = 2
    pushes_max: int = 4_096
    pushes_per_tick: int = 8
    push_gap_s: float = 0.1
    refresh_s: float = 3_600.0
    refresh_gap_s: float = 0.5
    stale_s: float = 60.0
    pings_max: int = 16
    shun_s: float = 60.0
    shunned_max: int = 256
    group_bucket_max: int = 2
    group_table_max: int = 3
    values_max: int = 256
    values_node_max: int = 64
    records_max: int = 16_384
    reply_bytes_max: int = 1_200
