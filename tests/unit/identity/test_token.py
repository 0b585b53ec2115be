"""Call tokens: what is signed, what is refused by which code, and in which order."""

from __future__ import annotations

import json
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.codec.canonical import canonical
from agentmesh.errors import LimitError, MeshError, UsageError
from agentmesh.identity import token as tokens
from agentmesh.identity.budget import Budget, Usage
from agentmesh.identity.claims import AMOUNT_MAX
from agentmesh.identity.jws import b64url, jwk_of, thumbprint, unb64url
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import EXT
from agentmesh.identity.token import (
    HOPS_MAX,
    LIFE_S_MAX,
    SKEW_S,
    TOKEN_CHARS_MAX,
    check_body,
    check_chain,
    digest_of,
    read_call_token,
    read_kept_token,
    sign_call_token,
    token_hash,
)
from agentmesh.ids import did_of
from tests.support.records import EPOCH, key
from tests.support.tokens import CALLEE, CALLER, HTM, HTU, OTHER, PARTS, claims, forged, header, payload, refusal

RAW = sign_call_token(CALLER, claims())
GOOD = payload(RAW)
AMOUNTS = st.none() | st.integers(0, AMOUNT_MAX)
#: RFC 8037 A.3: public key and its thumbprint.
RFC_8037_X = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
RFC_8037_JKT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def never(_caller: str, _jti: str) -> bool:
    return False


def read(raw: str, **over: Any) -> tokens.CallToken:
    known: dict[str, Any] = {"now": EPOCH, "audience": CALLEE.did, "htm": HTM, "htu": HTU, "is_replayed": never}
    return read_call_token(raw, **{**known, **over})


def code_of(raw: str, **over: Any) -> tuple[str, str]:
    return refusal(read, raw, **over)


def changed(**members: Any) -> dict[str, Any]:
    return {**GOOD, **members}


def ours(**members: Any) -> dict[str, Any]:
    return {**GOOD, EXT: {**GOOD[EXT], **members}}


# -- what holds ---------------------------------------------------------------------------------------------------


@given(
    purpose=st.text(st.characters(exclude_categories=("C", "Z")), max_size=50),
    amounts=st.tuples(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS),
    hops=st.lists(st.integers(20, 60), max_size=8, unique=True),
    ath=st.none() | st.just(token_hash("grant")),
    nonce=st.none() | st.just("n-1"),
)
def test_a_call_token_reads_back_as_what_was_signed(
    purpose: str, amounts: tuple[int | None, ...], hops: list[int], ath: str | None, nonce: str | None
) -> None:
    said = claims(
        purpose=purpose,
        budget=Budget(*amounts),
        hops=tuple(key(n).did for n in hops),
        depth_max=9,
        ath=ath,
        nonce=nonce,
    )
    raw = sign_call_token(CALLER, said)
    got = read(raw, nonce=nonce, caller=CALLER.did)
    assert (got.caller, got.claims, got.hash) == (CALLER.did, said, token_hash(raw))
    assert read_kept_token(raw) == got


def test_a_call_token_is_a_dpop_proof_on_the_wire() -> None:
    assert json.loads(unb64url(RAW.split(".")[0])) == {
        "alg": "EdDSA",
        "typ": "dpop+jwt",
        "jwk": {"kty": "OKP", "crv": "Ed25519", "x": b64url(CALLER.public)},
    }
    assert set(GOOD) == {"jti", "htm", "htu", "iat", "exp", "aud", EXT}
    paid = payload(sign_call_token(CALLER, claims(budget=Budget(usd_micros=1_500_000, calls=0))))
    assert paid[EXT]["budget"] == {"usd_micros": "1500000", "calls": 0}
    assert canonical(GOOD) == unb64url(RAW.split(".")[1])


def test_the_thumbprint_is_that_of_rfc_8037() -> None:
    assert thumbprint(unb64url(RFC_8037_X)) == RFC_8037_JKT


