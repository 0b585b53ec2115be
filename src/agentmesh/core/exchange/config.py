"""What can be tuned about peer exchange."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ExchangeConfig:
    """Knobs of peer exchange (docs/spec/exchange.md §4).

    Attributes:
        links_max: Links wanted; beyond it only nodes that the operator named are dialled. Inbound links are not refused
            here. Raise it on hubs. Default 32 (issue 2).
        addresses_max: Addresses kept per node. Default 8.
        contacts_max: Nodes remembered. Default 2 048 (about 1 KB each).
        told_max: Unconnected nodes that one peer's hints may occupy; keeps one peer from filling the table. Default 256.
        hints_max: Nodes per ``Peers`` message, both ways. Default 64.
        peers_interval_s: How often a changed list of peers is told to all. A new link is told at once. Default 30.
        dial_first_s: First wait after a dial before the next; doubles each time. A lost peer is dialled after half of
            it. Default 1: a seed that starts a moment
            after us is met within seconds.
        dial_wait_s_max: Longest wait between two dials of one node. Default 60.
        dial_jitter: Each wait is multiplied by a random 1 ± this, so that nodes do not dial in step. Default 0.3.
        dial_stagger_s: Of two nodes that hear of each other at once the one with the higher id waits this long, so that
            one link is made and not two. Default 0.5; must stay well below the 3 s in which newcomers are to be seen.
        dials_at_once: Dials asked for within one ``dial_first_s`` at most. Default 16.
        attempts_max: A node known by hearsay only is forgotten after so many dials in vain. Default 8 (about 4 minutes).
        forget_s: A node once connected, or remembered from an earlier run, is forgotten after this long. Nodes that the
            operator named never are. Default 86 400.
        ping_interval_s: A peer silent for so long is pinged. Default 15.
        silent_s: A peer silent for so long, pings included, is reported. Default 45 = 3 pings.
        skew_s: Clock difference that is reported. Default 120; manifests tolerate 300.
        messages_per_s, messages_burst: Control messages accepted from one peer, sustained and at once. What is beyond
            is dropped and held against it. Defaults 50 and 500 (guess: the first meeting of two full directories takes 120).
        items_per_s, items_burst: Entries in those messages (leases, records, hints). Defaults 1 000 and 60 000
            (guess: a full directory of 10 000 passes 4 times).
    """

    links_max: int = 32
    addresses_max: int = 8
    contacts_max: int = 2_048
    told_max: int = 256
    hints_max: int = 64
    peers_interval_s: float = 30.0
    dial_first_s: float = 1.0
    dial_wait_s_max: float = 60.0
    dial_jitter: float = 0.3
    dial_stagger_s: float = 0.5
    dials_at_once: int = 16
    attempts_max: int = 8
    forget_s: float = 86_400.0
    ping_interval_s: float = 15.0
    silent_s: float = 45.0
    skew_s: float = 120.0
    messages_per_s: float = 50.0
    messages_burst: float = 500.0
    items_per_s: float = 1_000.0
    items_burst: float = 60_000.0
