"""Ed25519 where implementations disagree: published vectors, and the edge cases computed here from the curve's own arithmetic.

The cases follow the classes of the C2SP CCTV and Wycheproof collections (small-order points, non-canonical encodings,
S ≥ L). What must hold: everything a strict RFC 8032 verifier that refuses small-order keys would refuse is refused.
"""

from __future__ import annotations

import hashlib

import pytest

from agentmesh.errors import SignatureError
from agentmesh.identity.jws import b64url, unb64url
from agentmesh.identity.keys import KeyPair, verify

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P
Point = tuple[int, int]


def add(a: Point, b: Point) -> Point:
    """Add two points of the twisted Edwards curve (affine, complete formula, RFC 8032 §5.1.4)."""
    (x1, y1), (x2, y2) = a, b
    t = D * x1 * x2 * y1 * y2 % P
    return (x1 * y2 + x2 * y1) * pow(1 + t, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - t, -1, P) % P


def times(n: int, point: Point) -> Point:
    result: Point = (0, 1)
    while n:
        if n & 1:
            result = add(result, point)
        point, n = add(point, point), n >> 1
    return result


def encode(point: Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def decode(raw: bytes) -> Point:
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert (x * x - square) % P == 0
    return (P - x if (x & 1) != raw[31] >> 7 else x), y % P


def small_order_points() -> list[Point]:
    """Return the 8 points of order 1, 2, 4 and 8: multiples of L times a point with torsion."""
    y = 3
    while True:
        square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
        if pow(square, (P - 1) // 2, P) == 1:
            torsion = times(L, decode(y.to_bytes(32, "little")))
            points = [times(n, torsion) for n in range(8)]
            if len(set(points)) == 8:
                return points
        y += 1


SMALL = small_order_points()
#: Their encodings, and the encodings of the same points that are not reduced or have a needless sign bit.
SMALL_ENCODINGS = sorted(
    {encode(p) for p in SMALL}
    | {(p[1] + P | sign << 255).to_bytes(32, "little") for p in SMALL if p[1] + P < 2**255 for sign in (0, 1)}
    | {(p[1] | 1 << 255).to_bytes(32, "little") for p in SMALL if p[0] == 0}
)
KEY = KeyPair(bytes(range(32)))


def challenge(r: bytes, a: bytes, message: bytes) -> int:
    return int.from_bytes(hashlib.sha512(r + a + message).digest(), "little") % L


def test_there_are_fourteen_small_order_encodings() -> None:
    assert len(SMALL_ENCODINGS) == 14


@pytest.mark.parametrize("public", SMALL_ENCODINGS, ids=bytes.hex)
def test_a_small_order_key_never_verifies_though_the_equation_holds(public: bytes) -> None:
    # With A of small order and R = -hA + sB chosen so, a lax verifier accepts any message, here for s = 0 and R in SMALL.
    for r in SMALL_ENCODINGS:
        for n in range(8):
            with pytest.raises(SignatureError):
                verify(public, b"message %d" % n, r + bytes(32))


@pytest.mark.parametrize("r", SMALL_ENCODINGS, ids=bytes.hex)
def test_a_small_order_commitment_never_verifies(r: bytes) -> None:
    # The signer of this knows the key, so that without the check of R the equation sB = R + hA holds up to torsion.
    digest = hashlib.sha512(KEY.seed).digest()
    secret = (int.from_bytes(digest[:32], "little") & (2**254 - 8)) | 2**254
    s = challenge(r, KEY.public, b"message") * secret % L
    with pytest.raises(SignatureError):
        verify(KEY.public, b"message", r + s.to_bytes(32, "little"))


@pytest.mark.parametrize("times_l", [1, 2, 7, 15])
def test_a_malleated_signature_does_not_verify(times_l: int) -> None:
    signature = KEY.sign(b"message")
    s = int.from_bytes(signature[32:], "little") + times_l * L
    assert s < 2**256
    with pytest.raises(SignatureError):
        verify(KEY.public, b"message", signature[:32] + s.to_bytes(32, "little"))


def test_the_zero_signature_and_key_do_not_verify() -> None:
    for public in (bytes(32), b"\xff" * 32, KEY.public):
        with pytest.raises(SignatureError):
            verify(public, b"", bytes(64))


def test_a_commitment_that_is_no_point_does_not_verify() -> None:
    signature = KEY.sign(b"message")
    for y in (2, P, P + 2, 2**255 - 1):
        with pytest.raises(SignatureError):
            verify(KEY.public, b"message", y.to_bytes(32, "little") + signature[32:])


#: RFC 8032 §7.1: secret key, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_rfc_8032_vectors(seed: str, public: str, message: str, signature: str) -> None:
    key = KeyPair(bytes.fromhex(seed))
    assert key.public.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    verify(key.public, bytes.fromhex(message), bytes.fromhex(signature))


def test_rfc_8037_appendix_a4_jws() -> None:
    key = KeyPair(unb64url("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"))
    assert b64url(key.public) == "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    signing_input = b64url(b'{"alg":"EdDSA"}') + "." + b64url(b"Example of Ed25519 signing")
    assert signing_input == "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    expected = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    assert b64url(key.sign(signing_input.encode())) == expected
    verify(key.public, signing_input.encode(), unb64url(expected))
