"""The receiving half of a session: duplicates, order, what to acknowledge, what to allow (docs/spec/courier.md §4, §7)."""

from __future__ import annotations

from agentmesh.core.courier.config import CourierConfig
from agentmesh.core.courier.inputs import WINDOW_OPEN
from agentmesh.core.courier.messages import (
    BODY_BYTES_MAX,
    CREDIT_FIRST,
    GONE_MAX,
    LANES,
    LETTERS_MAX,
    RANGES_MAX,
    Letter,
    Parcel,
)
from agentmesh.core.courier.ranges import Ranges

#: What a letter is taken to weigh before one came, and weighs at least in the arithmetic of windows.
_MEAN_BYTES = 1_024.0
_MEAN_BYTES_MIN = 64.0


class Receiving:
    """What one session received.

    Attributes:
        settled: seqs that were delivered, or given up by the sender in their turn.
        taken: Of these, what the node keeps or handed over, and what was given up: what is acknowledged.
        held: seq → letter whose predecessor is missing; None for one that was given up.
        held_bytes: Of these bodies.
        untaken: Letters delivered and not taken.
        untaken_bytes: Of these, an estimate: letters are taken in any order, and their sizes are not kept.
        credit: Highest seq allowed so far.
        owed: Acknowledgements, or a higher credit, that the peer has not been sent, in letters.
        asked: It wants to hear of them at once.
        repeated, dropped: Letters that were there already; letters beyond what is held.
    """

    __slots__ = (
        "_config",
        "_held_max",
        "_mean_bytes",
        "_promised",
        "_waiters",
        "asked",
        "credit",
        "dropped",
        "held",
        "held_bytes",
        "owed",
        "repeated",
        "settled",
        "taken",
        "untaken",
        "untaken_bytes",
    )

    def __init__(self, config: CourierConfig) -> None:
        self._config = config
        self.settled, self.taken = Ranges(), Ranges()
        self.held: dict[int, Letter | None] = {}
        #: seq → seqs of held letters that come after it.
        self._waiters: dict[int, list[int]] = {}
        self.held_bytes = self.untaken = self.owed = self.repeated = self.dropped = 0
        self.untaken_bytes = 0.0
        self.credit = CREDIT_FIRST
        #: How many seqs may be settled in all, by the last ``Window``; -1 before there was one.
        self._promised = -1
        self._mean_bytes = _MEAN_BYTES
        self._held_max = 0
        self.asked = False

    def judge(self, parcel: Parcel) -> str:
        """Say by which code a parcel's letters break the rules; "" if they do not. Nothing changes."""
        credit, letters, gone = self.credit, parcel.letters, parcel.gone
        if len(letters) > LETTERS_MAX or len(gone) & 1 or len(gone) > 2 * GONE_MAX:
            return "courier.malformed"
        for letter in letters:
            seq = letter.seq
            if seq < 1 or seq > credit:
                return "courier.beyond_credit"
            if letter.after >= seq or letter.after < 0:
                return "courier.after"
            if letter.ttl_ms < 1:
                return "courier.ttl"
            if not 0 <= letter.lane < LANES or len(letter.body) > BODY_BYTES_MAX:
                return "courier.malformed"
        floor = parcel.floor
        if floor < 1 or floor > self.taken.upto + 1:
            return "courier.floor"  # it claims acknowledgements that were never given
        for at in range(0, len(gone), 2):
            seq, after = gone[at], gone[at + 1]
            if seq > credit:
                return "courier.beyond_credit"
            if after >= seq or after < 0:
                return "courier.after"
            if seq < floor:
                return "courier.gone"  # it gives up what it says was acknowledged
        return ""

    def accept(self, parcel: Parcel, untaken_room: int, held_room: int) -> list[Letter]:
        """Take in a parcel that ``judge`` found right; return what can be delivered, in order.

        What finds no room is dropped, for the sender to repeat. A session of which everything was taken finds room for a parcel
        whatever its size, and a letter whose turn it is never waits for room among the held: so it goes on.

        Args:
            parcel: The parcel.
            untaken_room: Bytes that all sessions may still deliver before the node takes some.
            held_room: Bytes that they may still hold.
        """
        letters, settled = parcel.letters, self.settled
        ready: list[Letter] = []
        size = 0
        if letters:
            seq, plain = settled.upto + 1, not settled.more and not self.held
            first = seq
            for letter in letters:
                size += len(letter.body)
                if letter.seq != seq:
                    plain = False
                seq += 1
            span = 2 * self._config.window_bytes
            if untaken_room <= 0 or (self.untaken and (size > untaken_room or self.untaken_bytes + size > span)):
                self.dropped += len(letters)
                return []
            self._mean_bytes += 0.125 * (size / len(letters) - self._mean_bytes)
            if plain:  # everything before was delivered, so whatever these come after was
                settled.add(first, seq - 1)
                ready = letters
            else:
                self._held_max = min(span, self.held_bytes + held_room)
                for letter in letters:
                    self._take_in(letter.seq, letter.after, letter, ready)
                size = sum(len(letter.body) for letter in ready)
        gone = parcel.gone
        if gone:
            before = len(ready)
            ready = ready if ready is not letters else list(letters)
            for at in range(0, len(gone), 2):
                self._take_in(gone[at], gone[at + 1], None, ready)
            size += sum(len(letter.body) for letter in ready[before:])
        self.untaken += len(ready)
        self.untaken_bytes += size
        return ready

    def _take_in(self, seq: int, after: int, letter: Letter | None, ready: list[Letter]) -> None:
        """Deliver a letter or one given up if its turn has come, and what waited for it; else hold it."""
        held, settled = self.held, self.settled
        if seq in settled:
            self.repeated += 1
            self.owed += 1  # the acknowledgement may have been lost
            return
        if seq in held:
            if letter is None:
                self._let_go(seq)
                held[seq] = None
            else:
                self.repeated += 1
            return
        if after and after not in settled:
            size = 0 if letter is None else len(letter.body)
            if self.held_bytes + size > self._held_max:
                self.dropped += 1
                return
            held[seq] = letter
            self._waiters.setdefault(after, []).append(seq)
            self.held_bytes += size
            return
        turn = [(seq, letter)]
        while turn:
            seq, letter = turn.pop()
            settled.add(seq, seq)
            if letter is None:
                self.taken.add(seq, seq)
                self.owed += 1
            else:
                ready.append(letter)
            for waiter in reversed(self._waiters.pop(seq, ())):
                self._let_go(waiter)
                turn.append((waiter, held.pop(waiter)))

    def _let_go(self, seq: int) -> None:
        letter = self.held[seq]
        if letter is not None:
            self.held_bytes -= len(letter.body)

    def take(self, seqs: list[int]) -> None:
        """Note that the node keeps these."""
        count = self.taken.add_all(seqs)
        self.owed += count
        if self.untaken:
            self.untaken_bytes -= self.untaken_bytes * count / self.untaken
            self.untaken -= count

    def window(self, letters: int, size: int) -> None:
        """Note how much the recipient takes of what is delivered from now on."""
        letters = min(max(0, letters), max(0, int(size / max(self._mean_bytes, _MEAN_BYTES_MIN))))
        self._promised = self.settled.count + letters if letters < WINDOW_OPEN else -1

    def raise_credit(self) -> int:
        """Return how much higher the credit is than it was."""
        config = self._config
        span = min(config.window_letters, int(config.window_bytes / max(self._mean_bytes, _MEAN_BYTES_MIN)) or 1)
        credit = min(self.settled.upto, self.taken.count) + span
        if 0 <= self._promised < credit:
            credit = self._promised
        grown = credit - self.credit
        if grown <= 0:
            return 0
        self.credit = credit
        return grown

    def acks(self) -> list[int]:
        """Return what to acknowledge."""
        return self.taken.flat(RANGES_MAX)

    def assert_invariants(self) -> None:
        """Raise AssertionError if a rule or bound is broken."""
        self.settled.assert_invariants()
        self.taken.assert_invariants()
        held, waiters = self.held, self._waiters
        assert sum(map(len, waiters.values())) == len(held)
        assert all(seq in held and seq > after for after, seqs in waiters.items() for seq in seqs)
        assert not any(after in self.settled for after in waiters)
        assert self.held_bytes == sum(len(letter.body) for letter in held.values() if letter is not None)
        assert self.settled.count - self.taken.count == self.untaken >= 0
        assert len(held) + self.settled.count <= self.credit
        assert max((*held, *self.settled.more, self.settled.upto)) <= self.credit
