"""Grants: chains can only narrow, whoever signs them."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from agentmesh.errors import UsageError
from agentmesh.identity import grant as grants
from agentmesh.identity.budget import BUDGET_KEYS, Budget
from agentmesh.identity.claims import AMOUNT_MAX
from agentmesh.identity.grant import (
    GRANT_CHARS_MAX,
    Delegation,
    check_delegated,
    parent_hash,
    read_chain,
    sign_grant,
)
from agentmesh.identity.grant_claims import (
    CHAIN_MAX,
    KINDS,
    LIFE_S_MAX,
    SCOPES_MAX,
    GrantClaims,
    Limit,
    covers,
    is_scope,
)
from agentmesh.identity.jws import jwk_of, thumbprint, unb64url
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.token import SKEW_S, CallToken, read_kept_token, sign_call_token, token_hash
from agentmesh.ids import key_id
from tests.support.records import EPOCH, key
from tests.support.tokens import CALLEE, OTHER, claims, forged, payload, refusal, token

ROOT = key(40)
HOLDERS = [key(41 + n) for n in range(CHAIN_MAX + 1)]
LIMITS = (
    Limit("calls", "max_lifetime", 10),
    Limit("usd_micros", "max", 5_000),
    Limit("usd_micros", "max_subtree", 20_000),
)


def root_claims(**over: Any) -> GrantClaims:
    members: dict[str, Any] = {
        "sub": "acct:finance@example.org",
        "client_id": HOLDERS[0].did,
        "aud": (CALLEE.did, OTHER.did),
        "iat": EPOCH,
        "exp": EPOCH + 300,
        "jti": "grant-0",
        "scopes": ("crm.*", "User.Read"),
        "limits": LIMITS,
        "depth_max": CHAIN_MAX - 1,
    }
    return GrantClaims(**{**members, **over})


def issuer_of(depth: int) -> KeyPair:
    return HOLDERS[depth - 1] if depth else ROOT


def chain(length: int, changes: dict[int, dict[str, Any]] | None = None, **root: Any) -> list[str]:
    """Return a chain whose hops repeat the root's authority, but for the changes named by depth."""
    raws: list[str] = []
    for depth in range(length):
        said = replace(
            root_claims(**root),
            client_id=HOLDERS[depth].did,
            jti=f"grant-{depth}",
            depth=depth,
            depth_max=root_claims(**root).depth_max if depth == 0 else None,
            par_hash=parent_hash(raws[-1]) if raws else None,
        )
        raws.append(sign_grant(issuer_of(depth), replace(said, **(changes or {}).get(depth, {}))))
    return raws


def read(raws: list[str], **over: Any) -> Delegation:
    known: dict[str, Any] = {
        "now": EPOCH,
        "holder": HOLDERS[len(raws) - 1].did if 0 < len(raws) <= len(HOLDERS) else "",
        "audience": CALLEE.did,
        "roots": {ROOT.did},
    }
    return read_chain(raws, **{**known, **over})


def code_of(raws: list[str], **over: Any) -> tuple[str, str]:
    return refusal(read, raws, **over)


def remade(raw: str, pair: KeyPair, head: dict[str, Any] | None = None, **members: Any) -> str:
    """Sign a grant with other members, beyond the rules."""
    body = {k: v for k, v in {**payload(raw), **members}.items() if v is not ...}
    return forged({"alg": "EdDSA", "kid": key_id(pair.did), "typ": "at+jwt", **(head or {})}, body, pair)


ONE = chain(1)
THREE = chain(3)


# -- what holds ---------------------------------------------------------------------------------------------------


@given(st.integers(1, CHAIN_MAX))
def test_a_chain_of_any_allowed_length_is_read(length: int) -> None:
    raws = chain(length)
    got = read(raws)
    assert (got.root, got.sub, got.scopes, got.exp) == (
        ROOT.did,
        "acct:finance@example.org",
        ("crm.*", "User.Read"),
        EPOCH + 300,
    )
    assert [one.hash for one in got.grants] == [token_hash(raw) for raw in raws]
    assert [one.issuer for one in got.grants] == [issuer_of(depth).did for depth in range(length)]
    assert {(one.key, one.kind): one.value for one in got.leaf.claims.limits} == {
        (one.key, one.kind): one.value for one in LIMITS
    }
    assert got.depth_max == CHAIN_MAX - 1


