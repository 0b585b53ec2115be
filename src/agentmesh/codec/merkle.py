"""Merkle trees as RFC 9162 §2.1 (and RFC 6962) hash them: roots, proofs that a leaf is in, proofs that nothing was taken out.

The tree is append-only. ``Frontier`` holds the O(log n) hashes that appending needs and says which hashes became final; those,
kept in the order of ``stored_at``, give any proof by O(log n) reads. Edge cases, since RFC 9162 leaves some to the reader:
the empty tree has the root SHA-256 of nothing; a consistency proof from size 0 is empty and says nothing, whatever the
other root; one between equal sizes is empty and asks for equal roots; no leaf is in an empty tree.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

from agentmesh.errors import SignatureError, UsageError

HASH_BYTES = 32
#: Largest tree, leaves; sizes travel as JSON integers.
SIZE_MAX = 2**53 - 1
#: Longest proof of a tree within ``SIZE_MAX``, hashes.
PROOF_MAX = 108
EMPTY_ROOT = hashlib.sha256(b"").digest()

#: Reads the hash of the complete subtree of ``2**level`` leaves that begins at leaf ``number * 2**level``.
Read = Callable[[int, int], bytes]


def leaf_hash(data: bytes) -> bytes:
    """Return the hash of a leaf: SHA-256(0x00 ‖ data)."""
    return hashlib.sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node: SHA-256(0x01 ‖ left ‖ right)."""
    return hashlib.sha256(b"\x01" + left + right).digest()


class Frontier:
    """The right edge of a growing tree.

    Args:
        size: Leaves so far.
        peaks: Hashes of the complete subtrees that these leaves make up, largest first: one per 1 bit of ``size``.

    Raises:
        UsageError: ``size`` and ``peaks`` do not fit (code "merkle.frontier").
    """

    __slots__ = ("_peaks", "size")

    def __init__(self, size: int = 0, peaks: Sequence[bytes] = ()) -> None:
        if not 0 <= size <= SIZE_MAX or len(peaks) != size.bit_count():
            raise UsageError(f"{len(peaks)} subtrees are no tree of {size} leaves", code="merkle.frontier")
        self.size = size
        self._peaks = list(peaks)

    def append(self, leaf: bytes) -> list[bytes]:
        """Add the hash of a leaf; return the hashes that are final now: the leaf's, then those of ever larger subtrees.

        In a file of all hashes they are the next ones (``stored_at``).
        """
        final = [leaf]
        size = self.size
        while size & 1:
            final.append(node_hash(self._peaks.pop(), final[-1]))
            size >>= 1
        self._peaks.append(final[-1])
        self.size += 1
        return final

    def root(self) -> bytes:
        """Return the root hash of the tree so far."""
        if not self._peaks:
            return EMPTY_ROOT
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node_hash(peak, root)
        return root

    def copy(self) -> Frontier:
        """Return another one of the same state."""
        return Frontier(self.size, self._peaks)


def stored_at(level: int, number: int) -> int:
    """Return the place of a subtree's hash among all hashes in the order in which ``Frontier.append`` gives them."""
    for _ in range(level):
        number = 2 * number + 1
    place = level
    while number:
        place += number
        number >>= 1
    return place


def stored_count(size: int) -> int:
    """Return how many hashes a tree of ``size`` leaves has given."""
    return stored_at(0, size)


def frontier_of(size: int, read: Read) -> Frontier:
    """Return the right edge of the first ``size`` leaves. Raises what ``read`` raises."""
    peaks: list[bytes] = []
    start = 0
    for level in range(size.bit_length() - 1, -1, -1):
        if size >> level & 1:
            peaks.append(read(level, start >> level))
            start += 1 << level
    return Frontier(size, peaks)


def inclusion_proof(index: int, size: int, read: Read) -> list[bytes]:
    """Return the proof that leaf ``index`` is in the tree of the first ``size`` leaves (RFC 9162 §2.1.3.1).

    Raises:
        UsageError: there is no such leaf (code "merkle.range").
    """
    if not 0 <= index < size <= SIZE_MAX:
        raise UsageError(f"no leaf {index} in a tree of {size}", code="merkle.range")
    proof: list[bytes] = []
    low, high = 0, size
    while high - low > 1:
        middle = low + _split(high - low)
        if index < middle:
            proof.append(_hash_of(middle, high, read))
            high = middle
        else:
            proof.append(_hash_of(low, middle, read))
            low = middle
    return proof[::-1]


