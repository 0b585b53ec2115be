"""What can be tuned about the courier."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CourierConfig:
    """Knobs of the courier (docs/spec/courier.md §9).

    Attributes:
        sessions_max: Sessions at once; one is about 2 KB. Default 4 096.
        paths_max: Nodes with a path at once. Default 4 096, as many as sessions.
        queue_letters_max, queue_bytes_max: What waits or is unacknowledged in one session; more comes back. Defaults 16 384
            and 32 MiB: a second and a half of full speed, or 32 of the largest.
        letters_max, bytes_max: The same over all sessions. Defaults 131 072 and 128 MiB; the rest waits in the outbox on disk.
        flight_letters_max: Unacknowledged letters between the oldest and the newest of a session, whatever the peer allows.
            Default 8 192.
        window_letters: How many letters beyond those taken the peer may send. Default 4 096: at 100,000 a second and one fsync
            of 10 ms on the way it takes 1,000 to keep the stream full; four of these, because the disk is not always quick.
        window_bytes: The same in bytes, by the mean size of what came; what comes beyond twice of it is dropped, to be
            repeated. Default 8 MiB.
        held_bytes_max: Over all sessions: what waits for an earlier letter, or to be taken. Default 64 MiB.
        parcel_letters: Letters in one parcel. Default 64: the work per parcel is then 3 % of that per letter.
        quantum_bytes: What one session may send before the next has its turn, and the unit of ``weights``. Default 32 KiB.
        weights: Turns of the lanes low, normal, high, critical, and of repetitions, in one round. Default 1, 2, 4, 8, 8: the
            highest gets a third of a full path, the lowest 4 %, none nothing. Guess.
        ack_letters: Acknowledge at the latest after so many taken letters. Default 64: one parcel.
        ack_delay_s: … or after so long. Default 10 ms: less than what a repetition waits, more than a batch takes.
        rto_first_s: Repeat what was not acknowledged for so long, before a round trip was measured. Default 1 s (RFC 6298).
        rto_min_s, rto_max_s: Bounds of the same, measured and doubled. Defaults 0.25 s, longer than a pause of a busy node, and
            8 s: paths are streams that lose nothing while they stand, so haste only doubles the load of a node that is slow.
        probe_letters: How many are repeated while nothing later was acknowledged: if the peer is only slow, the rest would be
            sent for nothing. Default 64.
        ask_s: How often a sender that may not send, and has nothing on its way, asks; doubled up to ``rto_max_s``. Default 1 s.
        expiry_s: Shortest time between two looks for what has expired. Default 0.25 s.
        idle_s: Quiet time after which ``Idle`` is told. Default 600 s.
    """

    sessions_max: int = 4_096
    paths_max: int = 4_096
    queue_letters_max: int = 16_384
    queue_bytes_max: int = 32 * 1024 * 1024
    letters_max: int = 131_072
    bytes_max: int = 128 * 1024 * 1024
    flight_letters_max: int = 8_192
    window_letters: int = 4_096
    window_bytes: int = 8 * 1024 * 1024
    held_bytes_max: int = 64 * 1024 * 1024
    parcel_letters: int = 64
    quantum_bytes: int = 32 * 1024
    weights: tuple[int, int, int, int, int] = (1, 2, 4, 8, 8)
    ack_letters: int = 64
    ack_delay_s: float = 0.01
    rto_first_s: float = 1.0
    rto_min_s: float = 0.25
    rto_max_s: float = 8.0
    probe_letters: int = 64
    ask_s: float = 1.0
    expiry_s: float = 0.25
    idle_s: float = 600.0