def test_pyjwt_verifies_our_call_token_with_the_key_of_its_header() -> None:
    head = jwt.get_unverified_header(RAW)
    found = jwt.decode(
        RAW,
        jwt.PyJWK(head["jwk"], algorithm="EdDSA"),
        algorithms=["EdDSA"],
        audience=CALLEE.did,
        options={"verify_exp": False, "verify_iat": False, "require": ["exp", "iat", "jti"]},
    )
    assert found == GOOD


def test_a_call_token_made_by_pyjwt_is_read() -> None:
    private = Ed25519PrivateKey.from_private_bytes(CALLER.seed)
    raw = jwt.encode(GOOD, private, algorithm="EdDSA", headers={"typ": "dpop+jwt", "jwk": jwk_of(CALLER.public)})
    assert read(raw).claims == claims()


def test_unknown_claims_and_header_members_are_ignored_and_never_followed() -> None:
    raw = forged(
        header(jku="https://example.org/keys", x5u="https://example.org/x", kid="other"),
        changed(**{"https://example.org/claim": [1]}),
    )
    assert read(raw).claims == claims()
    assert read(forged(header(alg="Ed25519"), GOOD)).caller == CALLER.did


# -- time ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (EPOCH - SKEW_S, ("", "")),
        (EPOCH - SKEW_S - 1, ("ReplayError", "token.not_yet_valid")),
        (EPOCH + 60 + SKEW_S, ("", "")),
        (EPOCH + 60 + SKEW_S + 1, ("ReplayError", "token.expired")),
        (0, ("ReplayError", "token.not_yet_valid")),
        (2**40, ("ReplayError", "token.expired")),
    ],
)
def test_a_token_holds_for_its_life_and_thirty_seconds_of_skew_on_either_side(
    now: int, expected: tuple[str, str]
) -> None:
    assert code_of(RAW, now=now) == expected


def test_a_jti_is_kept_exactly_as_long_as_its_token_could_be_shown_again() -> None:
    last = read(RAW).kept_until
    assert code_of(RAW, now=last) == ("", "")
    assert code_of(RAW, now=last + 1) == ("ReplayError", "token.expired")


@pytest.mark.parametrize(("iat", "exp"), [(EPOCH, EPOCH + LIFE_S_MAX + 1), (EPOCH, EPOCH), (EPOCH, EPOCH - 1)])
def test_a_token_that_lives_longer_than_a_minute_or_not_at_all_is_refused(iat: int, exp: int) -> None:
    assert code_of(forged(header(), changed(iat=iat, exp=exp))) == ("DecodeError", "token.life")


# -- for whom and where -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({"audience": OTHER.did}, "token.audience"),
        ({"htu": HTU + "x"}, "token.address"),
        ({"htu": HTU.upper()}, "token.address"),
        ({"htm": "POST"}, "token.method"),
        ({"nonce": "demanded"}, "token.nonce"),
        ({"caller": OTHER.did}, "token.caller"),
    ],
)
def test_a_token_for_another_agent_address_method_or_caller_is_refused(over: dict[str, Any], code: str) -> None:
    assert code_of(RAW, **over) == ("Unauthorized", code)


def test_a_token_is_bound_to_the_body_it_was_signed_for() -> None:
    token = read(RAW)
    check_body(token, digest_of(PARTS, "say", None))
    for body in (
        ([{"text": "你好!"}], "say", None),
        (PARTS, None, None),
        (PARTS, "say", "conversation"),
        ([*PARTS, *PARTS], "say", None),
    ):
        assert refusal(check_body, token, digest_of(*body)) == ("Unauthorized", "token.digest")


def test_the_digest_does_not_depend_on_spelling_but_on_every_value() -> None:
    a = digest_of([{"kind": "data", "data": {"x": 1.0, "y": [0.1, "é"]}}], "s", "c")
    assert a == digest_of([json.loads('{"data": {"y": [1e-1, "\\u00e9"], "x": 1}, "kind": "data"}')], "s", "c")
    assert a != digest_of([{"kind": "data", "data": {"x": 1, "y": [0.2, "é"]}}], "s", "c")
    assert digest_of([], None, None) == digest_of([], "", "")
    assert digest_of([], "a", "b") != digest_of([], "b", "a")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 2**53, "\ud800", object()])
def test_what_has_no_canonical_form_has_no_digest(value: Any) -> None:
    with pytest.raises(LimitError):
        digest_of([{"data": value}], None, None)


