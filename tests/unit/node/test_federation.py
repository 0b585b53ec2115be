"""Federation between a seed and a puller: what arrives, what is withdrawn, and everything that a lying seed can try."""

from __future__ import annotations

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentmesh.errors import Busy, DecodeError, MeshError, ReplayError, SignatureError, Timeout, Unauthorized
from agentmesh.identity.federation_proof import origin_of, read_answer, read_ask, sign_answer, sign_ask
from agentmesh.identity.order import Revoke, Stop, sign_order
from agentmesh.identity.trust_statement import TrustRow, sign_trust_statement
from agentmesh.node.federation.feed import Feed
from agentmesh.node.federation.imports import Answer, _may_dial
from agentmesh.node.federation.rules import RulesFile, Seed, parse_seed
from agentmesh.wire.federation import (
    PAGE_ENTRIES_MAX,
    TOMBSTONE_TYPE,
    WITHDRAWN_TYPE,
    CatalogEntry,
    CatalogPage,
    PageExtra,
    PageMetadata,
)
from tests.support.federation import (
    ORIGIN,
    Site,
    entry_of,
    key_of,
    manifest_of,
    pulling,
    sign_page,
    tombstone_of,
    until,
    voucher,
)

PARTNER = key_of("org puller")
PULL = "/federation/pull"


def page(*entries: CatalogEntry, cursor: str = "c", more: bool = False, **extra: Any) -> CatalogPage:
    mesh = PageExtra(more=more, **extra)
    return CatalogPage(entries=list(entries), metadata=PageMetadata(count=len(entries), next_cursor=cursor, mesh=mesh))


def liar(site: Site, answer: Any) -> Any:
    """Return a Fetch of a seed that answers what it likes, properly signed."""

    async def fetch(method: str, url: str, headers: dict[str, str], body: Any, **_: Any) -> Answer:
        made = answer(url) if callable(answer) else answer
        return made if isinstance(made, Answer) else sign_page(site, made, headers)

    return fetch


# -- what honest partners do


async def test_agents_arrive_change_and_go(tmp_path: Path) -> None:
    site = Site("globex", PARTNER, ("calc*",))
    site.put("calc")
    site.put("payroll")
    async with pulling(tmp_path, site.fetch) as puller:
        await until(lambda: puller.names == ["calc"])
        entry = puller.imports.by_name("calc")[0]
        assert entry.manifest.raw == site.records[entry.manifest.agent_id].raw, "byte for byte"
        assert site.org is not None
        assert entry.federated.organisation == site.org.did
        assert puller.imports.addresses_of(site.node.did) == ("memory:far",)  # type: ignore[arg-type]
        site.put("calc2")
        await until(lambda: puller.names == ["calc", "calc2"])
        site.put("calc", 7)
        await until(lambda: puller.imports.by_name("calc")[0].manifest.seq == 7)
        site.end("calc", 8)
        await until(lambda: puller.names == ["calc2"])
        partner = site.rules.partners[PARTNER.did]._replace(names=("other",))
        site.rules = site.rules._replace(partners={PARTNER.did: partner})
        site.exports.reload(site.rules)
        await until(lambda: puller.names == [])
        assert puller.refusals == {}


async def test_pages_are_followed_to_the_end_and_what_was_pulled_is_there_after_a_restart(tmp_path: Path) -> None:
    site = Site("globex", PARTNER)
    for n in range(60):
        site.put(f"agent{n}")
    async with pulling(tmp_path, site.fetch, page_limit=7) as puller:
        await until(lambda: len(puller.names) == 60)
        await until(lambda: puller.imports.views()[0].lag_s is not None)

    async def silent(*_: Any, **__: Any) -> Answer:
        raise Timeout("nobody is there")

    async with pulling(tmp_path, silent) as again:
        await until(lambda: len(again.names) == 60)
        assert again.imports.views()[0].organisation == (site.org.did if site.org else "")
        assert again.imports.addresses_of(site.node.did) == ("memory:far",)  # type: ignore[arg-type]


async def test_a_seed_that_starts_again_is_pulled_from_the_beginning_and_swept(tmp_path: Path) -> None:
    site = Site("globex", PARTNER)
    site.put("old")
    site.put("stays")
    now = [site]

    async def fetch(*args: Any, **kwargs: Any) -> Answer:
        return await now[0].fetch(*args, **kwargs)

    async with pulling(tmp_path, fetch) as puller:
        await until(lambda: puller.names == ["old", "stays"])
        fresh = Site("globex", PARTNER)
        fresh.exports._secret = os.urandom(32)
        fresh.exports.feeds.clear()
        fresh.exports.reload(fresh.rules)
        fresh.put("stays", 2)
        now[0] = fresh
        await until(lambda: puller.names == ["stays"])


