"""Trust in whole nodes: what calls, breaches, people and neighbours leave behind, and what attackers try (docs/spec/trust.md)."""

from __future__ import annotations

import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentmesh.core.contacts.messages import CutOff
from agentmesh.core.trust.config import TrustConfig
from agentmesh.errors import (
    AgentCanceled,
    AgentFailed,
    Busy,
    Closed,
    DecodeError,
    Full,
    LoopDetected,
    MeshError,
    NoRoute,
    ReplayError,
    SignatureError,
    Timeout,
    Unauthorized,
    UsageError,
)
from agentmesh.identity.keys import KeyPair
from agentmesh.identity.trust_statement import TrustRow, read_trust_statement, sign_trust_statement
from agentmesh.node import hearsay as hearsays
from agentmesh.node.blame import kind_of_misbehaviour, kind_of_outcome, kind_of_refusal
from agentmesh.node.hearsay import Hearsay
from agentmesh.node.trust import Trust
from agentmesh.store.trust import TrustStore
from agentmesh.wire import v1
from agentmesh.wire.views import CallRequest
from tests.unit.node.test_two_nodes import ask, echo, fail, knows
from tests.unit.node.world import Member, until, world

NOW = 1_800_000_000
OWN, A, B, AGENT, ELSEWHERE = (KeyPair(bytes([n]) * 32) for n in (1, 2, 3, 4, 5))
DAY_S = 86_400.0


class Clocks:
    """A wall clock and a monotonic one, moved by the test."""

    def __init__(self) -> None:
        self.unix_s, self.mono_s = float(NOW), 100.0

    def pass_(self, seconds: float) -> None:
        self.unix_s += seconds
        self.mono_s += seconds


class OneAgent:
    """A directory that knows where one agent lives."""

    def entry(self, agent_id: str) -> Any:
        return SimpleNamespace(manifest=SimpleNamespace(node_id=A.did)) if agent_id == AGENT.did else None


def trust_of(
    tmp_path: Path, clocks: Clocks, *, cut_off: CutOff | None = None, **config: Any
) -> tuple[Trust, TrustStore]:
    store = TrustStore.open(tmp_path / "trust.sqlite")
    trust = Trust(
        node_id=OWN.did,  # type: ignore[arg-type]
        config=TrustConfig(**config),
        roots=(),
        store=store,
        directory=OneAgent(),  # type: ignore[arg-type]
        cut_off=lambda: cut_off,
        name_of=lambda node: node,
        unix_s=lambda: clocks.unix_s,
        mono_s=lambda: clocks.mono_s,
    )
    return trust, store


def hearsay_of(trust: Trust, store: TrustStore, clocks: Clocks, blamed: list[str]) -> Hearsay:
    return Hearsay(
        OWN,
        trust,
        store,
        links=None,  # type: ignore[arg-type] nobody is asked here
        on_misbehaved=lambda peer, code, detail: blamed.append(code),
        rng=random.Random(1),
        unix_s=lambda: clocks.unix_s,
        mono_s=lambda: clocks.mono_s,
    )


def events(member: Member, ref: str) -> list[str]:
    return [event.kind for event in member.node.trust_in(ref).events]


# -- whole nodes -------------------------------------------------------------------------------------------------------


async def test_calls_at_others_become_evidence_and_are_there_after_a_restart(tmp_path: Path) -> None:
    kits = None
    async with world(tmp_path, 2) as (a, b):
        kits = [a.kit, b.kit]
        await b.serve("echo", echo)
        await b.serve("bad", fail)
        await until(lambda: knows(a, "echo") and knows(a, "bad"))
        assert a.node.trust_in("echo").tier == "unknown"
        await ask(a, "echo")
        with pytest.raises(AgentFailed):
            await ask(a, "bad")
        good, bad = a.node.trust_in("echo"), a.node.trust_in("bad")
        assert good.score > good.base > bad.score
        assert (events(a, "echo"), events(a, "bad")) == (["completed"], ["failed"])
        assert events(a, b.node.node_id) == ["failed", "completed"], "the node answers for its agents"
        assert "the model is on holiday" in bad.events[0].detail
        view = next(v for v in a.node.agents() if v.name == "echo")
        assert (view.trust, view.trust_score, view.trust_tier) == ("signed", good.score, good.tier)
        score, agent = good.score, good.subject
    async with world(tmp_path, 2, kits=kits) as (a, _):
        again = a.node.trust_in(agent)
        assert again.score == pytest.approx(score, abs=1e-3)
        assert [event.kind for event in again.events] == ["completed"]