def test_what_the_last_grant_says_is_what_is_allowed() -> None:
    narrow = {
        "scopes": ("crm.read",),
        "aud": (CALLEE.did,),
        "exp": EPOCH + 60,
        "limits": (*LIMITS[:2], Limit("usd_micros", "max_subtree", 1), Limit("tokens", "max", 7)),
        "depth_max": 3,
    }
    got = read(chain(3, {1: narrow, 2: {**narrow, "depth_max": None}}))
    assert got.allows("crm.read")
    assert not got.allows("crm.write")
    assert not got.allows("User.Read")
    assert (got.limit("usd_micros", "max_subtree"), got.limit("tokens", "max"), got.limit("wall_ms", "max")) == (
        1,
        7,
        None,
    )
    assert (got.exp, got.depth_max) == (EPOCH + 60, 3)


def test_a_grant_is_an_oauth_access_token_on_the_wire() -> None:
    body = payload(ONE[0])
    assert json.loads(unb64url(ONE[0].split(".")[0])) == {"alg": "EdDSA", "kid": key_id(ROOT.did), "typ": "at+jwt"}
    assert body["cnf"] == {"jkt": thumbprint(HOLDERS[0].public)}
    assert body["authorization_details"] == [
        {
            "type": "agent_delegation",
            "scopes": ["crm.*", "User.Read"],
            "constraints": [
                {"key": "calls", "max_lifetime": 10},
                {"key": "usd_micros", "max": "5000"},
                {"key": "usd_micros", "max_subtree": "20000"},
            ],
        }
    ]
    public = jwt.PyJWK(jwk_of(ROOT.public), algorithm="EdDSA")
    options: Any = {"verify_exp": False, "verify_iat": False, "require": ["exp", "iat", "jti", "sub"]}
    assert jwt.decode(ONE[0], public, algorithms=["EdDSA"], audience=CALLEE.did, options=options) == body
    theirs = jwt.encode(
        body,
        Ed25519PrivateKey.from_private_bytes(ROOT.seed),
        algorithm="EdDSA",
        headers={"typ": "at+jwt", "kid": key_id(ROOT.did)},
    )
    assert read([theirs]).leaf.claims == read(ONE).leaf.claims


def test_where_a_grant_can_be_revoked_comes_along() -> None:
    assert read(chain(1, status=("https://example.org/status/1", 42))).leaf.claims.status == (
        "https://example.org/status/1",
        42,
    )


# -- only narrower ------------------------------------------------------------------------------------------------

WIDER = [
    {"exp": EPOCH + 301},
    {"aud": (CALLEE.did, key(90).did)},
    {"scopes": ("crm.*", "mail.send")},
    {"scopes": ("crmx.read",)},
    {"scopes": ("User.Write",)},
    {"limits": ()},
    {"limits": LIMITS[1:]},
    {"limits": (replace(LIMITS[0], value=11), *LIMITS[1:])},
    {"limits": (*LIMITS[:2], replace(LIMITS[2], kind="max_lifetime"))},
]


@pytest.mark.parametrize("wider", WIDER)
@pytest.mark.parametrize("depth", [1, 2])
def test_a_grant_wider_than_its_parent_is_refused(wider: dict[str, Any], depth: int) -> None:
    assert code_of(chain(3, {depth: wider})) == ("Unauthorized", "grant.widened")


def test_what_one_hop_gave_up_no_later_hop_gets_back() -> None:
    assert code_of(chain(3, {1: {"scopes": ("crm.read",)}})) == ("Unauthorized", "grant.widened")
    assert code_of(chain(3, {1: {"exp": EPOCH + 299}})) == ("Unauthorized", "grant.widened")
    assert code_of(chain(3, {1: {"limits": (*LIMITS, Limit("tokens", "max", 5))}})) == ("Unauthorized", "grant.widened")
    assert code_of(chain(3, {1: {"depth_max": 3}, 2: {"depth_max": 4}})) == ("Unauthorized", "grant.widened")


VALUES = st.none() | st.integers(0, 3)


@given(
    st.lists(
        st.fixed_dictionaries({(name, kind): VALUES for name in BUDGET_KEYS[:2] for kind in KINDS[:2]}),
        min_size=1,
        max_size=3,
    )
)
def test_a_chain_is_read_exactly_if_each_bound_stays_or_falls(hops: list[dict[tuple[str, Any], int | None]]) -> None:
    def limits(values: dict[tuple[str, Any], int | None]) -> tuple[Limit, ...]:
        return tuple(Limit(name, kind, value) for (name, kind), value in values.items() if value is not None)

    raws = chain(len(hops), {depth: {"limits": limits(values)} for depth, values in enumerate(hops)})
    narrows = all(
        above[pair] is None or (below[pair] is not None and below[pair] <= above[pair])  # type: ignore[operator]
        for above, below in pairwise(hops)
        for pair in above
    )
    assert code_of(raws) == (("", "") if narrows else ("Unauthorized", "grant.widened"))


