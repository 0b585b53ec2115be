"""What one partner sees, as a list of changes it can follow: each agent stands in it once, at the place of its last change.

Places are numbers that only rise; a cursor is a number with the name of this run and of the partner, under a key that nobody else
has. After a restart all cursors are unknown, and partners begin anew, which ends with a sweep at their side.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

import msgspec

from agentmesh.errors import DecodeError, ReplayError
from agentmesh.identity.jws import b64url, unb64url

#: Agents that one partner no longer sees and is still told so of; older ones make its cursor too old.
GONE_MAX = 20_000
CURSOR_CHARS_MAX = 200
_TAG_BYTES = 16


class Place(NamedTuple):
    """Where an agent stands.

    Attributes:
        rev: Number of its last change.
        seq, mark: Of the record that was shown then; both 0 once it is not shown any longer.
    """

    rev: int
    seq: int
    mark: int

    @property
    def gone(self) -> bool:
        """Say whether it is not shown any longer."""
        return self.seq == 0


class _Cursor(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    rev: int
    since: int


class Feed:
    """The changes of one partner's view.

    Args:
        partner: did:key.
        secret: At least 16 random bytes of this run; cursors of other runs do not hold.
    """

    def __init__(self, partner: str, secret: bytes) -> None:
        self._key = hashlib.sha256(b"agentmesh federation cursor\n" + secret + partner.encode()).digest()
        #: In the order of their last change.
        self.places: dict[str, Place] = {}
        self.rev = 0
        self.shown = 0
        self._oldest = 0

    def touch(self, agent: str, seq: int, mark: int) -> bool:
        """Note what is shown of an agent now, ``seq`` 0 for nothing; say whether that is a change."""
        place = self.places.get(agent)
        if place is None and not seq:
            return False
        if place is not None and (place.seq, place.mark) == (seq, mark):
            return False
        self.rev += 1
        self.shown += bool(seq) - (place is not None and not place.gone)
        self.places.pop(agent, None)
        self.places[agent] = Place(self.rev, seq, mark)
        while len(self.places) - self.shown > GONE_MAX:
            oldest = next(one for one, at in self.places.items() if at.gone)
            self._oldest = self.places.pop(oldest).rev
        return True

    def after(self, rev: int) -> list[tuple[str, Place]]:
        """Return what changed after a place, oldest first."""
        found: list[tuple[str, Place]] = []
        for agent in reversed(self.places):
            place = self.places[agent]
            if place.rev <= rev:
                break
            found.append((agent, place))
        found.reverse()
        return found

    def cursor(self, rev: int, since: int = 0) -> str:
        """Return the cursor of a place; ``since`` goes along with a listing that begins at a time."""
        payload = msgspec.msgpack.encode(_Cursor(rev, since))
        return b64url(payload + self._tag(payload))

    def read(self, cursor: str) -> tuple[int, int]:
        """Return (place, since) of a cursor.

        Raises:
            DecodeError: it is none (code "federation.cursor").
            ReplayError: of another run or partner, forged, or too old (code "federation.cursor_unknown"): begin anew.
        """
        if len(cursor) > CURSOR_CHARS_MAX:
            raise DecodeError("the cursor is too long", code="federation.cursor")
        try:
            raw = unb64url(cursor)
            payload, tag = raw[:-_TAG_BYTES], raw[-_TAG_BYTES:]
            known = hmac.compare_digest(tag, self._tag(payload))
            read = msgspec.msgpack.decode(payload, type=_Cursor) if known else _Cursor(-1, 0)
        except (DecodeError, msgspec.DecodeError) as error:
            raise DecodeError("that is no cursor", code="federation.cursor") from error
        if not self._oldest <= read.rev <= self.rev:
            raise ReplayError(
                "the cursor is not known here",
                code="federation.cursor_unknown",
                why="this seed was started again, or the cursor is somebody else's or very old",
                hint="pull from the beginning, without a cursor",
            )
        return read.rev, read.since

    def _tag(self, payload: bytes) -> bytes:
        return hmac.new(self._key, payload, hashlib.sha256).digest()[:_TAG_BYTES]

    def assert_invariants(self) -> None:
        """Raise AssertionError if order or counts are off."""
        revs = [place.rev for place in self.places.values()]
        assert revs == sorted(set(revs))
        assert self.shown == sum(not place.gone for place in self.places.values())
        assert len(self.places) - self.shown <= GONE_MAX