async def test_more_than_999_of_a_thousand_changes_arrive_though_every_fifth_request_fails(tmp_path: Path) -> None:
    site, rng = Site("globex", PARTNER), random.Random(5)

    async def flaky(*args: Any, **kwargs: Any) -> Answer:
        if rng.random() < 0.2:
            raise Timeout("lost")
        return await site.fetch(*args, **kwargs)

    async with pulling(tmp_path, flaky, page_limit=20) as puller:
        for n in range(100):
            site.put(f"agent{n}", 1 + n % 3)
        await until(lambda: len(puller.names) == 100)
        for n in range(50):
            site.put(f"agent{n}", 9)
        await until(lambda: sum(e.manifest.seq == 9 for e in puller.imports.entries()) == 50)


async def test_a_hint_brings_changes_at_once(tmp_path: Path) -> None:
    site = Site("globex", PARTNER)
    site.put("calc")
    async with pulling(tmp_path, site.fetch, interval_s=3_600.0, hint_gap_s=0.01) as puller:
        await until(lambda: puller.names == ["calc"])
        site.put("more")
        assert site.org is not None
        puller.imports.heard("did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", "", [])
        assert puller.imports.heard(site.org.did, site.node.did, [entry_of(site.put("pushed"))]) == 1
        await until(lambda: puller.names == ["calc", "more", "pushed"])


async def test_evidence_and_revocations_of_the_seeds_organisation_are_passed_on_and_no_others(tmp_path: Path) -> None:
    site = Site("globex", PARTNER)
    site.put("calc")
    assert site.org is not None
    now = int(time.time())

    def revoke(key: Any, body: Any) -> str:
        return sign_order(key, body, seq=now, iat=now, jti="j")

    good = revoke(site.org, Revoke((site.org.did,)))
    site.orders = [revoke(key_of("stranger"), Revoke(())), revoke(site.org, Stop("no")), "rubbish", good]
    site.desk._evidence = lambda agents: sign_trust_statement(
        site.node, [TrustRow(agents[0], key_of("x").did, 10, 0, 5)], seq=1, iat=now
    )
    async with pulling(tmp_path, site.fetch) as puller:
        await until(lambda: puller.orders and puller.evidence)
        assert {order.raw for order in puller.orders} == {good}
        assert puller.evidence[0][0] == site.node.did


# -- what a lying seed can try


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"[]",
        b"\xff\xfe",
        b"{" * 5_000,
        b'{"entries": 7}',
        b'{"entries": [{"identifier": 1}]}',
        b'"' + b"x" * 100_000,
    ],
)
async def test_garbage_is_a_failure_and_nothing_else(tmp_path: Path, garbage: bytes) -> None:
    site = Site("globex", PARTNER)
    async with pulling(tmp_path, liar(site, garbage)) as puller:
        await until(lambda: puller.imports.views()[0].failures >= 3)
        assert puller.names == []
        assert puller.error.startswith("federation.page")


def forged_entries(site: Site) -> list[tuple[CatalogEntry, str]]:
    """Return entries that no honest seed tells, and why each is refused."""
    good = manifest_of("good", node=site.node, org=site.org)
    other = Site("other", PARTNER)
    stranger = manifest_of("stranger", node=site.node)
    theirs = manifest_of("theirs", node=other.node, org=other.org)
    changed = good.raw.replace(b"Does good.", b"Does evil.")
    swapped = msgspec.json.decode(good.raw)
    swapped["signatures"] = msgspec.json.decode(manifest_of("x", node=site.node, org=site.org).raw)["signatures"]
    unsigned = {k: v for k, v in msgspec.json.decode(good.raw).items() if k != "signatures"}
    stolen = manifest_of("stolen", node=key_of("another node"), org=site.org)
    stolen_card = msgspec.json.decode(stolen.raw)
    return [
        (CatalogEntry(identifier=good.agent_id, data=msgspec.Raw(changed)), "signature.invalid"),
        (CatalogEntry(identifier=good.agent_id, data=msgspec.Raw(msgspec.json.encode(swapped))), "signature.kid"),
        (CatalogEntry(identifier=good.agent_id, data=msgspec.Raw(msgspec.json.encode(unsigned))), "manifest.unsigned"),
        (entry_of(theirs), "federation.foreign"),
        (entry_of(stranger), "federation.foreign"),
        (CatalogEntry(identifier=theirs.agent_id, data=msgspec.Raw(good.raw)), "federation.identifier"),
        (CatalogEntry(identifier="not-a-did", data=msgspec.Raw(good.raw)), "federation.identifier"),
        (CatalogEntry(identifier=good.agent_id, data=msgspec.Raw(b"null")), "manifest.malformed"),
        (CatalogEntry(identifier=good.agent_id, data=msgspec.Raw(b'"' + b"x" * 70_000 + b'"')), "federation.too_large"),
        (entry_of(good, media_type="text/html"), "federation.media_type"),
        (entry_of(good, media_type=TOMBSTONE_TYPE), "federation.media_type"),
        (entry_of(tombstone_of("good", 2, node=site.node)), "federation.media_type"),
        (entry_of(read_back(stolen_card)), ""),
    ]