# -- loops --------------------------------------------------------------------------------------------------------


def test_a_call_that_comes_back_or_goes_too_deep_is_refused() -> None:
    chain = tuple(key(n).did for n in range(30, 33))
    check_chain(read(sign_call_token(CALLER, claims(hops=chain, depth_max=3))), CALLEE.did)
    deep = read(sign_call_token(CALLER, claims(hops=chain, depth_max=2)))
    assert refusal(check_chain, deep, CALLEE.did) == ("LoopDetected", "token.depth")
    for hops in ((CALLEE.did,), (*chain, CALLEE.did), (CALLEE.did, *chain)):
        back = read(sign_call_token(CALLER, claims(hops=hops)))
        assert refusal(check_chain, back, CALLEE.did) == ("LoopDetected", "token.loop")
    own = read(sign_call_token(CALLEE, claims()))
    assert refusal(check_chain, own, CALLEE.did) == ("LoopDetected", "token.loop")


@pytest.mark.parametrize("hops", [[CALLER.did] * 2, ["x"], [7], [[]], [CALLER.did + "x"]])
def test_hops_that_are_no_different_agents_are_refused(hops: list[Any]) -> None:
    assert code_of(forged(header(), ours(hops=hops))) == ("DecodeError", "token.hops")


def test_more_hops_than_a_token_can_name_are_refused() -> None:
    hops = [key(n).did for n in range(100, 101 + HOPS_MAX)]
    assert code_of(forged(header(), ours(hops=hops))) == ("DecodeError", "claims.malformed")


