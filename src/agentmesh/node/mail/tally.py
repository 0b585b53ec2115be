"""What became of messages, in figures (docs/spec/mail.md §4)."""

from __future__ import annotations


class Tally:
    """What became of messages so far: sent = delivered + expired + dead + what waits."""

    __slots__ = ("dead", "delivered", "expired", "received", "repeated", "sent")

    def __init__(self) -> None:
        self.sent = self.delivered = self.expired = self.dead = self.received = self.repeated = 0

    def kept(self) -> dict[str, int]:
        """Return what is kept across restarts: all but what follows from it."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "sent"}

    def bring_back(self, kept: dict[str, int]) -> None:
        """Go on from what was kept."""
        for name, count in kept.items():
            if name in self.__slots__:
                setattr(self, name, getattr(self, name) + count)
        self.sent += sum(kept.get(name, 0) for name in ("delivered", "expired", "dead"))