def read_back(card: dict[str, Any]) -> Any:
    from agentmesh.identity.manifest import read_record

    return read_record(msgspec.json.encode(card), now=int(time.time()), require_signed=True)


async def test_not_one_forged_or_foreign_entry_gets_in_and_the_reasons_are_told(tmp_path: Path) -> None:
    site = Site("globex", PARTNER)
    told = [(entry, why) for entry, why in forged_entries(site) if why]
    honest = manifest_of("honest", node=site.node, org=site.org)
    answer = page(*(entry for entry, _ in told), entry_of(honest))
    async with pulling(tmp_path, liar(site, answer), interval_s=3_600.0) as puller:
        await until(lambda: puller.names)
        assert puller.names == ["honest"]
        expected: dict[str, int] = {}
        for _, why in told:
            expected[why] = expected.get(why, 0) + 1
        assert puller.refusals == expected


async def test_another_organisations_agents_come_in_only_where_the_operator_allows_it(tmp_path: Path) -> None:
    site, other = Site("globex", PARTNER), Site("other", PARTNER)
    assert other.org is not None
    answer = page(entry_of(manifest_of("theirs", node=other.node, org=other.org)))
    async with pulling(tmp_path, liar(site, answer), Seed(ORIGIN, "", frozenset({other.org.did}))) as puller:
        await until(lambda: puller.names == ["theirs"])


async def test_a_seed_without_an_organisation_tells_of_agents_at_its_own_node_only(tmp_path: Path) -> None:
    site = Site("lonely", PARTNER, owned=False)
    here, there = manifest_of("here", node=site.node), manifest_of("there", node=key_of("elsewhere"))
    async with pulling(tmp_path, liar(site, page(entry_of(here), entry_of(there)))) as puller:
        await until(lambda: puller.names == ["here"])
        assert puller.refusals["federation.foreign"] >= 1


async def test_old_records_sent_again_change_nothing(tmp_path: Path) -> None:
    site = Site("globex", PARTNER)
    new, old = (manifest_of("calc", seq, node=site.node, org=site.org) for seq in (9, 3))
    turn = [0]

    def answer(_: str) -> CatalogPage:
        turn[0] += 1
        return page(entry_of(new if turn[0] == 1 else old), cursor=f"c{turn[0]}")

    async with pulling(tmp_path, liar(site, answer)) as puller:
        await until(lambda: puller.refusals.get("manifest.replay", 0) >= 2)
        assert puller.imports.by_name("calc")[0].manifest.seq == 9


async def test_a_seed_that_loops_its_cursor_or_never_ends_is_given_up(tmp_path: Path) -> None:
    site, count = Site("globex", PARTNER), [0]

    def looping(_: str) -> CatalogPage:
        return page(cursor="again", more=True)

    def endless(_: str) -> CatalogPage:
        count[0] += 1
        names = [f"a{count[0]}-{i}" for i in range(20)]
        entries = [CatalogEntry(identifier=key_of(name).did, media_type=WITHDRAWN_TYPE) for name in names]
        return page(*entries, cursor=str(count[0]), more=True)

    async with pulling(tmp_path / "a", liar(site, looping)) as puller:
        await until(lambda: puller.error.startswith("federation.loop"))
    async with pulling(tmp_path / "b", liar(site, endless), round_entries_max=200, page_limit=20) as puller:
        await until(lambda: puller.error.startswith("federation.flood"))
        assert count[0] <= 12