async def test_ones_own_agents_are_own_and_calls_between_them_are_no_evidence(tmp_path: Path) -> None:
    async with world(tmp_path, 1) as (a,):
        await a.serve("echo", echo)
        await ask(a, "echo")
        view = a.node.trust_in("echo")
        assert (view.tier, view.score, view.events) == ("own", 1.0, [])
        with pytest.raises(UsageError) as error:
            await a.node.report_abuse("echo", "it lies")
        assert error.value.code == "trust.own"
        assert len(a.node.trust.opinions.ledger) == 0


async def test_a_node_whose_token_does_not_hold_loses_trust_and_the_caller_it_names_does_not(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await a.serve("echo", echo)
        await until(lambda: knows(b, "echo"))
        proofs = b.node._calls._remote._proofs  # type: ignore[attr-defined]
        sign = proofs.sign

        def lie(message: v1.CallOpen, *about: Any) -> Any:
            token = sign(message, *about)
            message.parts = [{"text": "something else than was signed"}]
            return token

        proofs.sign = lie  # type: ignore[method-assign]
        with pytest.raises(Unauthorized):
            await ask(b, "echo")
        view = a.node.trust_in(b.node.node_id)
        assert view.tier == "low"
        assert [(event.kind, event.detail.partition(":")[0]) for event in view.events] == [
            ("bad_signature", "token.digest")
        ]
        proofs.sign = sign  # type: ignore[method-assign]
        await ask(b, "echo")
        assert len(a.node.trust_in(b.node.node_id).events) == 1, "to ask in order is no merit and no fault"


async def test_a_report_of_a_person_costs_an_agent_its_trust_and_is_shown_with_its_reason(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        await ask(a, "echo")
        before = a.node.trust_in("echo").score
        view = await a.node.report_abuse("echo", "sent me advertising")
        assert view.score < before / 3
        assert (view.tier, view.events[0].detail) == ("low", "sent me advertising")
        assert next(v for v in a.node.agents() if v.name == "echo").trust_tier == "low"


async def test_a_node_that_dies_is_noted_once_and_lightly(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        a.node.mesh._callbacks.on_dead(b.node.node_id)  # type: ignore[attr-defined]
        (event,) = a.node.trust_in(b.node.node_id).events
        assert (event.kind, event.weight) == ("missed_lease", -0.25)


async def test_neighbours_tell_each_other_what_they_saw_and_that_lifts_whom_one_never_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hearsays, "_SERVE_S", 0.0)
    async with world(tmp_path, 3) as (a, b, c):
        await b.serve("friend", echo)
        await c.serve("stranger", echo)
        await until(lambda: knows(a, "friend") and knows(a, "stranger") and knows(b, "stranger"))
        for _ in range(3):
            await ask(a, "friend")
            await ask(b, "stranger")
        before = a.node.trust_in("stranger")
        assert (before.tier, before.words) == ("unknown", [])
        assert await a.node._hearsay.ask(b.node.node_id)  # type: ignore[attr-defined]
        await a.node.trust.weigh()
        after = a.node.trust_in("stranger")
        (word,) = after.words
        assert (word.issuer, word.bad) == (b.node.node_id, 0.0)
        assert 0.0 < word.weight < 1.0
        assert after.score > before.score
        assert after.others_good > 0.0
        assert after.good == 0.0


async def test_a_neighbour_is_asked_when_its_link_comes_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hearsays, "_FIRST_S", 0.0)
    async with world(tmp_path, 3, join=False) as (a, b, c):
        await c.serve("echo", echo)
        await b.node.add_seeds([c.seed])
        await until(lambda: knows(b, "echo"))
        await ask(b, "echo")
        await a.node.add_seeds([b.seed])
        await until(lambda: a.node.trust.opinions.network.seq_of(b.node.node_id))
        assert a.node.trust_in(c.node.node_id).words[0].issuer == b.node.node_id


# -- what counts, and what does not ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "error", "kind"),
    [
        ("completed", None, "completed"),
        ("input-required", None, None),
        ("failed", AgentFailed("x"), "failed"),
        ("canceled", AgentCanceled("x"), "canceled"),
        ("", Busy("x"), "rejected"),
        ("", LoopDetected("x"), "rejected"),
        ("", Timeout("x"), "timeout"),
        ("", Timeout("x", code="unreached.not_accepted"), "unreached"),
        ("", NoRoute("x"), "unreached"),
        ("", Closed("x"), "unreached"),
        ("", UsageError("x"), None),
        ("", DecodeError("x"), None),
    ],
)
def test_each_outcome_is_evidence_of_one_kind_or_of_nothing(
    state: str, error: MeshError | None, kind: str | None
) -> None:
    assert kind_of_outcome(state, error) == kind