# -- algorithm, key and type --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (header(alg="none"), "signature.algorithm"),
        (header(alg="HS256"), "signature.algorithm"),
        (header(alg="ES256"), "signature.algorithm"),
        (header(alg="Ed448"), "signature.algorithm"),
        (header(alg="eddsa"), "signature.algorithm"),
        (header(alg=["EdDSA"]), "signature.algorithm"),
        (header(alg=None), "signature.algorithm"),
        (header(typ="JWT"), "signature.type"),
        (header(typ="DPOP+JWT"), "signature.type"),
        (header(typ="at+jwt"), "signature.type"),
        (header(typ=None), "signature.type"),
        (header(crit=["exp"]), "signature.critical"),
        (header(b64=False), "signature.critical"),
        (header(jwk={"kty": "OKP", "crv": "Ed448", "x": b64url(bytes(57))}), "signature.curve"),
        (header(jwk={"kty": "OKP", "crv": "X25519", "x": b64url(bytes(32))}), "signature.curve"),
        (header(jwk={"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}), "signature.curve"),
        (header(jwk={"kty": "oct", "k": b64url(CALLER.public)}), "signature.curve"),
        (header(jwk=None), "signature.curve"),
        (header(jwk=[]), "signature.curve"),
        (header(jwk={**jwk_of(CALLER.public), "d": b64url(bytes(32))}), "signature.private"),
        (header(jwk={**jwk_of(CALLER.public), "x": b64url(CALLER.public[:31])}), "signature.key_size"),
        (header(jwk={**jwk_of(CALLER.public), "x": 7}), "signature.key_size"),
    ],
)
def test_another_algorithm_type_or_curve_is_refused(head: dict[str, Any], code: str) -> None:
    assert code_of(forged(head, GOOD)) == ("SignatureError", code)


def test_a_token_keyed_with_the_public_key_as_a_secret_is_refused() -> None:
    raw = jwt.encode(GOOD, CALLER.public, algorithm="HS256", headers={"typ": "dpop+jwt", "jwk": jwk_of(CALLER.public)})
    assert code_of(raw) == ("SignatureError", "signature.algorithm")


def test_an_unsigned_token_is_refused() -> None:
    head, body, _ = RAW.split(".")
    for raw in (f"{head}.{body}.", f"{head}.{body}", f"{head}.{body}.AA", f"{head}.{body}.{b64url(bytes(64))}"):
        assert code_of(raw)[0] in ("DecodeError", "SignatureError"), raw


@pytest.mark.parametrize("small", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"])
def test_a_small_order_key_signs_nothing(small: bytes) -> None:
    covered = ".".join(b64url(json.dumps(part).encode()) for part in (header(jwk=jwk_of(small)), GOOD))
    for signature in (small + bytes(32), bytes(64), b"\x01" + bytes(63)):
        raw = f"{covered}.{b64url(signature)}"
        assert code_of(raw) == ("SignatureError", "signature.invalid")


def test_the_key_in_the_header_cannot_be_exchanged() -> None:
    _, body, signature = RAW.split(".")
    head = b64url(canonical(header(jwk=jwk_of(OTHER.public))))
    assert code_of(f"{head}.{body}.{signature}") == ("SignatureError", "signature.invalid")
    assert read(forged(header(jwk=jwk_of(OTHER.public)), GOOD, OTHER)).caller == OTHER.did


@given(st.integers(0, len(RAW) - 1), st.sampled_from("Aa0_-.=+/ \nß"))
def test_any_changed_character_is_refused(place: int, other: str) -> None:
    raw = RAW[:place] + other + RAW[place + 1 :]
    if raw != RAW:
        assert code_of(raw)[0] in ("DecodeError", "SignatureError", "Unauthorized", "ReplayError"), raw


@given(st.integers(0, len(RAW) - 1))
def test_a_truncated_token_is_refused(size: int) -> None:
    assert code_of(RAW[:size])[0] in ("DecodeError", "SignatureError")


# -- strict parsing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "body", "code"),
    [
        (header(), json.dumps(GOOD).encode()[:-1] + b', "aud": "x"}', "json.duplicate"),
        (b'{"alg":"none",' + json.dumps(header()).encode()[1:], GOOD, "json.duplicate"),
        (header(), json.dumps(GOOD).encode()[:-1] + b', "x": NaN}', "json.constant"),
        (header(), json.dumps(GOOD).encode()[:-1] + b', "x": -Infinity}', "json.constant"),
        (header(), json.dumps(changed(exp=EPOCH + 60.0)).encode(), "json.float"),
        (header(), json.dumps(changed(x=2**53)).encode(), "json.integer"),
        (header(), b'{"x":' * 20 + b"1" + b"}" * 20, "json.too_deep"),
        (header(x=[[[[1]]]]), GOOD, "json.too_deep"),
        (header(), b"\xff", "json.utf8"),
        (header(), b"[]", "claims.malformed"),
        (b"[]", GOOD, "jws.malformed"),
        (header(pad="x" * 512), GOOD, "token.header"),
    ],
)
def test_json_that_two_readers_could_read_differently_is_refused(
    head: dict[str, Any] | bytes, body: dict[str, Any] | bytes, code: str
) -> None:
    assert code_of(forged(head, body)) == ("DecodeError", code)


def test_padding_white_space_and_other_shapes_of_jws_are_refused() -> None:
    for raw in (RAW + "=", RAW + "\n", " " + RAW, RAW.replace(".", ".."), RAW + "." + RAW, "", ".", "..", "ä.ö.ü"):
        assert code_of(raw)[0] == "DecodeError", raw
    assert code_of("A" * (TOKEN_CHARS_MAX + 1)) == ("DecodeError", "token.too_large")


MALFORMED = [
    *[({"jti": value}, "claims.malformed") for value in ("", "a b", "x" * 129, 7, None, "ü")],
    *[({"iat": value}, "claims.malformed") for value in ("1", True, -1, 0, 10**12, None)],
    *[({"aud": value}, "claims.malformed") for value in ([CALLEE.did], "x", None, CALLEE.did + "#")],
    *[({"htu": value}, "claims.malformed") for value in ("x" * 513, "a\x1b[2J", 7)],
    *[({"ath": value}, "claims.malformed") for value in ("", "x" * 44, None)],
    ({"nonce": ""}, "claims.malformed"),
    ({EXT: []}, "claims.malformed"),
]
OURS_MALFORMED = [
    *[({"digest": value}, "claims.malformed") for value in ("", "sha-256=:AA==:", "sha-512=:" + "A" * 43 + "=:", 1)],
    *[({"purpose": value}, "claims.malformed") for value in ("\u202egnirts", "a\nb", "x" * 513, None)],
    *[({"depth_max": value}, "claims.malformed") for value in (-1, HOPS_MAX + 1, "3", True)],
    ({"idem": ""}, "claims.malformed"),
    ({"hops": {}}, "claims.malformed"),
    ({"budget": []}, "claims.malformed"),
]


@pytest.mark.parametrize(("members", "code"), MALFORMED)
def test_a_claim_of_another_type_or_size_is_refused(members: dict[str, Any], code: str) -> None:
    assert code_of(forged(header(), changed(**members))) == ("DecodeError", code)


@pytest.mark.parametrize(("members", "code"), OURS_MALFORMED)
def test_a_member_of_our_claim_of_another_type_or_size_is_refused(members: dict[str, Any], code: str) -> None:
    assert code_of(forged(header(), ours(**members))) == ("DecodeError", code)


def test_no_required_claim_may_be_missing() -> None:
    for name in GOOD:
        assert code_of(forged(header(), {k: v for k, v in GOOD.items() if k != name}))[1] == "claims.missing", name
    for name in GOOD[EXT]:
        body = {**GOOD, EXT: {k: v for k, v in GOOD[EXT].items() if k != name}}
        assert code_of(forged(header(), body))[1] == "claims.missing", name


# -- budgets ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "code"),
    [
        ({"calls": 1.5}, "json.float"),
        ({"calls": 1e3}, "json.float"),
        ({"calls": -1}, "claims.amount"),
        ({"calls": True}, "claims.amount"),
        ({"calls": "1"}, "claims.amount"),
        ({"calls": None}, "claims.amount"),
        ({"tokens": AMOUNT_MAX + 1}, "claims.amount"),
        ({"tokens": 2**53}, "json.integer"),
        ({"usd_micros": 5}, "claims.amount"),
        ({"usd_micros": "1.5"}, "claims.amount"),
        ({"usd_micros": "-5"}, "claims.amount"),
        ({"usd_micros": "+5"}, "claims.amount"),
        ({"usd_micros": "05"}, "claims.amount"),
        ({"usd_micros": " 5"}, "claims.amount"),
        ({"usd_micros": "5\n"}, "claims.amount"),
        ({"usd_micros": "٣"}, "claims.amount"),
        ({"usd_micros": "1e3"}, "claims.amount"),
        ({"usd_micros": ""}, "claims.amount"),
        ({"usd_micros": "9" * 3000}, "claims.amount"),
        ({"usd_micros": str(AMOUNT_MAX + 1)}, "claims.amount"),
        ({"gpu_s": 5}, "token.budget_key"),
    ],
)
def test_a_budget_that_is_fractional_negative_huge_or_unknown_is_refused(budget: dict[str, Any], code: str) -> None:
    assert code_of(forged(header(), ours(budget=budget))) == ("DecodeError", code)