async def test_a_page_with_a_million_entries_is_not_read(tmp_path: Path) -> None:
    site = Site("globex", PARTNER)
    one = msgspec.json.encode(CatalogEntry(identifier=key_of("x").did, media_type=WITHDRAWN_TYPE))
    body = b'{"entries":[' + b",".join([one] * (PAGE_ENTRIES_MAX + 1)) + b"]}"
    async with pulling(tmp_path, liar(site, body)) as puller:
        await until(lambda: puller.error.startswith("federation.page"))
        assert puller.names == []


async def test_a_seed_that_hangs_or_lies_holds_up_no_other(tmp_path: Path) -> None:
    good, bad = Site("globex", PARTNER), Site("bad", PARTNER)
    good.put("calc")

    async def fetch(method: str, url: str, headers: dict[str, str], body: Any, **kwargs: Any) -> Answer:
        if url.startswith("http://127.0.0.1:1/"):
            await asyncio.sleep(3_600)
        if url.startswith("http://127.0.0.1:2/"):
            return sign_page(bad, b"rubbish", headers)
        return await good.fetch(method, url, headers, body, **kwargs)

    seeds = (Seed("http://127.0.0.1:1"), Seed("http://127.0.0.1:2"), Seed(ORIGIN))
    async with pulling(tmp_path, fetch, *seeds) as puller:
        await until(lambda: puller.names == ["calc"])


async def test_somebody_else_at_the_address_of_a_seed_is_not_believed(tmp_path: Path) -> None:
    first, second = Site("globex", PARTNER), Site("impostor", PARTNER)
    first.put("calc")
    now = [first]

    async def fetch(*args: Any, **kwargs: Any) -> Answer:
        return await now[0].fetch(*args, **kwargs)

    async with pulling(tmp_path / "a", fetch) as puller:
        await until(lambda: puller.names == ["calc"])
        second.put("evil")
        now[0] = second
        await until(lambda: puller.error.startswith("federation.other_seed"))
        assert puller.names == ["calc"]
    assert first.org is not None
    async with pulling(tmp_path / "b", second.fetch, Seed(ORIGIN, first.org.did)) as puller:
        await until(lambda: puller.error.startswith("federation.other_seed"))
        assert puller.names == []


async def test_a_page_that_was_changed_on_its_way_or_answers_another_question_is_refused(tmp_path: Path) -> None:
    site = Site("globex", PARTNER)
    site.put("calc")
    kept: list[Answer] = []

    async def changed(*args: Any, **kwargs: Any) -> Answer:
        answer = await site.fetch(*args, **kwargs)
        return answer._replace(body=answer.body.replace(b'"count":1', b'"count":2'))

    async def yesterdays(*args: Any, **kwargs: Any) -> Answer:
        kept.append(await site.fetch(*args, **kwargs))
        return kept[0]

    async def bare(*args: Any, **kwargs: Any) -> Answer:
        return (await site.fetch(*args, **kwargs))._replace(headers={})

    for number, (fetch, code) in enumerate(
        ((changed, "federation.digest"), (yesterdays, "federation.replayed"), (bare, "jws."))
    ):
        async with pulling(tmp_path / str(number), fetch) as puller:
            await until(lambda code=code, puller=puller: puller.error.startswith(code))


async def test_what_a_revoked_seed_told_is_gone_at_once(tmp_path: Path) -> None:
    site = Site("globex", PARTNER)
    site.put("calc")
    async with pulling(tmp_path, site.fetch) as puller:
        await until(lambda: puller.names == ["calc"])
        assert site.org is not None
        org = site.org.did
        puller.refused = lambda did: Unauthorized("revoked", code="refused.organisation") if did == org else None
        puller.imports.refresh()
        assert puller.names == []
        await until(lambda: puller.error.startswith("refused.organisation"))


async def test_agents_below_the_threshold_are_not_shown(tmp_path: Path) -> None:
    site = Site("globex", PARTNER)
    low = site.put("low")
    site.put("fine")
    async with pulling(tmp_path, site.fetch) as puller:
        puller.distrusted = {low.agent_id}
        await until(lambda: puller.names == ["fine"])
        assert puller.imports.entry(low.agent_id) is None