@pytest.mark.parametrize(
    ("code", "detail", "kind"),
    [
        ("signature.invalid", "x", "bad_signature"),
        ("receipt.answer", "x", "bad_signature"),
        ("trust_statement.replayed", "x", "bad_signature"),
        ("overlay.record", "signature.invalid: x", "bad_signature"),
        ("overlay.record", "statement.malformed: x", "protocol_abuse"),
        ("wire.malformed", "x", "protocol_abuse"),
        ("peer.flood", "x", "protocol_abuse"),
        ("receipt.not_yet_valid", "x", None),
        ("manifest.expired", "x", None),
        ("handshake.wrong_peer", "x", None),
    ],
)
def test_a_breach_counts_unless_clocks_or_a_false_address_may_explain_it(
    code: str, detail: str, kind: str | None
) -> None:
    assert kind_of_misbehaviour(code, detail) == kind


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (SignatureError("x", code="signature.invalid"), "bad_signature"),
        (ReplayError("x", code="token.replayed"), "bad_signature"),
        (Unauthorized("x", code="token.address"), "bad_signature"),
        (DecodeError("x", code="claims.malformed"), "protocol_abuse"),
        (ReplayError("x", code="token.expired"), None),
        (ReplayError("x", code="token.not_yet_valid"), None),
        (Unauthorized("x", code="token.missing"), None),
        (Unauthorized("x", code="grant.scope"), None),
        (Busy("x"), None),
        (Full("x"), None),
        (LoopDetected("x"), None),
    ],
)
def test_a_call_that_is_turned_away_counts_only_if_its_token_lies(error: MeshError, kind: str | None) -> None:
    assert kind_of_refusal(error) == kind


def test_silence_is_no_evidence_while_this_node_is_cut_off_and_lies_are(tmp_path: Path) -> None:
    trust, _ = trust_of(tmp_path, Clocks(), cut_off=CutOff(lost=5, known=10, since_s=0.0, isolated=False))
    for _ in range(100):
        trust.note(A.did, "timeout")
        trust.note_dead(A.did)
    assert trust.tier(A.did) == "unknown"
    trust.note(A.did, "bad_signature")
    assert trust.tier(A.did) == "low"


