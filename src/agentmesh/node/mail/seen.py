"""Which messages came lately, so that none comes twice (docs/spec/mail.md §6). Bounded: two generations."""

from __future__ import annotations

#: Seconds that an id is remembered at least, unless more than ``SEEN_MAX`` came meanwhile.
SEEN_S = 600.0
#: Ids of one generation; two are kept. About 100 bytes each.
SEEN_MAX = 131_072


class Seen:
    """Remember ids by sender for ``SEEN_S`` to twice that.

    Args:
        now_s: Monotonic time.
    """

    def __init__(self, now_s: float) -> None:
        self._young: dict[bytes, set[bytes]] = {}
        self._old: dict[bytes, set[bytes]] = {}
        self._count = 0
        self._turned_s = now_s

    def fresh(self, sender: bytes, message_id: bytes) -> bool:
        """Note an id; say whether it is new."""
        young = self._young.get(sender)
        if young is None:
            young = self._young[sender] = set()
        elif message_id in young:
            return False
        if (old := self._old.get(sender)) is not None and message_id in old:
            return False
        young.add(message_id)
        self._count += 1
        return True

    def forget(self, sender: bytes, message_id: bytes) -> None:
        """Take an id back: the message could not be kept after all."""
        if (young := self._young.get(sender)) is not None and message_id in young:
            young.discard(message_id)
            self._count -= 1
        if (old := self._old.get(sender)) is not None:
            old.discard(message_id)

    def tidy(self, now_s: float) -> None:
        """Drop what is old enough, or too much; called for every batch."""
        if self._count >= SEEN_MAX or now_s - self._turned_s >= SEEN_S:
            self._old, self._young = self._young, {}
            self._count, self._turned_s = 0, now_s

    def __len__(self) -> int:
        return sum(map(len, self._young.values())) + sum(map(len, self._old.values()))
