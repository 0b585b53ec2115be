"""What can be tuned about contacts."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ContactsConfig:
    """Knobs of the address book and of dialling (docs/spec/contacts.md).

    Attributes:
        links_min: While fewer links are up, any known node is dialled; beyond it only neighbours of the overlay, nodes
            that the operator named, and nodes never met. Default 4 (guess: enough that one bad contact does not matter).
        links_spare_max: Of the links to nodes that are no neighbours so many are kept; of the others the longest up go
            first, unless a call runs over them. Raise it where many distant agents are called again and again. Default 8
            (guess; a link costs 130 KB of memory, a dial 3 ms on a LAN).
        addresses_max: Addresses kept per node. Default 8.
        contacts_max: Nodes remembered. Default 1 024 (about 0.5 KB each).
        heard_max: Nodes remembered only because their signed record passed by. Default 128: more than the passive view
            and the zone candidates, from which neighbours are chosen.
        dial_first_s: First wait after a dial before the next; doubles each time. A lost neighbour is dialled after half
            of it. Default 1: a seed that starts a moment after us is met within seconds.
        dial_wait_s_max: Longest wait between two dials of one node. Default 60.
        dial_jitter: Each wait is multiplied by a random 1 ± this, so that nodes do not dial in step. Default 0.3.
        dial_stagger_s: Of two nodes that hear of each other at once the one with the higher id waits this long, so that
            one link is made and not two. Default 0.5; must stay well below the 3 s in which newcomers are to be seen.
        dials_at_once: Dials asked for within one ``dial_first_s`` at most. Default 16.
        attempts_max: A node known by hearsay only is forgotten after so many dials in vain. Default 8 (about 4 minutes).
        forget_s: A node once connected, or remembered from an earlier run, is forgotten after this long. Nodes that the
            operator named never are. Default 86 400.
        lost_max: Lost nodes remembered. Default 128: all neighbours of a hub.
        reunite_interval_s: While nodes are lost, one of them, chosen at random, is dialled this often. After a partition
            both sides try, so the first bridge appears within a fraction of it. Default 2.0: directories are to be equal
            10 s after the heal.
        cut_off_ratio: This node counts itself cut off when at least this part of the nodes it was in touch with is lost.
            Default 0.3: one dead node of five is no partition, one of three may be.
        cut_off_told_s: A loss older than this no longer counts for that while others are in touch: by then it is how
            things are. The lost are tried on. Default 900 (guess).
        skew_s: Clock difference that is reported. Default 50: datagrams are refused from 60 on, records from 300.
        messages_per_s, messages_burst: Control messages accepted from one peer, sustained and at once. What is beyond
            is dropped and held against it. Defaults 200 and 2 000 (guess: a thousand agents registered at once behind one
            node are as many broadcasts).
        items_per_s, items_burst: Entries in those messages (leases, records, hints). Defaults 2 000 and 60 000
            (guess: a full directory of 10 000 passes 4 times).
        guards_max: Peers whose sending is measured; the longest quiet one makes room. Default 1 024.
    """

    links_min: int = 4
    links_spare_max: int = 8
    addresses_max: int = 8
    contacts_max: int = 1_024
    heard_max: int = 128
    dial_first_s: float = 1.0
    dial_wait_s_max: float = 60.0
    dial_jitter: float = 0.3
    dial_stagger_s: float = 0.5
    dials_at_once: int = 16
    attempts_max: int = 8
    forget_s: float = 86_400.0
    lost_max: int = 128
    reunite_interval_s: float = 2.0
    cut_off_ratio: float = 0.3
    cut_off_told_s: float = 900.0
    skew_s: float = 50.0
    messages_per_s: float = 200.0
    messages_burst: float = 2_000.0
    items_per_s: float = 2_000.0
    items_burst: float = 60_000.0
    guards_max: int = 1_024