def test_no_jump_of_the_wall_clock_ages_evidence_and_a_wrong_one_at_start_by_a_month_at_most(tmp_path: Path) -> None:
    clocks = Clocks()
    trust, store = trust_of(tmp_path, clocks)
    trust.note(A.did, "bad_signature")
    before = trust.verdict(A.did).own.bad
    for jump_s in (100 * 365 * DAY_S, -50 * 365 * DAY_S):
        clocks.unix_s += jump_s
        clocks.mono_s += 10.0
        assert trust.verdict(A.did).own.bad == pytest.approx(before, rel=1e-4)
    trust.write()
    store.close()
    clocks.unix_s = NOW + 1_000 * DAY_S
    trust, store = trust_of(tmp_path, clocks)
    assert trust.verdict(A.did).own.bad == pytest.approx(before / 2, rel=1e-3)
    trust.note(A.did, "rejected")
    trust.write()
    store.close()
    clocks.unix_s = 5.0
    trust, _ = trust_of(tmp_path, clocks)
    assert trust.verdict(A.did).own.bad == pytest.approx(before / 2 + 0.1, rel=1e-3)


def test_an_agents_score_changes_at_once_when_its_node_does_wrong(tmp_path: Path) -> None:
    trust, _ = trust_of(tmp_path, Clocks())
    trust.note(AGENT.did, "completed")
    before = trust.score(AGENT.did)
    trust.note_misbehaviour(A.did, "signature.invalid", "a forged record")
    assert trust.score(AGENT.did) < before / 2


def test_a_store_that_cannot_be_written_costs_no_memory_and_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trust, store = trust_of(tmp_path, Clocks(), subjects_max=50)

    def full(*_: Any) -> None:
        raise Full("no space left")

    monkeypatch.setattr(store, "save", full)
    for number in range(500):
        trust.note(KeyPair(number.to_bytes(32, "big")).did, "failed")
        trust._try_to_write()  # type: ignore[attr-defined]
    assert len(trust._dirty) <= 50  # type: ignore[attr-defined]
    assert len(trust.opinions.ledger.forgotten) <= 50
    assert not trust._events  # type: ignore[attr-defined]
    monkeypatch.undo()
    trust.write()
    assert len(store.tallies(100)) == len(trust.opinions.ledger)


# -- statements --------------------------------------------------------------------------------------------------------


def statement(key: KeyPair, *, seq: int = 1, iat: int = NOW, good: int = 1_000, subject: str = AGENT.did) -> str:
    return sign_trust_statement(key, [TrustRow(subject, ELSEWHERE.did, good, 0, NOW)], seq=seq, iat=iat)


def test_a_statement_tells_what_is_known_best_and_nothing_of_ones_own(tmp_path: Path) -> None:
    clocks = Clocks()
    trust, store = trust_of(tmp_path, clocks)
    hearsay = hearsay_of(trust, store, clocks, [])
    assert hearsay.statements() == [], "who saw nothing says nothing"
    trust.note(AGENT.did, "completed")
    trust.note(B.did, "bad_signature")
    clocks.pass_(60)
    (raw,) = hearsay.statements()
    said = read_trust_statement(raw, now=NOW + 60)
    assert said.issuer == OWN.did
    assert {(row.subject, row.node, row.good, row.bad, row.since) for row in said.rows} == {
        (AGENT.did, A.did, 1_000, 0, NOW),
        (A.did, "", 1_000, 0, NOW),
        (B.did, "", 0, 10_000, NOW),
    }
    assert hearsay.statements() == [raw], "the same evidence is not signed again"
    store.close()
    trust, store = trust_of(tmp_path, clocks)
    trust.note(B.did, "rejected")
    (later,) = hearsay_of(trust, store, clocks, []).statements()
    assert read_trust_statement(later, now=NOW + 60).seq > said.seq


async def test_statements_are_kept_over_a_restart_and_passed_on_once_they_count(tmp_path: Path) -> None:
    clocks = Clocks()
    trust, store = trust_of(tmp_path, clocks)
    hearsay = hearsay_of(trust, store, clocks, [])
    raw = statement(A)
    assert hearsay.take(A.did, [raw])  # type: ignore[arg-type]
    assert not hearsay.take(A.did, [raw]), "the same again is nothing new"  # type: ignore[arg-type]
    assert raw not in hearsay.statements(), "nobody passes on what counts nothing here"
    trust.opinions.network.weigh({OWN.did: 0.5, A.did: 0.2})
    assert raw in hearsay.statements()
    store.close()
    trust, store = trust_of(tmp_path, clocks)
    again = hearsay_of(trust, store, clocks, [])
    again.open()
    await again.aclose()
    assert trust.opinions.network.seq_of(A.did) == 1
    assert store.statements(10) == [raw]