@pytest.mark.parametrize("value", [-1, 1.0, "1", True, AMOUNT_MAX + 1, float("nan")])
def test_no_such_budget_or_usage_can_be_made_here(value: Any) -> None:
    assert refusal(Budget, usd_micros=value) == ("UsageError", "token.budget")
    assert refusal(Usage, wall_ms=value) == ("UsageError", "token.budget")


@given(st.tuples(AMOUNTS, AMOUNTS, AMOUNTS, AMOUNTS))
def test_budgets_come_back_from_the_wire(amounts: tuple[int | None, ...]) -> None:
    budget = Budget(*amounts)
    assert Budget.from_claim(json.loads(canonical(budget.to_claim()))) == budget
    usage = Usage(*(amount or 0 for amount in amounts))
    assert Usage.from_claim(json.loads(canonical(usage.to_claim()))) == usage


# -- the order ----------------------------------------------------------------------------------------------------

#: Offences from cheap to dear, each with the code that must win over all that follow.
OFFENCES = [
    ("size", "token.too_large"),
    ("alg", "signature.algorithm"),
    ("typ", "signature.type"),
    ("curve", "signature.curve"),
    ("duplicate", "json.duplicate"),
    ("time", "token.expired"),
    ("aud", "token.audience"),
    ("htu", "token.address"),
    ("htm", "token.method"),
    ("replay", "token.replayed"),
    ("signature", "signature.invalid"),
]