@pytest.mark.parametrize(
    ("held", "wanted", "expected"),
    [
        ("crm.read", "crm.read", True),
        ("crm.*", "crm.read", True),
        ("crm.*", "crm.read.all", True),
        ("crm.*", "crm.*", True),
        ("crm.*", "crm.read.*", True),
        ("crm.*", "crmx.read", False),
        ("crm.*", "crm", False),
        ("crm.read.*", "crm.*", False),
        ("crm.read", "crm.*", False),
        ("crm.*", "crm.Read", False),
        ("drive.Read", "drive.*", False),
        ("User.Read", "User.Read", True),
        ("User.Read", "user.read", False),
        ("*", "crm.read", False),
        ("*", "*", False),
        ("crm.*.x", "crm.*.x", False),
        ("crm.*", "crm.read\n", False),
        ("a b", "a b", False),
        ("", "", False),
    ],
)
def test_scopes_cover_as_their_grammar_says(held: str, wanted: str, expected: bool) -> None:
    assert covers(held, wanted) is expected


@given(st.text(max_size=20))
def test_a_scope_covers_itself_and_nothing_else_covers_what_is_none(text: str) -> None:
    assert covers(text, text) == is_scope(text)
    assert is_scope(text) or not covers("crm.*", text)


# -- depth and links ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("depth_max", [0, 1, 2])
def test_a_chain_deeper_than_its_root_allows_is_refused(depth_max: int) -> None:
    assert code_of(chain(depth_max + 1, depth_max=depth_max)) == ("", "")
    assert code_of(chain(depth_max + 2, depth_max=depth_max)) == ("Unauthorized", "grant.depth")


def test_a_hop_can_forbid_further_hops() -> None:
    assert code_of(chain(3, {1: {"depth_max": 1}})) == ("Unauthorized", "grant.depth")


def test_a_hop_cannot_lie_about_its_depth() -> None:
    assert code_of(chain(3, {2: {"depth": 1}})) == ("Unauthorized", "grant.depth")
    assert code_of(chain(3, {2: {"depth": 3}})) == ("Unauthorized", "grant.depth")


def test_a_chain_out_of_order_or_with_a_gap_is_refused() -> None:
    a, b, c = THREE
    for raws in ([a, c], [a, c, b], [b, a, c], [c, b, a], [b, c], [a, b, b], [a, a, b]):
        assert code_of(raws, holder=payload(raws[-1])["client_id"])[0] == "Unauthorized", raws
    assert code_of([b, c]) == ("Unauthorized", "grant.holder")
    assert code_of([], holder="") == ("DecodeError", "grant.chain")
    assert code_of(THREE * 3, holder=HOLDERS[2].did) == ("DecodeError", "grant.chain")


def test_a_chain_without_its_beginning_is_refused_even_if_its_first_issuer_is_a_root() -> None:
    assert code_of(THREE[1:], holder=HOLDERS[2].did, roots={HOLDERS[0].did}) == ("Unauthorized", "grant.broken")


def test_a_grant_from_another_chain_is_refused() -> None:
    foreign = chain(2, jti="x", sub="acct:somebody@example.org")
    assert code_of([ONE[0], foreign[1]]) == ("Unauthorized", "grant.broken")
    reissued = sign_grant(ROOT, root_claims(jti="grant-0-again"))
    assert code_of([reissued, THREE[1]]) == ("Unauthorized", "grant.broken")


def test_nobody_but_the_holder_can_pass_a_grant_on() -> None:
    thief = replace(root_claims(), client_id=HOLDERS[1].did, depth=1, depth_max=None, par_hash=parent_hash(ONE[0]))
    assert code_of([ONE[0], sign_grant(OTHER, thief)]) == ("Unauthorized", "grant.broken")
    posing = remade(sign_grant(OTHER, thief), OTHER, iss=HOLDERS[0].did)
    assert code_of([ONE[0], posing]) == ("SignatureError", "signature.kid")
    named = remade(sign_grant(OTHER, thief), OTHER, {"kid": key_id(HOLDERS[0].did)}, iss=HOLDERS[0].did)
    assert code_of([ONE[0], named]) == ("SignatureError", "signature.invalid")


def test_the_principal_is_the_same_in_the_whole_chain() -> None:
    assert code_of(chain(2, {1: {"sub": "acct:other@example.org"}})) == ("Unauthorized", "grant.broken")


