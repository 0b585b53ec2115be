"""What can be tuned about the spread of orders."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class OrdersConfig:
    """Knobs of orders (docs/spec/orders.md).

    Attributes:
        operators: did:keys of the operators that this node obeys.
        operators_max: Obeyed operators at most; more are not read. Default 16 (guess: persons, not machines).
        each_max: Orders kept of one operator, over all kinds and audiences; the one with the lowest ``seq`` that is not for
            everybody goes first. Default 12: three kinds for everybody, and some for single nodes.
        strangers_max: Orders kept of operators that this node does not obey, for nodes behind it that do. Default 128.
        stranger_each_max: Of these so many of one operator. Default 4.
        stranger_chars_max: Longest order of theirs that is passed on: a stop for eight nodes by name. Default 4 096, so
            that all strangers together hold 512 KB at most.
        stranger_per_s, stranger_burst: How many of them one peer may bring, sustained and at once. Default 0.2 and 16: who
            makes up a thousand operators needs an hour and a half over one link, and takes nobody else's room.
        check_per_s, check_burst: Orders of obeyed operators of one peer whose signature is checked. Defaults 5 and 64: a
            forger costs 0.5 ms of CPU a second.
        compare_s: How often what is held is compared with a few peers, ± 15 %. Default 15.
        compare_peers: With how many random peers then. Default 2.
        fast_s: The same after news, for ``fast_rounds`` rounds: it finds what was lost or withheld on the way. Default 0.4,
            so that two rounds fit into the two seconds in which a stop is to be everywhere.
        fast_rounds, fast_peers: Default 3 rounds with 4 peers.
        push_chars_max: Longer orders are announced and fetched, not sent to every peer at once. Default 4 096.
        answer_chars: Characters of orders in one answer, at least one order. Default 64 KiB.
        peers_max: Peers whose sending is measured; the oldest entry makes room. Default 1 024.
        seen_max: Orders remembered by their hash, so that copies cost nothing. Default 512.
    """

    operators: tuple[str, ...] = ()
    operators_max: int = 16
    each_max: int = 12
    strangers_max: int = 128
    stranger_each_max: int = 4
    stranger_chars_max: int = 4_096
    stranger_per_s: float = 0.2
    stranger_burst: float = 16.0
    check_per_s: float = 5.0
    check_burst: float = 64.0
    compare_s: float = 15.0
    compare_peers: int = 2
    fast_s: float = 0.4
    fast_rounds: int = 3
    fast_peers: int = 4
    push_chars_max: int = 4_096
    answer_chars: int = 64 * 1024
    peers_max: int = 1_024
    seen_max: int = 512