@given(st.sets(st.sampled_from([name for name, _ in OFFENCES])))
def test_of_several_offences_the_cheapest_to_find_decides_and_nothing_dearer_runs(offences: set[str]) -> None:
    head, body = header(), dict(GOOD)
    for name, change in (
        ("alg", {"alg": "HS256"}),
        ("typ", {"typ": "JWT"}),
        ("curve", {"jwk": {"kty": "OKP", "crv": "X25519", "x": b64url(CALLER.public)}}),
    ):
        if name in offences:
            head.update(change)
    text = json.dumps(body).encode()
    if "duplicate" in offences:
        text = text[:-1] + b', "jti": "again"}'
    raw = forged(head, text, OTHER if "signature" in offences else CALLER)
    if "size" in offences:
        raw += "A" * TOKEN_CHARS_MAX
    steps: list[str] = []

    def looks(_caller: str, _jti: str) -> bool:
        steps.append("look-up")
        return "replay" in offences

    def verifies(token: str, public: bytes) -> None:
        steps.append("signature")
        verify_compact(token, public)

    verify_compact = tokens.verify_compact
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tokens, "verify_compact", verifies)
        code = code_of(
            raw,
            now=EPOCH + 1000 if "time" in offences else EPOCH,
            audience=OTHER.did if "aud" in offences else CALLEE.did,
            htu="elsewhere" if "htu" in offences else HTU,
            htm="POST" if "htm" in offences else HTM,
            is_replayed=looks,
        )[1]
    expected = next((code for name, code in OFFENCES if name in offences), "")
    assert code == expected
    reached = {"": 2, "signature.invalid": 2, "token.replayed": 1}.get(expected, 0)
    assert steps == ["look-up", "signature"][:reached]


def test_a_forged_token_cannot_burn_the_id_of_an_honest_one() -> None:
    used: set[tuple[str, str]] = set()

    def admit(raw: str) -> None:
        token = read(raw, is_replayed=lambda caller, jti: (caller, jti) in used)
        used.add((token.caller, token.claims.jti))

    with pytest.raises(MeshError):
        admit(forged(header(), GOOD, OTHER))
    assert used == set()
    admit(RAW)
    assert refusal(admit, RAW) == ("ReplayError", "token.replayed")
    admit(sign_call_token(OTHER, claims()))  # The same id of another caller is another id.


@given(st.text(max_size=200) | st.binary(max_size=200).map(b64url))
def test_any_text_is_refused_without_harm(text: str) -> None:
    for raw in (text, f"{text}.{text}.{text}", f"{RAW.split('.')[0]}.{text}.{text}"):
        assert code_of(raw)[0] in ("DecodeError", "SignatureError")


# -- signing ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({"exp": EPOCH + 61}, "token.life"),
        ({"aud": "x"}, "claims.malformed"),
        ({"jti": ""}, "claims.malformed"),
        ({"hops": (CALLER.did, CALLER.did)}, "token.hops"),
        ({"htu": "\ud800"}, "claims.malformed"),
        ({"purpose": "工" * 512, "htu": "工" * 512, "skill": "工" * 512}, "token.too_large"),
    ],
)
def test_nothing_is_signed_that_a_reader_would_refuse(over: dict[str, Any], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        sign_call_token(CALLER, claims(**over))
    assert caught.value.code == code


def test_every_refusal_says_why_and_what_to_do() -> None:
    for over in (
        {"now": 0},
        {"now": 2**40},
        {"audience": OTHER.did},
        {"htu": "x"},
        {"htm": "x"},
        {"nonce": "x"},
        {"caller": OTHER.did},
        {"is_replayed": lambda _a, _b: True},
    ):
        with pytest.raises(MeshError) as caught:
            read(RAW, **over)
        assert caught.value.why, over
        assert caught.value.hint, over


def test_a_caller_is_named_by_its_own_key_only() -> None:
    pair = KeyPair(bytes(range(32)))
    assert read(sign_call_token(pair, claims())).caller == did_of(pair.public) == pair.did