def consistency_proof(first: int, second: int, read: Read) -> list[bytes]:
    """Return the proof that the tree of ``second`` leaves begins with that of ``first`` (RFC 9162 §2.1.4.1).

    Raises:
        UsageError: ``first`` is larger (code "merkle.range").
    """
    if not 0 <= first <= second <= SIZE_MAX:
        raise UsageError(f"a tree of {second} leaves does not begin with {first}", code="merkle.range")
    if first in (0, second):
        return []
    proof: list[bytes] = []
    low, high, whole = 0, second, True
    while first != high:
        middle = low + _split(high - low)
        if first <= middle:
            proof.append(_hash_of(middle, high, read))
            high = middle
        else:
            proof.append(_hash_of(low, middle, read))
            low, whole = middle, False
    if not whole:
        proof.append(_hash_of(low, high, read))
    return proof[::-1]


def check_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that a leaf is in a tree (RFC 9162 §2.1.3.2).

    Args:
        leaf: Its hash.
        index: Where, from 0.
        size: Of the tree.
        proof: As from ``inclusion_proof``.
        root: Of the tree.

    Raises:
        SignatureError: it is not shown to be in (code "merkle.inclusion").
    """
    if not 0 <= index < size <= SIZE_MAX or not _are_hashes(proof):
        raise _unproven("inclusion", f"leaf {index} of {size}, {len(proof)} hashes")
    place, last, found = index, size - 1, leaf
    for sibling in proof:
        if last == 0:
            raise _unproven("inclusion", "the proof is too long")
        if place & 1 or place == last:
            found = node_hash(sibling, found)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            found = node_hash(found, sibling)
        place, last = place >> 1, last >> 1
    if last or found != root:
        raise _unproven("inclusion", "the hashes do not lead to the root")


def check_consistency(first: int, second: int, first_root: bytes, second_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that one tree begins with another (RFC 9162 §2.1.4.2).

    Args:
        first, second: Sizes, the smaller one first.
        first_root, second_root: Their roots.
        proof: As from ``consistency_proof``.

    Raises:
        SignatureError: it is not shown to (code "merkle.consistency").
    """
    if not 0 <= first <= second <= SIZE_MAX or not _are_hashes(proof):
        raise _unproven("consistency", f"from {first} to {second} leaves, {len(proof)} hashes")
    if first == 0 or first == second:
        if proof or (first == second and first_root != second_root) or (first == 0 and first_root != EMPTY_ROOT):
            raise _unproven("consistency", "two trees of one size differ, or the empty tree has another root")
        return
    path = [first_root, *proof] if first & (first - 1) == 0 else list(proof)
    if not path:
        raise _unproven("consistency", "the proof is empty")
    place, last = first - 1, second - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    old = new = path[0]
    for sibling in path[1:]:
        if last == 0:
            raise _unproven("consistency", "the proof is too long")
        if place & 1 or place == last:
            old, new = node_hash(sibling, old), node_hash(sibling, new)
            while not place & 1 and place:
                place, last = place >> 1, last >> 1
        else:
            new = node_hash(new, sibling)
        place, last = place >> 1, last >> 1
    if last or old != first_root or new != second_root:
        raise _unproven("consistency", "the hashes do not lead to both roots")


def _split(count: int) -> int:
    """Return the largest power of two smaller than ``count``, which is over 1."""
    return 1 << ((count - 1).bit_length() - 1)


def _hash_of(low: int, high: int, read: Read) -> bytes:
    """Return the hash of the leaves ``low`` to ``high`` - 1, which begin where a subtree of that size may."""
    parts: list[bytes] = []
    while low < high:
        level = (high - low).bit_length() - 1
        parts.append(read(level, low >> level))
        low += 1 << level
    found = parts.pop()
    while parts:
        found = node_hash(parts.pop(), found)
    return found


def _are_hashes(proof: Sequence[bytes]) -> bool:
    return len(proof) <= PROOF_MAX and all(len(one) == HASH_BYTES for one in proof)


def _unproven(what: str, why: str) -> SignatureError:
    return SignatureError(f"the proof of {what} does not hold", code=f"merkle.{what}", why=why)