FORGED = statement(A)[:-20] + statement(B)[-20:]


@pytest.mark.parametrize(
    ("raws", "code"),
    [
        ([FORGED], "signature.invalid"),
        (["no statement"], "jws.malformed"),
        (["x" * 200_000], "trust_statement.too_large"),
        ([statement(A, seq=3)], "trust_statement.replayed"),
        ([statement(A, seq=5, good=9_000)], "trust_statement.equivocation"),
        ([statement(B, seq=n) for n in range(1, 10)], "trust_statement.too_many"),
        ([statement(B), FORGED], "signature.invalid"),
    ],
    ids=["forged", "malformed", "oversized", "replayed", "two under one seq", "too many", "forged in passing"],
)
def test_what_does_not_hold_is_dropped_and_held_against_who_sent_it(tmp_path: Path, raws: list[str], code: str) -> None:
    clocks, blamed = Clocks(), list[str]()
    trust, store = trust_of(tmp_path, clocks)
    hearsay = hearsay_of(trust, store, clocks, blamed)
    hearsay.take(A.did, [statement(A, seq=5)])  # type: ignore[arg-type]
    hearsay.take(A.did, raws)  # type: ignore[arg-type]
    assert blamed == [code]
    assert trust.opinions.network.seq_of(A.did) == 5
    assert trust.opinions.network.words(AGENT.did, "")[0].said.good == 1.0


def test_what_is_out_of_date_or_from_the_future_is_dropped_without_blame(tmp_path: Path) -> None:
    """Whose clock is wrong nobody can tell; and somebody who passes on an old statement of another may not know the new one."""
    clocks, blamed = Clocks(), list[str]()
    trust, store = trust_of(tmp_path, clocks)
    hearsay = hearsay_of(trust, store, clocks, blamed)
    hearsay.take(A.did, [statement(A, seq=5)])  # type: ignore[arg-type]
    assert not hearsay.take(A.did, [statement(A, seq=6, iat=NOW + 1_000)])  # type: ignore[arg-type]
    assert not hearsay.take(A.did, [statement(A, seq=6, iat=NOW - 10**6)])  # type: ignore[arg-type]
    assert not hearsay.take(B.did, [statement(A, seq=4)])  # type: ignore[arg-type]
    assert blamed == []
    assert trust.opinions.network.seq_of(A.did) == 5


async def test_a_peer_that_asks_again_and_again_is_told_nothing_more(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        await ask(a, "echo")
        peer = b.node.links.peer(a.node.node_id)
        assert peer is not None
        told: list[int] = []
        for _ in range(3):
            stream = await peer.link.open_stream()
            await stream.send(v1.encode(v1.TrustQuery(v=v1.WIRE_VERSION)))
            payload = await stream.recv()
            assert payload is not None
            told.append(len(v1.decode_trust_reply(payload).statements))
        assert told[1:] == [0, 0]


async def test_policy_and_balancing_ask_for_a_score_by_any_id(tmp_path: Path) -> None:
    async with world(tmp_path, 2) as (a, b):
        await b.serve("echo", echo)
        await until(lambda: knows(a, "echo"))
        await (await a.node.call(CallRequest(to="echo", text="x"))).reply()
        agent = a.node.trust_in("echo").subject
        assert a.node.trust.score(agent) > a.node.trust.opinions.config.base
        assert a.node.trust.tier(b.node.node_id) != "unknown"
        assert a.node.trust.tier(AGENT.did) == "unknown"
        assert a.node.trust.score(a.node.node_id) == 1.0
        assert 0.5 < a.node.trust.reliance(agent) < 1.0
