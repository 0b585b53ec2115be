"""What the federation machine takes in, and what it wants done. ``seed`` is always the address of a seed as it was configured."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

#: "card" and "tombstone" are signed by the agent; "withdrawn" is the seed's own word: it shows the agent no longer.
ItemKind = Literal["card", "tombstone", "withdrawn"]


class Item(msgspec.Struct, frozen=True):
    """One entry of a page, verified or refused by whoever read it.

    Attributes:
        kind: What it is.
        agent: did:key of the agent.
        seq, mark: Of two records of one agent the higher pair counts (``Manifest.mark``); 0 for "withdrawn".
        exp: Unix second at which it ends.
        terms: What the seed says besides; the same record on other terms takes the place of the one that is held.
        refused: Code of why it is not to be taken; "" = it holds.
        detail: More of that, for people.
        body: What to keep; the machine does not look at it.
    """

    kind: ItemKind
    agent: str
    seq: int = 0
    mark: int = 0
    exp: int = 0
    terms: int = 0
    refused: str = ""
    detail: str = ""
    body: Any = None


class SeedAdded(msgspec.Struct, frozen=True):
    """Pull from this seed.

    Attributes:
        cursor: Where an earlier run stopped; "" = from the beginning.
        held: What it kept of this seed.
    """

    seed: str
    cursor: str = ""
    held: tuple[Item, ...] = ()


class SeedRemoved(msgspec.Struct, frozen=True):
    """Pull no longer, and drop what came from it."""

    seed: str


class Hinted(msgspec.Struct, frozen=True):
    """The seed says that something changed."""

    seed: str


class PageCame(msgspec.Struct, frozen=True):
    """Answer to ``PullWanted`` with the same token.

    Attributes:
        items: Its entries, in the seed's order.
        next_cursor: Where to go on; "" = where this pull began.
        more: There is more to come now.
        size_bytes: Of the answer.
        unix_s: Now.
    """

    seed: str
    token: int
    items: tuple[Item, ...]
    next_cursor: str
    more: bool
    size_bytes: int
    unix_s: int


class PullFailed(msgspec.Struct, frozen=True):
    """No usable answer to ``PullWanted`` with the same token.

    Attributes:
        code, detail: Why.
        retry_after_s: What the seed asked for; 0 = nothing.
        restart: The seed does not know the cursor any longer: begin anew.
        drop: Nothing that came from this seed may be shown any longer.
    """

    seed: str
    token: int
    code: str
    detail: str = ""
    retry_after_s: float = 0.0
    restart: bool = False
    drop: bool = False


class Pushed(msgspec.Struct, frozen=True):
    """The seed sent entries by itself."""

    seed: str
    items: tuple[Item, ...]


class PullWanted(msgspec.Struct, frozen=True):
    """Ask the seed for a page; answer with ``PageCame`` or ``PullFailed``."""

    seed: str
    cursor: str
    limit: int
    token: int


class Keep(msgspec.Struct, frozen=True):
    """Keep an entry in place of the former one of this seed and agent; a tombstone too, so that it outlives what it ended."""

    seed: str
    item: Item


class Drop(msgspec.Struct, frozen=True):
    """Forget what this seed told of an agent."""

    seed: str
    agent: str
    why: Literal["withdrawn", "gone", "expired", "removed", "refused"]


class KeepCursor(msgspec.Struct, frozen=True):
    """Remember where to go on after a restart; "" while a first pull is under way, which must then begin anew."""

    seed: str
    cursor: str
