"""Vouchers: what an organisation's word is worth, and every way in which it is worth nothing."""

from __future__ import annotations

from typing import Any

import pytest

from agentmesh.errors import DecodeError, MeshError, SignatureError, Unauthorized, UsageError
from agentmesh.identity.jws import sign_compact
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.manifest import Manifest, build_card, read_record, sign_card
from agentmesh.identity.voucher import (
    LIFE_S_MAX,
    NODE_LIFE_S_MAX,
    SKEW_S,
    VOUCHER_TYP,
    claimed_by,
    read_membership,
    read_voucher,
    sign_voucher,
)

NOW = 1_900_000_000
DAY = 86_400
ORG, OTHER, NODE, FAR, AGENT = (KeyPair(bytes([n]) * 32) for n in range(1, 6))


def voucher(key: KeyPair, subject: KeyPair, role: Any = "node", life_s: int = 30 * DAY, **more: Any) -> str:
    return sign_voucher(key, subject.did, role, id="x", iat=more.pop("iat", NOW), life_s=life_s, **more)


def word(key: KeyPair = NODE, agent: KeyPair = AGENT, organisation: KeyPair = ORG, **more: Any) -> str:
    return voucher(key, agent, "agent", life_s=DAY, organisation=organisation.did, **more)


def manifest(chain: Any, *, organisation: object = ORG.did, node: KeyPair = NODE, agent: KeyPair = AGENT) -> Manifest:
    card = build_card(
        agent_key_did=agent.did,
        node_id=node.did,
        name="calc",
        description="Calculates.",
        version="1",
        skills=[{"id": "s", "name": "S", "description": "d", "tags": ["t"]}],
        input_modes=["text/plain"],
        output_modes=["text/plain"],
        seq=1,
        iat=NOW,
        exp=NOW + DAY,
        params={"organisation": {"id": organisation, "chain": chain}} if chain is not None else {},
    )
    import msgspec

    return read_record(msgspec.json.encode(sign_card(agent, card)), now=NOW, require_signed=True)


def test_an_organisation_vouches_for_an_agent_itself_or_through_the_node_it_lives_at() -> None:
    direct = read_membership(manifest([voucher(ORG, AGENT, "agent")]), now=NOW)
    assert direct is not None
    assert (direct.organisation, direct.node) == (ORG.did, "")
    through = read_membership(manifest([voucher(ORG, NODE), word()]), now=NOW)
    assert through is not None
    assert (through.organisation, through.node, through.exp) == (ORG.did, NODE.did, NOW + DAY)
    assert claimed_by(manifest([voucher(ORG, NODE), word()])) == ORG.did
    assert read_membership(manifest(None), now=NOW) is None
    assert claimed_by(manifest(None)) == ""


def test_a_stranger_who_writes_the_id_of_a_vouched_node_into_its_manifest_gets_nothing() -> None:
    mine = manifest([voucher(ORG, NODE), word(key=FAR)])  # it has the node's voucher, which every peer is shown
    with pytest.raises(Unauthorized) as refused:
        read_membership(mine, now=NOW)
    assert refused.value.code == "voucher.node"
    for chain in ([voucher(ORG, NODE)], [voucher(ORG, NODE), word(agent=FAR)], [word()]):
        with pytest.raises(Unauthorized):
            read_membership(manifest(chain), now=NOW)


def test_a_node_vouches_only_for_agents_that_live_at_it() -> None:
    with pytest.raises(Unauthorized) as refused:
        read_membership(manifest([voucher(ORG, NODE), word()], node=FAR), now=NOW)
    assert refused.value.code == "voucher.node"
    with pytest.raises(UsageError):
        voucher(NODE, FAR, "node", life_s=DAY, organisation=ORG.did)
    # An agent that the organisation vouched for vouches for nobody.
    with pytest.raises(Unauthorized):
        read_membership(manifest([voucher(ORG, NODE, "agent"), word()]), now=NOW)


def test_a_chain_of_another_organisation_or_a_forged_one_does_not_hold() -> None:
    good = [voucher(ORG, NODE), word()]
    for chain, organisation in (
        (good, OTHER.did),
        ([voucher(OTHER, NODE), word()], ORG.did),
        ([voucher(ORG, NODE), word(organisation=OTHER)], ORG.did),
    ):
        with pytest.raises(Unauthorized):
            read_membership(manifest(chain, organisation=organisation), now=NOW)
    head, body, signature = good[0].split(".")
    forged = f"{head}.{body}.{signature[:-4]}AAAA"
    with pytest.raises(SignatureError):
        read_membership(manifest([forged, word()]), now=NOW)
    # Signed by another key, in the name of the organisation.
    claims = {"iss": ORG.did, "sub": NODE.did, "org": ORG.did, "role": "node", "jti": "x", "iat": NOW, "exp": NOW + DAY}
    with pytest.raises(SignatureError):
        read_membership(manifest([sign_compact(OTHER, claims, typ=VOUCHER_TYP), word()]), now=NOW)
    with pytest.raises(SignatureError):
        read_membership(manifest([sign_compact(ORG, claims, typ="JOSE"), word()]), now=NOW)


def test_time_ends_every_link_of_a_chain() -> None:
    chain = [voucher(ORG, NODE, life_s=DAY), word(iat=NOW)]
    member = read_membership(manifest(chain), now=NOW + DAY + SKEW_S)
    assert member is not None
    assert member.holds(NOW + DAY)
    assert not member.holds(NOW + DAY + SKEW_S + 1)
    with pytest.raises(Unauthorized) as refused:
        read_membership(manifest(chain), now=NOW + DAY + SKEW_S + 1)
    assert refused.value.code == "voucher.expired"
    with pytest.raises(Unauthorized):
        read_voucher(voucher(ORG, NODE, iat=NOW + SKEW_S + 1), now=NOW)
    for key, life_s in ((ORG, LIFE_S_MAX + 1), (NODE, NODE_LIFE_S_MAX + 1), (ORG, 0)):
        with pytest.raises(UsageError):
            sign_voucher(key, AGENT.did, "agent", id="x", iat=NOW, life_s=life_s, organisation=ORG.did)
    with pytest.raises(UsageError):
        voucher(ORG, ORG)


@pytest.mark.parametrize(
    "chain",
    [[], ["x"], ["a.b.c"], ["x" * 5_000], [1], "text", {"0": "x"}, ["a.b.c"] * 3, [{"a": 1}]],
)
def test_what_is_no_chain_is_refused_by_name(chain: Any) -> None:
    try:
        found = manifest(chain)
    except MeshError:
        return  # no card either
    with pytest.raises((DecodeError, SignatureError)):
        read_membership(found, now=NOW)


def test_a_voucher_is_read_for_whom_it_is() -> None:
    raw = voucher(ORG, NODE)
    assert read_voucher(raw, now=NOW, subject=NODE.did).organisation == ORG.did
    with pytest.raises(Unauthorized):
        read_voucher(raw, now=NOW, subject=FAR.did)
    with pytest.raises(Unauthorized):
        read_voucher(word(), now=NOW)  # a node's word is no organisation's
