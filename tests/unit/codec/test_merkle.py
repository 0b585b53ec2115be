"""The Merkle tree of RFC 9162: roots, proofs, and that no other proof passes."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentmesh.codec.merkle import (
    EMPTY_ROOT,
    HASH_BYTES,
    PROOF_MAX,
    Frontier,
    Read,
    check_consistency,
    check_inclusion,
    consistency_proof,
    frontier_of,
    inclusion_proof,
    leaf_hash,
    node_hash,
    stored_at,
    stored_count,
)
from agentmesh.errors import SignatureError, UsageError

#: The leaves and roots that the authors of Certificate Transparency test with (certificate-transparency-go).
LEAVES = [bytes.fromhex(h) for h in (
    "", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f",
)]  # fmt: skip
ROOTS = (
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)


def mth(leaves: list[bytes]) -> bytes:
    """The definition of RFC 9162 §2.1.1, word by word."""
    if not leaves:
        return hashlib.sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return node_hash(mth(leaves[:k]), mth(leaves[k:]))


def grown(count: int) -> tuple[list[bytes], Read, list[bytes]]:
    """A tree of ``count`` leaves: its leaf hashes, a reader of its hashes, and its root at every size."""
    tree, stored, leaves = Frontier(), list[bytes](), list[bytes]()
    roots = [tree.root()]
    for i in range(count):
        leaves.append(leaf_hash(b"%d" % i))
        stored += tree.append(leaves[-1])
        roots.append(tree.root())
    assert len(stored) == stored_count(count)
    return leaves, lambda level, number: stored[stored_at(level, number)], roots


def test_roots_are_those_that_certificate_transparency_tests_with() -> None:
    tree = Frontier()
    found = [tree.root().hex()]
    for leaf in LEAVES:
        tree.append(leaf_hash(leaf))
        found.append(tree.root().hex())
    assert tuple(found) == ROOTS


def test_growing_leaf_by_leaf_gives_the_roots_of_the_definition() -> None:
    _, read, roots = grown(130)
    for size, root in enumerate(roots):
        assert root == mth([b"%d" % i for i in range(size)])
        assert frontier_of(size, read).root() == root


def test_every_leaf_of_every_tree_up_to_200_is_proven_in() -> None:
    leaves, read, roots = grown(200)
    for size in range(1, 201):
        for index in range(size):
            proof = inclusion_proof(index, size, read)
            assert len(proof) <= (size - 1).bit_length()
            check_inclusion(leaves[index], index, size, proof, roots[size])


def test_every_tree_up_to_100_is_proven_to_continue_every_smaller_one() -> None:
    _, read, roots = grown(100)
    for second in range(101):
        for first in range(second + 1):
            check_consistency(first, second, roots[first], roots[second], consistency_proof(first, second, read))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_one_changed_bit_index_or_size_ends_a_proof_of_inclusion(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 200))
    index = data.draw(st.integers(0, size - 1))
    leaves, read, roots = grown(size)
    proof = inclusion_proof(index, size, read)
    values = [leaves[index], *proof, roots[size]]
    at = data.draw(st.integers(0, len(values) - 1))
    bit = data.draw(st.integers(0, 255))
    values[at] = (int.from_bytes(values[at]) ^ 1 << bit).to_bytes(HASH_BYTES)
    with pytest.raises(SignatureError) as error:
        check_inclusion(values[0], index, size, values[1:-1], values[-1])
    assert error.value.code == "merkle.inclusion"
    if size > 1:
        with pytest.raises(SignatureError):
            check_inclusion(leaves[index], (index + 1) % size, size, proof, roots[size])
        for wrong in (proof[:-1], [*proof, bytes(HASH_BYTES)], proof[1:]):
            with pytest.raises(SignatureError):
                check_inclusion(leaves[index], index, size, wrong, roots[size])


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_one_changed_bit_ends_a_proof_of_consistency(data: st.DataObject) -> None:
    second = data.draw(st.integers(2, 200))
    first = data.draw(st.integers(1, second - 1))
    _, read, roots = grown(second)
    proof = consistency_proof(first, second, read)
    values = [roots[first], *proof, roots[second]]
    at = data.draw(st.integers(0, len(values) - 1))
    values[at] = (int.from_bytes(values[at]) ^ 1 << data.draw(st.integers(0, 255))).to_bytes(HASH_BYTES)
    with pytest.raises(SignatureError) as error:
        check_consistency(first, second, values[0], values[-1], values[1:-1])
    assert error.value.code == "merkle.consistency"
    for wrong in (proof[:-1], [*proof, bytes(HASH_BYTES)], proof[1:]):
        with pytest.raises(SignatureError):
            check_consistency(first, second, roots[first], roots[second], wrong)


def test_the_empty_tree_has_a_root_and_holds_nothing() -> None:
    """The cases on which verifiers differ (research: standards §1, T8), decided here."""
    leaf = leaf_hash(b"x")
    assert Frontier().root() == EMPTY_ROOT == hashlib.sha256(b"").digest()
    check_consistency(0, 0, EMPTY_ROOT, EMPTY_ROOT, [])
    check_consistency(0, 1, EMPTY_ROOT, leaf, [])
    for args in (
        (0, 0, EMPTY_ROOT, leaf, []),
        (0, 1, leaf, leaf, []),
        (0, 1, EMPTY_ROOT, leaf, [leaf]),
        (1, 1, leaf, EMPTY_ROOT, []),
        (1, 1, leaf, leaf, [leaf]),
        (2, 1, leaf, leaf, []),
        (-1, 1, leaf, leaf, []),
    ):
        with pytest.raises(SignatureError):
            check_consistency(*args)  # type: ignore[arg-type]
    for index, size in ((0, 0), (1, 1), (-1, 1)):
        with pytest.raises(SignatureError):
            check_inclusion(leaf, index, size, [], EMPTY_ROOT)
    with pytest.raises(UsageError):
        inclusion_proof(0, 0, lambda level, number: leaf)
    with pytest.raises(UsageError):
        consistency_proof(2, 1, lambda level, number: leaf)


def test_what_is_no_hash_or_no_proof_is_refused_without_harm() -> None:
    leaf = leaf_hash(b"x")
    for proof in ([b""], [b"x" * 31], [bytes(HASH_BYTES)] * (PROOF_MAX + 1)):
        with pytest.raises(SignatureError):
            check_inclusion(leaf, 0, 2**53 - 1, proof, leaf)
        with pytest.raises(SignatureError):
            check_consistency(1, 2**53 - 1, leaf, leaf, proof)
    with pytest.raises(UsageError):
        Frontier(3, [leaf])
