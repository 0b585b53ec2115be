"""What can be tuned about SWIM."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SwimConfig:
    """Knobs of failure detection (docs/spec/swim.md; first values: research p2p-reliability §2.1).

    Attributes:
        interval_s: One member is probed per so many seconds × (1 + awareness). Raise it to halve the idle traffic at
            the price of later detection. Default 0.5 (research).
        timeout_s_min: A probe waits at least this long, and 4 × the round trip, for the direct answer before it asks
            others. Must leave time within the interval for two round trips. Default 0.2 (research).
        timeout_s_max: … and at most this long. Default 2.0 (guess: satellite links take 0.7).
        helpers: Members asked to probe in our stead. Default 3 (research; memberlist).
        awareness_max: Top of the local health score; the interval is at most 1 + this times longer. Default 8 (Lifeguard).
        suspicion_mult: Suspicion lasts at least mult × log10(members + 1) × interval. Default 4 (memberlist).
        suspicion_floor_s: … and at least this long since our own first unanswered probe, however many confirm it. Must
            exceed the longest pause that a healthy node is granted (5 s) by ``burst_s`` and some. Default 8.0: measured
            with 5 s pauses at 25 % loss, where 7 was too short without links (docs/spec/swim.md §7).
        suspicion_max_ratio: Without any confirmation it lasts this many times longer. Default 1.2: a zone has so many
            observers that confirmations nearly always come; memberlist's 6 would miss 12 s where they do not (measured).
        confirmations: Independent accusers that shorten the suspicion to its minimum. Default 2 (research).
        suspect_interval_s: A suspect is pinged so often, on top of the rounds. Default 0.5 (guess: twelve tries).
        burst_s: Before a member is declared dead it is asked for so long in every way: directly, through helpers and
            over a link. Raise it for networks with outages of seconds. Default 2.0: with ``burst_interval_s`` eight tries.
        burst_interval_s: Time between two tries of that burst. Default 0.25 (longer than most round trips).
        check_interval_s: What others say of a member makes us probe it at most this often. Default 2.0 (guess).
        checks_max: Members probed at once outside the rounds. Default 32: more than a zone.
        vouch_s_max: An answer through others, or a newer record, holds off suspicion for so long after the last direct
            contact, not longer. Bounds what lying helpers and one-way cuts can hide. Default 30 (guess).
        members_max: Members watched; further ones are refused. Default 512: zones of ≤ 256 and long links (architecture).
        retransmit_mult: A rumour is sent mult × ⌈log10(members + 1)⌉ times. Default 4 (memberlist).
        rumours_max: Records waiting to be passed on; the most often sent one gives way. Default 64 (guess).
        packet_bytes_max: Rumours are added to a packet up to this size, bytes, encoded. Default 1200 (fits any path).
        tell_fanout: A fresh suspicion or an own new record is told at once to so many members. Default 8: with their own
            tells a whole zone begins to ask within two intervals (memberlist's 3 takes longer).
        dead_max: Dead and departed members remembered. Default 64.
        dead_keep_s: … for so long. Default 86 400: node records live no longer.
        dead_interval_s: One of the dead is pinged so often, to notice that it is back. Default 2.0.
        dead_recent_s, dead_late_interval_s: When nobody died for that long, one is pinged only every
            ``dead_late_interval_s``. Defaults 600 and 30 (guess: a morning's outage costs nothing worth naming).
        pause_s: A timer later than this means that this machine itself slept: nobody is suspected for what it missed.
            Default 0.6 (guess: above a garbage collection or a busy core, below the shortest suspicion).
        greetings: After such a pause every member is pinged so many times, ``burst_interval_s`` apart, to be heard
            before anyone gives up on us. Default 3: at 25 % loss 98.4 % hear at least one.
        strain_s: A machine that sleeps thrice, each time within so long, has more to do than it can. Default 10.
        suspects_usual: With twice as many suspects at once answers are late rather than members dead. Default 4 (guess: a
            zone of 16 rarely loses more at once).
        slowness_max: Then, after such sleeps and with a low opinion of itself it asks suspects and helpers up to so many
            times less, and takes as much longer to declare a death. Default 4: without it 200 nodes on two cores kept
            each other suspected and busy (docs/spec/swim.md §3.7).
        relays_max: Probes run for others at once. Default 64; more are not answered.
        refute_interval_s: One accuser can make this node sign a new record once in so long. Default 5.0 (guess: shorter
            than a suspicion, so that an honest accuser is always refuted in time).
    """

    interval_s: float = 0.5
    timeout_s_min: float = 0.2
    timeout_s_max: float = 2.0
    helpers: int = 3
    awareness_max: int = 8
    suspicion_mult: float = 4.0
    suspicion_floor_s: float = 8.0
    suspicion_max_ratio: float = 1.2
    confirmations: int = 2
    suspect_interval_s: float = 0.5
    burst_s: float = 2.0
    burst_interval_s: float = 0.25
    check_interval_s: float = 2.0
    checks_max: int = 32
    vouch_s_max: float = 30.0
    members_max: int = 512
    retransmit_mult: int = 4
    rumours_max: int = 64
    packet_bytes_max: int = 1_200
    tell_fanout: int = 8
    dead_max: int = 64
    dead_keep_s: float = 86_400.0
    dead_interval_s: float = 2.0
    dead_recent_s: float = 600.0
    dead_late_interval_s: float = 30.0
    pause_s: float = 0.6
    greetings: int = 3
    strain_s: float = 10.0
    suspects_usual: int = 4
    slowness_max: int = 4
    relays_max: int = 64
    refute_interval_s: float = 5.0
