"""What a message may become in memory: a limit on its arrays and maps, checked before it is decoded (docs/spec/wire.md §5.4).

In MessagePack an empty map is one byte, in Python 64 to 85: nine megabytes of free-form parts would become 700. Texts, bytes
and numbers grow at most eightfold and need no limit of their own.
"""

from __future__ import annotations

#: Arrays and maps in one message; as many cost about 8 MB.
CONTAINERS_MAX = 100_000

_NOT_CONTAINERS = bytes(b for b in range(256) if not (0x80 <= b <= 0x9F or 0xDC <= b <= 0xDF))
#: First byte → bytes of the whole value, for values of a fixed size and for headers of containers.
_SIZES: dict[int, int] = {
    **dict.fromkeys((0xC0, 0xC1, 0xC2, 0xC3), 1),
    0xCA: 5,
    0xCB: 9,
    0xCC: 2,
    0xCD: 3,
    0xCE: 5,
    0xCF: 9,
    0xD0: 2,
    0xD1: 3,
    0xD2: 5,
    0xD3: 9,
    0xD4: 3,
    0xD5: 4,
    0xD6: 6,
    0xD7: 10,
    0xD8: 18,
    0xDC: 3,
    0xDD: 5,
    0xDE: 3,
    0xDF: 5,
}
#: First byte → bytes of the length that follows, and bytes beside header and content (the type of an extension).
_LENGTHS: dict[int, tuple[int, int]] = {
    0xC4: (1, 0),
    0xC5: (2, 0),
    0xC6: (4, 0),
    0xD9: (1, 0),
    0xDA: (2, 0),
    0xDB: (4, 0),
    0xC7: (1, 1),
    0xC8: (2, 1),
    0xC9: (4, 1),
}


def has_too_many_containers(raw: bytes, containers_max: int = CONTAINERS_MAX) -> bool:
    """Say whether a MessagePack value has more arrays and maps than allowed; malformed bytes are left to the decoder.

    Almost every message is cleared by its length, or by counting the bytes that could begin a container. The rest, such as
    long Chinese texts, is walked, at one step per value.
    """
    if len(raw) <= containers_max or len(raw.translate(None, _NOT_CONTAINERS)) <= containers_max:
        return False
    at, end, containers = 0, len(raw), 0
    while at < end:
        first = raw[at]
        if first <= 0x7F or first >= 0xE0:
            at += 1
        elif first <= 0x9F:
            containers += 1
            at += 1
        elif first <= 0xBF:
            at += 1 + (first & 0x1F)
        elif first in _SIZES:
            containers += 0xDC <= first <= 0xDF
            at += _SIZES[first]
        else:
            width, beside = _LENGTHS[first]
            at += 1 + width + beside + int.from_bytes(raw[at + 1 : at + 1 + width], "big")
        if containers > containers_max:
            return True
    return False
