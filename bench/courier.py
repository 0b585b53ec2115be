"""Two couriers back to back: what numbering, ordering, acknowledging and bounding a letter costs, without I/O or keys.

    python -m bench.courier [--letters N]

Prints letters a second of both machines together on one core, and µs per letter of each step. The bodies pass as objects:
encoding, sealing and sockets are measured by ``bench messages``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

from agentmesh.core.courier.inputs import (
    Arrived,
    Deliver,
    Delivered,
    Item,
    PathUp,
    Ready,
    Room,
    SessionUp,
    Submit,
    Taken,
)
from agentmesh.core.courier.machine import Courier
from agentmesh.core.machine import Outbox
from agentmesh.ids import NodeId

_A, _B = NodeId("a"), NodeId("b")
_BATCH = 64
_ROOM_BYTES = 64 * 1024
_BODY = bytes(256)


class _Steps:
    """Seconds spent in each kind of input."""

    def __init__(self) -> None:
        self.spent_s: dict[str, float] = {}

    def feed(self, machine: Courier, incoming: object, now_s: float, out: Outbox) -> None:
        """Hand over one input and add what it took."""
        started_s = time.perf_counter()
        machine.handle(incoming, now_s, out)
        name = type(incoming).__name__
        self.spent_s[name] = self.spent_s.get(name, 0.0) + time.perf_counter() - started_s


def run(letters: int, conversations: int = 8) -> dict[str, Any]:
    """Send so many letters of 256 bytes one way, with acknowledgements, and return what it took."""
    ends = {_A: Courier(), _B: Courier()}
    for node, courier in ends.items():
        peer = _B if node == _A else _A
        courier.handle(SessionUp(1, peer), 0.0, Outbox())
        courier.handle(PathUp(peer), 0.0, Outbox())
    steps, done, tag, now_s = _Steps(), 0, 0, 0.0
    started_s = time.perf_counter()
    while done < letters:
        now_s += 0.0005
        if tag - done < 2_048 and tag < letters:
            items = [Item(tag + i, f"c{i % conversations}", 1, 1e6, _BODY) for i in range(_BATCH)]
            tag += _BATCH
            queue: list[tuple[NodeId, object]] = [(_A, Submit(1, items))]
        else:
            queue = []
        while queue:
            node, incoming = queue.pop(0)
            out = Outbox()
            steps.feed(ends[node], incoming, now_s, out)
            peer = _B if node == _A else _A
            queue += [(peer, Arrived(node, send.message)) for send in out.sends]
            for event in out.events:
                if isinstance(event, Ready):
                    queue.append((node, Room(peer, _ROOM_BYTES)))
                elif isinstance(event, Deliver):
                    queue.append((node, Taken(1, [letter.seq for letter in event.letters])))
                elif isinstance(event, Delivered):
                    done += len(event.tags)
    took_s = time.perf_counter() - started_s
    machines_s = sum(steps.spent_s.values())
    return {
        "letters": done,
        "letters_per_s": round(done / machines_s),
        "letters_per_s_with_bench": round(done / took_s),
        **{f"{name.lower()}_us": round(1e6 * spent_s / done, 3) for name, spent_s in steps.spent_s.items()},
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures as JSON."""
    parser = argparse.ArgumentParser(prog="bench.courier", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--letters", type=int, default=200_000)
    print(json.dumps(run(parser.parse_args(argv).letters), indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