def test_a_seed_cannot_send_this_node_to_addresses_inside() -> None:
    far, near = "https://mesh.example:443", "http://127.0.0.1:7443"
    for address, from_far, from_near in (
        ("iroh:8.8.8.8:6374", True, True),
        ("tls:mesh.example:6375", True, True),
        ("iroh:https://relay.example/", True, True),
        ("tls:10.0.0.7:6375", True, True),  # a partner in the same house
        ("tls:127.0.0.1:6375", False, True),
        ("tls:[::1]:6375", False, True),
        ("tls:[::ffff:127.0.0.1]:6375", False, True),
        ("tls:169.254.169.254:80", False, False),
        ("tls:[fe80::1]:80", False, False),
        ("tls:0.0.0.0:80", False, False),
    ):
        assert _may_dial(address, far) is from_far, address
        assert _may_dial(address, near) is from_near, address


# -- the desk


def ask(site: Site, *, node: Any = None, org: Any = None, **over: Any) -> str:
    node, org = node or key_of("node puller"), org or key_of("org puller")
    given: dict[str, Any] = {
        "method": "GET",
        "url": ORIGIN + PULL,
        "jti": os.urandom(12).hex(),
        "iat": int(time.time()),
        "voucher": voucher(org, node),
    }
    return sign_ask(node, **{**given, **over})


def test_only_partners_are_answered_and_each_proof_once() -> None:
    site = Site("globex", PARTNER)
    site.put("calc")
    proof = ask(site)
    body, signed = site.desk.pull(proof)
    assert len(msgspec.json.decode(body, type=CatalogPage).entries) == 1
    assert signed
    with pytest.raises(ReplayError):
        site.desk.pull(proof)
    other = key_of("another org")
    for wrong in (
        "",
        "rubbish",
        ask(site, org=other),
        ask(site, voucher=""),
        ask(site, voucher=voucher(PARTNER, key_of("another node"))),
        ask(site, url="http://127.0.0.1:9/federation/pull"),
        ask(site, url=ORIGIN + "/federation/push"),
        ask(site, method="POST"),
        ask(site, iat=int(time.time()) - 3_600),
        ask(site, iat=int(time.time()) + 3_600),
        ask(site)[:-4] + "AAAA",
    ):
        with pytest.raises(MeshError):
            site.desk.pull(wrong)
    site.desk.origin = ""
    with pytest.raises(Unauthorized):
        site.desk.pull(ask(site))


def test_a_proof_from_before_this_run_is_refused_since_it_may_have_been_used() -> None:
    site = Site("globex", PARTNER)
    site.desk._opened = int(time.time())
    with pytest.raises(ReplayError):
        site.desk.pull(ask(site, iat=int(time.time()) - 2))
    assert site.desk.pull(ask(site))


def test_a_partner_is_slowed_down_alone() -> None:
    site = Site("globex", PARTNER)
    now = [time.monotonic()]
    site.desk._mono_s = lambda: now[0]

    def storm() -> None:
        for _ in range(1_000):
            site.desk.pull(ask(site))

    with pytest.raises(Busy) as busy:
        storm()
    assert busy.value.retry_after_s > 0
    assert site.desk.visitors[PARTNER.did].refused == 1
    now[0] += 60
    assert site.desk.pull(ask(site))


def test_a_cursor_that_is_forged_or_of_another_partner_or_run_is_refused() -> None:
    mine, theirs, later = Feed("a", b"run one"), Feed("b", b"run one"), Feed("a", b"run two")
    for feed in (mine, theirs, later):
        for n in range(10):
            feed.touch(str(n), 1, 0)
    assert mine.read(mine.cursor(5)) == (5, 0)
    for wrong in (theirs.cursor(5), later.cursor(5), mine.cursor(11)):
        with pytest.raises(ReplayError):
            mine.read(wrong)
    for wrong in ("", "x", "é", "A" * 1_000, mine.cursor(5)[:-2] + "AA", mine.cursor(5) + "A"):
        with pytest.raises((DecodeError, ReplayError)):
            mine.read(wrong)
    mine.assert_invariants()


def test_a_feed_tells_each_agent_once_at_its_last_change() -> None:
    feed = Feed("a", b"secret")
    for agent in ("x", "y", "z"):
        assert feed.touch(agent, 1, 0)
    assert not feed.touch("x", 1, 0)
    assert feed.touch("x", 2, 0)
    assert feed.touch("y", 0, 0)
    assert not feed.touch("never", 0, 0)
    assert [agent for agent, _ in feed.after(0)] == ["z", "x", "y"]
    assert [agent for agent, _ in feed.after(4)] == ["y"]
    feed.assert_invariants()