# -- who, where, when ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({"holder": OTHER.did}, "grant.holder"),
        ({"audience": key(90).did}, "grant.audience"),
        ({"roots": {OTHER.did}}, "grant.root"),
        ({"roots": ()}, "grant.root"),
    ],
)
def test_a_chain_for_another_holder_or_agent_or_from_no_root_is_refused(over: dict[str, Any], code: str) -> None:
    assert code_of(THREE, **over) == ("Unauthorized", code)


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (EPOCH - SKEW_S, ("", "")),
        (EPOCH - SKEW_S - 1, ("ReplayError", "grant.not_yet_valid")),
        (EPOCH + 300 + SKEW_S, ("", "")),
        (EPOCH + 300 + SKEW_S + 1, ("ReplayError", "grant.expired")),
    ],
)
def test_a_chain_holds_as_long_as_its_shortest_grant(now: int, expected: tuple[str, str]) -> None:
    assert code_of(THREE, now=now) == expected
    assert code_of(chain(2, {1: {"exp": EPOCH + 10}}), now=EPOCH + 41) == ("ReplayError", "grant.expired")


# -- bad input ----------------------------------------------------------------------------------------------------


def details(**members: Any) -> dict[str, Any]:
    plain = payload(ONE[0])["authorization_details"][0]
    return {"authorization_details": [{k: v for k, v in {**plain, **members}.items() if v is not ...}]}


BAD = [
    ({"aud": []}, "grant.malformed"),
    ({"aud": None}, "claims.malformed"),
    ({"aud": ["x"]}, "grant.malformed"),
    ({"aud": ...}, "claims.missing"),
    ({"client_id": ...}, "claims.missing"),
    ({"client_id": "me"}, "claims.malformed"),
    ({"sub": ""}, "claims.malformed"),
    ({"cnf": ...}, "claims.missing"),
    ({"cnf": {}}, "grant.malformed"),
    ({"cnf": {"jkt": thumbprint(OTHER.public)}}, "grant.malformed"),
    ({"del_depth": CHAIN_MAX}, "claims.malformed"),
    ({"del_depth": 1}, "grant.malformed"),
    ({"par_hash": token_hash("x")}, "grant.malformed"),
    ({"del_max_depth": -1}, "claims.malformed"),
    ({"exp": EPOCH + LIFE_S_MAX + 1}, "grant.life"),
    ({"exp": EPOCH}, "grant.life"),
    ({"exp": EPOCH + 0.5}, "json.float"),
    ({"authorization_details": []}, "grant.malformed"),
    ({"authorization_details": [{}, {}]}, "claims.malformed"),
    ({"authorization_details": [[]]}, "grant.malformed"),
    (details(type="payment"), "grant.malformed"),
    (details(locations=["x"]), "grant.malformed"),
    (details(constraints=...), "grant.malformed"),
    (details(scopes=["crm.read\n"]), "grant.malformed"),
    (details(scopes=["*"]), "grant.malformed"),
    (details(scopes=["User.*"]), "grant.malformed"),
    (details(scopes=[7]), "grant.malformed"),
    (details(scopes=["a"] * (SCOPES_MAX + 1)), "claims.malformed"),
    (details(constraints=[{"key": "rows", "max": 1}]), "grant.constraint"),
    (details(constraints=[{"key": [], "max": 1}]), "grant.constraint"),
    (details(constraints=[{"key": "calls", "min": 1}]), "grant.constraint"),
    (details(constraints=[{"key": "calls", "max": 1, "max_subtree": 1}]), "grant.constraint"),
    (details(constraints=[{"key": "calls"}]), "grant.constraint"),
    (details(constraints=[{"key": "calls", "max": 1}] * 2), "grant.constraint"),
    (details(constraints=[7]), "grant.constraint"),
    (details(constraints=[{"key": "calls", "max": -1}]), "claims.amount"),
    (details(constraints=[{"key": "calls", "max": AMOUNT_MAX + 1}]), "claims.amount"),
    (details(constraints=[{"key": "calls", "max": "1"}]), "claims.amount"),
    (details(constraints=[{"key": "usd_micros", "max": 1}]), "claims.amount"),
    (details(constraints=[{"key": "usd_micros", "max": "1.0"}]), "claims.amount"),
    (details(constraints=[{"key": "calls", "max": 1.5}]), "json.float"),
    ({"status": {"status_list": {"uri": "x", "idx": -1}}}, "claims.malformed"),
    ({"status": {}}, "claims.missing"),
]


@pytest.mark.parametrize(("members", "code"), BAD)
def test_a_malformed_grant_is_refused_though_its_signature_holds(members: dict[str, Any], code: str) -> None:
    assert code_of([remade(ONE[0], ROOT)]) == ("", "")
    assert code_of([remade(ONE[0], ROOT, **members)]) == ("DecodeError", code)


