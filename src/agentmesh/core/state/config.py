"""What can be tuned about shared state (docs/spec/state.md §6)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StateConfig:
    """Knobs of spaces and their replicas.

    Attributes:
        holders: Replicas of a space that count for QUORUM. Default 3 (RQ3; research: p2p-reliability §3).
        answer_s: How long a read or write may wait for others. Default 1.8, so that a refusal comes within 2 s.
        compare_s: How often a replica is compared with another one, ± 25 %. Default 30 (research §2.1).
        review_s: How often holders look whether one of them died. Default 2.
        dead_s: How long a holder must be gone before another node takes its place; a restart or a short cut must not move
            data. Default 15 (guess: above a laptop's reconnect).
        spaces_max: Spaces of which this node keeps a replica. Default 256.
        keys_max: Keys over all spaces. Default 100 000.
        bytes_max: Bytes of writes over all spaces, in memory. Default 128 MiB.
        key_writes_max: Writes kept of one key before a writer puts its own together. Default 16.
        key_bytes_max: Bytes of writes kept of one key; more are refused. Default 4 MiB.
        history_max: Entries kept of a key's history. Default 100 (issue 7).
        writers_max: Writers of one space. Default 1 024.
        followers_max: Nodes that follow one space here without holding it. Default 64.
        waiting_max: Reads and writes that wait for others. Default 4 096.
        batch_max: Writes in one message. Default 64: to verify and keep them takes 10 ms.
        batch_bytes_max: Their bytes. Default 512 KiB; at least one write is sent.
    """

    holders: int = 3
    answer_s: float = 1.8
    compare_s: float = 30.0
    review_s: float = 2.0
    dead_s: float = 15.0
    spaces_max: int = 256
    keys_max: int = 100_000
    bytes_max: int = 128 * 1024 * 1024
    key_writes_max: int = 16
    key_bytes_max: int = 4 * 1024 * 1024
    history_max: int = 100
    writers_max: int = 1_024
    followers_max: int = 64
    waiting_max: int = 4_096
    batch_max: int = 64
    batch_bytes_max: int = 512 * 1024
