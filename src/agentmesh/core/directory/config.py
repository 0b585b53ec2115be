"""What can be tuned about the directory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DirectoryConfig:
    """Knobs of the directory of agents (docs/spec/directory.md).

    Attributes:
        require_signed: Refuse unsigned manifests. When off they are admitted, rank below every signed one and are shown
            as low trust (RQ0 §4.1); they spread between neighbours only, not by broadcast. Default on.
        lease_gone_s: The agents of a node that was reported dead are dropped after so long without contrary word. Raise it
            where nodes are often away for minutes. Default 90 (RQ1).
        leave_grace_s: The same for a node that said it leaves: long enough for a quick restart. Default 5 (guess).
        silent_s: A node of which nothing was heard for so long is taken for dead. Keep three ``zone_keepalive_s`` within
            it. Default 900.
        forget_s: How long it is remembered that a node's agents were dropped, so that a peer who slept does not bring them
            back. Default 900 = ``silent_s``: nobody awake holds them longer. Raise it together with that.
        word_age_s: Broadcast node records and zone reports signed longer ago are not passed on: old ones are replays.
            Default 600 (guess: far above any delay, and above the clock skew allowed).
        sync_s: How often everything is compared with one random neighbour, ± 15 %. Raise it on metered links: an equal
            comparison costs 40 bytes. Default 30 (research: p2p-reliability §2.1).
        sync_fast_s: The same while comparisons bring news. Default 0.5: a healed mesh of 1,000 nodes was then equal 2.3 s
            after the first neighbours met (docs/spec/directory.md §4.5).
        sync_fast_peers: With how many random neighbours then. Default 3 (measured with the former).
        sync_hot_s: How long after the last such news comparisons stay fast. Default 5: longer than ``want_retry_s``, so that
            what was lost is asked for again.
        sync_fresh_s: News signed within the last seconds, which a broadcast may still be bringing, make one round of
            comparisons only, after this long. Default 3: above the time a broadcast takes.
        zone_keepalive_s: A zone is reported on so often though nothing changed. Default 300: 2 reports per second
            in a mesh of 10,000 nodes.
        zone_settle_s: The first reporter waits so long after a death for others, to report them together. Default 0.3.
        zone_takeover_s: The second reporter waits so long for the first, each further one 0.4 s more. Default 1.0: above the
            time a report takes to reach everyone (0.5 s).
        zone_gap_s: Least time between two reports of this node. Default 2.
        zone_dead_s: How long a dead member stays in reports, and one that was taken for dead is said to live. Default 600
            = two keep-alives.
        zone_dispute_s: A member whom SWIM gave up here, but who lives by the word of others, is left alone for so long
            before it is reported. Default 30: within that the others notice a death, or SWIM here that it was none.
        record_gap_s: Least time between two broadcasts of this node's own record, whatever its agents' health does.
            Default 2.
        refute_s: Who is reported dead waits about so long for its zone to say otherwise before it does itself. Default 3:
            above ``zone_takeover_s``, so that a healed zone needs one report and not one record per node.
        reporter_lies_max: Reports of one node that were refuted within ``word_age_s`` before it is no longer believed for
            as long. Default 4 (guess; partitions cost an honest reporter one each).
        entries_max: Manifests and tombstones held. Default 10 000 (design goal of one zone; about 2.5 KB each).
        node_agents_max: Agents of one node. Default 1 000 (guess).
        spare_nodes_max: Nodes without agents here of which something is remembered: that they died, left, or have sick
            agents. The oldest goes first. Default 2 000 (guess: as many may die or leave in ``forget_s``).
        reports_max: Zone reports held. Default 2 048 (three times the zones of 10,000 nodes).
        replay_grace_s: An older record that arrives within this time of a newer one is a race, later it is a replay and
            held against the sender. Default 10 (guess: far above any delay on a live link).
        want_retry_s: A record asked for is asked for again after this long. Default 2 (guess).
        wants_max: Records being waited for that are remembered, to avoid asking twice and to know a stranger's answer.
            Default 20 000 = twice ``entries_max``.
        records_bytes: Bytes of records put into one message, at least one record. Default 64 KiB: about 50 records,
            which take some 20 ms to verify, so that calls in flight hardly notice.
        want_batches: Messages of records that one ``Want`` is answered with at most; the rest is asked for again. Default 8.
        seek_peers: Neighbours asked by one search. Default 3 (guess; the DHT is asked at the same time).
        finds_max: Searches at once; more end at once with what is known here. Default 256 (guess).
        find_wants_max: Manifests that one search asks strangers for. Default 32: twice the usual ``agents_max``.
    """

    require_signed: bool = True
    lease_gone_s: float = 90.0
    leave_grace_s: float = 5.0
    silent_s: float = 900.0
    forget_s: float = 900.0
    word_age_s: float = 600.0
    sync_s: float = 30.0
    sync_fast_s: float = 0.5
    sync_fast_peers: int = 3
    sync_hot_s: float = 5.0
    sync_fresh_s: float = 3.0
    zone_keepalive_s: float = 300.0
    zone_settle_s: float = 0.3
    zone_takeover_s: float = 1.0
    zone_gap_s: float = 2.0
    zone_dead_s: float = 600.0
    zone_dispute_s: float = 30.0
    record_gap_s: float = 2.0
    refute_s: float = 3.0
    reporter_lies_max: int = 4
    entries_max: int = 10_000
    node_agents_max: int = 1_000
    spare_nodes_max: int = 2_000
    reports_max: int = 2_048
    replay_grace_s: float = 10.0
    want_retry_s: float = 2.0
    wants_max: int = 20_000
    records_bytes: int = 64 * 1024
    want_batches: int = 8
    seek_peers: int = 3
    finds_max: int = 256
    find_wants_max: int = 32