@pytest.mark.parametrize(
    ("head", "code"),
    [
        ({"alg": "none"}, "signature.algorithm"),
        ({"alg": "HS256"}, "signature.algorithm"),
        ({"alg": "ES256"}, "signature.algorithm"),
        ({"typ": "JWT"}, "signature.type"),
        ({"typ": "application/at+jwt"}, "signature.type"),
        ({"kid": key_id(OTHER.did)}, "signature.kid"),
        ({"kid": None}, "signature.kid"),
        ({"crit": ["x"]}, "signature.critical"),
    ],
)
def test_a_grant_with_another_algorithm_type_or_key_is_refused(head: dict[str, Any], code: str) -> None:
    assert code_of([remade(ONE[0], ROOT, head)]) == ("SignatureError", code)


def test_a_grant_is_read_as_strictly_as_any_signed_json() -> None:
    head = {"alg": "EdDSA", "kid": key_id(ROOT.did), "typ": "at+jwt"}
    text = json.dumps(payload(ONE[0])).encode()[:-1]
    for more, code in ((b', "jti": "x"}', "json.duplicate"), (b', "x": NaN}', "json.constant")):
        assert code_of([forged(head, text + more, ROOT)]) == ("DecodeError", code)
    for raw in (ONE[0] + "=", ONE[0] + "\n", ONE[0].rpartition(".")[0], "", "..", "ü"):
        assert code_of([raw])[0] == "DecodeError", raw
    assert code_of([ONE[0], "A" * (GRANT_CHARS_MAX + 1)]) == ("DecodeError", "grant.too_large")


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_each_signature_of_a_chain_counts(depth: int) -> None:
    raws = list(THREE)
    raws[depth] = remade(raws[depth], OTHER, {"kid": key_id(issuer_of(depth).did)})
    for below in range(depth + 1, 3):  # The holders below go along: they commit to the forged one.
        raws[below] = remade(raws[below], issuer_of(below), par_hash=parent_hash(raws[below - 1]))
    assert code_of(raws) == ("SignatureError", "signature.invalid")


def test_no_signature_is_checked_before_the_whole_chain_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []
    monkeypatch.setattr(grants, "verify_compact", lambda raw, _public: checked.append(raw))
    for wider in WIDER:
        code_of(chain(3, {2: wider}))
    code_of(THREE, roots=())
    code_of(THREE, now=0)
    assert checked == []
    read(THREE)
    assert checked == THREE


# -- calls under a grant ------------------------------------------------------------------------------------------


def test_a_call_stays_within_its_grant() -> None:
    delegation = read(ONE)
    ath, budget = token_hash(ONE[0]), Budget(usd_micros=5_000)

    def call(pair: KeyPair = HOLDERS[0], **over: Any) -> CallToken:
        return read_kept_token(sign_call_token(pair, claims(**{"ath": ath, "budget": budget, **over})))

    check_delegated(delegation, call(), "crm.read")
    for bad, scope, code in [
        (call(ath=None), "crm.read", "grant.proof"),
        (call(ath=token_hash(THREE[1])), "crm.read", "grant.proof"),
        (call(OTHER), "crm.read", "grant.proof"),
        (call(), "mail.send", "grant.scope"),
        (call(budget=Budget(usd_micros=5_001)), "crm.read", "grant.budget"),
        (call(budget=Budget()), "crm.read", "grant.budget"),
    ]:
        assert refusal(check_delegated, delegation, bad, scope) == ("Unauthorized", code)
    assert refusal(check_delegated, delegation, token(), "crm.read")[1] == "grant.proof"


@pytest.mark.parametrize(
    ("over", "code"),
    [
        ({"aud": ()}, "grant.malformed"),
        ({"client_id": "x"}, "claims.malformed"),
        ({"scopes": ("*",)}, "grant.malformed"),
        ({"limits": (Limit("rows", "max", 1),)}, "grant.constraint"),
        ({"limits": (Limit("calls", "max", 1),) * 2}, "grant.constraint"),
        ({"limits": (Limit("calls", "max", -1),)}, "claims.amount"),
        ({"exp": EPOCH + LIFE_S_MAX + 1}, "grant.life"),
        ({"depth": 1}, "grant.malformed"),
        ({"scopes": tuple(f"a.{'x' * 120}{n}" for n in range(SCOPES_MAX))}, "grant.too_large"),
    ],
)
def test_no_grant_is_signed_that_a_reader_would_refuse(over: dict[str, Any], code: str) -> None:
    with pytest.raises(UsageError) as caught:
        sign_grant(ROOT, root_claims(**over))
    assert caught.value.code == code