def test_proofs_of_question_and_answer_hold_for_each_other_only() -> None:
    seed, puller = key_of("seed"), key_of("puller")
    now = int(time.time())
    raw = sign_ask(puller, method="POST", url=ORIGIN + "/federation/push", jti="abc", iat=now, body=b"{}")
    given: dict[str, Any] = {"method": "POST", "origin": ORIGIN, "path": "/federation/push", "now": now}
    asked = read_ask(raw, is_replayed=lambda *_: False, body=b"{}", **given)
    assert (asked.node, asked.organisation) == (puller.did, "")
    with pytest.raises(Unauthorized):
        read_ask(raw, is_replayed=lambda *_: False, body=b"{} ", **given)
    with pytest.raises(ReplayError):
        read_ask(raw, is_replayed=lambda *_: True, body=b"{}", **given)
    answer = sign_answer(seed, asked=asked, body=b"page", iat=now)
    assert read_answer(answer, now=now, asker=puller.did, jti="abc", body=b"page").node == seed.did
    for over in ({"body": b"pagE"}, {"jti": "abd"}, {"asker": seed.did}, {"now": now + 3_600}):
        with pytest.raises((SignatureError, ReplayError)):
            read_answer(answer, **{"now": now, "asker": puller.did, "jti": "abc", "body": b"page", **over})  # type: ignore[arg-type]


# -- federation.toml


def test_the_rules_name_partners_by_key_and_agents_by_name_tag_and_id(tmp_path: Path) -> None:
    file = tmp_path / "federation.toml"
    rules = RulesFile(file, (ORIGIN,))
    assert rules.refresh() is False
    assert list(rules.rules.seeds) == [ORIGIN]
    node = key_of("n")
    agent = manifest_of("Contract-Check", node=node, tag="Finance")
    for listed, sees in (
        ('"contract-*"', True),
        ('"contract"', False),
        ('"tag:FINANCE"', True),
        ('"tag:fin"', False),
        (f'"{agent.agent_id}"', True),
        ("", False),
    ):
        file.write_text(f'[partners.x]\nkey = "{PARTNER.did}"\nagents = [{listed}]\n', "utf-8")
        file.chmod(0o600)
        rules._mark = ()
        rules.refresh()
        assert rules.problem == ""
        assert rules.rules.partners[PARTNER.did].sees(agent) is sees, listed


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[partners.x]\nkey = "did:key:nope"\n', 1),
        ('[partners.x]\nkey = "{did}"\nagent = []\n', 3),
        ('[partners.x]\nkey = "{did}"\n[partners.y]\nkey = "{did}"\n', 3),
        ("[partners.x]\nkey = \n", 2),
        ('[partners.x]\nkey = "{did}"\nhint = "ftp://x"\n', 1),
        ('\n[seeds.x]\nurl = "nowhere"\n', 2),
        ('[seeds.x]\nurl = "https://x"\nallow = ["x"]\n', 1),
        ('[partners.x]\nkey = "{did}"\nreshare = "yes"\n', 3),
    ],
)
def test_a_bad_file_names_line_and_reason_and_the_old_one_stays(tmp_path: Path, text: str, line: int) -> None:
    file = tmp_path / "federation.toml"
    file.write_text(f'[partners.good]\nkey = "{PARTNER.did}"\n', "utf-8")
    file.chmod(0o600)
    rules = RulesFile(file)
    assert rules.refresh()
    before = rules.rules
    file.write_text(text.replace("{did}", PARTNER.did), "utf-8")
    assert not rules.refresh()
    assert rules.rules == before
    assert f"federation.toml:{line}:" in rules.problem, rules.problem
    file.unlink()
    assert rules.refresh()
    assert rules.rules.partners == {}


def test_a_file_that_others_may_write_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "federation.toml"
    file.write_text(f'[partners.x]\nkey = "{PARTNER.did}"\n', "utf-8")
    file.chmod(0o666)
    rules = RulesFile(file)
    assert not rules.refresh()
    assert "others may write" in rules.problem


def test_seeds_are_spelled_one_way() -> None:
    assert parse_seed("https://Mesh.Example").url == "https://mesh.example:443"
    assert parse_seed(f"{PARTNER.did}@http://127.0.0.1:7443/").organisation == PARTNER.did
    for wrong in ("x", "ftp://x", "https://", "https://user:pw@x:y", "did:key:zzz@https://x", "https://x:99999"):
        with pytest.raises(MeshError):
            parse_seed(wrong)
    with pytest.raises(DecodeError):
        origin_of("https://user@host")
