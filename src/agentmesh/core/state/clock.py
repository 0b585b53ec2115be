"""A hybrid logical clock: stamps that follow wall time and never contradict cause and effect (docs/spec/state.md §2).

A stamp is one integer: 47 bits of unix milliseconds, then 16 bits of a counter. Whoever has seen a stamp makes only higher
ones, so a later write always has the higher stamp whatever the wall clocks say; between writes that know nothing of
each other the
wall clocks decide, which is the best that can be had. A clock that is far ahead must not drag everybody along: its
stamps are refused.
"""

from __future__ import annotations

from agentmesh.errors import DecodeError

COUNTER_BITS = 16
#: How far ahead of our wall clock a stamp may be. Kerberos has lived with five minutes for forty years.
DRIFT_MS_MAX = 300_000
#: Stamps fit a signed 64-bit integer, to the year 6429.
STAMP_MAX = (1 << 63) - 1


def pack(ms: int, counter: int = 0) -> int:
    """Return the stamp of a time in unix milliseconds."""
    return ms << COUNTER_BITS | counter


def ms_of(stamp: int) -> int:
    """Return the unix milliseconds of a stamp."""
    return stamp >> COUNTER_BITS


def us_of(stamp: int) -> int:
    """Return a stamp as unix microseconds for people: the counter, up to 999, stands where the microseconds would."""
    return ms_of(stamp) * 1000 + min(stamp & (1 << COUNTER_BITS) - 1, 999)


class HybridClock:
    """Makes stamps. Keep ``last`` over a restart, or a wall clock that was set back would repeat stamps.

    Args:
        last: The highest stamp made or seen before.
        drift_ms_max: See ``DRIFT_MS_MAX``.
    """

    __slots__ = ("drift_ms_max", "last")

    def __init__(self, last: int = 0, drift_ms_max: int = DRIFT_MS_MAX) -> None:
        self.last = last
        self.drift_ms_max = drift_ms_max

    def tick(self, now_ms: int) -> int:
        """Return a stamp for something that happens now: above every one made or seen, whatever the wall clock does.

        Args:
            now_ms: Wall clock, unix milliseconds. A burst of over 65,536 a millisecond borrows from the next.
        """
        self.last = max(self.last + 1, now_ms << COUNTER_BITS)
        return self.last

    def is_ahead(self, stamp: int, now_ms: int) -> bool:
        """Say whether a stamp is too far ahead to be let in."""
        return ms_of(stamp) > now_ms + self.drift_ms_max

    def observe(self, stamp: int, now_ms: int) -> None:
        """Take note of a stamp of somebody else; stamps made from now on are higher.

        Raises:
            DecodeError: it is no stamp (code "state.malformed"), or too far ahead of our wall clock (code "state.clock"). No
                state changed: nobody's clock moves ours by more than the drift.
        """
        if not 0 <= stamp <= STAMP_MAX:
            raise DecodeError(f"{stamp} is no stamp", code="state.malformed")
        if self.is_ahead(stamp, now_ms):
            raise DecodeError(
                f"a write stamped {(ms_of(stamp) - now_ms) // 1000} s ahead of this node's clock",
                code="state.clock",
                why=f"clocks may differ by {self.drift_ms_max // 1000} s",
                hint="set the clocks of both machines (NTP); the write comes again by itself",
            )
        self.last = max(self.last, stamp)
